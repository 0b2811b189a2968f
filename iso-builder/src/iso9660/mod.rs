//! ISO 9660 images that Linux, Windows and firmware read: from a CD drive, and from a disk with the same bytes.
//!
//! [`write()`] makes one out of a [`Tree`](crate::tree::Tree): `writer` decides where things lie. `files` numbers inodes, `hierarchy` lays out
//! directories of `record`s with Rock Ridge's `fields`, under `identifiers` that older readers see; `descriptors` say where
//! these are, `el_torito` and `partitions` who starts from the image, and all goes through a `sink`.
//!
//! [`read()`] makes a tree out of an image, also of others' making. It shares with the writer only what is true of the
//! format: `format`, `record`, and the numbers in `volume` and `rock_ridge`. [`dump`](mod@dump) shows an image as text.
//!
//! The image is a function of tree and options: no clock, no randomness, no environment. Not made: multiple sessions,
//! volumes of several images, zisofs, xattrs.

use crate::tree::{Content, Time};

mod descriptors;
pub mod dump;
mod el_torito;
mod error;
mod fields;
mod files;
pub(crate) mod format;
mod hierarchy;
mod identifiers;
mod partitions;
mod reader;
mod record;
mod rock_ridge;
mod shared;
mod sink;
mod volume;
mod writer;

pub use error::Error;
pub use reader::read;
pub use writer::write;

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
