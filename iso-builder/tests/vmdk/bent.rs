//! Fields of a sparse extent bent one at a time: what cannot be is refused by its name, at the latest when it is read.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt;
use std::path::Path;

use iso_builder::vmdk::{self, Stored};

use crate::reader::{descriptor, root};
use crate::samples::raw;
use crate::writers::{stream, write};

const SIZE: u64 = 34 << 20;

/// The error of opening a disk and of reading its first bytes.
fn refusal(path: &Path) -> String {
    let mut bytes = [0; 100];
    match vmdk::open(path) {
        Ok(disk) => disk.read_exact_at(&mut bytes, 0).expect_err("it is read").to_string(),
        Err(error) => root(&error),
    }
}

#[track_caller]
fn check(whole: &[u8], place: usize, bytes: &[u8], expected: &str) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bent.vmdk");
    let mut bent = whole.to_vec();
    bent[place..place + bytes.len()].copy_from_slice(bytes);
    fs::write(&path, bent).unwrap();
    let found = refusal(&path);
    assert!(found.contains(expected), "{expected:?} is not in {found:?}");
}

#[test]
fn fields_that_cannot_be() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let image = raw(&at("raw"), SIZE, &[(0, &[3; 5000])]);
    write(&image, SIZE, &at("sparse.vmdk")).unwrap();
    stream(&image, SIZE, &at("stream.vmdk")).unwrap();
    let [sparse, streamed] = ["sparse.vmdk", "stream.vmdk"].map(|name| fs::read(at(name)).unwrap());

    check(&sparse, 4, &9u32.to_le_bytes(), "its version is none of 1, 2 and 3");
    check(&sparse, 12, &(1u64 << 37).to_le_bytes(), "larger than a million tables");
    check(&sparse, 20, &3u64.to_le_bytes(), "no power of 2");
    check(&sparse, 20, &(1u64 << 16).to_le_bytes(), "more than 16 MiB");
    check(&sparse, 36, &(1u64 << 20).to_le_bytes(), "its descriptor is larger than 1 MiB");
    check(&sparse, 44, &0u32.to_le_bytes(), "its tables have no entries, or more than 512");
    check(&sparse, 44, &513u32.to_le_bytes(), "its tables have no entries, or more than 512");
    check(&sparse, 73, b"\r", "its line ends were changed");

    let footer = streamed.len() - 1024;
    check(&streamed, 20, &(1u64 << 12).to_le_bytes(), "1 MiB if they are compressed");
    check(&streamed, footer + 12, &1u64.to_le_bytes(), "its footer is not that of its header");
    let grain = 64 << 10;
    check(&streamed, grain, &1u64.to_le_bytes(), "a grain's marker names another place");
    check(&streamed, grain + 8, &u32::MAX.to_le_bytes(), "a compressed grain is longer than any can be");
    let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&[3; 5000]).unwrap();
    let packed = packed.finish().unwrap();
    let short = [&u32::try_from(packed.len()).unwrap().to_le_bytes()[..], &packed].concat();
    check(&streamed, grain + 8, &short, "a compressed grain is too short");
    check(&streamed, grain + 12, &[0xff; 8], "a compressed grain is damaged");
}

/// An open file for each extent, of the disk and its parents together; and no extent beyond what holds it.
#[test]
fn extents_that_cannot_be() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("flat"), [7; 512]).unwrap();
    let disk = |name: &str, count: usize, line: &str, more: &str| {
        fs::write(at(name), descriptor(&format!("{more}\n{}", format!("{line}\n").repeat(count)))).unwrap();
        at(name)
    };
    let of_all = "it and its parents have more than 512 extents";
    assert_eq!(vmdk::open(&disk("most", 512, "RW 1 ZERO", "")).unwrap().size().unwrap(), 512 * 512);
    assert!(refusal(&disk("more", 513, "RW 1 ZERO", "")).contains("it has more than 512 extents"));
    disk("base", 256, "RW 1 FLAT \"flat\" 0", "");
    let over = "parentCID=1\nparentFileNameHint=\"base\"";
    assert_eq!(vmdk::open(&disk("top", 256, "RW 1 FLAT \"flat\" 0", over)).unwrap().size().unwrap(), 256 * 512);
    assert!(refusal(&disk("top", 257, "RW 1 FLAT \"flat\" 0", over)).contains(of_all));

    write(&raw(&at("raw"), 1 << 20, &[(0, b"x")]), 1 << 20, &at("sparse.vmdk")).unwrap();
    assert!(vmdk::open(&disk("fits", 1, "RW 2048 SPARSE \"sparse.vmdk\"", "")).is_ok());
    let larger = disk("larger", 1, "RW 2049 SPARSE \"sparse.vmdk\"", "");
    assert!(refusal(&larger).contains("it is smaller than the extent that it holds"));
}

/// VMware marks a grain of zeros over a parent's bytes by the number 1 in place of a place.
#[test]
fn a_zero_grain_hides_the_parents() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    write(&raw(&at("old"), SIZE, &[(0, b"old")]), SIZE, &at("base.vmdk")).unwrap();
    let mut out = File::options().read(true).write(true).create_new(true).open(at("top.vmdk")).unwrap();
    let parent = Stored::open(&at("base.vmdk")).unwrap();
    let zeros = raw(&at("new"), SIZE, &[]);
    vmdk::write_delta(&zeros, SIZE, "top.vmdk", (&parent, "base.vmdk"), &mut out, &mut |_| {}).unwrap();
    let u32_at = |place: u64| {
        let mut bytes = [0; 4];
        out.read_exact_at(&mut bytes, place).unwrap();
        u64::from(u32::from_le_bytes(bytes))
    };
    let table = u32_at(u32_at(56) * 512) * 512;
    for (entry, expected) in [(None, b"\0\0\0"), (Some(1u32), b"\0\0\0"), (Some(0), b"old")] {
        entry.inspect(|entry| out.write_all_at(&entry.to_le_bytes(), table).unwrap());
        let mut bytes = [9; 3];
        vmdk::open(&at("top.vmdk")).unwrap().read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, expected, "{entry:?}");
    }
}
