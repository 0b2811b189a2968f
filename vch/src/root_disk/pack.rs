//! A tree as a tar archive: what docker cp and export send, and a layer of an image. POSIX's form, with PAX records for what it has no room for.
//!
//! It decides what an archive says of a file. Equal trees have equal archives.

use std::collections::HashMap;
use std::io::{self, Read, Write};

use iso_builder::tree::{Content, Kind, Meta, Node, NodeId, Tree};
use tar::{Builder, EntryType, Header};

use super::compare::{OPAQUE, is_opaque, is_whiteout};
use super::{Bytes, DiskError, PathError};

/// What entries are called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Names {
    /// After what is packed: it has this name.
    Under(String),
    /// What is in the directory alone, from the root.
    Within,
    /// The same, of a layer: with marks for what is gone, as images have them and not as overlayfs does.
    Layer,
}

/// Writes an archive of an inode and what is below it.
pub(crate) fn pack(tree: &Tree, id: NodeId, names: &Names, out: &mut dyn Write) -> io::Result<()> {
    let mut packer =
        Packer { out: Builder::new(out), tree, firsts: several_names(tree, id), marks: *names == Names::Layer };
    let mut waiting = Vec::new();
    match names {
        Names::Under(name) => waiting.push((name.clone().into_bytes(), id)),
        Names::Within | Names::Layer => waiting.extend(children(tree, id, b"")),
    }
    while let Some((name, id)) = waiting.pop() {
        if name.len() > LONGEST_NAME {
            return Err(io::Error::other(format!(
                "the path {:?}… is longer than {LONGEST_NAME} bytes: copy from a directory nearer to it",
                String::from_utf8_lossy(&name[..64])
            )));
        }
        packer.inode(&name, id)?;
        waiting.extend(children(tree, id, &[&name[..], b"/"].concat()));
    }
    packer.out.finish()
}

/// Whether there can be an archive of it.
pub(crate) fn is_packable(tree: &Tree, id: NodeId, path: &str) -> Result<(), DiskError> {
    match tree.node(id).kind {
        Kind::Socket => Err(PathError::Socket(path.into()).into()),
        _ => Ok(()),
    }
}

/// What is in a directory, the last first.
fn children<'a>(tree: &'a Tree, id: NodeId, above: &'a [u8]) -> impl Iterator<Item = (Vec<u8>, NodeId)> + 'a {
    tree.entries(id).into_iter().flatten().rev().map(move |(name, &id)| ([above, name].concat(), id))
}

/// Inodes that have several names there; none is known yet.
fn several_names(tree: &Tree, id: NodeId) -> HashMap<NodeId, Option<Vec<u8>>> {
    let mut seen = vec![false; tree.len()];
    let (mut several, mut waiting) = (HashMap::new(), vec![id]);
    while let Some(id) = waiting.pop() {
        if std::mem::replace(&mut seen[id.index()], true) {
            several.insert(id, None);
        }
        waiting.extend(tree.entries(id).into_iter().flatten().map(|(_, &id)| id));
    }
    several
}

struct Packer<'a> {
    out: Builder<&'a mut dyn Write>,
    tree: &'a Tree,
    /// The first name of each inode that has several.
    firsts: HashMap<NodeId, Option<Vec<u8>>>,
    marks: bool,
}

impl Packer<'_> {
    fn inode(&mut self, name: &[u8], id: NodeId) -> io::Result<()> {
        let Node { meta, kind } = self.tree.node(id);
        if self.marks && is_whiteout(kind) {
            return self.mark(name, WHITEOUT);
        }
        let mut first = None;
        if let Some(known) = self.firsts.get_mut(&id) {
            first = known.clone();
            known.get_or_insert_with(|| name.to_vec());
        }
        let entry = Entry { name, meta, link: b"", device: (0, 0), size: 0 };
        match kind {
            // a socket is nothing without its process
            Kind::Socket => Ok(()),
            Kind::Dir(_) => {
                let shown = [name, b"/"].concat();
                self.entry(EntryType::Directory, &Entry { name: &shown, ..entry }, &mut io::empty())?;
                match self.marks && is_opaque(meta) {
                    true => self.mark(&[name, b"/.opq"].concat(), b".wh..wh."),
                    false => Ok(()),
                }
            }
            _ if first.is_some() => {
                let link = first.unwrap_or_default();
                self.entry(EntryType::Link, &Entry { link: &link, ..entry }, &mut io::empty())
            }
            Kind::File(content) => self.file(entry, content),
            Kind::Symlink(target) => self.entry(EntryType::Symlink, &Entry { link: target, ..entry }, &mut io::empty()),
            &Kind::CharDevice { major, minor } => {
                self.entry(EntryType::Char, &Entry { device: (major, minor), ..entry }, &mut io::empty())
            }
            &Kind::BlockDevice { major, minor } => {
                self.entry(EntryType::Block, &Entry { device: (major, minor), ..entry }, &mut io::empty())
            }
            Kind::Fifo => self.entry(EntryType::Fifo, &entry, &mut io::empty()),
        }
    }

    fn file(&mut self, entry: Entry<'_>, content: &Content) -> io::Result<()> {
        let mut bytes = io::BufReader::with_capacity(BUFFER, Bytes::of(content));
        self.entry(EntryType::Regular, &Entry { size: content.size, ..entry }, &mut bytes)
    }

    /// An empty file whose name says what is gone.
    fn mark(&mut self, name: &[u8], prefix: &[u8]) -> io::Result<()> {
        let at = name.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
        let name = [&name[..at], prefix, &name[at..]].concat();
        let meta = Meta::default();
        let entry = Entry { name: &name, meta: &meta, link: b"", device: (0, 0), size: 0 };
        self.entry(EntryType::Regular, &entry, &mut io::empty())
    }

    fn entry(&mut self, kind: EntryType, entry: &Entry<'_>, data: &mut dyn Read) -> io::Result<()> {
        let Entry { name, meta, link, device: (major, minor), size } = *entry;
        let mut header = Header::new_ustar();
        let mut records: Vec<(String, Vec<u8>)> = Vec::new();
        let mut record = |key: &str, value: &[u8]| records.push((key.to_owned(), value.to_vec()));
        if let Some(ustar) = header.as_ustar_mut() {
            for (field, text, key) in [(&mut ustar.name, name, "path"), (&mut ustar.linkname, link, "linkpath")] {
                let len = text.len().min(field.len());
                field[..len].copy_from_slice(&text[..len]);
                if len < text.len() || !text.is_ascii() {
                    record(key, text);
                }
            }
        }
        for (value, most, key) in
            [(size, MOST_SIZE, "size"), (meta.uid.into(), MOST_OWNER, "uid"), (meta.gid.into(), MOST_OWNER, "gid")]
        {
            if value > most {
                record(key, value.to_string().as_bytes());
            }
        }
        if meta.mtime.nanos != 0 || !(0..=i64::try_from(MOST_SIZE).unwrap_or(i64::MAX)).contains(&meta.mtime.secs) {
            record("mtime", time(meta.mtime.secs, meta.mtime.nanos).as_bytes());
        }
        for (key, value) in &meta.xattrs {
            // docker's own, of the layer's form: not a file's
            if let Some(key) = std::str::from_utf8(key).ok().filter(|key| key.as_bytes() != OPAQUE) {
                record(&format!("SCHILY.xattr.{key}"), value);
            }
        }
        header.set_entry_type(kind);
        header.set_mode(meta.mode.into());
        header.set_uid(u64::from(meta.uid).min(MOST_OWNER));
        header.set_gid(u64::from(meta.gid).min(MOST_OWNER));
        header.set_size(size.min(MOST_SIZE));
        header.set_mtime(u64::try_from(meta.mtime.secs).unwrap_or_default().min(MOST_SIZE));
        header.set_device_major(major)?;
        header.set_device_minor(minor)?;
        header.set_cksum();
        if !records.is_empty() {
            self.out.append_pax_extensions(records.iter().map(|(key, value)| (key.as_str(), &value[..])))?;
        }
        self.out.append(&header, data)
    }
}

/// What an entry says.
#[derive(Clone, Copy)]
struct Entry<'a> {
    name: &'a [u8],
    meta: &'a Meta,
    link: &'a [u8],
    device: (u32, u32),
    size: u64,
}

/// Seconds with a fraction, which is the whole number's own side of zero.
fn time(secs: i64, nanos: u32) -> String {
    match (secs, nanos) {
        (secs, 0) => secs.to_string(),
        (secs, nanos) if secs >= 0 => format!("{secs}.{nanos:09}"),
        (secs, nanos) => format!("-{}.{:09}", -(secs + 1), 1_000_000_000 - nanos),
    }
}

/// What the fields of a header hold: octal digits.
const MOST_SIZE: u64 = 0o77_777_777_777;
const MOST_OWNER: u64 = 0o7_777_777;
/// The longest path that Linux takes.
const LONGEST_NAME: usize = 4096;
/// Of what is gone: the image format's mark, before a name.
const WHITEOUT: &[u8] = b".wh.";
/// Read at once.
const BUFFER: usize = 64 * 1024;
