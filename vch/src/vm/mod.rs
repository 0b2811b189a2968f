//! What a containerVM needs of a hypervisor. [`qemu`] is the one there is; [`accel`] decides how it computes, [`overlay`] writes its disk, [`orders`] speaks to it,
//! [`ports`] finds those of the host that lead to it, [`vsock`] finds the other end of its vsock device, [`fork`] has one go on where another was saved.

use std::path::PathBuf;

use wire::spec::LinkDevice;

pub use crate::assets::Boot;

pub mod accel;
pub mod fork;
pub mod orders;
pub mod overlay;
pub mod ports;
pub mod qemu;
pub mod vsock;

use self::ports::Forward;
use self::vsock::Vsock;
use crate::pipe::Address;

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
    pub link_end: LinkEnd,
    /// The other end of the link, if it is a vsock.
    pub vsock: Option<Vsock>,
    /// A file that takes the console's output.
    pub console: PathBuf,
    /// A file that takes the log of the container's output.
    pub log: Option<PathBuf>,
    pub guestinfo: PathBuf,
    /// The root file system on one disk: a device of its own, which is the first that the guest sees.
    pub root: Option<Disk>,
    /// All other disks. One controller holds them: each device of its own would cost a tenth of a second of every start.
    pub disks: Vec<Disk>,
    pub cards: Vec<Card>,
    /// The unix socket at which QEMU takes orders, and tells why it ends: QMP.
    pub orders: Option<PathBuf>,
    pub begins: Begins,
}

impl Machine {
    /// Memory, processors and cards may come while it runs: a host's own does.
    pub(crate) fn grows(&self) -> bool {
        matches!(self.link_end, LinkEnd::Host(_) | LinkEnd::Nobody { grows: true })
    }
}

/// How a machine begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Begins {
    /// Its kernel boots.
    #[default]
    Boot,
    /// Its kernel boots, and its guest waits for being cloned. Its memory is the file that is QEMU's standard output.
    Template,
    /// Where a template was saved: with the state on QEMU's standard input, and a private map of the memory on its standard output.
    Clone,
}

/// What the link's device is connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEnd {
    /// The unix socket at which vch itself waits, from before the machine is on. Without vch the machine has nothing to run for: it ends when it would boot again.
    Own(PathBuf),
    /// A host's own socket, which waits there also after the host has been started again. The machine ends when it would boot again: its host decides on that.
    Host(PathBuf),
    /// Nobody: a template's. What is made of it may have a host's own socket.
    Nobody { grows: bool },
    /// A VCH elsewhere, at a unix socket or by TCP, which may come and go while the machine runs.
    Elsewhere(Address),
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    pub file: PathBuf,
    pub format: Format,
    /// By which the guest finds it: at most 36 characters.
    pub serial: Option<String>,
    pub read_only: bool,
    /// Nobody will look at it when the machine has ended, however it ends: it need not reach the host's disk.
    pub transient: bool,
}

/// How a disk lies in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Raw,
    Qcow2,
    Vmdk,
}

/// A network card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    pub mac: [u8; 6],
    pub end: CardEnd,
}

/// What a card is connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CardEnd {
    /// QEMU's user network, into which these ports of the host lead.
    User(Vec<Forward>),
    /// A switch in this program: each frame is a datagram. The machine's frames go to the socket `switch`; those for it go to its own socket, `machine`.
    Switch { switch: PathBuf, machine: PathBuf },
    /// A device of the host's kernel.
    Tap(String),
    /// No other card: a template's.
    Nowhere,
}
