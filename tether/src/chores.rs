//! Requests that take time: a child of ours does what is asked, and the answer is given when it has ended.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::Path;

use guest::mounts;
use guest::sys::spawn::{Stdio, run_in_child};
use nix::fcntl::OFlag;
use nix::unistd::{Pid, fchdir, pipe2};
use wire::codec::MAX_ENCODED;
use wire::message::Reply;
use wire::spec::Mount;
use wire::status::Failure;

use crate::pipes::set_nonblocking;
use crate::volumes;

/// Those that are under way.
#[derive(Default)]
pub(crate) struct Chores(Vec<Chore>);

struct Chore {
    pid: Pid,
    /// What is answered.
    request: u64,
    /// What the child has to say.
    report: File,
}

impl Chores {
    /// Begins one. It runs in the machine's own root, which is out of the container's sight, and sees the container's root as `/`.
    pub(crate) fn begin(&mut self, request: u64, work: impl FnOnce() -> Reply) -> Result<(), String> {
        let started = || {
            let (report, out) = pipe2(OFlag::O_CLOEXEC)?;
            set_nonblocking(&report)?;
            let own = mounts::own_root().ok_or(io::ErrorKind::NotConnected)?;
            let stderr = io::stderr();
            let stdio = Stdio::Streams { stdin: own, stdout: out.as_fd(), stderr: stderr.as_fd() };
            let run = || match fchdir(io::stdin()) {
                Ok(()) => send(&work()),
                Err(errno) => send(&Reply::Refused { reason: errno.to_string() }),
            };
            let pid = run_in_child(&stdio, &[], run).map_err(|failed| failed.error)?;
            io::Result::Ok(Chore { pid, request, report: report.into() })
        };
        self.0.push(started().map_err(|error| format!("cannot begin: {error}"))?);
        Ok(())
    }

    /// A child has ended: the request that it was for, and the answer. None of another's child.
    pub(crate) fn ended(&mut self, pid: Pid) -> Option<(u64, Reply)> {
        let at = self.0.iter().position(|chore| chore.pid == pid)?;
        let Chore { request, report, .. } = self.0.swap_remove(at);
        let mut bytes = Vec::new();
        // an error is an end
        let _read = (&report).take(MAX_ENCODED as u64).read_to_end(&mut bytes);
        let reply = read_report(&bytes);
        Some((request, reply.unwrap_or_else(|| Reply::Refused { reason: "it ended before it was done".into() })))
    }
}

/// In the child.
fn send(reply: &Reply) -> i32 {
    i32::from(io::stdout().write_all(&report_of(reply)).and_then(|()| io::stdout().flush()).is_err())
}

const DONE: u8 = b'd';
const TRIMMED: u8 = b't';
const REFUSED: u8 = b'r';

/// The replies that a chore has, in bytes. Not those of the link: a decoder of every reply would be 10 KB of a program that reads no other.
fn report_of(reply: &Reply) -> Vec<u8> {
    match reply {
        Reply::Trimmed { bytes } => [&[TRIMMED], bytes.to_le_bytes().as_slice()].concat(),
        Reply::Refused { reason } => [&[REFUSED], reason.as_bytes()].concat(),
        _ => vec![DONE],
    }
}

fn read_report(bytes: &[u8]) -> Option<Reply> {
    match bytes.split_first()? {
        (&DONE, []) => Some(Reply::Done),
        (&TRIMMED, bytes) => Some(Reply::Trimmed { bytes: u64::from_le_bytes(bytes.try_into().ok()?) }),
        (&REFUSED, reason) => Some(Reply::Refused { reason: String::from_utf8_lossy(reason).into_owned() }),
        _ => None,
    }
}

/// Tells every disk that is written which of its blocks are free.
pub(crate) fn trim() -> Reply {
    Reply::Trimmed { bytes: mounts::trim_all(io::stdin()) }
}

/// Mounts what a running container is given, and waits for its disk as long as a boot would. For a chore.
pub(crate) fn add(mount: &Mount) -> Result<(), Failure> {
    volumes::find_and_mount(&[mount], Path::new("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_child_reports_is_read_and_half_of_it_is_not() {
        for reply in [Reply::Done, Reply::Trimmed { bytes: 300 }, Reply::Refused { reason: "no disk".into() }] {
            assert_eq!(read_report(&report_of(&reply)), Some(reply));
        }
        for odd in [&b""[..], b"dd", b"t\x01\x02", b"x"] {
            assert_eq!(read_report(odd), None, "{odd:?}");
        }
    }
}
