//! The partitions of a disk, as far as it takes to find the first that holds an ext4.
//!
//! GPT by the UEFI specification 2.10, section 5.3; the four primary entries of an MBR. Its checksums are not compared: what a partition holds is checked
//! by the reader of its file system. Sectors have 512 bytes, as on every disk of a virtual machine.

use std::io;
use std::sync::Arc;

use super::inner::Window;
use crate::tree::ReadAt;

/// Why there is no file system to look into.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the partition table cannot be read at byte {at}")]
    Read { at: u64, source: io::Error },
    #[error("is a disk of {partitions} partitions, none of which is ext4")]
    NoExt4 { partitions: usize },
}

/// The first partition whose superblock is ext4's, and its number.
pub(super) fn first_ext4(disk: &Arc<dyn ReadAt>) -> Result<(u32, Arc<dyn ReadAt>), Error> {
    let size = disk.size().map_err(|source| Error::Read { at: 0, source })?;
    let found = partitions(&**disk, size)?;
    let partitions = found.len();
    for (number, start, len) in found {
        let mut magic = [0; 2];
        let at = start + 1024 + 56;
        // What reaches beyond the end is no partition of this disk.
        if start.checked_add(len).is_none_or(|end| end > size) || len < 2048 {
            continue;
        }
        disk.read_exact_at(&mut magic, at).map_err(|source| Error::Read { at, source })?;
        if magic == [0x53, 0xef] {
            return Ok((number, Arc::new(Window { image: disk.clone(), start, len })));
        }
    }
    Err(Error::NoExt4 { partitions })
}

/// Number, first byte and bytes of each.
fn partitions(disk: &dyn ReadAt, size: u64) -> Result<Vec<(u32, u64, u64)>, Error> {
    let read = |at: u64, buf: &mut [u8]| disk.read_exact_at(buf, at).map_err(|source| Error::Read { at, source });
    let mut head = [0; 1024];
    read(0, &mut head[..usize::try_from(size.min(1024)).expect("at most 1024")])?;
    if head[512..520] != *b"EFI PART" {
        let entries = (1..).zip(head[446..510].chunks(16)).filter(|(_, entry)| entry[4] != 0);
        let place =
            |entry: &[u8], at| u64::from(u32::from_le_bytes(entry[at..at + 4].try_into().expect("4 bytes"))) * SECTOR;
        return Ok(entries.map(|(number, entry)| (number, place(entry, 8), place(entry, 12))).collect());
    }
    let u32_at = |at: usize| u32::from_le_bytes(head[512 + at..516 + at].try_into().expect("4 bytes"));
    let table = u64::from_le_bytes(head[584..592].try_into().expect("8 bytes")).saturating_mul(SECTOR);
    let (count, entry_size) = (u32_at(80).min(MAX_ENTRIES), u32_at(84).clamp(128, 4096));
    let mut found = Vec::new();
    for number in 0..count {
        let mut entry = [0; 48];
        read(table.saturating_add(u64::from(number) * u64::from(entry_size)), &mut entry)?;
        let sector = |at: usize| u64::from_le_bytes(entry[at..at + 8].try_into().expect("8 bytes"));
        // The last sector is the partition's too.
        if let Some(sectors) = sector(40).checked_sub(sector(32)).filter(|_| entry[..16] != [0; 16]) {
            found.push((
                number + 1,
                sector(32).saturating_mul(SECTOR),
                sectors.saturating_add(1).saturating_mul(SECTOR),
            ));
        }
    }
    Ok(found)
}

/// Bytes of a sector.
const SECTOR: u64 = 512;

/// As many as Linux looks at without being told to.
const MAX_ENTRIES: u32 = 256;

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn disk(bytes: &[u8]) -> Arc<dyn ReadAt> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Arc::new(file)
    }

    fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
        bytes[at..at + value.len()].copy_from_slice(value);
    }

    fn gpt() -> Vec<u8> {
        let mut bytes = vec![0; 64 * 512];
        put(&mut bytes, 512, b"EFI PART");
        put(&mut bytes, 512 + 72, &2u64.to_le_bytes());
        put(&mut bytes, 512 + 80, &4u32.to_le_bytes());
        put(&mut bytes, 512 + 84, &128u32.to_le_bytes());
        for (entry, first, last) in [(0usize, 8u64, 15u64), (2, 16, 31), (3, 32, u64::MAX)] {
            let at = 1024 + entry * 128;
            put(&mut bytes, at, &[7; 16]);
            put(&mut bytes, at + 32, &first.to_le_bytes());
            put(&mut bytes, at + 40, &last.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn the_first_ext4_of_a_gpt() {
        let mut bytes = gpt();
        assert!(matches!(first_ext4(&disk(&bytes)), Err(Error::NoExt4 { partitions: 3 })));
        put(&mut bytes, 16 * 512 + 1080, &[0x53, 0xef]);
        let (number, found) = first_ext4(&disk(&bytes)).unwrap();
        assert_eq!((number, found.size().unwrap()), (3, 16 * 512));
    }

    #[test]
    fn the_first_ext4_of_an_mbr() {
        let mut bytes = vec![0; 64 * 512];
        for (entry, start, sectors) in [(0usize, 1u32, 4u32), (1, 8, 16)] {
            put(&mut bytes, 446 + entry * 16 + 4, &[0x83]);
            put(&mut bytes, 446 + entry * 16 + 8, &start.to_le_bytes());
            put(&mut bytes, 446 + entry * 16 + 12, &sectors.to_le_bytes());
        }
        put(&mut bytes, 8 * 512 + 1080, &[0x53, 0xef]);
        let (number, found) = first_ext4(&disk(&bytes)).unwrap();
        assert_eq!((number, found.size().unwrap()), (2, 16 * 512));
        // one that the disk ends in is none
        bytes.truncate(23 * 512);
        assert!(matches!(first_ext4(&disk(&bytes)), Err(Error::NoExt4 { partitions: 2 })));
    }

    #[test]
    fn a_table_that_lies_is_an_error() {
        let mut bytes = gpt();
        put(&mut bytes, 512 + 72, &u64::MAX.to_le_bytes());
        assert!(matches!(first_ext4(&disk(&bytes)), Err(Error::Read { .. })));
        assert!(matches!(first_ext4(&disk(&[0; 700])), Err(Error::NoExt4 { partitions: 0 })));
    }
}
