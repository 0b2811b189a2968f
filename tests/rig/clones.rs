//! Containers that are clones, with templates that nobody else has: who keeps them, and what lies in the memory of each machine.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::artifacts;
use crate::vch::{self, DEADLINE, Run};

/// A user who has no templates yet. They end with it.
pub struct Clones {
    // the keepers' sockets are in it; disks are in a cache that all share
    runtime: TempDir,
}

/// A process that keeps a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keeper {
    pub pid: Pid,
    pub socket: PathBuf,
}

impl Default for Clones {
    fn default() -> Clones {
        Clones::new()
    }
}

impl Clones {
    pub fn new() -> Clones {
        Clones { runtime: tempfile::Builder::new().prefix("clones-").tempdir_in("/tmp").expect("a temporary folder") }
    }

    /// `vch run OPTIONS… IMAGE COMMAND…`, in which no other one's templates are found.
    pub fn run(&self, options: &[&str], image: &Path, command: &[&str]) -> Run {
        let image = image.to_str().expect("a plain path");
        let run = vch::run(options.iter().chain([&image]).chain(command));
        // what a killed test leaves is gone some time
        run.env("XDG_RUNTIME_DIR", self.runtime.path()).env("VCH_TEMPLATE_IDLE", "600")
    }

    /// `vch run --rm OPTIONS… busybox sh -c SCRIPT`.
    pub fn shell(&self, options: &[&str], script: &str) -> Run {
        let options = [&["--rm"], options].concat();
        self.run(&options, &artifacts::dist("busybox.tar"), &["sh", "-c", script])
    }

    /// Those that keep a template just now.
    pub fn keepers(&self) -> Vec<Keeper> {
        let keeper = |pid: Pid| {
            let line = command_line(pid);
            let words: Vec<&str> = line.split('\0').collect();
            match words[..] {
                [_, "keep-template", socket, ..] if Path::new(socket).starts_with(self.runtime.path()) => {
                    Some(Keeper { pid, socket: socket.into() })
                }
                _ => None,
            }
        };
        processes().filter_map(keeper).collect()
    }

    /// The only one.
    pub fn keeper(&self) -> Keeper {
        let keepers = self.keepers();
        let [keeper] = keepers.as_slice() else { panic!("one keeper: {keepers:?}") };
        keeper.clone()
    }

    /// A program to be named by `VCH_QEMU`: what it does before it becomes QEMU, with the arguments in `$@` and a folder of its own in `$here`.
    pub fn qemu(&self, before: &str) -> PathBuf {
        let dir = tempfile::tempdir_in(self.runtime.path()).expect("a temporary folder").keep();
        let path = dir.join("qemu");
        let script = format!("#!/bin/sh\nhere='{}'\n{before}\nexec qemu-system-x86_64 \"$@\"\n", dir.display());
        fs::write(&path, script).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a file of ours");
        path
    }
}

impl Drop for Clones {
    fn drop(&mut self) {
        for keeper in self.keepers() {
            keeper.end(Signal::SIGTERM);
        }
    }
}

impl Keeper {
    /// Ends it, and waits until it is gone.
    pub fn end(&self, signal: Signal) {
        // an error says that it is gone
        kill(self.pid, signal).ok();
        let began = Instant::now();
        while command_line(self.pid).contains("keep-template") {
            assert!(began.elapsed() < DEADLINE, "{self:?} does not end");
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    }

    /// The file that is the template's memory.
    pub fn memory(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/1", self.pid))
    }

    /// The file that is the state of its devices.
    pub fn state(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/0", self.pid))
    }
}

/// The QEMU of a `vch run`.
pub fn machine_of(vch: Pid) -> Pid {
    let is_child = |pid: &Pid| {
        // proc(5): the name may hold blanks and parentheses; behind it are a letter and the parent
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let parent = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)).map(str::to_owned);
        parent == Some(vch.to_string()) && command_line(*pid).contains("qemu-system")
    };
    let machines: Vec<Pid> = processes().filter(is_child).collect();
    let [machine] = machines.as_slice() else { panic!("one QEMU of {vch}: {machines:?}") };
    *machine
}

/// Whether some bytes are in the memory of a clone: all of it, what it has in common with its template included.
pub fn is_in_guest(qemu: Pid, bytes: &[u8]) -> bool {
    let maps = fs::read_to_string(format!("/proc/{qemu}/maps")).expect("it runs");
    let memory = File::open(format!("/proc/{qemu}/mem")).expect("it is ours");
    let ranges: Vec<&str> = maps.lines().filter(|line| line.contains("memfd:vch-template-memory")).collect();
    assert!(!ranges.is_empty(), "QEMU has no template's memory: {maps}");
    ranges.iter().any(|line| {
        let ends = line.split([' ', '-']).take(2).map(|end| u64::from_str_radix(end, 16).expect("proc(5)"));
        let [from, to] = ends.collect::<Vec<_>>()[..] else { panic!("{line}") };
        is_in(&mut Range { file: &memory, at: from, end: to }, bytes)
    })
}

/// Whether some bytes are in what can be read.
pub fn is_in(from: &mut impl Read, bytes: &[u8]) -> bool {
    let (mut buffer, mut kept) = (vec![0; 1 << 20], 0);
    loop {
        match from.read(&mut buffer[kept..]).expect("it can be read") {
            0 => return false,
            count => {
                if finds(&buffer[..kept + count], bytes) {
                    return true;
                }
                let rest = (kept + count).min(bytes.len() - 1);
                buffer.copy_within(kept + count - rest..kept + count, 0);
                kept = rest;
            }
        }
    }
}

/// Horspool's search: most bytes are never looked at.
fn finds(text: &[u8], bytes: &[u8]) -> bool {
    let mut skips = [bytes.len(); 256];
    for (at, &byte) in bytes[..bytes.len() - 1].iter().enumerate() {
        skips[usize::from(byte)] = bytes.len() - 1 - at;
    }
    let mut at = 0;
    while let Some(window) = text.get(at..at + bytes.len()) {
        if window == bytes {
            return true;
        }
        at += skips[usize::from(window[bytes.len() - 1])];
    }
    false
}

/// A part of a process's memory.
struct Range<'a> {
    file: &'a File,
    at: u64,
    end: u64,
}

impl Read for Range<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read_at(&mut buffer[..most], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

fn processes() -> impl Iterator<Item = Pid> {
    let all = fs::read_dir("/proc").expect("procfs").flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).map(Pid::from_raw)
}

fn command_line(pid: Pid) -> String {
    String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_found_wherever_they_lie() {
        let marker = b"0123456789abcdef";
        for at in [0, 1, (1 << 20) - 20, (1 << 20) - 16, (1 << 20) - 8, (1 << 20) - 1, 1 << 20, 3_000_000] {
            let mut text = vec![b'0'; 3_000_016];
            assert!(!is_in(&mut text.as_slice(), marker), "{at}");
            text[at..at + 16].copy_from_slice(marker);
            assert!(is_in(&mut text.as_slice(), marker), "{at}");
        }
    }
}
