//! An ext4 image becomes a [`Tree`] again: any image, ours or `mke2fs`'s or one that a kernel has written to.
//!
//! Contents are not read but named as extents of the image, so a tree of any image costs memory for its names only.
//! Images are not trusted: see `volume`. Decides which inodes are files; what lies in reserved ones is not.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use super::directory;
use super::error::Error;
use super::extent::Extent;
use super::format::{
    BLOCK_DEVICE, CHAR_DEVICE, DIRECTORY, FIFO, REGULAR, ROOT_INODE, SOCKET, SYMLINK, TYPE_MASK, wide,
};
use super::inode::{EXTENTS, Record, decode_device};
use super::journal::Replay;
use super::map::{self, Map};
use super::survey::FAST_SYMLINK;
use super::volume::Volume;
use super::{Options, Size};
use crate::tree::{self, Content, Kind, Meta, Node, NodeId, ROOT, ReadAt, Source, Time, Tree};

/// Names in a directory and the inodes that they name.
pub(super) type Names = Vec<(Vec<u8>, u32)>;

/// The files of an image, lost+found among them. What is hard-linked becomes one node.
///
/// Reads ext2, ext3 and ext4, of any block size; a feature or a file that it can not read is an error that names it, as
/// is a journal that the kernel would refuse.
pub fn read(image: &Arc<dyn ReadAt>) -> Result<Tree, Error> {
    let image = &Replay::of(&**image)?.over(image);
    let mut volume = Volume::open(&**image)?;
    let root = volume.inode(ROOT_INODE)?;
    if root.mode & TYPE_MASK != DIRECTORY {
        return Err(Error::damaged(0, "inode 2, the root, is not a directory"));
    }
    let mut tree = Tree::new(meta(&mut volume, ROOT_INODE, &root)?);
    let mut known: HashMap<u32, NodeId> = HashMap::from([(ROOT_INODE, ROOT)]);
    let mut waiting = VecDeque::from([(ROOT, ROOT_INODE, root)]);
    while let Some((dir, number, record)) = waiting.pop_front() {
        for (name, child) in entries(&mut volume, number, &record)?.1 {
            let refused = |what: &str| {
                Err(Error::damaged(0, format_args!("directory {number}: {what} `{}`", name.escape_ascii())))
            };
            if let Some(&id) = known.get(&child) {
                if tree.entries(id).is_some() {
                    return refused("a directory has a second name");
                }
                if tree.link(dir, &name, id).is_some() {
                    return refused("two files have the name");
                }
                continue;
            }
            let record = volume.inode(child)?;
            let meta = meta(&mut volume, child, &record)?;
            let kind = kind(image, &mut volume, child, &record)?;
            let id = tree.add(Node { meta, kind });
            if tree.link(dir, &name, id).is_some() {
                return refused("two files have the name");
            }
            known.insert(child, id);
            if record.mode & TYPE_MASK == DIRECTORY {
                waiting.push_back((id, child, record));
            }
        }
    }
    Ok(tree)
}

/// What an image is besides its files: written with this, other files are the same file system to whoever knows it.
pub fn options(image: &dyn ReadAt) -> Result<Options, Error> {
    let facts = Volume::open(image)?.facts;
    let label: Vec<u8> = facts.label.into_iter().take_while(|&byte| byte != 0).collect();
    Ok(Options {
        label: String::from_utf8_lossy(&label).into_owned(),
        size: Size::Exactly(facts.blocks * wide(facts.block_size)),
        journal: facts.has_journal,
        uuid: Some(facts.uuid),
        time: Time { secs: i64::try_from(facts.time).unwrap_or_default(), nanos: 0 },
    })
}

/// The blocks of a directory and its entries but `.` and `..`, as they lie there.
pub(super) fn entries(volume: &mut Volume<'_>, number: u32, record: &Record) -> Result<(Map, Names), Error> {
    let map = map::read(volume, number, record)?;
    let seed = volume.seed_of(number, record);
    let blocks = volume.facts.blocks_of(record.size);
    let places = map
        .extents
        .iter()
        .flat_map(|extent| (u64::from(extent.logical)..).zip(extent.physical..extent.physical + u64::from(extent.len)));
    let mut found = Vec::new();
    let mut next = 0;
    for (logical, place) in places.take_while(|(logical, _)| *logical < blocks) {
        if logical != next {
            break;
        }
        next += 1;
        let block = volume.own_block(place, number)?;
        let listed = directory::decode(&block, seed).map_err(|what| volume.damaged(place, number, what))?;
        for entry in listed.iter().filter(|entry| !matches!(entry.name, b"." | b"..")) {
            let exists = entry.inode >= volume.facts.first_inode && entry.inode <= volume.facts.inodes;
            if !exists || entry.name.is_empty() || entry.name.iter().any(|byte| matches!(byte, b'/' | 0)) {
                let name = entry.name.escape_ascii();
                let what = format_args!("its entry `{name}` for inode {} can not be", entry.inode);
                return Err(volume.damaged(place, number, what));
            }
            found.push((entry.name.to_vec(), entry.inode));
        }
    }
    match next == blocks {
        true => Ok((map, found)),
        false => Err(volume.damaged(0, number, format_args!("the directory has no block {next} of {blocks}"))),
    }
}

/// The target of a symlink, and the block it is in if it is long.
pub(super) fn target(volume: &mut Volume<'_>, number: u32, record: &Record) -> Result<(Map, Vec<u8>), Error> {
    let len = usize::try_from(record.size).unwrap_or(usize::MAX);
    if len <= FAST_SYMLINK && record.flags & EXTENTS == 0 {
        return Ok((Map::default(), record.block[..len].to_vec()));
    }
    let map = map::read(volume, number, record)?;
    let sound = map.extents.first().filter(|first| first.logical == 0 && len < volume.facts.block_size);
    let Some(first) = sound else {
        return Err(volume.damaged(0, number, format_args!("a symlink of {len} bytes without a block for them")));
    };
    let block = volume.own_block(first.physical, number)?;
    Ok((map, block[..len].to_vec()))
}

fn kind(image: &Arc<dyn ReadAt>, volume: &mut Volume<'_>, number: u32, record: &Record) -> Result<Kind, Error> {
    let (major, minor) = decode_device(&record.block);
    Ok(match record.mode & TYPE_MASK {
        DIRECTORY => Kind::Dir(BTreeMap::new()),
        REGULAR => {
            let map = map::read(volume, number, record)?;
            Kind::File(content(image, volume, number, record.size, &map)?)
        }
        SYMLINK => {
            let (_, target) = target(volume, number, record)?;
            if target.is_empty() || target.contains(&0) {
                return Err(volume.damaged(0, number, "the target of the symlink is empty or has a zero byte"));
            }
            Kind::Symlink(target)
        }
        CHAR_DEVICE => Kind::CharDevice { major, minor },
        BLOCK_DEVICE => Kind::BlockDevice { major, minor },
        FIFO => Kind::Fifo,
        SOCKET => Kind::Socket,
        other => return Err(volume.damaged(0, number, format_args!("there is no file type {other:o}"))),
    })
}

/// The extents of a file up to its end; what touches is one.
fn content(image: &Arc<dyn ReadAt>, volume: &Volume<'_>, number: u32, size: u64, map: &Map) -> Result<Content, Error> {
    if volume.facts.blocks_of(size) > 1 << 32 {
        return Err(volume.damaged(0, number, format_args!("a file of {size} bytes can not be")));
    }
    let block_size = wide(volume.facts.block_size);
    let mut extents: Vec<tree::Extent> = Vec::new();
    for &Extent { logical, len, physical } in &map.extents {
        let (at, from) = (u64::from(logical) * block_size, volume.offset(physical));
        if at >= size {
            break; // reserved beyond the end
        }
        let len = (u64::from(len) * block_size).min(size - at);
        match extents.last_mut() {
            Some(last) if last.at + last.len == at && last.from + last.len == from => last.len += len,
            _ => extents.push(tree::Extent { at, len, source: Source::Image(Arc::clone(image)), from }),
        }
    }
    Ok(Content { size, extents: extents.into() })
}

fn meta(volume: &mut Volume<'_>, number: u32, record: &Record) -> Result<Meta, Error> {
    let pairs = volume.xattrs(number, record)?;
    let count = pairs.len();
    let xattrs: BTreeMap<_, _> = pairs.into_iter().collect();
    if xattrs.len() != count {
        return Err(volume.damaged(record.xattr_block, number, "two xattrs have the same name"));
    }
    Ok(Meta { mode: record.mode & 0o7777, uid: record.uid, gid: record.gid, mtime: record.mtime, xattrs })
}
