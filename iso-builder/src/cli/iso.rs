//! `iso-builder bootstrap` and `appliance`: what may be asked of an ISO, and which programs it takes when nothing is asked.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use iso_builder::kernel::check::Kernel;
use iso_builder::kernel::selection::Selection;
use iso_builder::kernel::{self, Request};
use iso_builder::progress;
use iso_builder::recipe::extra::Extra;
use iso_builder::recipe::iso::{self, Parts, Recipe};

use super::additions::Additions;
use super::{Context, beside, cpus};

#[derive(Debug, Args)]
pub(crate) struct Iso {
    /// The kernel to boot (a bzImage) [default: the cached one, built if there is none]
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// The options of that kernel [default: what lies beside it by custom, or is in it (CONFIG_IKCONFIG)]
    #[arg(long, value_name = "FILE", requires = "kernel")]
    kernel_config: Option<PathBuf>,
    /// Take that kernel even if it lacks options that containerVMs need somewhere, say on VMware
    #[arg(long, requires = "kernel")]
    accept_missing: bool,
    /// The static program that becomes PID 1 [default: `tether` or `appliance-init` beside this program]
    #[arg(long, value_name = "FILE")]
    init: Option<PathBuf>,
    /// The kernel's command line, in place of the usual one
    #[arg(long, value_name = "TEXT")]
    cmdline: Option<String>,
    /// The firmwares that the ISO boots on
    #[arg(long, value_enum, default_value_t)]
    firmware: Firmware,
    /// The program that starts the kernel on UEFI, a stub as unified kernel images have it [default: that of Debian's package systemd-boot-efi]
    #[arg(long, value_name = "FILE")]
    efi_stub: Option<PathBuf>,
    #[command(flatten)]
    additions: Additions,
    /// The ISO to write; its digest goes to FILE.sha256
    #[arg(short, long, value_name = "FILE")]
    pub(super) output: PathBuf,
}

/// What the appliance has besides.
#[derive(Debug, Args)]
pub(crate) struct Appliance {
    /// The Virtual Container Host, a static program [default: `vch` beside this program]
    #[arg(long, value_name = "FILE")]
    vch: Option<PathBuf>,
    /// The authorities whose certificates registries may have, in PEM [default: those of Debian's package ca-certificates]
    #[arg(long, value_name = "FILE")]
    ca_bundle: Option<PathBuf>,
    /// A static busybox, for a root shell on the console: the appliance's guestinfo must ask for it as well [default FILE: this machine's]
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "/usr/bin/busybox")]
    debug_console: Option<PathBuf>,
    #[command(flatten)]
    pub(super) iso: Iso,
}

impl Appliance {
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<()> {
        let vch = self.vch.map_or_else(|| beside("vch", "--vch"), Ok)?;
        let own = iso::appliance_files(&vch, self.ca_bundle.as_deref(), self.debug_console.as_deref())?;
        self.iso.run(&iso::APPLIANCE, own, context)
    }
}

impl Iso {
    /// `own` is what the recipe wants to have in the initramfs.
    pub(crate) fn run(self, recipe: &Recipe, own: Vec<Extra>, context: &Context) -> anyhow::Result<()> {
        if let (Firmware::Bios, Some(stub)) = (self.firmware, &self.efi_stub) {
            anyhow::bail!("{}: an ISO for --firmware bios holds no stub for UEFI", stub.display());
        }
        let init = self.init.map_or_else(|| beside(recipe.init, "--init"), Ok)?;
        let kernel = match self.kernel {
            Some(path) => {
                check(&path, self.kernel_config.as_deref(), self.accept_missing)?;
                path
            }
            None => kernel::obtain(&Request {
                source: None,
                cache: context.cache()?,
                jobs: cpus(),
                selection: Selection::default(),
            })?,
        };
        let firmware = match self.firmware {
            Firmware::Bios => iso::Firmware::Bios,
            Firmware::Uefi => iso::Firmware::Uefi,
            Firmware::Both => iso::Firmware::Both,
        };
        let (cmdline, efi_stub) = (self.cmdline, self.efi_stub);
        let extra = own.into_iter().chain(self.additions.checked()?).collect();
        let parts = Parts { kernel, init, cmdline, firmware, efi_stub, extra, time: context.time };
        Ok(recipe.write(&parts, &self.output)?)
    }
}

/// Looks at the options of a kernel that was named. One that says nothing of them is taken as it is, with a word about it.
fn check(kernel: &Path, config: Option<&Path>, accept_missing: bool) -> anyhow::Result<()> {
    match Kernel::open(kernel, config).and_then(|kernel| kernel.check()) {
        Err(error @ kernel::Error::Lacking { .. }) if !accept_missing => {
            Err(anyhow::Error::new(error).context("the kernel will not do; --accept-missing takes it nevertheless"))
        }
        Err(error @ (kernel::Error::NoConfig { .. } | kernel::Error::Lacking { .. } | kernel::Error::Image { .. })) => {
            progress::note(&format!("kernel: not checked, or not enough: {error}"));
            Ok(())
        }
        other => Ok(other?),
    }
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Firmware {
    Bios,
    Uefi,
    #[default]
    Both,
}
