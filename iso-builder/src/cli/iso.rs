//! `iso-builder bootstrap` and `appliance`: what may be asked of an ISO, and which programs it takes when nothing is asked.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use iso_builder::kernel::{self, Request};
use iso_builder::recipe::extra::Extra;
use iso_builder::recipe::iso::{self, Parts, Recipe};

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
    /// The firmwares that the ISO boots on
    #[arg(long, value_enum, default_value_t)]
    firmware: Firmware,
    /// The program that starts the kernel on UEFI [default: that of Debian's package systemd-boot-efi]
    #[arg(long, value_name = "FILE")]
    efi_stub: Option<PathBuf>,
    /// Put this file or folder in the initramfs, as in `./tool:/bin/tool`; for an init of your own, since tether reads none
    #[arg(long, value_name = "FILE:/PATH")]
    add: Vec<Extra>,
    /// The ISO to write; its digest goes to FILE.sha256
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

impl Iso {
    pub(crate) fn run(self, recipe: &Recipe, context: &Context) -> anyhow::Result<()> {
        let init = self.init.map_or_else(|| beside(recipe.init), Ok)?;
        let kernel = match self.kernel {
            Some(path) => path,
            None => kernel::obtain(&Request { source: None, cache: context.cache()?, jobs: cpus() })?,
        };
        let firmware = match self.firmware {
            Firmware::Bios => iso::Firmware::Bios,
            Firmware::Uefi => iso::Firmware::Uefi,
            Firmware::Both => iso::Firmware::Both,
        };
        let (cmdline, efi_stub, extra) = (self.cmdline, self.efi_stub, self.add);
        let parts = Parts { kernel, init, cmdline, firmware, efi_stub, extra, time: context.time };
        Ok(recipe.write(&parts, &self.output)?)
    }
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Firmware {
    Bios,
    Uefi,
    #[default]
    Both,
}
