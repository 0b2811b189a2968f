//! Copies judged by GNU tar and by attributes, and archives that mean harm.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sys::stat::{Mode, SFlag, UtimensatFlags, makedev, mknod, utimensat};
use nix::sys::time::TimeSpec;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Gid, Uid};

use super::entry::{Entry, Kind, Meta, Time};
use super::{CopyError, header, pack, unpack};
use crate::sys::spawn;
use crate::sys::xattr::{self, Subject};

/// A directory that goes with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Scratch {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("tether-copy-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Scratch(path)
    }

    fn dir(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir(&path).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.0);
    }
}

fn is_root(test: &str) -> bool {
    let root = Uid::effective().is_root();
    if !root {
        eprintln!("SKIPPED {test}: needs root");
    }
    root
}

fn out(root: &Path, path: &str) -> Result<Vec<u8>, CopyError> {
    let mut bytes = Vec::new();
    pack::pack(File::open(root).unwrap().into(), path, &mut bytes).map(|()| bytes)
}

fn unpack_in(root: &Path, dir: &str, replace: bool, mut archive: &[u8]) -> Result<(), CopyError> {
    unpack::unpack(File::open(root).unwrap().into(), dir, true, replace, &mut archive)
}

fn file(name: &str, bytes: &[u8]) -> Vec<u8> {
    let mut encoded = of_kind(name, Kind::File { size: bytes.len() as u64 });
    encoded.extend_from_slice(bytes);
    encoded.resize(encoded.len() + header::padding(bytes.len() as u64), 0);
    encoded
}

fn of_kind(name: &str, kind: Kind) -> Vec<u8> {
    let (uid, gid) = (Uid::effective().as_raw(), Gid::effective().as_raw());
    let meta = Meta { mode: 0o755, uid, gid, ..Meta::default() };
    header::encode(&Entry { name: name.into(), kind, meta })
}

fn link(name: &str, target: &str) -> Vec<u8> {
    of_kind(name, Kind::Symlink { target: target.into() })
}

fn hard_link(name: &str, target: &str) -> Vec<u8> {
    of_kind(name, Kind::HardLink { target: target.into() })
}

/// All that is kept of a file.
#[derive(Debug, PartialEq, Eq)]
struct Facts {
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, i64),
    device: u64,
    content: Vec<u8>,
    xattrs: BTreeMap<CString, Vec<u8>>,
    /// The first of all names of the same file.
    first: Vec<u8>,
}

fn facts(tree: &Path) -> BTreeMap<Vec<u8>, Facts> {
    let (mut all, mut firsts, mut left) = (BTreeMap::new(), BTreeMap::new(), vec![tree.to_path_buf()]);
    let mut paths = Vec::new();
    while let Some(path) = left.pop() {
        if path.symlink_metadata().unwrap().is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        paths.push(path);
    }
    paths.sort();
    for path in paths {
        let meta = path.symlink_metadata().unwrap();
        let name = path.strip_prefix(tree).unwrap().as_os_str().as_bytes().to_vec();
        let content = match meta.file_type() {
            kind if kind.is_file() => fs::read(&path).unwrap(),
            kind if kind.is_symlink() => fs::read_link(&path).unwrap().into_os_string().into_vec(),
            _ => Vec::new(),
        };
        let parent = File::open(path.parent().unwrap()).unwrap();
        let last = CString::new(path.file_name().unwrap().as_bytes()).unwrap();
        let facts = Facts {
            mode: meta.mode(),
            owner: (meta.uid(), meta.gid()),
            mtime: (meta.mtime(), meta.mtime_nsec()),
            device: meta.rdev(),
            content,
            xattrs: xattr::all(Subject::Named(parent.as_fd(), &last)).unwrap().into_iter().collect(),
            first: firsts.entry(meta.ino()).or_insert_with(|| name.clone()).clone(),
        };
        all.insert(name, facts);
    }
    all
}

fn assert_same(found: &Path, expected: &Path) {
    let (found, expected) = (facts(found), facts(expected));
    for (name, facts) in &expected {
        assert_eq!(found.get(name), Some(facts), "{:?}", String::from_utf8_lossy(name));
    }
    assert_eq!(found.len(), expected.len());
}

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

fn names(archive: &[u8]) -> Vec<String> {
    let mut input = archive;
    let mut reader = super::reader::Reader::new(&mut input);
    std::iter::from_fn(|| reader.next().unwrap()).map(|entry| String::from_utf8(entry.name).unwrap()).collect()
}

#[test]
fn names_begin_as_the_path_ends() {
    let scratch = Scratch::new();
    fs::create_dir_all(scratch.0.join("a/b")).unwrap();
    fs::write(scratch.0.join("a/b/c"), b"").unwrap();
    symlink("a/b", scratch.0.join("link")).unwrap();
    for (path, expected) in [
        ("/a/b", vec!["b/", "b/c"]),
        ("a/b", vec!["b/", "b/c"]),
        ("/a/b/", vec!["b/", "b/c"]),
        ("/a/b/.", vec!["./", "./c"]),
        ("/a/x/../b/c", vec!["c"]),
        ("/../../a/b/c", vec!["c"]),
        ("/link", vec!["link"]),
        ("/link/", vec!["link/", "link/c"]),
        ("/link/.", vec!["./", "./c"]),
        ("/link/c", vec!["c"]),
    ] {
        assert_eq!(names(&out(&scratch.0, path).unwrap()), expected, "{path}");
    }
    for path in ["/", ".", "/.", "", "/a/.."] {
        let mut all = names(&out(&scratch.0, path).unwrap());
        all.sort();
        assert_eq!(all, ["./", "./a/", "./a/b/", "./a/b/c", "./link"], "{path}");
    }
    for path in ["/none", "/a/b/c/", "/a/b/c/d", "/a\0"] {
        assert!(out(&scratch.0, path).is_err(), "{path}");
    }
}

#[test]
fn memory_file_systems_are_left_out_below_a_directory() {
    let scratch = Scratch::new();
    let mounted = scratch.dir("mounted");
    let no_flags = nix::mount::MsFlags::empty();
    if let Err(errno) = nix::mount::mount(Some("x"), &mounted, Some("tmpfs"), no_flags, None::<&str>) {
        return eprintln!("SKIPPED memory_file_systems_are_left_out_below_a_directory: cannot mount: {errno}");
    }
    fs::write(mounted.join("file"), b"").unwrap();
    let below = out(&scratch.0, "/");
    let asked = out(&scratch.0, "/mounted");
    nix::mount::umount(&mounted).unwrap();
    assert_eq!(names(&below.unwrap()), ["./", "./mounted/"]);
    assert_eq!(names(&asked.unwrap()), ["mounted/", "mounted/file"]);
}

#[test]
fn a_socket_is_passed_over() {
    let scratch = Scratch::new();
    let _listener = std::os::unix::net::UnixListener::bind(scratch.0.join("socket")).unwrap();
    assert_eq!(names(&out(&scratch.0, "/").unwrap()), ["./"]);
    assert!(out(&scratch.0, "/socket").is_err());
}

#[test]
fn a_tree_that_is_too_deep_is_an_error() {
    let scratch = Scratch::new();
    let mut dir = nix::fcntl::open(&scratch.0, nix::fcntl::OFlag::O_DIRECTORY, Mode::empty()).unwrap();
    let name = OsStr::new("d").to_os_string().into_string().unwrap().repeat(200);
    for _ in 0..30 {
        nix::sys::stat::mkdirat(&dir, name.as_str(), Mode::S_IRWXU).unwrap();
        dir = nix::fcntl::openat(&dir, name.as_str(), nix::fcntl::OFlag::O_DIRECTORY, Mode::empty()).unwrap();
    }
    let error = out(&scratch.0, "/").unwrap_err().to_string();
    assert!(error.contains("longer than 4096 bytes"), "{error}");
}

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

/// A header whose fields are as given, with the right checksum.
fn crafted(kind: u8, fields: &[(header::Field, &[u8])], body: &[u8]) -> Vec<u8> {
    let mut block = [0; header::BLOCK];
    for &((start, _), value) in
        [((257, 8), header::USTAR), ((108, 8), b"0"), ((116, 8), b"0"), ((100, 8), b"644"), ((136, 12), b"0")]
            .iter()
            .chain(fields)
    {
        block[start..start + value.len()].copy_from_slice(value);
    }
    block[header::TYPE] = kind;
    let size = format!("{:o}", body.len());
    if !fields.iter().any(|&(field, _)| field == header::SIZE) {
        block[124..124 + size.len()].copy_from_slice(size.as_bytes());
    }
    let sum = format!("{:06o}\0 ", header::checksums(&block).0);
    block[148..156].copy_from_slice(sum.as_bytes());
    let mut bytes = block.to_vec();
    bytes.extend_from_slice(body);
    bytes.resize(bytes.len() + header::padding(body.len() as u64), 0);
    bytes
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
    let mut reader = super::reader::Reader::new(&mut input);
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

/// Entries without end, made as they are read.
struct Endless {
    entry: Box<dyn FnMut(usize) -> Vec<u8>>,
    count: usize,
    number: usize,
    rest: Vec<u8>,
}

impl std::io::Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.rest.is_empty() && self.number < self.count {
            self.rest = (self.entry)(self.number);
            self.number += 1;
        }
        let count = self.rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.rest[..count]);
        self.rest.drain(..count);
        Ok(count)
    }
}

/// The most that this process has taken, in KiB.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn no_number_of_entries_makes_memory_grow() {
    let scratch = Scratch::new();
    let work = || {
        let value = vec![b'v'; 10_000];
        let extended = [b"10024 SCHILY.xattr.user.x=".as_slice(), &value[..9997], b"\n"].concat();
        let before = peak();
        for (count, entry) in [
            // 40 MB of attributes that belong to nothing
            (4_000, Box::new(move |_| crafted(b'x', &[], &extended)) as Box<dyn FnMut(usize) -> Vec<u8>>),
            (20_000, Box::new(|_| crafted(b'g', &[], b"comment"))),
            (20_000, Box::new(|_| of_kind("same/", Kind::Directory))),
            (20_000, Box::new(|number| of_kind(["same/below/", "same/"][number % 2], Kind::Directory))),
        ] {
            let mut input = Endless { entry, count, number: 0, rest: Vec::new() };
            let root = File::open(&scratch.0).unwrap().into();
            let _ends_early = unpack::unpack(root, "/", true, false, &mut input);
            assert_eq!(input.number, count);
        }
        i32::try_from((peak() - before) / 1024).unwrap().min(100)
    };
    // in a process of its own, where no other test takes memory
    let null = File::options().read(true).write(true).open("/dev/null").unwrap();
    let stdio = spawn::Stdio::Streams { stdin: null.as_fd(), stdout: null.as_fd(), stderr: null.as_fd() };
    let pid = spawn::run_in_child(&stdio, None, work).unwrap();
    let WaitStatus::Exited(_, grown) = waitpid(pid, None).unwrap() else { panic!("the child was killed") };
    assert!(grown < 8, "{grown} MiB");
}

#[test]
fn directories_have_their_times_when_there_are_too_many_to_remember() {
    let scratch = Scratch::new();
    let prefix = format!("above{}", format!("/{}", "n".repeat(250)).repeat(12));
    let inner = scratch.0.join(&prefix);
    let above = scratch.0.join("above");
    let count = 4 * 1024 * 1024 / prefix.len() + 100;
    let entry = move |number| match number {
        0 => of_kind("above/", Kind::Directory),
        1 => of_kind(&format!("{prefix}/"), Kind::Directory),
        number => of_kind(&format!("{prefix}/{number}/"), Kind::Directory),
    };
    let mut input = Endless { entry: Box::new(entry), count, number: 0, rest: Vec::new() };
    unpack::unpack(File::open(&scratch.0).unwrap().into(), "/", true, false, &mut input).unwrap();
    let mtime = |path: &Path| fs::metadata(path).unwrap().mtime();
    assert_eq!((mtime(&above), mtime(&inner)), (0, 0));
    let below: Vec<i64> = fs::read_dir(&inner).unwrap().map(|dir| mtime(&dir.unwrap().path())).collect();
    assert_eq!(below, vec![0; count - 2]);
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
