//! Finds a path in a [`Tree`] as a process would whose root the tree is: symlinks are followed within it, `..` stops at the root.
//!
//! It decides nothing about who may read what: whoever looks into an image sees all of it.

use crate::tree::{Kind, NodeId, ROOT, Tree};

/// Why a path leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("no such file or directory")]
    Missing,
    #[error("a part of it is no directory")]
    NoDirectory,
    #[error("too many symbolic links")]
    Loop,
}

/// The inode that `path` names, its own symlinks followed to their ends.
pub fn find(tree: &Tree, path: &[u8]) -> Result<NodeId, Error> {
    walk(tree, path, true)
}

/// The inode that `path` names, or the symlink that it names itself. With a slash at the end, the link is followed, as for `lstat(2)`.
pub fn find_link(tree: &Tree, path: &[u8]) -> Result<NodeId, Error> {
    walk(tree, path, path.ends_with(b"/"))
}

fn walk(tree: &Tree, path: &[u8], follow: bool) -> Result<NodeId, Error> {
    // What remains to be walked, the next component last.
    let mut rest: Vec<&[u8]> = components(path).rev().collect();
    // The directories from the root to here: `..` goes back along them.
    let mut way = vec![ROOT];
    let mut links = 0;
    while let Some(name) = rest.pop() {
        let here = way[way.len() - 1];
        if tree.entries(here).is_none() {
            return Err(Error::NoDirectory);
        }
        if name == b".." {
            way.truncate((way.len() - 1).max(1));
            continue;
        }
        let id = tree.child(here, name).ok_or(Error::Missing)?;
        match &tree.node(id).kind {
            Kind::Symlink(target) if follow || !rest.is_empty() => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Error::Loop);
                }
                if target.starts_with(b"/") {
                    way.truncate(1);
                }
                rest.extend(components(target).rev());
            }
            _ => way.push(id),
        }
    }
    let found = way[way.len() - 1];
    match path.ends_with(b"/") && tree.entries(found).is_none() {
        true => Err(Error::NoDirectory),
        false => Ok(found),
    }
}

fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".")
}

/// Linux's own limit (path_resolution(7)).
const MAX_LINKS: u32 = 40;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Content, Meta, Node};

    fn sample() -> (Tree, NodeId) {
        let node = |kind| Node { meta: Meta::default(), kind };
        let mut tree = Tree::new(Meta::default());
        let usr = tree.insert(ROOT, b"usr", node(Kind::Dir(Default::default())));
        let lib = tree.insert(usr, b"lib", node(Kind::Dir(Default::default())));
        let file = tree.insert(lib, b"file", node(Kind::File(Content::default())));
        tree.insert(ROOT, b"lib", node(Kind::Symlink(b"usr/lib".to_vec())));
        tree.insert(lib, b"up", node(Kind::Symlink(b"../../../../lib/file".to_vec())));
        tree.insert(lib, b"absolute", node(Kind::Symlink(b"/usr//./lib/up".to_vec())));
        tree.insert(ROOT, b"loop", node(Kind::Symlink(b"loop".to_vec())));
        (tree, file)
    }

    #[test]
    fn symlinks_stay_within_the_tree() {
        let (tree, file) = sample();
        for path in ["usr/lib/file", "/lib/file", "/lib/up", "lib/absolute", "/../lib/../lib/./file"] {
            assert_eq!(find(&tree, path.as_bytes()), Ok(file), "{path}");
        }
        assert_eq!(find(&tree, b"/"), Ok(ROOT));
        assert_eq!(find(&tree, b""), Ok(ROOT));
        assert_eq!(find_link(&tree, b"/lib"), Ok(tree.child(ROOT, b"lib").unwrap()));
        assert_eq!(find_link(&tree, b"/lib/"), find(&tree, b"/usr/lib"));
    }

    #[test]
    fn what_leads_nowhere_says_why() {
        let (tree, _) = sample();
        for (path, error) in [
            ("/nowhere", Error::Missing),
            ("/nowhere/else", Error::Missing),
            ("/lib/file/x", Error::NoDirectory),
            ("/lib/file/..", Error::NoDirectory),
            ("/lib/file/", Error::NoDirectory),
            ("/loop", Error::Loop),
        ] {
            assert_eq!(find(&tree, path.as_bytes()), Err(error), "{path}");
        }
        assert!(find_link(&tree, b"/loop").is_ok());
    }
}
