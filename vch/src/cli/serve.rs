//! What was typed for `vch serve`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{Control, ListenArgs};
use crate::pipe::Address;

/// Hold the links of containerVMs, for the other commands to use.
///
/// Each containerVM connects to one of the addresses and proves that it has its key, which follows from the master key and its id. Serve keeps nothing but the
/// master key: it may be killed at any time and started again; the VMs and the clients that are attached wait for it, and nothing is lost or repeated.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Example: vch serve --hypervisor none --link-listen unix:///run/vch/links.sock --link-listen tcp://127.0.0.1:8080"
)]
pub struct ServeArgs {
    /// Who makes the machines; `none`: somebody else does
    #[arg(long, value_enum)]
    pub hypervisor: Hypervisor,

    /// Where VMs connect: unix://PATH, tcp://ADDRESS:PORT, vspc://ADDRESS[:PORT], vsock://PORT, or a device, serial://DEVICE?speed=BAUD
    ///
    /// On vspc, which is telnet with VMware's extension, ESXi connects serial ports that have this host as their concentrator (port 2377), and can move their VMs.
    /// On tcp, vspc and serial, which others can overhear, packets must be sealed. On unix and vsock the VM's spec decides.
    #[arg(long, value_name = "ADDRESS", required = true, num_args = 1..)]
    pub link_listen: Vec<Address>,

    /// A machine whose link has been away for so many seconds counts as gone: its container shows as exited, until it comes back
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    pub lost_after: u32,

    /// The master key: a file with 64 hexadecimal digits that only its owner can read; made if it does not exist [default: master.key in the state directory]
    #[arg(long, value_name = "FILE")]
    pub master_key: Option<PathBuf>,

    /// Where the master key lies, unless that is said [default: $XDG_STATE_HOME/tether]
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,

    #[command(flatten)]
    pub control: Control,

    // behind the others: its heading stays for what follows
    #[command(flatten)]
    pub listen: ListenArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Hypervisor {
    /// Machines are made elsewhere, and connect
    None,
    /// Machines are made with QEMU
    Qemu,
}
