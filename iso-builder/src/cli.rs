//! The command line: what can be asked for, and the help that a person reads.
//!
//! It parses and nothing else; `main` turns what was said into recipes.

pub(crate) mod inspect;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Builds every image of tether: the kernel, the initramfs and the ISOs.
///
/// Nothing needs root. The same inputs give the same bytes on any machine. A command that fails leaves no half file.
#[derive(Debug, Parser)]
#[command(name = "iso-builder", version, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Seconds since 1970 that date files without a time of their own
    #[arg(
        long,
        env = "SOURCE_DATE_EPOCH",
        value_name = "SECONDS",
        default_value_t = 0,
        global = true,
        hide_env_values = true
    )]
    pub(crate) epoch: i64,
    /// Directory of caches; the kernel is kept in `tether/kernel` below it [default: $XDG_CACHE_HOME or ~/.cache]
    #[arg(long, value_name = "DIR", global = true)]
    pub(crate) cache: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build bootstrap.iso, which boots a containerVM
    Bootstrap(Iso),
    /// Build appliance.iso, which boots a Virtual Container Host
    Appliance(Iso),
    /// Build the initramfs: one static program as /init
    Initramfs(Initramfs),
    /// Describe an ISO or an initramfs: its files with owners, modes, times and digests
    Inspect {
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Build the kernel, or find it in the cache, and print its path
    Kernel(Kernel),
}

#[derive(Debug, Args)]
pub(crate) struct Iso {
    /// The kernel to boot (a bzImage) [default: the cached one, built if there is none]
    #[arg(long, value_name = "FILE")]
    pub(crate) kernel: Option<PathBuf>,
    /// The static program that becomes PID 1 [default: `tether` or `appliance-init` beside this program]
    #[arg(long, value_name = "FILE")]
    pub(crate) init: Option<PathBuf>,
    /// The kernel's command line, in place of the usual one
    #[arg(long, value_name = "TEXT")]
    pub(crate) cmdline: Option<String>,
    /// The ISO to write; its digest goes to FILE.sha256
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Initramfs {
    /// The static program that becomes PID 1 [default: `tether` beside this program]
    #[arg(long, value_name = "FILE")]
    pub(crate) init: Option<PathBuf>,
    /// The cpio archive to write
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Kernel {
    /// A tarball of Linux 6.12 [default: that of Debian's package linux-source-6.12]
    #[arg(long, value_name = "FILE")]
    pub(crate) source: Option<PathBuf>,
    /// Compilers at once [default: one for each CPU]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) jobs: Option<u16>,
    /// Copy the kernel here too
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}
