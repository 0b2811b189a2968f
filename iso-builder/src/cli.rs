//! The command line: what can be asked for, and the help that a person reads.
//!
//! Each command has a file of its own, with what may be asked and what is then done: it turns words into values and calls the library. The environment and
//! the machine are read here, once, and handed down.

mod additions;
mod cat;
mod completions;
mod convert;
mod data_disk;
mod diff;
mod disk;
mod form;
mod images;
mod initramfs;
mod inspect;
mod iso;
mod kernel;
mod layers;
mod ls;
mod pack;
mod pull;
mod registry;
mod release;
mod verify;

use std::ffi::OsStr;
use std::io::{self, ErrorKind, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Parser, Subcommand, ValueEnum};
use iso_builder::progress::{self, Mode};
use iso_builder::recipe;
use iso_builder::tree::Time;
use iso_builder::view::{Place, json};
use serde_json::{Map, Value};

/// Builds every image of tether: containers' disks, the kernel, the initramfs and the ISOs.
///
/// Nothing needs root. The same inputs give the same bytes on any machine. A command that fails leaves no half file.
#[derive(Debug, Parser)]
#[command(
    name = "iso-builder",
    version,
    max_term_width = 110,
    after_help = "\
Examples:
  iso-builder bootstrap -o bootstrap.iso
  iso-builder disk image.tar --format vmdk -o disk.vmdk
  iso-builder ls -l disk.vmdk:/etc

Exit status: 0 done, 1 failed, 2 a wrong command line; `diff` and `verify`: 0 the same, 1 different, 2 trouble."
)]
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
        hide_env_values = true,
        help_heading = EVERYWHERE
    )]
    epoch: i64,
    /// Directory of caches; kernels are kept in `tether/kernel` below it, pulled images in `tether/content` [default: $XDG_CACHE_HOME or ~/.cache]
    #[arg(long, value_name = "DIR", global = true, help_heading = EVERYWHERE)]
    cache: Option<PathBuf>,
    /// Print results as JSON on stdout, progress and errors as JSON lines on stderr
    #[arg(long, global = true, help_heading = EVERYWHERE)]
    json: bool,
    /// How long work is told: `auto` is `json` with --json, else `tty` on a terminal, else `plain` lines
    #[arg(
        long,
        value_enum,
        value_name = "HOW",
        default_value_t = Telling::Auto,
        global = true,
        help_heading = EVERYWHERE
    )]
    progress: Telling,
    /// The same as --progress none
    #[arg(short, long, global = true, conflicts_with = "progress", help_heading = EVERYWHERE)]
    quiet: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Telling {
    Auto,
    Plain,
    Tty,
    Json,
    None,
}

/// Help lists what all commands know apart from what is a command's own.
const EVERYWHERE: &str = "Options of every command";

#[derive(Debug, Subcommand)]
enum Command {
    /// Build bootstrap.iso, which boots a containerVM
    #[command(after_help = "\
Examples:
  iso-builder bootstrap -o bootstrap.iso
  iso-builder bootstrap --kernel bzImage --init tether --epoch 1700000000 -o bootstrap.iso")]
    Bootstrap(iso::Iso),
    /// Build appliance.iso, which boots a Virtual Container Host
    #[command(after_help = "\
Examples:
  iso-builder appliance -o appliance.iso
  iso-builder appliance --kernel bzImage --init appliance-init --cmdline 'console=ttyS1 quiet' -o appliance.iso")]
    Appliance(iso::Appliance),
    /// Store a disk in another way: raw, or as one of the kinds of VMDK
    #[command(after_help = "\
Examples:
  iso-builder convert disk.raw disk.vmdk --format vmdk
  iso-builder convert exported.vmdk disk.raw --format raw")]
    Convert(convert::Convert),
    /// Make the appliance's data disk: an empty ext4 file system labelled vchdata
    #[command(after_help = "\
Examples:
  iso-builder data-disk --size 20G -o data.raw
  iso-builder data-disk --size 20G --format vmdk -o data.vmdk")]
    DataDisk(data_disk::DataDisk),
    /// Build a container's disk out of an image
    #[command(after_help = "\
Examples:
  docker save alpine:3.20 -o alpine.tar && iso-builder disk alpine.tar -o alpine.raw
  iso-builder disk oci:layout:v1 --format vmdk --size 10G -o disk.vmdk
  iso-builder disk docker-archive:images.tar:redis:7 --format stream -o redis.vmdk")]
    Disk(disk::Disk),
    /// Remove from the store of pulled images what no image needs
    #[command(after_help = "\
Examples:
  iso-builder gc
  iso-builder gc --keep-bytes 10G")]
    Gc(images::Collect),
    /// List the images that were pulled
    #[command(after_help = "\
Examples:
  iso-builder images")]
    Images,
    /// Build the initramfs: one static program as /init
    #[command(after_help = "\
Examples:
  iso-builder initramfs -o initramfs.cpio
  iso-builder initramfs --init tether -o initramfs.cpio && iso-builder ls -l initramfs.cpio")]
    Initramfs(initramfs::Initramfs),
    /// Build the kernel, or find it in the cache, and print its path
    #[command(after_help = "\
Examples:
  iso-builder kernel -o bzImage
  iso-builder kernel --source linux-6.12.48.tar.xz --jobs 4")]
    Kernel(kernel::Kernel),
    /// Build a disk for each layer of an image, to be shared by images and stacked with overlayfs
    #[command(after_help = "\
Examples:
  iso-builder layers alpine:3.20 -o layers
  iso-builder layers oci:layout:v1 -o layers && ls layers")]
    Layers(layers::Layers),
    /// Write a folder as an ISO 9660 image, with Rock Ridge
    #[command(after_help = "\
Examples:
  iso-builder pack folder -o folder.iso
  iso-builder pack folder --joliet --volume DRIVERS -o drivers.iso")]
    Pack(pack::Pack),
    /// Bring an image from a registry into the store, and print the digest that its name leads to
    #[command(after_help = "\
Examples:
  iso-builder pull alpine:3.20
  iso-builder pull ghcr.io/owner/name@sha256:DIGEST
  iso-builder pull --plain-http registry.local:5000/name")]
    Pull(pull::Pull),
    /// Forget images that were pulled
    #[command(after_help = "\
Examples:
  iso-builder rmi alpine:3.20 && iso-builder gc")]
    Rmi(images::Remove),
    /// Describe an image: ISO, initramfs, ext4, VMDK or container image
    Inspect(inspect::Inspect),
    /// List the files in an image, or in an image within one
    Ls(ls::Ls),
    /// Print files of an image
    Cat(cat::Cat),
    /// Say what differs between the files of two images
    Diff(diff::Diff),
    /// Check a file by its digest and checksums, or build it again and compare
    Verify(verify::Verify),
    /// Print a script with which a shell completes these commands
    Completions(completions::Completions),
    /// Build a release: both ISOs, kernel and initramfs, with checksums, bill of materials (SPDX), manifest of files, and provenance
    #[command(after_help = "\
Examples:
  iso-builder release -o dist
  iso-builder release --epoch 1700000000 -o dist && (cd dist && sha256sum -c SHA256SUMS)")]
    Release(release::Release),
}

/// What all commands share.
pub(crate) struct Context {
    /// Dates what has no time of its own.
    time: Time,
    cache: Option<PathBuf>,
    /// Results are for a machine.
    json: bool,
    /// Results are printed; not where `verify` builds something again.
    told: bool,
    /// A directory for unnamed files.
    spool: PathBuf,
}

impl Context {
    /// The directory for caches of this user.
    fn cache(&self) -> anyhow::Result<PathBuf> {
        // A relative path, and so an empty one, is to be ignored: so says the XDG specification.
        let xdg = || std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|dir| dir.is_absolute());
        let home = || std::env::home_dir().map(|home| home.join(".cache"));
        self.cache.clone().or_else(xdg).or_else(home).context("no home directory for caches; name one with --cache DIR")
    }

    /// Prints a result: for a person, or for a machine.
    fn tell(&self, text: &str, result: impl FnOnce() -> Value) -> anyhow::Result<()> {
        match self.json {
            _ if !self.told => Ok(()),
            true => print(&format!("{}\n", json::line(&result()))),
            false => print(text),
        }
    }
}

impl Cli {
    /// Results and errors are for a machine.
    pub(crate) fn json(&self) -> bool {
        self.json
    }

    /// The exit code for what goes wrong: `diff` and `verify` need 1 to say that something differs.
    pub(crate) fn trouble(&self) -> u8 {
        match self.command {
            Command::Diff(_) | Command::Verify(_) => 2,
            _ => 1,
        }
    }

    /// Does what was asked, and gives the exit code.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        progress::choose(self.mode());
        let time = Time { secs: self.epoch, nanos: 0 };
        let (json, spool) = (self.json, std::env::temp_dir());
        self.command.run(&Context { time, cache: self.cache, json, told: true, spool })
    }

    /// Does it for `verify`, whose own results alone are told.
    fn rebuild(self, around: &Context) -> anyhow::Result<()> {
        let time = Time { secs: self.epoch, nanos: 0 };
        let (json, spool) = (around.json, around.spool.clone());
        self.command.run(&Context { time, cache: self.cache, json, told: false, spool }).map(|_| ())
    }

    fn mode(&self) -> Mode {
        match self.progress {
            _ if self.quiet => Mode::Nothing,
            Telling::None => Mode::Nothing,
            Telling::Auto if self.json => Mode::Events,
            Telling::Auto if io::stderr().is_terminal() => Mode::Bar,
            Telling::Auto | Telling::Plain => Mode::Lines,
            Telling::Tty => Mode::Bar,
            Telling::Json => Mode::Events,
        }
    }
}

impl Command {
    fn run(self, context: &Context) -> anyhow::Result<ExitCode> {
        let output = self.output().map(Path::to_owned);
        match self {
            Command::Bootstrap(asked) => asked.run(&recipe::iso::BOOTSTRAP, Vec::new(), context),
            Command::Appliance(asked) => asked.run(context),
            Command::Convert(asked) => asked.run(),
            Command::DataDisk(asked) => asked.run(context),
            Command::Disk(asked) => asked.run(context),
            Command::Gc(asked) => asked.run(context),
            Command::Images => images::list(context),
            Command::Initramfs(asked) => asked.run(context),
            Command::Kernel(asked) => asked.run(context),
            Command::Layers(asked) => asked.run(context),
            Command::Pack(asked) => asked.run(context),
            Command::Pull(asked) => asked.run(context),
            Command::Rmi(asked) => asked.run(context),
            Command::Release(asked) => asked.run(context),
            Command::Inspect(asked) => asked.run(context),
            Command::Ls(asked) => asked.run(context),
            Command::Cat(asked) => asked.run(context),
            Command::Diff(asked) => return asked.run(context),
            Command::Verify(asked) => return asked.run(context),
            Command::Completions(asked) => asked.run(),
        }?;
        output.map_or(Ok(()), |output| context.tell("", || made(&output)))?;
        Ok(ExitCode::SUCCESS)
    }

    /// What it makes, where it does not say so itself.
    fn output(&self) -> Option<&Path> {
        match self {
            Command::Bootstrap(asked) => Some(&asked.output),
            Command::Appliance(asked) => Some(&asked.iso.output),
            Command::DataDisk(asked) => Some(&asked.output),
            Command::Disk(asked) => Some(&asked.output),
            Command::Convert(asked) => Some(&asked.output),
            Command::Initramfs(asked) => Some(&asked.output),
            Command::Pack(asked) => Some(&asked.output),
            _ => None,
        }
    }
}

/// What was made, for a machine.
fn made(path: &Path) -> Value {
    let mut result = Map::new();
    json::put(&mut result, "output", path.as_os_str().as_encoded_bytes());
    result.insert("size".to_owned(), path.metadata().map(|about| about.len()).ok().into());
    result.into()
}

/// The program of that name that was installed, or built, with this one.
///
/// `option` names another one.
fn beside(name: &str, option: &str) -> anyhow::Result<PathBuf> {
    let exe = std::env::current_exe().context("the path of iso-builder itself")?;
    let program = exe.with_file_name(name);
    anyhow::ensure!(
        program.exists(),
        "no {}: build it, or name a static program with {option} FILE",
        program.display()
    );
    Ok(program)
}

fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Writes to stdout.
fn print(text: &str) -> anyhow::Result<()> {
    printed(io::stdout().write_all(text.as_bytes()))
}

/// What writing to stdout came to. Whoever reads may stop early, as `head` does; that is no failure.
fn printed(written: io::Result<()>) -> anyhow::Result<()> {
    match written {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("stdout"),
        _ => Ok(()),
    }
}

/// Takes FILE:PATH, of any bytes.
fn place() -> impl TypedValueParser<Value = Place> {
    OsStringValueParser::new().try_map(|text| Place::parse(OsStr::new(&text)))
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
