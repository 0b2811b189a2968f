//! bootstrap.iso and appliance.iso: a kernel, an initramfs with one program, and a boot loader.
//!
//! Both are the same recipe; what differs is data: the program and the text in `rootfs/`. It decides where files
//! lie on the medium and how they are named.

use std::io;
use std::path::{Path, PathBuf};

use super::{dir, file, initramfs, meta};
use crate::boot_assets::{self, Isolinux};
use crate::cpio;
use crate::digest;
use crate::iso9660::{self, BiosBoot, Boot, Options};
use crate::output::Output;
use crate::tree::{Content, ROOT, Time, Tree};

/// What one ISO has of its own.
#[derive(Debug)]
pub struct Recipe {
    pub volume: &'static str,
    /// The name of the program that is PID 1.
    pub init: &'static str,
    /// The boot loader's configuration, with the kernel's command line.
    pub isolinux_cfg: &'static str,
}

/// Boots a containerVM.
pub const BOOTSTRAP: Recipe = Recipe {
    volume: "TETHER_BOOTSTRAP",
    init: "tether",
    isolinux_cfg: include_str!("../../../rootfs/bootstrap/isolinux.cfg"),
};

/// Boots a Virtual Container Host.
pub const APPLIANCE: Recipe = Recipe {
    volume: "TETHER_APPLIANCE",
    init: "appliance-init",
    isolinux_cfg: include_str!("../../../rootfs/appliance/isolinux.cfg"),
};

impl Recipe {
    /// Writes the ISO to `output` and its digest beside it. `cmdline` takes the place of the recipe's own.
    pub fn write(
        &self,
        kernel: &Path,
        init: &Path,
        cmdline: Option<&str>,
        time: Time,
        output: &Path,
    ) -> Result<(), Error> {
        let kernel = boot_assets::kernel(kernel)?;
        let init = boot_assets::init(init)?;
        let loader = boot_assets::isolinux()?;
        let at = |source| Error::Write { path: output.to_owned(), source };
        let archive = archive(init, time).map_err(at)?;
        let tree = self.tree(kernel, archive, &loader, cmdline, time)?;
        let out = Output::create(output).map_err(at)?;
        iso9660::write(&tree, &self.options(&loader, time), out.file())
            .map_err(|source| Error::Image { path: output.to_owned(), source })?;
        let digest = digest::file(out.file()).map_err(at)?;
        out.publish().map_err(at)?;
        digest::write_beside(output, &digest).map_err(at)
    }

    fn options(&self, loader: &Isolinux, time: Time) -> Options {
        Options {
            volume: self.volume.to_owned(),
            publisher: concat!("tether ", env!("CARGO_PKG_VERSION")).to_owned(),
            time,
            joliet: false,
            boot: Boot {
                bios: Some(BiosBoot { image: "boot/isolinux/isolinux.bin".to_owned(), mbr: loader.mbr.clone() }),
                uefi: None,
            },
        }
    }

    fn tree(
        &self,
        kernel: Content,
        archive: Content,
        loader: &Isolinux,
        cmdline: Option<&str>,
        time: Time,
    ) -> Result<Tree, Error> {
        let config = match cmdline {
            Some(cmdline) => with_cmdline(self.isolinux_cfg, cmdline)?,
            None => self.isolinux_cfg.to_owned(),
        };
        let mut tree = Tree::new(meta(0o755, time));
        let boot = dir(&mut tree, ROOT, "boot", time);
        file(&mut tree, boot, "vmlinuz", 0o644, kernel, time);
        file(&mut tree, boot, "initramfs.cpio", 0o644, archive, time);
        let isolinux = dir(&mut tree, boot, "isolinux", time);
        file(&mut tree, isolinux, "isolinux.bin", 0o644, loader.isolinux_bin.clone(), time);
        file(&mut tree, isolinux, "ldlinux.c32", 0o644, loader.ldlinux_c32.clone(), time);
        file(&mut tree, isolinux, "isolinux.cfg", 0o644, Content::from_bytes(config.into_bytes()), time);
        Ok(tree)
    }
}

/// The initramfs in memory: it is a few megabytes, and must be whole before its size is known.
fn archive(init: Content, time: Time) -> io::Result<Content> {
    let mut bytes = Vec::new();
    cpio::write(&initramfs::tree(init, time), &mut bytes)?;
    Ok(Content::from_bytes(bytes))
}

/// `config` with another kernel command line.
fn with_cmdline(config: &str, cmdline: &str) -> Result<String, Error> {
    if let Some(bad) = cmdline.chars().find(|c| c.is_control()) {
        return Err(Error::Cmdline { reason: format!("it contains {bad:?}, which would end its line") });
    }
    // The kernel's limit for x86, COMMAND_LINE_SIZE, with its NUL.
    if cmdline.len() >= 2048 {
        return Err(Error::Cmdline { reason: format!("it has {} bytes; the kernel takes 2047", cmdline.len()) });
    }
    let line = |line: &str| match line.trim_start().starts_with("append ") {
        true => format!("  append {cmdline}\n"),
        false => format!("{line}\n"),
    };
    Ok(config.lines().map(line).collect())
}

/// Why there is no ISO.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Asset(#[from] boot_assets::Error),
    #[error("the kernel's command line cannot be used: {reason}")]
    Cmdline { reason: String },
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
            let config = with_cmdline(recipe.isolinux_cfg, "console=ttyS3").unwrap();
            assert_eq!(config.matches("append").count(), 1, "{config}");
            assert!(config.contains("\n  append console=ttyS3\n"), "{config}");
        }
        assert!(with_cmdline(BOOTSTRAP.isolinux_cfg, "a\nb").is_err());
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
