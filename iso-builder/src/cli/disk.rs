//! `iso-builder disk`: what may be asked of a container's disk, and how its progress is told.

use std::path::PathBuf;

use clap::Args;
use iso_builder::oci::Reference;
use iso_builder::progress::Progress;
use iso_builder::recipe::container_disk::{self, Options, Step};

use super::form::Stored;
use super::{Context, size};

#[derive(Debug, Args)]
pub(crate) struct Disk {
    // no doc comment: rustdoc would take the brackets for links
    #[arg(
        value_name = "IMAGE",
        help = "docker-archive:FILE[:NAME], oci:DIR[:TAG], or a file or directory of either kind"
    )]
    image: Reference,
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
}

impl Disk {
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<()> {
        let options = Options { form: self.stored.form()?, size: self.size, layer: self.layer, time: context.time };
        let mut current: Option<(Step, Progress)> = None;
        let mut tell = |step, done, total| {
            let progress = match &mut current {
                Some((of, progress)) if *of == step => progress,
                other => &mut other.insert((step, Progress::bytes(name(step), total))).1,
            };
            progress.reach(done, total);
        };
        Ok(container_disk::write(&self.image, &options, &self.output, &mut tell)?)
    }
}

fn name(step: Step) -> &'static str {
    match step {
        Step::Unpack => "unpack",
        Step::Format => "ext4",
        Step::Convert => "vmdk",
    }
}
