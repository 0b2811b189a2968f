//! The command line: what can be asked for, and the help that a person reads.
//!
//! It parses and nothing else; `main` turns what was said into recipes.

pub(crate) mod inspect;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use iso_builder::oci::Reference;

/// Builds every image of tether: containers' disks, the kernel, the initramfs and the ISOs.
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
    /// Build a container's disk out of an image
    Disk(Disk),
    /// Build the initramfs: one static program as /init
    Initramfs(Initramfs),
    /// Describe an image: ISO, initramfs, ext4 or VMDK
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
pub(crate) struct Disk {
    // no doc comment: rustdoc would take the brackets for links
    #[arg(
        value_name = "IMAGE",
        help = "docker-archive:FILE[:NAME], oci:DIR[:TAG], or a file or directory of either kind"
    )]
    pub(crate) image: Reference,
    /// The disk to write
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// How the disk is stored: the bare ext4 file system, a sparse VMDK to run, or a stream-optimized one for vSphere to import
    #[arg(long, value_enum, default_value_t = Format::Raw)]
    pub(crate) format: Format,
    /// Size of the disk, as in 512M or 10G [default: what the files need, a quarter of it, and 64 MiB]
    #[arg(long, value_name = "SIZE", value_parser = size, conflicts_with = "layer")]
    pub(crate) size: Option<u64>,
    /// Only this layer, from 1, the lowest: a disk to be mounted read-only, with others under overlayfs
    #[arg(long, value_name = "N")]
    pub(crate) layer: Option<usize>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Format {
    Raw,
    Vmdk,
    Stream,
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
