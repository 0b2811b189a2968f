//! Where everything lies: how large the file system is, and the place of every block of every inode.
//!
//! Blocks are handed out once, from the front: the journal, then inode after inode in order of number, each with its
//! xattr block, its data and its extent tree. So what is in use of any group is a run at its start. Pure: reads no
//! file, writes nothing.

use std::num::NonZeroU32;

use super::Size;
use super::error::Error;
use super::extent::{Extent, MAX_LEN, tree_blocks};
use super::format::{BLOCK_BYTES, FIRST_INODE, GROUP_BLOCKS, wide};
use super::geometry::Geometry;
use super::superblock::journal_blocks;
use super::survey::{Need, Needs, Run};

/// An inode for this many blocks besides those in use: `mke2fs`'s ratio of one for 16 KiB.
const BLOCKS_PER_INODE: u64 = 4;

/// Largest image: block numbers of 32 bits, which every tool understands. 16 TiB.
const MAX_BLOCKS: u64 = 1 << 32;

/// A complete plan of an image.
#[derive(Debug)]
pub(super) struct Layout {
    /// Bytes of the image.
    pub(super) size: u64,
    pub(super) geometry: Geometry,
    /// The journal's extents; empty without one.
    pub(super) journal: Vec<Extent>,
    /// Inodes in use, the reserved ones among them.
    used_inodes: u64,
    /// Where the blocks of inodes start, and where they end.
    start: Front,
    end: Front,
}

/// Where an inode's blocks lie.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) xattr: Option<u64>,
    pub(super) extents: Vec<Extent>,
    /// Blocks of the extent tree.
    pub(super) tree: Vec<u64>,
}

impl Place {
    /// All blocks of the inode, in units of 512 bytes.
    pub(super) fn sectors(&self) -> u64 {
        let data: u64 = self.extents.iter().map(|extent| u64::from(extent.len)).sum();
        (data + wide(self.tree.len()) + u64::from(self.xattr.is_some())) * (BLOCK_BYTES / 512)
    }
}

/// Plans an image of the size asked for.
pub(super) fn plan(needs: &Needs, size: Size, journal: bool) -> Result<Layout, Error> {
    let too_large = |size| Error::TooLarge { size, limit: MAX_BLOCKS * BLOCK_BYTES };
    match size {
        Size::Exactly(size) if size / BLOCK_BYTES > MAX_BLOCKS => Err(too_large(size)),
        Size::Exactly(size) => match attempt(needs, size / BLOCK_BYTES, journal) {
            Ok(layout) => Ok(Layout { size, ..layout }),
            Err(_) => {
                let fitting = plan(needs, Size::Fit { spare: 0 }, journal)?;
                Err(Error::TooSmall { size, needed: fitting.size })
            }
        },
        Size::Fit { spare } => {
            let spare = spare.div_ceil(BLOCK_BYTES);
            let mut blocks = spare.saturating_add(1);
            loop {
                if blocks > MAX_BLOCKS {
                    return Err(too_large(blocks.saturating_mul(BLOCK_BYTES)));
                }
                blocks = match attempt(needs, blocks, journal) {
                    Ok(layout) if layout.free_blocks() >= spare => return Ok(layout),
                    Ok(layout) => blocks + spare - layout.free_blocks(),
                    Err(missing) => blocks + missing,
                }
            }
        }
    }
}

impl Layout {
    /// Blocks in use of a group, from its start.
    pub(super) fn used(&self, group: u64) -> u64 {
        self.end.used(&self.geometry, group)
    }

    pub(super) fn free_blocks(&self) -> u64 {
        (0..self.geometry.groups).map(|group| self.geometry.len(group) - self.used(group)).sum()
    }

    /// Inodes in use, the reserved ones among them.
    pub(super) fn used_inodes(&self) -> u64 {
        self.used_inodes
    }

    /// The places of the inodes, to be asked for in order. They are not kept but found again: images have millions.
    pub(super) fn places(&self) -> Places<'_> {
        Places { geometry: &self.geometry, front: self.start.clone() }
    }

    /// The place of an inode whose blocks were looked for from [`Places::front`] on.
    pub(super) fn place(&self, front: NonZeroU32, need: Need<'_>) -> Place {
        let front = u64::from(front.get());
        let group = front / GROUP_BLOCKS;
        let next = if group < self.geometry.groups { self.geometry.overhead(group) } else { 0 };
        Front { group, next: next.max(front % GROUP_BLOCKS), missing: 0 }.place(&self.geometry, need)
    }
}

/// Lays everything out in an image of this many blocks, or says how many more it takes at least.
fn attempt(needs: &Needs, blocks: u64, journal: bool) -> Result<Layout, u64> {
    // The reserved inodes, and all others; the root is a reserved one.
    let used_inodes = u64::from(FIRST_INODE) - 1 + wide(needs.len()) - 1;
    let inodes = used_inodes + blocks / BLOCKS_PER_INODE;
    let geometry = Geometry::new(blocks, inodes).map_err(|wanted| wanted - blocks)?;
    let mut front = Front { group: 0, next: geometry.overhead(0), missing: 0 };
    let log = Run { start: 0, len: journal_blocks(blocks) };
    let journal = if journal { front.take_run(&geometry, log) } else { Vec::new() };
    let mut places = Places { geometry: &geometry, front: front.clone() };
    (0..needs.len()).for_each(|place| drop(places.next(needs.get(place))));
    let end = places.front;
    match end.missing {
        0 => Ok(Layout { size: blocks * BLOCK_BYTES, geometry, journal, used_inodes, start: front, end }),
        missing => Err(missing),
    }
}

/// Hands out the places of inodes, in order.
#[derive(Debug)]
pub(super) struct Places<'a> {
    geometry: &'a Geometry,
    front: Front,
}

impl Places<'_> {
    pub(super) fn next(&mut self, need: Need<'_>) -> Place {
        self.front.place(self.geometry, need)
    }

    /// The block from which on those of the next inode are looked for; enough to find its place again, out of order.
    pub(super) fn front(&self) -> NonZeroU32 {
        let block = self.front.group * GROUP_BLOCKS + self.front.next;
        // the first block is the superblock's; an inode behind the last one has no blocks
        u32::try_from(block).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MAX)
    }
}

/// How far blocks are handed out.
#[derive(Clone, Debug)]
struct Front {
    group: u64,
    /// The next block within the group.
    next: u64,
    /// Blocks that were asked for when there were no more.
    missing: u64,
}

impl Front {
    fn place(&mut self, geometry: &Geometry, need: Need<'_>) -> Place {
        let xattr = need.xattr_block.then(|| self.take(geometry, 1).0);
        let mut extents: Vec<Extent> = Vec::with_capacity(need.runs.len());
        need.runs.iter().for_each(|&run| extents.append(&mut self.take_run(geometry, run)));
        let tree = (0..tree_blocks(extents.len())).map(|_| self.take(geometry, 1).0).collect();
        Place { xattr, extents, tree }
    }

    /// Places for a run: more than one extent when a group ends, or the most that an extent counts.
    fn take_run(&mut self, geometry: &Geometry, run: Run) -> Vec<Extent> {
        let mut extents: Vec<Extent> = Vec::new();
        let mut done = 0;
        while done < run.len {
            let (physical, len) = self.take(geometry, u64::from((run.len - done).min(MAX_LEN)));
            let len = u32::try_from(len).expect("at most MAX_LEN");
            match extents.last_mut() {
                Some(last) if last.physical + u64::from(last.len) == physical && last.len + len <= MAX_LEN => {
                    last.len += len;
                }
                _ => extents.push(Extent { logical: run.start + done, len, physical }),
            }
            done += len;
        }
        extents
    }

    /// Up to `most` blocks in a row: the first and how many. When there are none left, what is missing is counted.
    fn take(&mut self, geometry: &Geometry, most: u64) -> (u64, u64) {
        while self.group < geometry.groups && self.next == geometry.len(self.group) {
            self.group += 1;
            self.next = if self.group < geometry.groups { geometry.overhead(self.group) } else { 0 };
        }
        if self.group == geometry.groups {
            self.missing += most;
            return (self.missing * GROUP_BLOCKS, most);
        }
        let len = most.min(geometry.len(self.group) - self.next);
        let first = geometry.start(self.group) + self.next;
        self.next += len;
        (first, len)
    }

    fn used(&self, geometry: &Geometry, group: u64) -> u64 {
        match group.cmp(&self.group) {
            std::cmp::Ordering::Less => geometry.len(group),
            std::cmp::Ordering::Equal => self.next,
            std::cmp::Ordering::Greater => geometry.overhead(group),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files<const N: usize>(lengths: [u32; N]) -> Needs {
        let mut needs = Needs::default();
        lengths.into_iter().for_each(|len| needs.push(false, [Run { start: 0, len }]));
        needs
    }

    fn places(layout: &Layout, needs: &Needs) -> Vec<Place> {
        let mut places = layout.places();
        let next = |place| {
            let front = places.front();
            let found = places.next(needs.get(place));
            assert_eq!(layout.place(front, needs.get(place)), found);
            found
        };
        (0..needs.len()).map(next).collect()
    }

    fn every_block(layout: &Layout, places: &[Place]) -> Vec<u64> {
        let extents = places.iter().flat_map(|place| &place.extents).chain(&layout.journal);
        let data = extents.flat_map(|extent| extent.physical..extent.physical + u64::from(extent.len));
        let others = places.iter().flat_map(|place| place.tree.iter().copied().chain(place.xattr));
        let mut blocks: Vec<u64> = data.chain(others).collect();
        blocks.sort_unstable();
        blocks
    }

    #[test]
    fn no_block_is_given_twice_nor_metadata_given_away() {
        let mut needs = files([1, 100_000]);
        needs.push(true, (0..2000).map(|n| Run { start: 2 * n, len: 1 }));
        needs.push(false, [Run { start: 0, len: 40_000 }]);
        let layout = plan(&needs, Size::Fit { spare: 1 << 30 }, true).unwrap();
        let places = places(&layout, &needs);
        let blocks = every_block(&layout, &places);
        assert!(blocks.windows(2).all(|pair| pair[0] < pair[1]));
        for block in blocks {
            let group = block / GROUP_BLOCKS;
            let within = block % GROUP_BLOCKS;
            assert!(within >= layout.geometry.overhead(group) && within < layout.used(group));
        }
        assert_eq!(places[1].extents.iter().map(|extent| extent.len).sum::<u32>(), 100_000);
        assert!(places[1].extents.iter().all(|extent| extent.len <= MAX_LEN));
        assert_eq!(places[2].tree.len(), tree_blocks(2000));
        assert!(layout.journal.len() <= 4);
    }

    #[test]
    fn what_fits_is_what_exactly_needs() {
        for blocks in [1, 500, 31_000, 32_000, 33_000, 70_000, 600_000] {
            for journal in [false, true] {
                let needs = files([1, blocks]);
                let Layout { size, .. } = plan(&needs, Size::Fit { spare: 0 }, journal).unwrap();
                assert!(plan(&needs, Size::Exactly(size), journal).is_ok(), "{blocks} blocks");
                let asked = u64::from(blocks) * BLOCK_BYTES;
                match plan(&needs, Size::Exactly(asked), journal) {
                    Err(Error::TooSmall { size: given, needed }) => assert_eq!((given, needed), (asked, size)),
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    #[test]
    fn spare_room_is_there() {
        for spare in [1, 1 << 20, 1 << 27, 1 << 33] {
            let layout = plan(&files([1, 9]), Size::Fit { spare }, true).unwrap();
            assert!(layout.free_blocks() * BLOCK_BYTES >= spare);
            assert!(layout.geometry.inodes() - layout.used_inodes() >= spare / 16_384);
        }
    }

    #[test]
    fn many_small_files_get_their_inodes() {
        let mut needs = Needs::default();
        (0..200_000).for_each(|_| needs.push(false, []));
        let layout = plan(&needs, Size::Fit { spare: 0 }, false).unwrap();
        assert!(layout.geometry.inodes() >= 200_009);
    }

    #[test]
    fn beyond_the_limit_is_an_error() {
        let error = plan(&files([1]), Size::Exactly((1 << 44) + 4096), false).unwrap_err();
        assert!(matches!(error, Error::TooLarge { .. }));
        let error = plan(&files([1]), Size::Fit { spare: u64::MAX }, false).unwrap_err();
        assert!(matches!(error, Error::TooLarge { .. }));
    }
}
