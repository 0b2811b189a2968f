//! The descriptor of a block group, and the bitmaps it points to.
//!
//! Files fill an image from its front, so in every group the blocks in use are a run at its start, and so are the
//! inodes: a bitmap is a count.

use super::format::{
    BLOCK, Checksum, DESCRIPTOR_SIZE, get_u16, get_u32, high16, high32, low16, low32, put_u16, put_u32,
};

/// The inode bitmap and table are not in use and not written.
pub(super) const INODE_UNINIT: u16 = 0x1;
/// The block bitmap is not written: what is in use follows from the geometry.
pub(super) const BLOCK_UNINIT: u16 = 0x2;
/// The inode table is zero where not in use, so the kernel need not write zeros (which would fill our holes).
pub(super) const TABLE_ZEROED: u16 = 0x4;

const CHECKSUM: usize = 0x1E;

/// One group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Descriptor {
    pub(super) block_bitmap: u64,
    pub(super) inode_bitmap: u64,
    pub(super) inode_table: u64,
    pub(super) free_blocks: u32,
    pub(super) free_inodes: u32,
    pub(super) directories: u32,
    /// Inodes at the table's end that were never in use.
    pub(super) unused_inodes: u32,
    pub(super) flags: u16,
    pub(super) block_bitmap_checksum: u32,
    pub(super) inode_bitmap_checksum: u32,
}

impl Descriptor {
    pub(super) fn encode(&self, group: u64, seed: Checksum) -> [u8; DESCRIPTOR_SIZE] {
        let mut bytes = [0; DESCRIPTOR_SIZE];
        for (low, high, block) in
            [(0x00, 0x20, self.block_bitmap), (0x04, 0x24, self.inode_bitmap), (0x08, 0x28, self.inode_table)]
        {
            put_u32(&mut bytes, low, low32(block));
            put_u32(&mut bytes, high, high32(block));
        }
        for (low, high, value) in [
            (0x0C, 0x2C, self.free_blocks),
            (0x0E, 0x2E, self.free_inodes),
            (0x10, 0x30, self.directories),
            (0x1C, 0x32, self.unused_inodes),
            (0x18, 0x38, self.block_bitmap_checksum),
            (0x1A, 0x3A, self.inode_bitmap_checksum),
        ] {
            put_u16(&mut bytes, low, low16(value));
            put_u16(&mut bytes, high, high16(value));
        }
        put_u16(&mut bytes, 0x12, self.flags);
        let checksum = checksum(&bytes, group, seed);
        put_u16(&mut bytes, CHECKSUM, checksum);
        bytes
    }

    /// Reads a descriptor back, of 32 bytes or more; `None` when its checksum is wrong. Without `seed` there is none.
    pub(super) fn decode(bytes: &[u8], group: u64, seed: Option<Checksum>) -> Option<Descriptor> {
        let mut plain = bytes.to_vec();
        put_u16(&mut plain, CHECKSUM, 0);
        if seed.is_some_and(|seed| checksum(&plain, group, seed) != get_u16(bytes, CHECKSUM)) {
            return None;
        }
        let is_wide = bytes.len() >= DESCRIPTOR_SIZE;
        let long = |low, high| {
            let high = if is_wide { get_u32(bytes, high) } else { 0 };
            u64::from(high) << 32 | u64::from(get_u32(bytes, low))
        };
        let short = |low, high| {
            let high = if is_wide { get_u16(bytes, high) } else { 0 };
            u32::from(high) << 16 | u32::from(get_u16(bytes, low))
        };
        Some(Descriptor {
            block_bitmap: long(0x00, 0x20),
            inode_bitmap: long(0x04, 0x24),
            inode_table: long(0x08, 0x28),
            free_blocks: short(0x0C, 0x2C),
            free_inodes: short(0x0E, 0x2E),
            directories: short(0x10, 0x30),
            unused_inodes: short(0x1C, 0x32),
            flags: get_u16(bytes, 0x12),
            block_bitmap_checksum: short(0x18, 0x38),
            inode_bitmap_checksum: short(0x1A, 0x3A),
        })
    }
}

/// A bitmap whose first `used` bits are set, and those behind `len`, which stand for nothing.
pub(super) fn bitmap(used: usize, len: usize) -> [u8; BLOCK] {
    let mut bytes = [0; BLOCK];
    let mut set = |from: usize, to: usize| {
        let (first, last) = (from.next_multiple_of(8).min(to), to / 8 * 8);
        (from..first).for_each(|bit| bytes[bit / 8] |= 1 << (bit % 8));
        if first < last {
            bytes[first / 8..last / 8].fill(0xFF);
        }
        (last.max(first)..to).for_each(|bit| bytes[bit / 8] |= 1 << (bit % 8));
    };
    set(0, used);
    set(len, 8 * BLOCK);
    bytes
}

/// Over the group's number and its descriptor without the checksum itself.
fn checksum(plain: &[u8], group: u64, seed: Checksum) -> u16 {
    low16(seed.add(&low32(group).to_le_bytes()).add(plain).value())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let descriptor = Descriptor {
            block_bitmap: 0x1_0000_0002,
            inode_bitmap: 3,
            inode_table: 4,
            free_blocks: 32768,
            free_inodes: 0x1_0001,
            directories: 5,
            unused_inodes: 6,
            flags: TABLE_ZEROED,
            block_bitmap_checksum: 0x1234_5678,
            inode_bitmap_checksum: 0x9ABC_DEF0,
        };
        let mut bytes = descriptor.encode(7, Checksum::START);
        assert_eq!(Descriptor::decode(&bytes, 7, Some(Checksum::START)), Some(descriptor));
        assert_eq!(Descriptor::decode(&bytes, 8, Some(Checksum::START)), None);
        bytes[0x30] ^= 1;
        assert_eq!(Descriptor::decode(&bytes, 7, Some(Checksum::START)), None);
        assert_eq!(Descriptor::decode(&bytes[..32], 7, None).unwrap().block_bitmap, 2);
    }

    #[test]
    fn a_bitmap_is_its_used_start_and_its_padding() {
        for (used, len) in [(0, 8), (1, 9), (7, 32768), (8, 8), (13, 13), (9, 40), (32768, 32768), (100, 101)] {
            let bytes = bitmap(used, len);
            for bit in 0..8 * BLOCK {
                let set = bytes[bit / 8] >> (bit % 8) & 1 == 1;
                assert_eq!(set, bit < used || bit >= len, "bit {bit} of {used}/{len}");
            }
        }
    }
}
