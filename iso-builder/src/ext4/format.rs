//! What every structure of ext4 on disk shares: sizes, little-endian fields, and the running checksum.
//!
//! Decides the constants of the format that this writer fixes once for all images. The structures themselves are
//! beside their meaning: `superblock`, `group`, `inode`, `extent`, `directory`, `xattr`.

/// Bytes of a block. The size that every kernel with 4 KiB pages mounts; other offsets here assume it.
pub(super) const BLOCK: usize = 4096;

/// [`BLOCK`] for arithmetic on offsets.
pub(super) const BLOCK_BYTES: u64 = BLOCK as u64;

/// Bytes of an inode on disk: 128 of ext2, 32 of extra fields, 96 for small xattrs.
pub(super) const INODE_SIZE: usize = 256;

/// Inodes in one block of an inode table.
pub(super) const INODES_PER_BLOCK: u32 = 16;

/// Blocks of a group: as many as one block of bitmap has bits.
pub(super) const GROUP_BLOCKS: u64 = 32768;

/// Bytes of a group descriptor with the feature `64bit`, which also widens the bitmaps' checksums to 32 bits.
pub(super) const DESCRIPTOR_SIZE: usize = 64;

/// The root directory's inode; the number is fixed by the format.
pub(super) const ROOT_INODE: u32 = 2;

/// The journal's inode; one of the reserved ten.
pub(super) const JOURNAL_INODE: u32 = 8;

/// The first inode that is not reserved, by custom that of lost+found.
pub(super) const FIRST_INODE: u32 = 11;

/// The file type bits of an inode's mode.
pub(super) const TYPE_MASK: u16 = 0xF000;
pub(super) const FIFO: u16 = 0x1000;
pub(super) const CHAR_DEVICE: u16 = 0x2000;
pub(super) const DIRECTORY: u16 = 0x4000;
pub(super) const BLOCK_DEVICE: u16 = 0x6000;
pub(super) const REGULAR: u16 = 0x8000;
pub(super) const SYMLINK: u16 = 0xA000;
pub(super) const SOCKET: u16 = 0xC000;

/// A block of zeros, for comparison and as a start.
pub(super) const ZEROS: [u8; BLOCK] = [0; BLOCK];

pub(super) fn put_u16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

pub(super) fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// A big-endian field; only the journal has them.
pub(super) fn put_be32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

pub(super) fn get_u16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

pub(super) fn get_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The lower 16 bits of a value whose upper ones are stored elsewhere or given up.
pub(super) fn low16(value: u32) -> u16 {
    u16::try_from(value & 0xFFFF).expect("masked to 16 bits")
}

/// The upper 16 bits of a value.
pub(super) fn high16(value: u32) -> u16 {
    low16(value >> 16)
}

/// The lower 32 bits of a value whose upper ones are stored elsewhere.
pub(super) fn low32(value: u64) -> u32 {
    u32::try_from(value & 0xFFFF_FFFF).expect("masked to 32 bits")
}

/// The upper 32 bits of a value.
pub(super) fn high32(value: u64) -> u32 {
    low32(value >> 32)
}

/// A length in memory as an offset in an image.
pub(super) fn wide(length: usize) -> u64 {
    u64::try_from(length).expect("usize has at most 64 bits")
}

/// An offset within a buffer as an index of it.
pub(super) fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("the buffer is in memory")
}

/// CRC32C as ext4 runs it: started with ones and never inverted at the end, so that it can go on from any value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Checksum {
    /// The complement of ext4's value, which is what the `crc32c` crate continues from.
    inverted: u32,
}

impl Checksum {
    /// The start of a superblock's checksum.
    pub(super) const START: Checksum = Checksum { inverted: 0 };

    /// The start of every other checksum of the file system named `uuid`.
    pub(super) fn seed(uuid: &[u8; 16]) -> Checksum {
        Checksum::START.add(uuid)
    }

    /// Goes on from a value that [`Checksum::value`] gave.
    pub(super) fn resume(value: u32) -> Checksum {
        Checksum { inverted: !value }
    }

    /// The start of every checksum that belongs to an inode. Generations tell apart the files that had a number one
    /// after the other; ours are all the first, 0.
    pub(super) fn of_inode(self, number: u32, generation: u32) -> Checksum {
        self.add(&number.to_le_bytes()).add(&generation.to_le_bytes())
    }

    pub(super) fn add(self, bytes: &[u8]) -> Checksum {
        Checksum { inverted: crc32c::crc32c_append(self.inverted, bytes) }
    }

    pub(super) fn value(self) -> u32 {
        !self.inverted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_crc32c_without_its_last_inversion() {
        // The check value of CRC-32C is 0xE3069283 over these digits.
        assert_eq!(Checksum::START.add(b"123456789").value(), !0xE306_9283);
        assert_eq!(Checksum::START.add(b"1234").add(b"56789"), Checksum::START.add(b"123456789"));
    }

    #[test]
    fn halves_keep_every_bit() {
        assert_eq!((high32(0x1122_3344_5566_7788), low32(0x1122_3344_5566_7788)), (0x1122_3344, 0x5566_7788));
        assert_eq!((high16(0x1122_3344), low16(0x1122_3344)), (0x1122, 0x3344));
    }
}
