//! How firmware finds what to start on a CD: the boot catalog, and the table that isolinux finds its own rest by.
//!
//! "El Torito" Bootable CD-ROM Format Specification 1.0; UEFI 2.10, 13.3.2.1, for the platform 0xEF.

use super::error::Error;
use super::format::{SECTOR, u16_at, u32_at};
use super::volume::FIRST;
use crate::tree::Content;

/// The sectors of 512 bytes that a BIOS loads of isolinux, which loads the rest of itself.
const ISOLINUX_SECTORS: u16 = 4;

const BIOS: u8 = 0;
const UEFI: u8 = 0xef;
const BOOTABLE: u8 = 0x88;
const LAST_SECTION: u8 = 0x91;
const ANOTHER_SECTION: u8 = 0x90;

/// One way to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    platform: u8,
    bootable: bool,
    emulation: u8,
    /// Sectors of 512 bytes that are loaded.
    sectors: u16,
    block: u32,
}

impl Entry {
    pub(super) fn bios(block: u32) -> Entry {
        Entry { platform: BIOS, bootable: true, emulation: 0, sectors: ISOLINUX_SECTORS, block }
    }

    /// A file system of so many bytes. Zero sectors mean all to the volume's end: an image too large for the field is the last thing there.
    pub(super) fn uefi(block: u32, size: u64) -> Entry {
        Entry {
            platform: UEFI,
            bootable: true,
            emulation: 0,
            sectors: u16::try_from(size.div_ceil(512)).unwrap_or(0),
            block,
        }
    }

    fn bytes(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes[0] = if self.bootable { BOOTABLE } else { 0 };
        bytes[1] = self.emulation;
        bytes[6..8].copy_from_slice(&self.sectors.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.block.to_le_bytes());
        bytes
    }

    fn parse(platform: u8, bytes: &[u8]) -> Entry {
        let (emulation, sectors) = (bytes[1] & 0xf, u16_at(bytes, 6));
        Entry { platform, bootable: bytes[0] == BOOTABLE, emulation, sectors, block: u32_at(bytes, 8) }
    }
}

impl std::fmt::Display for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let platform = match self.platform {
            BIOS => "BIOS",
            UEFI => "UEFI",
            _ => "other",
        };
        let boots = if self.bootable { "boots" } else { "does not boot" };
        write!(
            f,
            "{boots} {platform}, emulation {}, {} sectors from block {}",
            self.emulation, self.sectors, self.block
        )
    }
}

/// The catalog: the first entry is the default, and each other one is in a section of its own.
pub(super) fn catalog(entries: &[Entry]) -> [u8; SECTOR] {
    let mut catalog = [0; SECTOR];
    let Some((first, others)) = entries.split_first() else { return catalog };
    catalog[0] = 1;
    catalog[1] = first.platform;
    catalog[30..32].copy_from_slice(&[0x55, 0xaa]);
    let sum = catalog[..32].chunks(2).fold(0_u16, |sum, word| sum.wrapping_sub(u16_at(word, 0)));
    catalog[28..30].copy_from_slice(&sum.to_le_bytes());
    catalog[32..64].copy_from_slice(&first.bytes());
    for (number, entry) in others.iter().enumerate() {
        let section = &mut catalog[64 + number * 64..][..64];
        section[0] = if number + 1 == others.len() { LAST_SECTION } else { ANOTHER_SECTION };
        section[1] = entry.platform;
        section[2] = 1;
        section[32..].copy_from_slice(&entry.bytes());
    }
    catalog
}

/// The entries of a catalog, also of others' making; `None` when it is none.
pub(super) fn parse(catalog: &[u8; SECTOR]) -> Option<Vec<Entry>> {
    let sum = catalog[..32].chunks(2).fold(0_u16, |sum, word| sum.wrapping_add(u16_at(word, 0)));
    if catalog[0] != 1 || catalog[30..32] != [0x55, 0xaa] || sum != 0 {
        return None;
    }
    let mut entries = vec![Entry::parse(catalog[1], &catalog[32..64])];
    let mut rest = catalog[64..].chunks(32);
    while let Some(header) = rest.next().filter(|header| matches!(header[0], ANOTHER_SECTION | LAST_SECTION)) {
        let mut left = u16_at(header, 2);
        while left > 0 {
            let Some(entry) = rest.next() else { break };
            // 0x44: more about the entry before
            if entry[0] != 0x44 {
                entries.push(Entry::parse(header[1], entry));
                left -= 1;
            }
        }
        if header[0] == LAST_SECTION {
            break;
        }
    }
    Some(entries)
}

/// Where the table is in the boot image, and its size with what is reserved.
pub(super) const INFO: std::ops::Range<usize> = 8..64;

/// The boot information table of the image at `block`: what `mkisofs -boot-info-table` writes.
pub(super) fn info(block: u32, content: &Content) -> std::io::Result<[u8; INFO.end - INFO.start]> {
    let mut sum = 0_u32;
    let mut chunk = vec![0; 1 << 16];
    let mut at = INFO.end as u64;
    while at < content.size {
        let len = usize::try_from((content.size - at).min(chunk.len() as u64)).expect("at most the chunk");
        content.read_exact_at(&mut chunk[..len], at)?;
        chunk[len..].fill(0);
        sum = chunk[..len.next_multiple_of(4)].chunks(4).fold(sum, |sum, word| sum.wrapping_add(u32_at(word, 0)));
        at += len as u64;
    }
    let size = u32::try_from(content.size).map_err(|_| std::io::Error::other("a boot image of 4 GiB or more"))?;
    let mut table = [0; INFO.end - INFO.start];
    for (field, value) in table.chunks_mut(4).zip([FIRST, block, size, sum]) {
        field.copy_from_slice(&value.to_le_bytes());
    }
    Ok(table)
}

/// A boot image has the table within it.
pub(super) fn check(path: &str, content: &Content) -> Result<(), Error> {
    match (INFO.end as u64..1 << 32).contains(&content.size) {
        true => Ok(()),
        false => {
            let reason = "a boot image has 64 bytes at least, and less than 4 GiB".to_owned();
            Err(Error::Unfit { path: path.to_owned(), reason })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_catalog_is_read_as_it_was_written() {
        let bios = Entry::bios(77);
        let uefi = Entry::uefi(1234, 20 << 20);
        for entries in [&[bios][..], &[uefi], &[bios, uefi], &[bios, uefi, uefi]] {
            assert_eq!(parse(&catalog(entries)).as_deref(), Some(entries));
        }
        assert_eq!(uefi.sectors, 40 << 10);
        assert_eq!(Entry::uefi(1, 32 << 20).sectors, 0, "too large to be said");
        assert_eq!(parse(&[0; SECTOR]), None);
    }

    #[test]
    fn the_checksum_leaves_the_table_out_and_takes_the_last_bytes_with_zeros() {
        let mut image = vec![0xff; 64];
        image.extend([1, 0, 0, 0, 2, 0, 0, 0, 3]);
        let table = info(9, &Content::from_bytes(image)).unwrap();
        assert_eq!(table[..16], [16, 0, 0, 0, 9, 0, 0, 0, 73, 0, 0, 0, 6, 0, 0, 0]);
        assert!(table[16..].iter().all(|byte| *byte == 0));
    }
}
