//! Trees to judge: one with every kind of file, and random ones.

use std::collections::BTreeMap;

use iso_builder::tree::{Content, Extent, Kind, Meta, Node, NodeId, ROOT, Source, Time, Tree};

pub(crate) fn node(kind: Kind) -> Node {
    Node { meta: Meta { mode: 0o644, ..Meta::default() }, kind }
}

pub(crate) fn dir() -> Node {
    Node { meta: Meta { mode: 0o755, ..Meta::default() }, kind: Kind::Dir(BTreeMap::new()) }
}

pub(crate) fn file(bytes: Vec<u8>) -> Node {
    node(Kind::File(Content::from_bytes(bytes)))
}

pub(crate) fn with_xattrs(mut node: Node, list: &[(&[u8], &[u8])]) -> Node {
    node.meta.xattrs = list.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
    node
}

/// `user::rw-, user:1000:rwx, group::r--, mask::rwx, other::r--` as `setxattr(2)` takes it.
const ACL: &[u8] = b"\x02\0\0\0\
    \x01\0\x06\0\xFF\xFF\xFF\xFF\x02\0\x07\0\xE8\x03\0\0\x04\0\x04\0\xFF\xFF\xFF\xFF\
    \x10\0\x07\0\xFF\xFF\xFF\xFF\x20\0\x04\0\xFF\xFF\xFF\xFF";

/// `cap_net_raw+ep`.
const CAPABILITY: &[u8] = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// A tree with one of everything.
pub(crate) fn everything() -> Tree {
    let mut tree = Tree::new(Meta { mode: 0o755, ..Meta::default() });
    let mut make = |name: &[u8]| tree.insert(ROOT, name, dir());
    let [dev, run, bin, times, xattr, odd] =
        [b"dev".as_slice(), b"run", b"bin", b"times", b"xattr", b"odd"].map(&mut make);
    let null = tree.insert(dev, b"null", node(Kind::CharDevice { major: 1, minor: 3 }));
    tree.node_mut(null).meta.mode = 0o666;
    tree.insert(dev, b"big", node(Kind::BlockDevice { major: 10, minor: 70_000 }));
    tree.insert(run, b"fifo", node(Kind::Fifo));
    tree.insert(run, b"socket", node(Kind::Socket));
    let mut su = file(b"#!/bin/sh\n".repeat(1000));
    (su.meta.mode, su.meta.uid, su.meta.gid) = (0o4755, 4_294_967_294, 65_536);
    let su = tree.insert(bin, b"su", su);
    tree.link(bin, b"su2", su);
    tree.link(ROOT, b"su3", su);
    for len in [1, 59, 60, 61, 4095] {
        tree.insert(bin, format!("link{len}").as_bytes(), node(Kind::Symlink(vec![b'a'; len])));
    }
    for (name, secs) in [("1960", -315_619_200), ("1970", 0), ("2038", i64::from(i32::MAX)), ("2040", 2_208_988_800)] {
        let id = tree.insert(times, name.as_bytes(), file(Vec::new()));
        tree.node_mut(id).meta.mtime = Time { secs, nanos: if secs < 0 { 999_999_999 } else { 5 } };
    }
    tree.insert(
        xattr,
        b"small",
        with_xattrs(file(b"x".to_vec()), &[(b"user.note", b"hello"), (b"security.capability", CAPABILITY)]),
    );
    let large: &[(&[u8], &[u8])] = &[
        (b"user.large", &[7; 2500]),
        (b"trusted.overlay", b"y"),
        (b"user.\xFFodd", b"\0\x01"),
        (b"user.empty", b""),
        (b"security.ima", &[3; 77]),
        (b"system.posix_acl_access", ACL),
    ];
    tree.insert(xattr, b"large", with_xattrs(file(b"y".to_vec()), large));
    tree.insert(xattr, b"acl", with_xattrs(file(Vec::new()), &[(b"system.posix_acl_access", ACL)]));
    tree.insert(xattr, b"dir", with_xattrs(dir(), &[(b"system.posix_acl_default", ACL), (b"user.\xFFodd", b"z")]));
    tree.insert(xattr, b"link", with_xattrs(node(Kind::Symlink(b"small".to_vec())), &[(b"trusted.big", &[1; 300])]));
    tree.insert(odd, &[0xFF; 255], file(b"not UTF-8".to_vec()));
    tree.insert(odd, b"new\nline", file(Vec::new()));
    let mut deep = odd;
    for _ in 0..60 {
        deep = tree.insert(deep, b"twenty-letters-long-", dir());
    }
    tree.insert(deep, b"end", file(b"deep".to_vec()));
    tree
}

/// A xorshift generator: the same trees on every machine.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len.div_ceil(4)).flat_map(|_| self.word().to_le_bytes()).take(len).collect()
    }

    fn word(&mut self) -> u32 {
        u32::try_from(self.below(1 << 32)).unwrap()
    }

    /// A number below one of these limits.
    fn one_of_below(&mut self, limits: &[u64]) -> usize {
        let limit = limits[self.small(limits.len() as u64)];
        self.small(limit)
    }

    fn small(&mut self, limit: u64) -> usize {
        usize::try_from(self.below(limit)).unwrap()
    }
}

/// A tree of up to 300 files, and the contents of the regular ones by path.
pub(crate) fn random_tree(random: &mut Random) -> (Tree, Vec<(String, Vec<u8>)>) {
    let mut tree = Tree::new(random_meta(random));
    let mut dirs = vec![(ROOT, String::new())];
    let mut files: Vec<(NodeId, Vec<u8>)> = Vec::new();
    let mut contents = Vec::new();
    for n in 0..random.below(300) {
        let (parent, path) = dirs[random.small(dirs.len() as u64)].clone();
        let padding = if random.below(20) == 0 { 240 } else { random.small(12) };
        let name = format!("{n}{}", "n".repeat(padding));
        let path = format!("{path}{name}");
        let kind = match random.below(12) {
            0..3 if path.len() < 1500 => Kind::Dir(BTreeMap::new()),
            0..8 => {
                let (content, bytes) = random_content(random);
                contents.push((path.clone(), bytes));
                Kind::File(content)
            }
            8 => Kind::Symlink(vec![b'l'; 1 + random.one_of_below(&[70, 4095])]),
            9 => Kind::CharDevice { major: random.word() & 0xFFF, minor: random.word() & 0xF_FFFF },
            10 => match files.is_empty() {
                true => Kind::Fifo,
                false => {
                    let (id, bytes) = files[random.small(files.len() as u64)].clone();
                    tree.link(parent, name.as_bytes(), id);
                    contents.push((path, bytes));
                    continue;
                }
            },
            _ => Kind::Socket,
        };
        let id = tree.insert(parent, name.as_bytes(), Node { meta: random_meta(random), kind });
        match &tree.node(id).kind {
            Kind::Dir(_) => dirs.push((id, format!("{path}/"))),
            Kind::File(_) => files.push((id, contents.last().unwrap().1.clone())),
            _ => {}
        }
    }
    (tree, contents)
}

fn random_meta(random: &mut Random) -> Meta {
    let mut xattrs = BTreeMap::new();
    for n in 0..random.below(4) * random.below(2) * random.below(2) {
        let prefix = ["user", "trusted", "security"][random.small(3)];
        let len = random.one_of_below(&[40, 40, 40, 900]);
        xattrs.insert(format!("{prefix}.{n}{}", "x".repeat(random.small(30))).into_bytes(), random.bytes(len));
    }
    // 1901 to 2310: what is later is stored, but e2fsck takes it for an old kernel's mistake and offers a repair.
    let secs = i64::try_from(random.below(3 << 32)).unwrap() - (1 << 31);
    let mtime = Time { secs, nanos: random.word() % 1_000_000_000 };
    // Readable by its owner, so that what debugfs unpacks can be compared without being root.
    let mode = u16::try_from(random.below(0o10000)).unwrap() | 0o700;
    Meta { mode, uid: random.word(), gid: random.word(), mtime, xattrs }
}

/// Data with holes of its own and holes of the content's, and the same as plain bytes.
fn random_content(random: &mut Random) -> (Content, Vec<u8>) {
    let size = random.one_of_below(&[10, 5000, 50_000, 500_000]) as u64;
    let mut bytes = vec![0; usize::try_from(size).unwrap()];
    let mut extents = Vec::new();
    let mut at = random.below(9000);
    while at < size {
        let len = (1 + random.below(30_000)).min(size - at);
        let mut part = random.bytes(usize::try_from(len).unwrap());
        if random.below(3) == 0 {
            part.fill(0);
        }
        let start = usize::try_from(at).unwrap();
        bytes[start..start + part.len()].copy_from_slice(&part);
        extents.push(Extent { at, len, source: Source::Memory(part.into()), from: 0 });
        at += len + random.below(3) * random.below(20_000);
    }
    (Content { size, extents: extents.into() }, bytes)
}
