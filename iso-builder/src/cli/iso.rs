//! `iso-builder bootstrap` and `appliance`: what may be asked of an ISO, and which programs it takes when nothing is asked.

use std::path::PathBuf;

use clap::Args;
use iso_builder::kernel::{self, Request};
use iso_builder::recipe::iso::Recipe;

use super::{Context, beside, cpus};

#[derive(Debug, Args)]
pub(crate) struct Iso {
    /// The kernel to boot (a bzImage) [default: the cached one, built if there is none]
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// The static program that becomes PID 1 [default: `tether` or `appliance-init` beside this program]
    #[arg(long, value_name = "FILE")]
    init: Option<PathBuf>,
    /// The kernel's command line, in place of the usual one
    #[arg(long, value_name = "TEXT")]
    cmdline: Option<String>,
    /// The ISO to write; its digest goes to FILE.sha256
    #[arg(short, long, value_name = "FILE")]
    pub(super) output: PathBuf,
}

impl Iso {
    pub(crate) fn run(self, recipe: &Recipe, context: &Context) -> anyhow::Result<()> {
        let init = self.init.map_or_else(|| beside(recipe.init), Ok)?;
        let kernel = match self.kernel {
            Some(path) => path,
            None => kernel::obtain(&Request { source: None, cache: context.cache()?, jobs: cpus() })?,
        };
        Ok(recipe.write(&kernel, &init, self.cmdline.as_deref(), context.time, &self.output)?)
    }
}
