//! What a container does and uses: its processes, and the counters of its control group and interfaces.
//!
//! Counters grow from the start of the container. Sources: proc(5), the kernel's admin-guide/cgroup-v2.rst, /proc/net/dev.

use serde::{Deserialize, Serialize};

/// One process: proc_pid_stat(5) and proc_pid_status(5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ProcessInfo {
    pub pid: u32,
    /// The parent's number; 0 when it is outside of the container.
    pub ppid: u32,
    pub uid: u32,
    /// As ps shows it: R, S, D, Z, T and so on.
    pub state: char,
    /// Processor time, microseconds.
    pub cpu_us: u64,
    /// Microseconds since boot.
    pub started_us: u64,
    /// Resident memory, bytes.
    pub resident: u64,
    /// The device number of its terminal, or 0.
    pub terminal: u32,
    /// The arguments; of a process without any, its name in brackets.
    pub command: Vec<String>,
}

/// What a container uses. Times in microseconds, sizes in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Stats {
    /// Since boot.
    pub at_us: u64,
    pub memory: Memory,
    pub cpu: Cpu,
    pub pids: u64,
    /// 0 when there is none.
    pub pids_limit: u64,
    /// One for each disk.
    pub io: Vec<DiskIo>,
    /// One for each interface but the loopback.
    pub networks: Vec<Interface>,
}

/// memory.current, memory.max (0 for none), memory.peak, and of memory.stat what tells caches from needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Memory {
    pub current: u64,
    pub limit: u64,
    pub peak: u64,
    pub anon: u64,
    pub file: u64,
    pub inactive_file: u64,
    /// Processes killed for lack of memory.
    pub oom_kills: u64,
    /// The machine's.
    pub total: u64,
}

/// cpu.stat.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Cpu {
    pub usage_us: u64,
    pub user_us: u64,
    pub system_us: u64,
    pub periods: u64,
    pub throttled_periods: u64,
    pub throttled_us: u64,
    /// Processors that are on.
    pub online: u32,
    /// Time of all processors of the machine, idle included.
    pub machine_us: u64,
}

/// io.stat of one device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct DiskIo {
    pub major: u32,
    pub minor: u32,
    pub read_bytes: u64,
    pub write_bytes: u64,
    pub reads: u64,
    pub writes: u64,
}

/// One interface of /proc/net/dev.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Interface {
    pub name: String,
    pub rx_bytes: u64,
    pub rx_packets: u64,
    pub rx_errors: u64,
    pub rx_dropped: u64,
    pub tx_bytes: u64,
    pub tx_packets: u64,
    pub tx_errors: u64,
    pub tx_dropped: u64,
}
