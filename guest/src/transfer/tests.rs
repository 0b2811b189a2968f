//! Files in a scratch root, and what lies around it.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::PathBuf;

use nix::unistd::mkfifo;

use super::*;

struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.0);
    }
}

/// A root with `/etc/hosts`, `/etc/pipe`, and links; beside it is a file that is nobody's business.
fn scratch(name: &str) -> (Scratch, PathBuf) {
    let path = std::env::temp_dir().join(format!("tether-transfer-{name}-{}", std::process::id()));
    let root = path.join("root");
    fs::create_dir_all(root.join("etc")).unwrap();
    fs::write(path.join("secret"), "secret").unwrap();
    fs::write(root.join("etc/hosts"), "0123456789").unwrap();
    mkfifo(&root.join("etc/pipe"), Mode::S_IRWXU).unwrap();
    symlink("/etc/hosts", root.join("inside")).unwrap();
    symlink("../secret", root.join("outside")).unwrap();
    symlink("/", root.join("up")).unwrap();
    (Scratch(path), root)
}

fn names(root: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(root).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_is_read_is_a_file_of_the_roots() {
    let (_scratch, root) = scratch("read");
    for path in ["/etc/hosts", "/inside", "/up/up/etc/hosts"] {
        let file = open(&root, path).unwrap();
        assert_eq!(read(&file, 0, 100).unwrap(), b"0123456789", "{path}");
        assert_eq!(read(&file, 8, 100).unwrap(), b"89");
        assert_eq!(read(&file, 2, 3).unwrap(), b"234");
        assert_eq!(read(&file, 10, 100).unwrap(), b"");
        assert_eq!(read(&file, 1 << 40, 100).unwrap(), b"");
        assert_eq!(read(&file, u64::MAX, 100).unwrap_err(), Errno::EINVAL);
    }
    for (path, errno) in [
        ("/none", Errno::ENOENT),
        ("/outside", Errno::ENOENT),
        ("/../secret", Errno::ENOENT),
        ("/etc", Errno::EISDIR),
        ("/etc/pipe", Errno::EISDIR),
        ("/etc/hosts/x", Errno::ENOTDIR),
    ] {
        assert_eq!(open(&root, path).unwrap_err(), errno, "{path}");
    }
    // a device, and what the kernel shows of itself
    assert_eq!(open(Path::new("/"), "/dev/null").unwrap_err(), Errno::EISDIR);
    assert_eq!(open(Path::new("/"), "/proc/self/maps").unwrap_err(), Errno::EACCES);
}

#[test]
fn an_upload_is_there_when_it_is_finished_and_not_before() {
    let (_scratch, root) = scratch("write");
    let before = names(&root.join("etc"));
    let (upload, file) = Upload::begin(Spot::find(&root, "/etc/hosts", false).unwrap(), 0o751, 7).unwrap();
    write(&file, None, b"ab").unwrap();
    write(&file, None, b"cd").unwrap();
    write(&file, Some(1), b"X").unwrap();
    assert_eq!(write(&file, Some(u64::MAX), b"X").unwrap_err(), Errno::EINVAL);
    assert_eq!(fs::read(root.join("etc/hosts")).unwrap(), b"0123456789");
    upload.finish().unwrap();
    assert_eq!(fs::read(root.join("etc/hosts")).unwrap(), b"aXcd");
    assert_eq!(fs::metadata(root.join("etc/hosts")).unwrap().mode() & 0o7777, 0o751);
    assert_eq!(names(&root.join("etc")), before);

    // one that is not finished leaves nothing, and what another left is no obstacle
    let find = || Spot::find(&root, "/up/etc/new", true).unwrap();
    fs::write(root.join("etc/.tether-upload-8"), "left").unwrap();
    let (upload, file) = Upload::begin(find(), 0o600, 8).unwrap();
    write(&file, None, b"half").unwrap();
    drop(upload);
    assert_eq!(names(&root.join("etc")), before);

    // what has come meanwhile is left alone if that was asked for
    let (upload, _file) = Upload::begin(find(), 0o600, 9).unwrap();
    fs::write(root.join("etc/new"), "theirs").unwrap();
    assert_eq!(upload.finish().unwrap_err(), Errno::EEXIST);
    assert_eq!(fs::read(root.join("etc/new")).unwrap(), b"theirs");
    assert_eq!(names(&root.join("etc")).len(), before.len() + 1);
}

#[test]
fn nothing_is_written_outside_or_in_the_place_of_what_is_no_file() {
    let (Scratch(path), root) = &scratch("refused");
    for (at, fresh, errno) in [
        ("/etc/hosts", true, Errno::EEXIST),
        ("/etc/pipe", false, Errno::EISDIR),
        ("/etc", false, Errno::EISDIR),
        ("/outside", false, Errno::EISDIR),
        ("/inside", false, Errno::EISDIR),
        ("/none/new", false, Errno::ENOENT),
        ("/etc/hosts/new", false, Errno::ENOTDIR),
        ("new", false, Errno::EINVAL),
    ] {
        assert_eq!(Spot::find(root, at, fresh).unwrap_err(), errno, "{at}");
    }
    Upload::begin(Spot::find(root, "/../../new", false).unwrap(), 0o600, 1).unwrap().0.finish().unwrap();
    assert!(root.join("new").exists() && !path.join("new").exists());
}

#[test]
fn attributes_are_set_as_far_as_they_are_named() {
    let (_scratch, root) = scratch("change");
    let (upload, file) = Upload::begin(Spot::find(&root, "/etc/new", true).unwrap(), 0o600, 1).unwrap();
    write(&file, None, b"abcdef").unwrap();
    let uid = Uid::current().as_raw();
    let changes = Changes { mode: 0o4050, mask: 0o7070, uid: Some(uid), gid: None, size: Some(3) };
    change(&file, &changes).unwrap();
    upload.finish().unwrap();
    let there = || fs::metadata(root.join("etc/new")).unwrap();
    assert_eq!((there().mode() & 0o7777, there().size()), (0o4650, 3));
    change(&open(&root, "/etc/new").unwrap(), &Changes::default()).unwrap();
    assert_eq!(there().mode() & 0o7777, 0o4650);
}
