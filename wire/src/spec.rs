//! What a containerVM is asked to be: parsed values, checked once at the door.
//!
//! How they are written as keys is decided in [`crate::guestinfo`]; what lives is tether's; what is told is [`crate::status`].

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::handshake::LinkKey;

/// Everything that a containerVM is asked to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The container's id: non-empty, of letters, digits, `_`, `.` and `-`.
    pub id: String,
    /// The host name, if it is not the id's first 12 characters.
    pub hostname: Option<String>,
    /// How to reach the host.
    pub link: LinkSpec,
    /// Where the main session's output is logged, for a host that is not there to hear it.
    pub log: Option<LogDevice>,
    /// The main process waits until the host says [`crate::message::Request::Start`]: nothing is missed of its output.
    pub hold: bool,
    /// The process whose end is the VM's end.
    pub main: Process,
}

/// The guest's end of the link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkSpec {
    /// The device under it.
    pub device: LinkDevice,
    /// The key that the host has too.
    pub key: LinkKey,
    /// Seal every packet: see [`crate::link::Security`].
    pub sealed: bool,
    /// Of a serial line, in baud: one of [`SPEEDS`]. Other devices go as fast as they can.
    pub speed: u32,
}

/// The speed of a serial line that nobody gave another: the most that a PC's first ports can do.
pub const SPEED: u32 = 115_200;

/// The speeds that Linux knows by name: termios(3).
#[rustfmt::skip]
pub const SPEEDS: [u32; 18] = [
    9600, 19_200, 38_400, 57_600, 115_200, 230_400, 460_800, 500_000, 576_000, 921_600,
    1_000_000, 1_152_000, 1_500_000, 2_000_000, 2_500_000, 3_000_000, 3_500_000, 4_000_000,
];

/// Which device carries the link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LinkDevice {
    /// The first 8250 serial port, as on ESXi.
    #[default]
    Serial,
    /// The virtio-serial port named [`VIRTIO_PORT`].
    Virtio,
    /// A vsock connection to the host (CID 2) at [`VSOCK_PORT`], over virtio or VMCI.
    Vsock,
}

/// Which device takes the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogDevice {
    /// The third 8250 serial port: the first is the link's, the second the console.
    Serial,
    /// The virtio-serial port named [`LOG_PORT`].
    Virtio,
}

/// The name of the virtio-serial port that carries the link.
pub const VIRTIO_PORT: &str = "tether.link";

/// The name of the virtio-serial port that takes the log.
pub const LOG_PORT: &str = "tether.log";

/// The vsock port at which a host waits for links.
pub const VSOCK_PORT: u32 = 29797;

/// The label of the disk that holds the container's root file system.
pub const ROOT_LABEL: &str = "containerfs";

/// A process to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// The program, then its arguments; never empty. A name without `/` is looked for in the environment's `PATH`.
    pub argv: Vec<String>,
    /// `NAME=VALUE`.
    pub env: Environment,
    /// The directory to run in, absolute; made if it does not exist.
    pub dir: String,
    /// `user[:group]`, names or numbers; empty is root.
    pub user: String,
    /// Run on a terminal of this size.
    pub terminal: Option<TermSize>,
    /// Its standard input comes from the host; otherwise it is empty.
    pub stdin: bool,
    /// Its output goes to the host from the start; otherwise from [`crate::message::Request::Attach`] on.
    pub attach: bool,
    /// The signal that asks it to stop (Linux number).
    pub stop_signal: u8,
}

/// The signal that asks a process to stop unless its image says otherwise.
pub const SIGTERM: u8 = 15;

/// Environment variables. They often hold secrets, so they are not shown by `Debug`.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment(pub Vec<String>);

impl Environment {
    /// The value of the last assignment to `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find_map(|entry| entry.strip_prefix(name)?.strip_prefix('='))
    }

    /// Sets `NAME=VALUE`, in place of an earlier assignment.
    pub fn set(&mut self, entry: String) {
        let name = entry.split_once('=').map_or(entry.as_str(), |(name, _)| name);
        let same = |old: &String| old.split_once('=').is_some_and(|(old, _)| old == name);
        match self.0.iter().position(same) {
            Some(at) => self.0[at] = entry,
            None => self.0.push(entry),
        }
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} variables]", self.0.len())
    }
}

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct TermSize {
    pub rows: u16,
    pub columns: u16,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_is_not_printed() {
        let env = Environment(vec!["PASSWORD=secret".into()]);
        assert_eq!(format!("{env:?}"), "[1 variables]");
    }

    #[test]
    fn the_last_assignment_counts() {
        let mut env = Environment(vec!["A=1".into(), "AB=2".into()]);
        env.set("A=3".into());
        env.set("C=".into());
        assert_eq!(env.0, ["A=3", "AB=2", "C="]);
        assert_eq!((env.get("A"), env.get("C"), env.get("B")), (Some("3"), Some(""), None));
    }
}
