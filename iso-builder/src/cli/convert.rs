//! `iso-builder convert`: the same disk, stored in another way.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use iso_builder::input;
use iso_builder::progress::Progress;
use iso_builder::recipe::virtual_disk::VirtualDisk;
use iso_builder::vmdk::{self, Raw};

use super::form::Stored;

#[derive(Debug, Args)]
pub(crate) struct Convert {
    /// A raw disk image, or a VMDK of any kind, with its parents
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// The disk to write
    #[arg(value_name = "OUT")]
    pub(super) output: PathBuf,
    #[command(flatten)]
    stored: Stored,
}

impl Convert {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let context = || self.input.display().to_string();
        let file = input::open(&self.input).with_context(context)?;
        let (raw, size): (Box<dyn Raw>, u64) = if vmdk::is_vmdk(&file).with_context(context)? {
            let disk = vmdk::Stored::open(&self.input)?;
            let size = disk.size();
            (Box::new(disk), size)
        } else {
            let size = file.metadata().with_context(context)?.len();
            (Box::new(file), size)
        };
        anyhow::ensure!(size > 0, "{}: an empty file is no disk", self.input.display());
        // A disk may be read long after the new one has its name: by what is a delta of it, say.
        anyhow::ensure!(
            self.input.canonicalize().ok() != self.output.canonicalize().ok(),
            "{}: it is what is converted; give the new disk another name",
            self.output.display()
        );
        let disk = VirtualDisk::create(&self.output, &self.stored.form()?)?;
        let mut progress = Progress::bytes("convert", size);
        Ok(disk.store(&*raw, size, &mut |done| progress.reach(done, size))?)
    }
}
