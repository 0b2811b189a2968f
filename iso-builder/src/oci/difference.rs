//! What a layer adds to those below it, as a tree of its own in the form of overlayfs: the difference between two trees.
//!
//! What is gone is a whiteout, a character device 0:0; a directory that hides a lower one of its name is opaque, by an xattr. There is nothing to hide in a
//! directory that only this layer has, and overlayfs would show a whiteout there.

use std::collections::HashMap;

use crate::tree::{Kind, Meta, Node, NodeId, ROOT, Tree};

/// What lies in `above` and not in `below`, of which `above` is a later state: an inode that both have has the same id and, but for directories, is the same.
pub fn between(below: &Tree, above: &Tree) -> Tree {
    let mut difference =
        Difference { below, above, made: Tree::new(plain(&above.node(ROOT).meta)), links: HashMap::new() };
    difference.compare(ROOT, ROOT);
    difference.made
}

struct Difference<'a> {
    below: &'a Tree,
    above: &'a Tree,
    made: Tree,
    /// Inodes of `above` with more than one name, perhaps: what has become of them.
    links: HashMap<NodeId, NodeId>,
}

impl Difference<'_> {
    /// Both trees have the directory `dir`; `to` is what becomes of it. Is there any difference?
    fn compare(&mut self, dir: NodeId, to: NodeId) -> bool {
        let (below, above) = (self.below, self.above);
        let (old, new) = (below.entries(dir), above.entries(dir));
        let mut differs = below.node(dir).meta != above.node(dir).meta;
        for (name, &id) in new.into_iter().flatten() {
            let lower = old.and_then(|old| old.get(name)).copied();
            if lower == Some(id) {
                differs |= above.entries(id).is_some() && self.compare_below(id, to, name);
                continue;
            }
            differs = true;
            let made = self.copy(id);
            self.made.link(to, name, made);
            if lower.is_some_and(|lower| below.entries(lower).is_some()) && above.entries(id).is_some() {
                self.made.node_mut(made).meta.xattrs.insert(OPAQUE.to_vec(), b"y".to_vec());
            }
        }
        for name in old.into_iter().flatten().map(|(name, _)| name) {
            if new.is_none_or(|new| !new.contains_key(name)) {
                differs = true;
                self.made.insert(to, name, whiteout());
            }
        }
        differs
    }

    /// The directory `id` is `name` in both: it is in the difference if anything in it differs.
    fn compare_below(&mut self, id: NodeId, to: NodeId, name: &[u8]) -> bool {
        let made = self.made.add(self.empty(id));
        let differs = self.compare(id, made);
        if differs {
            self.made.link(to, name, made);
        }
        differs
    }

    /// An inode with all that is in it.
    fn copy(&mut self, id: NodeId) -> NodeId {
        if let Some(&made) = self.links.get(&id) {
            return made;
        }
        let above = self.above;
        let made = self.made.add(self.empty(id));
        match above.entries(id) {
            None => drop(self.links.insert(id, made)),
            Some(entries) => {
                for (name, &id) in entries {
                    let entry = self.copy(id);
                    self.made.link(made, name, entry);
                }
            }
        }
        made
    }

    /// An inode; a directory without its entries.
    fn empty(&self, id: NodeId) -> Node {
        let Node { meta, kind } = self.above.node(id);
        let kind = match kind {
            Kind::Dir(_) => Kind::Dir(Default::default()),
            kind => kind.clone(),
        };
        Node { meta: plain(meta), kind }
    }
}

/// Without what would mean something to overlayfs: an image's own xattrs of that kind are from the machine that made it.
fn plain(meta: &Meta) -> Meta {
    let mut meta = meta.clone();
    meta.xattrs.retain(|name, _| !name.starts_with(OVERLAY));
    meta
}

fn whiteout() -> Node {
    Node { meta: Meta::default(), kind: Kind::CharDevice { major: 0, minor: 0 } }
}

const OVERLAY: &[u8] = b"trusted.overlay.";
const OPAQUE: &[u8] = b"trusted.overlay.opaque";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Content;

    fn meta(mode: u16) -> Meta {
        Meta { mode, ..Meta::default() }
    }

    fn dir(tree: &mut Tree, parent: NodeId, name: &str) -> NodeId {
        tree.insert(parent, name.as_bytes(), Node { meta: meta(0o755), kind: Kind::Dir(Default::default()) })
    }

    fn file(tree: &mut Tree, parent: NodeId, name: &str) -> NodeId {
        let kind = Kind::File(Content::from_bytes(name.as_bytes()));
        tree.insert(parent, name.as_bytes(), Node { meta: meta(0o644), kind })
    }

    /// A line for each name: `d` directory, `o` opaque one, `w` whiteout, `f` file with its inode.
    fn shown(tree: &Tree) -> Vec<String> {
        let (mut lines, mut todo) = (Vec::new(), vec![(ROOT, String::new())]);
        while let Some((dir, path)) = todo.pop() {
            for (name, &id) in tree.entries(dir).into_iter().flatten() {
                let path = format!("{path}/{}", String::from_utf8_lossy(name));
                let node = tree.node(id);
                lines.push(match &node.kind {
                    Kind::Dir(_) if node.meta.xattrs.contains_key(OPAQUE) => format!("o {path}"),
                    Kind::Dir(_) => format!("d {path} {:o}", node.meta.mode),
                    Kind::CharDevice { major: 0, minor: 0 } => format!("w {path}"),
                    _ => format!("f {path} {id:?}"),
                });
                todo.push((id, path));
            }
        }
        lines.sort();
        lines
    }

    #[test]
    fn only_what_differs_is_there() {
        let mut below = Tree::new(meta(0o755));
        let (a, b) = (dir(&mut below, ROOT, "a"), dir(&mut below, ROOT, "b"));
        let (deep, gone) = (dir(&mut below, a, "deep"), dir(&mut below, a, "gone"));
        file(&mut below, deep, "old");
        file(&mut below, gone, "x");
        let kept = file(&mut below, b, "kept");
        assert_eq!(shown(&between(&below, &below)), [""; 0]);

        let mut above = below.clone();
        above.unlink(a, b"gone");
        let (replaced, new) = (file(&mut above, deep, "old"), dir(&mut above, deep, "new"));
        above.link(new, b"again", replaced);
        above.link(new, b"kept", kept);
        above.node_mut(b).meta.mode = 0o700;
        let difference = between(&below, &above);
        let lines = shown(&difference);
        let names: Vec<_> = lines.iter().map(|line| line.split(" NodeId").next().unwrap()).collect();
        let expected = [
            "d /a 755",
            "d /a/deep 755",
            "d /a/deep/new 755",
            "d /b 700",
            "f /a/deep/new/again",
            "f /a/deep/new/kept",
            "f /a/deep/old",
            "w /a/gone",
        ];
        assert_eq!(names, expected);
        let inode = |path: &str| {
            let line = lines.iter().find(|line| line.starts_with(&format!("f {path} "))).unwrap();
            line.rsplit(' ').next().unwrap().to_owned()
        };
        assert_eq!(inode("/a/deep/old"), inode("/a/deep/new/again"), "a hard link stays one");
        assert_ne!(inode("/a/deep/old"), inode("/a/deep/new/kept"));
    }

    #[test]
    fn a_directory_in_the_place_of_another_hides_it() {
        let mut below = Tree::new(meta(0o755));
        let a = dir(&mut below, ROOT, "a");
        file(&mut below, a, "x");
        file(&mut below, ROOT, "b");
        let mut above = below.clone();
        let a = dir(&mut above, ROOT, "a");
        file(&mut above, a, "y");
        dir(&mut above, ROOT, "b");
        above.node_mut(a).meta.xattrs.insert(b"trusted.overlay.redirect".to_vec(), b"/etc".to_vec());
        let difference = between(&below, &above);
        let names: Vec<_> =
            shown(&difference).iter().map(|line| line.split(" NodeId").next().unwrap().to_owned()).collect();
        assert_eq!(names, ["d /b 755", "f /a/y", "o /a"]);
        let made = difference.node(difference.child(ROOT, b"a").unwrap());
        assert_eq!(made.meta.xattrs.len(), 1, "its own xattrs of overlayfs are not the image's");
    }
}
