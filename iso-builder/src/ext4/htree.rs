//! The index of a large directory: a tree from hashes of names to blocks of entries.
//!
//! Block 0 is the root, dressed as a block with `.` and `..` only; then come the leaves in order of hash, then, if the
//! root can not name them all, one level of nodes. Decides how full leaves are. What a leaf is, `directory` knows.

use super::directory::{self, Entry, Leaf};
use super::format::{BLOCK, Checksum, get_u16, get_u32, put_u16, put_u32};
use super::name_hash::NameHash;

/// Bytes of a leaf that are filled: 4 of 5, like `e2fsck -D`, so that the first new names split nothing.
const FILL: usize = directory::ROOM / 5 * 4;

/// Where the entries of the root and of a node start, and of what size each is.
const ROOT_START: usize = 32;
const NODE_START: usize = 8;
const ENTRY: usize = 8;

/// The checksum at a block's end; the four bytes before it are reserved.
const TAIL: usize = BLOCK - 8;
const CHECKSUM: usize = BLOCK - 4;

const ROOT_ENTRIES: usize = (TAIL - ROOT_START) / ENTRY;
const NODE_ENTRIES: usize = (TAIL - NODE_START) / ENTRY;

/// Most bytes of entries that two levels can index whatever their hashes. More would need the feature `large_dir`.
pub(super) const MAX_BYTES: usize = ROOT_ENTRIES * NODE_ENTRIES * (FILL - directory::MAX_RECORD);

/// How many blocks [`encode`] makes.
pub(super) fn blocks(entries: &[Entry<'_>], hash: NameHash) -> usize {
    let leaves = split(entries, hash).len();
    1 + leaves + nodes(leaves)
}

/// The blocks of a directory with an index. `root` is a sealed block with `.` and `..`, to be dressed up.
pub(super) fn encode(root: [u8; BLOCK], entries: &[Entry<'_>], hash: NameHash, inode: Checksum) -> Vec<[u8; BLOCK]> {
    let parts = split(entries, hash);
    let leaves = parts.iter().map(|part| {
        let mut leaf = Leaf::new();
        part.entries.iter().for_each(|entry| leaf.push(entry));
        leaf.seal(inode)
    });
    let mut blocks: Vec<[u8; BLOCK]> = std::iter::once(root).chain(leaves).collect();
    let number = |n: usize| u32::try_from(n).expect("files have block numbers of 32 bits");
    let mut pointers: Vec<(u32, u32)> = parts.iter().zip(1..).map(|(part, block)| (part.hash, block)).collect();
    let levels = u8::from(nodes(pointers.len()) > 0);
    if levels > 0 {
        let mut above = Vec::new();
        for chunk in pointers.chunks(NODE_ENTRIES) {
            above.push((chunk[0].0, number(blocks.len())));
            let mut node = [0; BLOCK];
            put_u16(&mut node, 4, u16::try_from(BLOCK).expect("4096"));
            put_pointers(&mut node, NODE_START, NODE_ENTRIES, chunk, inode);
            blocks.push(node);
        }
        pointers = above;
    }
    dress(&mut blocks[0], levels);
    put_pointers(&mut blocks[0], ROOT_START, ROOT_ENTRIES, &pointers, inode);
    blocks
}

/// Whether the checksum of a root or node, of any size of block, is right. A root starts with the entry `.`.
pub(super) fn verify(block: &[u8], inode: Checksum) -> bool {
    let start = if get_u16(block, 4) == 12 { ROOT_START } else { NODE_START };
    let [most, count] = [0, 2].map(|at| usize::from(get_u16(block, start + at)));
    let tail = start + ENTRY * most;
    count <= most && tail + 8 <= block.len() && get_u32(block, tail + 4) == checksum(block, start, count, tail, inode)
}

/// The entries of one leaf, and the least hash that is looked for in it.
struct Part<'a> {
    hash: u32,
    entries: Vec<Entry<'a>>,
}

fn split<'a>(entries: &[Entry<'a>], hash: NameHash) -> Vec<Part<'a>> {
    let mut hashed: Vec<(u32, Entry<'a>)> = entries.iter().map(|&entry| (hash.of(entry.name), entry)).collect();
    hashed.sort_by_key(|&(hash, entry)| (hash, entry.name));
    let mut parts: Vec<Part<'a>> = vec![Part { hash: 0, entries: Vec::new() }];
    let (mut used, mut previous) = (0, None);
    for (hash, entry) in hashed {
        if used + entry.size() > FILL {
            // The lowest bit says that names of the same hash are also in the leaf before.
            let continued = u32::from(previous == Some(hash));
            parts.push(Part { hash: hash | continued, entries: Vec::new() });
            used = 0;
        }
        used += entry.size();
        previous = Some(hash);
        parts.last_mut().expect("starts with one").entries.push(entry);
    }
    parts
}

/// Nodes between the root and this many leaves.
fn nodes(leaves: usize) -> usize {
    match leaves {
        0..=ROOT_ENTRIES => 0,
        _ => leaves.div_ceil(NODE_ENTRIES),
    }
}

/// Makes a block with `.` and `..` a root: `..` reaches to the end, and behind it starts the index.
fn dress(block: &mut [u8; BLOCK], levels: u8) {
    let behind_dots = 24;
    block[behind_dots..].fill(0);
    put_u16(block, 12 + 4, u16::try_from(BLOCK - 12).expect("less than a block"));
    block[28] = 1; // half MD4
    block[29] = 8; // bytes of these facts
    block[30] = levels;
}

fn put_pointers(block: &mut [u8; BLOCK], start: usize, most: usize, pointers: &[(u32, u32)], inode: Checksum) {
    let count = |n: usize| u16::try_from(n).expect("at most NODE_ENTRIES");
    for (&(hash, child), at) in pointers.iter().zip((start..).step_by(ENTRY)) {
        put_u32(block, at, hash);
        put_u32(block, at + 4, child);
    }
    // The first pointer stands for all hashes below the second, so these lie in place of its hash.
    put_u16(block, start, count(most));
    put_u16(block, start + 2, count(pointers.len()));
    let checksum = checksum(block, start, pointers.len(), TAIL, inode);
    put_u32(block, CHECKSUM, checksum);
}

/// Over what is in use of a block, and its tail with zeros for the checksum itself.
fn checksum(block: &[u8], start: usize, count: usize, tail: usize, inode: Checksum) -> u32 {
    inode.add(&block[..start + ENTRY * count]).add(&block[tail..tail + 4]).add(&[0; 4]).value()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_is_below_its_hash() {
        let hash = NameHash::new(&[7; 16]);
        let names: Vec<String> = (0..60_000).map(|n| format!("{n:060}")).collect();
        let entries: Vec<Entry<'_>> =
            names.iter().map(|name| Entry { name: name.as_bytes(), inode: 12, file_type: 1 }).collect();
        let parts = split(&entries, hash);
        assert_eq!(parts.iter().map(|part| part.entries.len()).sum::<usize>(), names.len());
        for (part, next) in parts.iter().zip(parts.iter().skip(1).map(|part| part.hash).chain([u32::MAX])) {
            assert!(part.entries.iter().all(|entry| (part.hash & !1..=next).contains(&hash.of(entry.name))));
        }
        let mut root = [0; BLOCK];
        put_u16(&mut root, 4, 12);
        let encoded = encode(root, &entries, hash, Checksum::START);
        assert_eq!(encoded.len(), blocks(&entries, hash));
        let pointers = |number: usize, start: usize| -> Vec<u32> {
            let block = &encoded[number];
            assert!(verify(block, Checksum::START));
            (0..usize::from(get_u16(block, start + 2))).map(|n| get_u32(block, start + ENTRY * n + 4)).collect()
        };
        let below = pointers(0, ROOT_START);
        assert_eq!((encoded[0][30], below.len()), (1, nodes(parts.len())));
        let leaves: Vec<u32> = below.iter().flat_map(|&number| pointers(number as usize, NODE_START)).collect();
        assert!(leaves.into_iter().eq(1..=u32::try_from(parts.len()).unwrap()));
    }

    #[test]
    fn equal_hashes_in_two_leaves_are_marked() {
        // Names that differ only in what a name can not (NUL bytes are not hashed apart) do not exist; so equal ones.
        let hash = NameHash::new(&[7; 16]);
        let entries = vec![Entry { name: &[b'x'; 200], inode: 12, file_type: 1 }; 40];
        let hashes: Vec<u32> = split(&entries, hash).iter().map(|part| part.hash).collect();
        let own = hash.of(&[b'x'; 200]);
        assert_eq!(hashes, [0, own | 1, own | 1]);
    }

    #[test]
    fn a_flipped_bit_is_noticed() {
        let entries = [Entry { name: b"x", inode: 12, file_type: 1 }];
        let mut root = [0; BLOCK];
        put_u16(&mut root, 4, 12);
        let mut block = encode(root, &entries, NameHash::new(&[7; 16]), Checksum::START)[0];
        assert!(verify(&block, Checksum::START));
        block[36] ^= 1;
        assert!(!verify(&block, Checksum::START));
    }
}
