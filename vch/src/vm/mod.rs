//! What a containerVM needs of a hypervisor. [`qemu`] is the one there is; [`accel`] decides how it computes, [`overlay`] writes its disk,
//! [`vsock`] finds the other end of its vsock device.

use std::path::PathBuf;

use wire::spec::LinkDevice;

pub use crate::assets::Boot;

pub mod accel;
pub mod overlay;
pub mod qemu;
pub mod vsock;

use self::vsock::Vsock;

/// How the processor's instructions are executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accel {
    /// By the processor itself.
    Kvm,
    /// By translation: ten times slower, and everywhere.
    Tcg,
}

/// One machine.
#[derive(Clone, Debug)]
pub struct Machine {
    pub boot: Boot,
    /// In place of QEMU's own, for a direct boot.
    pub firmware: Option<PathBuf>,
    pub accel: Accel,
    pub memory_mib: u64,
    pub cpus: u8,
    pub link: LinkDevice,
    /// The unix socket at which vch waits for QEMU's end of the link.
    pub link_socket: PathBuf,
    /// The other end of the link, if it is a vsock.
    pub vsock: Option<Vsock>,
    /// A file that takes the console's output.
    pub console: PathBuf,
    /// A file that takes the log of the container's output.
    pub log: Option<PathBuf>,
    pub guestinfo: PathBuf,
    pub disk: Option<Disk>,
}

/// A qcow2 disk.
#[derive(Clone, Debug)]
pub struct Disk {
    pub file: PathBuf,
    /// Nobody will look at it when the machine has ended, however it ends: it need not reach the host's disk.
    pub transient: bool,
}
