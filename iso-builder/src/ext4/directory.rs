//! Directories as blocks of entries.
//!
//! Decides the shape: up to one block, entries in the order given; more get an index (`htree`), without which the kernel
//! would read half of a directory to find a name in it.

use super::format::{
    BLOCK, BLOCK_DEVICE, CHAR_DEVICE, Checksum, DIRECTORY, FIFO, REGULAR, SOCKET, SYMLINK, TYPE_MASK, get_u16, get_u32,
    put_u16, put_u32,
};
use super::htree;
use super::name_hash::NameHash;

/// An entry without its name: inode, length of the record and of the name, type.
const HEADER: usize = 8;

/// The checksum at a block's end, dressed as an entry without an inode.
const TAIL: usize = 12;
const TAIL_TYPE: u8 = 0xDE;

/// Bytes of a block for entries.
pub(super) const ROOM: usize = BLOCK - TAIL;

/// Bytes of the largest entry: a name of 255.
pub(super) const MAX_RECORD: usize = HEADER + 256;

/// A name for an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    pub(super) name: &'a [u8],
    pub(super) inode: u32,
    /// See [`file_type`].
    pub(super) file_type: u8,
}

impl Entry<'_> {
    pub(super) fn size(&self) -> usize {
        record_size(self.name.len())
    }
}

/// The type in an entry for an inode of this mode.
pub(super) fn file_type(mode: u16) -> u8 {
    match mode & TYPE_MASK {
        REGULAR => 1,
        DIRECTORY => 2,
        CHAR_DEVICE => 3,
        BLOCK_DEVICE => 4,
        FIFO => 5,
        SOCKET => 6,
        SYMLINK => 7,
        _ => 0,
    }
}

/// Whether a directory of these entries (`.` and `..` not among them) has an index.
pub(super) fn is_indexed<'a>(entries: impl Iterator<Item = Entry<'a>>) -> bool {
    let bytes: usize = entries.map(|entry| entry.size()).sum();
    (ROOM - record_size(1) - record_size(2) + 1..=htree::MAX_BYTES).contains(&bytes)
}

/// How many blocks [`encode`] makes of these entries.
pub(super) fn blocks(entries: &[Entry<'_>], hash: NameHash) -> u32 {
    let blocks = match is_indexed(entries.iter().copied()) {
        true => htree::blocks(entries, hash),
        false => linear(dots(0, 0).iter().chain(entries)).count(),
    };
    u32::try_from(blocks).expect("fewer than the 2^32 entries of a tree")
}

/// The blocks of the directory `own`, `.` and `..` included; `inode` is where its checksums start.
pub(super) fn encode(
    own: u32,
    parent: u32,
    entries: &[Entry<'_>],
    hash: NameHash,
    inode: Checksum,
) -> Vec<[u8; BLOCK]> {
    let dots = dots(own, parent);
    if is_indexed(entries.iter().copied()) {
        let root = linear(dots.iter()).map(|leaf| leaf.seal(inode)).next().expect("one block for two entries");
        return htree::encode(root, entries, hash, inode);
    }
    linear(dots.iter().chain(entries)).map(|leaf| leaf.seal(inode)).collect()
}

/// The entries of a block of any size, `.` and `..` among them. Those of an index have none but these, dressed as they
/// are as entries: so every directory can be read block by block. Without `inode` there are no checksums.
pub(super) fn decode(block: &[u8], inode: Option<Checksum>) -> Result<Vec<Entry<'_>>, &'static str> {
    let mut entries = Vec::new();
    let mut at = 0;
    while at < block.len() {
        let size = record_len(block, at).ok_or("an entry of its directory does not fit the block")?;
        let name = at + HEADER..at + HEADER + usize::from(block[at + 6]);
        if get_u32(block, at) != 0 {
            if name.end > at + size {
                return Err("an entry of its directory has no room for its name");
            }
            entries.push(Entry { name: &block[name], inode: get_u32(block, at), file_type: block[at + 7] });
        }
        at += size;
    }
    match inode.is_none_or(|inode| verify(block, inode)) {
        true => Ok(entries),
        false => Err("the checksum of its directory is wrong"),
    }
}

/// Bytes of the entry at `at`, if it lies within the block. In blocks of 64 KiB the largest has no number of 16 bits.
fn record_len(block: &[u8], at: usize) -> Option<usize> {
    let len = match usize::from(get_u16(block.get(at..at + HEADER)?, 4)) {
        0 | 0xFFFF if block.len() == 1 << 16 => 1 << 16,
        len => len,
    };
    (len >= HEADER && len % 4 == 0 && at + len <= block.len()).then_some(len)
}

/// Whether the checksum at a block's end is right, be it one of entries or of an index.
fn verify(block: &[u8], inode: Checksum) -> bool {
    let room = block.len() - TAIL;
    let has_tail = get_u32(block, room) == 0 && get_u16(block, room + 4) == 12 && block[room + 7] == TAIL_TYPE;
    match has_tail {
        true => get_u32(block, block.len() - 4) == inode.add(&block[..room]).value(),
        false => htree::verify(block, inode),
    }
}

/// Bytes of an entry with a name of this length.
fn record_size(name: usize) -> usize {
    HEADER + name.next_multiple_of(4)
}

fn dots(own: u32, parent: u32) -> [Entry<'static>; 2] {
    let file_type = file_type(DIRECTORY);
    [Entry { name: b".", inode: own, file_type }, Entry { name: b"..", inode: parent, file_type }]
}

/// Entries in the order given, as many in a block as fit.
fn linear<'a>(entries: impl Iterator<Item = &'a Entry<'a>>) -> impl Iterator<Item = Leaf> {
    let mut entries = entries.peekable();
    std::iter::from_fn(move || {
        entries.peek()?;
        let mut leaf = Leaf::new();
        while let Some(entry) = entries.next_if(|entry| leaf.used + entry.size() <= ROOM) {
            leaf.push(entry);
        }
        Some(leaf)
    })
}

/// A block being filled with entries.
pub(super) struct Leaf {
    bytes: [u8; BLOCK],
    used: usize,
    /// Where the last entry starts; it will reach up to the tail.
    last: usize,
}

impl Leaf {
    pub(super) fn new() -> Leaf {
        Leaf { bytes: [0; BLOCK], used: 0, last: 0 }
    }

    pub(super) fn push(&mut self, entry: &Entry<'_>) {
        let (at, name) = (self.used, entry.name);
        put_u32(&mut self.bytes, at, entry.inode);
        put_u16(&mut self.bytes, at + 4, u16::try_from(entry.size()).expect("at most 264"));
        self.bytes[at + 6] = u8::try_from(name.len()).expect("names were checked");
        self.bytes[at + 7] = entry.file_type;
        self.bytes[at + HEADER..at + HEADER + name.len()].copy_from_slice(name);
        self.last = at;
        self.used += entry.size();
    }

    pub(super) fn seal(mut self, inode: Checksum) -> [u8; BLOCK] {
        let rest = u16::try_from(ROOM - self.last).expect("less than a block");
        put_u16(&mut self.bytes, self.last + 4, rest);
        put_u16(&mut self.bytes, ROOM + 4, u16::try_from(TAIL).expect("12"));
        self.bytes[ROOM + 7] = TAIL_TYPE;
        let checksum = inode.add(&self.bytes[..ROOM]).value();
        put_u32(&mut self.bytes, BLOCK - 4, checksum);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: [u8; 16] = [3; 16];

    #[test]
    fn what_is_written_is_read_back() {
        let names: Vec<Vec<u8>> = (1..=25).map(|n| vec![b'a'; n * 10]).collect();
        let entries: Vec<Entry<'_>> =
            names.iter().zip(11..).map(|(name, inode)| Entry { name, inode, file_type: 1 }).collect();
        let encoded = encode(2, 2, &entries, NameHash::new(&HASH), Checksum::START);
        assert_eq!(encoded.len(), 1);
        let decoded = decode(&encoded[0], Some(Checksum::START)).unwrap();
        assert_eq!(decoded[0], Entry { name: b".", inode: 2, file_type: 2 });
        assert_eq!(decoded[1], Entry { name: b"..", inode: 2, file_type: 2 });
        assert_eq!(decoded[2..], entries);
    }

    #[test]
    fn the_second_block_brings_an_index() {
        let entry = Entry { name: &[b'a'; 244], inode: 11, file_type: 1 };
        // 4084 - 24 bytes are 16 records of 252 and one of 28.
        let mut entries = vec![entry; 16];
        entries.push(Entry { name: b"twenty bytes exactly", ..entry });
        assert_eq!(entries.iter().map(Entry::size).sum::<usize>(), 4084 - 24);
        assert!(!is_indexed(entries.iter().copied()));
        assert_eq!(blocks(&entries, NameHash::new(&HASH)), 1);
        entries.push(Entry { name: b"a", ..entry });
        assert!(is_indexed(entries.iter().copied()));
        assert_eq!(blocks(&entries, NameHash::new(&HASH)), 3);
    }

    #[test]
    fn beyond_an_index_entries_are_linear() {
        let entries = vec![Entry { name: &[b'a'; 255], inode: 11, file_type: 1 }; 40];
        assert_eq!(linear(entries.iter()).count(), 3);
    }

    #[test]
    fn a_flipped_bit_is_noticed() {
        let mut block = encode(2, 2, &[], NameHash::new(&HASH), Checksum::START)[0];
        block[100] ^= 1;
        assert!(decode(&block, Some(Checksum::START)).is_err());
        assert!(decode(&block, None).is_ok());
    }
}
