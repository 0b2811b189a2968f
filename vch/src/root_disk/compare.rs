//! What a container has changed of its image: `docker diff`, and the layer that a commit makes of it.
//!
//! It decides what counts as a change, as docker does and as our guests do of a running container (guest/src/copy/changes.rs).

use std::collections::BTreeSet;

use iso_builder::oci::between;
use iso_builder::tree::{Kind, Meta, Node, NodeId, ROOT, Tree};

use super::{RootDisk, path};

/// A change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) kind: ChangeKind,
    /// From the root.
    pub(crate) path: Vec<u8>,
}

/// What has become of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChangeKind {
    Changed,
    Added,
    Deleted,
}

pub(super) const OPAQUE: &[u8] = b"trusted.overlay.opaque";

/// What a guest mounts by itself, and makes places for.
const GUESTS: [&str; 10] = [
    "/dev",
    "/dev/mqueue",
    "/dev/pts",
    "/dev/shm",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/resolv.conf",
    "/proc",
    "/sys",
    "/.dockerenv",
];

pub(super) fn is_whiteout(kind: &Kind) -> bool {
    matches!(kind, Kind::CharDevice { major: 0, minor: 0 })
}

pub(super) fn is_opaque(meta: &Meta) -> bool {
    meta.xattrs.get(OPAQUE).is_some_and(|value| value == b"y")
}

/// All changes, directories before what is in them and names in order. What is mounted on is left out: what is there is not the image's.
pub(crate) fn changes(disk: &RootDisk) -> Vec<Change> {
    let places = GUESTS.iter().map(|place| place.as_bytes().to_vec());
    let mounts = disk.place.mounts.iter().map(|mount| mount.destination.clone().into_bytes());
    let mut comparison = Comparison {
        image: &disk.image,
        tree: &disk.tree,
        mount_points: places.chain(mounts).collect(),
        changes: Vec::new(),
    };
    comparison.directory(Some(ROOT), ROOT, b"");
    comparison.changes
}

/// What it has changed as a layer in overlayfs's form, without what its guest made to mount on.
pub(crate) fn whiteouts(disk: &mut RootDisk) -> Tree {
    for place in GUESTS {
        let is_new = path::find(&disk.image, place).is_ok_and(|found| found.is_none());
        if let (true, Ok(Some((parent, name, id)))) = (is_new, path::find(&disk.tree, place)) {
            let is_empty = match &disk.tree.node(id).kind {
                Kind::Dir(entries) => entries.is_empty(),
                Kind::File(content) => content.size == 0,
                _ => false,
            };
            if is_empty {
                disk.tree.unlink(parent, name.as_bytes());
            }
        }
    }
    between(&disk.image, &disk.tree)
}

struct Comparison<'a> {
    image: &'a Tree,
    tree: &'a Tree,
    mount_points: BTreeSet<Vec<u8>>,
    changes: Vec<Change>,
}

impl Comparison<'_> {
    fn directory(&mut self, old: Option<NodeId>, new: NodeId, path: &[u8]) {
        let (image, tree) = (self.image, self.tree);
        let old = old.and_then(|old| image.entries(old));
        let new = tree.entries(new);
        let names: BTreeSet<&[u8]> =
            old.into_iter().chain(new).flat_map(|entries| entries.keys().map(|name| &**name)).collect();
        for name in names {
            let path = [path, b"/", name].concat();
            if self.mount_points.contains(&path) {
                continue;
            }
            let child = |entries: Option<&std::collections::BTreeMap<Box<[u8]>, NodeId>>| {
                entries.and_then(|entries| entries.get(name)).copied()
            };
            self.entry(child(old), child(new), path);
        }
    }

    fn entry(&mut self, old: Option<NodeId>, new: Option<NodeId>, path: Vec<u8>) {
        let before = self.changes.len();
        let Some(new) = new else {
            self.changes.push(Change { kind: ChangeKind::Deleted, path });
            return;
        };
        let old_dir = old.filter(|&old| self.image.entries(old).is_some());
        match old {
            None => self.changes.push(Change { kind: ChangeKind::Added, path: path.clone() }),
            Some(old) if self.differs(old, new) => {
                self.changes.push(Change { kind: ChangeKind::Changed, path: path.clone() });
            }
            Some(_) => {}
        }
        if self.tree.entries(new).is_some() {
            let is_told = self.changes.len() > before;
            self.directory(old_dir, new, &path);
            // a directory is changed if anything in it is
            if !is_told && self.changes.len() > before {
                self.changes.insert(before, Change { kind: ChangeKind::Changed, path });
            }
        }
    }

    /// As docker compares: not the times of directories, and of attributes the one that gives rights.
    fn differs(&self, old: NodeId, new: NodeId) -> bool {
        let is_same = old == new && self.tree.entries(new).is_none();
        if is_same {
            return false;
        }
        let (Node { meta: old, kind: was }, Node { meta: new, kind: is }) = (self.image.node(old), self.tree.node(new));
        if (old.mode, old.uid, old.gid) != (new.mode, new.uid, new.gid) {
            return true;
        }
        let rights = |meta: &Meta| meta.xattrs.get(&b"security.capability"[..]).cloned();
        let size = match (was, is) {
            (Kind::Dir(_), Kind::Dir(_)) => return false,
            (Kind::File(was), Kind::File(is)) => was.size != is.size,
            (Kind::Symlink(was), Kind::Symlink(is)) => was.len() != is.len(),
            (
                Kind::CharDevice { major: a, minor: b } | Kind::BlockDevice { major: a, minor: b },
                Kind::CharDevice { major: c, minor: d } | Kind::BlockDevice { major: c, minor: d },
            ) => (a, b) != (c, d) || std::mem::discriminant(was) != std::mem::discriminant(is),
            _ => std::mem::discriminant(was) != std::mem::discriminant(is),
        };
        size || old.mtime != new.mtime || rights(old) != rights(new)
    }
}
