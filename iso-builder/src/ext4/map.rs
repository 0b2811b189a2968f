//! Which blocks an inode has, read back: from an extent tree, or from the block pointers of ext2 and ext3.
//!
//! Blocks that were reserved but never written count as holes, as they read as zeros.

use super::error::Error;
use super::extent::{self, Entry, Extent};
use super::format::{get_u32, low32, wide};
use super::inode::{EXTENTS, Record};
use super::volume::Volume;

/// Block numbers in an inode that point to data; the three behind them point to blocks of pointers, of depth 1 to 3.
const DIRECT: usize = 12;

/// The deepest extent tree: five levels hold every block that a file can have.
const MAX_DEPTH: u16 = 5;

/// The extents of an inode, in order and apart, and the blocks of their tree.
#[derive(Debug, Default)]
pub(super) struct Map {
    pub(super) extents: Vec<Extent>,
    pub(super) tree: Vec<u64>,
}

/// Reads the map of an inode that has one: a file, a directory or a long symlink.
pub(super) fn read(volume: &mut Volume<'_>, number: u32, record: &Record) -> Result<Map, Error> {
    match record.flags & EXTENTS {
        0 => from_pointers(volume, number, record),
        _ => from_extents(volume, number, record),
    }
}

fn from_extents(volume: &mut Volume<'_>, number: u32, record: &Record) -> Result<Map, Error> {
    let seed = volume.seed_of(number, record);
    let mut map = Map::default();
    let mut end = 0;
    let (depth, mut waiting) = extent::decode(&record.block).ok_or_else(|| no_node(volume, number, 0))?;
    if depth > MAX_DEPTH {
        return Err(volume.damaged(0, number, format_args!("an extent tree of depth {depth}")));
    }
    let mut waiting: Vec<(u16, Entry)> = waiting.drain(..).rev().map(|entry| (depth, entry)).collect();
    while let Some((depth, entry)) = waiting.pop() {
        match entry {
            Entry::Leaf(extent) => {
                let fits = volume.holds(extent.physical, u64::from(extent.len));
                if !fits || u64::from(extent.logical) < end || extent.len == 0 {
                    let Extent { logical, len, physical } = extent;
                    let what = format_args!("{len} blocks from its block {logical}, at {physical}, can not be");
                    return Err(volume.damaged(physical, number, what));
                }
                end = u64::from(extent.logical) + u64::from(extent.len);
                map.extents.push(extent);
            }
            Entry::Unwritten => {}
            Entry::Index { child, .. } => {
                let block = volume.own_block(child, number)?;
                if seed.is_some_and(|seed| !extent::verify(&block, seed)) {
                    return Err(volume.damaged(child, number, "the checksum of its extent tree is wrong"));
                }
                map.tree.push(child);
                match extent::decode(&block) {
                    Some((below, entries)) if below + 1 == depth => {
                        waiting.extend(entries.into_iter().rev().map(|entry| (below, entry)));
                    }
                    _ => return Err(no_node(volume, number, child)),
                }
            }
        }
    }
    Ok(map)
}

fn no_node(volume: &Volume<'_>, number: u32, place: u64) -> Error {
    volume.damaged(place, number, "what should be a node of its extent tree is none")
}

fn from_pointers(volume: &mut Volume<'_>, number: u32, record: &Record) -> Result<Map, Error> {
    let mut map = Map::default();
    let per_block = wide(volume.facts.block_size / 4);
    let blocks = volume.facts.blocks_of(record.size);
    let pointer = |at: usize| (get_u32(&record.block, 4 * at), at);
    let direct = (0..DIRECT).map(|at| (pointer(at).0, 0, wide(at)));
    let starts = [wide(DIRECT), wide(DIRECT) + per_block, wide(DIRECT) + per_block + per_block * per_block];
    let deeper = (1u32..).zip(starts).map(|(depth, start)| (pointer(DIRECT - 1 + depth as usize).0, depth, start));
    let mut waiting: Vec<(u32, u32, u64)> = direct.chain(deeper).collect();
    waiting.reverse();
    while let Some((place, depth, logical)) = waiting.pop() {
        if place == 0 || logical >= blocks {
            continue;
        }
        if depth == 0 {
            push(volume, number, &mut map.extents, logical, u64::from(place))?;
            continue;
        }
        let block = volume.own_block(u64::from(place), number)?;
        map.tree.push(u64::from(place));
        let step = per_block.pow(depth - 1);
        let below = (0..volume.facts.block_size / 4).rev();
        waiting.extend(below.map(|at| (get_u32(&block, 4 * at), depth - 1, logical + wide(at) * step)));
    }
    Ok(map)
}

/// Adds a block behind the last extent, or to it.
fn push(volume: &Volume<'_>, number: u32, extents: &mut Vec<Extent>, logical: u64, physical: u64) -> Result<(), Error> {
    let Some(start) = u32::try_from(logical).ok().filter(|_| volume.holds(physical, 1)) else {
        return Err(volume.damaged(physical, number, format_args!("its block {logical} can not be there")));
    };
    match extents.last_mut() {
        Some(last)
            if u64::from(last.logical + last.len) == logical && last.physical + u64::from(last.len) == physical =>
        {
            last.len += 1;
        }
        _ => extents.push(Extent { logical: start, len: low32(1), physical }),
    }
    Ok(())
}
