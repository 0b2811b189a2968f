//! `iso-builder initramfs`: what may be asked of an initramfs.

use std::path::PathBuf;

use clap::Args;
use iso_builder::recipe;

use super::additions::Additions;
use super::{Context, beside};

#[derive(Debug, Args)]
pub(crate) struct Initramfs {
    /// The static program that becomes PID 1 [default: `tether` beside this program]
    #[arg(long, value_name = "FILE")]
    init: Option<PathBuf>,
    #[command(flatten)]
    additions: Additions,
    /// The cpio archive to write
    #[arg(short, long, value_name = "FILE")]
    pub(super) output: PathBuf,
}

impl Initramfs {
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<()> {
        let init = self.init.map_or_else(|| beside("tether", "--init"), Ok)?;
        Ok(recipe::initramfs::write(&init, &self.additions.checked()?, context.time, &self.output)?)
    }
}
