//! Reads an image as a tree: with Rock Ridge where there is any, else by Joliet's names, else by the plain ones.
//!
//! It believes nothing: directories that contain one another, records beyond the image and names that no file can have
//! are errors. Contents are not read; they are named as parts of the image.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::error::Error;
use super::format::{SECTOR, SECTOR_BYTES, from_date};
use super::record::{DIRECTORY, NOT_LAST, PARENT, Record, SELF, records};
use super::rock_ridge::{self, Attributes, Posix};
use super::volume::{self, Volumes};
use crate::tree::{Content, Extent, Kind, Meta, Node, NodeId, ROOT, ReadAt, Source, Tree};

/// Reads the tree of the ISO 9660 image that `image` holds.
///
/// Fails with [`Error::Damaged`], which says where, on what is no sound image. Memory is bounded by the size of the
/// image's directories, and those by `MAX_DIRECTORIES`.
pub fn read(image: &Arc<dyn ReadAt>) -> Result<Tree, Error> {
    let size = image.size().map_err(|source| Error::Image { at: 0, source })?;
    let volumes = volume::read(image)?;
    let mut reader = Reader {
        image,
        size,
        names: Names::Plain,
        tree: Tree::new(Meta::default()),
        links: HashMap::new(),
        seen: HashSet::new(),
        budget: size.min(MAX_DIRECTORIES),
    };
    let root = reader.choose(&volumes)?;
    let (meta, size) = reader.own(root)?;
    reader.tree.node_mut(ROOT).meta = meta;
    let mut waiting = vec![Directory { block: root, size, id: ROOT }];
    while let Some(directory) = waiting.pop() {
        reader.directory(&directory, &mut waiting)?;
    }
    Ok(reader.tree)
}

/// Bytes of all directories together: those of 8 million files with short names.
const MAX_DIRECTORIES: u64 = 1 << 30;

/// A name and the longest symlink fit in three areas; Linux stops after 32, too.
const MAX_CONTINUATIONS: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Names {
    /// Fields begin after so many bytes of each area.
    RockRidge(usize),
    Joliet,
    Plain,
}

/// A directory that is still to be read.
struct Directory {
    block: u32,
    size: u32,
    id: NodeId,
}

/// What says of two records that they are one file: the inode's number where there is one, and what is in it.
type Identity = (u32, u32, u64);

struct Reader<'a> {
    image: &'a Arc<dyn ReadAt>,
    size: u64,
    names: Names,
    tree: Tree,
    links: HashMap<Identity, NodeId>,
    /// First blocks of the directories read: a second time would be a loop.
    seen: HashSet<u32>,
    /// Bytes of directories, and of fields that go on elsewhere, that may still be read. A sound image has none twice, so that they fit in it.
    budget: u64,
}

/// A file whose last record has not come yet.
#[derive(Default)]
struct Parts {
    size: u64,
    extents: Vec<Extent>,
}

impl Reader<'_> {
    /// Decides which names are read, and says where the root directory is.
    fn choose(&mut self, volumes: &Volumes) -> Result<u32, Error> {
        let root = root_block(&volumes.primary)?;
        let first = self.first(root, |_, record| {
            let mut attributes = Attributes::default();
            attributes.take(record.system_use).map(|_| attributes.skip)
        })?;
        self.names = match (first, &volumes.joliet) {
            (Some(skip), _) => Names::RockRidge(usize::from(skip)),
            (None, Some(_)) => Names::Joliet,
            (None, None) => Names::Plain,
        };
        match (self.names, &volumes.joliet) {
            (Names::Joliet, Some(joliet)) => root_block(joliet),
            _ => Ok(root),
        }
    }

    /// What a directory's first record, which is named as itself, says.
    fn first<T>(
        &self,
        block: u32,
        look: impl FnOnce(&Self, &Record<'_>) -> Result<T, &'static str>,
    ) -> Result<T, Error> {
        let at = u64::from(block) * SECTOR_BYTES;
        let mut sector = Box::new([0; SECTOR]);
        volume::sector(self.image, block, &mut sector)?;
        let first = records(&sector[..]).next().map(|(_, record)| record).transpose();
        let first = first.and_then(|first| first.ok_or("a directory has no record of itself"));
        let first = first.and_then(|first| match first.identifier {
            SELF => look(self, &first),
            _ => Err("a directory does not begin with itself"),
        });
        first.map_err(|what| Error::damaged(at, what))
    }

    /// Attributes and size of the directory at `block`, by its own word.
    fn own(&mut self, block: u32) -> Result<(Meta, u32), Error> {
        let mut sector = Box::new([0; SECTOR]);
        let size = self.first(block, |_, record| Ok(record.size))?;
        volume::sector(self.image, block, &mut sector)?;
        let at = u64::from(block) * SECTOR_BYTES;
        let Some((_, Ok(record))) = records(&sector[..]).next() else {
            return Err(Error::damaged(at, "a directory has no record of itself"));
        };
        let attributes = self.attributes(&record, at)?;
        Ok((meta(&attributes, &record), size))
    }

    fn directory(&mut self, directory: &Directory, waiting: &mut Vec<Directory>) -> Result<(), Error> {
        let start = u64::from(directory.block) * SECTOR_BYTES;
        if !self.seen.insert(directory.block) {
            return Err(Error::damaged(start, "two directories lie in one place"));
        }
        let size = u64::from(directory.size);
        if start + size > self.size {
            return Err(Error::damaged(start, "a directory reaches beyond the image's end"));
        }
        let left = self.budget.checked_sub(size);
        self.budget =
            left.ok_or_else(|| Error::damaged(start, "directories overlap, or are larger than any image's"))?;
        let mut sector = Box::new([0; SECTOR]);
        let mut parts = Parts::default();
        for number in 0..directory.size.div_ceil(2048) {
            let block = directory.block + number;
            volume::sector(self.image, block, &mut sector)?;
            for (offset, record) in records(&sector[..]) {
                let at = u64::from(block) * SECTOR_BYTES + offset as u64;
                let record = record.map_err(|what| Error::damaged(at, what))?;
                if !matches!(record.identifier, SELF | PARENT) {
                    self.entry(directory.id, &record, at, &mut parts, waiting)?;
                }
            }
        }
        match parts.extents.is_empty() {
            true => Ok(()),
            false => Err(Error::damaged(start, "the last part of a file is missing")),
        }
    }

    fn entry(
        &mut self,
        parent: NodeId,
        record: &Record<'_>,
        at: u64,
        parts: &mut Parts,
        waiting: &mut Vec<Directory>,
    ) -> Result<(), Error> {
        let damaged = |what: &str| Error::damaged(at, what);
        let is_directory = record.flags & DIRECTORY != 0;
        if !is_directory {
            self.part(record, at, parts)?;
            if record.flags & NOT_LAST != 0 {
                return Ok(());
            }
        } else if !parts.extents.is_empty() {
            return Err(damaged("the last part of a file is missing"));
        }
        let parts = std::mem::take(parts);
        let attributes = self.attributes(record, at)?;
        if attributes.relocated {
            return Ok(());
        }
        let name = self.name(record, &attributes);
        if name.is_empty() || name == b"." || name == b".." || name.iter().any(|byte| matches!(byte, 0 | b'/')) {
            return Err(damaged("a file has a name that no file can have"));
        }
        if self.tree.child(parent, &name).is_some() {
            return Err(Error::damaged(at, format!("two files are named {:?}", String::from_utf8_lossy(&name))));
        }
        let place = match attributes.child {
            // the record is that of a file; what is true of the directory stands in its own
            Some(block) => Some((block, self.own(block)?)),
            None => is_directory.then(|| (record.block, (meta(&attributes, record), record.size))),
        };
        if let Some((block, (meta, size))) = place {
            let id = self.tree.insert(parent, &name, Node { meta, kind: Kind::Dir(Default::default()) });
            waiting.push(Directory { block, size, id });
            return Ok(());
        }
        let identity = identity(&attributes, record, parts.size);
        let kind = kind(&attributes, parts).map_err(damaged)?;
        let node = Node { meta: meta(&attributes, record), kind };
        let known = identity.and_then(|identity| self.links.get(&identity)).copied();
        match known.filter(|known| same(self.tree.node(*known), &node)) {
            Some(known) => drop(self.tree.link(parent, &name, known)),
            None => {
                let id = self.tree.insert(parent, &name, node);
                identity.map(|identity| self.links.insert(identity, id));
            }
        }
        Ok(())
    }

    /// Adds what one record holds of a file.
    fn part(&self, record: &Record<'_>, at: u64, parts: &mut Parts) -> Result<(), Error> {
        let (from, len) = (u64::from(record.block) * SECTOR_BYTES, u64::from(record.size));
        // the block of an empty file means nothing
        if len == 0 {
            return Ok(());
        }
        if from + len > self.size {
            return Err(Error::damaged(at, "a file reaches beyond the image's end"));
        }
        match parts.extents.last_mut() {
            Some(last) if last.from + last.len == from => last.len += len,
            _ => parts.extents.push(Extent { at: parts.size, len, source: Source::Image(self.image.clone()), from }),
        }
        parts.size += len;
        Ok(())
    }

    /// All Rock Ridge says of a record, its continuations included.
    fn attributes(&mut self, record: &Record<'_>, at: u64) -> Result<Attributes, Error> {
        let mut attributes = Attributes::default();
        let Names::RockRidge(skip) = self.names else { return Ok(attributes) };
        let is_root = record.identifier == SELF;
        // the record that says how much is skipped skips nothing itself
        let area = if is_root { record.system_use } else { record.system_use.get(skip..).unwrap_or_default() };
        let mut next = attributes.take(area).map_err(|what| Error::damaged(at, what))?;
        let mut sector = Box::new([0; SECTOR]);
        for _ in 0..MAX_CONTINUATIONS {
            let Some(continuation) = next else { return Ok(attributes) };
            volume::sector(self.image, continuation.block, &mut sector)?;
            let (from, len) = (continuation.offset as usize, continuation.len as usize);
            let area = sector.get(from..from.saturating_add(len));
            let area = area.ok_or_else(|| Error::damaged(at, "fields go on beyond the end of a block"))?;
            let left = self.budget.checked_sub(u64::from(continuation.len));
            self.budget = left.ok_or_else(|| Error::damaged(at, "the fields of files overlap, or are too many"))?;
            next = attributes.take(area).map_err(|what| Error::damaged(at, what))?;
        }
        Err(Error::damaged(at, "the fields of a file have no end"))
    }

    fn name(&self, record: &Record<'_>, attributes: &Attributes) -> Vec<u8> {
        match self.names {
            Names::RockRidge(_) if !attributes.name.is_empty() => attributes.name.clone(),
            Names::Joliet => {
                let units = record.identifier.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
                plain(String::from_utf16_lossy(&units.collect::<Vec<_>>()).as_bytes()).to_vec()
            }
            _ => plain(record.identifier).to_vec(),
        }
    }
}

/// A name without its version, and without the dot of an extension that is not there.
fn plain(identifier: &[u8]) -> &[u8] {
    let version = identifier.iter().rposition(|byte| *byte == b';').filter(|at| *at > 0);
    let name = &identifier[..version.unwrap_or(identifier.len())];
    match (version, name) {
        (Some(_), [rest @ .., b'.']) if !rest.is_empty() => rest,
        _ => name,
    }
}

fn root_block(descriptor: &[u8; SECTOR]) -> Result<u32, Error> {
    let root = Record::parse(&descriptor[volume::ROOT_RECORD]);
    root.map(|root| root.block).map_err(|what| Error::damaged(u64::from(volume::FIRST) * SECTOR_BYTES, what))
}

fn meta(attributes: &Attributes, record: &Record<'_>) -> Meta {
    let default = if record.flags & DIRECTORY != 0 { 0o755 } else { 0o644 };
    let Posix { mode, uid, gid, .. } =
        attributes.posix.unwrap_or(Posix { mode: default, links: 1, uid: 0, gid: 0, serial: 0 });
    Meta {
        mode: u16::try_from(mode & 0o7777).expect("twelve bits"),
        uid,
        gid,
        mtime: attributes.modified.or_else(|| from_date(&record.date)).unwrap_or_default(),
        ..Meta::default()
    }
}

fn kind(attributes: &Attributes, parts: Parts) -> Result<Kind, &'static str> {
    let file = |parts: Parts| Kind::File(Content { size: parts.size, extents: parts.extents.into() });
    let Some(posix) = attributes.posix else { return Ok(file(parts)) };
    let device = || attributes.device.ok_or("a device has no number");
    Ok(match posix.mode & rock_ridge::TYPE {
        rock_ridge::REGULAR => file(parts),
        rock_ridge::SYMLINK if attributes.target.is_empty() => return Err("a symlink has no target"),
        rock_ridge::SYMLINK => Kind::Symlink(attributes.target.clone()),
        rock_ridge::CHAR => device().map(|(major, minor)| Kind::CharDevice { major, minor })?,
        rock_ridge::BLOCK => device().map(|(major, minor)| Kind::BlockDevice { major, minor })?,
        rock_ridge::FIFO => Kind::Fifo,
        rock_ridge::SOCKET => Kind::Socket,
        rock_ridge::DIR => return Err("a directory is recorded as a file"),
        _ => return Err("a file is of no known kind"),
    })
}

/// Files with several links are one where the image says so: by their number, or by what they share.
fn identity(attributes: &Attributes, record: &Record<'_>, size: u64) -> Option<Identity> {
    let posix = attributes.posix.filter(|posix| posix.links > 1 && (posix.serial != 0 || size > 0))?;
    Some((posix.serial, if size == 0 { 0 } else { record.block }, size))
}

/// Whether two records that claim to be one file do say the same of it.
fn same(one: &Node, other: &Node) -> bool {
    let kinds = match (&one.kind, &other.kind) {
        (Kind::File(one), Kind::File(other)) => {
            one.size == other.size
                && one
                    .extents
                    .iter()
                    .map(|part| (part.from, part.len))
                    .eq(other.extents.iter().map(|part| (part.from, part.len)))
        }
        (Kind::Symlink(one), Kind::Symlink(other)) => one == other,
        (one, other) => device(one) == device(other) && device(one).is_some(),
    };
    kinds && one.meta == other.meta
}

/// What tells apart the kinds that hold nothing.
fn device(kind: &Kind) -> Option<(u8, u32, u32)> {
    match *kind {
        Kind::CharDevice { major, minor } => Some((0, major, minor)),
        Kind::BlockDevice { major, minor } => Some((1, major, minor)),
        Kind::Fifo => Some((2, 0, 0)),
        Kind::Socket => Some((3, 0, 0)),
        Kind::Dir(_) | Kind::File(_) | Kind::Symlink(_) => None,
    }
}
