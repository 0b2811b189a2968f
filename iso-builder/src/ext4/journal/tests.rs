//! Journals made by hand: what a ring is, and which transactions count. What `debugfs` writes: tests/ext4/journal.rs.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::super::{Options, Size, write};
use super::*;
use crate::tree::{Meta, Tree};

const BLOCK: usize = 4096;
/// Blocks of the ring that the tests have, the first of them, and where a scan starts: near its end.
const RING: u32 = 12;
const START: u32 = 8;

/// An image with a journal that has no checksums.
struct Made {
    file: File,
    /// Where the journal lies, bytes.
    at: u64,
    /// The next block, and the number of the next transaction.
    next: u32,
    sequence: u32,
}

impl Made {
    fn new(sequence: u32) -> Made {
        let file = tempfile::tempfile().unwrap();
        let options = Options { size: Size::Exactly(32 << 20), ..Options::default() };
        write(&Tree::new(Meta::default()), &options, &file, &mut |_, _| {}).unwrap();
        let mut sb = [0; 1024];
        FileExt::read_exact_at(&file, &mut sb, 1024).unwrap();
        sb[0x60] |= 0x4;
        let checksum = Checksum::START.add(&sb[..0x3FC]).value();
        sb[0x3FC..].copy_from_slice(&checksum.to_le_bytes());
        file.write_all_at(&sb, 1024).unwrap();
        let mut volume = Volume::open(&file).unwrap();
        let record = volume.inode(volume.facts.unreplayed.unwrap()).unwrap();
        let at = map::read(&mut volume, 8, &record).unwrap().extents[0].physical * wide(BLOCK);
        let made = Made { file, at, next: START, sequence };
        made.field(0x10, RING);
        made.field(0x18, sequence);
        made.field(0x1C, START);
        made.field(0x28, 0x1 | WIDE);
        made
    }

    /// A field of the journal's superblock.
    fn field(&self, at: u64, value: u32) {
        self.file.write_all_at(&value.to_be_bytes(), self.at + at).unwrap();
    }

    fn put(&mut self, words: &[u32]) {
        let mut block = [0; BLOCK];
        for (place, word) in block.chunks_mut(4).zip(words) {
            place.copy_from_slice(&word.to_be_bytes());
        }
        self.file.write_all_at(&block, self.at + u64::from(self.next) * wide(BLOCK)).unwrap();
        self.next = if self.next + 1 == RING { 1 } else { self.next + 1 };
    }

    fn own(&mut self, kind: u32, words: &[u32]) {
        self.put(&[&[MAGIC, kind, self.sequence], words].concat());
    }

    /// Blocks with a word each.
    fn write(&mut self, blocks: &[(u32, u32)]) {
        let last = blocks.len() - 1;
        let tag = |(at, &(block, _)): (usize, &(u32, u32))| [block, SAME_UUID | if at == last { LAST } else { 0 }, 0];
        let tags: Vec<u32> = blocks.iter().enumerate().flat_map(tag).collect();
        self.own(DESCRIPTOR, &tags);
        blocks.iter().for_each(|&(_, word)| self.put(&[word]));
    }

    fn revoke(&mut self, block: u32) {
        self.own(REVOKE, &[24, 0, block]);
    }

    fn commit(&mut self) {
        self.own(COMMIT, &[]);
        self.sequence = self.sequence.wrapping_add(1);
    }

    /// The words that lie at these blocks.
    fn read(&self, blocks: &[u64]) -> Vec<u32> {
        let replay = Replay::of(&self.file).unwrap();
        let image = replay.through(&self.file);
        let word = |block: &u64| {
            let mut bytes = [0; 4];
            image.read_exact_at(&mut bytes, block * wide(BLOCK)).unwrap();
            u32::from_be_bytes(bytes)
        };
        blocks.iter().map(word).collect()
    }
}

#[test]
fn the_journal_is_a_ring_and_its_numbers_go_round() {
    let mut made = Made::new(u32::MAX);
    made.write(&[(7000, 1), (7001, 2)]);
    made.commit();
    assert_eq!(made.next, 1);
    made.write(&[(7001, 3)]);
    made.revoke(7000);
    made.commit();
    assert_eq!(made.read(&[7000, 7001, 7002]), [0, 3, 0]);
    // what is written again after it was revoked counts
    made.write(&[(7000, 4)]);
    made.commit();
    assert_eq!(made.read(&[7000, 7001]), [4, 3]);
}

#[test]
fn what_was_not_committed_does_not_count() {
    let mut made = Made::new(5);
    made.write(&[(7000, 1)]);
    made.commit();
    made.write(&[(7000, 2)]);
    made.revoke(7000);
    assert_eq!(made.read(&[7000]), [1]);
    // a transaction of an earlier round
    made.sequence = 3;
    made.commit();
    assert_eq!(made.read(&[7000]), [1]);
}

#[test]
fn reads_may_begin_and_end_anywhere() {
    let mut made = Made::new(1);
    made.write(&[(7001, 0x0102_0304), (7003, 0x0506_0708)]);
    made.commit();
    let replay = Replay::of(&made.file).unwrap();
    let image = replay.through(&made.file);
    let mut bytes = vec![9; 3 * BLOCK];
    image.read_exact_at(&mut bytes, 7001 * wide(BLOCK) - 2).unwrap();
    assert_eq!((&bytes[..7], &bytes[2 * BLOCK + 2..][..3]), (&[0, 0, 1, 2, 3, 4, 0][..], &[5, 6, 7][..]));
    let mut end = [9; 2];
    image.read_exact_at(&mut end, 7003 * wide(BLOCK) + 2).unwrap();
    assert_eq!(end, [7, 8]);
}

#[test]
fn a_ring_without_an_end_ends() {
    let mut made = Made::new(1);
    for _ in 0..RING {
        made.own(REVOKE, &[16]);
    }
    assert_eq!(made.read(&[7000]), [0]);
}

#[test]
fn what_is_not_read_is_told() {
    let said = |at, value| {
        let made = Made::new(1);
        made.field(at, value);
        Replay::of(&made.file).unwrap_err().to_string()
    };
    for (at, value, expected) in [
        (0x00, 1, "none of the second version"),
        (0x0C, 1024, "of another size"),
        (0x28, FAST_COMMIT, "fast_commit"),
        (0x28, 0x40, "the features 0x40"),
        (0x24, CSUM_V1, "of the first version"),
        (0x28, CSUM_V3, "the checksum of its superblock"),
        (0x1C, RING, "blocks that it does not have"),
        (0x10, u32::MAX, "blocks that it does not have"),
    ] {
        let said = said(at, value);
        assert!(said.contains(expected) && said.contains("run e2fsck"), "{said}");
    }
    let mut made = Made::new(1);
    made.write(&[(100_000, 1)]);
    made.commit();
    assert!(Replay::of(&made.file).unwrap_err().to_string().contains("beyond the end"));
}
