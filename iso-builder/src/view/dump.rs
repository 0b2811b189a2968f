//! The files of an image as text, for formats that have nothing to say besides: two lines for each, in order of path.

use std::collections::HashMap;
use std::io;

use super::list::list;
use super::text::{Shown, exact_time};
use crate::digest::Hasher;
use crate::tree::{Kind, NodeId, Tree};

/// Mode, owner, time, names, and what is in it: a file's bytes and SHA-256. A further name of a file says which was the first.
pub fn dump(tree: &Tree, out: &mut dyn io::Write) -> io::Result<()> {
    let mut first: HashMap<NodeId, Vec<u8>> = HashMap::new();
    list(tree, crate::tree::ROOT, true, &mut |entry| {
        let path = Shown(entry.path);
        if let Some(first) = first.get(&entry.id) {
            return writeln!(out, "/{path}\n    = /{}", Shown(first));
        }
        let node = tree.node(entry.id);
        let (meta, links) = (&node.meta, entry.links);
        if links > 1 && tree.entries(entry.id).is_none() {
            first.insert(entry.id, entry.path.to_vec());
        }
        let (bits, what) = match &node.kind {
            Kind::Dir(_) => (0o040_000, String::new()),
            Kind::Symlink(target) => (0o120_000, format!(" -> {}", Shown(target))),
            Kind::CharDevice { major, minor } => (0o020_000, format!(" device {major},{minor}")),
            Kind::BlockDevice { major, minor } => (0o060_000, format!(" device {major},{minor}")),
            Kind::Fifo => (0o010_000, String::new()),
            Kind::Socket => (0o140_000, String::new()),
            Kind::File(content) => {
                let mut hasher = Hasher::default();
                let hashed = super::inner::copy(content, &mut hasher, None);
                hashed.map_err(|error| io::Error::new(error.kind(), format!("/{path}: {error}")))?;
                (0o100_000, format!(" {} bytes, sha256 {}", content.size, hasher.finish()))
            }
        };
        let (mode, uid, gid, time) = (bits | u32::from(meta.mode), meta.uid, meta.gid, exact_time(meta.mtime));
        writeln!(out, "/{path}\n    {mode:06o} {uid}:{gid} {time} links {links}{what}")?;
        let xattr = |(name, value): (&Vec<u8>, &Vec<u8>)| (Shown(name).to_string(), Shown(value).to_string());
        meta.xattrs.iter().map(xattr).try_for_each(|(name, value)| writeln!(out, "    {name} = {value}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Content, Meta, Node, ROOT};

    #[test]
    fn everything_is_told() {
        let mut tree = Tree::new(Meta::default());
        let mut meta = Meta { mode: 0o644, uid: 1, gid: 2, ..Meta::default() };
        meta.xattrs.insert(b"user.x".to_vec(), b"\x01".to_vec());
        let file = tree.insert(ROOT, b"a", Node { meta, kind: Kind::File(Content::from_bytes(*b"hello\n")) });
        tree.link(ROOT, b"b\x1b", file);
        tree.insert(ROOT, b"c", Node { meta: Meta::default(), kind: Kind::Symlink(b"a".to_vec()) });
        let mut text = Vec::new();
        dump(&tree, &mut text).unwrap();
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "/a\n    100644 1:2 1970-01-01 00:00:00 links 2 6 bytes, sha256 \
             5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03\n    user.x = \\x01\n\
             /b\\x1b\n    = /a\n\
             /c\n    120000 0:0 1970-01-01 00:00:00 links 1 -> a\n"
        );
    }
}
