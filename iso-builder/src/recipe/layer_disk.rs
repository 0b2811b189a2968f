//! The disk of one layer of an image: as large as its files, never written to, and without a journal, as nothing is ever to be replayed.
//!
//! Under overlayfs such disks, one over the other, are the image. How a layer hides what is below is decided in `oci`.

use std::fs::File;

use crate::ext4::{self, Error, Options, Size, Stats};
use crate::tree::Tree;

/// Writes the disk of a layer that [`crate::oci::Image::layers`] has made.
pub fn write(tree: &Tree, out: &File, progress: &mut dyn FnMut(u64, u64)) -> Result<Stats, Error> {
    let options = Options { size: Size::Fit { spare: 0 }, journal: false, ..Options::default() };
    ext4::write(tree, &options, out, progress)
}
