//! What single entries say: owners, modes, times, xattrs, devices, long names, sparse files.

use std::process::Command;

use iso_builder::tree::{Kind, Meta, ROOT, Time, Tree};

use crate::build::{Tar, at, content, flatten_layers};

fn tree(write: impl FnOnce(&mut Tar)) -> Tree {
    let mut tar = Tar::default();
    write(&mut tar);
    flatten_layers(&[tar.end()]).unwrap()
}

fn refusal(write: impl FnOnce(&mut Tar)) -> String {
    let mut tar = Tar::default();
    write(&mut tar);
    flatten_layers(&[tar.end()]).unwrap_err()
}

#[test]
fn owners_modes_and_times() {
    let tree = tree(|tar| {
        tar.member(b'5', b"./", b"", b"", |header| header[100..108].copy_from_slice(b"0001777\0"));
        tar.member(b'0', b"octal", b"", b"", |header| {
            header[100..148].copy_from_slice(b"0106755\x000001750\x000000012\x0000000000000\x0014513512345\0");
        });
        tar.member(b'0', b"binary", b"", b"", |header| {
            header[108..116].copy_from_slice(&[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xfe]);
            header[136..148].copy_from_slice(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe]);
        });
        tar.pax(b'x', &[("uid", b"70000"), ("gid", b"4294967294"), ("mtime", b"-1.25"), ("atime", b"1")]);
        tar.plain(b'0', b"pax", b"", b"");
        tar.plain(b'0', b"plain", b"", b"");
    });
    let meta = |path: &[u8]| tree.node(at(&tree, path)).meta.clone();
    let time = |secs, nanos| Time { secs, nanos };
    assert_eq!(tree.node(ROOT).meta.mode, 0o1777);
    assert_eq!(
        meta(b"octal"),
        Meta { mode: 0o6755, uid: 1000, gid: 10, mtime: time(0o14513512345, 0), ..Meta::default() }
    );
    assert_eq!((meta(b"binary").uid, meta(b"binary").mtime), (4_294_967_294, time(-2, 0)));
    let expected =
        Meta { mode: 0o644, uid: 70000, gid: 4_294_967_294, mtime: time(-2, 750_000_000), ..Meta::default() };
    assert_eq!(meta(b"pax"), expected);
    assert_eq!(meta(b"plain"), Meta { mode: 0o644, ..Meta::default() });
}

#[test]
fn a_directory_takes_on_what_the_upper_layer_says() {
    let layer = |uid: &[u8]| {
        let mut tar = Tar::default();
        tar.pax(b'x', &[("uid", uid), ("SCHILY.xattr.user.of", uid)]);
        tar.plain(b'5', b"d", b"", b"");
        tar.end()
    };
    let tree = flatten_layers(&[layer(b"1"), layer(b"2")]).unwrap();
    let meta = &tree.node(at(&tree, b"d")).meta;
    assert_eq!((meta.uid, &meta.xattrs[&b"user.of"[..]][..]), (2, &b"2"[..]));
}

#[test]
fn xattrs_are_bytes() {
    let capability = b"\x01\0\0\x02\x0a\x0a\0\0\x0a=\0\x0a";
    let tree = tree(|tar| {
        tar.pax(
            b'x',
            &[
                ("SCHILY.xattr.security.capability", capability),
                ("LIBARCHIVE.xattr.security.capability", b"AAAA"),
                ("LIBARCHIVE.xattr.user.a%20b", b"AAo"),
                ("SCHILY.xattr.user.empty", b""),
                ("SCHILY.xattr.com.apple.quarantine", b"x"),
                ("path", b"after"),
            ],
        );
        tar.plain(b'0', b"before", b"", b"");
    });
    let found: Vec<_> = tree.node(at(&tree, b"after")).meta.xattrs.clone().into_iter().collect();
    let expected: [(&[u8], &[u8]); 3] =
        [(b"security.capability", capability), (b"user.a b", b"\0\x0a"), (b"user.empty", b"")];
    assert_eq!(found, expected.map(|(name, value)| (name.to_vec(), value.to_vec())));
}

#[test]
fn devices() {
    let tree = tree(|tar| {
        let number = |header: &mut [u8; 512]| header[329..345].copy_from_slice(b"0000010\x00\x80\0\0\0\0\x01\x11\x70");
        tar.member(b'3', b"c", b"", b"", number);
        tar.member(b'4', b"b", b"", b"", number);
    });
    assert!(matches!(tree.node(at(&tree, b"c")).kind, Kind::CharDevice { major: 8, minor: 70000 }));
    assert!(matches!(tree.node(at(&tree, b"b")).kind, Kind::BlockDevice { major: 8, minor: 70000 }));
}

#[test]
fn long_and_strange_names() {
    let long = [b"d/".repeat(100), vec![b'n'; 255]].concat();
    let target = vec![b't'; 4000];
    let tree = tree(|tar| {
        let zero = |bytes: &[u8]| [bytes, b"\0"].concat();
        tar.plain(b'K', b"././@LongLink", b"", &zero(&target));
        tar.plain(b'L', b"././@LongLink", b"", &zero(&long));
        tar.plain(b'2', b"short", b"short", b"");
        tar.pax(b'x', &[("linkpath", &target), ("path", b"pax/\xff\xfe\n")]);
        tar.plain(b'2', b"short", b"short", b"");
        tar.member(b'0', b"name", b"", b"", |header| header[345..351].copy_from_slice(b"prefix"));
        tar.member(b'0', b"gnu", b"", b"", |header| {
            header[257..265].copy_from_slice(b"ustar  \0");
            header[345..351].copy_from_slice(b"123456");
        });
        tar.plain(0, b"old/", b"", b"");
        tar.plain(b'V', b"label", b"", b"");
        tar.plain(b'7', b"contiguous", b"", b"x");
    });
    for path in [&long[..], b"pax/\xff\xfe\n"] {
        assert!(matches!(&tree.node(at(&tree, path)).kind, Kind::Symlink(found) if *found == target));
    }
    for (path, is_dir) in [(&b"prefix/name"[..], false), (b"gnu", false), (b"old", true), (b"contiguous", false)] {
        assert_eq!(tree.entries(at(&tree, path)).is_some(), is_dir);
    }
    assert_eq!(tree.entries(ROOT).unwrap().len(), 6);
}

#[test]
fn global_headers_hold_until_they_are_taken_back() {
    let tree = tree(|tar| {
        tar.pax(b'g', &[("uid", b"7"), ("comment", b"of git")]);
        tar.plain(b'0', b"a", b"", b"");
        tar.pax(b'x', &[("uid", b"8")]);
        tar.plain(b'0', b"b", b"", b"");
        tar.pax(b'g', &[("uid", b"")]);
        tar.plain(b'0', b"c", b"", b"");
    });
    assert_eq!([b"a", b"b", b"c"].map(|name| tree.node(at(&tree, name)).meta.uid), [7, 8, 0]);
}

#[test]
fn sizes_in_pax_and_base_256() {
    let tree = tree(|tar| {
        tar.pax(b'x', &[("size", b"3")]);
        tar.member(b'0', b"pax", b"", b"abc", |header| header[124..136].copy_from_slice(b"00000000000\0"));
        tar.member(b'0', b"binary", b"", b"def", |header| {
            header[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3]);
        });
        // Links carry a size in some archives, but no data.
        tar.member(b'1', b"link", b"pax", b"", |header| header[124..136].copy_from_slice(b"00000000003\0"));
        tar.plain(b'0', b"last", b"", b"ghi");
    });
    for (name, text) in [(&b"pax"[..], b"abc"), (b"binary", b"def"), (b"link", b"abc"), (b"last", b"ghi")] {
        assert_eq!(content(&tree, at(&tree, name)), text);
    }
}

/// GNU tar writes all the forms that there are; a map of many parts needs more than one block.
#[test]
fn sparse_files_of_gnu_tar() {
    let dir = tempfile::tempdir().unwrap();
    let file = std::fs::File::create(dir.path().join("sparse")).unwrap();
    let mut expected = vec![0; 100 * 16384 + 5];
    for part in 0..100 {
        let text = format!("part {part}");
        let place = part * 16384 + 4096;
        expected[place..place + text.len()].copy_from_slice(text.as_bytes());
        std::os::unix::fs::FileExt::write_all_at(&file, text.as_bytes(), place as u64).unwrap();
    }
    file.set_len(expected.len() as u64).unwrap();
    for form in [
        "--format=gnu",
        "--format=posix --sparse-version=0.0",
        "--format=posix --sparse-version=0.1",
        "--format=posix --sparse-version=1.0",
    ] {
        let mut tar = Command::new("tar");
        tar.args(form.split(' ')).args(["-S", "-cf", "-", "-C"]).arg(dir.path()).arg("sparse");
        let output = tar.output().unwrap();
        assert!(output.status.success());
        assert!(output.stdout.len() < expected.len(), "{form} is sparse");
        let tree = flatten_layers(&[output.stdout]).unwrap();
        let id = at(&tree, b"sparse");
        assert!(content(&tree, id) == expected, "{form}");
        let Kind::File(content) = &tree.node(id).kind else { unreachable!() };
        assert_eq!(content.extents.len(), 100, "{form}");
    }
}

#[test]
fn what_no_writer_means_is_refused() {
    let layer = |text: &str| format!("image.tar: layer 1 of 1: {text}");
    let sparse = |map: &[u8], data: &[u8]| {
        refusal(|tar| {
            tar.pax(b'x', &[("GNU.sparse.size", b"100"), ("GNU.sparse.map", map)]);
            tar.plain(b'0', b"s", b"", data);
        })
    };
    let broken = |why: &str| layer(&format!("the sparse map of \"s\" is broken: {why}"));
    assert_eq!(sparse(b"0,5,3,1", b"123456"), broken("parts overlap or leave the file"));
    assert_eq!(sparse(b"99,2", b"12"), broken("parts overlap or leave the file"));
    assert_eq!(sparse(b"0,9223372036854775807", b"12"), broken("parts overlap or leave the file"));
    assert_eq!(sparse(b"0,5", b"123456"), broken("parts do not add up to what is stored"));
    assert_eq!(sparse(b"0,5,6", b"12345"), broken("a part has no length"));
    let map = |map: &[u8]| {
        refusal(|tar| {
            tar.pax(b'x', &[("GNU.sparse.major", b"1"), ("GNU.sparse.name", b"s"), ("GNU.sparse.realsize", b"9")]);
            tar.plain(b'0', b"GNUSparseFile.0/s", b"", map);
        })
    };
    assert_eq!(map(&[&b"9999999999\n0\n1\n"[..], &[0; 497]].concat()), broken("it is no list of numbers"));
    assert_eq!(map(&b"1\n".repeat(512)), broken("parts do not add up to what is stored"));
    assert_eq!(map(b""), broken("it is longer than the entry"));

    let header = |at: usize, bytes: &[u8]| {
        refusal(|tar| tar.member(b'0', b"a", b"", b"", |header| header[at..at + bytes.len()].copy_from_slice(bytes)))
    };
    assert_eq!(header(156, b"Q"), layer(r#""a" is of the unknown tar type 'Q'"#));
    assert_eq!(header(108, b"9"), layer("no tar header at byte 0: a number is not octal"));
    assert_eq!(header(116, &[0xff; 8]), layer("no tar header at byte 0: its gid is out of range"));
    assert_eq!(header(124, b"77777777777\0"), layer("the archive ends early: it is truncated"));
    assert_eq!(header(124, &[0xff; 12]), layer("no tar header at byte 0: its size is out of range"));
    let changed = refusal(|tar| {
        tar.plain(b'0', b"a", b"", b"");
        tar.0[0] = b'b';
    });
    assert_eq!(changed, layer("no tar header at byte 0: its checksum is wrong"));
    assert_eq!(refusal(|tar| tar.0.extend([b'x'; 512])), layer("no tar header at byte 0: a number is not octal"));
    let lone = refusal(|tar| {
        tar.0.extend([0; 512]);
        tar.plain(b'0', b"a", b"", b"");
    });
    assert_eq!(lone, layer("no tar header at byte 0: one zero block between entries"));

    let pax = |data: &[u8]| {
        refusal(|tar| {
            tar.plain(b'x', b"x", b"", data);
            tar.plain(b'0', b"a", b"", b"");
        })
    };
    let broken = |why: &str| layer(&format!("the extended header at byte 0 is broken: {why}"));
    assert_eq!(pax(b"99 path=a\n"), broken("a record is longer than its header"));
    assert_eq!(pax(b"path=a\n"), broken("a record has no length"));
    assert_eq!(pax(b"10 uid=-1\n"), broken("its uid is no number of 32 bits"));
    assert_eq!(pax(&vec![b'1'; (1 << 20) + 1]), broken("it is larger than 1 MiB"));
    let last = refusal(|tar| tar.pax(b'x', &[("path", b"a")]));
    assert_eq!(last, layer("the archive ends early: it is truncated"));
    let nul = refusal(|tar| {
        tar.pax(b'x', &[("path", b"a\0b")]);
        tar.plain(b'0', b"a", b"", b"");
    });
    assert_eq!(nul, layer(r#""a\0b" cannot be in an image: a name in it holds a NUL"#));
}
