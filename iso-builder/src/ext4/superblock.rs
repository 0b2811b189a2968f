//! The superblock of the file system and that of its journal.
//!
//! Decides which features every image has, and the fields that never vary. No reserved blocks: the disk belongs to one
//! container, whose root would only be surprised by the missing 5 %.

use super::extent::MAX_LEN;
use super::format::{
    BLOCK, BLOCK_BYTES, Checksum, DESCRIPTOR_SIZE, FIRST_INODE, GROUP_BLOCKS, INODE_SIZE, JOURNAL_INODE, high32, low16,
    low32, put_be32, put_u16, put_u32,
};
use super::geometry::FLEX_SHIFT;
use super::inode::EXTRA_SIZE;

/// Bytes of a superblock.
pub(super) const SIZE: usize = 1024;

/// Where the first superblock lies in the image, bytes: behind room for a boot sector. Copies start their block.
pub(super) const OFFSET: usize = 1024;

pub(super) const MAGIC: u16 = 0xEF53;
/// Where the checksum lies: at the end of what it covers.
pub(super) const CHECKSUM: usize = 0x3FC;

/// `ext_attr dir_index`.
const COMPAT: u32 = 0x8 | 0x20;
/// `has_journal`.
const COMPAT_JOURNAL: u32 = 0x4;
/// `filetype extent 64bit flex_bg`.
const INCOMPAT: u32 = 0x2 | 0x40 | 0x80 | 0x200;
/// `sparse_super large_file huge_file dir_nlink extra_isize metadata_csum`.
const RO_COMPAT: u32 = 0x1 | 0x2 | 0x8 | 0x20 | 0x40 | 0x400;

/// Cleanly unmounted.
const STATE_CLEAN: u16 = 1;
/// On an error, go on; the kernel's default and `mke2fs`'s.
const ERRORS_CONTINUE: u16 = 1;
/// Never checked for the number of its mounts.
const NO_MOUNT_LIMIT: u16 = 0xFFFF;
/// Mount with `user_xattr,acl`.
const MOUNT_OPTIONS: u32 = 0x4 | 0x8;
/// Directory hashes take bytes of names as unsigned, on every architecture.
const UNSIGNED_HASH: u32 = 0x2;
/// Directory hashes are half MD4.
const HALF_MD4: u8 = 1;

/// What varies between superblocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Superblock {
    pub(super) blocks: u64,
    pub(super) free_blocks: u64,
    pub(super) inodes: u32,
    pub(super) free_inodes: u32,
    pub(super) inodes_per_group: u32,
    pub(super) uuid: [u8; 16],
    pub(super) hash_seed: [u8; 16],
    pub(super) label: [u8; 16],
    /// When the file system was made and last written, seconds since 1970.
    pub(super) time: u64,
    pub(super) journal: Option<JournalCopy>,
}

/// The journal's inode as the superblock repeats it, should the inode be lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct JournalCopy {
    pub(super) extents: [u8; 60],
    pub(super) size: u64,
}

impl Superblock {
    /// The bytes of the copy in `group`.
    pub(super) fn encode(&self, group: u64) -> [u8; SIZE] {
        let mut sb = [0; SIZE];
        put_u32(&mut sb, 0x00, self.inodes);
        put_u32(&mut sb, 0x04, low32(self.blocks));
        put_u32(&mut sb, 0x0C, low32(self.free_blocks));
        put_u32(&mut sb, 0x10, self.free_inodes);
        put_u32(&mut sb, 0x18, BLOCK.trailing_zeros() - 10);
        put_u32(&mut sb, 0x1C, BLOCK.trailing_zeros() - 10);
        put_u32(&mut sb, 0x20, low32(GROUP_BLOCKS));
        put_u32(&mut sb, 0x24, low32(GROUP_BLOCKS));
        put_u32(&mut sb, 0x28, self.inodes_per_group);
        put_u32(&mut sb, 0x30, low32(self.time));
        put_u16(&mut sb, 0x36, NO_MOUNT_LIMIT);
        put_u16(&mut sb, 0x38, MAGIC);
        put_u16(&mut sb, 0x3A, STATE_CLEAN);
        put_u16(&mut sb, 0x3C, ERRORS_CONTINUE);
        put_u32(&mut sb, 0x40, low32(self.time));
        put_u32(&mut sb, 0x4C, 1);
        put_u32(&mut sb, 0x54, FIRST_INODE);
        put_u16(&mut sb, 0x58, u16::try_from(INODE_SIZE).expect("256"));
        put_u16(&mut sb, 0x5A, low16(low32(group)));
        put_u32(&mut sb, 0x5C, COMPAT);
        put_u32(&mut sb, 0x60, INCOMPAT);
        put_u32(&mut sb, 0x64, RO_COMPAT);
        sb[0x68..0x78].copy_from_slice(&self.uuid);
        sb[0x78..0x88].copy_from_slice(&self.label);
        sb[0xEC..0xFC].copy_from_slice(&self.hash_seed);
        sb[0xFC] = HALF_MD4;
        put_u16(&mut sb, 0xFE, u16::try_from(DESCRIPTOR_SIZE).expect("64"));
        put_u32(&mut sb, 0x100, MOUNT_OPTIONS);
        put_u32(&mut sb, 0x108, low32(self.time));
        put_u32(&mut sb, 0x150, high32(self.blocks));
        put_u32(&mut sb, 0x158, high32(self.free_blocks));
        put_u16(&mut sb, 0x15C, EXTRA_SIZE);
        put_u16(&mut sb, 0x15E, EXTRA_SIZE);
        put_u32(&mut sb, 0x160, UNSIGNED_HASH);
        sb[0x174] = FLEX_SHIFT;
        sb[0x175] = 1; // the checksums are CRC32C
        let time_high = high32(self.time).to_le_bytes()[0];
        [0x274, 0x276, 0x277].into_iter().for_each(|at| sb[at] = time_high);
        if let Some(journal) = &self.journal {
            put_u32(&mut sb, 0x5C, COMPAT | COMPAT_JOURNAL);
            put_u32(&mut sb, 0xE0, JOURNAL_INODE);
            sb[0xFD] = 1; // the next field repeats the journal's inode
            sb[0x10C..0x148].copy_from_slice(&journal.extents);
            put_u32(&mut sb, 0x148, high32(journal.size));
            put_u32(&mut sb, 0x14C, low32(journal.size));
        }
        let checksum = Checksum::START.add(&sb[..CHECKSUM]).value();
        put_u32(&mut sb, CHECKSUM, checksum);
        sb
    }
}

/// Blocks of the journal of a file system of this many blocks: `mke2fs`'s table up to 64 MiB.
pub(super) fn journal_blocks(blocks: u64) -> u32 {
    let size = match blocks {
        0..32_768 => 1024, // 4 MiB, the least that the kernel takes
        32_768..262_144 => 4096,
        262_144..524_288 => 8192,
        _ => 16_384,
    };
    debug_assert!(size <= MAX_LEN);
    size
}

/// The first block of an empty journal; the others are zeros.
pub(super) fn encode_journal(blocks: u32, uuid: &[u8; 16]) -> [u8; BLOCK] {
    let mut jsb = [0; BLOCK];
    put_be32(&mut jsb, 0x00, 0xC03B_3998); // magic of the journal
    put_be32(&mut jsb, 0x04, 4); // a superblock of version 2
    put_be32(&mut jsb, 0x0C, low32(BLOCK_BYTES));
    put_be32(&mut jsb, 0x10, blocks);
    put_be32(&mut jsb, 0x14, 1); // first block of the log
    put_be32(&mut jsb, 0x18, 1); // first commit expected
    jsb[0x30..0x40].copy_from_slice(uuid);
    put_be32(&mut jsb, 0x40, 1); // one file system uses it
    jsb
}

#[cfg(test)]
mod tests {
    use super::super::facts::Facts;
    use super::*;

    fn example() -> Superblock {
        Superblock {
            blocks: 0x1_0000_1000,
            free_blocks: 0x1_0000_0800,
            inodes: 64 * 131_073,
            free_inodes: 52,
            inodes_per_group: 64,
            uuid: *b"0123456789abcdef",
            hash_seed: *b"fedcba9876543210",
            label: *b"label\0\0\0\0\0\0\0\0\0\0\0",
            time: 0x1_0000_0001,
            journal: Some(JournalCopy { extents: [7; 60], size: 4 << 20 }),
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let superblock = example();
        let facts = Facts::decode(&superblock.encode(0), u64::MAX).unwrap();
        assert_eq!((facts.blocks, facts.free_blocks), (superblock.blocks, superblock.free_blocks));
        assert_eq!((facts.inodes, facts.free_inodes, facts.inodes_per_group), (64 * 131_073, 52, 64));
        assert_eq!((facts.uuid, facts.label, facts.time), (superblock.uuid, superblock.label, superblock.time));
        assert_eq!((facts.block_size, facts.inode_size, facts.descriptor_size), (BLOCK, INODE_SIZE, DESCRIPTOR_SIZE));
        assert!(facts.has_journal && facts.seed == Some(Checksum::seed(&superblock.uuid)));
        let plain = Superblock { journal: None, ..example() };
        assert!(!Facts::decode(&plain.encode(3), u64::MAX).unwrap().has_journal);
    }

    #[test]
    fn a_flipped_bit_is_noticed() {
        let mut bytes = example().encode(0);
        bytes[0x200] ^= 1;
        let error = Facts::decode(&bytes, u64::MAX).unwrap_err();
        assert_eq!(error.to_string(), "damaged ext4 image, at byte 2044: superblock: its checksum is wrong");
    }
}
