//! Archives that lead elsewhere, are cut, or are damaged.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};

use super::{Scratch, crafted, file, hard_link, link, of_kind, out, unpack_in};
use crate::copy::entry::Kind;
use crate::copy::header;

/// What an archive may not do, and what is true of the machine afterwards.
#[test]
fn nothing_leaves_the_directory() {
    for (archive, expected) in [
        (file("../out", b"x"), "leads out"),
        (file("a/../../out", b"x"), "leads out"),
        (file("..", b"x"), "leads out"),
        ([link("x", "/outside"), file("x/secret", b"x")].concat(), "symbolic link on the way"),
        ([link("x", "../outside"), file("x/secret", b"x")].concat(), "symbolic link on the way"),
        ([link("x", ".."), file("x/outside/secret", b"x")].concat(), "symbolic link on the way"),
        ([link("y", "/"), link("x", "y/outside"), file("x/secret", b"x")].concat(), "symbolic link on the way"),
        ([link("x", "/outside"), of_kind("x/dir/", Kind::Directory)].concat(), "symbolic link on the way"),
        ([link("x", "x"), file("x/secret", b"x")].concat(), "leads nowhere"),
        ([link("x", "/proc/self/cwd"), file("x/secret", b"x")].concat(), "symbolic link on the way"),
        (hard_link("x", "../outside/secret"), "leads out"),
        (hard_link("x", "/outside/secret"), "cannot open the target's directory"),
        ([link("y", "/outside"), hard_link("x", "y/secret")].concat(), "symbolic link on the way"),
        (hard_link("x", "theirs/secret"), "symbolic link on the way"),
        // a link of the container that leads elsewhere under another name
        ([hard_link("dir/x", "near"), file("dir/x/secret", b"x")].concat(), ""),
        ([hard_link("x", "dir/far"), file("x/outside/secret", b"x")].concat(), "symbolic link on the way"),
        (hard_link("x", "."), "hard link to the directory itself"),
        (file(".", b"x"), "place of the directory itself"),
        (file("", b"x"), "place of the directory itself"),
        (hard_link("x", "x"), "not there"),
    ] {
        let scratch = Scratch::new();
        let root = scratch.dir("root");
        for dir in ["outside", "dir", "dir/dir", "dir/inner"] {
            fs::create_dir(root.join(dir)).unwrap();
        }
        fs::write(root.join("outside/secret"), b"secret").unwrap();
        symlink("/outside", root.join("dir/theirs")).unwrap();
        symlink("inner", root.join("dir/near")).unwrap();
        // stays in the directory from where it is, and would not from above
        symlink("../inner/../..", root.join("dir/dir/far")).unwrap();
        let result = unpack_in(&root, "/dir", true, &archive);
        assert_eq!(fs::read(root.join("outside/secret")).unwrap(), b"secret");
        assert_eq!(fs::metadata(root.join("outside/secret")).unwrap().nlink(), 1, "{expected}");
        assert_eq!(fs::read_dir(root.join("outside")).unwrap().count(), 1);
        assert_eq!(fs::read_dir(&root).unwrap().count(), 2);
        assert_eq!(fs::read_dir(&scratch.0).unwrap().count(), 1);
        match result {
            Err(error) => assert!(error.to_string().contains(expected), "{error}: {expected}"),
            Ok(()) => assert_eq!(expected, ""),
        }
    }
}

#[test]
fn an_archive_that_is_cut_is_an_error_or_ends_at_an_entry() {
    let scratch = Scratch::new();
    let source = scratch.dir("source");
    fs::write(source.join("file"), b"some bytes").unwrap();
    symlink("l".repeat(200), source.join("link")).unwrap();
    let archive = out(&scratch.0, "/source").unwrap();
    for length in 0..archive.len() {
        let result = unpack_in(&scratch.0, "/", true, &archive[..length]);
        match result {
            Ok(()) => assert_eq!(length % header::BLOCK, 0),
            Err(error) => assert!(error.to_string().contains("it ends there"), "{error}"),
        }
    }
    // an input that ends within a file is never mistaken for an end
    let big = file("big", &[1; 2000]);
    for length in header::BLOCK + 1..big.len() {
        let error = unpack_in(&scratch.0, "/", true, &big[..length]).unwrap_err().to_string();
        assert!(error.contains("\"big\"") && error.contains("it ends there"), "{error}");
    }
}

#[test]
fn any_damage_to_a_header_is_found_or_harmless() {
    let scratch = Scratch::new();
    scratch.dir("dir");
    let archive = [of_kind("d/", Kind::Directory), file(&"n".repeat(120), b"x")].concat();
    for at in 0..archive.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut damaged = archive.clone();
            damaged[at] ^= flip;
            let result = unpack_in(&scratch.0, "dir", true, &damaged);
            // the checksum covers the first header whole
            assert!(result.is_err() || at >= header::BLOCK || (148..156).contains(&at), "byte {at}");
        }
    }
    assert_eq!(fs::read_dir(&scratch.0).unwrap().count(), 1);
}

#[test]
fn what_is_malformed_is_named() {
    let pax = |body: &[u8]| [crafted(b'x', &[], body), file("victim", b"")].concat();
    let named = |name: &'static [u8]| (header::NAME, name);
    for (archive, expected) in [
        (pax(b"5 path=x\n"), "extended header is malformed"),
        (pax(b"999 path=x\n"), "extended header is malformed"),
        (pax(b"99999999999999999999 path=x\n"), "extended header is malformed"),
        (pax(b"0 path=x\n"), "extended header is malformed"),
        (pax(b"-9 path=x\n"), "extended header is malformed"),
        (pax(b"9 path=x \n"), "extended header is malformed"),
        (pax(b"7 pathx\n"), "extended header is malformed"),
        (pax(b"path"), "extended header is malformed"),
        (pax(b"11 mtime=x\n"), "extended header is malformed"),
        (pax(b"13 mtime=1.x\n"), "extended header is malformed"),
        (pax(b"11 size=-1\n"), "extended header is malformed"),
        (pax(b"28 size=9223372036854775808\n"), "size is too great"),
        (pax(b"18 uid=4294967295\n"), "owner is too great"),
        (pax(b"22 GNU.sparse.major=1\n"), "sparse files are not supported"),
        (pax(b"12 path=a\0b\n"), "holds a NUL"),
        (crafted(b'x', &[(header::SIZE, b"77777777")], b""), "too long"),
        (crafted(b'L', &[(header::SIZE, b"77777777")], b""), "too long"),
        (crafted(b'0', &[named(b"a"), (header::SIZE, b"12x")], b""), "size is no number"),
        (crafted(b'0', &[named(b"a"), (header::SIZE, &[0xff; 12])], b""), "size is no number"),
        (crafted(b'0', &[named(b"a"), (header::UID, b"\xff\xff\xff\xff\xff\xff\xff\xff")], b""), "owner is no number"),
        (crafted(b'0', &[named(b"a"), (header::MODE, b"rw-r--r-")], b""), "mode is no number"),
        (crafted(b'3', &[named(b"a"), (header::MAJOR, b"9")], b""), "device is no number"),
        (crafted(b'S', &[named(b"a")], b""), "sparse files are not supported"),
        (crafted(b'?', &[named(b"a")], b""), "type is unknown"),
        (vec![b'x'; 512], "checksum is wrong"),
    ] {
        let scratch = Scratch::new();
        let error = unpack_in(&scratch.0, "/", true, &archive).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}: {expected}");
    }
}
