//! Archives without end: what they take of memory, and what happens where the memory for times ends.

use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::sys::wait::{WaitStatus, waitpid};

use super::{Scratch, crafted, of_kind};
use crate::copy::entry::Kind;
use crate::copy::unpack;
use crate::sys::spawn;

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
    let pid = spawn::run_in_child(&stdio, &[], work).unwrap();
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
