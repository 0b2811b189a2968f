//! Reads an initramfs as the kernel unpacks it (init/initramfs.c): archives one after the other, each as it is or compressed, zeros between them.
//!
//! It decides what is a sound archive. What its entries do to the files is `unpack`'s. Contents are not read: a tree says where they lie, which for a
//! compressed archive is an unnamed temporary file. The checksums of `070702` are not compared.

use std::io::{self, BufReader, Read, Write};
use std::sync::Arc;

use super::TRAILER;
use super::unpack::Unpack;
use crate::tree::{ReadAt, Source, Tree};

/// Why there is no tree. Offsets are bytes from the image's start; within a compressed archive, from the start of what it holds.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot be read at byte {at}")]
    Read { at: u64, source: io::Error },
    #[error("damaged at byte {at}: {what}")]
    Malformed { at: u64, what: &'static str },
    #[error("in the {name} archive at byte {at}")]
    Within { name: &'static str, at: u64, source: Box<Error> },
    #[error("the archive at byte {at} is compressed with {name}, which is not read: gzip and zstd are")]
    Compression { at: u64, name: &'static str },
    #[error("the archive at byte {at} cannot be unpacked")]
    Unpack { at: u64, source: io::Error },
}

/// The files that the kernel would find, and those whose directory the archive forgets, which it would not make.
pub fn read(image: &Arc<dyn ReadAt>) -> Result<Tree, Error> {
    let mut unpack = Unpack::new();
    let size = image.size().map_err(|source| Error::Read { at: 0, source })?;
    let mut at = 0;
    let mut archives = 0;
    while let Some(next) = skip_zeros(&**image, at, size)? {
        at = next;
        let mut start = [0; 6];
        let start = {
            let len = usize::try_from((size - at).min(6)).expect("at most 6");
            read_exact(&**image, &mut start[..len], at)?;
            &start[..len]
        };
        at = match Packing::sniff(start) {
            Some(packing) => packed(image, at, size, packing, &mut unpack)?,
            None if archives > 0 && !start.starts_with(b"0") => {
                return Err(Error::Malformed { at, what: "what follows an archive is none" });
            }
            None => archive(image, at, size, &mut unpack)?,
        };
        archives += 1;
    }
    match archives {
        0 => Err(Error::Malformed { at: 0, what: "it holds no archive" }),
        _ => Ok(unpack.finish()),
    }
}

/// One archive up to and with its trailer; gives the offset behind it.
fn archive(image: &Arc<dyn ReadAt>, mut at: u64, size: u64, unpack: &mut Unpack) -> Result<u64, Error> {
    loop {
        let bad = |what| Error::Malformed { at, what };
        if size - at < HEADER {
            return Err(bad("it ends before its trailer"));
        }
        let mut bytes = [0; 110];
        read_exact(&**image, &mut bytes, at)?;
        let header = Header::decode(&bytes).map_err(bad)?;
        let (body, end) = header.places(at, size).map_err(bad)?;
        let mut name = vec![0; header.name_len as usize];
        read_exact(&**image, &mut name, at + HEADER)?;
        // The kernel wants the last byte to be NUL, and takes what is before the first.
        if name.last() != Some(&0) {
            return Err(bad("a name has no end"));
        }
        name.truncate(name.iter().position(|byte| *byte == 0).expect("the last one"));
        if name == TRAILER {
            unpack.forget_links();
            return Ok(end);
        }
        let mut target = Vec::new();
        if header.mode & 0o170_000 == 0o120_000 {
            if header.size > PATH_MAX {
                return Err(bad("a symbolic link's target is longer than a path can be"));
            }
            target = vec![0; header.size as usize];
            read_exact(&**image, &mut target, body)?;
        }
        unpack.entry(&header, &name, target, (Source::Image(image.clone()), body)).map_err(bad)?;
        at = end;
    }
}

/// What one entry says in its 110 bytes.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) ino: u32,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) links: u32,
    pub(super) mtime: u32,
    pub(super) size: u32,
    /// That of the file system it came from.
    pub(super) home: (u32, u32),
    /// That which it is.
    pub(super) device: (u32, u32),
    name_len: u32,
}

impl Header {
    fn decode(bytes: &[u8; 110]) -> Result<Header, &'static str> {
        match &bytes[..6] {
            b"070701" | b"070702" => {}
            b"070707" => return Err("an archive of cpio's old form; the kernel reads newc"),
            _ => return Err("an entry has another magic than newc's"),
        }
        let mut fields = [0; 13];
        for (field, digits) in fields.iter_mut().zip(bytes[6..].chunks(8)) {
            let digits = str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'));
            let number = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
            *field = number.ok_or("a header is no hexadecimal text")?;
        }
        let [ino, mode, uid, gid, links, mtime, size, home_major, home_minor, major, minor, name_len, _] = fields;
        if name_len == 0 || name_len > PATH_MAX {
            return Err("a name is empty or longer than a path can be");
        }
        let (home, device) = ((home_major, home_minor), (major, minor));
        Ok(Header { ino, mode, uid, gid, links, mtime, size, home, device, name_len })
    }

    /// Where the content of an entry at `at` begins, and where the next entry does.
    fn places(&self, at: u64, size: u64) -> Result<(u64, u64), &'static str> {
        let body = (at + HEADER + u64::from(self.name_len)).next_multiple_of(4);
        let end = body + u64::from(self.size);
        match end > size {
            true => Err("an entry reaches beyond the end"),
            // The last one's padding may be missing.
            false => Ok((body, end.next_multiple_of(4).min(size))),
        }
    }
}

/// How an archive is compressed, where the kernel knows it too.
#[derive(Clone, Copy)]
enum Packing {
    Gzip,
    Zstd,
    Other(&'static str),
}

impl Packing {
    fn sniff(start: &[u8]) -> Option<Packing> {
        match start {
            [0x1f, 0x8b, ..] => Some(Packing::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Packing::Zstd),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Packing::Other("xz")),
            [0x5d, 0, 0, ..] => Some(Packing::Other("lzma")),
            [b'B', b'Z', b'h', ..] => Some(Packing::Other("bzip2")),
            [0x02, 0x21, 0x4c, 0x18, ..] => Some(Packing::Other("lz4")),
            [0x89, b'L', b'Z', b'O', ..] => Some(Packing::Other("lzo")),
            _ => None,
        }
    }
}

/// One compressed archive, or several in one stream; gives the offset behind it.
fn packed(image: &Arc<dyn ReadAt>, at: u64, size: u64, packing: Packing, unpack: &mut Unpack) -> Result<u64, Error> {
    let failed = |source| Error::Unpack { at, source };
    let mut source = BufReader::with_capacity(1 << 16, Cursor { image, at, size });
    let mut spool = tempfile::tempfile().map_err(failed)?;
    let name = match packing {
        Packing::Gzip => {
            copy(&mut flate2::bufread::GzDecoder::new(&mut source), &mut spool).map_err(failed)?;
            "gzip"
        }
        Packing::Zstd => {
            let decoder = zstd::Decoder::with_buffer(&mut source).map_err(failed)?;
            copy(&mut decoder.single_frame(), &mut spool).map_err(failed)?;
            "zstd"
        }
        Packing::Other(name) => return Err(Error::Compression { at, name }),
    };
    let end = source.get_ref().at - source.buffer().len() as u64;
    let unpacked: Arc<dyn ReadAt> = Arc::new(spool);
    let within = |source| Error::Within { name, at, source: Box::new(source) };
    let size = unpacked.size().map_err(failed)?;
    let mut next = 0;
    while let Some(start) = skip_zeros(&*unpacked, next, size).map_err(within)? {
        next = archive(&unpacked, start, size, unpack).map_err(within)?;
    }
    Ok(end)
}

fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    match io::copy(&mut from.take(MAX_UNPACKED + 1), to)? {
        0..=MAX_UNPACKED => Ok(()),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "it unpacks to more than 4 GiB")),
    }
}

/// An image from `at` on.
struct Cursor<'a> {
    image: &'a Arc<dyn ReadAt>,
    at: u64,
    size: u64,
}

impl Read for Cursor<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = usize::try_from(self.size - self.at).unwrap_or(usize::MAX).min(buf.len());
        self.image.read_exact_at(&mut buf[..len], self.at)?;
        self.at += len as u64;
        Ok(len)
    }
}

/// The offset of the first byte from `at` on that is not zero.
fn skip_zeros(image: &dyn ReadAt, mut at: u64, size: u64) -> Result<Option<u64>, Error> {
    let mut buf = [0; 4096];
    while at < size {
        let len = usize::try_from((size - at).min(buf.len() as u64)).expect("at most the buffer's length");
        read_exact(image, &mut buf[..len], at)?;
        if let Some(zeros) = buf[..len].iter().position(|byte| *byte != 0) {
            return Ok(Some(at + zeros as u64));
        }
        at += len as u64;
    }
    Ok(None)
}

fn read_exact(image: &dyn ReadAt, buf: &mut [u8], at: u64) -> Result<(), Error> {
    image.read_exact_at(buf, at).map_err(|source| Error::Read { at, source })
}

/// Bytes of a header.
const HEADER: u64 = 110;

/// Bytes of a path with its NUL, as Linux has them.
const PATH_MAX: u32 = 4096;

/// The kernel keeps an initramfs in memory: one of more than 4 GiB is there to fill a disk.
const MAX_UNPACKED: u64 = 4 << 30;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lookup;
    use crate::tree::{Kind, NodeId};

    fn memory(bytes: &[u8]) -> Arc<dyn ReadAt> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Arc::new(file)
    }

    fn entry(name: &str, mode: u32, ino: u32, links: u32, body: &[u8]) -> Vec<u8> {
        let mut out = format!(
            "070701{ino:08x}{mode:08x}{:08x}{:08x}{links:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}",
            7,
            8,
            9,
            body.len(),
            0,
            1,
            5,
            6,
            name.len() + 1,
            0
        )
        .into_bytes();
        out.extend_from_slice(name.as_bytes());
        out.push(0);
        out.resize(out.len().next_multiple_of(4), 0);
        out.extend_from_slice(body);
        out.resize(out.len().next_multiple_of(4), 0);
        out
    }

    fn ended(entries: &[Vec<u8>]) -> Vec<u8> {
        [entries.concat(), entry("TRAILER!!!", 0, 0, 1, b"")].concat()
    }

    fn bytes(tree: &Tree, id: NodeId) -> Vec<u8> {
        let Kind::File(content) = &tree.node(id).kind else { panic!("no file") };
        let mut bytes = vec![0; usize::try_from(content.size).unwrap()];
        content.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    fn file(tree: &Tree, path: &str) -> Vec<u8> {
        bytes(tree, lookup::find(tree, path.as_bytes()).unwrap())
    }

    fn refused(bytes: &[u8]) -> String {
        format!("{:#}", anyhow::Error::from(read(&memory(bytes)).unwrap_err()))
    }

    #[test]
    fn names_and_targets_are_as_long_as_paths_can_be() {
        let long = |len: usize| "x".repeat(len);
        let link = |len: usize| ended(&[entry("link", 0o120_777, 1, 1, long(len).as_bytes())]);
        let named = |len: usize| ended(&[entry(&long(len), 0o100_644, 1, 1, b"")]);
        assert!(refused(&link(4097)).ends_with("a symbolic link's target is longer than a path can be"));
        assert!(refused(&named(4096)).ends_with("a name is empty or longer than a path can be"));
        read(&memory(&link(4000))).unwrap();
    }

    #[test]
    fn every_kind_of_entry() {
        let archive = ended(&[
            entry(".", 0o040_700, 1, 2, b""),
            entry("dir", 0o040_755, 2, 2, b""),
            entry("dir/file", 0o104_755, 3, 1, b"hello"),
            entry("/absolute", 0o100_644, 4, 1, b""),
            entry("link", 0o120_777, 5, 1, b"dir/file"),
            entry("char", 0o020_600, 6, 1, b""),
            entry("block", 0o060_600, 7, 1, b""),
            entry("pipe", 0o010_600, 8, 1, b""),
            entry("socket", 0o140_600, 9, 1, b""),
        ]);
        let tree = read(&memory(&archive)).unwrap();
        assert_eq!(tree.node(crate::tree::ROOT).meta.mode, 0o700);
        let meta = &tree.node(lookup::find(&tree, b"/dir/file").unwrap()).meta;
        assert_eq!((meta.mode, meta.uid, meta.gid, meta.mtime.secs), (0o4755, 7, 8, 9));
        assert_eq!(file(&tree, "link"), b"hello");
        assert_eq!(file(&tree, "absolute"), b"");
        let kind = |name: &[u8]| &tree.node(lookup::find(&tree, name).unwrap()).kind;
        assert!(matches!(kind(b"char"), Kind::CharDevice { major: 5, minor: 6 }));
        assert!(matches!(kind(b"block"), Kind::BlockDevice { major: 5, minor: 6 }));
        assert!(matches!(kind(b"pipe"), Kind::Fifo));
        assert!(matches!(kind(b"socket"), Kind::Socket));
    }

    #[test]
    fn hard_links_share_what_the_last_of_them_brings() {
        let archive = ended(&[entry("a", 0o100_644, 3, 2, b""), entry("b", 0o100_644, 3, 2, b"twice")]);
        let other = ended(&[entry("c", 0o100_644, 3, 2, b"another archive's inode 3")]);
        let tree = read(&memory(&[archive, other].concat())).unwrap();
        assert_eq!(lookup::find(&tree, b"a"), lookup::find(&tree, b"b"));
        assert_eq!(file(&tree, "a"), b"twice");
        assert_ne!(lookup::find(&tree, b"a"), lookup::find(&tree, b"c"));
    }

    #[test]
    fn archives_follow_one_another_and_the_later_wins() {
        let first = ended(&[
            entry("usr", 0o040_755, 1, 2, b""),
            entry("bin", 0o120_777, 2, 1, b"usr"),
            entry("bin/x", 0o100_644, 3, 1, b"old"),
        ]);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(&ended(&[entry("usr/x", 0o100_755, 3, 1, b"new"), entry("y", 0o100_644, 4, 1, b"y")])).unwrap();
        let gzip = gzip.finish().unwrap();
        let zstd = zstd::encode_all(&ended(&[entry("y", 0o040_755, 3, 1, b"")])[..], 3).unwrap();
        let whole = [&first[..], &[0; 516], &gzip, &[0; 3], &zstd].concat();
        let tree = read(&memory(&whole)).unwrap();
        assert_eq!(file(&tree, "/bin/x"), b"new");
        assert!(tree.entries(lookup::find(&tree, b"y").unwrap()).is_some());
        assert_eq!(refused(&[&whole[..], b"junk"].concat()), {
            let at = whole.len();
            format!("damaged at byte {at}: what follows an archive is none")
        });
    }

    #[test]
    fn what_is_damaged_is_named_with_its_place() {
        let whole = ended(&[entry("dir/file", 0o100_644, 1, 1, b"hello")]);
        let cases: [(&str, Vec<u8>); 7] = [
            ("damaged at byte 0: it holds no archive", vec![0; 600]),
            ("damaged at byte 128: it ends before its trailer", whole[..128].to_vec()),
            ("damaged at byte 0: an entry reaches beyond the end", whole[..121].to_vec()),
            ("damaged at byte 0: a header is no hexadecimal text", [b"070701+", &whole[7..]].concat()),
            (
                "damaged at byte 0: an archive of cpio's old form; the kernel reads newc",
                [b"070707", &whole[6..]].concat(),
            ),
            (
                "the archive at byte 0 is compressed with xz, which is not read: gzip and zstd are",
                b"\xfd7zXZ\0......".to_vec(),
            ),
            ("damaged at byte 0: a symbolic link has no target", ended(&[entry("l", 0o120_777, 1, 1, b"")])),
        ];
        for (expected, bytes) in cases {
            assert_eq!(refused(&bytes), expected);
        }
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(&whole[..128]).unwrap();
        let gzip = gzip.finish().unwrap();
        assert_eq!(refused(&gzip), "in the gzip archive at byte 0: damaged at byte 128: it ends before its trailer");
        assert!(refused(&gzip[..gzip.len() - 9]).starts_with("the archive at byte 0 cannot be unpacked: "));
    }

    #[test]
    fn no_cut_and_no_flip_is_fatal() {
        let whole = ended(&[
            entry("dir", 0o040_755, 1, 2, b""),
            entry("dir/file", 0o100_644, 2, 2, b"hello"),
            entry("link", 0o120_777, 3, 1, b"dir"),
        ]);
        for at in 0..whole.len() {
            assert!(read(&memory(&whole[..at])).is_err(), "cut at {at}");
            let mut flipped = whole.clone();
            flipped[at] ^= 0x15;
            let _either = read(&memory(&flipped));
        }
    }
}
