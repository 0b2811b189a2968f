//! `iso-builder data-disk`: what may be asked of the appliance's data disk.

use std::path::PathBuf;

use clap::Args;
use iso_builder::recipe;

use super::form::Stored;
use super::{Context, size};

#[derive(Debug, Args)]
pub(crate) struct DataDisk {
    /// The disk to write
    #[arg(short, long, value_name = "FILE")]
    pub(super) output: PathBuf,
    /// Size of the disk, as in 512M or 10G; holes take no room
    #[arg(long, value_name = "SIZE", value_parser = size)]
    size: u64,
    #[command(flatten)]
    stored: Stored,
}

impl DataDisk {
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<()> {
        Ok(recipe::data_disk::write(self.size, &self.stored.form()?, context.time, &self.output)?)
    }
}
