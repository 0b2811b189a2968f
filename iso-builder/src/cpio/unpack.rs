//! What the entries of an initramfs do to the files, in the kernel's order: later ones replace earlier, hard links share an inode.
//!
//! Paths stay within the tree. It decides nothing about bytes (see `reader`).

use std::collections::{BTreeMap, HashMap};

use super::reader::Header;
use crate::lookup;
use crate::tree::{Content, Extent, Extents, Kind, Meta, Node, NodeId, ROOT, Source, Time, Tree};

/// Files under construction.
#[derive(Debug)]
pub(super) struct Unpack {
    tree: Tree,
    nodes: u32,
    /// What has several names, by what the kernel tells it by, until the archive's trailer.
    links: HashMap<(u32, u32, u32, u32), NodeId>,
}

impl Unpack {
    pub(super) fn new() -> Unpack {
        Unpack { tree: Tree::new(implied()), nodes: 1, links: HashMap::new() }
    }

    pub(super) fn finish(self) -> Tree {
        self.tree
    }

    /// The inode numbers of the next archive are others.
    pub(super) fn forget_links(&mut self) {
        self.links.clear();
    }

    /// `target` is a symlink's; `content` says where a file's bytes begin.
    pub(super) fn entry(
        &mut self,
        header: &Header,
        path: &[u8],
        target: Vec<u8>,
        content: (Source, u64),
    ) -> Result<(), &'static str> {
        let meta = Meta {
            mode: u16::try_from(header.mode & 0o7777).expect("12 bits"),
            uid: header.uid,
            gid: header.gid,
            mtime: Time { secs: i64::from(header.mtime), nanos: 0 },
            xattrs: BTreeMap::new(),
        };
        let kind = match header.mode & 0o170_000 {
            0o040_000 => Kind::Dir(BTreeMap::new()),
            0o100_000 => Kind::File(stored(u64::from(header.size), content)),
            0o120_000 if target.is_empty() => return Err("a symbolic link has no target"),
            0o120_000 if target.contains(&0) => return Err("a symbolic link's target holds a NUL"),
            0o120_000 => Kind::Symlink(target),
            0o020_000 => Kind::CharDevice { major: header.device.0, minor: header.device.1 },
            0o060_000 => Kind::BlockDevice { major: header.device.0, minor: header.device.1 },
            0o010_000 => Kind::Fifo,
            0o140_000 => Kind::Socket,
            _ => return Err("an entry is of no kind of file"),
        };
        let path = path.strip_suffix(b"/").unwrap_or(path);
        let (parents, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&b""[..], path),
        };
        if matches!(name, b"" | b"." | b"..") {
            let Kind::Dir(_) = kind else { return Err("an entry that is no directory has a directory's name") };
            let dir = self.directory(path)?;
            self.tree.node_mut(dir).meta = meta;
            return Ok(());
        }
        if name.len() > 255 {
            return Err("a name is longer than 255 bytes");
        }
        let dir = self.directory(parents)?;
        self.put(dir, name, header, Node { meta, kind })
    }

    fn put(&mut self, dir: NodeId, name: &[u8], header: &Header, node: Node) -> Result<(), &'static str> {
        if let Some(old) = self.tree.child(dir, name) {
            match (self.tree.entries(old).map(BTreeMap::is_empty), &node.kind) {
                (Some(_), Kind::Dir(_)) => {
                    self.tree.node_mut(old).meta = node.meta;
                    return Ok(());
                }
                (Some(false), _) => return Err("an entry takes the place of a directory that is not empty"),
                _ => {}
            }
        }
        // Directories are counted as linked too, by their entries; symlinks of several names are made anew each time.
        let key = (header.home.0, header.home.1, header.ino, header.mode & 0o170_000);
        let shared = header.links > 1 && !matches!(node.kind, Kind::Dir(_) | Kind::Symlink(_));
        match self.links.get(&key).copied().filter(|_| shared) {
            Some(id) => {
                let first = self.tree.node_mut(id);
                first.meta = node.meta;
                match node.kind {
                    Kind::File(content) if content.size > 0 => first.kind = Kind::File(content),
                    _ => {}
                }
                self.tree.link(dir, name, id);
            }
            None => {
                let id = self.add(node)?;
                self.tree.link(dir, name, id);
                if shared {
                    self.links.insert(key, id);
                }
            }
        }
        Ok(())
    }

    /// The directory at `path`, made with all that lead to it where the archive has forgotten them.
    fn directory(&mut self, path: &[u8]) -> Result<NodeId, &'static str> {
        match lookup::find(&self.tree, path) {
            Ok(id) if self.tree.entries(id).is_some() => return Ok(id),
            Ok(_) | Err(lookup::Error::NoDirectory) => return Err("an entry lies in what is no directory"),
            Err(lookup::Error::Loop) => return Err("an entry lies behind a loop of symbolic links"),
            Err(lookup::Error::Missing) => {}
        }
        let mut known = path;
        let mut missing = Vec::new();
        let mut dir = loop {
            let Some(slash) = known.iter().rposition(|byte| *byte == b'/') else {
                missing.push(known);
                break ROOT;
            };
            missing.push(&known[slash + 1..]);
            known = &known[..slash];
            match lookup::find(&self.tree, known) {
                Ok(id) => break id,
                Err(lookup::Error::Missing) => {}
                Err(_) => return Err("an entry lies in what is no directory"),
            }
        };
        for name in missing.into_iter().rev().filter(|name| !matches!(*name, b"" | b".")) {
            if name == b".." || self.tree.child(dir, name).is_some() {
                return Err("an entry lies behind a symbolic link that leads nowhere");
            }
            let id = self.add(Node { meta: implied(), kind: Kind::Dir(BTreeMap::new()) })?;
            self.tree.link(dir, name, id);
            dir = id;
        }
        Ok(dir)
    }

    fn add(&mut self, node: Node) -> Result<NodeId, &'static str> {
        if self.nodes == MAX_NODES {
            return Err("it holds more than a million files");
        }
        self.nodes += 1;
        Ok(self.tree.add(node))
    }
}

fn stored(size: u64, (source, from): (Source, u64)) -> Content {
    let extents = match size {
        0 => Extents::default(),
        len => Extent { at: 0, len, source, from }.into(),
    };
    Content { size, extents }
}

/// A directory that no entry describes.
fn implied() -> Meta {
    Meta { mode: 0o755, ..Meta::default() }
}

/// Bounds the memory that a hostile archive takes; Debian's own initramfs has 2,000.
const MAX_NODES: u32 = 1 << 20;
