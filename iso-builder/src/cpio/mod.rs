//! The initramfs archive: `newc` cpio as the kernel unpacks it.
//!
//! The format is in the kernel's Documentation/driver-api/early-userspace/buffer-format.rst. Uncompressed: it holds one
//! program, and unpacking would cost more boot time than loading. Inode numbers are the order in the archive. It
//! decides nothing about which files go in.

mod reader;
mod unpack;

use std::collections::HashMap;
use std::io::{self, Read, Write};

pub use self::reader::{Error, read};

use crate::digest::Hasher;
use crate::tree::{Kind, NodeId, ROOT, Tree};

/// Writes all of `tree` except its root, which the kernel has made before it unpacks.
///
/// Fails with `InvalidInput` on what the format cannot hold: a file of 4 GiB, a time outside 1970 to 2106, an xattr.
pub fn write(tree: &Tree, out: &mut impl Write) -> io::Result<()> {
    let mut entries = Vec::new();
    list(tree, ROOT, &[], &mut entries);
    let mut names: HashMap<NodeId, u32> = HashMap::new();
    for (_, id) in &entries {
        *names.entry(*id).or_default() += 1;
    }
    let mut inodes: HashMap<NodeId, (u32, u32)> = HashMap::new();
    let mut out = Counted { out, count: 0 };
    for (path, id) in &entries {
        let next = u32::try_from(inodes.len()).map_err(too_large)? + 1;
        let (ino, written) = inodes.entry(*id).or_insert((next, 0));
        *written += 1;
        // A file of several names has its content at the last of them, as cpio programs expect it.
        let last = *written == names[id];
        entry(tree, path, *id, (*ino, names[id]), last, &mut out)
            .map_err(|error| io::Error::new(error.kind(), format!("/{}: {error}", path.escape_ascii())))?;
    }
    header(&mut out, &Fields { links: 1, ..Fields::default() }, TRAILER)?;
    out.pad(512)
}

/// An archive as text: two lines for each entry, in the archive's order. Fails with `InvalidData` on what is no sound
/// archive.
pub fn dump(archive: &mut impl Read) -> io::Result<String> {
    let mut text = String::new();
    let mut at = 0;
    loop {
        let mut header = [0; 110];
        archive.read_exact(&mut header)?;
        let field = |index: usize| {
            let digits = str::from_utf8(&header[6 + 8 * index..14 + 8 * index]).ok();
            digits
                .and_then(|digits| u32::from_str_radix(digits, 16).ok())
                .ok_or_else(|| bad("a header is no hexadecimal text"))
        };
        if !header.starts_with(b"070701") {
            return Err(bad("an entry has another magic than newc's"));
        }
        let (size, name_len) = (u64::from(field(6)?), u64::from(field(11)?));
        if name_len == 0 || name_len > 4096 {
            return Err(bad("a name is empty or longer than a path can be"));
        }
        let mut name = take(archive, at + 110, name_len, Vec::new())?;
        name.pop();
        at = (at + 110 + name_len).next_multiple_of(4);
        if name == TRAILER {
            return Ok(text);
        }
        let (mode, device) = (field(1)?, (field(9)?, field(10)?));
        let what = match mode & 0o170_000 {
            0o120_000 if size <= 4096 => format!("-> {}", take(archive, at, size, Vec::new())?.escape_ascii()),
            0o020_000 | 0o060_000 => format!("device {},{}", device.0, device.1),
            0o040_000 => String::new(),
            _ => format!("{size} bytes, sha256 {}", take(archive, at, size, Hasher::default())?.finish()),
        };
        at = (at + size).next_multiple_of(4);
        let (ino, uid, gid, links, mtime) = (field(0)?, field(2)?, field(3)?, field(4)?, field(5)?);
        let line = format!("{mode:06o} {uid}:{gid} {mtime} inode {ino} links {links} {what}");
        text += &format!("/{}\n    {}\n", name.escape_ascii(), line.trim_end());
    }
}

/// Moves `len` bytes, which begin at offset `at`, into `sink`, and skips their padding.
fn take<S: Write>(archive: &mut impl Read, at: u64, len: u64, mut sink: S) -> io::Result<S> {
    if io::copy(&mut archive.by_ref().take(len), &mut sink)? < len {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let end = at + len;
    io::copy(&mut archive.by_ref().take(end.next_multiple_of(4) - end), &mut io::sink())?;
    Ok(sink)
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Every path below `dir` with its inode, a directory before what is in it.
fn list(tree: &Tree, dir: NodeId, path: &[u8], entries: &mut Vec<(Vec<u8>, NodeId)>) {
    for (name, &id) in tree.entries(dir).into_iter().flatten() {
        let path = if path.is_empty() { name.to_vec() } else { [path, b"/", name].concat() };
        entries.push((path.clone(), id));
        list(tree, id, &path, entries);
    }
}

fn entry<W: Write>(
    tree: &Tree,
    path: &[u8],
    id: NodeId,
    (ino, names): (u32, u32),
    last: bool,
    out: &mut Counted<'_, W>,
) -> io::Result<()> {
    let node = tree.node(id);
    if !node.meta.xattrs.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a cpio archive holds no extended attributes"));
    }
    let (kind, size, device) = match &node.kind {
        Kind::Dir(_) => (0o040_000, 0, (0, 0)),
        Kind::File(content) => (0o100_000, if last { content.size } else { 0 }, (0, 0)),
        Kind::Symlink(target) => (0o120_000, target.len() as u64, (0, 0)),
        Kind::CharDevice { major, minor } => (0o020_000, 0, (*major, *minor)),
        Kind::BlockDevice { major, minor } => (0o060_000, 0, (*major, *minor)),
        Kind::Fifo => (0o010_000, 0, (0, 0)),
        Kind::Socket => (0o140_000, 0, (0, 0)),
    };
    let links = if matches!(node.kind, Kind::Dir(_)) { 2 } else { names };
    let fields = Fields {
        ino,
        mode: kind | u32::from(node.meta.mode),
        uid: node.meta.uid,
        gid: node.meta.gid,
        links,
        mtime: u32::try_from(node.meta.mtime.secs).map_err(too_large)?,
        size: u32::try_from(size).map_err(too_large)?,
        device,
    };
    header(out, &fields, path)?;
    match &node.kind {
        Kind::File(content) if last => {
            let mut buf = vec![0; 1 << 16];
            let mut at = 0;
            while at < content.size {
                let part = (content.size - at).min(buf.len() as u64);
                let part = &mut buf[..usize::try_from(part).map_err(too_large)?];
                content.read_exact_at(part, at)?;
                out.write_all(part)?;
                at += part.len() as u64;
            }
        }
        Kind::Symlink(target) => out.write_all(target)?,
        _ => {}
    }
    out.pad(4)
}

/// What a header says besides the name.
#[derive(Default)]
struct Fields {
    ino: u32,
    mode: u32,
    uid: u32,
    gid: u32,
    links: u32,
    mtime: u32,
    size: u32,
    device: (u32, u32),
}

/// 110 bytes of hexadecimal text, then the name and its NUL, padded to 4.
fn header<W: Write>(out: &mut Counted<'_, W>, fields: &Fields, name: &[u8]) -> io::Result<()> {
    let Fields { ino, mode, uid, gid, links, mtime, size, device: (major, minor) } = fields;
    let name_size = name.len() + 1;
    write!(
        out,
        "070701{ino:08x}{mode:08x}{uid:08x}{gid:08x}{links:08x}{mtime:08x}{size:08x}{:08x}{:08x}{major:08x}{minor:08x}\
         {name_size:08x}{:08x}",
        0, 0, 0
    )?;
    out.write_all(name)?;
    out.write_all(&[0])?;
    out.pad(4)
}

/// A writer that knows how far it is, for padding.
struct Counted<'a, W> {
    out: &'a mut W,
    count: u64,
}

impl<W: Write> Counted<'_, W> {
    fn pad(&mut self, to: u64) -> io::Result<()> {
        let rest = usize::try_from(self.count.next_multiple_of(to) - self.count).expect("less than `to`");
        self.write_all(&[0; 512][..rest])
    }
}

impl<W: Write> Write for Counted<'_, W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let written = self.out.write(buf)?;
        self.count += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn too_large(_: std::num::TryFromIntError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "its size or time does not fit in a cpio header (32 bits)")
}

/// The name that ends an archive.
const TRAILER: &[u8] = b"TRAILER!!!";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Content, Meta, Node, Time};

    #[test]
    fn a_header_in_bytes() {
        let mut tree = Tree::new(Meta::default());
        let meta = Meta { mode: 0o755, uid: 1, gid: 2, mtime: Time { secs: 3, nanos: 4 }, ..Meta::default() };
        tree.insert(ROOT, b"init", Node { meta, kind: Kind::File(Content::from_bytes(*b"hello")) });
        let mut out = Vec::new();
        write(&tree, &mut out).unwrap();
        let header = "070701\
            00000001000081ed0000000100000002000000010000000300000005\
            000000000000000000000000000000000000000500000000";
        assert_eq!(&out[..110], header.as_bytes());
        assert_eq!(&out[110..124], b"init\0\0hello\0\0\0");
        assert_eq!(out.len(), 512);
    }

    #[test]
    fn what_the_format_cannot_hold_is_refused_by_name() {
        let mut tree = Tree::new(Meta::default());
        let meta = Meta { mtime: Time { secs: -1, nanos: 0 }, ..Meta::default() };
        tree.insert(ROOT, b"old", Node { meta, kind: Kind::Fifo });
        let error = write(&tree, &mut Vec::new()).unwrap_err();
        assert!(error.to_string().starts_with("/old: "), "{error}");
    }
}
