//! What the superblock of any ext2, ext3 or ext4 file system says, whoever made it.
//!
//! Decides which file systems are read: any block size and every feature that does not change how files are found. Ours
//! are a small part of them (see `superblock`). All numbers are checked against each other here, so that arithmetic on
//! them needs no care later. Source: the kernel's Documentation/filesystems/ext4/super.rst.

use super::error::Error;
use super::format::{Checksum, get_u16, get_u32, index, wide};
use super::superblock::{CHECKSUM, MAGIC, OFFSET, SIZE};

/// Features without which a reader may not open a file system, by their bit of `s_feature_incompat`. Those that only
/// some files use are refused file by file.
const KNOWN: u32 = FILETYPE
    | RECOVER
    | META_BG
    | EXTENTS
    | WIDE
    | MMP
    | FLEX_BG
    | EA_INODE
    | CSUM_SEED
    | LARGE_DIR
    | INLINE_DATA
    | ENCRYPT
    | CASEFOLD;
pub(super) const RECOVER: u32 = 0x4;
const JOURNAL_DEVICE: u32 = 0x8;
const FILETYPE: u32 = 0x2;
const META_BG: u32 = 0x10;
const EXTENTS: u32 = 0x40;
const WIDE: u32 = 0x80;
const MMP: u32 = 0x100;
const FLEX_BG: u32 = 0x200;
const EA_INODE: u32 = 0x400;
const CSUM_SEED: u32 = 0x2000;
const LARGE_DIR: u32 = 0x4000;
const INLINE_DATA: u32 = 0x8000;
const ENCRYPT: u32 = 0x1_0000;
const CASEFOLD: u32 = 0x2_0000;

/// Bits of `s_feature_ro_compat` and `s_feature_compat` that a reader has to know.
const SPARSE_SUPER: u32 = 0x1;
pub(super) const METADATA_CSUM: u32 = 0x400;
const SPARSE_SUPER_2: u32 = 0x200;

/// A file system in numbers that fit together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// Bytes: a power of two from 1024 to 65536.
    pub(super) block_size: usize,
    pub(super) blocks: u64,
    pub(super) free_blocks: u64,
    /// The block of the first group's start: 1 if blocks are of 1 KiB, else 0.
    pub(super) first_block: u64,
    pub(super) blocks_per_group: u64,
    /// Bits in use of a block bitmap.
    pub(super) clusters_per_group: u64,
    pub(super) groups: u64,
    pub(super) inodes: u32,
    pub(super) free_inodes: u32,
    pub(super) inodes_per_group: u32,
    pub(super) inode_size: usize,
    /// The first inode that a directory may name besides the root.
    pub(super) first_inode: u32,
    pub(super) descriptor_size: usize,
    /// From this block of descriptors on, each lies in the groups that it describes.
    first_meta_block: Option<u64>,
    sparse: Sparse,
    pub(super) uuid: [u8; 16],
    pub(super) label: [u8; 16],
    /// When it was made, seconds since 1970.
    pub(super) time: u64,
    pub(super) has_journal: bool,
    /// The inode of a journal that holds changes.
    pub(super) unreplayed: Option<u32>,
    /// The start of all checksums, if there are any.
    pub(super) seed: Option<Checksum>,
}

/// Which groups start with a copy of the superblock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sparse {
    All,
    Powers,
    These(u32, u32),
}

impl Facts {
    /// Reads a superblock of an image of `size` bytes.
    pub(super) fn decode(sb: &[u8; SIZE], size: u64) -> Result<Facts, Error> {
        let wrong = |at: usize, what: &str| Err(Error::damaged(wide(OFFSET + at), format_args!("superblock: {what}")));
        if get_u16(sb, 0x38) != MAGIC {
            return wrong(0x38, "this is no ext4 file system");
        }
        let [compat, incompat, ro_compat] = [0x5C, 0x60, 0x64].map(|at| get_u32(sb, at));
        // A superblock of revision 0 has no features; what lies in their place means nothing.
        let [compat, incompat, ro_compat] = if get_u32(sb, 0x4C) == 0 { [0; 3] } else { [compat, incompat, ro_compat] };
        known(incompat)?;
        let has_checksums = ro_compat & METADATA_CSUM != 0;
        if has_checksums && Checksum::START.add(&sb[..CHECKSUM]).value() != get_u32(sb, CHECKSUM) {
            return wrong(CHECKSUM, "its checksum is wrong");
        }
        let array = |at: usize| -> [u8; 16] { std::array::from_fn(|byte| sb[at + byte]) };
        let uuid = array(0x68);
        let seed = match incompat & CSUM_SEED {
            0 => Checksum::seed(&uuid),
            _ => Checksum::resume(get_u32(sb, 0x270)),
        };

        let shift = get_u32(sb, 0x18);
        if shift > 6 {
            return wrong(0x18, "blocks are larger than 64 KiB");
        }
        let block_size = 1024usize << shift;
        let high = |at| if incompat & WIDE == 0 { 0 } else { u64::from(get_u32(sb, at)) << 32 };
        let blocks = high(0x150) | u64::from(get_u32(sb, 0x04));
        let first_block = u64::from(get_u32(sb, 0x14));
        let blocks_per_group = u64::from(get_u32(sb, 0x20));
        let clusters_per_group = u64::from(get_u32(sb, 0x24));
        let inodes_per_group = get_u32(sb, 0x28);
        let bits = 8 * wide(block_size);
        if first_block > 1 || blocks <= first_block {
            return wrong(0x04, "it has no blocks");
        }
        if blocks.checked_mul(wide(block_size)).is_none_or(|bytes| bytes > size) {
            return wrong(0x04, "the image is shorter than its file system");
        }
        // Clusters of several blocks, the feature `bigalloc`, have a bit for each cluster.
        let ratio = 1u64 << get_u32(sb, 0x1C).saturating_sub(shift).min(32);
        if blocks_per_group == 0 || blocks_per_group > bits * ratio {
            return wrong(0x20, "groups have an impossible number of blocks");
        }
        if inodes_per_group == 0 || u64::from(inodes_per_group) > bits {
            return wrong(0x28, "groups have an impossible number of inodes");
        }
        let groups = (blocks - first_block).div_ceil(blocks_per_group);
        let inodes = get_u32(sb, 0x00);
        if u64::from(inodes) > groups.saturating_mul(u64::from(inodes_per_group)) {
            return wrong(0x00, "it has more inodes than its groups");
        }
        let revised = get_u32(sb, 0x4C) != 0;
        let inode_size = if revised { usize::from(get_u16(sb, 0x58)) } else { 128 };
        if !inode_size.is_power_of_two() || !(128..=block_size).contains(&inode_size) {
            return wrong(0x58, "inodes have an impossible size");
        }
        let descriptor_size = if incompat & WIDE == 0 { 32 } else { usize::from(get_u16(sb, 0xFE)) };
        if !descriptor_size.is_power_of_two() || !(32..=1024).contains(&descriptor_size) {
            return wrong(0xFE, "group descriptors have an impossible size");
        }
        Ok(Facts {
            block_size,
            blocks,
            free_blocks: high(0x158) | u64::from(get_u32(sb, 0x0C)),
            first_block,
            blocks_per_group,
            clusters_per_group: clusters_per_group.min(bits),
            groups,
            inodes,
            free_inodes: get_u32(sb, 0x10),
            inodes_per_group,
            inode_size,
            first_inode: if revised { get_u32(sb, 0x54).max(3) } else { 11 },
            descriptor_size,
            first_meta_block: (incompat & META_BG != 0).then(|| u64::from(get_u32(sb, 0x104))),
            sparse: match (compat & SPARSE_SUPER_2, ro_compat & SPARSE_SUPER) {
                (0, 0) => Sparse::All,
                (0, _) => Sparse::Powers,
                _ => Sparse::These(get_u32(sb, 0x24C), get_u32(sb, 0x250)),
            },
            uuid,
            label: array(0x78),
            time: u64::from(sb[0x276]) << 32 | u64::from(get_u32(sb, 0x108)),
            has_journal: compat & 0x4 != 0,
            unreplayed: (incompat & RECOVER != 0).then(|| get_u32(sb, 0xE0)),
            seed: has_checksums.then_some(seed),
        })
    }

    /// Where the descriptor of a group lies, bytes from the start of the image.
    pub(super) fn descriptor_at(&self, group: u64) -> u64 {
        let per_block = wide(self.block_size / self.descriptor_size);
        let (number, within) = (group / per_block, group % per_block * wide(self.descriptor_size));
        let block = match self.first_meta_block {
            Some(first) if number >= first => {
                let leader = number * per_block;
                self.first_block + leader * self.blocks_per_group + u64::from(self.has_superblock(leader))
            }
            _ => self.first_block + 1 + number,
        };
        block * wide(self.block_size) + within
    }

    /// Where an inode lies within its group's table, bytes; and the group.
    pub(super) fn inode_place(&self, number: u32) -> (u64, u64) {
        let place = number - 1;
        let within = u64::from(place % self.inodes_per_group) * wide(self.inode_size);
        (u64::from(place / self.inodes_per_group), within)
    }

    fn has_superblock(&self, group: u64) -> bool {
        match self.sparse {
            Sparse::All => true,
            Sparse::Powers => super::geometry::Geometry::has_superblock(group),
            Sparse::These(first, second) => group == 0 || [first, second].map(u64::from).contains(&group),
        }
    }

    /// A length in blocks, whole ones.
    pub(super) fn blocks_of(&self, bytes: u64) -> u64 {
        bytes.div_ceil(wide(self.block_size))
    }

    /// Bytes of an inode bitmap and of a block bitmap that its checksum covers.
    pub(super) fn bitmap_bytes(&self) -> (usize, usize) {
        (index(u64::from(self.inodes_per_group / 8)), index(self.clusters_per_group / 8))
    }
}

/// Refuses what can not be read.
fn known(incompat: u32) -> Result<(), Error> {
    let feature = match incompat & !KNOWN {
        0 => return Ok(()),
        bits if bits & JOURNAL_DEVICE != 0 => "journal_dev".to_owned(),
        bits if bits & 0x1 != 0 => "compression".to_owned(),
        bits if bits & 0x1000 != 0 => "dirdata".to_owned(),
        bits => format!("incompatible {:#x}", bits & bits.wrapping_neg()),
    };
    Err(Error::Feature { feature })
}
