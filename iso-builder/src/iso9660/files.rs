//! The inodes of a tree as an image has them: numbered, with their links counted, and where their contents lie.

use std::collections::{HashMap, HashSet};

use super::error::Error;
use super::format::{SECTOR_BYTES, has_date};
use super::rock_ridge::{self, MAX_NAME, MAX_TARGET, Posix};
use super::shared;
use crate::tree::{Content, Kind, NodeId, ROOT, Tree};

/// One inode.
#[derive(Clone, Copy, Debug)]
pub(super) struct File {
    /// From 1 on, directories before what is in them.
    serial: u32,
    /// Names; of a directory, names and subdirectories as `stat(2)` counts them.
    links: u32,
    /// The first block of a regular file's contents.
    pub(super) block: u32,
}

/// Every inode that the root reaches.
#[derive(Debug)]
pub(super) struct Files<'a> {
    tree: &'a Tree,
    all: HashMap<NodeId, File>,
    /// Regular files that are not empty, in the order of their contents.
    stored: Vec<NodeId>,
    /// Those whose contents lie in the EFI system partition, with the block there.
    shared: Vec<(NodeId, u64)>,
}

impl<'a> Files<'a> {
    /// Numbers the inodes. Fails on what has no place in an image.
    pub(super) fn new(tree: &'a Tree) -> Result<Files<'a>, Error> {
        let mut files = Files { tree, all: HashMap::new(), stored: Vec::new(), shared: Vec::new() };
        for (id, serial) in tree.reachable().into_iter().zip(1..) {
            files.check(id)?;
            files.all.insert(id, File { serial, links: 0, block: 0 });
            if content(tree, id).is_some_and(|content| content.size > 0) {
                files.stored.push(id);
            }
        }
        files.count(ROOT, 2);
        for dir in tree.reachable() {
            for (name, id) in tree.entries(dir).into_iter().flatten() {
                check_name(name).map_err(|reason| files.unfit(*id, reason))?;
                let is_dir = tree.entries(*id).is_some();
                if is_dir && (*id == ROOT || files.file(*id).links >= 2) {
                    return Err(files.unfit(*id, "the directory has a second name"));
                }
                files.count(*id, if is_dir { 2 } else { 1 });
                files.count(dir, u32::from(is_dir));
            }
        }
        Ok(files)
    }

    pub(super) fn file(&self, id: NodeId) -> File {
        self.all[&id]
    }

    pub(super) fn tree(&self) -> &'a Tree {
        self.tree
    }

    /// Regular files that are not empty, in the order of their contents.
    pub(super) fn stored(&self) -> impl Iterator<Item = (NodeId, File, &'a Content)> {
        self.stored.iter().filter_map(|id| Some((*id, self.file(*id), content(self.tree, *id)?)))
    }

    /// Takes those files from what is stored whose contents lie in `system` already; says whether there are any.
    pub(super) fn share(&mut self, system: &Content) -> bool {
        let tree = self.tree;
        let lies = |id: NodeId| shared::find(system, content(tree, id)?).map(|block| (id, block));
        self.shared = self.stored.iter().filter_map(|id| lies(*id)).collect();
        let shared: HashSet<NodeId> = self.shared.iter().map(|(id, _)| *id).collect();
        self.stored.retain(|id| !shared.contains(id));
        !shared.is_empty()
    }

    /// Says where the EFI system partition begins, and with it where the files in it are.
    pub(super) fn place_shared(&mut self, system: u32) {
        for (id, block) in &self.shared {
            if let Some(file) = self.all.get_mut(id) {
                file.block = u32::try_from(u64::from(system) + block).unwrap_or(u32::MAX);
            }
        }
    }

    /// Gives contents their blocks from `start` on, and returns the first that is free after them. Empty files get `start`.
    pub(super) fn place(&mut self, start: u64) -> u64 {
        let fit = |block: u64| u32::try_from(block).unwrap_or(u32::MAX); // whoever asks finds the end too far then
        for file in self.all.values_mut() {
            file.block = fit(start);
        }
        let mut next = start;
        for id in &self.stored {
            if let (Some(content), Some(file)) = (content(self.tree, *id), self.all.get_mut(id)) {
                file.block = fit(next);
                next = next.saturating_add(content.size.div_ceil(SECTOR_BYTES));
            }
        }
        next
    }

    pub(super) fn posix(&self, id: NodeId) -> Posix {
        let node = self.tree.node(id);
        let kind = match node.kind {
            Kind::Dir(_) => rock_ridge::DIR,
            Kind::File(_) => rock_ridge::REGULAR,
            Kind::Symlink(_) => rock_ridge::SYMLINK,
            Kind::CharDevice { .. } => rock_ridge::CHAR,
            Kind::BlockDevice { .. } => rock_ridge::BLOCK,
            Kind::Fifo => rock_ridge::FIFO,
            Kind::Socket => rock_ridge::SOCKET,
        };
        let File { serial, links, .. } = self.file(id);
        let mode = kind | u32::from(node.meta.mode & 0o7777);
        Posix { mode, links, uid: node.meta.uid, gid: node.meta.gid, serial }
    }

    pub(super) fn unreadable(&self, id: NodeId, source: std::io::Error) -> Error {
        Error::Read { path: path(self.tree, id), source }
    }

    fn count(&mut self, id: NodeId, more: u32) {
        if let Some(file) = self.all.get_mut(&id) {
            file.links += more;
        }
    }

    fn check(&self, id: NodeId) -> Result<(), Error> {
        let node = self.tree.node(id);
        let target = match &node.kind {
            Kind::Symlink(target) => &target[..],
            _ => b"x",
        };
        if !node.meta.xattrs.is_empty() {
            Err(self.unfit(id, "it has extended attributes"))
        } else if !has_date(node.meta.mtime) {
            Err(self.unfit(id, "its time is not within ISO 9660's years, 1900 to 2155"))
        } else if target.is_empty() || target.len() > MAX_TARGET || target.contains(&0) {
            Err(self.unfit(id, "its target is empty, longer than 4095 bytes, or contains a zero byte"))
        } else {
            Ok(())
        }
    }

    fn unfit(&self, id: NodeId, reason: &str) -> Error {
        Error::Unfit { path: path(self.tree, id), reason: reason.to_owned() }
    }
}

fn check_name(name: &[u8]) -> Result<(), &'static str> {
    match name.is_empty()
        || name == b"."
        || name == b".."
        || name.len() > MAX_NAME
        || name.iter().any(|byte| matches!(byte, 0 | b'/'))
    {
        true => Err("its name is empty, `.`, `..`, longer than 255 bytes, or contains `/` or a zero byte"),
        false => Ok(()),
    }
}

/// What is in a regular file.
fn content(tree: &Tree, id: NodeId) -> Option<&Content> {
    match &tree.node(id).kind {
        Kind::File(content) => Some(content),
        _ => None,
    }
}

/// The first path of an inode: only errors need one.
fn path(tree: &Tree, id: NodeId) -> String {
    let mut names = Vec::new();
    let mut at = id;
    let dirs = tree.reachable();
    while at != ROOT && names.len() < dirs.len() {
        let named =
            |dir: &NodeId| tree.entries(*dir)?.iter().find(|(_, child)| **child == at).map(|(name, _)| (*dir, name));
        let Some((dir, name)) = dirs.iter().find_map(named) else { break };
        names.push(String::from_utf8_lossy(name));
        at = dir;
    }
    names.reverse();
    names.join("/")
}
