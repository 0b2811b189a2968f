//! What goes into each image. Recipes are data and a short path through the writers; how bytes lie is the writers'.

pub mod container_disk;
pub mod data_disk;
pub mod extra;
pub mod folder;
pub mod initramfs;
pub mod iso;
pub mod layer_disk;
pub mod virtual_disk;

use crate::tree::{Content, Kind, Meta, Node, NodeId, Time, Tree};

/// A directory that anyone may read and only root may change.
fn dir(tree: &mut Tree, parent: NodeId, name: &str, time: Time) -> NodeId {
    tree.insert(parent, name.as_bytes(), Node { meta: meta(0o755, time), kind: Kind::Dir(Default::default()) })
}

fn file(tree: &mut Tree, parent: NodeId, name: &str, mode: u16, content: Content, time: Time) -> NodeId {
    tree.insert(parent, name.as_bytes(), Node { meta: meta(mode, time), kind: Kind::File(content) })
}

/// Everything in an image belongs to root.
fn meta(mode: u16, mtime: Time) -> Meta {
    Meta { mode, mtime, ..Meta::default() }
}
