//! What the container may use of its machine, and what the machine tells about itself.

use core::net::SocketAddr;

/// The machine around the container. What is `None` has no limit but the machine's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Bytes of memory that the container may use; what tether needs is kept from it in any case.
    pub memory: Option<u64>,
    /// Processor time, in thousandths of one processor.
    pub cpus: Option<u32>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Bytes of `/dev/shm`.
    pub shm_size: u64,
    /// Kernel parameters: names with dots, as sysctl(8) has them, and values.
    pub sysctls: Vec<(String, String)>,
    /// Memory that the container has not used for long is given back to the host.
    pub reclaim: bool,
}

/// Bytes of `/dev/shm` unless somebody says otherwise: docker's.
pub const SHM_SIZE: u64 = 64 << 20;

impl Default for Machine {
    fn default() -> Machine {
        Machine { memory: None, cpus: None, pids: None, shm_size: SHM_SIZE, sysctls: Vec::new(), reclaim: true }
    }
}

/// What is told about what happens inside, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnostics {
    /// Which entries of tether's own log are written.
    pub level: Level,
    /// Who also takes the output of processes.
    pub syslog: Option<Syslog>,
}

/// How much tether says, from the least.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Level {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

/// A syslog server: RFC 5424.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Syslog {
    pub transport: Transport,
    pub server: SocketAddr,
}

/// What carries syslog's entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// RFC 6587, counted octets.
    Tcp,
    /// RFC 5426.
    Udp,
}
