//! Volume descriptors: what an image says about itself, and where its root directory is (ECMA-119, section 8; Joliet).

use std::sync::Arc;

use super::error::Error;
use super::format::{SECTOR, SECTOR_BYTES, u16_at, u32_at};
use crate::tree::ReadAt;

/// The first descriptor's sector, after the system area of 32 KiB.
pub(super) const FIRST: u32 = 16;

/// Kinds of descriptors.
pub(super) const BOOT: u8 = 0;
pub(super) const PRIMARY: u8 = 1;
pub(super) const SUPPLEMENTARY: u8 = 2;
pub(super) const TERMINATOR: u8 = 255;

/// Every descriptor's mark.
pub(super) const MARK: &[u8; 5] = b"CD001";

/// Where things are in a primary or supplementary descriptor.
pub(super) const VOLUME_ID: std::ops::Range<usize> = 40..72;
pub(super) const VOLUME_BLOCKS: usize = 80;
pub(super) const ESCAPES: usize = 88;
pub(super) const BLOCK_SIZE: usize = 128;
pub(super) const ROOT_RECORD: std::ops::Range<usize> = 156..190;
pub(super) const PUBLISHER: std::ops::Range<usize> = 318..446;

/// More descriptors than any image has.
const MAX_DESCRIPTORS: u32 = 64;

/// The descriptors of an image.
#[derive(Debug)]
pub(super) struct Volumes {
    pub(super) primary: Box<[u8; SECTOR]>,
    /// The one with Joliet's names.
    pub(super) joliet: Option<Box<[u8; SECTOR]>>,
    /// The block of the El Torito catalog.
    pub(super) boot_catalog: Option<u32>,
}

/// Reads the descriptors up to their terminator, which some writers forget.
pub(super) fn read(image: &Arc<dyn ReadAt>) -> Result<Volumes, Error> {
    let (mut primary, mut joliet, mut boot_catalog) = (None, None, None);
    for block in FIRST..FIRST + MAX_DESCRIPTORS {
        let mut descriptor = Box::new([0; SECTOR]);
        match sector(image, block, &mut descriptor) {
            Err(Error::Damaged { .. }) if block > FIRST => break,
            result => result?,
        }
        if &descriptor[1..6] != MARK {
            break;
        }
        match descriptor[0] {
            TERMINATOR => break,
            BOOT if descriptor[7..].starts_with(b"EL TORITO SPECIFICATION") => {
                boot_catalog = boot_catalog.or(Some(u32_at(&descriptor[..], 71)));
            }
            PRIMARY if primary.is_none() => primary = Some(descriptor),
            SUPPLEMENTARY if is_joliet(&descriptor[ESCAPES..]) && joliet.is_none() => joliet = Some(descriptor),
            _ => {}
        }
    }
    let at = u64::from(FIRST) * SECTOR_BYTES;
    let primary = primary.ok_or_else(|| Error::damaged(at, "there is no primary volume descriptor"))?;
    match u16_at(&primary[..], BLOCK_SIZE) {
        2048 => Ok(Volumes { primary, joliet, boot_catalog }),
        other => Err(Error::damaged(at + 128, format!("blocks are of {other} bytes, and only those of 2048 are read"))),
    }
}

/// Fills `buf` with a sector.
pub(super) fn sector(image: &Arc<dyn ReadAt>, block: u32, buf: &mut [u8; SECTOR]) -> Result<(), Error> {
    read_at(image, u64::from(block) * SECTOR_BYTES, buf)
}

/// Fills `buf` from an offset.
pub(super) fn read_at(image: &Arc<dyn ReadAt>, at: u64, buf: &mut [u8]) -> Result<(), Error> {
    image.read_exact_at(buf, at).map_err(|source| match source.kind() {
        std::io::ErrorKind::UnexpectedEof => Error::damaged(at, "the image ends"),
        _ => Error::Image { at, source },
    })
}

/// UCS-2 of level 1, 2 or 3.
fn is_joliet(escapes: &[u8]) -> bool {
    [b"%/@", b"%/C", b"%/E"].iter().any(|level| escapes.starts_with(*level))
}
