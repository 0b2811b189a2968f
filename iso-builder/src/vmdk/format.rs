//! The bytes of a hosted sparse extent: its header, and where its tables lie.
//!
//! After VMware's "Virtual Disk Format 5.0". All numbers are little-endian, all places are counted in sectors.

use super::Error;

/// Bytes of a sector.
pub(super) const SECTOR: u64 = 512;

/// Bytes of a grain, the unit of allocation: 64 KiB, the only size that VMware's own tools write.
pub(super) const GRAIN: u64 = 64 << 10;

/// Grains that one grain table maps; the only number that VMware reads.
pub(super) const TABLE_ENTRIES: u64 = 512;

/// Sectors of a grain table: 512 entries of 32 bits.
pub(super) const TABLE_SECTORS: u64 = TABLE_ENTRIES * 4 / SECTOR;

/// Where the descriptor lies, and how much room it has: what QEMU and VMware reserve.
pub(super) const DESCRIPTOR_AT: u64 = 1;
pub(super) const DESCRIPTOR_SECTORS: u64 = 20;

/// `KDMV` as the first four bytes.
const MAGIC: u32 = 0x564d_444b;

/// Bit 0: the line end bytes are valid. Bit 1: a second set of tables is there.
const FLAGS: u32 = 3;

/// Bit 0: the line end bytes are valid. Bit 16: grains are compressed. Bit 17: each grain and table has a marker before it.
const STREAM_FLAGS: u32 = COMPRESSED | MARKED | 1;
pub(super) const COMPRESSED: u32 = 1 << 16;
pub(super) const MARKED: u32 = 1 << 17;
const STREAM_VERSION: u32 = 3;
/// RFC 1950's format around RFC 1951's.
const DEFLATE: u16 = 1;

/// In the place of the directory's in a header whose footer has the real one.
pub(super) const AT_THE_END: u64 = u64::MAX;

/// The kinds of markers that are not grains'.
pub(super) const TABLE: u32 = 1;
pub(super) const DIRECTORY: u32 = 2;
pub(super) const FOOTER: u32 = 3;

/// What stands at bytes 73..77, so that a transfer as text is noticed.
const LINE_ENDS: [u8; 4] = *b"\n \r\n";

/// The header's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) version: u32,
    pub(super) flags: u32,
    pub(super) capacity: u64,
    pub(super) grain_sectors: u64,
    pub(super) descriptor_at: u64,
    pub(super) descriptor_sectors: u64,
    pub(super) table_entries: u32,
    pub(super) spare_directory_at: u64,
    pub(super) directory_at: u64,
    pub(super) overhead: u64,
    pub(super) compression: u16,
}

impl Header {
    /// The layout for a disk of `capacity` sectors: header, descriptor, spare tables, tables, grains.
    pub(super) fn new(capacity: u64) -> Header {
        let spare_directory_at = DESCRIPTOR_AT + DESCRIPTOR_SECTORS;
        let (directory, tables) = (directory_sectors(capacity), tables(capacity) * TABLE_SECTORS);
        let directory_at = spare_directory_at + directory + tables;
        let overhead = (directory_at + directory + tables).next_multiple_of(GRAIN / SECTOR);
        Header {
            version: 1,
            flags: FLAGS,
            capacity,
            grain_sectors: GRAIN / SECTOR,
            descriptor_at: DESCRIPTOR_AT,
            descriptor_sectors: DESCRIPTOR_SECTORS,
            table_entries: 512,
            spare_directory_at,
            directory_at,
            overhead,
            compression: 0,
        }
    }

    /// The layout of a stream: header, descriptor, and then whatever comes, with its tables at the end; `directory_at` is only known there.
    pub(super) fn stream(capacity: u64, directory_at: u64) -> Header {
        Header {
            version: STREAM_VERSION,
            flags: STREAM_FLAGS,
            spare_directory_at: 0,
            directory_at,
            overhead: GRAIN / SECTOR,
            compression: DEFLATE,
            ..Header::new(capacity)
        }
    }

    pub(super) fn to_bytes(self) -> [u8; 512] {
        let mut bytes = [0; 512];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, &MAGIC.to_le_bytes());
        put(4, &self.version.to_le_bytes());
        put(8, &self.flags.to_le_bytes());
        put(12, &self.capacity.to_le_bytes());
        put(20, &self.grain_sectors.to_le_bytes());
        put(28, &self.descriptor_at.to_le_bytes());
        put(36, &self.descriptor_sectors.to_le_bytes());
        put(44, &self.table_entries.to_le_bytes());
        put(48, &self.spare_directory_at.to_le_bytes());
        put(56, &self.directory_at.to_le_bytes());
        put(64, &self.overhead.to_le_bytes());
        // Byte 72 says whether the disk was in use when its writer died.
        put(73, &LINE_ENDS);
        put(77, &self.compression.to_le_bytes());
        bytes
    }

    /// Reads the header that is at byte `at` of a file.
    pub(super) fn from_bytes(bytes: &[u8; 512], at: u64) -> Result<Header, Error> {
        let u32_at = |at: usize| u32::from_le_bytes(std::array::from_fn(|index| bytes[at + index]));
        let u64_at = |at: usize| u64::from_le_bytes(std::array::from_fn(|index| bytes[at + index]));
        if u32_at(0) != MAGIC {
            return Err(Error::Malformed { why: "it does not start with KDMV", at });
        }
        if u32_at(8) & 1 != 0 && bytes[73..77] != LINE_ENDS {
            return Err(Error::Malformed {
                why: "its line ends were changed on the way, by a transfer as text",
                at: at + 73,
            });
        }
        Ok(Header {
            version: u32_at(4),
            flags: u32_at(8),
            capacity: u64_at(12),
            grain_sectors: u64_at(20),
            descriptor_at: u64_at(28),
            descriptor_sectors: u64_at(36),
            table_entries: u32_at(44),
            spare_directory_at: u64_at(48),
            directory_at: u64_at(56),
            overhead: u64_at(64),
            compression: u16::from_le_bytes([bytes[77], bytes[78]]),
        })
    }
}

/// Grain tables of a disk.
pub(super) fn tables(capacity: u64) -> u64 {
    capacity.div_ceil(TABLE_ENTRIES * GRAIN / SECTOR)
}

/// Sectors of a directory, which has 32 bits for each table.
pub(super) fn directory_sectors(capacity: u64) -> u64 {
    (tables(capacity) * 4).div_ceil(SECTOR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_bytes_are_pinned() {
        let header = Header::new(1 << 21);
        let bytes = header.to_bytes();
        let expected: [u8; 79] = [
            b'K', b'D', b'M', b'V', 1, 0, 0, 0, 3, 0, 0, 0, // magic, version, flags
            0, 0, 0x20, 0, 0, 0, 0, 0, 128, 0, 0, 0, 0, 0, 0, 0, // capacity, grain
            1, 0, 0, 0, 0, 0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0, // descriptor
            0, 2, 0, 0, 21, 0, 0, 0, 0, 0, 0, 0, 150, 0, 0, 0, 0, 0, 0, 0, // entries, spare directory, directory
            0x80, 1, 0, 0, 0, 0, 0, 0, 0, b'\n', b' ', b'\r', b'\n', 0,
            0, // overhead, unclean, line ends, compression
        ];
        assert_eq!(bytes[..79], expected);
        assert_eq!(Header::from_bytes(&bytes, 0).unwrap(), header);
    }
}
