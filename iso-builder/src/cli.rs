//! The command line: what can be asked for, and the help that a person reads.
//!
//! Each command has a file of its own, with what may be asked and what is then done: it turns words into values and calls the library. The environment and
//! the machine are read here, once, and handed down.

mod disk;
mod initramfs;
mod inspect;
mod iso;
mod kernel;
mod pack;

use std::io::{ErrorKind, Write as _};
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use iso_builder::recipe;
use iso_builder::tree::Time;

/// Builds every image of tether: containers' disks, the kernel, the initramfs and the ISOs.
///
/// Nothing needs root. The same inputs give the same bytes on any machine. A command that fails leaves no half file.
#[derive(Debug, Parser)]
#[command(name = "iso-builder", version, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Seconds since 1970 that date files without a time of their own
    #[arg(
        long,
        env = "SOURCE_DATE_EPOCH",
        value_name = "SECONDS",
        default_value_t = 0,
        global = true,
        hide_env_values = true
    )]
    epoch: i64,
    /// Directory of caches; the kernel is kept in `tether/kernel` below it [default: $XDG_CACHE_HOME or ~/.cache]
    #[arg(long, value_name = "DIR", global = true)]
    cache: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build bootstrap.iso, which boots a containerVM
    Bootstrap(iso::Iso),
    /// Build appliance.iso, which boots a Virtual Container Host
    Appliance(iso::Iso),
    /// Build a container's disk out of an image
    Disk(disk::Disk),
    /// Build the initramfs: one static program as /init
    Initramfs(initramfs::Initramfs),
    /// Describe an image: ISO, initramfs, ext4 or VMDK
    Inspect {
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Build the kernel, or find it in the cache, and print its path
    Kernel(kernel::Kernel),
    /// Write a folder as an ISO
    Pack(pack::Pack),
}

/// What all commands share.
pub(crate) struct Context {
    /// Dates what has no time of its own.
    time: Time,
    cache: Option<PathBuf>,
}

impl Context {
    /// The directory for caches of this user.
    fn cache(&self) -> anyhow::Result<PathBuf> {
        // A relative path, and so an empty one, is to be ignored: so says the XDG specification.
        let xdg = || std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|dir| dir.is_absolute());
        let home = || std::env::home_dir().map(|home| home.join(".cache"));
        self.cache.clone().or_else(xdg).or_else(home).context("no home directory for caches; name one with --cache DIR")
    }
}

impl Cli {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let context = &Context { time: Time { secs: self.epoch, nanos: 0 }, cache: self.cache };
        match self.command {
            Command::Bootstrap(asked) => asked.run(&recipe::iso::BOOTSTRAP, context),
            Command::Appliance(asked) => asked.run(&recipe::iso::APPLIANCE, context),
            Command::Disk(asked) => asked.run(context),
            Command::Initramfs(asked) => asked.run(context),
            Command::Inspect { file } => print(&inspect::inspect(&file)?),
            Command::Kernel(asked) => asked.run(context),
            Command::Pack(asked) => asked.run(context),
        }
    }
}

/// The program of that name that was installed, or built, with this one.
fn beside(name: &str) -> anyhow::Result<PathBuf> {
    let exe = std::env::current_exe().context("the path of iso-builder itself")?;
    let program = exe.with_file_name(name);
    anyhow::ensure!(program.exists(), "no {}: build it, or name a static program with --init FILE", program.display());
    Ok(program)
}

fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Writes to stdout. Whoever reads may stop early, as `head` does; that is no failure.
fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("stdout"),
        _ => Ok(()),
    }
}

/// A number of bytes, or of the units K, M, G and T (powers of 1024).
fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|unit: char| unit.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" | "KIB" => 10,
        "M" | "MIB" => 20,
        "G" | "GIB" => 30,
        "T" | "TIB" => 40,
        _ => return Err("the unit is none of K, M, G and T".to_owned()),
    };
    let number: u64 = digits.parse().map_err(|_| "not a whole number with a unit, as in 512M".to_owned())?;
    number.checked_mul(1 << shift).filter(|bytes| *bytes > 0).ok_or_else(|| "out of range".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn sizes_as_people_write_them() {
        for (text, bytes) in
            [("4096", 4096), ("512M", 512 << 20), ("10g", 10 << 30), ("1GiB", 1 << 30), ("2T", 2 << 40)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "M", "0", "-1", "1.5G", "1X", "99999999T"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
