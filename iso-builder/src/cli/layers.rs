//! `iso-builder layers`: which image's layers become disks, and where.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use iso_builder::oci;
use iso_builder::progress::Progress;
use iso_builder::recipe::layer_disk;

use super::disk::Bounds;
use super::registry::Image;
use super::{Context, made};

/// Disks that are in the directory already are left as they are. Prints the path of the index, a JSON file that says their order.
#[derive(Debug, Args)]
pub(crate) struct Layers {
    /// The directory of the disks; it is made if it is not there
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    // behind the command's own options: those after it would come under its heading
    #[command(flatten)]
    image: Image,
    #[command(flatten)]
    bounds: Bounds,
}

impl Layers {
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<()> {
        std::fs::create_dir_all(&self.output).with_context(|| self.output.display().to_string())?;
        let mut image = oci::open(&self.image.obtain(context)?, &self.output)?;
        image.limits = self.bounds.limits();
        let mut told = Progress::bytes("layers", 0);
        let index = layer_disk::write_all(&image, &self.output, &mut |done, total| told.reach(done, total))?;
        drop(told);
        context.tell(&format!("{}\n", index.display()), || made(&index))
    }
}
