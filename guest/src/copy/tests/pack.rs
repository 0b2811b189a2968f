//! What is put in an archive, and under which names.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;

use nix::sys::stat::Mode;

use super::{Scratch, out};
use crate::copy::reader::Reader;

fn names(archive: &[u8]) -> Vec<String> {
    let mut input = archive;
    let mut reader = Reader::new(&mut input);
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
