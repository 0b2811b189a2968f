//! Extent trees: which blocks of a file lie where, as the 60 bytes in an inode and the blocks below it.
//!
//! Decides the shape of the tree (every node full but the last of its level). Where its blocks lie is told by `layout`.

use super::format::{BLOCK, Checksum, get_u16, get_u32, high32, low16, low32, put_u16, put_u32};

/// Most blocks in one extent; a larger count would mean "unwritten".
pub(super) const MAX_LEN: u32 = 32768;

/// Entries that fit in an inode: (60 bytes - header) / 12.
const ROOT_ENTRIES: usize = 4;

/// Entries that fit in a block, with room for the checksum behind them: (4096 - 12) / 12.
const BLOCK_ENTRIES: usize = 340;

const MAGIC: u16 = 0xF30A;

/// Header and entries are of this size.
const ENTRY_SIZE: usize = 12;

/// Where the checksum of a tree's block lies: behind its last entry.
const TAIL: usize = ENTRY_SIZE * (1 + BLOCK_ENTRIES);

/// `len` blocks of a file from its block `logical`, at block `physical` of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) logical: u32,
    pub(super) len: u32,
    pub(super) physical: u64,
}

/// How many blocks a tree of this many extents has, besides the part in the inode.
pub(super) fn tree_blocks(extents: usize) -> usize {
    let mut total = 0;
    let mut level = extents;
    while level > ROOT_ENTRIES {
        level = level.div_ceil(BLOCK_ENTRIES);
        total += level;
    }
    total
}

/// The tree of a file: the part in the inode, and each of `blocks` with its bytes, checksummed for the inode.
pub(super) fn encode(extents: &[Extent], blocks: &[u64], inode: Checksum) -> ([u8; 60], Vec<(u64, [u8; BLOCK])>) {
    let mut places = blocks.iter().copied();
    let mut nodes = Vec::with_capacity(blocks.len());
    let mut level: Vec<Entry> = extents.iter().map(|&extent| Entry::Leaf(extent)).collect();
    let mut depth = 0;
    while level.len() > ROOT_ENTRIES {
        let mut above = Vec::with_capacity(level.len().div_ceil(BLOCK_ENTRIES));
        for entries in level.chunks(BLOCK_ENTRIES) {
            let mut bytes = [0; BLOCK];
            put_node(&mut bytes, entries, BLOCK_ENTRIES, depth);
            let checksum = inode.add(&bytes[..TAIL]).value();
            put_u32(&mut bytes, TAIL, checksum);
            let place = places.next().expect("layout counted with tree_blocks");
            nodes.push((place, bytes));
            above.push(Entry::Index { logical: entries[0].logical(), child: place });
        }
        level = above;
        depth += 1;
    }
    let mut root = [0; 60];
    put_node(&mut root, &level, ROOT_ENTRIES, depth);
    (root, nodes)
}

/// An entry of a node read back.
#[derive(Clone, Copy, Debug)]
pub(super) enum Entry {
    Leaf(Extent),
    /// Blocks that are reserved and read as zeros; not made here.
    Unwritten,
    Index {
        logical: u32,
        child: u64,
    },
}

impl Entry {
    fn logical(self) -> u32 {
        match self {
            Entry::Leaf(extent) => extent.logical,
            Entry::Unwritten => 0,
            Entry::Index { logical, .. } => logical,
        }
    }
}

/// The depth and entries of a node, in an inode or a block; `None` when it is no node.
pub(super) fn decode(bytes: &[u8]) -> Option<(u16, Vec<Entry>)> {
    let count = usize::from(get_u16(bytes, 2));
    let depth = get_u16(bytes, 6);
    if get_u16(bytes, 0) != MAGIC || ENTRY_SIZE * (1 + count) > bytes.len() {
        return None;
    }
    let entry = |at: usize| match depth {
        0 if u32::from(get_u16(bytes, at + 4)) > MAX_LEN => Entry::Unwritten,
        0 => Entry::Leaf(Extent {
            logical: get_u32(bytes, at),
            len: u32::from(get_u16(bytes, at + 4)),
            physical: u64::from(get_u16(bytes, at + 6)) << 32 | u64::from(get_u32(bytes, at + 8)),
        }),
        _ => Entry::Index {
            logical: get_u32(bytes, at),
            child: u64::from(get_u16(bytes, at + 8)) << 32 | u64::from(get_u32(bytes, at + 4)),
        },
    };
    Some((depth, (1..=count).map(|place| entry(ENTRY_SIZE * place)).collect()))
}

/// Whether the checksum behind the entries of a tree's block is right.
pub(super) fn verify(block: &[u8], inode: Checksum) -> bool {
    let tail = ENTRY_SIZE * (1 + usize::from(get_u16(block, 4)));
    tail + 4 <= block.len() && get_u32(block, tail) == inode.add(&block[..tail]).value()
}

fn put_node(bytes: &mut [u8], entries: &[Entry], most: usize, depth: u16) {
    let count = |n: usize| u16::try_from(n).expect("at most BLOCK_ENTRIES");
    put_u16(bytes, 0, MAGIC);
    put_u16(bytes, 2, count(entries.len()));
    put_u16(bytes, 4, count(most));
    put_u16(bytes, 6, depth);
    for (entry, at) in entries.iter().zip((ENTRY_SIZE..).step_by(ENTRY_SIZE)) {
        put_u32(bytes, at, entry.logical());
        match *entry {
            Entry::Leaf(extent) => {
                put_u16(bytes, at + 4, low16(extent.len));
                put_u16(bytes, at + 6, low16(high32(extent.physical)));
                put_u32(bytes, at + 8, low32(extent.physical));
            }
            Entry::Unwritten => {}
            Entry::Index { child, .. } => {
                put_u32(bytes, at + 4, low32(child));
                put_u16(bytes, at + 8, low16(high32(child)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_grows_by_levels() {
        let cases = [(0, 0), (4, 0), (5, 1), (340, 1), (341, 2), (1360, 4), (1361, 5 + 1), (462_400, 1360 + 4)];
        for (extents, blocks) in cases {
            assert_eq!(tree_blocks(extents), blocks, "{extents} extents");
        }
        assert_eq!(tree_blocks(462_401), 1361 + 5 + 1);
    }

    #[test]
    fn bytes_of_a_root_with_one_extent() {
        let extent = Extent { logical: 7, len: 32768, physical: 0x1_2345_6789 };
        let (root, blocks) = encode(&[extent], &[], Checksum::START);
        assert!(blocks.is_empty());
        assert_eq!(&root[..12], b"\x0A\xF3\x01\0\x04\0\0\0\0\0\0\0");
        assert_eq!(&root[12..24], b"\x07\0\0\0\x00\x80\x01\0\x89\x67\x45\x23");
        assert!(root[24..].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn every_extent_is_found_below_the_root() {
        let extents: Vec<Extent> =
            (0..2000).map(|n| Extent { logical: 2 * n, len: 1, physical: 9000 + u64::from(n) }).collect();
        let places: Vec<u64> = (100..).take(tree_blocks(extents.len())).collect();
        let (root, nodes) = encode(&extents, &places, Checksum::START);
        assert!(nodes.iter().all(|(_, bytes)| verify(bytes, Checksum::START)));
        let mut found = Vec::new();
        let mut waiting = decode(&root).unwrap().1;
        waiting.reverse();
        while let Some(entry) = waiting.pop() {
            match entry {
                Entry::Leaf(extent) => found.push(extent),
                Entry::Unwritten => panic!("never written"),
                Entry::Index { child, .. } => {
                    let (_, bytes) = nodes.iter().find(|(place, _)| *place == child).unwrap();
                    waiting.extend(decode(bytes).unwrap().1.into_iter().rev());
                }
            }
        }
        assert_eq!(found, extents);
    }
}
