//! `iso-builder kernel`: what may be asked of the kernel's build.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use iso_builder::kernel::{self, Request};
use iso_builder::output::Output;

use super::{Context, cpus, made, print};

#[derive(Debug, Args)]
pub(crate) struct Kernel {
    /// A tarball of Linux 6.12 [default: that of Debian's package linux-source-6.12]
    #[arg(long, value_name = "FILE")]
    source: Option<PathBuf>,
    /// Compilers at once [default: one for each CPU]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// Copy the kernel here too
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Kernel {
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<()> {
        let jobs = self.jobs.map_or_else(cpus, usize::from);
        let image = kernel::obtain(&Request { source: self.source, cache: context.cache()?, jobs })?;
        if let Some(path) = self.output {
            copy(&image, &path).with_context(|| path.display().to_string())?;
        }
        match context.json {
            _ if !context.told => Ok(()),
            true => made(&image),
            false => print(&format!("{}\n", image.display())),
        }
    }
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    let mut output = Output::create(to)?;
    std::io::copy(&mut std::fs::File::open(from)?, output.file_mut())?;
    output.publish()
}
