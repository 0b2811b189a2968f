//! Trees over trees, as overlayfs lays them: Linux, Documentation/filesystems/overlayfs.rst.
//!
//! It decides what a layer's marks mean: whiteouts, opaque directories. What our guests' kernels do not write (they rename no directory of a lower layer and copy
//! no attributes without contents) is refused.

use std::collections::{BTreeMap, HashMap};

use iso_builder::tree::{Kind, Meta, Node, NodeId, ROOT, Tree};

use super::{DiskError, LOST_FOUND};

/// Directories in directories; a container can make more, and nobody does.
pub(super) const MOST_LEVELS: usize = 1000;

const PREFIX: &[u8] = b"trusted.overlay.";
const OPAQUE: &[u8] = b"trusted.overlay.opaque";
/// Of an empty file that is a whiteout, in a directory whose [`OPAQUE`] is `x`.
const WHITEOUT: &[u8] = b"trusted.overlay.whiteout";
/// What would have to be looked up elsewhere.
const REFUSED: [&[u8]; 2] = [b"trusted.overlay.redirect", b"trusted.overlay.metacopy"];

/// Lays a directory of `layer` and what is in it over the root of `tree`.
pub(super) fn lay(tree: &mut Tree, layer: &Tree, from: NodeId) -> Result<(), DiskError> {
    Laying { tree, layer, links: HashMap::new(), takes_marks: true }.directory(ROOT, from, 0)
}

/// Copies all of a tree into another one, where nothing names it yet.
pub(super) fn graft(tree: &mut Tree, files: &Tree) -> Result<NodeId, DiskError> {
    let root = tree.add(Node { meta: Meta::default(), kind: Kind::Dir(BTreeMap::new()) });
    Laying { tree, layer: files, links: HashMap::new(), takes_marks: false }.directory(root, ROOT, 0)?;
    Ok(root)
}

struct Laying<'a> {
    tree: &'a mut Tree,
    layer: &'a Tree,
    /// What has become of the layer's inodes, of which some have several names.
    links: HashMap<NodeId, NodeId>,
    /// Whether its marks are overlayfs's, or files like all.
    takes_marks: bool,
}

impl Laying<'_> {
    fn directory(&mut self, to: NodeId, from: NodeId, level: usize) -> Result<(), DiskError> {
        if level > MOST_LEVELS {
            return Err(DiskError::Deep);
        }
        let layer = self.layer;
        let meta = &layer.node(from).meta;
        if self.takes_marks
            && meta.xattrs.get(OPAQUE).is_some_and(|value| value == b"y")
            && let Kind::Dir(entries) = &mut self.tree.node_mut(to).kind
        {
            entries.clear();
        }
        self.tree.node_mut(to).meta = self.plain(meta, b"/")?;
        for (name, &id) in layer.entries(from).into_iter().flatten() {
            // each layer's file system has one, which is not the image's
            if self.takes_marks && from == ROOT && **name == *LOST_FOUND {
                continue;
            }
            self.entry(to, name, id, level)?;
        }
        Ok(())
    }

    fn entry(&mut self, to: NodeId, name: &[u8], id: NodeId, level: usize) -> Result<(), DiskError> {
        let Node { meta, kind } = self.layer.node(id);
        if self.takes_marks && is_whiteout(meta, kind) {
            self.tree.unlink(to, name);
            return Ok(());
        }
        if let Kind::Dir(_) = kind {
            let there = self.tree.child(to, name).filter(|&there| self.tree.entries(there).is_some());
            let dir = match there {
                Some(there) => there,
                None => {
                    let kind = Kind::Dir(BTreeMap::new());
                    self.tree.insert(to, name, Node { meta: Meta::default(), kind })
                }
            };
            return self.directory(dir, id, level + 1);
        }
        let made = match self.links.get(&id) {
            Some(&made) => made,
            None => {
                let made = self.tree.add(Node { meta: self.plain(meta, name)?, kind: kind.clone() });
                self.links.insert(id, made);
                made
            }
        };
        self.tree.link(to, name, made);
        Ok(())
    }

    /// Without what is overlayfs's own.
    fn plain(&self, meta: &Meta, name: &[u8]) -> Result<Meta, DiskError> {
        if !self.takes_marks {
            return Ok(meta.clone());
        }
        if let Some(refused) = REFUSED.iter().find(|&&refused| meta.xattrs.contains_key(refused)) {
            let (name, attribute) = (String::from_utf8_lossy(name).into(), String::from_utf8_lossy(refused).into());
            return Err(DiskError::Attribute { name, attribute });
        }
        let mut meta = meta.clone();
        meta.xattrs.retain(|name, _| !name.starts_with(PREFIX));
        Ok(meta)
    }
}

fn is_whiteout(meta: &Meta, kind: &Kind) -> bool {
    match kind {
        Kind::CharDevice { major: 0, minor: 0 } => true,
        Kind::File(content) => content.size == 0 && meta.xattrs.contains_key(WHITEOUT),
        _ => false,
    }
}
