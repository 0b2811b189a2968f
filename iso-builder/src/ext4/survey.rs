//! What each inode needs of the disk, found by reading every file once.
//!
//! Decides which blocks of a file are stored (those with a byte that is not zero), and the name that an image without
//! a given UUID gets. Where blocks will lie is decided by `layout`.

use sha2::{Digest, Sha256};

use super::directory;
use super::error::Error;
use super::format::{BLOCK_BYTES, index, wide};
use super::inodes::{Inodes, mode};
use super::name_hash::NameHash;
use super::xattr;
pub(super) use crate::scan::Run;
use crate::scan::{Cutter, Scan, Scanner};
use crate::tree::{Content, Kind, Time};

/// Bytes read at once: large enough that the calls cost nothing, small enough for a cache.
pub(super) const CHUNK: u64 = 1 << 20;

/// Longest symlink target that fits in the inode itself, bytes.
pub(super) const FAST_SYMLINK: usize = 59;

/// What one inode needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Need<'a> {
    pub(super) xattr_block: bool,
    /// Blocks of its data, in order, not touching each other.
    pub(super) runs: &'a [Run],
}

/// What every inode needs, in their order; all runs lie in one list, since most files have one.
#[derive(Debug, Default)]
pub(super) struct Needs {
    runs: Vec<Run>,
    /// Where the runs of each inode end in the list.
    ends: Vec<usize>,
    xattr_blocks: Vec<bool>,
}

impl Needs {
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn get(&self, place: usize) -> Need<'_> {
        Need { xattr_block: self.xattr_blocks[place], runs: &self.runs[self.start(place)..self.ends[place]] }
    }

    pub(super) fn push(&mut self, xattr_block: bool, runs: impl IntoIterator<Item = Run>) {
        self.runs.extend(runs);
        self.ends.push(self.runs.len());
        self.xattr_blocks.push(xattr_block);
    }

    fn start(&self, place: usize) -> usize {
        place.checked_sub(1).map_or(0, |before| self.ends[before])
    }
}

/// The needs of every inode, in their order.
#[derive(Debug)]
pub(super) struct Survey {
    /// Those of directories have no length until [`Survey::add_directories`].
    pub(super) needs: Needs,
    /// Over all metadata and contents.
    pub(super) digest: [u8; 32],
}

/// Reads everything once. `read` is told the bytes read of each chunk.
pub(super) fn survey(inodes: &Inodes<'_>, read: &mut dyn FnMut(u64)) -> Result<Survey, Error> {
    let mut needs = Needs::default();
    let mut digest = Sha256::new();
    let mut buffer = Vec::new();
    for place in 0..inodes.len() {
        let node = inodes.node(place);
        digest_meta(&mut digest, inodes, place);
        let stored =
            xattr::store(&node.meta.xattrs).map_err(|reason| Error::Unfit { path: inodes.path(place), reason })?;
        let runs = match &node.kind {
            Kind::Dir(_) => vec![Run { start: 0, len: 0 }],
            Kind::Symlink(target) if target.len() > FAST_SYMLINK => vec![Run { start: 0, len: 1 }],
            Kind::File(content) => {
                let Scan { runs, checksum } = scan(content, &mut buffer, read)
                    .map_err(|source| Error::Contents { path: inodes.path(place), source })?;
                digest.update(checksum.to_le_bytes());
                runs.iter().for_each(|run| digest.update([run.start.to_le_bytes(), run.len.to_le_bytes()].concat()));
                runs
            }
            _ => Vec::new(),
        };
        needs.push(stored.block.is_some(), runs);
    }
    Ok(Survey { needs, digest: digest.finalize().into() })
}

impl Survey {
    /// Adds the blocks of directories. Their number hangs on the hash, which hangs on the digest of everything.
    pub(super) fn add_directories(&mut self, inodes: &Inodes<'_>, hash: NameHash) {
        for place in (0..inodes.len()).filter(|&place| inodes.is_dir(place)) {
            let entries: Vec<_> = inodes.entries(place).collect();
            let own = self.needs.start(place);
            self.needs.runs[own].len = directory::blocks(&entries, hash);
        }
    }
}

/// The parts of a file that may hold data, as offset and length: multiples of blocks but for the file's end.
pub(super) fn stored_parts(content: &Content) -> impl Iterator<Item = (u64, u64)> {
    let mut done = 0;
    content.extents.iter().filter_map(move |extent| {
        let start = (extent.at / BLOCK_BYTES * BLOCK_BYTES).max(done);
        let end = (extent.at + extent.len).next_multiple_of(BLOCK_BYTES).min(content.size);
        done = done.max(end);
        (start < end).then(|| (start, end - start))
    })
}

/// What a file holds; it is read unless that is known already.
fn scan(content: &Content, buffer: &mut Vec<u8>, read: &mut dyn FnMut(u64)) -> std::io::Result<Scan> {
    if let Some(known) = content.known() {
        read(stored_parts(content).map(|(_, len)| len).sum());
        return Ok(known);
    }
    let (mut cutter, mut scanner) = (Cutter::new(), Scanner::new(content.size));
    let mut look = |first, blocks: &[u8]| {
        scanner.look(first, blocks);
        Ok::<_, std::io::Error>(())
    };
    for (start, len) in stored_parts(content) {
        for at in (start..start + len).step_by(index(CHUNK)) {
            let chunk = CHUNK.min(start + len - at);
            buffer.resize(index(chunk), 0);
            content.read_exact_at(buffer, at)?;
            cutter.add(at, buffer, &mut look)?;
            read(chunk);
        }
    }
    cutter.close(&mut look)?;
    Ok(scanner.finish())
}

/// Everything about an inode but its contents. Each part is of fixed length or preceded by its length.
fn digest_meta(digest: &mut Sha256, inodes: &Inodes<'_>, place: usize) {
    let node = inodes.node(place);
    let meta = &node.meta;
    let Time { secs, nanos } = meta.mtime;
    digest.update(mode(node).to_le_bytes());
    digest.update([meta.uid, meta.gid, nanos].map(u32::to_le_bytes).concat());
    digest.update(secs.to_le_bytes());
    let mut bytes = |bytes: &[u8]| {
        digest.update(wide(bytes.len()).to_le_bytes());
        digest.update(bytes);
    };
    bytes(&wide(meta.xattrs.len()).to_le_bytes());
    meta.xattrs.iter().for_each(|(name, value)| {
        bytes(name);
        bytes(value);
    });
    match &node.kind {
        Kind::Dir(_) => {
            inodes.entries(place).for_each(|entry| {
                bytes(entry.name);
                bytes(&entry.inode.to_le_bytes());
            });
            bytes(b"");
        }
        Kind::File(content) => bytes(&content.size.to_le_bytes()),
        Kind::Symlink(target) => bytes(target),
        Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
            bytes(&[*major, *minor].map(u32::to_le_bytes).concat());
        }
        Kind::Fifo | Kind::Socket => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ext4::format::BLOCK;
    use crate::tree::{Extent, Source};

    fn runs_of(content: &Content) -> Vec<(u32, u32)> {
        let found = scan(content, &mut Vec::new(), &mut |_| {}).unwrap();
        found.runs.iter().map(|run| (run.start, run.len)).collect()
    }

    #[test]
    fn zero_blocks_are_holes() {
        let mut bytes = vec![0; 5 * BLOCK + 10];
        assert_eq!(runs_of(&Content::from_bytes(bytes.clone())), []);
        bytes[0] = 1;
        bytes[BLOCK + 7] = 1;
        bytes[5 * BLOCK + 9] = 1;
        assert_eq!(runs_of(&Content::from_bytes(bytes)), [(0, 2), (5, 1)]);
        assert_eq!(runs_of(&Content::from_bytes(*b"")), []);
    }

    #[test]
    fn runs_join_over_chunks() {
        let blocks = u32::try_from(3 * CHUNK / BLOCK_BYTES).unwrap();
        assert_eq!(runs_of(&Content::from_bytes(vec![1; index(3 * CHUNK)])), [(0, blocks)]);
    }

    #[test]
    fn extents_that_share_a_block_are_read_once() {
        let part = |at, len: usize| Extent { at, len: wide(len), source: Source::Memory(vec![1; len].into()), from: 0 };
        let content =
            Content { size: 40_000, extents: vec![part(10, 20), part(100, 4000), part(20_000, 20_000)].into() };
        let parts: Vec<_> = stored_parts(&content).collect();
        assert_eq!(parts, [(0, 4096), (4096, 4096), (16_384, 23_616)]);
        assert_eq!(runs_of(&content), [(0, 2), (4, 6)]);
    }
}
