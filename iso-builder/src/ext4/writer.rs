//! Writes the bytes of a planned image: contents first, then inode tables, then what counts them.
//!
//! Decides nothing that a layout has not decided; its input is complete.

use std::fs::File;

use super::directory;
use super::error::Error;
use super::extent;
use super::format::{
    BLOCK, BLOCK_BYTES, Checksum, FIRST_INODE, INODE_SIZE, INODES_PER_BLOCK, JOURNAL_INODE, REGULAR, ROOT_INODE, index,
    wide,
};
use super::geometry::Geometry;
use super::group::{BLOCK_UNINIT, Descriptor, INODE_UNINIT, TABLE_ZEROED, bitmap};
use super::inode::{EXTENTS, INDEXED, Record, encode_device};
use super::inodes::{Inodes, mode};
use super::layout::Layout;
use super::name_hash::NameHash;
use super::sink::Sink;
use super::superblock::{self, JournalCopy, Superblock};
use super::survey::{CHUNK, FAST_SYMLINK};
use super::xattr;
use crate::tree::{Content, Kind, Time};

/// What is said about a file system besides its files.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub(super) uuid: [u8; 16],
    pub(super) hash_seed: [u8; 16],
    pub(super) label: [u8; 16],
    pub(super) time: Time,
}

/// Writes the image and tells how many bytes it took. `done` is told the bytes of contents written.
pub(super) fn write(
    inodes: &Inodes<'_>,
    layout: &Layout,
    identity: &Identity,
    out: &File,
    done: &mut dyn FnMut(u64),
) -> Result<u64, Error> {
    let seed = Checksum::seed(&identity.uuid);
    let sink = Sink::new(out, layout.size)?;
    let mut writer = Writer { inodes, layout, identity, seed, sink, chunk: Vec::new() };
    for place in 0..inodes.list().len() {
        writer.contents(place, done)?;
    }
    writer.journal()?;
    writer.inode_tables()?;
    writer.groups()?;
    writer.sink.finish()
}

struct Writer<'a> {
    inodes: &'a Inodes<'a>,
    layout: &'a Layout,
    identity: &'a Identity,
    seed: Checksum,
    sink: Sink<'a>,
    /// Part of a file, on its way.
    chunk: Vec<u8>,
}

impl Writer<'_> {
    /// Writes what an inode has outside of the inode table.
    fn contents(&mut self, index: usize, done: &mut dyn FnMut(u64)) -> Result<(), Error> {
        let inode = &self.inodes.list()[index];
        let place = &self.layout.places[index];
        let seed = self.seed.of_inode(inode.number, 0);
        if let Some(block) = place.xattr {
            let stored = xattr::store(&inode.node.meta.xattrs)
                .map_err(|reason| Error::Unfit { path: self.inodes.path(index), reason })?;
            let mut bytes = stored.block.expect("the survey saw it");
            xattr::seal(&mut *bytes, block, self.seed);
            self.sink.put(block, &*bytes)?;
        }
        match &inode.node.kind {
            Kind::Dir(_) => {
                let entries: Vec<_> = self.inodes.entries(index).collect();
                let parent = self.inodes.list()[inode.parent].number;
                let hash = NameHash::new(&self.identity.hash_seed);
                self.spread(index, &directory::encode(inode.number, parent, &entries, hash, seed))?;
            }
            Kind::Symlink(target) if target.len() > FAST_SYMLINK => {
                let mut bytes = [0; BLOCK];
                bytes[..target.len()].copy_from_slice(target);
                self.spread(index, &[bytes])?;
            }
            Kind::File(content) => self.file(index, content, done)?,
            _ => {}
        }
        let (_, tree) = extent::encode(&place.extents, &place.tree, seed);
        tree.iter().try_for_each(|(block, bytes)| self.sink.put(*block, bytes))
    }

    /// Puts the blocks of an inode without holes where its extents are.
    fn spread(&mut self, index: usize, blocks: &[[u8; BLOCK]]) -> Result<(), Error> {
        let extents = &self.layout.places[index].extents;
        let places = extents.iter().flat_map(|extent| extent.physical..extent.physical + u64::from(extent.len));
        places.zip(blocks).try_for_each(|(place, bytes)| self.sink.put(place, bytes))
    }

    fn file(&mut self, place: usize, content: &Content, done: &mut dyn FnMut(u64)) -> Result<(), Error> {
        for extent in &self.layout.places[place].extents {
            let start = u64::from(extent.logical) * BLOCK_BYTES;
            let end = (start + u64::from(extent.len) * BLOCK_BYTES).min(content.size);
            for at in (start..end).step_by(index(CHUNK)) {
                let len = CHUNK.min(end - at);
                self.chunk.resize(index(len), 0);
                content
                    .read_exact_at(&mut self.chunk, at)
                    .map_err(|source| Error::Contents { path: self.inodes.path(place), source })?;
                self.chunk.resize(index(len.next_multiple_of(BLOCK_BYTES)), 0);
                self.sink.put(extent.physical + (at - start) / BLOCK_BYTES, &self.chunk)?;
                done(len);
            }
        }
        Ok(())
    }

    /// Writes the first block of the journal; the others stay holes.
    fn journal(&mut self) -> Result<(), Error> {
        let blocks = self.layout.journal.iter().map(|extent| extent.len).sum();
        match self.layout.journal.first() {
            Some(first) => self.sink.put(first.physical, &superblock::encode_journal(blocks, &self.identity.uuid)),
            None => Ok(()),
        }
    }

    /// Writes every inode in use to its group's table.
    fn inode_tables(&mut self) -> Result<(), Error> {
        let geometry = &self.layout.geometry;
        let last = u32::try_from(self.layout.used_inodes()).expect("inodes have numbers of 32 bits");
        let mut block = [0; BLOCK];
        for number in 1..=last {
            let within = (number - 1) % geometry.inodes_per_group;
            let slot = within % INODES_PER_BLOCK;
            if let Some(record) = self.record(number)? {
                let at = index(u64::from(slot)) * INODE_SIZE;
                block[at..at + INODE_SIZE].copy_from_slice(&record.encode(number, self.seed));
            }
            if slot == INODES_PER_BLOCK - 1 || number == last {
                let group = u64::from((number - 1) / geometry.inodes_per_group);
                self.sink.put(geometry.inode_table(group) + u64::from(within / INODES_PER_BLOCK), &block)?;
                block = [0; BLOCK];
            }
        }
        Ok(())
    }

    /// The inode of this number; reserved ones that mean nothing here are zeros.
    fn record(&self, number: u32) -> Result<Option<Record>, Error> {
        let place = match number {
            ROOT_INODE => 0,
            JOURNAL_INODE => return Ok(self.journal_record()),
            FIRST_INODE.. => index(u64::from(number - FIRST_INODE)) + 1,
            _ => return Ok(None),
        };
        let inode = &self.inodes.list()[place];
        let meta = &inode.node.meta;
        let blocks = &self.layout.places[place];
        let stored =
            xattr::store(&meta.xattrs).map_err(|reason| Error::Unfit { path: self.inodes.path(place), reason })?;
        let data_size = blocks.extents.iter().map(|extent| u64::from(extent.len) * BLOCK_BYTES).sum();
        let tree = || (EXTENTS, extent::encode(&blocks.extents, &blocks.tree, self.seed).0);
        let (size, (flags, block)) = match &inode.node.kind {
            Kind::Dir(_) if directory::is_indexed(self.inodes.entries(place)) => {
                (data_size, (EXTENTS | INDEXED, tree().1))
            }
            Kind::Dir(_) => (data_size, tree()),
            Kind::File(content) => (content.size, tree()),
            Kind::Symlink(target) if target.len() > FAST_SYMLINK => (wide(target.len()), tree()),
            Kind::Symlink(target) => {
                let mut block = [0; 60];
                block[..target.len()].copy_from_slice(target);
                (wide(target.len()), (0, block))
            }
            &(Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor }) => {
                (0, (0, encode_device(major, minor).expect("devices were checked")))
            }
            Kind::Fifo | Kind::Socket => (0, (0, [0; 60])),
        };
        Ok(Some(Record {
            mode: mode(inode.node),
            uid: meta.uid,
            gid: meta.gid,
            size,
            mtime: meta.mtime,
            links: inode.links,
            sectors: blocks.sectors(),
            flags,
            block,
            xattr_block: blocks.xattr.unwrap_or(0),
            xattrs: stored.body,
            generation: 0,
        }))
    }

    fn journal_record(&self) -> Option<Record> {
        let copy = self.journal_copy()?;
        Some(Record {
            mode: REGULAR | 0o600,
            uid: 0,
            gid: 0,
            size: copy.size,
            mtime: self.identity.time,
            links: 1,
            sectors: copy.size / 512,
            flags: EXTENTS,
            block: copy.extents,
            xattr_block: 0,
            xattrs: Vec::new(),
            generation: 0,
        })
    }

    fn journal_copy(&self) -> Option<JournalCopy> {
        let extents = &self.layout.journal;
        let blocks: u64 = extents.iter().map(|extent| u64::from(extent.len)).sum();
        let (root, _) = extent::encode(extents, &[], self.seed);
        (blocks != 0).then_some(JournalCopy { extents: root, size: blocks * BLOCK_BYTES })
    }

    /// Writes bitmaps, descriptors and superblocks.
    fn groups(&mut self) -> Result<(), Error> {
        let geometry = &self.layout.geometry;
        let mut directories = vec![0u32; index(geometry.groups)];
        for inode in self.inodes.list().iter().filter(|inode| matches!(inode.node.kind, Kind::Dir(_))) {
            directories[index(u64::from((inode.number - 1) / geometry.inodes_per_group))] += 1;
        }
        let mut descriptors = Vec::new();
        for (group, directories) in (0..).zip(directories) {
            let descriptor = Descriptor { directories, ..self.group(group)? };
            descriptors.extend_from_slice(&descriptor.encode(group, self.seed));
        }
        descriptors.resize(index(geometry.descriptor_blocks()) * BLOCK, 0);
        let superblock = self.superblock();
        for group in (0..geometry.groups).filter(|&group| Geometry::has_superblock(group)) {
            let mut block = [0; BLOCK];
            let at = if group == 0 { superblock::OFFSET } else { 0 };
            block[at..at + superblock::SIZE].copy_from_slice(&superblock.encode(group));
            self.sink.put(geometry.start(group), &block)?;
            self.sink.put(geometry.start(group) + 1, &descriptors)?;
        }
        Ok(())
    }

    /// Writes the bitmaps of a group unless they follow from the geometry, and counts what is free in it.
    fn group(&mut self, group: u64) -> Result<Descriptor, Error> {
        let geometry = &self.layout.geometry;
        let (used, len) = (self.layout.used(group), geometry.len(group));
        let per_group = u64::from(geometry.inodes_per_group);
        let used_inodes = self.layout.used_inodes().saturating_sub(group * per_group).min(per_group);
        let unused = u32::try_from(per_group - used_inodes).expect("at most inodes_per_group");
        let mut descriptor = Descriptor {
            block_bitmap: geometry.block_bitmap(group),
            inode_bitmap: geometry.inode_bitmap(group),
            inode_table: geometry.inode_table(group),
            free_blocks: u32::try_from(len - used).expect("at most GROUP_BLOCKS"),
            free_inodes: unused,
            unused_inodes: unused,
            flags: TABLE_ZEROED,
            ..Descriptor::default()
        };
        // The kernel can work a bitmap out if the group holds no metadata but its own copies. The last group's also
        // has padding, and is written as mke2fs writes it.
        let plain = used == geometry.overhead(group) && !geometry.leads_bundle(group) && group + 1 < geometry.groups;
        if plain {
            descriptor.flags |= BLOCK_UNINIT;
        } else {
            let bits = bitmap(index(used), index(len));
            descriptor.block_bitmap_checksum = self.seed.add(&bits).value();
            self.sink.put(descriptor.block_bitmap, &bits)?;
        }
        if used_inodes == 0 {
            descriptor.flags |= INODE_UNINIT;
        } else {
            let bits = bitmap(index(used_inodes), index(per_group));
            descriptor.inode_bitmap_checksum = self.seed.add(&bits[..index(per_group / 8)]).value();
            self.sink.put(descriptor.inode_bitmap, &bits)?;
        }
        Ok(descriptor)
    }

    fn superblock(&self) -> Superblock {
        let geometry = &self.layout.geometry;
        let inodes = |count: u64| u32::try_from(count).expect("inodes have numbers of 32 bits");
        Superblock {
            blocks: geometry.blocks,
            free_blocks: self.layout.free_blocks(),
            inodes: inodes(geometry.inodes()),
            free_inodes: inodes(geometry.inodes() - self.layout.used_inodes()),
            inodes_per_group: geometry.inodes_per_group,
            uuid: self.identity.uuid,
            hash_seed: self.identity.hash_seed,
            label: self.identity.label,
            time: u64::try_from(self.identity.time.secs).unwrap_or(0),
            journal: self.journal_copy(),
        }
    }
}
