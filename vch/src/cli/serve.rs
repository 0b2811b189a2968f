//! What was typed for `vch serve`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{BootKind, CloneWish, Control, ListenArgs};
use crate::listen::StatusHost;
use crate::pipe::Address;
use crate::size;

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

    /// Who carries the networks of its machines
    #[arg(long, value_enum, default_value_t = Network::User)]
    pub network: Network,

    /// Where VMs connect: unix://PATH, tcp://ADDRESS:PORT, vspc://ADDRESS:PORT, vsock://PORT, or a device, serial://DEVICE?speed=BAUD
    ///
    /// On vspc, which is telnet with VMware's extension, ESXi connects serial ports that have this host as their concentrator (2377 without `:PORT`), and can move their VMs.
    /// On tcp, vspc and serial, which others can overhear, packets must be sealed. On unix and vsock the VM's spec decides.
    /// With --hypervisor qemu, its own machines have an address of their own, and others may connect to these.
    #[arg(long, value_name = "ADDRESS", num_args = 1..)]
    pub link_listen: Vec<Address>,

    /// Boot its machines' kernel directly, or bootstrap.iso through the firmware
    #[arg(long, value_enum, default_value_t = BootKind::Kernel)]
    pub boot: BootKind,

    /// Have its machines go on where a template of their kind waits, in place of booting them: `auto` boots one where that cannot be done, and says why; `always` fails its
    /// start. The first machine of a kind makes the template, which is kept in memory until nobody has used it for ten minutes
    #[arg(long, value_enum, env = "VCH_CLONE", default_value_t = CloneWish::Never)]
    pub clone: CloneWish,

    /// Where kernel, initramfs and bootstrap.iso lie [default: dist/ beside the program, /usr/share/tether]
    #[arg(long, value_name = "DIR", env = "VCH_ASSETS")]
    pub assets: Option<PathBuf>,

    /// A machine whose link has been away for so many seconds counts as gone: its container shows as exited, until it comes back
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    pub lost_after: u32,

    /// How much of a container's output is kept on disk, at most: the oldest goes first
    #[arg(long, value_name = "SIZE", default_value = "100m", value_parser = log_limit)]
    pub log_limit: u64,

    /// Where browsers find the status page: tcp://ADDRESS:PORT or unix://PATH; may be given more than once
    ///
    /// Without `:PORT` it is 2378. The page shows the host and its containers, with their logs, and changes nothing. On TCP it asks of who connects what
    /// the Docker API does: TLS with --tls, and a certificate with --tlsverify.
    #[arg(long, value_name = "ADDRESS")]
    pub status: Vec<StatusHost>,

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

/// Whose bridges docker's networks are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Network {
    /// This program, which needs no root for it
    User,
    /// The host's kernel, with bridges, taps and rules of nftables: needs root, iproute2 and nftables
    Kernel,
}

/// Parses `--log-limit`.
fn log_limit(text: &str) -> Result<u64, String> {
    match size::bytes(text)? {
        ..LEAST_LOG => Err(format!("a container's output needs at least {} KiB", LEAST_LOG >> 10)),
        bytes => Ok(bytes),
    }
}

/// What the appliance's settings take (`wire::appliance`): below it, a burst of output would be gone before anybody has read it.
const LEAST_LOG: u64 = 4 << 10;
