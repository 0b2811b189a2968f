//! A container's files while its machine is off, read from its disks and written to them: nothing is mounted, and nobody need be root.
//!
//! ```text
//! layers (read-only ext4) ─┐                          ┌─> pack     tree -> tar: cp out, export
//! top's upper/ (ext4) ─────┴─ overlay ─> what it sees ┼─> compare  what it changed: diff, commit
//! volumes (ext4) ──────────── mounts ──> at its places┼─> path     what a path names
//!                                                     └─> unpack   tar -> tree ─> the disks, written anew beside and renamed
//! ```
//!
//! It decides which disks are read and written. Trees hold names and attributes alone: what files hold stays where it is until somebody asks for it. All of it
//! blocks.

mod compare;
mod overlay;
mod pack;
pub(crate) mod path;
#[cfg(test)]
mod tests;
mod unpack;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use iso_builder::ext4;
use iso_builder::oci::{TarError, between};
use iso_builder::output::Output;
use iso_builder::tree::{Content, Kind, Meta, Node, NodeId, ROOT, ReadAt, Tree};

pub(crate) use self::compare::{Change, ChangeKind, changes, whiteouts};
pub(crate) use self::pack::{Names, is_packable, pack};
pub(crate) use self::path::PathError;
pub(crate) use self::unpack::Unpack;

/// Where a container's files lie.
#[derive(Clone, Debug, Default)]
pub(crate) struct Place {
    /// The disks of its image's layers, the lowest first.
    pub(crate) layers: Vec<PathBuf>,
    /// Its own disk; there is none before its first start.
    pub(crate) top: PathBuf,
    /// An empty one.
    pub(crate) blank: PathBuf,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) read_only: bool,
}

/// What lies over its root somewhere.
#[derive(Clone, Debug)]
pub(crate) struct Mount {
    /// Absolute, without `.` and `..`.
    pub(crate) destination: String,
    /// The disk; none is memory, which is empty while its machine is off.
    pub(crate) disk: Option<PathBuf>,
    pub(crate) read_only: bool,
    /// Filled from the image while it is empty.
    pub(crate) seed: bool,
    /// Nobody else writes to it for as long as this is so.
    pub(crate) held: bool,
}

/// Why its files cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DiskError {
    #[error("cannot read {}: {source}", path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("cannot read the disk {}: {source}", path.display())]
    Ext4 { path: PathBuf, source: ext4::Error },
    #[error("cannot write the disk {}: {source}", path.display())]
    Write { path: PathBuf, source: ext4::Error },
    #[error("cannot write {}: {source}", path.display())]
    Output { path: PathBuf, source: io::Error },
    #[error("the disk {} has no directory upper: it is no container's", path.display())]
    NoUpper { path: PathBuf },
    #[error(
        "{name} on the container's disk has the overlay attribute {attribute}, which its kernel does not write and this host does not read"
    )]
    Attribute { name: String, attribute: String },
    #[error("the container's directories are nested deeper than {} levels", overlay::MOST_LEVELS)]
    Deep,
    #[error(transparent)]
    Path(#[from] PathError),
    /// The archive's fault.
    #[error("the archive is broken: {0}")]
    Archive(#[from] TarError),
    #[error("cannot unpack {name:?}: {reason}")]
    Refused { name: String, reason: String },
    #[error("container rootfs is marked read-only")]
    ReadOnlyRoot,
    #[error("mounted volume is marked read-only")]
    ReadOnlyVolume,
    #[error("{0} is a volume: copy to it by its own path")]
    Unheld(String),
    #[error("{0} is memory, which is empty whenever the container starts: start it, and copy then")]
    Memory(String),
}

/// A container's files.
#[derive(Debug)]
pub(crate) struct RootDisk {
    place: Place,
    /// As its image has them.
    pub(crate) image: Tree,
    /// As it sees them. An inode that it has not changed is the image's, by its id.
    pub(crate) tree: Tree,
    mounted: Vec<Mounted>,
}

/// A mount whose files are in the tree.
#[derive(Debug)]
struct Mounted {
    /// In [`Place::mounts`].
    number: usize,
    /// The directory that it lies over: the entry of this name in that one.
    parent: NodeId,
    name: Box<[u8]>,
    /// The directory that lies there without it.
    below: NodeId,
    root: NodeId,
    /// What is mounted is a directory of its disk, not all of it.
    is_inner: bool,
}

impl RootDisk {
    /// Reads its disks, without what is mounted over them.
    pub(crate) fn open(place: Place) -> Result<RootDisk, DiskError> {
        let mut image = Tree::new(Meta { mode: 0o755, ..Meta::default() });
        for layer in &place.layers {
            overlay::lay(&mut image, &read(layer)?, ROOT)?;
        }
        let mut tree = image.clone();
        if place.top.exists() {
            let top = read(&place.top)?;
            let upper = top.child(ROOT, UPPER).filter(|&upper| top.entries(upper).is_some());
            let upper = upper.ok_or_else(|| DiskError::NoUpper { path: place.top.clone() })?;
            overlay::lay(&mut tree, &top, upper)?;
        }
        Ok(RootDisk { place, image, tree, mounted: Vec::new() })
    }

    /// Reads what is mounted, too.
    pub(crate) fn open_with_mounts(place: Place) -> Result<RootDisk, DiskError> {
        let mut disk = RootDisk::open(place)?;
        let mut order: Vec<usize> = (0..disk.place.mounts.len()).collect();
        order.sort_by_key(|&number| disk.place.mounts[number].destination.len());
        for number in order {
            disk.mount(number)?;
        }
        Ok(disk)
    }

    fn mount(&mut self, number: usize) -> Result<(), DiskError> {
        let mount = self.place.mounts[number].clone();
        let (mut root, mut is_inner) = (None, false);
        match mount.disk.as_ref().filter(|disk| disk.exists()) {
            Some(path) => {
                let mut files = read(path)?;
                if let Some(inner) = files.child(ROOT, INNER).filter(|&inner| files.entries(inner).is_some()) {
                    (files, is_inner) = (subtree(&files, inner), true);
                } else {
                    files.unlink(ROOT, LOST_FOUND);
                }
                // until then its files are the root's there; what may not be written is never filled
                if mount.read_only || !mount.seed || !is_due(&files) {
                    root = Some(overlay::graft(&mut self.tree, &files)?);
                }
            }
            // it is made, and filled, at the first start
            None if mount.disk.is_some() => {}
            None => root = Some(self.tree.add(empty_directory())),
        }
        // the guest makes the directory that is mounted on
        let resolved = path::follow(&self.tree, &mount.destination)?;
        let (mut parent, mut names) = (ROOT, path::names(&resolved).peekable());
        while let Some(name) = names.next() {
            let child = self.tree.child(parent, name.as_bytes()).filter(|&child| self.tree.entries(child).is_some());
            let child = child.unwrap_or_else(|| self.tree.insert(parent, name.as_bytes(), empty_directory()));
            if let (None, Some(root)) = (names.peek(), root) {
                self.tree.link(parent, name.as_bytes(), root);
                self.mounted.push(Mounted {
                    number,
                    parent,
                    name: name.as_bytes().into(),
                    below: child,
                    root,
                    is_inner,
                });
            }
            parent = child;
        }
        Ok(())
    }

    /// Unpacks an archive in a directory, and writes the disks that this changes anew: whole, or not at all.
    pub(crate) fn unpack(mut self, directory: &str, archive: &Arc<File>, how: Unpack) -> Result<(), DiskError> {
        let changed = unpack::unpack(&mut self.tree, directory, archive, how)?;
        let mut is_root_changed = false;
        let mut volumes = Vec::new();
        for directory in changed {
            match self.mounted.iter().rev().find(|mounted| self.holds(mounted.root, directory)) {
                Some(mounted) if volumes.contains(&mounted.number) => {}
                Some(mounted) => volumes.push(mounted.number),
                None => is_root_changed = true,
            }
        }
        if is_root_changed && self.place.read_only {
            return Err(DiskError::ReadOnlyRoot);
        }
        if volumes.iter().any(|&number| self.place.mounts[number].read_only) {
            return Err(DiskError::ReadOnlyVolume);
        }
        for mount in volumes.iter().map(|&number| &self.place.mounts[number]) {
            let destination = mount.destination.clone();
            match mount.disk {
                None => return Err(DiskError::Memory(destination)),
                Some(_) if !mount.held => return Err(DiskError::Unheld(destination)),
                Some(_) => {}
            }
        }
        // what is mounted over the root is not its own
        for Mounted { parent, name, below, .. } in self.mounted.iter().rev() {
            self.tree.link(*parent, name, *below);
        }
        for Mounted { number, root, is_inner, .. } in &self.mounted {
            if let (true, Some(disk)) = (volumes.contains(number), &self.place.mounts[*number].disk) {
                let mut files = subtree(&self.tree, *root);
                if *is_inner {
                    let mut all = Tree::new(empty_directory().meta);
                    let inner = overlay::graft(&mut all, &files)?;
                    all.link(ROOT, INNER, inner);
                    files = all;
                }
                write(&files, disk, disk)?;
            }
        }
        if is_root_changed {
            self.write_top()?;
        }
        Ok(())
    }

    fn holds(&self, root: NodeId, directory: NodeId) -> bool {
        let mut waiting = vec![root];
        while let Some(id) = waiting.pop() {
            if id == directory {
                return true;
            }
            let children = self.tree.entries(id).into_iter().flat_map(BTreeMap::values);
            waiting.extend(children.filter(|&&child| self.tree.entries(child).is_some()));
        }
        false
    }

    fn write_top(&self) -> Result<(), DiskError> {
        let upper = between(&self.image, &self.tree);
        let mut top = Tree::new(empty_directory().meta);
        let root = overlay::graft(&mut top, &upper)?;
        top.link(ROOT, UPPER, root);
        top.insert(ROOT, WORK, empty_directory());
        let like = if self.place.top.exists() { &self.place.top } else { &self.place.blank };
        write(&top, like, &self.place.top)
    }
}

/// An empty one, as guests make them.
fn empty_directory() -> Node {
    Node { meta: Meta { mode: 0o755, ..Meta::default() }, kind: Kind::Dir(BTreeMap::new()) }
}

/// Whether a guest will fill a volume from its image: it says so itself, or is empty and was never filled.
fn is_due(volume: &Tree) -> bool {
    match volume.node(ROOT).meta.xattrs.get(SEED) {
        Some(mark) => **mark == *SEED_BEGUN,
        None => volume.entries(ROOT).is_none_or(BTreeMap::is_empty),
    }
}

fn open(path: &Path) -> Result<Arc<dyn ReadAt>, DiskError> {
    let file = File::open(path).map_err(|source| DiskError::Open { path: path.into(), source })?;
    Ok(Arc::new(file))
}

fn read(path: &Path) -> Result<Tree, DiskError> {
    ext4::read(&open(path)?).map_err(|source| DiskError::Ext4 { path: path.into(), source })
}

/// Writes a file system with the size and the names of `like`, and has it take the place of `path`.
fn write(tree: &Tree, like: &Path, path: &Path) -> Result<(), DiskError> {
    let options = ext4::options(&*open(like)?).map_err(|source| DiskError::Ext4 { path: like.into(), source })?;
    let at = |source| DiskError::Output { path: path.into(), source };
    let output = Output::create(path).map_err(at)?;
    ext4::write(tree, &options, output.file(), &mut |_, _| {})
        .map_err(|source| DiskError::Write { path: path.into(), source })?;
    output.publish().map_err(at)
}

/// A directory and what is below it as a tree of its own.
fn subtree(tree: &Tree, root: NodeId) -> Tree {
    let mut made = Tree::new(tree.node(root).meta.clone());
    let mut known = std::collections::HashMap::new();
    let mut waiting = vec![(root, ROOT)];
    while let Some((from, to)) = waiting.pop() {
        for (name, &id) in tree.entries(from).into_iter().flatten() {
            let Node { meta, kind } = tree.node(id);
            if let Kind::Dir(_) = kind {
                let directory = Node { meta: meta.clone(), kind: Kind::Dir(BTreeMap::new()) };
                waiting.push((id, made.insert(to, name, directory)));
                continue;
            }
            let copy = *known.entry(id).or_insert_with(|| made.add(tree.node(id).clone()));
            made.link(to, name, copy);
        }
    }
    made
}

/// What a file holds, from its start.
pub(crate) struct Bytes<'a> {
    content: &'a Content,
    at: u64,
}

impl<'a> Bytes<'a> {
    pub(crate) fn of(content: &'a Content) -> Bytes<'a> {
        Bytes { content, at: 0 }
    }
}

impl io::Read for Bytes<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = self.content.size - self.at;
        let len = usize::try_from(left).map_or(buf.len(), |left| left.min(buf.len()));
        self.content.read_exact_at(&mut buf[..len], self.at)?;
        self.at += len as u64;
        Ok(len)
    }
}

/// In a top's root: what the container has written, and what overlayfs works in.
const UPPER: &[u8] = b"upper";
const WORK: &[u8] = b"work";
/// In a volume's root: the directory that is mounted, where there is one.
const INNER: &[u8] = b".vic.vol.data";
/// Of a volume's directory: how far a guest has filled it.
const SEED: &[u8] = b"trusted.tether.seed";
const SEED_BEGUN: &[u8] = b"begun";
/// In any ext4.
const LOST_FOUND: &[u8] = b"lost+found";
