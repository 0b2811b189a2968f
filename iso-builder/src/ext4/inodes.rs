//! The inodes of an image: numbers, names, link counts, and whether ext4 can hold each of them.
//!
//! Numbers follow the order of [`Tree::reachable`]: the root has its fixed one, the others count from the first that is
//! not reserved. Decides that there is a lost+found. Contents and places on disk are not looked at.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use super::directory::{self, Entry};
use super::error::{Error, Unfit};
use super::format::{
    BLOCK_BYTES, BLOCK_DEVICE, CHAR_DEVICE, DIRECTORY, FIFO, FIRST_INODE, REGULAR, ROOT_INODE, SOCKET, SYMLINK, index,
};
use super::inode::encode_device;
use crate::tree::{Kind, Meta, Node, NodeId, ROOT, Time, Tree};

/// Where `e2fsck` puts what it finds; without it, it would have to find room in a broken file system.
const LOST_FOUND: &[u8] = b"lost+found";

/// Most names of an inode that is not a directory; directories beyond it count as 1 (`dir_nlink`).
const MAX_LINKS: u32 = 65_000;

/// Blocks of the largest file: their numbers have 32 bits.
const MAX_FILE_BLOCKS: u64 = u32::MAX as u64;

/// All inodes of an image by place, which is the order of their numbers. A few bytes for each: images have millions.
#[derive(Debug)]
pub(super) struct Inodes<'a> {
    nodes: Vec<&'a Node>,
    links: Vec<u32>,
    /// Place of the directory of an inode's first name; the root's is its own.
    parents: Vec<u32>,
    /// Place of every node of the tree, by its index; that of the root for those not reached.
    places: Vec<u32>,
    /// Whether place 1 is the lost+found that the tree did not have.
    adds_lost_found: bool,
}

impl<'a> Inodes<'a> {
    /// Numbers what `tree` reaches; `lost_found` is used if there is none.
    pub(super) fn new(tree: &'a Tree, lost_found: &'a Node) -> Result<Inodes<'a>, Error> {
        let order = tree.reachable();
        let adds_lost_found = tree.child(ROOT, LOST_FOUND).is_none();
        let mut nodes = Vec::with_capacity(order.len() + 1);
        nodes.push(tree.node(ROOT));
        nodes.extend(adds_lost_found.then_some(lost_found));
        let mut places = vec![0; tree.len()];
        for &id in &order[1..] {
            places[id.index()] = narrow(nodes.len());
            nodes.push(tree.node(id));
        }
        drop(order);
        let (links, parents) = (vec![0; nodes.len()], vec![0; nodes.len()]);
        let mut inodes = Inodes { nodes, links, parents, places, adds_lost_found };
        inodes.name_all()?;
        (0..inodes.len()).try_for_each(|place| {
            fits(inodes.node(place)).map_err(|reason| Error::Unfit { path: inodes.path(place), reason })
        })?;
        Ok(inodes)
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn node(&self, place: usize) -> &'a Node {
        self.nodes[place]
    }

    pub(super) fn is_dir(&self, place: usize) -> bool {
        matches!(self.nodes[place].kind, Kind::Dir(_))
    }

    /// The names of an inode as its record has them.
    pub(super) fn links(&self, place: usize) -> u16 {
        u16::try_from(self.links[place]).ok().filter(|&links| u32::from(links) <= MAX_LINKS).unwrap_or(1)
    }

    /// The place of the directory that an inode's first name is in.
    pub(super) fn parent(&self, place: usize) -> usize {
        wide_place(self.parents[place])
    }

    /// The entries of a directory, without `.` and `..`; of anything else there are none.
    pub(super) fn entries(&self, place: usize) -> impl Iterator<Item = Entry<'a>> {
        let added = (place == 0 && self.adds_lost_found).then_some((LOST_FOUND, 1));
        let named = children(self.nodes[place]).map(|(name, id)| (name, wide_place(self.places[id.index()])));
        added.into_iter().chain(named).map(|(name, place)| Entry {
            name,
            inode: number(place),
            file_type: directory::file_type(mode(self.nodes[place])),
        })
    }

    /// The path of the first name of an inode.
    pub(super) fn path(&self, place: usize) -> PathBuf {
        let mut names = Vec::new();
        let mut at = place;
        while at != 0 {
            let parent = self.parent(at);
            names.push(
                self.entries(parent).find(|entry| entry.inode == number(at)).map_or(&b""[..], |entry| entry.name),
            );
            at = parent;
        }
        let path = names.iter().rev().flat_map(|name| [b"/", *name]).collect::<Vec<_>>().concat();
        PathBuf::from(OsString::from_vec(if path.is_empty() { b"/".to_vec() } else { path }))
    }

    /// Goes through all entries: checks names, counts links, sets parents.
    fn name_all(&mut self) -> Result<(), Error> {
        for place in 0..self.len() {
            let node = self.nodes[place];
            if self.is_dir(place) {
                self.links[place] += 1; // `.`
            }
            if place == 0 {
                self.links[0] += 1; // `..` of the root
            }
            if place == 0 && self.adds_lost_found {
                self.links[1] += 1;
                self.links[0] += 1;
            }
            for (name, id) in children(node) {
                let child = wide_place(self.places[id.index()]);
                let first = child != 0 && self.links[child] == 0;
                if first {
                    self.parents[child] = narrow(place);
                }
                let unfit = |reason, inodes: &Inodes<'_>| {
                    let name = OsString::from_vec(name.to_vec());
                    Err(Error::Unfit { path: inodes.path(place).join(name), reason })
                };
                if !is_name(name) {
                    return unfit(Unfit::Name, self);
                }
                if self.is_dir(child) {
                    if !first {
                        return unfit(Unfit::SecondName, self);
                    }
                    self.links[place] += 1; // `..` of the child
                }
                self.links[child] += 1;
            }
        }
        match (0..self.len()).find(|&place| self.links[place] > MAX_LINKS && !self.is_dir(place)) {
            Some(place) => {
                let links = u64::from(self.links[place]);
                Err(Error::Unfit { path: self.path(place), reason: Unfit::Links { links } })
            }
            None => Ok(()),
        }
    }
}

/// The lost+found of an image whose tree has none: root's alone.
pub(super) fn lost_found(time: Time) -> Node {
    Node { meta: Meta { mode: 0o700, mtime: time, ..Meta::default() }, kind: Kind::Dir(BTreeMap::new()) }
}

/// Type and permissions of an inode.
pub(super) fn mode(node: &Node) -> u16 {
    let file_type = match node.kind {
        Kind::Dir(_) => DIRECTORY,
        Kind::File(_) => REGULAR,
        Kind::Symlink(_) => SYMLINK,
        Kind::CharDevice { .. } => CHAR_DEVICE,
        Kind::BlockDevice { .. } => BLOCK_DEVICE,
        Kind::Fifo => FIFO,
        Kind::Socket => SOCKET,
    };
    file_type | node.meta.mode & 0o7777
}

/// The number of the inode at a place.
pub(super) fn number(place: usize) -> u32 {
    match place {
        0 => ROOT_INODE,
        _ => FIRST_INODE - 1 + narrow(place),
    }
}

fn narrow(place: usize) -> u32 {
    u32::try_from(place).expect("a tree has fewer than 2^32 inodes")
}

fn wide_place(place: u32) -> usize {
    index(u64::from(place))
}

fn children(node: &Node) -> impl Iterator<Item = (&[u8], &NodeId)> {
    let entries = match &node.kind {
        Kind::Dir(entries) => Some(entries),
        _ => None,
    };
    entries.into_iter().flatten().map(|(name, id)| (&**name, id))
}

fn is_name(name: &[u8]) -> bool {
    let plain = !name.iter().any(|byte| matches!(byte, b'/' | 0));
    plain && (1..=255).contains(&name.len()) && name != b"." && name != b".."
}

fn fits(node: &Node) -> Result<(), Unfit> {
    match &node.kind {
        Kind::Symlink(target) if !(1..=4095).contains(&target.len()) || target.contains(&0) => Err(Unfit::Target),
        &(Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor }) => {
            match encode_device(major, minor) {
                Some(_) => Ok(()),
                None => Err(Unfit::Device { major, minor }),
            }
        }
        Kind::File(content) if content.size.div_ceil(BLOCK_BYTES) > MAX_FILE_BLOCKS => {
            Err(Unfit::FileSize { size: content.size })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Content;

    fn node(kind: Kind) -> Node {
        Node { meta: Meta::default(), kind }
    }

    fn dir() -> Node {
        node(Kind::Dir(BTreeMap::new()))
    }

    fn refusal(tree: &Tree) -> String {
        Inodes::new(tree, &lost_found(Time::default())).unwrap_err().to_string()
    }

    #[test]
    fn numbers_links_and_parents() {
        let mut tree = Tree::new(Meta::default());
        let sub = tree.insert(ROOT, b"sub", dir());
        let file = tree.insert(sub, b"file", node(Kind::File(Content::default())));
        tree.link(ROOT, b"z", file);
        let lost = lost_found(Time::default());
        let inodes = Inodes::new(&tree, &lost).unwrap();
        let facts: Vec<_> = (0..4)
            .map(|place| {
                (inodes.path(place).display().to_string(), number(place), inodes.links(place), inodes.parent(place))
            })
            .collect();
        let fact = |path: &str, number, links, parent| (path.to_owned(), number, links, parent);
        assert_eq!(
            facts,
            [fact("/", 2, 4, 0), fact("/lost+found", 11, 2, 0), fact("/sub", 12, 2, 0), fact("/z", 13, 2, 0)]
        );
        let names: Vec<_> = inodes.entries(0).map(|entry| (entry.name, entry.inode, entry.file_type)).collect();
        assert_eq!(names, [(LOST_FOUND, 11, 2), (b"sub", 12, 2), (b"z", 13, 1)]);
    }

    #[test]
    fn a_lost_found_of_the_tree_is_kept() {
        let mut tree = Tree::new(Meta::default());
        tree.insert(ROOT, LOST_FOUND, dir());
        assert_eq!(Inodes::new(&tree, &lost_found(Time::default())).unwrap().len(), 2);
    }

    #[test]
    fn what_ext4_can_not_hold_is_refused_by_path() {
        for name in [&b""[..], b".", b"..", b"a/b", b"a\0", &[b'x'; 256]] {
            let mut tree = Tree::new(Meta::default());
            tree.insert(ROOT, name, dir());
            assert!(refusal(&tree).contains("the name is"), "{name:?}");
        }
        for kind in [
            Kind::Symlink(Vec::new()),
            Kind::Symlink(vec![b'a'; 4096]),
            Kind::Symlink(b"a\0b".to_vec()),
            Kind::CharDevice { major: 4096, minor: 0 },
            Kind::File(Content { size: 1 << 44, extents: Default::default() }),
        ] {
            let mut tree = Tree::new(Meta::default());
            let sub = tree.insert(ROOT, b"sub", dir());
            tree.insert(sub, b"bad", node(kind));
            assert!(refusal(&tree).starts_with("can not store /sub/bad: "));
        }
    }

    #[test]
    fn a_directory_has_one_name() {
        let mut tree = Tree::new(Meta::default());
        let sub = tree.insert(ROOT, b"a", dir());
        tree.link(ROOT, b"b", sub);
        assert_eq!(refusal(&tree), "can not store /b: the directory has a second name");
        let mut tree = Tree::new(Meta::default());
        let sub = tree.insert(ROOT, b"a", dir());
        tree.link(sub, b"b", ROOT);
        assert_eq!(refusal(&tree), "can not store /a/b: the directory has a second name");
    }

    #[test]
    fn too_many_links() {
        let mut tree = Tree::new(Meta::default());
        let file = tree.add(node(Kind::Fifo));
        for n in 0..65_001 {
            tree.link(ROOT, format!("{n}").as_bytes(), file);
        }
        assert!(refusal(&tree).contains("65001 hard links"));
    }
}
