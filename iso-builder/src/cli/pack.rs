//! `iso-builder pack`: what may be asked of the ISO of a folder.

use std::path::PathBuf;

use clap::Args;
use iso_builder::iso9660::{Boot, Options, UefiBoot};
use iso_builder::recipe::folder;

use super::Context;

#[derive(Debug, Args)]
pub(crate) struct Pack {
    /// The folder; owners, modes and times are kept, xattrs are not
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// The volume's label: at most 32 of A-Z, 0-9 and _
    #[arg(long, value_name = "LABEL", default_value = "DATA")]
    volume: String,
    /// Add names for Windows, which reads no Rock Ridge
    #[arg(long)]
    joliet: bool,
    /// A FAT file system with EFI/BOOT/BOOTX64.EFI, for firmware to start from
    #[arg(long, value_name = "FILE")]
    efi: Option<PathBuf>,
    /// The ISO to write; its digest goes to FILE.sha256
    #[arg(short, long, value_name = "FILE")]
    pub(super) output: PathBuf,
}

impl Pack {
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<()> {
        let image = self.efi.as_deref().map(folder::file);
        let uefi = image.transpose()?.map(|image| UefiBoot { image });
        let options = Options {
            volume: self.volume,
            publisher: concat!("tether ", env!("CARGO_PKG_VERSION")).to_owned(),
            time: context.time,
            joliet: self.joliet,
            boot: Boot { bios: None, uefi },
        };
        Ok(folder::write(&self.folder, &options, &self.output)?)
    }
}
