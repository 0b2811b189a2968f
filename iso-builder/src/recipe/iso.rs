//! bootstrap.iso and appliance.iso: a kernel, an initramfs with one program, and what starts them on BIOS and on UEFI.
//!
//! Both are the same recipe; what differs is data: the program and the text in `rootfs/`. It decides where files
//! lie on the medium and how they are named. Kernel and initramfs are stored once: what UEFI starts holds them, and the names that the BIOS's loader reads
//! say where in it they are (docs/decisions/0011).

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::extra::{self, Extra};
use super::{dir, file, initramfs, meta};
use crate::boot_assets::{self, Isolinux};
use crate::cpio;
use crate::digest;
use crate::fat;
use crate::iso9660::{self, BiosBoot, Boot, Options, UefiBoot};
use crate::output::Output;
use crate::tree::{Content, ROOT, Time, Tree};
use crate::uki;

/// What one ISO has of its own.
#[derive(Debug)]
pub struct Recipe {
    pub volume: &'static str,
    /// The label of the file system that UEFI reads.
    pub esp: &'static str,
    /// The name of the program that is PID 1.
    pub init: &'static str,
    /// The boot loader's configuration, with the kernel's command line.
    pub isolinux_cfg: &'static str,
    /// Folders of the initramfs that lie empty.
    pub folders: &'static [&'static str],
    /// Texts in the initramfs, with their places.
    pub texts: &'static [(&'static str, &'static str)],
}

/// Boots a containerVM.
pub const BOOTSTRAP: Recipe = Recipe {
    volume: "TETHER_BOOTSTRAP",
    esp: "BOOTSTRAP",
    init: "tether",
    isolinux_cfg: include_str!("../../../rootfs/bootstrap/isolinux.cfg"),
    folders: &[],
    texts: &[],
};

/// Boots a Virtual Container Host.
pub const APPLIANCE: Recipe = Recipe {
    volume: "TETHER_APPLIANCE",
    esp: "APPLIANCE",
    init: "appliance-init",
    isolinux_cfg: include_str!("../../../rootfs/appliance/isolinux.cfg"),
    folders: &["data", "run", "tmp"],
    texts: &[
        ("/etc/passwd", include_str!("../../../rootfs/appliance/etc/passwd")),
        ("/etc/group", include_str!("../../../rootfs/appliance/etc/group")),
        ("/etc/nsswitch.conf", include_str!("../../../rootfs/appliance/etc/nsswitch.conf")),
        ("/etc/os-release", include_str!("../../../rootfs/appliance/etc/os-release")),
    ],
};

/// What an ISO is made of.
#[derive(Clone, Debug)]
pub struct Parts {
    pub kernel: PathBuf,
    /// The static program that becomes PID 1.
    pub init: PathBuf,
    /// In place of the recipe's own kernel command line.
    pub cmdline: Option<String>,
    pub firmware: Firmware,
    /// In place of this machine's stub for UEFI.
    pub efi_stub: Option<PathBuf>,
    /// What else lies in the initramfs.
    pub extra: Vec<Extra>,
    pub time: Time,
}

/// What the appliance's initramfs has besides its PID 1: `vch`, the authorities whose certificates registries may have, and a shell for who looks for a fault.
pub fn appliance_files(vch: &Path, ca_bundle: Option<&Path>, busybox: Option<&Path>) -> Result<Vec<Extra>, Error> {
    let bundle = ca_bundle.unwrap_or(Path::new(boot_assets::CA_BUNDLE));
    boot_assets::init(vch)?;
    boot_assets::ca_bundle(bundle)?;
    let mut files = vec![(vch, "/bin/vch", 0o755), (bundle, CA_BUNDLE, 0o644)];
    if let Some(busybox) = busybox {
        boot_assets::init(busybox)?;
        files.push((busybox, "/bin/busybox", 0o755));
    }
    let extra = |(from, to, mode): (&Path, &str, u16)| Extra { from: from.into(), to: to.to_owned(), mode: Some(mode) };
    Ok(files.into_iter().map(extra).collect())
}

/// Where Debian has it, and where programs look.
const CA_BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Which firmwares an ISO boots on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Firmware {
    Bios,
    Uefi,
    #[default]
    Both,
}

impl Recipe {
    /// Writes the ISO to `output` and its digest beside it.
    pub fn write(&self, parts: &Parts, output: &Path) -> Result<(), Error> {
        let at = |source| Error::Write { path: output.to_owned(), source };
        let out = Output::create(output).map_err(at)?;
        self.write_to(parts, out.file(), output)?;
        let digest = digest::file(out.file()).map_err(at)?;
        out.publish().map_err(at)?;
        digest::write_beside(output, &digest).map_err(at)
    }

    /// Writes the ISO to `out`, an empty file that errors call `output`.
    pub fn write_to(&self, parts: &Parts, out: &File, output: &Path) -> Result<(), Error> {
        let (tree, options) = self.image(parts)?;
        iso9660::write(&tree, &options, out).map_err(|source| Error::Image { path: output.to_owned(), source })
    }

    /// The ISO's files, and how it boots.
    fn image(&self, parts: &Parts) -> Result<(Tree, Options), Error> {
        let time = parts.time;
        let cmdline = match &parts.cmdline {
            Some(cmdline) => checked(cmdline)?,
            None => self.cmdline(),
        };
        let kernel = boot_assets::kernel(&parts.kernel)?;
        let archive = self.archive(boot_assets::init(&parts.init)?, &parts.extra, time)?;
        let mut tree = Tree::new(meta(0o755, time));
        let boot = dir(&mut tree, ROOT, "boot", time);
        file(&mut tree, boot, "vmlinuz", 0o644, kernel.clone(), time);
        file(&mut tree, boot, "initramfs.cpio", 0o644, archive.clone(), time);
        let bios = match parts.firmware {
            Firmware::Uefi => None,
            Firmware::Bios | Firmware::Both => {
                let Isolinux { isolinux_bin, ldlinux_c32, mbr } = boot_assets::isolinux()?;
                let config = Content::from_bytes(with_cmdline(self.isolinux_cfg, cmdline).into_bytes());
                let isolinux = dir(&mut tree, boot, "isolinux", time);
                file(&mut tree, isolinux, "isolinux.bin", 0o644, isolinux_bin, time);
                file(&mut tree, isolinux, "ldlinux.c32", 0o644, ldlinux_c32, time);
                file(&mut tree, isolinux, "isolinux.cfg", 0o644, config, time);
                Some(BiosBoot { image: "boot/isolinux/isolinux.bin".to_owned(), mbr })
            }
        };
        let uefi = match parts.firmware {
            Firmware::Bios => None,
            Firmware::Uefi | Firmware::Both => {
                let path = parts.efi_stub.as_deref().unwrap_or(Path::new(boot_assets::EFI_STUB));
                let stub = boot_assets::efi_stub(parts.efi_stub.as_deref())?;
                let program = uki::image(uki::Parts {
                    stub,
                    os_release: &format!("ID=tether\nNAME=tether\nPRETTY_NAME=\"{PUBLISHER}\"\n"),
                    cmdline,
                    kernel,
                    initramfs: archive,
                })
                .map_err(|source| match source {
                    uki::Error::Read(_) | uki::Error::Stub { .. } => Error::Stub { path: path.to_owned(), source },
                    uki::Error::TooLarge => Error::Uki(source),
                })?;
                // Copied to an empty stick's file system, the medium's files boot, too.
                let efi = dir(&mut tree, ROOT, "EFI", time);
                let removable = dir(&mut tree, efi, "BOOT", time);
                file(&mut tree, removable, "BOOTX64.EFI", 0o644, program.clone(), time);
                Some(UefiBoot { image: esp(program, self.esp, time)? })
            }
        };
        let options = Options {
            volume: self.volume.to_owned(),
            publisher: PUBLISHER.to_owned(),
            time,
            joliet: false,
            boot: Boot { bios, uefi },
        };
        Ok((tree, options))
    }

    /// The initramfs in memory: it is a few megabytes, and must be whole before its size is known.
    fn archive(&self, init: Content, extra: &[Extra], time: Time) -> Result<Content, Error> {
        let tree = self.initramfs(init, extra, time)?;
        let mut bytes = Vec::new();
        cpio::write(&tree, &mut bytes).map_err(|source| Error::Initramfs { source })?;
        Ok(Content::from_bytes(bytes))
    }

    /// The initramfs's files.
    fn initramfs(&self, init: Content, extra: &[Extra], time: Time) -> Result<Tree, Error> {
        let mut tree = initramfs::tree(init, time);
        for folder in self.folders {
            dir(&mut tree, ROOT, folder, time);
        }
        for (to, text) in self.texts {
            extra::add_text(&mut tree, to, text, time)?;
        }
        extra::add(&mut tree, extra, time)?;
        Ok(tree)
    }

    /// The recipe's own kernel command line.
    fn cmdline(&self) -> &'static str {
        let line = self.isolinux_cfg.lines().find_map(|line| line.trim_start().strip_prefix("append "));
        line.expect("the configuration in rootfs/ has the kernel's command line")
    }
}

const PUBLISHER: &str = concat!("tether ", env!("CARGO_PKG_VERSION"));

/// The file system that UEFI reads: one program, by the name that it looks for on a medium of any kind.
fn esp(program: Content, label: &str, time: Time) -> Result<Content, fat::Error> {
    let mut tree = Tree::new(meta(0o755, time));
    let efi = dir(&mut tree, ROOT, "EFI", time);
    let boot = dir(&mut tree, efi, "BOOT", time);
    file(&mut tree, boot, "BOOTX64.EFI", 0o644, program, time);
    fat::image(&tree, label, time)
}

/// `config` with another kernel command line.
fn with_cmdline(config: &str, cmdline: &str) -> String {
    let line = |line: &str| match line.trim_start().starts_with("append ") {
        true => format!("  append {cmdline}\n"),
        false => format!("{line}\n"),
    };
    config.lines().map(line).collect()
}

/// A command line that a boot loader's configuration and the kernel can take.
fn checked(cmdline: &str) -> Result<&str, Error> {
    if let Some(bad) = cmdline.chars().find(|c| c.is_control()) {
        return Err(Error::Cmdline { reason: format!("it contains {bad:?}, which would end its line") });
    }
    // The kernel's limit for x86, COMMAND_LINE_SIZE, with its NUL.
    if cmdline.len() >= 2048 {
        return Err(Error::Cmdline { reason: format!("it has {} bytes; the kernel takes 2047", cmdline.len()) });
    }
    Ok(cmdline)
}

/// Why there is no ISO.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Asset(#[from] boot_assets::Error),
    #[error("the kernel's command line cannot be used: {reason}")]
    Cmdline { reason: String },
    #[error(transparent)]
    Extra(#[from] extra::Error),
    #[error("the initramfs cannot be made")]
    Initramfs { source: io::Error },
    #[error("{}", path.display())]
    Stub { path: PathBuf, source: uki::Error },
    #[error(transparent)]
    Uki(uki::Error),
    #[error(transparent)]
    Fat(#[from] fat::Error),
    #[error("{}", path.display())]
    Image { path: PathBuf, source: iso9660::Error },
    #[error("{}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_takes_the_place_of_the_usual_one() {
        for recipe in [&BOOTSTRAP, &APPLIANCE] {
            let config = with_cmdline(recipe.isolinux_cfg, checked("console=ttyS3").unwrap());
            assert_eq!(config.matches("append").count(), 1, "{config}");
            assert!(config.contains("\n  append console=ttyS3\n"), "{config}");
        }
        assert!(checked("a\nb").is_err());
        assert!(checked(&"x".repeat(2048)).is_err());
    }

    #[test]
    fn both_firmwares_give_the_kernel_the_same_command_line() {
        for recipe in [&BOOTSTRAP, &APPLIANCE] {
            assert!(recipe.cmdline().starts_with("console=ttyS1,"), "{}", recipe.cmdline());
            assert_eq!(with_cmdline(recipe.isolinux_cfg, recipe.cmdline()), recipe.isolinux_cfg);
        }
    }

    #[test]
    fn the_loader_neither_waits_nor_touches_the_link() {
        for recipe in [&BOOTSTRAP, &APPLIANCE] {
            let config = recipe.isolinux_cfg;
            let directives: Vec<&str> = config.lines().filter(|line| !line.starts_with('#')).collect();
            assert!(directives.contains(&"prompt 0") && directives.contains(&"timeout 0"), "{config}");
            assert!(!directives.iter().any(|line| line.to_ascii_lowercase().starts_with("serial")), "{config}");
            assert!(!directives.iter().any(|line| line.contains("ttyS0")), "{config}");
        }
    }
}
