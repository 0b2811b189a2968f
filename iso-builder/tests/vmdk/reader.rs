//! The reader: every kind of VMDK gives the raw image back, whoever wrote it, and a file that was made to harm its reader does not.

use std::fs;
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::process::Command;

use iso_builder::vmdk::{self, Error};

use crate::samples::{GRAIN, Numbers, Parts, any_raw, qemu_img, raw, same};
use crate::writers::{stream, write};

#[test]
fn what_we_write_is_read_back() {
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    for round in 0..10 {
        let dir = tempfile::tempdir().unwrap();
        let (raw_path, sparse, streamed) =
            (dir.path().join("raw"), dir.path().join("sparse.vmdk"), dir.path().join("stream.vmdk"));
        let size = any_raw(&raw_path, &mut numbers);
        let image = fs::File::open(&raw_path).unwrap();
        write(&image, size, &sparse).unwrap();
        stream(&image, size, &streamed).unwrap();
        for path in [&sparse, &streamed] {
            println!("round {round}: {}", path.display());
            same(&*vmdk::open(path).unwrap(), &raw_path);
        }
    }
}

#[test]
fn what_qemu_writes_is_read() {
    let mut numbers = Numbers(0x2545_f491_4f6c_dd1d);
    let kinds = ["monolithicSparse", "monolithicFlat", "streamOptimized", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat"];
    for kind in kinds {
        let dir = tempfile::tempdir().unwrap();
        let (raw_path, path) = (dir.path().join("raw"), dir.path().join("disk.vmdk"));
        for part in 0..2 {
            any_raw(&raw_path, &mut numbers);
            println!("{kind} {part}");
            let option = format!("subformat={kind}");
            if !qemu_img(&["convert", "-f", "raw", "-O", "vmdk", "-o", &option], &[&raw_path, &path]) {
                return;
            }
            same(&*vmdk::open(&path).unwrap(), &raw_path);
            fs::remove_file(&raw_path).unwrap();
        }
    }
}

/// Two extents, so that a read goes over the edge between them.
#[test]
fn a_disk_of_two_extents() {
    let dir = tempfile::tempdir().unwrap();
    let (raw_path, path) = (dir.path().join("raw"), dir.path().join("disk.vmdk"));
    let edge = 4_194_304 * 512 - GRAIN;
    let parts: Parts = &[(0, b"a"), (edge - 3, b"over the edge"), (edge + 100_000_000, b"z")];
    raw(&raw_path, edge + 200_000_000, parts);
    for kind in ["twoGbMaxExtentSparse", "twoGbMaxExtentFlat"] {
        let option = format!("subformat={kind}");
        if !qemu_img(&["convert", "-f", "raw", "-O", "vmdk", "-o", &option], &[&raw_path, &path]) {
            return;
        }
        let disk = vmdk::open(&path).unwrap();
        for (at, expected) in parts {
            let mut bytes = vec![0; expected.len()];
            disk.read_exact_at(&mut bytes, *at).unwrap();
            assert_eq!(&bytes, expected, "{kind} at {at}");
        }
        assert_eq!(disk.size().unwrap(), edge + 200_000_000 / 512 * 512);
    }
    let extent = vmdk::open(&dir.path().join("disk-s001.vmdk")).unwrap_err();
    assert!(root(&extent).contains("it is one extent of a disk"), "{extent:?}");
}

/// Writes with `qemu-io`, in QEMU's words.
fn qemu_io(path: &Path, command: &str) {
    let output = Command::new("qemu-io").args(["-f", "vmdk", "-c", command]).arg(path).output().expect("qemu-io");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn parents_are_followed() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let size = 40 << 20;
    write(&raw(&at("raw"), size, &[(0, &[1; 300_000]), (33 << 20, &[2; 100_000])]), size, &at("base.vmdk")).unwrap();
    let overlay = |parent: &str, path: &str| {
        let words = ["create", "-q", "-f", "vmdk", "-F", "vmdk", "-b", parent, path];
        let output = Command::new("qemu-img").args(words).current_dir(dir.path()).output();
        output.is_ok_and(|output| output.status.success())
    };
    if !overlay("base.vmdk", "middle.vmdk") {
        assert!(std::env::var_os("CI").is_none(), "qemu-img");
        return;
    }
    qemu_io(&at("middle.vmdk"), "write -P 7 64k 128k");
    assert!(overlay(at("middle.vmdk").to_str().unwrap(), "top.vmdk"), "with an absolute path for a name");
    qemu_io(&at("top.vmdk"), "write -P 9 33M 64k");
    assert!(qemu_img(&["convert", "-O", "raw"], &[&at("top.vmdk"), &at("expected")]));
    same(&*vmdk::open(&at("top.vmdk")).unwrap(), &at("expected"));

    // QEMU changes a content id with the first write
    qemu_io(&at("middle.vmdk"), "write -P 8 0 64k");
    let error = vmdk::open(&at("top.vmdk")).unwrap_err();
    assert!(root(&error).contains("it was written to since, or is another disk"), "{error:?}");
    fs::remove_file(at("base.vmdk")).unwrap();
    let error = vmdk::open(&at("middle.vmdk")).unwrap_err();
    assert!(error.to_string().ends_with("/base.vmdk") && root(&error).contains("No such file"), "{error:?}");
}

/// What the innermost error says.
pub(crate) fn root(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

pub(crate) fn descriptor(lines: &str) -> String {
    format!("# Disk DescriptorFile\nversion=1\nCID=00000001\n{lines}\n")
}

#[test]
fn a_disk_reads_no_file_elsewhere() {
    let outer = tempfile::tempdir().unwrap();
    let dir = outer.path().join("disk");
    fs::create_dir_all(dir.join("below")).unwrap();
    let secret = outer.path().join("secret");
    for file in [&secret, &dir.join("flat"), &dir.join("below/flat")] {
        fs::write(file, [7; 512]).unwrap();
    }
    symlink(&secret, dir.join("link")).unwrap();
    symlink("flat", dir.join("good")).unwrap();
    let path = dir.join("disk.vmdk");
    let absolute = secret.to_str().unwrap();
    for name in [absolute, "../secret", "below/../../secret", "link", "/dev/null", "../missing"] {
        for line in [
            format!("RW 1 FLAT \"{name}\" 0"),
            format!("RW 1 SPARSE \"{name}\""),
            format!("parentCID=1\nparentFileNameHint=\"{name}\""),
        ] {
            fs::write(&path, descriptor(&line)).unwrap();
            let error = vmdk::open(&path).unwrap_err();
            assert!(root(&error).contains("which is not in its directory"), "{line}: {error:?}");
        }
    }
    symlink(&path, outer.path().join("elsewhere.vmdk")).unwrap();
    for name in ["flat", "good", "./flat", "below/flat", dir.join("flat").to_str().unwrap()] {
        fs::write(&path, descriptor(&format!("RW 1 FLAT \"{name}\" 0\nRW 1 ZERO"))).unwrap();
        for path in [&path, &outer.path().join("elsewhere.vmdk")] {
            let mut bytes = [9; 600];
            vmdk::open(path).unwrap().read_exact_at(&mut bytes, 0).unwrap();
            assert!(bytes[..512] == [7; 512] && bytes[512..] == [0; 88], "{name}");
        }
    }
}

#[test]
fn chains_without_end() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, parent: &str| {
        let text = descriptor(&format!("parentCID=1\nparentFileNameHint=\"{parent}\"\nRW 1 ZERO"));
        fs::write(dir.path().join(name), text).unwrap();
    };
    let open = |name: &str| vmdk::open(&dir.path().join(name)).map(|disk| disk.size().unwrap());
    write("a", "b");
    write("b", "a");
    assert!(root(&open("a").unwrap_err()).contains("one of its own parents"));
    fs::write(dir.path().join("0"), descriptor("RW 1 ZERO")).unwrap();
    (1..=33).for_each(|number: u32| write(&number.to_string(), &(number - 1).to_string()));
    assert_eq!(open("32").unwrap(), 512);
    assert!(root(&open("33").unwrap_err()).contains("more than 32 parents"));
    fs::write(dir.path().join("c"), descriptor("parentCID=1")).unwrap();
    assert!(root(&open("c").unwrap_err()).contains("it has a parent, and does not say which"));
}

#[test]
fn what_is_no_disk() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("text"), "hello").unwrap();
    fs::write(at("short"), descriptor("RW 2 FLAT \"text\" 0")).unwrap();
    fs::write(at("huge"), descriptor(&format!("RW {} ZERO", u64::MAX))).unwrap();
    fs::write(at("sum"), descriptor(&format!("RW {0} ZERO\nRW {0} ZERO", 1u64 << 53))).unwrap();
    for (name, expected) in [
        ("text", "neither a sparse extent nor a descriptor"),
        ("short", "it ends before the extent"),
        ("huge", "larger than any file"),
        ("sum", "larger than any file"),
        (".", "is a directory"),
        ("missing", "No such file"),
    ] {
        let error = vmdk::open(&at(name)).unwrap_err();
        assert!(matches!(error, Error::In { .. }) && root(&error).contains(expected), "{name}: {error:?}");
    }
    assert!(!vmdk::is_vmdk(&fs::File::open(at("text")).unwrap()).unwrap());
    assert!(vmdk::is_vmdk(&fs::File::open(at("short")).unwrap()).unwrap());
}

/// Each byte of the metadata bent, and the file cut: an error or some bytes, never a panic, and in bounded time.
#[test]
fn damaged_disks() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let size = 34 << 20;
    let image = raw(&at("raw"), size, &[(0, b"x"), (GRAIN, &[3; 5000]), (33 << 20, b"y")]);
    write(&image, size, &at("sparse.vmdk")).unwrap();
    stream(&image, size, &at("stream.vmdk")).unwrap();
    let look = |path: &Path| {
        let Ok(disk) = vmdk::open(path) else { return };
        let mut bytes = vec![0; 70_000];
        for at in [0, 32 << 20, 33 << 20] {
            drop(disk.read_exact_at(&mut bytes, at));
        }
    };
    for name in ["sparse.vmdk", "stream.vmdk"] {
        let whole = fs::read(at(name)).unwrap();
        let end = whole.len();
        fs::write(at("bent"), &whole).unwrap();
        let bent = fs::File::options().write(true).open(at("bent")).unwrap();
        // header, descriptor, directories and first tables; a stream has its grains, and its tables, at the end
        let places = (0..80).chain((512..700).step_by(3)).chain((21 * 512..40 * 512).step_by(101));
        let places = places.chain((end - 8000..end).step_by(71)).chain((64 << 10)..(64 << 10) + 40);
        for place in places.filter(|&place| place < end) {
            for value in [0, 1, 0x7f, 0xff] {
                bent.write_all_at(&[value], place as u64).unwrap();
                look(&at("bent"));
            }
            bent.write_all_at(&whole[place..=place], place as u64).unwrap();
        }
        for length in (0..end).rev().step_by(4091) {
            bent.set_len(length as u64).unwrap();
            look(&at("bent"));
        }
    }
    let whole = fs::read(at("stream.vmdk")).unwrap();
    fs::write(at("bent"), &whole[..whole.len() - 512]).unwrap();
    let error = vmdk::open(&at("bent")).unwrap_err();
    assert!(root(&error).contains("it has no footer, so it was cut"), "{error:?}");
}
