//! A tar reader for hostile input: ustar, GNU and PAX with their long names, sparse files and xattrs.
//!
//! It decides what an entry says and where its data lies, not whether its path is acceptable (see `merge`). Not the
//! `tar` crate: that one loses PAX records behind a value with a newline, and takes the map of a sparse file for data.

mod header;
mod pax;
mod sparse;

use std::io::{self, Read};

use crate::tree::{Meta, Time};
use header::{BLOCK, Header};
use pax::Extended;

/// Bytes that come in order, of which some may be passed over.
pub(crate) trait Stream: Read {
    /// Passes over `len` bytes; fewer left is `UnexpectedEof`.
    fn skip(&mut self, len: u64) -> io::Result<()>;
}

/// A stream that shows what comes next without a copy.
pub(crate) trait AtHand: Stream {
    /// Bytes that `skip` will pass over: some, or none at the end.
    fn peek(&mut self) -> io::Result<&[u8]>;
}

/// One member of an archive. Its data, if any, comes from the [`Reader`] until `next` is called.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) path: Vec<u8>,
    pub(crate) kind: EntryKind,
    pub(crate) meta: Meta,
}

impl Entry {
    /// Bytes of memory that it takes, about.
    pub(crate) fn described(&self) -> u64 {
        let more = match &self.kind {
            EntryKind::File { segments, .. } => segments.len() * PIECE,
            EntryKind::HardLink(target) | EntryKind::Symlink(target) => target.len(),
            _ => 0,
        };
        let xattrs: usize = self.meta.xattrs.iter().map(|(name, value)| name.len() + value.len() + PIECE).sum();
        (self.path.len() + more + xattrs) as u64
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum EntryKind {
    /// `size` bytes, of which the archive stores `segments`, one behind the other.
    File {
        size: u64,
        segments: Vec<Segment>,
    },
    HardLink(Vec<u8>),
    Symlink(Vec<u8>),
    CharDevice {
        major: u32,
        minor: u32,
    },
    BlockDevice {
        major: u32,
        minor: u32,
    },
    Dir,
    Fifo,
}

/// A part of a file that is stored; never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) at: u64,
    pub(crate) len: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the archive ends early: it is truncated")]
    Truncated,
    #[error("the archive cannot be read")]
    Read(#[source] io::Error),
    #[error("no tar header at byte {offset}: {why}")]
    Header { offset: u64, why: &'static str },
    #[error("the extended header at byte {offset} is broken: {why}")]
    Extended { offset: u64, why: &'static str },
    #[error("the sparse map of {path:?} is broken: {why}")]
    Sparse { path: String, why: &'static str },
    #[error("{path:?} is of the unknown tar type {flag:?}")]
    Type { path: String, flag: char },
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Error::Truncated,
            _ => Error::Read(error),
        }
    }
}

/// Reads entries one after the other.
#[derive(Debug)]
pub(crate) struct Reader<S> {
    stream: S,
    /// Bytes taken from the stream.
    offset: u64,
    /// Bytes of the present entry's data that are still in the stream.
    left: u64,
    /// Zeros that follow the data up to the next header.
    padding: u64,
    globals: Extended,
    ended_well: bool,
}

impl<S: Stream> Reader<S> {
    pub(crate) fn new(stream: S) -> Reader<S> {
        Reader { stream, offset: 0, left: 0, padding: 0, globals: Extended::default(), ended_well: false }
    }

    /// The next entry; what was not read of the last one is passed over.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, Error> {
        self.pass_over_rest()?;
        let mut local = self.globals.clone();
        let mut long = LongNames::default();
        let mut extended = false;
        loop {
            let offset = self.offset;
            let Some(block) = self.header_block()? else {
                return if extended { Err(Error::Truncated) } else { Ok(None) };
            };
            let header = Header::new(&block).map_err(|why| Error::Header { offset, why })?;
            let size = header.size().map_err(|why| Error::Header { offset, why })?;
            let broken = |why| Error::Extended { offset, why };
            match header.flag() {
                b'x' | b'X' => local.read(&self.extension(size, offset)?).map_err(broken)?,
                b'g' => {
                    let records = self.extension(size, offset)?;
                    self.globals.read(&records).map_err(broken)?;
                    local.read(&records).map_err(broken)?;
                }
                b'L' => long.name = Some(header::string(&self.extension(size, offset)?).to_vec()),
                b'K' => long.link = Some(header::string(&self.extension(size, offset)?).to_vec()),
                // A volume label says nothing about files.
                b'V' => {
                    self.expect_data(size);
                    self.pass_over_rest()?;
                    continue;
                }
                _ => return self.entry(&header, local, long, offset).map(Some),
            }
            extended = true;
        }
    }

    /// Reads the present entry's data; 0 at its end.
    pub(crate) fn read(&mut self, buf: &mut [u8]) -> Result<usize, Error> {
        let len = usize::try_from(self.left).map_or(buf.len(), |left| left.min(buf.len()));
        if len == 0 {
            return Ok(0);
        }
        match self.stream.read(&mut buf[..len]) {
            Ok(0) => Err(Error::Truncated),
            Ok(read) => {
                self.offset += read as u64;
                self.left -= read as u64;
                Ok(read)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.read(buf),
            Err(error) => Err(error.into()),
        }
    }

    /// Passes over `len` bytes of the present entry's data.
    pub(crate) fn skip(&mut self, len: u64) -> Result<(), Error> {
        let len = len.min(self.left);
        self.stream.skip(len)?;
        self.offset += len;
        self.left -= len;
        Ok(())
    }

    pub(crate) fn into_stream(self) -> S {
        self.stream
    }

    /// Bytes taken from the stream: where the present entry's unread data starts.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether the mark at the end of an archive was seen; some writers leave it out.
    pub(crate) fn ended_well(&self) -> bool {
        self.ended_well
    }

    fn entry(&mut self, header: &Header, ext: Extended, long: LongNames, offset: u64) -> Result<Entry, Error> {
        let broken = |why| Error::Header { offset, why };
        let flag = header.flag();
        let path = ext.path.or(long.name).unwrap_or_else(|| header.path());
        let path = ext.sparse.name.clone().unwrap_or(path);
        let shown = || String::from_utf8_lossy(&path).into_owned();
        let link = || ext.link.or(long.link).unwrap_or_else(|| header.link().to_vec());
        let meta = Meta {
            mode: header.mode().map_err(broken)?,
            uid: ext.uid.map_or_else(|| header.uid(), Ok).map_err(broken)?,
            gid: ext.gid.map_or_else(|| header.gid(), Ok).map_err(broken)?,
            mtime: match ext.mtime {
                Some(time) => time,
                None => Time { secs: header.mtime().map_err(broken)?, nanos: 0 },
            },
            xattrs: ext.xattrs,
        };
        let kind = match flag {
            0 | b'0' | b'7' | b'S' => {
                self.expect_data(ext.size.map_or_else(|| header.size(), Ok).map_err(broken)?);
                // Archives older than POSIX mark a directory by its name.
                if path.ends_with(b"/") {
                    return Ok(Entry { path, kind: EntryKind::Dir, meta });
                }
                let (size, segments) = match (flag, &ext.sparse) {
                    (b'S', _) => sparse::old_gnu(self, header).map_err(|error| error.of(shown()))?,
                    (_, keys) if keys.is_used() => sparse::pax(self, keys).map_err(|error| error.of(shown()))?,
                    _ => sparse::none(self.left),
                };
                EntryKind::File { size, segments }
            }
            b'1' => EntryKind::HardLink(link()),
            b'2' => EntryKind::Symlink(link()),
            b'3' | b'4' => {
                let (major, minor) = header.device().map_err(broken)?;
                match flag {
                    b'3' => EntryKind::CharDevice { major, minor },
                    _ => EntryKind::BlockDevice { major, minor },
                }
            }
            b'5' => EntryKind::Dir,
            b'6' => EntryKind::Fifo,
            _ => return Err(Error::Type { path: shown(), flag: char::from(flag) }),
        };
        Ok(Entry { path, kind, meta })
    }

    /// The next block that is no zero block, or `None` at the end of the archive.
    fn header_block(&mut self) -> Result<Option<[u8; BLOCK]>, Error> {
        let offset = self.offset;
        let Some(block) = self.block()? else { return Ok(None) };
        if block != [0; BLOCK] {
            return Ok(Some(block));
        }
        match self.block()? {
            Some(block) if block != [0; BLOCK] => Err(Error::Header { offset, why: "one zero block between entries" }),
            _ => {
                self.ended_well = true;
                Ok(None)
            }
        }
    }

    /// One block, or `None` when the stream is at its end.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, Error> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.stream.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(Error::Truncated),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.offset += BLOCK as u64;
        Ok(Some(block))
    }

    /// One block that is not part of the data although it follows the header, as old GNU sparse maps are.
    fn extra_block(&mut self) -> Result<[u8; BLOCK], Error> {
        self.block()?.ok_or(Error::Truncated)
    }

    /// The data of an extended header.
    fn extension(&mut self, size: u64, offset: u64) -> Result<Vec<u8>, Error> {
        if size > EXTENSION_LIMIT {
            return Err(Error::Extended { offset, why: "it is larger than 1 MiB" });
        }
        self.expect_data(size);
        let mut data = Vec::new();
        let mut buf = [0; 4096];
        loop {
            match self.read(&mut buf)? {
                0 => break,
                read => data.extend_from_slice(&buf[..read]),
            }
        }
        self.pass_over_rest()?;
        Ok(data)
    }

    fn expect_data(&mut self, size: u64) {
        self.left = size;
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
    }

    fn pass_over_rest(&mut self) -> Result<(), Error> {
        let rest = self.left + self.padding;
        self.stream.skip(rest)?;
        self.offset += rest;
        (self.left, self.padding) = (0, 0);
        Ok(())
    }
}

impl<S: AtHand> Reader<S> {
    /// Bytes of the present entry's data that are at hand, at most `most`, which is not 0; `skip` passes over them.
    pub(crate) fn data(&mut self, most: u64) -> Result<&[u8], Error> {
        let most = usize::try_from(most.min(self.left)).unwrap_or(usize::MAX);
        match self.stream.peek()? {
            bytes if bytes.is_empty() || most == 0 => Err(Error::Truncated),
            bytes => Ok(&bytes[..bytes.len().min(most)]),
        }
    }
}

/// What GNU `L` and `K` members give to the member behind them.
#[derive(Default)]
struct LongNames {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

/// Bytes of memory for a part of a sparse file, or for an xattr besides its name and value.
const PIECE: usize = 64;

/// Bytes of one extended header. Linux allows 64 KiB of an xattr; this leaves room for several.
const EXTENSION_LIMIT: u64 = 1 << 20;

#[cfg(test)]
impl Stream for &[u8] {
    fn skip(&mut self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).ok().filter(|&len| len <= self.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        *self = &self[len..];
        Ok(())
    }
}
