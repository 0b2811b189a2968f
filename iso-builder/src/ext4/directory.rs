//! Directories as blocks of entries.
//!
//! Decides how entries are packed: linearly, in the order given, as many in a block as fit. The kernel reads such
//! directories of any size.

use super::format::{
    BLOCK, BLOCK_DEVICE, CHAR_DEVICE, Checksum, DIRECTORY, FIFO, REGULAR, SOCKET, SYMLINK, TYPE_MASK, get_u16, get_u32,
    put_u16, put_u32,
};

/// An entry without its name: inode, length of the record and of the name, type.
const HEADER: usize = 8;

/// The checksum at a block's end, dressed as an entry without an inode.
const TAIL: usize = 12;
const TAIL_TYPE: u8 = 0xDE;

/// Bytes of a block for entries.
const ROOM: usize = BLOCK - TAIL;

/// A name for an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    pub(super) name: &'a [u8],
    pub(super) inode: u32,
    /// See [`file_type`].
    pub(super) file_type: u8,
}

impl Entry<'_> {
    fn size(&self) -> usize {
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

/// How many blocks [`encode`] makes of entries with names of these lengths, `.` and `..` not among them.
pub(super) fn blocks(names: impl Iterator<Item = usize>) -> u32 {
    let (mut blocks, mut used) = (1, record_size(1) + record_size(2));
    for size in names.map(record_size) {
        if used + size > ROOM {
            blocks += 1;
            used = 0;
        }
        used += size;
    }
    blocks
}

/// The blocks of the directory `own`, `.` and `..` included; `inode` is where its checksums start.
pub(super) fn encode(own: u32, parent: u32, entries: &[Entry<'_>], inode: Checksum) -> Vec<[u8; BLOCK]> {
    let file_type = file_type(DIRECTORY);
    let dots = [Entry { name: b".", inode: own, file_type }, Entry { name: b"..", inode: parent, file_type }];
    let mut blocks = Vec::new();
    let mut leaf = Leaf::new();
    for entry in dots.iter().chain(entries) {
        if leaf.used + entry.size() > ROOM {
            blocks.push(std::mem::replace(&mut leaf, Leaf::new()).seal(inode));
        }
        leaf.push(entry);
    }
    blocks.push(leaf.seal(inode));
    blocks
}

/// The entries of a block, `.` and `..` among them; `None` when it makes no sense or its checksum is wrong.
pub(super) fn decode(block: &[u8; BLOCK], inode: Checksum) -> Option<Vec<Entry<'_>>> {
    if get_u32(block, BLOCK - 4) != inode.add(&block[..ROOM]).value() {
        return None;
    }
    let mut entries = Vec::new();
    let mut at = 0;
    while at < ROOM {
        let size = usize::from(get_u16(block, at + 4));
        let name = block.get(at + HEADER..at + HEADER + usize::from(block[at + 6]))?;
        if get_u32(block, at) != 0 {
            entries.push(Entry { name, inode: get_u32(block, at), file_type: block[at + 7] });
        }
        if size < HEADER || size % 4 != 0 {
            return None;
        }
        at += size;
    }
    Some(entries)
}

/// Bytes of an entry with a name of this length.
fn record_size(name: usize) -> usize {
    HEADER + name.next_multiple_of(4)
}

/// A block being filled with entries.
struct Leaf {
    bytes: [u8; BLOCK],
    used: usize,
    /// Where the last entry starts; it will reach up to the tail.
    last: usize,
}

impl Leaf {
    fn new() -> Leaf {
        Leaf { bytes: [0; BLOCK], used: 0, last: 0 }
    }

    fn push(&mut self, entry: &Entry<'_>) {
        let (at, name) = (self.used, entry.name);
        put_u32(&mut self.bytes, at, entry.inode);
        put_u16(&mut self.bytes, at + 4, u16::try_from(entry.size()).expect("at most 264"));
        self.bytes[at + 6] = u8::try_from(name.len()).expect("names were checked");
        self.bytes[at + 7] = entry.file_type;
        self.bytes[at + HEADER..at + HEADER + name.len()].copy_from_slice(name);
        self.last = at;
        self.used += entry.size();
    }

    fn seal(mut self, inode: Checksum) -> [u8; BLOCK] {
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

    #[test]
    fn what_is_written_is_read_back() {
        let names: Vec<Vec<u8>> = (0..2000u32).map(|n| vec![b'a'; 1 + n as usize % 255]).collect();
        let entries: Vec<Entry> =
            names.iter().zip(11..).map(|(name, inode)| Entry { name, inode, file_type: 1 }).collect();
        let encoded = encode(2, 2, &entries, Checksum::START);
        assert_eq!(encoded.len(), blocks(names.iter().map(Vec::len)) as usize);
        let decoded: Vec<Entry> = encoded.iter().flat_map(|block| decode(block, Checksum::START).unwrap()).collect();
        assert_eq!(decoded[0], Entry { name: b".", inode: 2, file_type: 2 });
        assert_eq!(decoded[1], Entry { name: b"..", inode: 2, file_type: 2 });
        assert_eq!(decoded[2..], entries);
    }

    #[test]
    fn a_flipped_bit_is_noticed() {
        let mut block = encode(2, 2, &[], Checksum::START)[0];
        block[100] ^= 1;
        assert_eq!(decode(&block, Checksum::START), None);
    }
}
