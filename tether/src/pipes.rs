//! The two ends of a new process's standard streams.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use guest::devices;
use guest::sys::spawn::Stdio;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{Uid, fchown, pipe2};

/// Our ends.
pub(crate) enum Streams {
    Pipes { stdin: Option<OwnedFd>, stdout: OwnedFd, stderr: OwnedFd },
    Terminal(OwnedFd),
}

/// Pipes for a process that is still to be started.
pub(crate) struct Pipes {
    pub(crate) ours: Streams,
    stdin: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

/// What a process is to its container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// It is what the container is for.
    Main,
    /// One of many that may run beside it.
    Beside,
}

/// Enough that the main process, when it prints, seldom waits for tether.
const PIPE_SIZE: i32 = 256 * 1024;

impl Pipes {
    /// Our ends do not block. Theirs belong to `owner`, as with docker: a process that is not root may open /dev/stderr.
    pub(crate) fn open(with_stdin: bool, place: Place, owner: Uid) -> io::Result<Pipes> {
        let (stdout, stdout_theirs) = pipe2(OFlag::O_CLOEXEC)?;
        let (stderr, stderr_theirs) = pipe2(OFlag::O_CLOEXEC)?;
        let (stdin_theirs, stdin) = match with_stdin {
            true => {
                let (theirs, ours) = pipe2(OFlag::O_CLOEXEC)?;
                set_nonblocking(&ours)?;
                (theirs, Some(ours))
            }
            false => (devices::null()?.into(), None),
        };
        for (ours, theirs) in [(&stdout, &stdout_theirs), (&stderr, &stderr_theirs)] {
            if place == Place::Main {
                // a limit of the user's pipes is no reason not to start
                let _smaller = fcntl(ours, FcntlArg::F_SETPIPE_SZ(PIPE_SIZE));
            }
            set_nonblocking(ours)?;
            fchown(theirs, Some(owner), None)?;
        }
        let ours = Streams::Pipes { stdin, stdout, stderr };
        Ok(Pipes { ours, stdin: stdin_theirs, stdout: stdout_theirs, stderr: stderr_theirs })
    }

    pub(crate) fn stdio(&self) -> Stdio<'_> {
        Stdio::Streams { stdin: self.stdin.as_fd(), stdout: self.stdout.as_fd(), stderr: self.stderr.as_fd() }
    }
}

pub(crate) fn set_nonblocking(fd: &OwnedFd) -> io::Result<()> {
    fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(())
}
