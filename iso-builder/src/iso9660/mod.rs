//! ISO 9660 images with Rock Ridge names that BIOSes boot, from a CD drive or as a disk.
//!
//! [`write()`] is the whole interface. The bytes are made by the crate `hadris-iso` for now, behind this module, so that
//! another writer can take its place without anyone's notice. What goes into an image is decided by recipes.

use std::fs::File;

use crate::tree::{Content, Time, Tree};

pub mod dump;
mod error;
mod format;
mod hadris;
mod reader;
mod record;
mod rock_ridge;
mod volume;

pub use error::Error;
pub use reader::read;

/// What an image says about itself, and how it boots.
#[derive(Clone, Debug)]
pub struct Options {
    /// The volume's label: at most 32 of `A`-`Z`, `0`-`9` and `_`.
    pub volume: String,
    /// At most 128 bytes. It ends with the version: whoever finds an image can tell which one it is.
    pub publisher: String,
    /// Dates the volume and directories without a time.
    pub time: Time,
    /// Adds names for Windows, which reads no Rock Ridge. Symlinks and device nodes have no place among them.
    pub joliet: bool,
    pub boot: Boot,
}

/// Who can start from an image. With either, the same bytes boot from a CD drive (El Torito) and from a disk (MBR and GPT).
#[derive(Clone, Debug, Default)]
pub struct Boot {
    pub bios: Option<BiosBoot>,
    pub uefi: Option<UefiBoot>,
}

/// Boot by El Torito without emulation, and by the boot code of an MBR.
#[derive(Clone, Debug)]
pub struct BiosBoot {
    /// Path in the tree of the boot image: isolinux's `isolinux.bin`. It gets a boot information table.
    pub image: String,
    /// Boot code for the first sector, which finds the boot image by the address that is put at offset 432:
    /// the first 432 bytes of isolinux's `isohdpfx.bin`.
    pub mbr: Vec<u8>,
}

/// Boot by an EFI system partition: a FAT file system with `EFI/BOOT/BOOTX64.EFI`.
#[derive(Clone, Debug)]
pub struct UefiBoot {
    /// The file system. It lies behind the files, where a partition and an entry of El Torito's name it, and has no name in the tree.
    pub image: Content,
}

/// Writes `tree` as an ISO 9660 image to `out`, which is empty.
///
/// Sockets, FIFOs and xattrs have no place in it: they are an error, as is anything else that would be lost. Files are
/// read into memory whole.
pub fn write(tree: &Tree, options: &Options, out: &File) -> Result<(), Error> {
    hadris::write(tree, options, out)
}
