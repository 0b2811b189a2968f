//! `iso-builder disk`: what may be asked of a container's disk, and how its progress is told.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use iso_builder::oci::Reference;
use iso_builder::progress::Progress;
use iso_builder::recipe::container_disk::{self, Options, Step};

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
    /// How the disk is stored: the bare ext4 file system, a sparse VMDK to run, or a stream-optimized one for vSphere to import
    #[arg(long, value_enum, default_value_t = Format::Raw)]
    format: Format,
    /// Size of the disk, as in 512M or 10G [default: what the files need, a quarter of it, and 64 MiB]
    #[arg(long, value_name = "SIZE", value_parser = size, conflicts_with = "layer")]
    size: Option<u64>,
    /// Only this layer, from 1, the lowest: a disk to be mounted read-only, with others under overlayfs
    #[arg(long, value_name = "N")]
    layer: Option<usize>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Format {
    Raw,
    Vmdk,
    Stream,
}

impl Disk {
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<()> {
        let format = match self.format {
            Format::Raw => container_disk::Format::Raw,
            Format::Vmdk => container_disk::Format::Vmdk,
            Format::Stream => container_disk::Format::Stream,
        };
        let options = Options { format, size: self.size, layer: self.layer, time: context.time };
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
