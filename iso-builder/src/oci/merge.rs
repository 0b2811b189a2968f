//! Lays one layer's entries over the tree of those below: whiteouts, changes of type, hard links, symlinked parents.
//!
//! Every path is resolved inside the tree, as a process in the container would; one that climbs out is refused. Where
//! files' contents lie is the caller's affair.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use super::path::{self, EntryError};
use super::tar::{Entry, EntryKind};
use crate::tree::{Content, Kind, Meta, Node, NodeId, ROOT, Tree};

/// A tree under construction.
#[derive(Debug)]
pub(super) struct Merge {
    tree: Tree,
    /// The first inode of the present layer: a name of that or a later one is the layer's own.
    first: usize,
    /// The other names that the present layer has put or passed, so that whiteouts hide only what lower layers have put.
    marks: HashMap<NodeId, HashMap<Vec<u8>, Mark>>,
    nodes: u32,
}

/// How a name came to be in the present layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    /// Some deeper path leads through it.
    Passed,
    /// An entry is about it.
    Named,
}

impl Merge {
    pub(super) fn new() -> Merge {
        Merge { tree: Tree::new(implied()), first: 1, marks: HashMap::new(), nodes: 1 }
    }

    pub(super) fn next_layer(&mut self) {
        self.first = self.tree.len();
        self.marks.clear();
    }

    /// As it is now. Inodes keep their ids, and what a layer replaces gets another one.
    pub(super) fn tree(&self) -> &Tree {
        &self.tree
    }

    pub(super) fn finish(self) -> Tree {
        self.tree
    }

    /// Lays one entry over the tree; `content` is that of a regular file.
    pub(super) fn lay(&mut self, entry: Entry, content: Content) -> Result<(), EntryError> {
        let path = entry.path;
        let components = path::components(&path)?;
        let Some((&name, parents)) = components.split_last() else {
            return self.lay_root(entry.kind, entry.meta, &path);
        };
        if components.iter().any(|name| name.starts_with(AUFS) && *name != OPAQUE) {
            return Ok(());
        }
        if parents.iter().any(|name| name.starts_with(WHITEOUT)) {
            return Err(path::unusable(&path, "a whiteout is no directory"));
        }
        if name == OPAQUE {
            if let Some(dir) = self.walk(&path, parents, Missing::Stop)? {
                self.hide_lower_entries(dir);
            }
            return Ok(());
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            path::check_name(&path, hidden)?;
            if let Some(dir) = self.walk(&path, parents, Missing::Stop)? {
                self.hide(dir, hidden);
            }
            return Ok(());
        }
        let dir = self.walk(&path, parents, Missing::Create)?.expect("missing directories are created");
        let id = match entry.kind {
            EntryKind::Dir => self.lay_dir(dir, name, entry.meta, &path)?,
            EntryKind::HardLink(target) => self.lay_link(dir, name, &target, &path)?,
            kind => {
                let kind = node_kind(kind, content, &path)?;
                let id = self.add(Node { meta: entry.meta, kind }, &path)?;
                self.tree.link(dir, name, id);
                id
            }
        };
        if !self.is_own(id) {
            self.marks.entry(dir).or_default().insert(name.to_vec(), Mark::Named);
        }
        Ok(())
    }

    fn lay_root(&mut self, kind: EntryKind, meta: Meta, path: &[u8]) -> Result<(), EntryError> {
        match kind {
            EntryKind::Dir => {
                self.tree.node_mut(ROOT).meta = meta;
                Ok(())
            }
            _ => Err(path::unusable(path, "the root can only be a directory")),
        }
    }

    /// A directory over a directory keeps the entries; over anything else it starts empty.
    fn lay_dir(&mut self, dir: NodeId, name: &[u8], meta: Meta, path: &[u8]) -> Result<NodeId, EntryError> {
        match self.tree.child(dir, name) {
            Some(id) if self.tree.entries(id).is_some() => {
                self.tree.node_mut(id).meta = meta;
                Ok(id)
            }
            _ => {
                let id = self.add(Node { meta, kind: Kind::Dir(BTreeMap::new()) }, path)?;
                self.tree.link(dir, name, id);
                Ok(id)
            }
        }
    }

    /// The link's own owner, mode and times are not looked at: they are the target's.
    fn lay_link(&mut self, dir: NodeId, name: &[u8], target: &[u8], path: &[u8]) -> Result<NodeId, EntryError> {
        let components = path::components(target).map_err(|error| path::bad_target(path, target, &error))?;
        let missing = || EntryError::Target {
            path: path::shown(path),
            target: path::shown(target),
            why: "does not exist".to_owned(),
        };
        let (&last, parents) = components.split_last().ok_or_else(missing)?;
        let parent = self.walk(target, parents, Missing::Stop)?.ok_or_else(missing)?;
        let id = self.tree.child(parent, last).ok_or_else(missing)?;
        if self.tree.entries(id).is_some() {
            let why = "is a directory".to_owned();
            return Err(EntryError::Target { path: path::shown(path), target: path::shown(target), why });
        }
        self.tree.link(dir, name, id);
        Ok(id)
    }

    /// Hides what lower layers call `name`; of a directory that this layer put there too, only what is older.
    fn hide(&mut self, dir: NodeId, name: &[u8]) {
        match (self.mark(dir, name), self.tree.child(dir, name)) {
            (_, None) => {}
            (None, Some(_)) => {
                self.tree.unlink(dir, name);
            }
            (Some(mark), Some(id)) => {
                self.forget_lower_meta(id, mark);
                self.hide_lower_entries(id);
            }
        }
    }

    /// Takes everything out of `dir` and below it that the present layer has not put there.
    fn hide_lower_entries(&mut self, dir: NodeId) {
        let mut todo = vec![dir];
        while let Some(dir) = todo.pop() {
            let entries: Vec<_> = self.tree.entries(dir).into_iter().flatten().map(|(k, v)| (k.clone(), *v)).collect();
            for (name, id) in entries {
                match self.mark(dir, &name) {
                    None => {
                        self.tree.unlink(dir, &name);
                    }
                    Some(mark) => {
                        self.forget_lower_meta(id, mark);
                        todo.push(id);
                    }
                }
            }
        }
    }

    /// A hidden directory that came back only as a parent is one that no entry describes.
    fn forget_lower_meta(&mut self, id: NodeId, mark: Mark) {
        if mark == Mark::Passed && self.tree.entries(id).is_some() {
            self.tree.node_mut(id).meta = implied();
        }
    }

    /// What the present layer has made carries no mark: most images have one large layer, and a mark for each of its files would take a third of the memory.
    /// Such a directory may be passed only; but then it has nothing of a lower one.
    fn mark(&self, dir: NodeId, name: &[u8]) -> Option<Mark> {
        match self.tree.child(dir, name) {
            Some(id) if self.is_own(id) => Some(Mark::Named),
            _ => self.marks.get(&dir)?.get(name).copied(),
        }
    }

    /// Whether the present layer has made this inode, and so every name of it.
    fn is_own(&self, id: NodeId) -> bool {
        id.index() >= self.first
    }

    /// The directory at `components`, symlinks followed as in a chroot. `None` when something on the way is missing.
    fn walk(&mut self, path: &[u8], components: &[&[u8]], missing: Missing) -> Result<Option<NodeId>, EntryError> {
        let mut way = vec![ROOT];
        let mut todo: Vec<Cow<'_, [u8]>> = components.iter().rev().map(|&name| Cow::Borrowed(name)).collect();
        let mut links = 0;
        while let Some(name) = todo.pop() {
            let dir = way[way.len() - 1];
            match &name[..] {
                b"" | b"." => continue,
                // `..` of the root is the root.
                b".." => {
                    way.truncate((way.len() - 1).max(1));
                    continue;
                }
                _ => {}
            }
            let Some(id) = self.tree.child(dir, &name) else {
                match missing {
                    Missing::Stop => return Ok(None),
                    Missing::Create => way.push(self.imply(dir, &name, path)?),
                }
                continue;
            };
            match &self.tree.node(id).kind {
                Kind::Dir(_) => {
                    if missing == Missing::Create && !self.is_own(id) {
                        self.pass(dir, &name);
                    }
                    way.push(id);
                }
                Kind::Symlink(target) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(EntryError::Loop { path: path::shown(path) });
                    }
                    if target.starts_with(b"/") {
                        way.truncate(1);
                    }
                    todo.extend(target.split(|&byte| byte == b'/').rev().map(|name| Cow::Owned(name.to_vec())));
                }
                _ => return Err(EntryError::NotADir { path: path::shown(path), through: path::shown(&name) }),
            }
        }
        Ok(way.pop())
    }

    /// Makes a directory that no entry describes.
    fn imply(&mut self, dir: NodeId, name: &[u8], path: &[u8]) -> Result<NodeId, EntryError> {
        path::check_name(path, name)?;
        let id = self.add(Node { meta: implied(), kind: Kind::Dir(BTreeMap::new()) }, path)?;
        self.tree.link(dir, name, id);
        Ok(id)
    }

    fn pass(&mut self, dir: NodeId, name: &[u8]) {
        let marks = self.marks.entry(dir).or_default();
        if !marks.contains_key(name) {
            marks.insert(name.to_vec(), Mark::Passed);
        }
    }

    fn add(&mut self, node: Node, path: &[u8]) -> Result<NodeId, EntryError> {
        // One id is left over: ext4 counts inodes in 32 bits, from 1.
        if self.nodes >= u32::MAX - 1 {
            return Err(EntryError::TooMany { path: path::shown(path) });
        }
        self.nodes += 1;
        Ok(self.tree.add(node))
    }
}

/// What to do about a directory that is not there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    Create,
    Stop,
}

/// What a directory is like that no entry describes.
fn implied() -> Meta {
    Meta { mode: 0o755, ..Meta::default() }
}

fn node_kind(kind: EntryKind, content: Content, path: &[u8]) -> Result<Kind, EntryError> {
    Ok(match kind {
        EntryKind::File { .. } => Kind::File(content),
        EntryKind::Symlink(target) => {
            if target.is_empty() || target.len() > path::TARGET_LIMIT || target.contains(&0) {
                return Err(path::unusable(path, "a symlink's target is empty, too long, or holds a NUL"));
            }
            Kind::Symlink(target)
        }
        EntryKind::CharDevice { major, minor } => Kind::CharDevice { major, minor },
        EntryKind::BlockDevice { major, minor } => Kind::BlockDevice { major, minor },
        EntryKind::Fifo => Kind::Fifo,
        EntryKind::Dir | EntryKind::HardLink(_) => unreachable!("laid by their own functions"),
    })
}

/// Begins the name of an entry that hides what the rest of the name names.
const WHITEOUT: &[u8] = b".wh.";

/// Hides all that lower layers have in the same directory.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Begins names that AUFS kept for itself; they are no part of an image.
const AUFS: &[u8] = b".wh..wh.";

/// Symlinks on one path, as Linux counts (`MAXSYMLINKS`).
const MAX_LINKS: u32 = 40;
