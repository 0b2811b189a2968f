//! What differs between the files of two images, whatever kinds of image they are.
//!
//! It decides what counts as a difference, not how one is told. What an image says besides its files (labels, boot records, where things lie) is not
//! looked at.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;

use super::text::Shown;
use crate::tree::{Content, Kind, Node, NodeId, Time, Tree};

/// A path and how it differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// From the two directories that are compared; begins with `/`.
    pub path: Vec<u8>,
    pub change: Change,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Only the first has it; a directory with everything below it, which is not told one by one.
    Removed {
        what: &'static str,
        below: usize,
    },
    /// Only the second has it.
    Added {
        what: &'static str,
        below: usize,
    },
    Changed(Vec<Aspect>),
}

/// What of one path differs: the first image's, then the second's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Aspect {
    Type(&'static str, &'static str),
    Mode(u16, u16),
    Owner((u32, u32), (u32, u32)),
    Time(Time, Time),
    /// Name and values; `None` where there is none of the name.
    Xattr(Vec<u8>, Option<Vec<u8>>, Option<Vec<u8>>),
    Target(Vec<u8>, Vec<u8>),
    Device((u32, u32), (u32, u32)),
    Size(u64, u64),
    /// Files of one size; the offset of the first byte that differs.
    Content(u64),
    /// The first other path of the same inode; `None` where there is none before this one.
    Link(Option<Vec<u8>>, Option<Vec<u8>>),
}

/// What need not be the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ignore {
    pub times: bool,
    pub owners: bool,
    pub modes: bool,
    pub xattrs: bool,
}

/// A file that one of the images does not give.
#[derive(Debug, thiserror::Error)]
#[error("{path} of the {side} image cannot be read at byte {at}")]
pub struct Error {
    path: String,
    side: &'static str,
    at: u64,
    source: io::Error,
}

/// Compares two files, or two directories with everything below them, and gives each difference to `found`, in order of path. `read` is told how many
/// more bytes of contents were compared.
pub fn compare<E: From<Error>>(
    first: (&Tree, NodeId),
    second: (&Tree, NodeId),
    ignore: Ignore,
    read: &mut dyn FnMut(u64),
    found: &mut dyn FnMut(Difference) -> Result<(), E>,
) -> Result<(), E> {
    let mut compared = Compared { trees: [first.0, second.0], ignore, paths: [HashMap::new(), HashMap::new()] };
    // Paths whose turn is to come, the next one last.
    let mut waiting = vec![(b"/".to_vec(), Some(first.1), Some(second.1))];
    while let Some((path, a, b)) = waiting.pop() {
        let (a, b) = match (a, b) {
            (Some(a), Some(b)) => (a, b),
            (Some(lone), None) if path == LOST_AND_FOUND && first.0.entries(lone).is_some_and(BTreeMap::is_empty) => {
                continue;
            }
            (None, Some(lone)) if path == LOST_AND_FOUND && second.0.entries(lone).is_some_and(BTreeMap::is_empty) => {
                continue;
            }
            (Some(a), None) => {
                let (what, below) = compared.lone(0, a);
                found(Difference { path, change: Change::Removed { what, below } })?;
                continue;
            }
            (None, Some(b)) => {
                let (what, below) = compared.lone(1, b);
                found(Difference { path, change: Change::Added { what, below } })?;
                continue;
            }
            (None, None) => continue,
        };
        let aspects = compared.nodes(&path, a, b, read)?;
        if !aspects.is_empty() {
            found(Difference { path: path.clone(), change: Change::Changed(aspects) })?;
        }
        if let (Some(ours), Some(theirs)) = (first.0.entries(a), second.0.entries(b)) {
            let names: BTreeSet<&Box<[u8]>> = ours.keys().chain(theirs.keys()).collect();
            let dir = if path == b"/" { &b""[..] } else { &path };
            let below = names.into_iter().rev();
            waiting.extend(
                below.map(|name| ([dir, b"/", name].concat(), ours.get(name).copied(), theirs.get(name).copied())),
            );
        }
    }
    Ok(())
}

struct Compared<'a> {
    trees: [&'a Tree; 2],
    ignore: Ignore,
    /// The first path of each inode that is no directory.
    paths: [HashMap<NodeId, Vec<u8>>; 2],
}

impl Compared<'_> {
    /// What only one of the images has, and how many entries are below it.
    fn lone(&self, side: usize, id: NodeId) -> (&'static str, usize) {
        let tree = self.trees[side];
        let mut below = 0;
        let mut waiting = vec![id];
        while let Some(dir) = waiting.pop() {
            let entries = tree.entries(dir).into_iter().flat_map(BTreeMap::values);
            for &id in entries {
                below += 1;
                waiting.push(id);
            }
        }
        (super::text::kind(&tree.node(id).kind), below)
    }

    fn nodes(&mut self, path: &[u8], a: NodeId, b: NodeId, read: &mut dyn FnMut(u64)) -> Result<Vec<Aspect>, Error> {
        let nodes: (&Node, &Node) = (self.trees[0].node(a), self.trees[1].node(b));
        let mut aspects = self.meta(nodes.0, nodes.1);
        match (&nodes.0.kind, &nodes.1.kind) {
            (Kind::Dir(_), Kind::Dir(_)) => return Ok(aspects),
            (Kind::Symlink(a), Kind::Symlink(b)) if a != b => aspects.push(Aspect::Target(a.clone(), b.clone())),
            (Kind::File(a), Kind::File(b)) if a.size != b.size => aspects.push(Aspect::Size(a.size, b.size)),
            (Kind::File(a), Kind::File(b)) => {
                let differs = first_difference(a, b, read).map_err(|(side, at, source)| Error {
                    path: Shown(path).to_string(),
                    side,
                    at,
                    source,
                })?;
                aspects.extend(differs.map(Aspect::Content));
            }
            (Kind::CharDevice { major, minor }, Kind::CharDevice { major: other, minor: another })
            | (Kind::BlockDevice { major, minor }, Kind::BlockDevice { major: other, minor: another })
                if (major, minor) != (other, another) =>
            {
                aspects.push(Aspect::Device((*major, *minor), (*other, *another)));
            }
            (a, b) => match (super::text::kind(a), super::text::kind(b)) {
                (a, b) if a != b => aspects.insert(0, Aspect::Type(a, b)),
                _ => {}
            },
        }
        // Whoever comes second is a link to the first.
        let links = [(0, a), (1, b)].map(|(side, id)| {
            let known = self.paths[side].get(&id).cloned();
            if known.is_none() {
                self.paths[side].insert(id, path.to_vec());
            }
            known
        });
        if links[0] != links[1] {
            let [a, b] = links;
            aspects.push(Aspect::Link(a, b));
        }
        Ok(aspects)
    }

    fn meta(&self, a: &Node, b: &Node) -> Vec<Aspect> {
        let (a, link, b) = (&a.meta, matches!((&a.kind, &b.kind), (Kind::Symlink(_), Kind::Symlink(_))), &b.meta);
        let mut aspects = Vec::new();
        // Nobody asks a symlink for its mode, and formats differ in what they say.
        if a.mode != b.mode && !link && !self.ignore.modes {
            aspects.push(Aspect::Mode(a.mode, b.mode));
        }
        if (a.uid, a.gid) != (b.uid, b.gid) && !self.ignore.owners {
            aspects.push(Aspect::Owner((a.uid, a.gid), (b.uid, b.gid)));
        }
        if a.mtime != b.mtime && !self.ignore.times {
            aspects.push(Aspect::Time(a.mtime, b.mtime));
        }
        if a.xattrs != b.xattrs && !self.ignore.xattrs {
            let names: BTreeSet<&Vec<u8>> = a.xattrs.keys().chain(b.xattrs.keys()).collect();
            let differing = names.into_iter().filter(|name| a.xattrs.get(*name) != b.xattrs.get(*name));
            aspects.extend(
                differing
                    .map(|name| Aspect::Xattr(name.clone(), a.xattrs.get(name).cloned(), b.xattrs.get(name).cloned())),
            );
        }
        aspects
    }
}

/// The first byte that differs between files of one size. What is a hole in both is not read.
fn first_difference(
    a: &Content,
    b: &Content,
    read: &mut dyn FnMut(u64),
) -> Result<Option<u64>, (&'static str, u64, io::Error)> {
    let (mut ours, mut theirs) = (vec![0; 0], vec![0; 0]);
    let mut at = 0;
    while let Some(start) = stored(a, at).into_iter().chain(stored(b, at)).min() {
        let len = usize::try_from((a.size - start).min(CHUNK)).expect("at most a chunk");
        ours.resize(len, 0);
        theirs.resize(len, 0);
        a.read_exact_at(&mut ours, start).map_err(|source| ("first", start, source))?;
        b.read_exact_at(&mut theirs, start).map_err(|source| ("second", start, source))?;
        if ours != theirs {
            let within = ours.iter().zip(&theirs).position(|(a, b)| a != b).expect("they differ");
            return Ok(Some(start + within as u64));
        }
        read(len as u64);
        at = start + len as u64;
    }
    Ok(None)
}

/// The first offset from `at` on that is no hole.
fn stored(content: &Content, at: u64) -> Option<u64> {
    let next = content.extents.partition_point(|extent| extent.at + extent.len <= at);
    content.extents.get(next).map(|extent| extent.at.max(at)).filter(|at| *at < content.size)
}

/// Every ext4 has it, for `fsck`; as long as it is empty, it is not one of the files.
const LOST_AND_FOUND: &[u8] = b"/lost+found";

/// Bytes compared at once.
const CHUNK: u64 = 1 << 18;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Extent, Meta, ROOT, Source};

    fn put(tree: &mut Tree, name: &str, kind: Kind) -> NodeId {
        tree.insert(ROOT, name.as_bytes(), Node { meta: Meta::default(), kind })
    }

    fn text(bytes: &[u8]) -> Kind {
        Kind::File(Content::from_bytes(bytes))
    }

    fn differences(a: &Tree, b: &Tree, ignore: Ignore) -> Vec<(String, Change)> {
        let mut found = Vec::new();
        compare::<Error>((a, ROOT), (b, ROOT), ignore, &mut |_| (), &mut |difference| {
            found.push((String::from_utf8(difference.path).unwrap(), difference.change));
            Ok(())
        })
        .unwrap();
        found
    }

    fn sample() -> Tree {
        let mut tree = Tree::new(Meta::default());
        let dir = put(&mut tree, "dir", Kind::Dir(Default::default()));
        tree.insert(dir, b"in", Node { meta: Meta::default(), kind: text(b"same") });
        let file = put(&mut tree, "file", text(b"hello"));
        tree.link(ROOT, b"second name", file);
        put(&mut tree, "link", Kind::Symlink(b"file".to_vec()));
        put(&mut tree, "null", Kind::CharDevice { major: 1, minor: 3 });
        tree
    }

    #[test]
    fn equal_trees_do_not_differ() {
        assert_eq!(differences(&sample(), &sample(), Ignore::default()), []);
    }

    #[test]
    fn every_aspect_is_found() {
        let (first, mut second) = (sample(), sample());
        let id = |name: &[u8]| first.child(ROOT, name).unwrap();
        let meta = &mut second.node_mut(id(b"dir")).meta;
        (meta.mode, meta.uid, meta.mtime.nanos) = (0o755, 3, 1);
        meta.xattrs.insert(b"user.x".to_vec(), b"y".to_vec());
        second.node_mut(id(b"file")).kind = text(b"hellO");
        second.node_mut(id(b"link")).kind = Kind::Symlink(b"elsewhere".to_vec());
        second.node_mut(id(b"null")).kind = Kind::CharDevice { major: 1, minor: 5 };
        second.unlink(ROOT, b"second name");
        put(&mut second, "second name", text(b"hello"));
        let time = |nanos| Time { secs: 0, nanos };
        let expected = [
            (
                "/dir",
                Change::Changed(vec![
                    Aspect::Mode(0, 0o755),
                    Aspect::Owner((0, 0), (3, 0)),
                    Aspect::Time(time(0), time(1)),
                    Aspect::Xattr(b"user.x".to_vec(), None, Some(b"y".to_vec())),
                ]),
            ),
            ("/file", Change::Changed(vec![Aspect::Content(4)])),
            ("/link", Change::Changed(vec![Aspect::Target(b"file".to_vec(), b"elsewhere".to_vec())])),
            ("/null", Change::Changed(vec![Aspect::Device((1, 3), (1, 5))])),
            ("/second name", Change::Changed(vec![Aspect::Link(Some(b"/file".to_vec()), None)])),
        ];
        let expected = expected.map(|(path, change)| (path.to_owned(), change));
        assert_eq!(differences(&first, &second, Ignore::default()), expected);
        let all = Ignore { times: true, owners: true, modes: true, xattrs: true };
        assert_eq!(differences(&first, &second, all), expected[1..]);
    }

    #[test]
    fn what_only_one_has_is_told_once_with_all_below() {
        let (first, mut second) = (sample(), sample());
        second.unlink(ROOT, b"dir");
        put(&mut second, "dir", text(b""));
        second.unlink(ROOT, b"null");
        put(&mut second, "new", Kind::Fifo);
        assert_eq!(
            differences(&first, &second, Ignore::default()),
            [
                ("/dir".to_owned(), Change::Changed(vec![Aspect::Type("directory", "file")])),
                ("/new".to_owned(), Change::Added { what: "fifo", below: 0 }),
                ("/null".to_owned(), Change::Removed { what: "character device", below: 0 }),
            ]
        );
        let empty = Tree::new(Meta::default());
        let gone = differences(&first, &empty, Ignore::default());
        assert_eq!(gone[0], ("/dir".to_owned(), Change::Removed { what: "directory", below: 1 }));
    }

    #[test]
    fn an_empty_place_for_lost_files_is_no_file() {
        let (first, mut second) = (sample(), sample());
        let dir = put(&mut second, "lost+found", Kind::Dir(Default::default()));
        assert_eq!(differences(&first, &second, Ignore::default()), []);
        assert_eq!(differences(&second, &first, Ignore::default()), []);
        second.insert(dir, b"#12", Node { meta: Meta::default(), kind: text(b"found") });
        assert_eq!(differences(&first, &second, Ignore::default()).len(), 1);
    }

    #[test]
    fn holes_are_zeros_and_are_not_read() {
        let part =
            |at, bytes: &[u8]| Extent { at, len: bytes.len() as u64, source: Source::Memory(bytes.into()), from: 0 };
        let content = |extents: Vec<Extent>| Content { size: 1 << 40, extents: extents.into() };
        let mut bytes = 0;
        let mut differs = |a: &Content, b: &Content| first_difference(a, b, &mut |len| bytes += len).unwrap();
        let (a, b) = (content(vec![part(1 << 30, b"x")]), content(vec![part(1 << 30, b"x\0"), part(1 << 35, b"\0")]));
        assert_eq!(differs(&a, &b), None);
        assert_eq!(differs(&a, &content(vec![part(1 << 30, b"y")])), Some(1 << 30));
        assert_eq!(differs(&a, &content(vec![])), Some(1 << 30));
        assert!(bytes <= 2 * CHUNK, "{bytes} bytes were read of files that are holes");
    }
}
