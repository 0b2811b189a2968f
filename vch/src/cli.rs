//! What was typed: the command line as clap parses it, in docker's words.
//!
//! It decides spelling and nothing else; what the options mean for an image is decided in [`crate::plan`].

use clap::{Parser, Subcommand};

mod certs;
mod client;
mod keep_template;
mod listen;
mod machine;
mod ova;
pub mod run;
mod serve;
mod vmx;

pub use certs::CertsArgs;
pub use client::{
    AttachArgs, Control, CpArgs, ExecArgs, KillArgs, LogsArgs, PsArgs, StartArgs, StatsArgs, StopArgs, TopArgs,
    WaitArgs,
};
pub use keep_template::KeepTemplateArgs;
pub use listen::ListenArgs;
pub use machine::{KernelLogArgs, RebootArgs, ReloadArgs, StatusArgs, TrimArgs};
pub use ova::OvaArgs;
pub use run::{BootKind, CloneWish, ContainerArgs, DiskForm, LinkKind, RunArgs};
pub use serve::{Hypervisor, Network, ServeArgs};
pub use vmx::{EsxiArgs, LinkUri, VmdkForm, VmxArgs};

/// Runs containers as virtual machines.
///
/// `vch run` starts one and stays with it. `vch serve` holds the links of many, which come and go; the other commands use what it holds. They are docker's, and
/// so are their exit codes: 125 says that vch itself failed. `vch vmx` writes one for ESXi, and
/// `vch ova` the appliance that holds their links there; `vch certs` makes what its clients show to be let in.
#[derive(Debug, Parser)]
#[command(name = "vch", version, about, disable_help_subcommand = true)]
#[command(after_help = "Example: vch run --rm -it docker-archive:alpine.tar sh\n`vch COMMAND --help` tells more.")]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Run(Box<RunArgs>),
    Serve(ServeArgs),
    Ps(PsArgs),
    Start(StartArgs),
    Attach(AttachArgs),
    Exec(ExecArgs),
    Kill(KillArgs),
    Stop(StopArgs),
    Wait(WaitArgs),
    Top(TopArgs),
    Stats(StatsArgs),
    Cp(CpArgs),
    Logs(LogsArgs),
    Status(StatusArgs),
    Reload(ReloadArgs),
    Reboot(RebootArgs),
    Trim(TrimArgs),
    KernelLog(KernelLogArgs),
    Vmx(Box<VmxArgs>),
    Ova(OvaArgs),
    Certs(CertsArgs),
    #[command(hide = true)]
    KeepTemplate(KeepTemplateArgs),
}
