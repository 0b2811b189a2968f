//! What a VM tells about itself: how a process ended, and why one never began.

use serde::{Deserialize, Serialize};

/// How a session's process ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// In which way.
    pub ending: Ending,
    /// Microseconds since boot.
    pub started_us: u64,
    /// Microseconds since boot.
    pub ended_us: u64,
    /// The kernel killed one of its processes for lack of memory.
    pub oom: bool,
}

/// The two ways in which a process ends: `wait(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// It called `exit`.
    #[allow(missing_docs)]
    Exited { code: u8 },
    /// A signal (Linux number) killed it.
    #[allow(missing_docs)]
    Signaled { signal: u8, core: bool },
}

impl Ending {
    /// The exit code that a shell, and docker, give it: 128 + n for a signal.
    pub fn code(self) -> u8 {
        match self {
            Ending::Exited { code } => code,
            Ending::Signaled { signal, .. } => 128 + (signal & 0x7f),
        }
    }
}

/// Why a VM could not do what its spec asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{reason}")]
pub struct Failure {
    /// What kind it is: decides the exit code.
    pub kind: FailureKind,
    /// One line for a person.
    pub reason: String,
}

/// What went wrong, as far as the exit code depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// There is no spec, or it cannot be read.
    Spec,
    /// A disk is missing or cannot be mounted.
    Disk,
    /// The machine could not be set up otherwise.
    Machine,
    /// The program, or the directory to run it in, does not exist.
    ProgramNotFound,
    /// The program may not be executed, or is none.
    NotExecutable,
    /// The image has no such user or group.
    UnknownUser,
}

impl FailureKind {
    /// Docker's exit code for it.
    pub fn code(self) -> u8 {
        match self {
            FailureKind::Spec | FailureKind::Disk | FailureKind::Machine | FailureKind::UnknownUser => 125,
            FailureKind::NotExecutable => 126,
            FailureKind::ProgramNotFound => 127,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_a_shell() {
        assert_eq!(Ending::Exited { code: 255 }.code(), 255);
        assert_eq!(Ending::Signaled { signal: 9, core: false }.code(), 137);
        assert_eq!(FailureKind::ProgramNotFound.code(), 127);
    }
}
