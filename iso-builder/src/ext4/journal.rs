//! What the journal of an image holds that its file system does not yet: blocks that were committed, and not written to
//! their places before the kernel ended, as one does that is killed or loses its power.
//!
//! Nothing is written but by `settle`: whoever reads the image through a [`Replay`] sees the blocks as they would be after a mount. Decides
//! what was committed, as the kernel does it (jbd2's recovery.c; Documentation/filesystems/ext4/journal.rst); a journal that
//! the kernel would refuse is an error. What a mount does after that, to files that were open without a name or being cut
//! off, changes nothing that a name leads to.

mod settle;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use super::error::Error;
use super::extent::Extent;
use super::format::{Checksum, index, wide};
use super::map;
use super::volume::Volume;
use crate::tree::ReadAt;

pub use settle::settle;

/// At the start of every block of the journal's own; data that start so are kept without it.
const MAGIC: u32 = 0xC03B_3998;

/// Kinds of blocks.
const DESCRIPTOR: u32 = 1;
const COMMIT: u32 = 2;
const SUPERBLOCK: u32 = 4;
const REVOKE: u32 = 5;

/// Features.
const WIDE: u32 = 0x2;
const CSUM_V2: u32 = 0x8;
const CSUM_V3: u32 = 0x10;
/// All that are read: revoked blocks, wide numbers, commits that did not wait, checksums.
const KNOWN: u32 = 0x1 | WIDE | 0x4 | CSUM_V2 | CSUM_V3;
const FAST_COMMIT: u32 = 0x20;
/// A compatible feature: checksums of the first kind, over a whole transaction.
const CSUM_V1: u32 = 0x1;
const CRC32C: u8 = 4;

/// Of a block that a descriptor names.
const ESCAPED: u32 = 1;
const SAME_UUID: u32 = 2;
const LAST: u32 = 8;

/// Bytes of what starts each block of the journal's own, and of a commit that mean something.
const HEADER: usize = 12;
const COMMIT_BYTES: usize = 64;

/// Blocks as the journal has them.
#[derive(Debug, Default)]
pub(super) struct Replay {
    block_size: u64,
    blocks: BTreeMap<u64, Stored>,
    /// None: there is no transaction in it.
    ended: Option<Ended>,
}

/// How a journal goes on once all of it is in its place.
#[derive(Clone, Copy, Debug)]
struct Ended {
    /// Where its superblock lies in the image, bytes.
    superblock: u64,
    has_checksums: bool,
    /// The number of the transaction that comes next.
    next: u32,
}

/// Where a block's bytes lie in the image.
#[derive(Clone, Copy, Debug)]
struct Stored {
    at: u64,
    /// The block starts as those of the journal do, and these bytes were left out.
    escaped: bool,
}

impl Replay {
    /// Reads the journal, if it holds anything.
    pub(super) fn of(image: &dyn ReadAt) -> Result<Replay, Error> {
        let mut volume = Volume::open(image)?;
        let Some(inode) = volume.facts.unreplayed else { return Ok(Replay::default()) };
        let refused = |what: String| Error::Journal { what };
        if inode == 0 {
            return Err(refused("it lies on a device of its own".into()));
        }
        let record = volume.inode(inode)?;
        let extents = map::read(&mut volume, inode, &record)?.extents;
        let block_size = volume.facts.block_size;
        let blocks = volume.facts.blocks;
        let (first_block, size) = (volume.facts.first_block, record.size);
        let mut log = Log { image, block_size, extents, seed: None, tag: Tag::Narrow(8), number: 4 };
        let sb = log.block(0)?;
        let features = be32(&sb, 0x28);
        let (len, first, start) = (be32(&sb, 0x10), be32(&sb, 0x14), be32(&sb, 0x1C));
        match () {
            () if be32(&sb, 0) != MAGIC || be32(&sb, 4) != SUPERBLOCK => {
                return Err(refused("its superblock is none of the second version".into()));
            }
            () if index(u64::from(be32(&sb, 0x0C))) != block_size => {
                return Err(refused("its blocks are of another size".into()));
            }
            () if features & FAST_COMMIT != 0 => return Err(refused("it has the feature fast_commit".into())),
            () if features & !KNOWN != 0 => return Err(refused(format!("it has the features {features:#x}"))),
            () if be32(&sb, 0x24) & CSUM_V1 != 0 => {
                return Err(refused("it has checksums of the first version".into()));
            }
            () => {}
        }
        let has_checksums = features & (CSUM_V2 | CSUM_V3) != 0;
        if has_checksums {
            let mut plain = sb[..1024].to_vec();
            plain[0xFC..0x100].fill(0);
            if sb[0x50] != CRC32C || Checksum::START.add(&plain).value() != be32(&sb, 0xFC) {
                return Err(refused("the checksum of its superblock is wrong".into()));
            }
            let uuid: [u8; 16] = std::array::from_fn(|at| sb[0x30 + at]);
            log.seed = Some(Checksum::seed(&uuid));
        }
        log.tag = match (features & CSUM_V3 != 0, features & WIDE != 0, features & CSUM_V2 != 0) {
            (true, ..) => Tag::Checked,
            (_, true, checked) => Tag::Wide(if checked { 14 } else { 12 }),
            (_, false, checked) => Tag::Narrow(if checked { 10 } else { 8 }),
        };
        log.number = if features & WIDE == 0 { 4 } else { 8 };
        if start == 0 {
            return Ok(Replay::default());
        }
        if first == 0 || len <= first || !(first..len).contains(&start) || u64::from(len) > size / wide(block_size) {
            return Err(refused("its superblock names blocks that it does not have".into()));
        }
        let found = Scan { log: &log, ring: first..len, at: start, taken: 0 }.run(be32(&sb, 0x18))?;
        let ended = Ended { superblock: log.place(0)?, has_checksums, next: found.next };
        let mut replay = Replay { block_size: wide(block_size), blocks: BTreeMap::new(), ended: Some(ended) };
        for Written { block, sequence, place, escaped, checksum } in found.written {
            if found.revoked.get(&block).is_some_and(|&revoked| !is_after(sequence, revoked)) {
                continue;
            }
            if block < first_block || block >= blocks {
                return Err(refused(format!("it has block {block}, beyond the end of the file system")));
            }
            if let (Some(seed), Some(checksum)) = (log.seed, checksum) {
                let value = seed.add(&sequence.to_be_bytes()).add(&log.block(place)?).value();
                let mask = if log.tag == Tag::Checked { u32::MAX } else { 0xFFFF };
                if value & mask != checksum {
                    return Err(refused(format!("the checksum of block {block} in transaction {sequence} is wrong")));
                }
            }
            replay.blocks.insert(block, Stored { at: log.place(place)?, escaped });
        }
        Ok(replay)
    }

    /// The image with these blocks in their places.
    pub(super) fn over(self, image: &Arc<dyn ReadAt>) -> Arc<dyn ReadAt> {
        match self.blocks.is_empty() {
            true => Arc::clone(image),
            false => Arc::new(Replayed { image: Arc::clone(image), replay: self }),
        }
    }

    /// The same, for as long as both are there.
    pub(super) fn through<'a>(&'a self, image: &'a dyn ReadAt) -> Through<'a> {
        Through { image, replay: self }
    }

    fn read(&self, image: &dyn ReadAt, buf: &mut [u8], from: u64) -> io::Result<()> {
        let end = from + wide(buf.len());
        let mut at = from;
        while at < end {
            let rest = &mut buf[index(at - from)..];
            // as far as nothing is replayed, the image is as it is
            let blocks = at.checked_div(self.block_size).map(|block| self.blocks.range(block..));
            let next = blocks.and_then(|mut blocks| blocks.next());
            let (place, stored) = match next {
                Some((&block, &stored)) if block * self.block_size < end => (block * self.block_size, stored),
                _ => return image.read_exact_at(rest, at),
            };
            if place > at {
                let len = place - at;
                image.read_exact_at(&mut rest[..index(len)], at)?;
                at = place;
                continue;
            }
            let within = at - place;
            let len = (self.block_size - within).min(end - at);
            let part = &mut rest[..index(len)];
            image.read_exact_at(part, stored.at + within)?;
            if stored.escaped {
                for (byte, magic) in part.iter_mut().zip(MAGIC.to_be_bytes().into_iter().skip(index(within.min(4)))) {
                    *byte = magic;
                }
            }
            at += len;
        }
        Ok(())
    }
}

/// An image with its journal replayed.
#[derive(Debug)]
struct Replayed {
    image: Arc<dyn ReadAt>,
    replay: Replay,
}

impl ReadAt for Replayed {
    fn read_exact_at(&self, buf: &mut [u8], from: u64) -> io::Result<()> {
        self.replay.read(&*self.image, buf, from)
    }

    fn size(&self) -> io::Result<u64> {
        self.image.size()
    }
}

/// An image with its journal replayed, borrowed.
#[derive(Debug)]
pub(super) struct Through<'a> {
    image: &'a dyn ReadAt,
    replay: &'a Replay,
}

impl ReadAt for Through<'_> {
    fn read_exact_at(&self, buf: &mut [u8], from: u64) -> io::Result<()> {
        self.replay.read(self.image, buf, from)
    }

    fn size(&self) -> io::Result<u64> {
        self.image.size()
    }
}

/// How a descriptor names a block; the bytes that this takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tag {
    Narrow(usize),
    Wide(usize),
    Checked,
}

impl Tag {
    fn len(self) -> usize {
        match self {
            Tag::Narrow(len) | Tag::Wide(len) => len,
            Tag::Checked => 16,
        }
    }
}

/// The journal's blocks, by their numbers in it.
struct Log<'a> {
    image: &'a dyn ReadAt,
    block_size: usize,
    extents: Vec<Extent>,
    /// The start of its checksums, if it has any.
    seed: Option<Checksum>,
    tag: Tag,
    /// Bytes of a number among those that are revoked.
    number: usize,
}

impl Log<'_> {
    /// Where a block lies in the image, bytes.
    fn place(&self, number: u32) -> Result<u64, Error> {
        let after = self.extents.partition_point(|extent| extent.logical <= number);
        let extent = after.checked_sub(1).map(|last| self.extents[last]);
        match extent.filter(|extent| number - extent.logical < extent.len) {
            Some(extent) => Ok((extent.physical + u64::from(number - extent.logical)) * wide(self.block_size)),
            None => Err(Error::Journal { what: format!("it has no block {number}") }),
        }
    }

    fn block(&self, number: u32) -> Result<Vec<u8>, Error> {
        let at = self.place(number)?;
        let mut bytes = vec![0; self.block_size];
        self.image.read_exact_at(&mut bytes, at).map_err(|source| Error::Read { at, source })?;
        Ok(bytes)
    }

    /// Whether the checksum at the end of a descriptor or of revoked blocks is right.
    fn is_sound(&self, block: &[u8]) -> bool {
        let Some(seed) = self.seed else { return true };
        let (bytes, tail) = block.split_at(block.len() - 4);
        seed.add(bytes).add(&[0; 4]).value() == be32(tail, 0)
    }

    /// Whether that of a commit is. What follows it in its block may never have been written.
    fn is_sound_commit(&self, block: &[u8]) -> bool {
        let Some(seed) = self.seed else { return true };
        let stored = be32(block, 16);
        let mut plain = block.to_vec();
        plain[16..20].fill(0);
        seed.add(&plain).value() == stored || {
            plain[COMMIT_BYTES..].fill(0);
            seed.add(&plain).value() == stored
        }
    }

    /// Bytes of a block that hold names of others.
    fn end(&self, block: &[u8]) -> usize {
        block.len() - if self.seed.is_some() { 4 } else { 0 }
    }
}

/// A block in a transaction.
#[derive(Clone, Copy, Debug)]
struct Written {
    block: u64,
    sequence: u32,
    /// Its number in the journal.
    place: u32,
    escaped: bool,
    checksum: Option<u32>,
}

/// What whole transactions say.
#[derive(Debug, Default)]
struct Found {
    written: Vec<Written>,
    /// Blocks that are not to be written by the transaction of this number, nor by any before it.
    revoked: BTreeMap<u64, u32>,
    /// A number that none of them has, nor what was begun after them.
    next: u32,
}

/// A way through the journal, which is a ring.
struct Scan<'a> {
    log: &'a Log<'a>,
    ring: std::ops::Range<u32>,
    at: u32,
    /// Blocks that were passed.
    taken: u32,
}

impl Scan<'_> {
    /// All transactions from this number on, up to the first that has no end.
    fn run(mut self, first: u32) -> Result<Found, Error> {
        let (mut found, mut pending) = (Found::default(), Found::default());
        let (mut sequence, mut last_time, mut is_doubtful) = (first, (0, 0), false);
        while self.taken < self.ring.end - self.ring.start {
            let block = self.log.block(self.step())?;
            if be32(&block, 0) != MAGIC || be32(&block, 8) != sequence {
                break;
            }
            match be32(&block, 4) {
                DESCRIPTOR => {
                    is_doubtful |= !self.log.is_sound(&block);
                    self.describe(&block, sequence, &mut pending.written);
                }
                REVOKE => {
                    is_doubtful |= !self.log.is_sound(&block);
                    self.revoke(&block, sequence, &mut pending.revoked);
                }
                COMMIT => {
                    let time = (u64::from(be32(&block, 48)) << 32 | u64::from(be32(&block, 52)), be32(&block, 56));
                    if is_doubtful || !self.log.is_sound_commit(&block) {
                        if time < last_time {
                            // of an earlier round of the ring
                            break;
                        }
                        return Err(Error::Journal { what: format!("a checksum of transaction {sequence} is wrong") });
                    }
                    last_time = time;
                    found.written.append(&mut pending.written);
                    // each is the latest
                    found.revoked.append(&mut pending.revoked);
                    sequence = sequence.wrapping_add(1);
                }
                _ => break,
            }
        }
        found.next = sequence.wrapping_add(1);
        Ok(found)
    }

    /// The block that comes next.
    fn step(&mut self) -> u32 {
        let at = self.at;
        self.at = if at + 1 == self.ring.end { self.ring.start } else { at + 1 };
        self.taken = self.taken.saturating_add(1);
        at
    }

    /// The blocks that a descriptor names follow it.
    fn describe(&mut self, block: &[u8], sequence: u32, written: &mut Vec<Written>) {
        let (kind, end) = (self.log.tag, self.log.end(block));
        let mut at = HEADER;
        while at + kind.len() <= end {
            let tag = &block[at..];
            let (flags, high) = match kind {
                Tag::Checked => (be32(tag, 4), if self.log.number == 8 { be32(tag, 8) } else { 0 }),
                Tag::Wide(_) => (be32(tag, 4) & 0xFFFF, be32(tag, 8)),
                Tag::Narrow(_) => (be32(tag, 4) & 0xFFFF, 0),
            };
            let checksum = match kind {
                Tag::Checked => Some(be32(tag, 12)),
                _ => self.log.seed.map(|_| be32(tag, 4) >> 16),
            };
            let place = self.step();
            let escaped = flags & ESCAPED != 0;
            let number = u64::from(high) << 32 | u64::from(be32(tag, 0));
            written.push(Written { block: number, sequence, place, escaped, checksum });
            at += kind.len() + if flags & SAME_UUID == 0 { 16 } else { 0 };
            if flags & LAST != 0 {
                break;
            }
        }
    }

    fn revoke(&self, block: &[u8], sequence: u32, revoked: &mut BTreeMap<u64, u32>) {
        let end = index(u64::from(be32(block, HEADER))).min(self.log.end(block));
        let len = self.log.number;
        let mut at = HEADER + 4;
        while at + len <= end {
            let number = match len {
                4 => u64::from(be32(block, at)),
                _ => u64::from(be32(block, at)) << 32 | u64::from(be32(block, at + 4)),
            };
            revoked.insert(number, sequence);
            at += len;
        }
    }
}

/// Whether a transaction comes after another; their numbers go round.
fn is_after(one: u32, other: u32) -> bool {
    one.wrapping_sub(other).cast_signed() > 0
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests;
