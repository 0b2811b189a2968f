//! What a new process tells its parent when it cannot become what was asked: through a pipe that a successful exec closes.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;

/// What a new process was doing when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Step {
    Fork,
    Cgroup,
    Stdio,
    OomScore,
    /// Setting a limit: [`SpawnError::which`] is its number.
    Limit,
    NoNewPrivileges,
    Seccomp,
    /// Giving up or keeping a capability: [`SpawnError::which`] is its number.
    Capability,
    Credentials,
    Directory,
    /// Looking for the program.
    Find,
    /// The program was found, but by a relative element of `PATH`.
    FindHere,
    /// Asking whether the program may be executed.
    Access,
    Exec,
}

const STEPS: [Step; 14] = [
    Step::Fork,
    Step::Cgroup,
    Step::Stdio,
    Step::OomScore,
    Step::Limit,
    Step::NoNewPrivileges,
    Step::Seccomp,
    Step::Capability,
    Step::Credentials,
    Step::Directory,
    Step::Find,
    Step::FindHere,
    Step::Access,
    Step::Exec,
];

/// Why no process runs.
#[derive(Debug)]
pub struct SpawnError {
    pub step: Step,
    /// Which of several, where the step has several.
    pub which: u8,
    pub error: io::Error,
}

/// The same, before it has crossed the pipe.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failed {
    pub(super) step: Step,
    pub(super) which: u8,
    pub(super) errno: Errno,
}

impl Step {
    pub(super) fn failed(self, errno: Errno) -> Failed {
        Failed { step: self, which: 0, errno }
    }
}

impl From<Failed> for SpawnError {
    fn from(failed: Failed) -> SpawnError {
        SpawnError { step: failed.step, which: failed.which, error: failed.errno.into() }
    }
}

/// Step, which, errno.
const LENGTH: usize = 1 + 1 + 4;

/// In the child.
pub(super) fn send(reporter: impl AsFd, failed: Failed) {
    let [a, b, c, d] = (failed.errno as i32).to_ne_bytes();
    // a parent that is gone needs no report
    let _told = nix::unistd::write(reporter, &[failed.step as u8, failed.which, a, b, c, d]);
}

/// In the parent. `None` when the pipe was closed without a report: the child has exec'ed, or has ended otherwise, which the reaper sees.
pub(super) fn receive(report: &OwnedFd) -> Option<Failed> {
    let mut bytes = [0; LENGTH];
    loop {
        match nix::unistd::read(report, &mut bytes) {
            Err(Errno::EINTR) => {}
            Ok(LENGTH) => break,
            Ok(_) | Err(_) => return None,
        }
    }
    let [step, which, errno @ ..] = bytes;
    let step = STEPS.into_iter().find(|&known| known as u8 == step).unwrap_or(Step::Exec);
    Some(Failed { step, which, errno: Errno::from_raw(i32::from_ne_bytes(errno)) })
}

#[cfg(test)]
mod tests {
    use nix::unistd::pipe;

    use super::*;

    #[test]
    fn every_step_arrives_as_itself() {
        for (number, step) in (0..).zip(STEPS) {
            assert_eq!(step as u8, number);
            let (report, reporter) = pipe().unwrap();
            send(&reporter, Failed { step, which: 40, errno: Errno::EPERM });
            let failed = receive(&report).unwrap();
            assert_eq!((failed.step, failed.which, failed.errno), (step, 40, Errno::EPERM));
        }
    }

    #[test]
    fn silence_is_no_failure() {
        let (report, reporter) = pipe().unwrap();
        drop(reporter);
        assert!(receive(&report).is_none());
    }
}
