//! Each form that a disk can be stored in, over raw images of every shape: QEMU finds nothing to say, compares it with the raw image, and our reader reads it.

use std::fs::{self, File};
use std::num::NonZero;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use iso_builder::recipe::virtual_disk::{Form, VirtualDisk};
use iso_builder::vmdk::{self, Stored};

use crate::samples::{GRAIN, Numbers, any_raw, qemu_img, raw, same, to_usize};

fn threads(number: usize) -> Form {
    Form::Stream { threads: NonZero::new(number).unwrap() }
}

fn store(raw: &Path, path: &Path, form: &Form) {
    let raw = File::open(raw).unwrap();
    let size = raw.metadata().unwrap().len();
    VirtualDisk::create(path, form).unwrap().store(&raw, size, &mut |_| {}).unwrap();
}

fn judged(raw: &Path, path: &Path, form: &Form) {
    same(&*vmdk::open(path).unwrap(), raw);
    // a flat disk has no tables to check
    if *form != Form::Flat {
        qemu_img(&["check", "-q", "-f", "vmdk"], &[path]);
    }
    qemu_img(&["compare", "-q", "-f", "raw", "-F", "vmdk"], &[raw, path]);
}

#[test]
fn any_image_in_any_form() {
    let mut numbers = Numbers(0xda94_2042_e4dd_58b5);
    for round in 0..6 {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        any_raw(&at("raw"), &mut numbers);
        for (number, form) in [Form::Sparse, threads(2), Form::Flat].iter().enumerate() {
            println!("round {round}: {form:?}");
            let path = at(&format!("{number}.vmdk"));
            store(&at("raw"), &path, form);
            judged(&at("raw"), &path, form);
            // and back
            let disk = Stored::open(&path).unwrap();
            VirtualDisk::create(&at("back"), &Form::Raw).unwrap().store(&disk, disk.size(), &mut |_| {}).unwrap();
            same(&File::open(at("back")).unwrap(), &at("raw"));
        }
    }
}

/// A child of a child of an image, each with some bytes of its own, zeros over bytes among them.
#[test]
fn deltas_of_any_image() {
    let mut numbers = Numbers(0x853c_49e6_748f_ea9b);
    for round in 0..6 {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let size = any_raw(&at("raw"), &mut numbers);
        let base = [Form::Sparse, threads(1), Form::Flat][round % 3].clone();
        store(&at("raw"), &at("0.vmdk"), &base);
        for child in 1..3 {
            let image = File::options().write(true).open(at("raw")).unwrap();
            for _ in 0..numbers.below(4) {
                let place = numbers.below(size);
                let length = numbers.below(3 * GRAIN).min(size - place);
                let bytes = if numbers.below(3) == 0 { vec![0; to_usize(length)] } else { numbers.bytes(length) };
                image.write_all_at(&bytes, place).unwrap();
            }
            println!("round {round}: {child} on {base:?}");
            let form = Form::Delta { parent: at(&format!("{}.vmdk", child - 1)) };
            let path = at(&format!("{child}.vmdk"));
            store(&at("raw"), &path, &form);
            judged(&at("raw"), &path, &form);
        }
    }
}

fn dump(path: &Path) -> String {
    vmdk::dump(&File::open(path).unwrap()).unwrap()
}

fn line<'a>(dump: &'a str, key: &str) -> &'a str {
    dump.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_else(|| panic!("{key} in {dump}"))
}

#[test]
fn a_delta_holds_what_differs() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let size = 100 * GRAIN;
    drop(raw(&at("raw"), size, &[(0, &[1; 4 << 16]), (50 * GRAIN, b"x"), (99 * GRAIN, b"y")]));
    store(&at("raw"), &at("base.vmdk"), &Form::Sparse);
    let form = Form::Delta { parent: at("base.vmdk") };
    store(&at("raw"), &at("same.vmdk"), &form);
    let (base, same) = (dump(&at("base.vmdk")), dump(&at("same.vmdk")));
    let cid = line(&base, "CID=");
    // nothing differs: the contents are the parent's, and so is their id
    assert_eq!((line(&same, "CID="), line(&same, "parentCID=")), (cid, cid));
    assert!(same.contains("parentFileNameHint=\"base.vmdk\"") && !same.contains("grains "), "{same}");

    let image = File::options().write(true).open(at("raw")).unwrap();
    image.write_all_at(&[0; 1 << 16], GRAIN).unwrap();
    image.write_all_at(b"z", 50 * GRAIN).unwrap();
    store(&at("raw"), &at("delta.vmdk"), &form);
    let delta = dump(&at("delta.vmdk"));
    assert_eq!(line(&delta, "parentCID="), cid);
    assert_ne!(line(&delta, "CID="), cid);
    assert!(delta.ends_with("grains 1..2 at sector 128\ngrains 50..51 at sector 256\n"), "{delta}");
    let stored = at("delta.vmdk").metadata().unwrap();
    assert_eq!(stored.len(), 3 * GRAIN);
    assert!(stored.blocks() * 512 < 3 * GRAIN, "zeros are a hole of the file");
}

#[test]
fn deltas_that_cannot_be() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("below")).unwrap();
    drop(raw(&at("raw"), GRAIN, &[(0, b"x")]));
    store(&at("raw"), &at("base.vmdk"), &Form::Sparse);
    let create = |path: &str, parent: &str| {
        let made = VirtualDisk::create(&at(path), &Form::Delta { parent: at(parent) });
        let raw = File::open(at("raw")).unwrap();
        let error = made.and_then(|disk| disk.store(&raw, 2 * GRAIN, &mut |_| {})).unwrap_err();
        let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        format!("{error}: {source}")
    };
    let error = create("below/delta.vmdk", "base.vmdk");
    assert!(error.contains("where the disk will look for it: put it there first"), "{error}");
    let error = create("base.vmdk", "base.vmdk");
    assert!(error.ends_with("it is one of its own parents"), "{error}");
    let error = create("delta.vmdk", "base.vmdk");
    assert!(
        error.ends_with("a disk of 131072 bytes is no delta of one of 65536: give it the parent's size"),
        "{error}"
    );
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3, "nothing half is left");
}

#[test]
fn any_number_of_threads_writes_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let mut numbers = Numbers(77);
    let parts: Vec<(u64, Vec<u8>)> = (0..30).map(|n| (n * 21 * GRAIN, numbers.bytes(100_000))).collect();
    let parts: Vec<(u64, &[u8])> = parts.iter().map(|(at, bytes)| (*at, bytes.as_slice())).collect();
    drop(raw(&at("raw"), 700 * GRAIN, &parts));
    store(&at("raw"), &at("disk.vmdk"), &threads(1));
    let one = fs::read(at("disk.vmdk")).unwrap();
    for number in [2, 3, 7, 64] {
        store(&at("raw"), &at("disk.vmdk"), &threads(number));
        assert!(fs::read(at("disk.vmdk")).unwrap() == one, "{number} threads");
    }
}

#[test]
fn a_flat_disk_is_two_files() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let size = 10 * GRAIN + 700;
    drop(raw(&at("raw"), size, &[(5 * GRAIN, b"x"), (size - 1, b"y")]));
    store(&at("raw"), &at("disk.vmdk"), &Form::Flat);
    let expected = r#"# Disk DescriptorFile
version=1
CID=CID
parentCID=ffffffff
createType="monolithicFlat"

# Extent description
RW 1282 FLAT "disk-flat.vmdk" 0

# The Disk Data Base
#DDB

ddb.virtualHWVersion = "4"
ddb.geometry.cylinders = "0"
ddb.geometry.heads = "255"
ddb.geometry.sectors = "63"
ddb.adapterType = "lsilogic"
"#;
    let text = fs::read_to_string(at("disk.vmdk")).unwrap();
    assert_eq!(text, expected.replace("CID=CID", &format!("CID={}", line(&text, "CID="))));
    let flat = at("disk-flat.vmdk").metadata().unwrap();
    assert_eq!(flat.len(), 1282 * 512);
    assert!(flat.blocks() * 512 <= 2 * GRAIN, "holes are kept: {} blocks", flat.blocks());
    // the same contents have the same id, however they are stored
    store(&at("raw"), &at("sparse.vmdk"), &Form::Sparse);
    assert_eq!(line(&dump(&at("sparse.vmdk")), "CID="), line(&text, "CID="));

    // written in place, as by a file system's writer, it is the same
    let disk = VirtualDisk::create(&at("other.vmdk"), &Form::Flat).unwrap();
    let file = disk.raw().unwrap();
    file.set_len(size).unwrap();
    file.write_all_at(b"x", 5 * GRAIN).unwrap();
    file.write_all_at(b"y", size - 1).unwrap();
    disk.finish(&file, size, &mut |_| {}).unwrap();
    assert_eq!(fs::read_to_string(at("other.vmdk")).unwrap(), text.replace("disk-flat", "other-flat"));
    assert!(fs::read(at("other-flat.vmdk")).unwrap() == fs::read(at("disk-flat.vmdk")).unwrap());
}

/// More than 4 GiB, nearly all of it holes.
#[test]
fn holes_are_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let size = 600 << 30;
    drop(raw(&at("raw"), size, &[(0, b"a"), (5 << 30, b"b"), (size - 1, b"c")]));
    store(&at("raw"), &at("base.vmdk"), &Form::Sparse);
    let delta = Form::Delta { parent: at("base.vmdk") };
    for (name, form) in [("stream", threads(2)), ("flat", Form::Flat), ("delta", delta)] {
        let path = at(&format!("{name}.vmdk"));
        store(&at("raw"), &path, &form);
        let disk = vmdk::open(&path).unwrap();
        for (place, expected) in [(0, b'a'), (5 << 30, b'b'), (size - 1, b'c'), (6 << 30, 0)] {
            let mut byte = [9];
            disk.read_exact_at(&mut byte, place).unwrap();
            assert_eq!(byte[0], expected, "{name} at {place}");
        }
        assert!(path.metadata().unwrap().blocks() * 512 < 64 << 20, "{name}");
    }
}
