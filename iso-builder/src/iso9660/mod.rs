//! ISO 9660 images with Rock Ridge names that BIOSes boot, from a CD drive or as a disk.
//!
//! [`write()`] is the whole interface. The bytes are made by the crate `hadris-iso` for now, behind this module, so that
//! another writer can take its place without anyone's notice. What goes into an image is decided by recipes.

use std::fs::File;
use std::io;

use crate::tree::{Time, Tree};

pub mod dump;
mod hadris;

/// What an image says about itself, and how it boots.
#[derive(Clone, Debug)]
pub struct Options {
    /// The volume's label: at most 32 of `A`-`Z`, `0`-`9` and `_`.
    pub volume: String,
    /// At most 128 bytes. It ends with the version: whoever finds an image can tell which one it is.
    pub publisher: String,
    /// Dates the volume and directories without a time.
    pub time: Time,
    pub boot: Option<BiosBoot>,
}

/// Boot by El Torito without emulation, and by the boot code of an MBR.
#[derive(Clone, Debug)]
pub struct BiosBoot {
    /// Path in the tree of the boot image. It gets a boot information table.
    pub image: String,
    /// Path that the boot catalog gets.
    pub catalog: String,
    /// Boot code for the first sector, which finds the boot image by the address that is put at offset 432:
    /// isolinux's `isohdpfx.bin`.
    pub mbr: Vec<u8>,
}

/// Writes `tree` as an ISO 9660 image to `out`, which is empty.
///
/// Sockets, FIFOs and xattrs have no place in it: they are an error, as is anything else that would be lost. Files are
/// read into memory whole.
pub fn write(tree: &Tree, options: &Options, out: &File) -> Result<(), Error> {
    hadris::write(tree, options, out)
}

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("/{path} cannot be stored in an ISO 9660 image: {reason}")]
    Unfit { path: String, reason: String },
    #[error("/{path} cannot be read")]
    Read { path: String, source: io::Error },
    #[error("the image cannot be laid out: {reason}")]
    Layout { reason: String },
    #[error("the image cannot be written")]
    Write(#[from] io::Error),
}
