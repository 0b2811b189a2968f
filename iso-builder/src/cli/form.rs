//! How a disk is stored, as words on the command line: what `disk` and `convert` share.

use std::num::NonZero;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use iso_builder::recipe::virtual_disk::Form;

use super::cpus;

#[derive(Debug, Args)]
pub(crate) struct Stored {
    /// How the disk is stored
    #[arg(long, value_enum, default_value_t = Format::Raw)]
    format: Format,
    /// The VMDK that a delta is a delta of; in the directory of the disk or below
    #[arg(long, value_name = "FILE", required_if_eq("format", "delta"))]
    parent: Option<PathBuf>,
    /// Threads that compress; how many makes no difference to the disk [default: one for each processor]
    #[arg(long, value_name = "N")]
    threads: Option<NonZero<usize>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// As it is, with holes
    Raw,
    /// A sparse VMDK (monolithicSparse), to be run
    Vmdk,
    /// A compressed VMDK (streamOptimized), for vSphere to import
    Stream,
    /// A VMDK of two files (monolithicFlat): NAME.vmdk describes NAME-flat.vmdk, which is raw
    Flat,
    /// A sparse VMDK of what differs from that of --parent
    Delta,
}

impl Stored {
    pub(crate) fn form(&self) -> anyhow::Result<Form> {
        let threads = self.threads.or(NonZero::new(cpus())).unwrap_or(NonZero::<usize>::MIN);
        Ok(match (self.format, &self.parent) {
            (Format::Delta, Some(parent)) => Form::Delta { parent: parent.clone() },
            (_, Some(_)) => anyhow::bail!("--parent is for --format delta alone"),
            (Format::Raw, _) => Form::Raw,
            (Format::Vmdk, _) => Form::Sparse,
            (Format::Stream, _) => Form::Stream { threads },
            (Format::Flat, _) => Form::Flat,
            (Format::Delta, None) => anyhow::bail!("--format delta needs --parent FILE"),
        })
    }
}
