//! Files in memory: the one input of every image writer.
//!
//! A [`Tree`] is an arena of inodes. A hard link is two directory entries that name one [`NodeId`]. Names, symlink
//! targets and xattrs are raw bytes, as Linux has them. File contents are not held: a [`Content`] says where they lie.
//! This module decides nothing about where files come from (see `oci`) or how they are stored (see the writers).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::scan::Scan;

/// An inode of a [`Tree`], by its place in the arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u32);

impl NodeId {
    /// The place in the arena, counted from 0, for those who keep something for every inode.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// The root directory of every tree.
pub const ROOT: NodeId = NodeId(0);

/// Seconds and nanoseconds since 1970-01-01 UTC; seconds may be negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    pub secs: i64,
    pub nanos: u32,
}

/// What an inode carries besides its kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Permission bits with suid, sgid and sticky: `0o7777` at most.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Time,
    /// Full name (`user.note`, `security.capability`) to value, in the form that `setxattr(2)` takes.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// One inode.
#[derive(Clone, Debug)]
pub struct Node {
    pub meta: Meta,
    pub kind: Kind,
}

/// What an inode is.
#[derive(Clone, Debug)]
pub enum Kind {
    /// Entries sorted by name; `.` and `..` are not among them.
    Dir(BTreeMap<Box<[u8]>, NodeId>),
    File(Content),
    Symlink(Vec<u8>),
    CharDevice {
        major: u32,
        minor: u32,
    },
    BlockDevice {
        major: u32,
        minor: u32,
    },
    Fifo,
    Socket,
}

/// The bytes of a regular file: `size` bytes, of which only `extents` are stored; the rest are holes that read as zero.
#[derive(Clone, Debug, Default)]
pub struct Content {
    pub size: u64,
    /// Sorted by `at`, not overlapping, each within `size`.
    pub extents: Extents,
}

/// The stored parts of a file. Nearly all files have one part or none, and images have millions of files: one part takes no allocation.
#[derive(Clone, Debug)]
pub struct Extents(Parts);

#[derive(Clone, Debug)]
enum Parts {
    One(Extent),
    Any(Vec<Extent>),
}

/// `len` bytes of a file, from offset `at` in it, found at `from` in `source`.
#[derive(Clone, Debug)]
pub struct Extent {
    pub at: u64,
    pub len: u64,
    pub source: Source,
    pub from: u64,
}

/// Where stored bytes lie.
#[derive(Clone, Debug)]
pub enum Source {
    File(Arc<File>),
    Memory(Arc<[u8]>),
    /// A disk within a file of another format, as in a VMDK.
    Image(Arc<dyn ReadAt>),
}

/// Bytes that are had by their offset: a file, or the disk that an image of another format holds. Readers of images read from this.
pub trait ReadAt: std::fmt::Debug + Send + Sync {
    /// Fills `buf` from offset `from`; a source that ends early is an error of the kind `UnexpectedEof`.
    fn read_exact_at(&self, buf: &mut [u8], from: u64) -> io::Result<()>;

    /// Bytes in all.
    fn size(&self) -> io::Result<u64>;

    /// All of it from its start, if that is the cheap way to have much of it, as with what is compressed; `None` where one order is as good as another.
    fn in_order(&self) -> Option<io::Result<Box<dyn Read + Send>>> {
        None
    }

    /// What is known of the file whose stored bytes start at `from`, if it was looked through once.
    fn known(&self, from: u64) -> Option<Scan> {
        let _ = from;
        None
    }
}

impl ReadAt for File {
    fn read_exact_at(&self, buf: &mut [u8], from: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, buf, from)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}

impl Source {
    /// Fills `buf` from offset `from`; a source that ends early is an error.
    pub fn read_exact_at(&self, buf: &mut [u8], from: u64) -> io::Result<()> {
        match self {
            Source::File(file) => FileExt::read_exact_at(&**file, buf, from),
            Source::Image(image) => image.read_exact_at(buf, from),
            Source::Memory(bytes) => {
                let start = usize::try_from(from).map_err(|_| io::ErrorKind::UnexpectedEof)?;
                let end = start.checked_add(buf.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
                buf.copy_from_slice(bytes.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?);
                Ok(())
            }
        }
    }
}

impl Source {
    /// Whether the same offsets of both are the same bytes for certain.
    pub(crate) fn is(&self, other: &Source) -> bool {
        match (self, other) {
            (Source::File(one), Source::File(other)) => Arc::ptr_eq(one, other),
            (Source::Memory(one), Source::Memory(other)) => Arc::ptr_eq(one, other),
            (Source::Image(one), Source::Image(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }

    /// Bytes in all.
    pub(crate) fn size(&self) -> io::Result<u64> {
        match self {
            Source::File(file) => ReadAt::size(&**file),
            Source::Memory(bytes) => Ok(bytes.len() as u64),
            Source::Image(image) => image.size(),
        }
    }
}

impl Content {
    /// Contents held in memory.
    pub fn from_bytes(bytes: impl Into<Arc<[u8]>>) -> Content {
        let bytes = bytes.into();
        let size = bytes.len() as u64;
        let extents = match size {
            0 => Extents::default(),
            _ => Extent { at: 0, len: size, source: Source::Memory(bytes), from: 0 }.into(),
        };
        Content { size, extents }
    }

    /// What is known of these bytes without reading them.
    pub(crate) fn known(&self) -> Option<Scan> {
        match &self.extents.first()?.source {
            Source::Image(image) => image.known(self.extents[0].from),
            _ => None,
        }
    }

    /// Fills `buf` with the bytes from offset `at`, holes as zeros. `at + buf.len()` must not exceed `size`.
    pub fn read_exact_at(&self, buf: &mut [u8], at: u64) -> io::Result<()> {
        buf.fill(0);
        let end = at + buf.len() as u64;
        let first = self.extents.partition_point(|extent| extent.at + extent.len <= at);
        for extent in self.extents[first..].iter().take_while(|extent| extent.at < end) {
            let from = at.max(extent.at);
            let to = end.min(extent.at + extent.len);
            let part = &mut buf[index(from - at)..index(to - at)];
            extent.source.read_exact_at(part, extent.from + (from - extent.at))?;
        }
        Ok(())
    }
}

impl Default for Extents {
    fn default() -> Extents {
        Extents(Parts::Any(Vec::new()))
    }
}

impl Deref for Extents {
    type Target = [Extent];

    fn deref(&self) -> &[Extent] {
        match &self.0 {
            Parts::One(extent) => std::slice::from_ref(extent),
            Parts::Any(extents) => extents,
        }
    }
}

impl DerefMut for Extents {
    fn deref_mut(&mut self) -> &mut [Extent] {
        match &mut self.0 {
            Parts::One(extent) => std::slice::from_mut(extent),
            Parts::Any(extents) => extents,
        }
    }
}

impl From<Extent> for Extents {
    fn from(extent: Extent) -> Extents {
        Extents(Parts::One(extent))
    }
}

impl From<Vec<Extent>> for Extents {
    fn from(mut extents: Vec<Extent>) -> Extents {
        match (extents.pop(), extents.is_empty()) {
            (Some(only), true) => only.into(),
            (last, _) => {
                extents.extend(last);
                Extents(Parts::Any(extents))
            }
        }
    }
}

impl FromIterator<Extent> for Extents {
    fn from_iter<I: IntoIterator<Item = Extent>>(extents: I) -> Extents {
        extents.into_iter().collect::<Vec<_>>().into()
    }
}

impl IntoIterator for Extents {
    type Item = Extent;
    type IntoIter = std::vec::IntoIter<Extent>;

    fn into_iter(self) -> Self::IntoIter {
        match self.0 {
            Parts::One(extent) => vec![extent],
            Parts::Any(extents) => extents,
        }
        .into_iter()
    }
}

impl<'a> IntoIterator for &'a Extents {
    type Item = &'a Extent;
    type IntoIter = std::slice::Iter<'a, Extent>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// An offset within a buffer as an index; it fits, because the buffer is in memory.
#[allow(clippy::cast_possible_truncation)]
fn index(offset: u64) -> usize {
    offset as usize
}

/// The files of an image.
#[derive(Clone, Debug)]
pub struct Tree {
    nodes: Vec<Node>,
}

impl Tree {
    /// A tree that holds only its root directory.
    pub fn new(root: Meta) -> Tree {
        Tree { nodes: vec![Node { meta: root, kind: Kind::Dir(BTreeMap::new()) }] }
    }

    /// Inodes in the arena, reachable or not: each has an index below this.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Never: there is a root.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    pub fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.0 as usize]
    }

    /// Adds an inode that no directory names yet.
    pub fn add(&mut self, node: Node) -> NodeId {
        let id = u32::try_from(self.nodes.len()).expect("an ext4 file system has fewer than 2^32 inodes");
        self.nodes.push(node);
        NodeId(id)
    }

    /// The entries of a directory; `None` when `dir` is not one.
    pub fn entries(&self, dir: NodeId) -> Option<&BTreeMap<Box<[u8]>, NodeId>> {
        match &self.node(dir).kind {
            Kind::Dir(entries) => Some(entries),
            _ => None,
        }
    }

    /// The entry `name` of the directory `dir`.
    pub fn child(&self, dir: NodeId, name: &[u8]) -> Option<NodeId> {
        self.entries(dir)?.get(name).copied()
    }

    /// Names `id` as `name` in `dir`; an entry of that name is replaced and returned. `None` also when `dir` is no directory.
    pub fn link(&mut self, dir: NodeId, name: &[u8], id: NodeId) -> Option<NodeId> {
        match &mut self.node_mut(dir).kind {
            Kind::Dir(entries) => entries.insert(name.into(), id),
            _ => None,
        }
    }

    /// Takes the entry `name` out of `dir`.
    pub fn unlink(&mut self, dir: NodeId, name: &[u8]) -> Option<NodeId> {
        match &mut self.node_mut(dir).kind {
            Kind::Dir(entries) => entries.remove(name),
            _ => None,
        }
    }

    /// Adds an inode and names it in one step.
    pub fn insert(&mut self, dir: NodeId, name: &[u8], node: Node) -> NodeId {
        let id = self.add(node);
        self.link(dir, name, id);
        id
    }

    /// Every inode that the root reaches, once, directories before what is in them, entries in order of name.
    pub fn reachable(&self) -> Vec<NodeId> {
        let mut seen = vec![false; self.nodes.len()];
        let mut order = vec![ROOT];
        seen[0] = true;
        let mut next = 0;
        while let Some(&dir) = order.get(next) {
            next += 1;
            for &id in self.entries(dir).into_iter().flat_map(BTreeMap::values) {
                if !std::mem::replace(&mut seen[id.0 as usize], true) {
                    order.push(id);
                }
            }
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_read_as_zero() {
        let part =
            |at, bytes: &[u8]| Extent { at, len: bytes.len() as u64, source: Source::Memory(bytes.into()), from: 0 };
        let content = Content { size: 12, extents: vec![part(2, b"ab"), part(6, b"cdef")].into() };
        let mut whole = [9; 12];
        content.read_exact_at(&mut whole, 0).unwrap();
        assert_eq!(&whole, b"\0\0ab\0\0cdef\0\0");
        let mut middle = [9; 5];
        content.read_exact_at(&mut middle, 3).unwrap();
        assert_eq!(&middle, b"b\0\0cd");
    }

    #[test]
    fn a_hard_link_is_reached_once() {
        let mut tree = Tree::new(Meta::default());
        let file = tree.insert(ROOT, b"a", Node { meta: Meta::default(), kind: Kind::File(Content::default()) });
        tree.link(ROOT, b"b", file);
        assert_eq!(tree.reachable(), [ROOT, file]);
    }
}
