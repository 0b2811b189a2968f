//! Reads an image of our own making back, checking every checksum on the way.
//!
//! For [`dump`](super::dump()) and tests. Knows only what the writer writes: it is no general reader of ext4, and no
//! judge of the writer (`e2fsck` is).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::directory;
use super::error::Error;
use super::extent::{self, Entry, Extent};
use super::format::{BLOCK, BLOCK_BYTES, Checksum, DESCRIPTOR_SIZE, GROUP_BLOCKS, INODE_SIZE, index, wide};
use super::group::{BLOCK_UNINIT, Descriptor, INODE_UNINIT};
use super::htree;
use super::inode::{EXTENTS, INDEXED, Record};
use super::superblock::{self, Superblock};
use super::xattr;

/// An open image.
#[derive(Debug)]
pub(super) struct Image<'a> {
    file: &'a File,
    pub(super) superblock: Superblock,
    pub(super) groups: Vec<Descriptor>,
    seed: Checksum,
}

/// The extents of an inode and the blocks of their tree.
#[derive(Debug, Default)]
pub(super) struct Map {
    pub(super) extents: Vec<Extent>,
    pub(super) tree: Vec<u64>,
}

impl<'a> Image<'a> {
    /// Reads superblock, descriptors and bitmaps.
    pub(super) fn open(file: &'a File) -> Result<Image<'a>, Error> {
        let mut bytes = [0; superblock::SIZE];
        read(file, &mut bytes, wide(superblock::OFFSET))?;
        let superblock = Superblock::decode(&bytes).ok_or_else(|| damaged("superblock"))?;
        let seed = Checksum::seed(&superblock.uuid);
        let groups = superblock.blocks.div_ceil(GROUP_BLOCKS);
        let mut table = vec![0; index(groups) * DESCRIPTOR_SIZE];
        read(file, &mut table, BLOCK_BYTES)?;
        let groups = (0..).zip(table.chunks(DESCRIPTOR_SIZE)).map(|(group, bytes)| {
            Descriptor::decode(bytes, group, seed).ok_or_else(|| damaged(format_args!("descriptor of group {group}")))
        });
        let image = Image { file, groups: groups.collect::<Result<_, _>>()?, superblock, seed };
        image.groups.iter().enumerate().try_for_each(|(group, descriptor)| image.check_bitmaps(group, descriptor))?;
        Ok(image)
    }

    pub(super) fn inode(&self, number: u32) -> Result<Record, Error> {
        let what = || damaged(format_args!("inode {number}"));
        let place = number.checked_sub(1).ok_or_else(what)?;
        let per_group = self.superblock.inodes_per_group;
        let group = self.groups.get(index(u64::from(place / per_group))).ok_or_else(what)?;
        let mut bytes = [0; INODE_SIZE];
        let within = u64::from(place % per_group) * wide(INODE_SIZE);
        read(self.file, &mut bytes, group.inode_table * BLOCK_BYTES + within)?;
        Record::decode(&bytes, number, self.seed).ok_or_else(what)
    }

    /// Names and values, those in the inode first.
    pub(super) fn xattrs(&self, number: u32, record: &Record) -> Result<xattr::Pairs, Error> {
        let what = || damaged(format_args!("xattrs of inode {number}"));
        let mut found = xattr::decode_body(&record.xattrs).ok_or_else(what)?;
        if record.xattr_block != 0 {
            let block = self.block(record.xattr_block)?;
            found.extend(xattr::decode_block(&block, record.xattr_block, self.seed).ok_or_else(what)?);
        }
        Ok(found)
    }

    pub(super) fn map(&self, number: u32, record: &Record) -> Result<Map, Error> {
        let mut map = Map::default();
        if record.flags & EXTENTS == 0 {
            return Ok(map);
        }
        let what = || damaged(format_args!("extents of inode {number}"));
        let mut waiting = extent::decode(&record.block).ok_or_else(what)?;
        waiting.reverse();
        while let Some(entry) = waiting.pop() {
            match entry {
                Entry::Leaf(extent) => map.extents.push(extent),
                Entry::Index { child, .. } => {
                    let block = self.block(child)?;
                    if !extent::verify(&block, self.seed.of_inode(number)) {
                        return Err(what());
                    }
                    map.tree.push(child);
                    waiting.extend(extent::decode(&block).ok_or_else(what)?.into_iter().rev());
                }
            }
        }
        Ok(map)
    }

    /// The entries of a directory but `.` and `..`, in order of name.
    pub(super) fn directory(&self, number: u32, record: &Record, map: &Map) -> Result<Vec<(Vec<u8>, u32)>, Error> {
        let what = || damaged(format_args!("directory of inode {number}"));
        let seed = self.seed.of_inode(number);
        let places: Vec<u64> =
            map.extents.iter().flat_map(|extent| extent.physical..extent.physical + u64::from(extent.len)).collect();
        let block = |block: u32| self.block(*places.get(index(u64::from(block))).ok_or_else(what)?);
        let pointers = |number| htree::decode(&block(number)?, number, seed).ok_or_else(what);
        let leaves: Vec<u32> = if record.flags & INDEXED == 0 {
            (0..).take(places.len()).collect()
        } else {
            match pointers(0)? {
                (0, leaves) => leaves,
                (_, nodes) => {
                    let below = nodes.into_iter().map(|node| Ok(pointers(node)?.1));
                    below.collect::<Result<Vec<_>, Error>>()?.concat()
                }
            }
        };
        let mut found = Vec::new();
        for leaf in leaves {
            let block = block(leaf)?;
            let entries = directory::decode(&block, seed).ok_or_else(what)?;
            let named = entries.iter().filter(|entry| !matches!(entry.name, b"." | b".."));
            found.extend(named.map(|entry| (entry.name.to_vec(), entry.inode)));
        }
        found.sort();
        Ok(found)
    }

    pub(super) fn block(&self, place: u64) -> Result<[u8; BLOCK], Error> {
        let mut bytes = [0; BLOCK];
        read(self.file, &mut bytes, place * BLOCK_BYTES)?;
        Ok(bytes)
    }

    fn check_bitmaps(&self, group: usize, descriptor: &Descriptor) -> Result<(), Error> {
        let inode_bytes = index(u64::from(self.superblock.inodes_per_group / 8));
        for (uninit, place, len, checksum) in [
            (BLOCK_UNINIT, descriptor.block_bitmap, BLOCK, descriptor.block_bitmap_checksum),
            (INODE_UNINIT, descriptor.inode_bitmap, inode_bytes, descriptor.inode_bitmap_checksum),
        ] {
            let bits = self.block(place)?;
            if descriptor.flags & uninit == 0 && self.seed.add(&bits[..len]).value() != checksum {
                return Err(damaged(format_args!("bitmap of group {group}")));
            }
        }
        Ok(())
    }
}

fn damaged(what: impl std::fmt::Display) -> Error {
    Error::Damaged { what: what.to_string() }
}

fn read(file: &File, bytes: &mut [u8], at: u64) -> Result<(), Error> {
    file.read_exact_at(bytes, at).map_err(|source| match source.kind() {
        io::ErrorKind::UnexpectedEof => damaged(format_args!("nothing at byte {at}")),
        _ => Error::Read { source },
    })
}
