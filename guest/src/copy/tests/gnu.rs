//! Archives of ours that GNU tar reads, and archives of its formats that are read here: all that is kept of a file is the same.

use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::stat::{Mode, SFlag, UtimensatFlags, makedev, mknod, utimensat};
use nix::sys::time::TimeSpec;

use super::{Scratch, assert_same, is_root, out, unpack_in};
use crate::sys::xattr::{self, Subject};

/// One of everything.
fn make_tree(tree: &Path) {
    let path = |name: &str| tree.join(name);
    fs::create_dir(tree).unwrap();
    fs::create_dir_all(path("dir/below")).unwrap();
    fs::create_dir(path("empty")).unwrap();
    fs::write(path("empty-file"), b"").unwrap();
    for size in [1, 511, 512, 513, 200_000] {
        let bytes: Vec<u8> = (0..size).map(|at: u32| (at.wrapping_mul(at) >> 3).to_le_bytes()[0]).collect();
        fs::write(path(&format!("dir/{size}")), bytes).unwrap();
    }
    // every byte that a name can hold, one name each and all in one
    let bytes = || (1..=255_u8).filter(|&byte| byte != b'/');
    for byte in bytes() {
        fs::write(path("dir/below").join(OsStr::from_bytes(&[b'-', byte, b'-'])), [byte]).unwrap();
    }
    fs::write(tree.join(OsStr::from_bytes(&bytes().collect::<Vec<u8>>())), b"all").unwrap();
    // names on both sides of what a header has room for
    let mut deep = tree.to_path_buf();
    for length in [90, 99, 100, 101, 155, 156, 255] {
        deep.push("d".repeat(length));
        fs::create_dir(&deep).unwrap();
        fs::write(deep.join("f".repeat(length)), b"deep").unwrap();
        symlink("t".repeat(length), deep.join("link")).unwrap();
    }
    fs::hard_link(deep.join("f".repeat(255)), path("dir/linked")).unwrap();
    symlink("/etc/passwd", path("link")).unwrap();
    symlink("nowhere", path("dir/dangling")).unwrap();
    symlink(OsStr::from_bytes(b"\xff\n"), path("dir/odd")).unwrap();
    fs::hard_link(path("dir/513"), path("linked")).unwrap();
    fs::hard_link(path("link"), path("linked-link")).unwrap();
    mknod(&path("fifo"), SFlag::S_IFIFO, Mode::S_IRUSR, 0).unwrap();
    mknod(&path("char"), SFlag::S_IFCHR, Mode::S_IRUSR, makedev(1, 3)).unwrap();
    mknod(&path("block"), SFlag::S_IFBLK, Mode::S_IRUSR, makedev(4000, 1_000_000)).unwrap();
    for (name, mode, uid, gid) in [
        ("dir/1", 0o4755, 1000, 1001),
        ("dir/511", 0o2750, 2_097_151, 2_097_152),
        ("dir/512", 0o000, 4_000_000_000, 7),
        ("fifo", 0o622, 5, 6),
        ("char", 0o606, 5, 6),
        ("empty", 0o3777, 1000, 1000),
        ("dir", 0o500, 1, 2),
    ] {
        std::os::unix::fs::chown(path(name), Some(uid), Some(gid)).unwrap();
        fs::set_permissions(path(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    std::os::unix::fs::lchown(path("link"), Some(8), Some(9)).unwrap();
    for (name, key, value) in [
        ("dir/1", c"user.lines", &b"a\nb=c\n\n12 path=x\n"[..]),
        ("dir/1", c"user.zero", b"\0\0"),
        ("dir/1", c"user.empty", b""),
        ("dir/1", c"user.od=d%3Dna%me", b"1"),
        // cap_net_raw+ep: capability.h, version 2
        ("dir/511", c"security.capability", &[1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("empty", c"user.on-a-directory", b"yes"),
        ("link", c"trusted.on-a-link", b"yes"),
        ("fifo", c"trusted.on-a-pipe", b"\n"),
    ] {
        let parent = File::open(path(name).parent().unwrap()).unwrap();
        let last = CString::new(path(name).file_name().unwrap().as_bytes()).unwrap();
        xattr::set(Subject::Named(parent.as_fd(), &last), key, value).unwrap();
    }
    for (name, seconds, nanos) in [
        ("dir/1", 4_000_000_000, 123_456_789),
        ("dir/511", 9_000_000_000, 1),
        ("dir/512", -1, 999_999_999),
        ("dir/513", -1_000_000_000, 0),
        ("link", 1_000_000_000, 5),
        ("fifo", 1_000_000_000, 500_000_000),
        ("empty", 1, 0),
        ("dir/below", 1_000_000_001, 7),
        ("dir", 1_000_000_002, 0),
    ] {
        let time = TimeSpec::new(seconds, nanos);
        utimensat(nix::fcntl::AT_FDCWD, &path(name), &time, &time, UtimensatFlags::NoFollowSymlink).unwrap();
    }
}

fn gnu_tar(arguments: &[&str], dir: &Path, input: &[u8]) -> Vec<u8> {
    let mut tar = Command::new("tar");
    tar.args(["--xattrs", "--xattrs-include=*", "--numeric-owner", "-p"]).args(arguments).current_dir(dir);
    let mut child = tar.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input));
        let output = child.wait_with_output().unwrap();
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "tar {arguments:?}: {words}");
        output.stdout
    })
}

#[test]
fn our_archives_are_gnu_tars_and_the_reverse() {
    if !is_root("our_archives_are_gnu_tars_and_the_reverse") {
        return;
    }
    let scratch = Scratch::new();
    let (ours, theirs, both) = (scratch.dir("ours"), scratch.dir("theirs"), scratch.dir("both"));
    make_tree(&scratch.0.join("tree"));
    let archive = out(&scratch.0, "/tree").unwrap();
    gnu_tar(&["-x"], &theirs, &archive);
    assert_same(&theirs.join("tree"), &scratch.0.join("tree"));
    unpack_in(&scratch.0, "ours", false, &archive).unwrap();
    assert_same(&ours.join("tree"), &scratch.0.join("tree"));
    let archive = gnu_tar(&["-c", "--format=posix", "tree"], &scratch.0, b"");
    unpack_in(&scratch.0, "both", false, &archive).unwrap();
    assert_same(&both.join("tree"), &scratch.0.join("tree"));
    // and over itself, where everything is there already
    unpack_in(&scratch.0, "both", false, &archive).unwrap();
    assert_same(&both.join("tree"), &scratch.0.join("tree"));
}

#[test]
fn older_formats_are_read() {
    let scratch = Scratch::new();
    let tree = scratch.dir("tree");
    fs::create_dir(tree.join("dir")).unwrap();
    fs::write(tree.join("dir/file"), b"bytes").unwrap();
    symlink("file", tree.join("dir/link")).unwrap();
    fs::hard_link(tree.join("dir/file"), tree.join("dir/other")).unwrap();
    for (format, longest) in [("v7", 80), ("ustar", 150), ("oldgnu", 250), ("gnu", 250), ("posix", 250)] {
        let long = tree.join("l".repeat(longest / 2));
        fs::create_dir(&long).unwrap();
        let name = long.join("m".repeat(longest / 2));
        fs::write(&name, b"long").unwrap();
        // whole seconds: that is all that most of them have
        for path in [&name, &long, &tree.join("dir/file"), &tree.join("dir/link"), &tree.join("dir"), &tree] {
            let time = TimeSpec::new(1_500_000_000, 0);
            utimensat(nix::fcntl::AT_FDCWD, path, &time, &time, UtimensatFlags::NoFollowSymlink).unwrap();
        }
        if longest > 200 {
            symlink("n".repeat(200), long.join("link")).unwrap();
            let time = TimeSpec::new(1_500_000_000, 0);
            for path in [&long.join("link"), &long] {
                utimensat(nix::fcntl::AT_FDCWD, path, &time, &time, UtimensatFlags::NoFollowSymlink).unwrap();
            }
        }
        let archive = gnu_tar_plain(&["-c", &format!("--format={format}"), "tree"], &scratch.0);
        scratch.dir(format);
        unpack_in(&scratch.0, format, false, &archive).unwrap();
        assert_same(&scratch.0.join(format).join("tree"), &tree);
        fs::remove_dir_all(&long).unwrap();
    }
}

/// Without attributes, which only one format has.
fn gnu_tar_plain(arguments: &[&str], dir: &Path) -> Vec<u8> {
    let output = Command::new("tar").arg("--numeric-owner").args(arguments).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "tar {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}
