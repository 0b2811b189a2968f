//! What a VM tells about itself: how it is, how a process ended, and why one never began.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::message::MAIN;

/// How a machine is: one value, told whole. Over the link it is JSON in [`crate::message::Event::Status`]; where the hypervisor has a store for it, it is
/// the value of `guestinfo.vice..status`, written at once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Of the same boot, the status with the higher number is the later one.
    pub generation: u64,
    /// How far the machine is.
    pub state: MachineState,
    /// Why it could not do what its spec asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// The spec's sessions, by name.
    pub sessions: BTreeMap<String, SessionStatus>,
    /// The spec's networks, by name.
    pub networks: BTreeMap<String, EndpointStatus>,
}

impl Status {
    /// As it is told.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("texts and numbers are JSON")
    }

    /// What is told of the spec's process.
    pub fn main(&self) -> Option<&SessionStatus> {
        self.sessions.values().find(|session| session.session == MAIN.0)
    }
}

/// How far a machine is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MachineState {
    /// Its root, or its network, is not ready.
    #[default]
    Booting,
    /// It serves its sessions.
    Running,
    /// The main session has been asked to stop, or has ended.
    Stopping,
    /// It will power off, because of its failure.
    Failed,
}

/// How one of the spec's sessions is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionStatus {
    /// The number of its session.
    #[serde(default)]
    pub session: u32,
    /// How far it is.
    pub state: ProcessState,
    /// Of its process, while it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// How its process ended last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit: Option<Exit>,
    /// How often it was started again.
    pub restarts: u32,
    /// What its health check says, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
}

/// How far a session of the spec is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProcessState {
    /// It is held until the host says `Start`.
    Waiting,
    /// Its process runs.
    Running,
    /// Its process has ended and will be started again.
    Restarting,
    /// It has ended for good.
    Ended,
}

/// What a health check has found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// The verdict.
    pub verdict: Verdict,
    /// Failures in a row.
    pub failing: u32,
    /// What the last check exited with, or 124 if it took too long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<u8>,
    /// What the last check printed: its first 4,096 bytes.
    pub output: String,
}

/// Whether a process is well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It has just been started.
    Starting,
    /// The last check went well.
    Healthy,
    /// As many checks as the spec allows have failed in a row.
    Unhealthy,
}

/// What a network gave the machine. Addresses are text, with the length of their prefix where they have one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointStatus {
    /// The interface's name.
    pub interface: String,
    /// Its hardware address, as `52:54:00:12:34:56`.
    pub mac: String,
    /// As `10.0.2.15/24`.
    pub addresses: Vec<String>,
    /// Who carries packets to other networks.
    pub gateways: Vec<String>,
    /// Name servers.
    pub dns: Vec<String>,
}

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
