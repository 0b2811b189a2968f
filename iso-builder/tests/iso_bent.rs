//! Records of an ISO 9660 image bent one at a time: what cannot be is refused by its name, and nothing is taken for what it is not.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use iso_builder::iso9660::{self, Options};
use iso_builder::tree::{Content, Kind, Meta, Node, ROOT, ReadAt, Time, Tree};

/// An image of a directory and files, of which `y` and `z` are one.
fn image() -> Vec<u8> {
    let node = |kind| Node { meta: Meta { mode: 0o640, ..Meta::default() }, kind };
    let mut tree = Tree::new(Meta { mode: 0o755, ..Meta::default() });
    let dir = tree.insert(ROOT, b"d", node(Kind::Dir(Default::default())));
    tree.insert(dir, b"in", node(Kind::File(Content::from_bytes(*b"in"))));
    tree.insert(ROOT, b"a", node(Kind::File(Content::from_bytes([1; 3000]))));
    tree.insert(ROOT, b"b", node(Kind::File(Content::from_bytes([2; 3000]))));
    let twice = tree.insert(ROOT, b"y", node(Kind::File(Content::from_bytes([3; 3000]))));
    tree.link(ROOT, b"z", twice);
    let options = Options {
        volume: "BENT".to_owned(),
        publisher: "NOBODY".to_owned(),
        time: Time { secs: 0, nanos: 0 },
        joliet: false,
        boot: Default::default(),
    };
    let out = tempfile::tempfile().unwrap();
    iso9660::write(&tree, &options, &out).unwrap();
    let mut bytes = vec![0; usize::try_from(out.metadata().unwrap().len()).unwrap()];
    FileExt::read_exact_at(&out, &mut bytes, 0).unwrap();
    bytes
}

fn u32_at(image: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(*image[at..].first_chunk().unwrap())
}

/// Where the record of a name in the root directory begins, and where the name's byte is in it.
fn record(image: &[u8], name: u8) -> (usize, usize) {
    let mut at = u32_at(image, 16 * 2048 + 156 + 2) as usize * 2048;
    while image[at] != 0 {
        let len = usize::from(image[at]);
        let field = [b'N', b'M', 6, 1, 0, name];
        if let Some(found) = image[at..at + len].windows(6).position(|bytes| bytes == field) {
            return (at, at + found + 5);
        }
        at += len;
    }
    panic!("it is there")
}

fn read(image: &[u8]) -> Result<Tree, String> {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(image, 0).unwrap();
    let file: Arc<dyn ReadAt> = Arc::<File>::new(file);
    iso9660::read(&file).map_err(|error| error.to_string())
}

#[track_caller]
fn check(place: usize, bytes: &[u8], expected: &str) {
    let mut bent = image();
    bent[place..place + bytes.len()].copy_from_slice(bytes);
    let error = read(&bent).map(drop).unwrap_err();
    assert!(error.contains(expected), "{expected:?} is not in {error:?}");
}

#[test]
fn records_that_cannot_be() {
    let whole = image();
    let root = u32_at(&whole, 16 * 2048 + 156 + 2);
    let [(a, _), (b, b_name), (d, _), (z, _)] = [b'a', b'b', b'd', b'z'].map(|name| record(&whole, name));
    read(&whole).unwrap();
    check(a + 10, &u32::MAX.to_le_bytes(), "a file reaches beyond the image's end");
    check(a + 2, &0x7fff_0000u32.to_le_bytes(), "a file reaches beyond the image's end");
    check(d + 2, &root.to_le_bytes(), "two directories lie in one place");
    check(d + 10, &0x7fff_0000u32.to_le_bytes(), "a directory reaches beyond the image's end");
    check(z + 25, &[0x80], "the last part of a file is missing");
    // a directory stands behind it
    check(b + 25, &[0x80], "the last part of a file is missing");
    check(b_name, b"a", "two files are named \"a\"");
    for name in [b"/", b"\0", b"."] {
        check(b_name, name, "a file has a name that no file can have");
    }
    check(b + 26, &[1], "a file is interleaved");
}

/// Two names are one file only if all that is said of both is the same.
#[test]
fn links_that_say_different_things_are_two_files() {
    let mut image = image();
    let ids = |image: &[u8]| {
        let tree = read(image).unwrap();
        [b"y", b"z"].map(|name| tree.child(ROOT, name).map(|id| (id, tree.node(id).meta.mode)).unwrap())
    };
    let [y, z] = ids(&image);
    assert_eq!(y, z);
    let (at, _) = record(&image, b'z');
    let field = image[at..].windows(2).position(|bytes| bytes == b"PX").unwrap();
    image[at + field + 4..][..4].copy_from_slice(&0o100_600u32.to_le_bytes());
    let [y, z] = ids(&image);
    assert_eq!((y.1, z.1), (0o640, 0o600));
    assert_ne!(y.0, z.0);
}
