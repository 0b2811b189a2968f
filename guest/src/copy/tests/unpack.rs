//! What becomes of an archive that means no harm.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt as _, symlink};

use nix::unistd::{Gid, Uid};

use super::{Scratch, crafted, file, hard_link, is_root, link, of_kind, unpack_in};
use crate::copy::entry::{Entry, Kind, Meta, Time};
use crate::copy::reader::Reader;
use crate::copy::{header, unpack};

#[test]
fn an_absolute_name_begins_at_the_directory() {
    let scratch = Scratch::new();
    scratch.dir("dir");
    let archive = [file("/etc/passwd", b"x"), hard_link("/linked", "/etc/passwd")].concat();
    unpack_in(&scratch.0, "dir", false, &archive).unwrap();
    assert_eq!(fs::read(scratch.0.join("dir/etc/passwd")).unwrap(), b"x");
    assert_eq!(fs::metadata(scratch.0.join("dir/linked")).unwrap().nlink(), 2);
    assert_eq!(fs::metadata(scratch.0.join("dir/etc")).unwrap().mode() & 0o7777, 0o755);
}

#[test]
fn links_that_were_there_are_followed_within_the_root() {
    let scratch = Scratch::new();
    for dir in ["usr", "usr/lib", "data", "app"] {
        scratch.dir(dir);
    }
    symlink("usr/lib", scratch.0.join("lib")).unwrap();
    symlink("/data", scratch.0.join("app/data")).unwrap();
    symlink("/../../../app", scratch.0.join("up")).unwrap();
    unpack_in(&scratch.0, "/", false, &file("lib/x", b"1")).unwrap();
    assert_eq!(fs::read(scratch.0.join("usr/lib/x")).unwrap(), b"1");
    unpack_in(&scratch.0, "/app", false, &file("data/new/x", b"2")).unwrap();
    assert_eq!(fs::read(scratch.0.join("data/new/x")).unwrap(), b"2");
    unpack_in(&scratch.0, "/up", false, &file("x", b"3")).unwrap();
    assert_eq!(fs::read(scratch.0.join("app/x")).unwrap(), b"3");
    // in the root, a link of the archive has nowhere to lead out to
    let archive = [link("l", "/../data"), file("l/y", b"4")].concat();
    unpack_in(&scratch.0, "/", false, &archive).unwrap();
    assert_eq!(fs::read(scratch.0.join("data/y")).unwrap(), b"4");
    // a link of the archive that stays inside does not make those that were there suspect
    let archive = [link("inside", "x"), file("data/z", b"5")].concat();
    unpack_in(&scratch.0, "/app", false, &archive).unwrap();
    assert_eq!(fs::read(scratch.0.join("data/z")).unwrap(), b"5");
}

#[test]
fn a_file_replaces_a_directory_only_when_asked() {
    let scratch = Scratch::new();
    let dir = scratch.dir("dir");
    fs::create_dir_all(dir.join("full/below")).unwrap();
    for number in 0..1000 {
        fs::write(dir.join(format!("full/below/{number}")), b"x").unwrap();
    }
    symlink("/", dir.join("full/link")).unwrap();
    fs::write(dir.join("file"), b"old").unwrap();
    let to_file = file("full", b"new");
    let error = unpack_in(&scratch.0, "dir", false, &to_file).unwrap_err().to_string();
    assert!(error.contains("cannot overwrite directory \"full\" with non-directory"), "{error}");
    let to_dir = of_kind("file/", Kind::Directory);
    let error = unpack_in(&scratch.0, "dir", false, &to_dir).unwrap_err().to_string();
    assert!(error.contains("cannot overwrite non-directory \"file/\" with directory"), "{error}");
    unpack_in(&scratch.0, "dir", true, &[to_file, to_dir].concat()).unwrap();
    assert_eq!(fs::read(dir.join("full")).unwrap(), b"new");
    assert!(dir.join("file").is_dir());
    // without it, files still replace files, and a link is replaced, not written through
    symlink("full", dir.join("link")).unwrap();
    let archive = [file("link", b"own"), hard_link("hard", "full"), hard_link("full", "hard")].concat();
    unpack_in(&scratch.0, "dir", false, &archive).unwrap();
    assert_eq!(fs::read(dir.join("full")).unwrap(), b"new");
    assert_eq!(fs::read(dir.join("link")).unwrap(), b"own");
}

#[test]
fn owners_are_roots_unless_asked_for() {
    if !is_root("owners_are_roots_unless_asked_for") {
        return;
    }
    let scratch = Scratch::new();
    let meta = Meta { mode: 0o6755, uid: 1000, gid: 1000, ..Meta::default() };
    let archive = header::encode(&Entry { name: b"x".into(), kind: Kind::File { size: 0 }, meta });
    for (owners, expected) in [(false, (0, 0)), (true, (1000, 1000))] {
        let root = File::open(&scratch.0).unwrap().into();
        unpack::unpack(root, "/", owners, false, &mut archive.as_slice()).unwrap();
        let meta = fs::metadata(scratch.0.join("x")).unwrap();
        assert_eq!(((meta.uid(), meta.gid()), meta.mode() & 0o7777), (expected, 0o6755));
    }
}

#[test]
fn the_directory_must_be_one() {
    let scratch = Scratch::new();
    fs::write(scratch.0.join("file"), b"").unwrap();
    for dir in ["none", "file", "none/.."] {
        let error = unpack_in(&scratch.0, dir, true, b"").unwrap_err();
        assert!(error.to_string().contains("cannot open the directory"), "{error}");
    }
}

#[test]
fn numbers_and_names_of_other_programs_are_read() {
    let great = [0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3];
    let negative = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe];
    let first = crafted(b'0', &[(header::NAME, b"first"), (header::SIZE, &great), (header::MTIME, &negative)], b"abc");
    let second = crafted(b'\0', &[(header::NAME, b"second"), (header::PREFIX, b"in/this")], b"");
    let third = [crafted(b'L', &[], b"long/name\0"), crafted(b'0', &[(header::NAME, b"short")], b"long")].concat();
    let taken_back = crafted(b'x', &[], b"9 path=x\n8 path=\n23 mtime=-1.5000000009\n");
    let fourth = [taken_back, crafted(b'0', &[(header::NAME, b"fourth")], b"")].concat();
    let comment = crafted(b'g', &[], b"14 comment=ok\n");
    // a lone block of zeros is not the end
    let archive = [first, second, vec![0; 512], comment, third, fourth, vec![0; 1024], b"junk".to_vec()].concat();
    let mut input = archive.as_slice();
    let mut reader = Reader::new(&mut input);
    let mut found = Vec::new();
    while let Some(entry) = reader.next().unwrap() {
        let data = reader.data().unwrap().to_vec();
        found.push((String::from_utf8(entry.name).unwrap(), entry.meta.mtime, String::from_utf8(data).unwrap()));
    }
    let at = |seconds, nanos| Time { seconds, nanos };
    let expected = [
        ("first", at(-2, 0), "abc"),
        ("in/this/second", at(0, 0), ""),
        ("long/name", at(0, 0), "long"),
        ("fourth", at(-2, 500_000_000), ""),
    ];
    assert_eq!(found, expected.map(|(name, time, data)| (name.to_owned(), time, data.to_owned())));
}

#[test]
fn directories_have_their_times_in_whatever_order_they_come() {
    let scratch = Scratch::new();
    let dir = |name: &str, seconds| {
        let (uid, gid) = (Uid::effective().as_raw(), Gid::effective().as_raw());
        let meta = Meta { mode: 0o755, uid, gid, mtime: Time { seconds, nanos: 9 }, ..Meta::default() };
        header::encode(&Entry { name: name.into(), kind: Kind::Directory, meta })
    };
    let archive =
        [dir("a/", 1), dir("b/", 2), dir("a/c/", 3), file("b/x", b""), file("a/c/x", b""), file("a/y", b"")].concat();
    unpack_in(&scratch.0, "/", false, &archive).unwrap();
    for (name, seconds) in [("a", 1), ("b", 2), ("a/c", 3)] {
        let meta = fs::metadata(scratch.0.join(name)).unwrap();
        assert_eq!((meta.mtime(), meta.mtime_nsec()), (seconds, 9), "{name}");
    }
}
