//! A process that runs QEMU, a child of this program or not. It is held by a pidfd: another process that has its number by now is never taken for it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, Signal, pidfd_open, pidfd_send_signal, prlimit};
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

/// One that runs, or has ended.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) pid: Pid,
    held: AsyncFd<OwnedFd>,
}

impl Process {
    /// Holds the process that has this number now.
    #[expect(deprecated, reason = "a file that is owned stays what it is: what the note warns of cannot be")]
    pub(super) fn hold(pid: Pid) -> io::Result<Process> {
        let held = AsyncFd::new(pidfd_open(pid, PidfdFlags::empty())?)?;
        Ok(Process { pid, held })
    }

    /// Waits until it has ended.
    pub(super) async fn ended(&self) {
        // an error says that it cannot be watched: then it is as if it had gone
        let _readable = self.held.readable().await;
    }

    /// The same, but not for ever; whether it has ended.
    pub(super) async fn has_ended_within(&self, time: Duration) -> bool {
        timeout(time, self.ended()).await.is_ok()
    }

    /// `kill -9`.
    pub(super) fn kill(&self) {
        // an error says that it has ended
        let _gone = pidfd_send_signal(self.held.get_ref(), Signal::KILL);
    }

    /// What it never needs: a dump of its guest's memory on the host's disk, and memory that is not swapped.
    pub(super) fn limit(&self) {
        for resource in [Resource::Core, Resource::Memlock] {
            // one that has ended needs no limits
            let _gone = prlimit(Some(self.pid), resource, Rlimit { current: Some(0), maximum: Some(0) });
        }
    }
}

/// One whose start is not over: it does not outlive it.
#[derive(Debug)]
pub(super) struct Unfinished(Option<Process>);

impl Unfinished {
    pub(super) fn new(process: Process) -> Unfinished {
        Unfinished(Some(process))
    }

    pub(super) fn finish(mut self) -> Option<Process> {
        self.0.take()
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(process) = &self.0 {
            process.kill();
        }
    }
}

/// The processes that take orders in the directory `sockets`, or are about to, by the name of their socket without its ending.
pub(super) fn running(sockets: &Path) -> Result<BTreeMap<String, Process>> {
    let entries = fs::read_dir("/proc").context("cannot read /proc")?;
    let pids = entries.flatten().filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?));
    // held before it is looked at: what is read is its own
    let held = pids.filter_map(|pid| Process::hold(pid).ok());
    let named = held.filter_map(|process| {
        let line = fs::read(format!("/proc/{}/cmdline", process.pid.as_raw_pid())).ok()?;
        Some((name_of(&line, sockets)?, process))
    });
    Ok(named.collect())
}

/// Which machine a command line makes, if it is one of those that take orders in `sockets`.
fn name_of(line: &[u8], sockets: &Path) -> Option<String> {
    let place = sockets.as_os_str().as_bytes();
    let escaped: Vec<u8> =
        place.iter().flat_map(|&byte| std::iter::repeat_n(byte, 1 + usize::from(byte == b','))).collect();
    line.split(|&byte| byte == 0).find_map(|word| {
        let options = word.strip_prefix(b"socket,id=orders,")?;
        let path = options.get(memchr::memmem::find(options, PATH)? + PATH.len()..)?;
        let name = path.strip_prefix(escaped.as_slice())?.strip_prefix(b"/")?.strip_suffix(ENDING.as_bytes())?;
        std::str::from_utf8(name).ok().map(str::to_owned)
    })
}

/// How a process ended that said nothing of it; none if it is not known, as nobody but a parent is told.
pub(super) fn ending(status: Option<ExitStatus>) -> String {
    let Some(status) = status else { return "QEMU ended without a word: somebody killed it, or it failed".into() };
    match (status.signal(), status.code()) {
        (Some(9), _) => "QEMU was killed by signal 9: somebody killed it, or the host had no memory left".into(),
        // SIGSYS
        (Some(31), _) => "QEMU was killed by signal 31: its sandbox forbids what it tried".into(),
        (Some(signal), _) => format!("QEMU was killed by signal {signal}"),
        (None, Some(code)) => format!("QEMU ended with exit code {code}"),
        (None, None) => "QEMU ended".into(),
    }
}

/// In the options of a socket: where it is.
const PATH: &[u8] = b"path=";
/// How the names of sockets for orders end.
pub(super) const ENDING: &str = ".qmp";

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_command_line_names_its_machine() {
        let line = |path: &str| {
            format!("qemu\0-chardev\0socket,id=orders,server=on,wait=off,path={path}\0-qmp\0chardev:orders\0")
        };
        let name = |path: &str, sockets: &str| name_of(line(path).as_bytes(), Path::new(sockets));
        assert_eq!(name("/run/a/abc.qmp", "/run/a").as_deref(), Some("abc"));
        assert_eq!(name("/run/a,,b/abc.qmp", "/run/a,b").as_deref(), Some("abc"));
        for other in ["/run/ab/abc.qmp", "/run/abc.qmp", "/run/a/abc", "run/a/abc.qmp"] {
            assert_eq!(name(other, "/run/a"), None, "{other}");
        }
        assert_eq!(name_of(b"vi\0/run/a/abc.qmp\0", Path::new("/run/a")), None);
    }

    #[tokio::test]
    async fn a_process_is_held_until_it_has_ended() {
        let mut command = Command::new("sleep");
        let mut child = command.arg("1000").stdin(Stdio::null()).spawn().unwrap();
        let pid = Pid::from_raw(child.id().cast_signed()).unwrap();
        let process = Process::hold(pid).unwrap();
        process.limit();
        let limits = fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
        drop(Unfinished::new(process));
        let status = child.wait().unwrap();
        assert_eq!(
            ending(Some(status)),
            "QEMU was killed by signal 9: somebody killed it, or the host had no memory left"
        );
        assert!(Process::hold(pid).is_err());
    }
}
