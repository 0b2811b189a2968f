//! Where a file system of a given size keeps its own metadata: groups, superblock copies, bitmaps, inode tables.
//!
//! Groups are bundled by [`FLEX_GROUPS`]; the bitmaps and inode tables of a bundle lie together in its first group.
//! So the metadata of any group is a run at its start, and what is free in it is the one run behind. Decides nothing
//! about files.

use super::format::{BLOCK_BYTES, DESCRIPTOR_SIZE, GROUP_BLOCKS, INODES_PER_BLOCK, wide};

/// Groups whose bitmaps and inode tables lie together: `mke2fs`'s number, and a power of two as the format demands.
pub(super) const FLEX_GROUPS: u64 = 16;

/// The logarithm of [`FLEX_GROUPS`], as the superblock has it.
pub(super) const FLEX_SHIFT: u8 = 4;

/// Most inodes of a group. With more, the metadata of a bundle would outgrow its first group and meet the superblock's
/// copy in the second: 16 * (28672 / 16 + 2) = 28704 of 32768 blocks, which leaves 4064 for descriptors (2048 at 16 TiB).
const MAX_GROUP_INODES: u64 = 28672;

/// A last group with fewer blocks than this beyond its own metadata is given up, as `mke2fs` does.
const LEAST_LAST_GROUP: u64 = 50;

/// The shape of a file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Geometry {
    /// Blocks in use by the groups; may be a little less than asked, see [`LEAST_LAST_GROUP`].
    pub(super) blocks: u64,
    pub(super) groups: u64,
    pub(super) inodes_per_group: u32,
}

impl Geometry {
    /// Shapes `blocks` blocks so that there are at least `inodes` inodes, or says how many blocks it would take.
    pub(super) fn new(blocks: u64, inodes: u64) -> Result<Geometry, u64> {
        let least_groups = inodes.div_ceil(MAX_GROUP_INODES);
        let mut groups = blocks.div_ceil(GROUP_BLOCKS);
        loop {
            if groups == 0 || groups < least_groups {
                let wanted = least_groups.saturating_sub(1) * GROUP_BLOCKS + 2 * LEAST_LAST_GROUP;
                return Err(wanted.max(blocks + LEAST_LAST_GROUP));
            }
            let per_group = inodes.div_ceil(groups).next_multiple_of(u64::from(INODES_PER_BLOCK)).max(16);
            let geometry = Geometry {
                blocks: blocks.min(groups * GROUP_BLOCKS),
                groups,
                inodes_per_group: u32::try_from(per_group).expect("at most MAX_GROUP_INODES"),
            };
            let last = groups - 1;
            if geometry.len(last) >= geometry.overhead(last) + LEAST_LAST_GROUP {
                return Ok(geometry);
            }
            groups -= 1;
        }
    }

    pub(super) fn inodes(&self) -> u64 {
        self.groups * u64::from(self.inodes_per_group)
    }

    /// The first block of a group.
    pub(super) fn start(&self, group: u64) -> u64 {
        group * GROUP_BLOCKS
    }

    /// Blocks of a group; only the last may be short.
    pub(super) fn len(&self, group: u64) -> u64 {
        GROUP_BLOCKS.min(self.blocks - self.start(group))
    }

    /// Whether a group starts with a copy of the superblock and of all descriptors: 0, 1, and powers of 3, 5 and 7.
    pub(super) fn has_superblock(group: u64) -> bool {
        let is_power = |base: u64| {
            let mut power = base;
            while power < group {
                power *= base;
            }
            power == group
        };
        group <= 1 || [3, 5, 7].into_iter().any(is_power)
    }

    /// Blocks of one copy of the group descriptors.
    pub(super) fn descriptor_blocks(&self) -> u64 {
        (self.groups * wide(DESCRIPTOR_SIZE)).div_ceil(BLOCK_BYTES)
    }

    /// Blocks of one group's inode table.
    pub(super) fn table_blocks(&self) -> u64 {
        u64::from(self.inodes_per_group / INODES_PER_BLOCK)
    }

    /// Blocks of metadata at the start of a group, its own and that of its bundle.
    pub(super) fn overhead(&self, group: u64) -> u64 {
        let bundle = match self.leads_bundle(group) {
            true => self.bundle_len(group) * (2 + self.table_blocks()),
            false => 0,
        };
        self.copies(group) + bundle
    }

    /// Whether the bitmaps and tables of its bundle lie in this group.
    pub(super) fn leads_bundle(&self, group: u64) -> bool {
        group.is_multiple_of(FLEX_GROUPS)
    }

    pub(super) fn block_bitmap(&self, group: u64) -> u64 {
        self.bundle_start(group) + group % FLEX_GROUPS
    }

    pub(super) fn inode_bitmap(&self, group: u64) -> u64 {
        self.block_bitmap(group) + self.bundle_len(group)
    }

    /// The first block of a group's inode table.
    pub(super) fn inode_table(&self, group: u64) -> u64 {
        let bitmaps = 2 * self.bundle_len(group);
        self.bundle_start(group) + bitmaps + group % FLEX_GROUPS * self.table_blocks()
    }

    /// Groups in the bundle of `group`.
    fn bundle_len(&self, group: u64) -> u64 {
        let first = group - group % FLEX_GROUPS;
        FLEX_GROUPS.min(self.groups - first)
    }

    /// The first block of the metadata of the bundle of `group`.
    fn bundle_start(&self, group: u64) -> u64 {
        let first = group - group % FLEX_GROUPS;
        self.start(first) + self.copies(first)
    }

    /// Blocks of superblock and descriptors at the start of a group.
    fn copies(&self, group: u64) -> u64 {
        match Geometry::has_superblock(group) {
            true => 1 + self.descriptor_blocks(),
            false => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_of_the_superblock_are_sparse() {
        let with: Vec<u64> = (0..130).filter(|&group| Geometry::has_superblock(group)).collect();
        assert_eq!(with, [0, 1, 3, 5, 7, 9, 25, 27, 49, 81, 125]);
    }

    #[test]
    fn metadata_of_a_bundle_fits_its_first_group_up_to_16_tib() {
        for blocks in [20 * GROUP_BLOCKS, 1 << 32] {
            let groups = blocks / GROUP_BLOCKS;
            let geometry = Geometry::new(blocks, groups * MAX_GROUP_INODES).unwrap();
            assert_eq!(u64::from(geometry.inodes_per_group), MAX_GROUP_INODES);
            for group in 0..groups {
                assert!(geometry.overhead(group) < GROUP_BLOCKS, "group {group} of {groups}");
            }
            let end = geometry.inode_table(15) + geometry.table_blocks();
            assert_eq!(end, geometry.overhead(0));
        }
    }

    #[test]
    fn a_last_group_too_short_for_its_metadata_is_given_up() {
        let geometry = Geometry::new(GROUP_BLOCKS + 40, 100).unwrap();
        assert_eq!((geometry.blocks, geometry.groups), (GROUP_BLOCKS, 1));
        let geometry = Geometry::new(GROUP_BLOCKS + 60, 100).unwrap();
        assert_eq!((geometry.blocks, geometry.groups), (GROUP_BLOCKS + 60, 2));
    }

    #[test]
    fn many_inodes_ask_for_more_groups() {
        let wanted = Geometry::new(1000, 3 * MAX_GROUP_INODES).unwrap_err();
        assert!(wanted > 2 * GROUP_BLOCKS);
        assert!(Geometry::new(0, 10).unwrap_err() > 0);
    }
}
