//! What clients ask of `vch serve`, and what it answers: the JSON of the control socket.

use serde::{Deserialize, Serialize};
use wire::message::{self, SessionId, Work};
use wire::status::{Exit, Failure, Status};

pub use crate::hub::Offsets;

/// The first line of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Request {
    /// Which VMs there are. Result: a list of [`Vm`].
    List,
    /// A question or command for a VM's guest that changes none of its sessions' streams. Result: a [`message::Reply`].
    Ask { vm: String, ask: message::Request },
    /// How a session ended, once it has. Result: an [`Exit`].
    Wait {
        vm: String,
        #[serde(default = "main")]
        session: SessionId,
    },
    /// Start some work in a VM. Attached, frames follow; otherwise the result is the session's number.
    Create {
        vm: String,
        work: Work,
        attach: bool,
        /// Standard input will come from here.
        #[serde(default)]
        stdin: bool,
    },
    /// Take part in a session. Frames follow.
    Attach {
        vm: String,
        #[serde(default = "main")]
        session: SessionId,
        /// Standard input will come from here.
        #[serde(default)]
        stdin: bool,
        /// Output up to here is known, of an attachment that broke. Without it, output begins with what comes next.
        #[serde(default)]
        from: Option<Offsets>,
    },
}

fn main() -> SessionId {
    message::MAIN
}

/// An attachment begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    pub session: SessionId,
    /// The session has a terminal.
    #[serde(default)]
    pub terminal: bool,
    /// What the guest has of standard input, and where output goes on.
    #[serde(default)]
    pub offsets: Offsets,
}

/// A VM that serve knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vm {
    pub vm: String,
    pub state: VmState,
    /// The link carries bytes now.
    #[serde(default)]
    pub connected: bool,
    /// The guest program's version.
    #[serde(default)]
    pub version: Option<String>,
    /// What the guest told last about its machine.
    #[serde(default)]
    pub machine: Option<Status>,
}

/// How far a VM's main process is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VmState {
    /// Its guest has not told yet.
    Booting,
    /// It is held until `vch start`.
    Waiting,
    Running {
        pid: u32,
    },
    Ended(Exit),
    /// It could not be run.
    Failed(Failure),
    /// Its guest is gone, and nobody heard how the process ended.
    Gone {
        reason: String,
    },
}

/// Why something could not be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    pub kind: ProblemKind,
    /// One line for a person.
    pub message: String,
    /// The exit code that docker gives it.
    #[serde(default = "refused_code")]
    pub code: u8,
}

/// What kind of problem: a client that takes up an attachment again waits for some to pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemKind {
    /// The request, or a frame, is not what it should be.
    Malformed,
    /// No VM of this name has said hello yet.
    UnknownVm,
    /// A name's beginning fits more than one VM.
    Ambiguous,
    /// The guest has no such session.
    NoSession,
    /// The guest said no, or could not.
    Refused,
    /// The guest's link is over.
    Gone,
    /// Of a later version.
    #[serde(other)]
    Other,
}

impl Problem {
    pub fn new(kind: ProblemKind, message: String) -> Problem {
        Problem { kind, message, code: refused_code() }
    }

    /// The guest could not run it.
    pub fn failure(failure: Failure) -> Problem {
        Problem { kind: ProblemKind::Refused, message: failure.reason, code: failure.kind.code() }
    }
}

fn refused_code() -> u8 {
    125
}

#[cfg(test)]
mod tests {
    use wire::spec::Environment;

    use super::*;

    #[test]
    fn a_request_may_leave_out_and_add() {
        let line = r#"{"op":"attach","vm":"c1","colour":"red"}"#;
        let request = Request::Attach { vm: "c1".into(), session: SessionId(0), stdin: false, from: None };
        assert_eq!(serde_json::from_str::<Request>(line).unwrap(), request);
        let line = r#"{"op":"attach","vm":"c1","session":4,"from":{"stdout":7}}"#;
        let Request::Attach { session, from, .. } = serde_json::from_str(line).unwrap() else { panic!("{line}") };
        assert_eq!((session, from), (SessionId(4), Some(Offsets { stdout: 7, ..Offsets::default() })));
        for line in ["", "{}", r#"{"op":"dance"}"#, r#"{"op":"attach"}"#, "[1]", r#"{"op":"attach","vm":7}"#] {
            assert!(serde_json::from_str::<Request>(line).is_err(), "{line}");
        }
    }

    #[test]
    fn requests_survive_json() {
        let exec = message::Exec {
            argv: vec!["ls".into(), "new\nline".into()],
            env: Environment(vec!["A=b".into()]),
            dir: String::new(),
            user: "www".into(),
            terminal: Some(wire::spec::TermSize { rows: 1, columns: 2 }),
            stdin: true,
            attach: true,
        };
        for request in [
            Request::List,
            Request::Ask { vm: "a".into(), ask: message::Request::Signal { session: message::MAIN, signal: 15 } },
            Request::Wait { vm: "a".into(), session: SessionId(2) },
            Request::Create { vm: "a".into(), work: Work::Exec(exec), attach: true, stdin: true },
        ] {
            let text = serde_json::to_string(&request).unwrap();
            assert!(!text.contains('\n'), "{text}");
            assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), request);
        }
    }

    #[test]
    fn a_problem_of_a_later_version_is_a_problem() {
        let problem: Problem = serde_json::from_str(r#"{"kind":"bored","message":"no"}"#).unwrap();
        assert_eq!((problem.kind, problem.code), (ProblemKind::Other, 125));
    }
}
