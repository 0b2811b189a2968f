//! What a directory of an image holds, in order of name, and how much of everything there is.

use std::collections::{BTreeMap, HashMap};

use crate::tree::{Kind, NodeId, Tree};

/// A name and what it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// From the directory that is listed.
    pub path: &'a [u8],
    pub id: NodeId,
    /// How many names there are for it; a directory's counts `.` and its children's `..`, as on Linux.
    pub links: u32,
}

/// Gives the entries of `dir` to `seen`; with `deep`, everything below it, a directory before what is in it. Of what is no directory, nothing.
pub fn list<E>(
    tree: &Tree,
    dir: NodeId,
    deep: bool,
    seen: &mut dyn FnMut(Entry<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let names = names(tree);
    // One path and a stack of our own: the image says how deep it is.
    let mut path = Vec::new();
    let mut open = vec![(0, tree.entries(dir).into_iter().flatten())];
    while let Some((len, entries)) = open.last_mut() {
        path.truncate(*len);
        let Some((name, &id)) = entries.next() else {
            open.pop();
            continue;
        };
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        seen(Entry { path: &path, id, links: links(tree, id, &names) })?;
        if deep && let Some(entries) = tree.entries(id) {
            open.push((path.len(), Some(entries).into_iter().flatten()));
        }
    }
    Ok(())
}

/// The links of one inode.
pub fn links_of(tree: &Tree, id: NodeId) -> u32 {
    links(tree, id, &names(tree))
}

fn links(tree: &Tree, id: NodeId, names: &HashMap<NodeId, u32>) -> u32 {
    match tree.entries(id) {
        Some(entries) => {
            let dirs = entries.values().filter(|id| tree.entries(**id).is_some()).count();
            u32::try_from(dirs).unwrap_or(u32::MAX).saturating_add(2)
        }
        None => names.get(&id).copied().unwrap_or(1),
    }
}

/// How many names each inode has that is no directory.
fn names(tree: &Tree) -> HashMap<NodeId, u32> {
    let mut names = HashMap::new();
    for dir in tree.reachable() {
        for &id in tree.entries(dir).into_iter().flat_map(BTreeMap::values).filter(|id| tree.entries(**id).is_none()) {
            *names.entry(id).or_default() += 1;
        }
    }
    names
}

/// How much of everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub directories: u64,
    pub files: u64,
    pub symlinks: u64,
    /// Devices, FIFOs and sockets.
    pub others: u64,
    /// Bytes of all files as their readers see them, each once.
    pub bytes: u64,
    /// Those that are no holes.
    pub stored: u64,
}

/// Counts every inode that the root reaches, the root too.
pub fn count(tree: &Tree) -> Counts {
    let mut counts = Counts::default();
    for id in tree.reachable() {
        match &tree.node(id).kind {
            Kind::Dir(_) => counts.directories += 1,
            Kind::Symlink(_) => counts.symlinks += 1,
            Kind::File(content) => {
                counts.files += 1;
                counts.bytes = counts.bytes.saturating_add(content.size);
                let stored = content.extents.iter().fold(0, |sum: u64, extent| sum.saturating_add(extent.len));
                counts.stored = counts.stored.saturating_add(stored);
            }
            _ => counts.others += 1,
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Content, Meta, Node, ROOT};

    #[test]
    fn in_order_with_links() {
        let node = |kind| Node { meta: Meta::default(), kind };
        let mut tree = Tree::new(Meta::default());
        let dir = tree.insert(ROOT, b"b", node(Kind::Dir(Default::default())));
        let file = tree.insert(dir, b"x", node(Kind::File(Content::from_bytes(*b"abc"))));
        tree.link(ROOT, b"a", file);
        tree.insert(ROOT, b"b.", node(Kind::Symlink(b"b".to_vec())));
        let listed = |deep| -> Vec<(String, u32)> {
            let mut found = Vec::new();
            let seen = &mut |entry: Entry<'_>| {
                found.push((String::from_utf8(entry.path.to_vec()).unwrap(), entry.links));
                Ok::<(), ()>(())
            };
            list(&tree, ROOT, deep, seen).unwrap();
            found
        };
        assert_eq!(listed(false), [("a".into(), 2), ("b".into(), 2), ("b.".into(), 1)]);
        assert_eq!(listed(true), [("a".into(), 2), ("b".into(), 2), ("b/x".into(), 2), ("b.".into(), 1)]);
        list(&tree, file, true, &mut |_| Err("something")).unwrap();
        assert_eq!(links_of(&tree, ROOT), 3);
        let counts = count(&tree);
        assert_eq!(counts, Counts { directories: 2, files: 1, symlinks: 1, others: 0, bytes: 3, stored: 3 });
    }
}
