//! `iso-builder disk`: what may be asked of a container's disk, and how its progress is told.

use std::path::PathBuf;

use clap::Args;
use iso_builder::oci::Limits;
use iso_builder::progress::Progress;
use iso_builder::recipe::container_disk::{self, Options, Step};

use super::form::Stored;
use super::registry::Image;
use super::{Context, size};

#[derive(Debug, Args)]
pub(crate) struct Disk {
    /// The disk to write
    #[arg(short, long, value_name = "FILE")]
    pub(super) output: PathBuf,
    #[command(flatten)]
    stored: Stored,
    /// Size of the disk, as in 512M or 10G [default: what the files need, a quarter of it, and 64 MiB; of a delta, its parent's]
    #[arg(long, value_name = "SIZE", value_parser = size, conflicts_with = "layer")]
    size: Option<u64>,
    /// Only this layer, from 1, the lowest: a disk to be mounted read-only, with others under overlayfs
    #[arg(long, value_name = "N")]
    layer: Option<usize>,
    // behind the command's own options: those after it would come under its heading
    #[command(flatten)]
    image: Image,
    #[command(flatten)]
    bounds: Bounds,
}

/// How much an image may hold.
#[derive(Debug, Args)]
#[command(next_help_heading = "Limits of what an image may hold")]
pub(crate) struct Bounds {
    /// Files, directories and links of all layers
    #[arg(long, value_name = "N", default_value_t = Limits::default().entries)]
    max_entries: u64,
    /// Bytes that all layers unpack to, as in 500G [default: 256G]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    max_unpacked: Option<u64>,
}

impl Bounds {
    pub(crate) fn limits(&self) -> Limits {
        let usual = Limits::default();
        Limits { entries: self.max_entries, unpacked: self.max_unpacked.unwrap_or(usual.unpacked), ..usual }
    }
}

impl Disk {
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<()> {
        let (form, limits) = (self.stored.form()?, self.bounds.limits());
        let options = Options { form, size: self.size, layer: self.layer, time: context.time, limits };
        let image = self.image.obtain(context)?;
        let mut current: Option<(Step, Progress)> = None;
        let mut tell = |step, done, total| {
            let progress = match &mut current {
                Some((of, progress)) if *of == step => progress,
                other => {
                    // the old bar goes before the new one comes
                    *other = None;
                    &mut other.insert((step, Progress::bytes(name(step), total))).1
                }
            };
            progress.reach(done, total);
        };
        Ok(container_disk::write(&image, &options, &self.output, &mut tell)?)
    }
}

fn name(step: Step) -> &'static str {
    match step {
        Step::Unpack => "unpack",
        Step::Format => "ext4",
        Step::Convert => "vmdk",
    }
}
