//! Writes the bytes of a planned image: every inode with its contents, then what counts them.
//!
//! Decides nothing that a layout has not decided; its input is complete.

use std::fs::File;

use super::directory;
use super::error::Error;
use super::extent;
use super::format::{BLOCK, BLOCK_BYTES, Checksum, INODE_SIZE, INODES_PER_BLOCK, JOURNAL_INODE, REGULAR, index, wide};
use super::geometry::Geometry;
use super::group::{BLOCK_UNINIT, Descriptor, INODE_UNINIT, TABLE_ZEROED, bitmap};
use super::inode::{EXTENTS, INDEXED, Record, encode_device};
use super::inodes::{Inodes, mode, number};
use super::layout::{Layout, Place};
use super::name_hash::NameHash;
use super::pour::{Plan, Pour};
use super::sink::Sink;
use super::superblock::{self, JournalCopy, Superblock};
use super::survey::{CHUNK, FAST_SYMLINK, Needs};
use super::window::Window;
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
    needs: &Needs,
    layout: &Layout,
    identity: &Identity,
    out: &File,
    done: &mut dyn FnMut(u64),
) -> Result<u64, Error> {
    let seed = Checksum::seed(&identity.uuid);
    let sink = Sink::new(out, layout.size)?;
    let mut table = Table { geometry: &layout.geometry, seed, next: 1, block: [0; BLOCK], sink: sink.beside() };
    let mut pour = Pour::new(inodes);
    let mut writer =
        Writer { inodes, layout, identity, seed, sink, pour: &mut pour, poured: false, window: Window::default() };
    let mut places = layout.places();
    for index in 0..inodes.len() {
        let front = places.front();
        let place = places.next(needs.get(index));
        writer.poured = writer.pour.place(index, front);
        let record = writer.inode(index, &place, done)?;
        table.put(number(index), &record)?;
        if let (0, Some(record)) = (index, writer.journal_record()) {
            table.put(JOURNAL_INODE, &record)?;
        }
    }
    let tables = table.finish()?;
    let poured = writer.pour.run(Plan { inodes, needs, layout }, &writer.sink, done)?;
    writer.journal()?;
    writer.groups()?;
    Ok(tables + poured + writer.sink.finish()?)
}

/// The inode tables being filled, in order of number. Inodes left out are zeros: the reserved ones that mean nothing.
struct Table<'a> {
    geometry: &'a Geometry,
    seed: Checksum,
    next: u32,
    block: [u8; BLOCK],
    sink: Sink<'a>,
}

impl Table<'_> {
    fn put(&mut self, number: u32, record: &Record) -> Result<(), Error> {
        while self.next < number {
            self.advance()?;
        }
        let at = index(u64::from((number - 1) % INODES_PER_BLOCK)) * INODE_SIZE;
        self.block[at..at + INODE_SIZE].copy_from_slice(&record.encode(number, self.seed));
        self.advance()
    }

    /// Goes on to the next inode, and writes the block that is full.
    fn advance(&mut self) -> Result<(), Error> {
        if self.next.is_multiple_of(INODES_PER_BLOCK) {
            self.flush()?;
        }
        self.next += 1;
        Ok(())
    }

    /// Writes the block of the inode `next`.
    fn flush(&mut self) -> Result<(), Error> {
        let place = self.next - 1;
        let group = u64::from(place / self.geometry.inodes_per_group);
        let within = place % self.geometry.inodes_per_group / INODES_PER_BLOCK;
        self.sink.put(self.geometry.inode_table(group) + u64::from(within), &self.block)?;
        self.block = [0; BLOCK];
        Ok(())
    }

    fn finish(mut self) -> Result<u64, Error> {
        if !(self.next - 1).is_multiple_of(INODES_PER_BLOCK) {
            self.flush()?;
        }
        self.sink.finish()
    }
}

struct Writer<'a> {
    inodes: &'a Inodes<'a>,
    layout: &'a Layout,
    identity: &'a Identity,
    seed: Checksum,
    sink: Sink<'a>,
    pour: &'a mut Pour<'a>,
    /// Whether the present file is one that is poured later.
    poured: bool,
    window: Window,
}

impl Writer<'_> {
    /// Writes what an inode has outside of the inode table, and makes its record.
    fn inode(&mut self, index: usize, place: &Place, done: &mut dyn FnMut(u64)) -> Result<Record, Error> {
        let node = self.inodes.node(index);
        let meta = &node.meta;
        let seed = self.seed.of_inode(number(index), 0);
        let stored =
            xattr::store(&meta.xattrs).map_err(|reason| Error::Unfit { path: self.inodes.path(index), reason })?;
        if let Some(block) = place.xattr {
            let mut bytes = stored.block.expect("the survey saw it");
            xattr::seal(&mut *bytes, block, self.seed);
            self.sink.put(block, &*bytes)?;
        }
        let data_size = place.extents.iter().map(|extent| u64::from(extent.len) * BLOCK_BYTES).sum();
        let (root, tree) = extent::encode(&place.extents, &place.tree, seed);
        let (size, flags, block) = match &node.kind {
            Kind::Dir(_) => {
                let entries: Vec<_> = self.inodes.entries(index).collect();
                let parent = number(self.inodes.parent(index));
                let hash = NameHash::new(&self.identity.hash_seed);
                self.spread(place, &directory::encode(number(index), parent, &entries, hash, seed))?;
                let indexed = if directory::is_indexed(entries.iter().copied()) { INDEXED } else { 0 };
                (data_size, EXTENTS | indexed, root)
            }
            Kind::File(content) => {
                if !self.poured {
                    self.file(index, place, content, done)?;
                }
                (content.size, EXTENTS, root)
            }
            Kind::Symlink(target) if target.len() > FAST_SYMLINK => {
                let mut bytes = [0; BLOCK];
                bytes[..target.len()].copy_from_slice(target);
                self.spread(place, &[bytes])?;
                (wide(target.len()), EXTENTS, root)
            }
            Kind::Symlink(target) => {
                let mut block = [0; 60];
                block[..target.len()].copy_from_slice(target);
                (wide(target.len()), 0, block)
            }
            &(Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor }) => {
                (0, 0, encode_device(major, minor).expect("devices were checked"))
            }
            Kind::Fifo | Kind::Socket => (0, 0, [0; 60]),
        };
        tree.iter().try_for_each(|(block, bytes)| self.sink.put(*block, bytes))?;
        Ok(Record {
            mode: mode(node),
            uid: meta.uid,
            gid: meta.gid,
            size,
            mtime: meta.mtime,
            links: self.inodes.links(index),
            sectors: place.sectors(),
            flags,
            block,
            xattr_block: place.xattr.unwrap_or(0),
            xattrs: stored.body,
            generation: 0,
        })
    }

    /// Puts the blocks of an inode without holes where its extents are.
    fn spread(&mut self, place: &Place, blocks: &[[u8; BLOCK]]) -> Result<(), Error> {
        let places = place.extents.iter().flat_map(|extent| extent.physical..extent.physical + u64::from(extent.len));
        places.zip(blocks).try_for_each(|(place, bytes)| self.sink.put(place, bytes))
    }

    fn file(&mut self, inode: usize, place: &Place, content: &Content, done: &mut dyn FnMut(u64)) -> Result<(), Error> {
        for extent in &place.extents {
            let start = u64::from(extent.logical) * BLOCK_BYTES;
            let end = (start + u64::from(extent.len) * BLOCK_BYTES).min(content.size);
            for at in (start..end).step_by(index(CHUNK)) {
                let len = CHUNK.min(end - at);
                let bytes = self
                    .window
                    .read(content, at, index(len))
                    .map_err(|source| Error::Contents { path: self.inodes.path(inode), source })?;
                let (whole, rest) = bytes.split_at(bytes.len() / BLOCK * BLOCK);
                let place = extent.physical + (at - start) / BLOCK_BYTES;
                self.sink.put(place, whole)?;
                if !rest.is_empty() {
                    let mut last = [0; BLOCK];
                    last[..rest.len()].copy_from_slice(rest);
                    self.sink.put(place + wide(whole.len()) / BLOCK_BYTES, &last)?;
                }
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
        for place in (0..self.inodes.len()).filter(|&place| self.inodes.is_dir(place)) {
            directories[index(u64::from((number(place) - 1) / geometry.inodes_per_group))] += 1;
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
