//! An ext4 file system being read: its blocks, groups and inodes by number, each checked as it is read.
//!
//! Nothing that an image says is believed: numbers are checked before they are used, checksums where there are any, and a
//! block that holds a tree's node or a directory's entries serves once. So what is read is bounded by what is stored,
//! and nothing goes round in circles. Decides nothing about files (see `reader` and `dump`).

use std::collections::HashSet;
use std::rc::Rc;

use super::error::Error;
use super::facts::Facts;
use super::format::{Checksum, TYPE_MASK, index, wide};
use super::group::{BLOCK_UNINIT, Descriptor, INODE_UNINIT};
use super::inode::{Record, UNREAD};
use super::superblock::{OFFSET, SIZE};
use super::xattr;
use crate::tree::ReadAt;

/// Blocks kept in memory, each in the slot that its number names: inodes and descriptors lie side by side.
const SLOTS: u64 = 64;

/// An open file system.
#[derive(Debug)]
pub(super) struct Volume<'a> {
    image: &'a dyn ReadAt,
    pub(super) facts: Facts,
    cache: Vec<Option<(u64, Rc<[u8]>)>>,
    /// Blocks that belong to one inode and have been read as such.
    taken: HashSet<u64>,
    /// Bytes of xattrs that may still be read: any number of inodes may share a block of them.
    xattr_room: usize,
}

/// Bytes of all xattrs together: 256 of each of 4 million files.
const MAX_XATTRS: usize = 1 << 30;

impl<'a> Volume<'a> {
    pub(super) fn open(image: &'a dyn ReadAt) -> Result<Volume<'a>, Error> {
        let size = image.size().map_err(|source| Error::Read { at: 0, source })?;
        let mut bytes = [0; SIZE];
        if size < wide(OFFSET + SIZE) {
            return Err(Error::damaged(size, "the image ends before its superblock"));
        }
        read(image, &mut bytes, wide(OFFSET))?;
        let facts = Facts::decode(&bytes, size)?;
        Ok(Volume { image, facts, cache: vec![None; index(SLOTS)], taken: HashSet::new(), xattr_room: MAX_XATTRS })
    }

    /// The bytes of a block.
    pub(super) fn block(&mut self, place: u64) -> Result<Rc<[u8]>, Error> {
        let slot = index(place % SLOTS);
        if let Some((kept, bytes)) = &self.cache[slot]
            && *kept == place
        {
            return Ok(Rc::clone(bytes));
        }
        let mut bytes = vec![0; self.facts.block_size];
        read(self.image, &mut bytes, self.offset(place))?;
        let bytes: Rc<[u8]> = bytes.into();
        self.cache[slot] = Some((place, Rc::clone(&bytes)));
        Ok(bytes)
    }

    /// The bytes of a block that belongs to one inode alone: the second who claims it is refused.
    pub(super) fn own_block(&mut self, place: u64, inode: u32) -> Result<Rc<[u8]>, Error> {
        if !self.holds(place, 1) {
            return Err(self.damaged(place, inode, "a block beyond the end of the file system"));
        }
        if !self.taken.insert(place) {
            return Err(self.damaged(place, inode, "a block that is in use already"));
        }
        self.block(place)
    }

    /// Whether these blocks exist.
    pub(super) fn holds(&self, first: u64, len: u64) -> bool {
        first >= self.facts.first_block && first.checked_add(len).is_some_and(|end| end <= self.facts.blocks)
    }

    /// Where a block lies, bytes. Blocks were checked, or come from such numbers.
    pub(super) fn offset(&self, place: u64) -> u64 {
        place.saturating_mul(wide(self.facts.block_size))
    }

    pub(super) fn group(&mut self, group: u64) -> Result<Descriptor, Error> {
        let at = self.facts.descriptor_at(group);
        let (block, within) = (at / wide(self.facts.block_size), index(at % wide(self.facts.block_size)));
        let wrong = |what: &str| Error::damaged(at, format_args!("descriptor of group {group}: {what}"));
        if !self.holds(block, 1) {
            return Err(wrong("it lies beyond the end of the file system"));
        }
        let bytes = self.block(block)?;
        let bytes = &bytes[within..within + self.facts.descriptor_size];
        Descriptor::decode(bytes, group, self.facts.seed).ok_or_else(|| wrong("its checksum is wrong"))
    }

    /// The inode of this number, which is in use.
    pub(super) fn inode(&mut self, number: u32) -> Result<Record, Error> {
        if number == 0 || number > self.facts.inodes {
            return Err(Error::damaged(wide(OFFSET), format_args!("there is no inode {number}")));
        }
        let (group, within) = self.facts.inode_place(number);
        let table = self.group(group)?.inode_table;
        let size = wide(self.facts.block_size);
        let block = table.saturating_add(within / size);
        let at = self.offset(block).saturating_add(within % size);
        if !self.holds(block, 1) {
            return Err(Error::damaged(at, format_args!("inode {number} lies beyond the end of the file system")));
        }
        let bytes = self.block(block)?;
        let within = index(within % size);
        let record = Record::decode(&bytes[within..within + self.facts.inode_size], number, self.facts.seed)
            .map_err(|what| Error::damaged(at, format_args!("inode {number}: {what}")))?;
        if record.mode & TYPE_MASK == 0 || record.links == 0 {
            return Err(Error::damaged(at, format_args!("inode {number} is named but not in use")));
        }
        match UNREAD.iter().find(|(flag, _)| record.flags & flag != 0) {
            Some((_, what)) => Err(Error::Unread { inode: number, at, what }),
            None => Ok(record),
        }
    }

    /// The start of the checksums of an inode's own blocks.
    pub(super) fn seed_of(&self, number: u32, record: &Record) -> Option<Checksum> {
        self.facts.seed.map(|seed| seed.of_inode(number, record.generation))
    }

    /// Names and values, those in the inode first.
    pub(super) fn xattrs(&mut self, number: u32, record: &Record) -> Result<xattr::Pairs, Error> {
        let (group, within) = self.facts.inode_place(number);
        let at = self.group(group)?.inode_table;
        let at = self.offset(at).saturating_add(within);
        let mut found = xattr::decode_body(&record.xattrs)
            .map_err(|what| Error::damaged(at, format_args!("xattrs of inode {number}: {what}")))?;
        let place = record.xattr_block;
        if place != 0 {
            let at = self.offset(place);
            let wrong = |what: &str| Error::damaged(at, format_args!("xattr block of inode {number}: {what}"));
            if !self.holds(place, 1) {
                return Err(wrong("it lies beyond the end of the file system"));
            }
            let block = self.block(place)?;
            found.extend(xattr::decode_block(&block, place, self.facts.seed).map_err(wrong)?);
        }
        let bytes = found.iter().map(|(name, value)| name.len() + value.len()).sum();
        let left = self.xattr_room.checked_sub(bytes);
        self.xattr_room = left.ok_or_else(|| {
            Error::damaged(at, format_args!("with those of inode {number} there is more than 1 GiB of xattrs"))
        })?;
        Ok(found)
    }

    /// Compares the bitmaps of a group with their checksums; no file is found by them.
    pub(super) fn check_bitmaps(&mut self, group: u64, descriptor: &Descriptor) -> Result<(), Error> {
        let Some(seed) = self.facts.seed else { return Ok(()) };
        let (inode_bytes, block_bytes) = self.facts.bitmap_bytes();
        let mask = if self.facts.descriptor_size >= 64 { u32::MAX } else { 0xFFFF };
        for (uninit, place, len, checksum) in [
            (BLOCK_UNINIT, descriptor.block_bitmap, block_bytes, descriptor.block_bitmap_checksum),
            (INODE_UNINIT, descriptor.inode_bitmap, inode_bytes, descriptor.inode_bitmap_checksum),
        ] {
            if descriptor.flags & uninit != 0 {
                continue;
            }
            let at = self.offset(place);
            let sound = self.holds(place, 1) && seed.add(&self.block(place)?[..len]).value() & mask == checksum;
            if !sound {
                return Err(Error::damaged(at, format_args!("bitmap of group {group}")));
            }
        }
        Ok(())
    }

    /// What is wrong with a block of an inode.
    pub(super) fn damaged(&self, place: u64, inode: u32, what: impl std::fmt::Display) -> Error {
        Error::damaged(self.offset(place), format_args!("inode {inode}: {what}"))
    }
}

fn read(image: &dyn ReadAt, bytes: &mut [u8], at: u64) -> Result<(), Error> {
    image.read_exact_at(bytes, at).map_err(|source| Error::Read { at, source })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs::File;

    use super::super::{Options, write};
    use super::*;
    use crate::tree::{Kind, Meta, Node, ROOT, Tree};

    #[test]
    fn xattrs_are_counted_together() {
        let mut tree = Tree::new(Meta::default());
        for name in [b"a", b"b"] {
            let xattrs = BTreeMap::from([(b"user.large".to_vec(), vec![1; 2000])]);
            tree.insert(ROOT, name, Node { meta: Meta { xattrs, ..Meta::default() }, kind: Kind::Fifo });
        }
        let file: File = tempfile::tempfile().unwrap();
        write(&tree, &Options { journal: false, ..Options::default() }, &file, &mut |_, _| {}).unwrap();
        let mut volume = Volume::open(&file).unwrap();
        volume.xattr_room = 3000;
        let mut errors = Vec::new();
        for number in 11..=volume.facts.inodes {
            if let Ok(record) = volume.inode(number) {
                errors.extend(volume.xattrs(number, &record).err().map(|error| error.to_string()));
            }
        }
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].ends_with("there is more than 1 GiB of xattrs"), "{errors:?}");
    }
}
