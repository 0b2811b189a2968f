//! iso-builder: what was asked on the command line becomes a recipe, and the recipe a file.
//!
//! The environment and the machine are read here, once, and handed down as values. A failure is one line on stderr and
//! exit code 1; a wrong command line is 2.
#![forbid(unsafe_code)]

mod cli;

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use iso_builder::kernel::{self, Request};
use iso_builder::output::Output;
use iso_builder::progress::Progress;
use iso_builder::recipe::container_disk::{self, Step};
use iso_builder::recipe::{self, iso};
use iso_builder::tree::Time;

use cli::{Cli, Command};

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("iso-builder: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    let time = Time { secs: cli.epoch, nanos: 0 };
    match cli.command {
        Command::Bootstrap(asked) => write_iso(&iso::BOOTSTRAP, asked, cli.cache, time),
        Command::Appliance(asked) => write_iso(&iso::APPLIANCE, asked, cli.cache, time),
        Command::Disk(asked) => write_disk(&asked, time),
        Command::Initramfs(asked) => {
            let init = asked.init.map_or_else(|| beside("tether"), Ok)?;
            Ok(recipe::initramfs::write(&init, time, &asked.output)?)
        }
        Command::Inspect { file } => print(&cli::inspect::inspect(&file)?),
        Command::Kernel(asked) => {
            let jobs = asked.jobs.map_or_else(cpus, usize::from);
            let image = kernel::obtain(&Request { source: asked.source, cache: cache(cli.cache)?, jobs })?;
            if let Some(path) = asked.output {
                copy(&image, &path).with_context(|| path.display().to_string())?;
            }
            print(&format!("{}\n", image.display()))
        }
    }
}

fn write_iso(recipe: &iso::Recipe, asked: cli::Iso, cache_dir: Option<PathBuf>, time: Time) -> anyhow::Result<()> {
    let init = asked.init.map_or_else(|| beside(recipe.init), Ok)?;
    let kernel = match asked.kernel {
        Some(path) => path,
        None => kernel::obtain(&Request { source: None, cache: cache(cache_dir)?, jobs: cpus() })?,
    };
    Ok(recipe.write(&kernel, &init, asked.cmdline.as_deref(), time, &asked.output)?)
}

fn write_disk(asked: &cli::Disk, time: Time) -> anyhow::Result<()> {
    let format = match asked.format {
        cli::Format::Raw => container_disk::Format::Raw,
        cli::Format::Vmdk => container_disk::Format::Vmdk,
        cli::Format::Stream => container_disk::Format::Stream,
    };
    let options = container_disk::Options { format, size: asked.size, layer: asked.layer, time };
    let mut current: Option<(Step, Progress)> = None;
    let mut tell = |step, done, total| {
        let progress = match &mut current {
            Some((of, progress)) if *of == step => progress,
            other => &mut other.insert((step, Progress::start(name(step), total))).1,
        };
        progress.reach(done, total);
    };
    Ok(container_disk::write(&asked.image, &options, &asked.output, &mut tell)?)
}

fn name(step: Step) -> &'static str {
    match step {
        Step::Unpack => "unpack",
        Step::Format => "ext4",
        Step::Convert => "vmdk",
    }
}

/// The program of that name that was installed, or built, with this one.
fn beside(name: &str) -> anyhow::Result<PathBuf> {
    let exe = std::env::current_exe().context("the path of iso-builder itself")?;
    let program = exe.with_file_name(name);
    anyhow::ensure!(program.exists(), "no {}: build it, or name a static program with --init FILE", program.display());
    Ok(program)
}

fn cache(asked: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    // A relative path, and so an empty one, is to be ignored: so says the XDG specification.
    let xdg = || std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|dir| dir.is_absolute());
    let home = || std::env::home_dir().map(|home| home.join(".cache"));
    asked.or_else(xdg).or_else(home).context("no home directory to keep the kernel in; name one with --cache DIR")
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

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    let mut output = Output::create(to)?;
    std::io::copy(&mut std::fs::File::open(from)?, output.file_mut())?;
    output.publish()
}
