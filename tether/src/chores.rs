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
use wire::message::{Message, Reply};
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
    /// What the child has to say: a message.
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
                Ok(()) => report_of(request, work()),
                Err(errno) => report_of(request, Reply::Refused { reason: errno.to_string() }),
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
        let reply = match Message::decode(&bytes) {
            Ok(Message::Reply { reply, .. }) => reply,
            _ => Reply::Refused { reason: "it ended before it was done".into() },
        };
        Some((request, reply))
    }
}

/// In the child.
fn report_of(id: u64, reply: Reply) -> i32 {
    let bytes = Message::Reply { id, reply }.encode();
    i32::from(io::stdout().write_all(&bytes).and_then(|()| io::stdout().flush()).is_err())
}

/// Tells every disk that is written which of its blocks are free.
pub(crate) fn trim() -> Reply {
    Reply::Trimmed { bytes: mounts::trim_all(io::stdin()) }
}

/// Mounts what a running container is given, and waits for its disk as long as a boot would. For a chore.
pub(crate) fn add(mount: &Mount) -> Result<(), Failure> {
    volumes::find_and_mount(&[mount], Path::new("/"))
}
