//! What a containerVM is asked to be: parsed values, checked once at the door.
//!
//! How they are written as keys is decided in [`crate::guestinfo`]; what lives is tether's; what is told is [`crate::status`].

mod about;
mod disks;
mod machine;
mod network;
mod process;

use std::collections::BTreeMap;

pub use about::About;
pub use disks::{DiskId, Mount, ROOT_LABEL, Root, Source, Top};
pub use machine::{Diagnostics, Level, Machine, SHM_SIZE, Syslog, Transport};
pub use network::{Endpoint, Names, Nic, Port, Prefix, Protocol, Route, Trust};
pub use process::{
    ALL_CAPABILITIES, Capabilities, DOCKERS_CAPABILITIES, Environment, HealthCheck, Limit, Process, Restart, Rights,
    SIGTERM, STOP_TIMEOUT, TermSize,
};

use crate::handshake::LinkKey;

/// Everything that a containerVM is asked to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The container's id: non-empty, of letters, digits, `_`, `.` and `-`.
    pub id: String,
    /// The host name, if it is not the id's first 12 characters.
    pub hostname: Option<String>,
    /// What comes behind the host name and a dot.
    pub domain: Option<String>,
    /// How to reach the host.
    pub link: LinkSpec,
    /// Where the main session's output is logged, for a host that is not there to hear it.
    pub log: Option<LogDevice>,
    /// The main process waits until the host says [`crate::message::Request::Start`]: nothing is missed of its output.
    pub hold: bool,
    /// Where the container's files are.
    pub root: Root,
    /// What is mounted in it.
    pub mounts: Vec<Mount>,
    /// The networks that it is on.
    pub networks: Vec<Endpoint>,
    /// Names of others.
    pub names: Names,
    /// What it may use.
    pub machine: Machine,
    /// What is told about what happens inside.
    pub diagnostics: Diagnostics,
    /// The process whose end is the VM's end.
    pub main: Process,
    /// Processes that run beside it from its start to its end, by the names of their sessions: a pod.
    pub others: BTreeMap<String, Process>,
}

impl Spec {
    /// A container of that id with one process and nothing else.
    pub fn new(id: impl Into<String>, link: LinkSpec, main: Process) -> Spec {
        Spec {
            id: id.into(),
            hostname: None,
            domain: None,
            link,
            log: None,
            hold: false,
            root: Root::default(),
            mounts: Vec::new(),
            networks: Vec::new(),
            names: Names::default(),
            machine: Machine::default(),
            diagnostics: Diagnostics::default(),
            main,
            others: BTreeMap::new(),
        }
    }
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
