//! One layer on its way from a blob to what its entries say.
//!
//! A thread of its own reads and decompresses; another takes the tar stream apart, hashes it and looks at what files hold, of which it keeps nothing but the
//! place. Both digests are verified whatever the tar holds: a layer that is not what its image says is reported as that, and not as the broken tar or the
//! broken gzip stream that it will also be. Only what goes beyond a limit is left at once.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use super::compression::{Compression, Decoder};
use super::contents::Contents;
use super::digest::{Digest, Hasher};
use super::limits::{Budget, LimitError};
use super::path::EntryError;
use super::section::{Section, SectionReader};
use super::spool::SpoolError;
use super::tar::{self, AtHand, Entry, EntryKind, Reader, Segment, Stream};
use crate::ahead::{self, Ahead, Feed};
use crate::scan::{Cutter, Scanner, Scans};
use crate::tree::{Content, Extent, ReadAt, Source};

/// A layer that has been found but not read.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    pub(super) blob: Section,
    /// Digest of the blob as it is stored; a docker-archive does not tell.
    pub(super) digest: Option<Digest>,
    /// Digest of the tar in it.
    pub(super) diff_id: Digest,
}

#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    #[error(transparent)]
    Tar(#[from] tar::Error),
    #[error(transparent)]
    Entry(#[from] EntryError),
    #[error(transparent)]
    Spool(#[from] SpoolError),
    #[error(transparent)]
    Limit(#[from] LimitError),
    #[error("its blob has the digest {found}, not {expected}")]
    Blob { found: Digest, expected: Digest },
    #[error("its tar has the digest {found}, not {expected}")]
    DiffId { found: Digest, expected: Digest },
    #[error("it cannot be read")]
    Read(#[source] io::Error),
}

/// What the readers of all layers share.
#[derive(Debug)]
pub(super) struct Shared<'a> {
    pub(super) spool: &'a Path,
    pub(super) budget: Budget,
    /// Bytes of blobs that have been read.
    pub(super) read: AtomicU64,
    /// Nobody wants to know any more.
    pub(super) stop: AtomicBool,
}

/// Entries in the order of the archive, with what regular files hold; none when time has merely passed.
pub(super) type Batch = Vec<(Entry, Content)>;

impl Layer {
    /// Reads the layer; `told` is given its entries.
    pub(super) fn read(&self, shared: &Shared<'_>, told: &mut dyn FnMut(Batch)) -> Result<(), LayerError> {
        let mut start = [0; 8];
        let sniffed = read_start(&mut self.blob.reader(), &mut start).map_err(LayerError::Read)?;
        let compression = Compression::sniff(&start[..sniffed]);
        let contents = Arc::new(Contents::new(self.blob.clone(), compression, shared.spool)?);
        let decoder = self.decoder(compression, shared).map_err(LayerError::Read)?;
        let (entries, diff_id, decoded) = thread::scope(|scope| {
            let (feed, ahead) = ahead::ahead();
            let decoder = thread::Builder::new()
                .name("decode".to_owned())
                .spawn_scoped(scope, || decode(decoder, feed, shared))
                .map_err(LayerError::Read)?;
            let mut reader = Reader::new(Chunks { ahead, hasher: Hasher::default() });
            let entries = read_entries(&mut reader, &contents, shared, told);
            if matches!(entries, Err(LayerError::Limit(_))) {
                shared.stop.store(true, Ordering::Relaxed);
            }
            let diff_id = reader.into_stream().finish();
            let decoded = decoder.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            Ok::<_, LayerError>((entries, diff_id, decoded))
        })?;
        if let Err(LayerError::Limit(error)) = entries {
            return Err(error.into());
        }
        let (blob, ended) = decoded?;
        if let (Some(found), Some(expected)) = (blob, self.digest)
            && found != expected
        {
            return Err(LayerError::Blob { found, expected });
        }
        ended.map_err(tar::Error::from)?;
        if diff_id != self.diff_id {
            return Err(LayerError::DiffId { found: diff_id, expected: self.diff_id });
        }
        entries
    }

    fn decoder<'a>(&self, compression: Compression, shared: &'a Shared<'_>) -> io::Result<Decoder<Blob<'a>>> {
        let hasher = self.digest.map(|_| Hasher::default());
        Decoder::new(compression, Blob { reader: self.blob.reader(), hasher, read: &shared.read })
    }
}

/// The digest of a blob, and how its tar ended.
type Decoded = (Option<Digest>, io::Result<()>);

/// Sends the tar on. Goes on to the blob's end even if that cannot be decompressed, for its digest.
fn decode(mut decoder: Decoder<Blob<'_>>, feed: Feed, shared: &Shared<'_>) -> Result<Decoded, LayerError> {
    let ended = loop {
        let mut chunk = feed.buffer();
        match decoder.read(&mut chunk) {
            Ok(0) => break Ok(()),
            Ok(_) if shared.stop.load(Ordering::Relaxed) => return Ok((None, Ok(()))),
            Ok(len) => {
                shared.budget.unpacked(len as u64)?;
                chunk.truncate(len);
                // whoever listens does so to the end, or is gone for a reason of his own
                if !feed.send(chunk) {
                    break Ok(());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break Err(error),
        }
    };
    drop(feed);
    let blob = decoder.source_mut();
    io::copy(blob, &mut io::sink()).map_err(LayerError::Read)?;
    Ok((blob.hasher.take().map(Hasher::finish), ended))
}

fn read_entries(
    reader: &mut Reader<Chunks>,
    contents: &Arc<Contents>,
    shared: &Shared<'_>,
    told: &mut dyn FnMut(Batch),
) -> Result<(), LayerError> {
    let mut look = Look { cutter: Cutter::new(), scans: Scans::default(), told_at: 0 };
    let mut batch = Vec::new();
    let read = loop {
        let entry = match reader.next() {
            Ok(Some(entry)) => entry,
            Ok(None) => break Ok(()),
            Err(error) => break Err(error.into()),
        };
        let content = match &entry.kind {
            EntryKind::File { size, segments } => look.file(reader, *size, segments, contents, told),
            _ => Ok((Content::default(), 0)),
        };
        let (content, pieces) = match content {
            Ok(content) => content,
            Err(error) => break Err(error),
        };
        shared.budget.entry(entry.described() + pieces)?;
        batch.push((entry, content));
        if batch.len() == BATCH {
            told(std::mem::take(&mut batch));
        }
    };
    told(batch);
    contents.learn(look.scans);
    read
}

/// Looks at what files hold.
struct Look {
    cutter: Cutter,
    scans: Scans,
    /// The place in the tar where somebody was last told of anything.
    told_at: u64,
}

impl Look {
    /// Where the bytes of a file lie, and how many bytes of memory it takes to know what they are.
    fn file(
        &mut self,
        reader: &mut Reader<Chunks>,
        size: u64,
        segments: &[Segment],
        contents: &Arc<Contents>,
        told: &mut dyn FnMut(Batch),
    ) -> Result<(Content, u64), LayerError> {
        let first = reader.offset();
        let mut extents = Vec::with_capacity(segments.len());
        let mut scanner = Scanner::new(size);
        let mut look = |first, blocks: &[u8]| {
            scanner.look(first, blocks);
            Ok::<_, tar::Error>(())
        };
        for &Segment { at, len } in segments {
            let contents: Arc<dyn ReadAt> = contents.clone();
            extents.push(Extent { at, len, source: Source::Image(contents), from: reader.offset() });
            let mut done = 0;
            while done < len {
                let bytes = reader.data(len - done)?;
                self.cutter.add(at + done, bytes, &mut look)?;
                let read = bytes.len() as u64;
                reader.skip(read)?;
                done += read;
                if reader.offset() - self.told_at > NEWS {
                    self.told_at = reader.offset();
                    told(Vec::new());
                }
            }
        }
        self.cutter.close(&mut look)?;
        let pieces = scanner.runs() as u64 * RUN;
        if !extents.is_empty() {
            self.scans.keep(first, &scanner.finish());
        }
        Ok((Content { size, extents: extents.into() }, pieces))
    }
}

/// As many bytes as there are for `buf`.
pub(super) fn read_start(source: &mut dyn Read, buf: &mut [u8]) -> io::Result<usize> {
    let mut bytes = Vec::new();
    source.take(buf.len() as u64).read_to_end(&mut bytes)?;
    buf[..bytes.len()].copy_from_slice(&bytes);
    Ok(bytes.len())
}

/// A blob that is hashed and counted while it is read.
struct Blob<'a> {
    reader: SectionReader,
    hasher: Option<Hasher>,
    read: &'a AtomicU64,
}

impl Read for Blob<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = self.reader.read(buf)?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buf[..len]);
        }
        self.read.fetch_add(len as u64, Ordering::Relaxed);
        Ok(len)
    }
}

/// The tar as it comes from the decoder, hashed; at its end when the decoder has ended, well or not.
struct Chunks {
    ahead: Ahead,
    hasher: Hasher,
}

impl Chunks {
    /// Reads the rest, and tells the digest of all.
    fn finish(mut self) -> Digest {
        loop {
            match self.next().len() {
                0 => return self.hasher.finish(),
                len => self.ahead.take(len),
            }
        }
    }

    fn next(&mut self) -> &[u8] {
        self.ahead.peek_at(|chunk| self.hasher.update(chunk))
    }
}

impl Read for Chunks {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let bytes = self.next();
        let len = bytes.len().min(buf.len());
        buf[..len].copy_from_slice(&bytes[..len]);
        self.ahead.take(len);
        Ok(len)
    }
}

impl AtHand for Chunks {
    fn peek(&mut self) -> io::Result<&[u8]> {
        Ok(self.next())
    }
}

impl Stream for Chunks {
    fn skip(&mut self, mut len: u64) -> io::Result<()> {
        while len > 0 {
            let available = self.next().len();
            if available == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let step = usize::try_from(len).map_or(available, |len| len.min(available));
            self.ahead.take(step);
            len -= step as u64;
        }
        Ok(())
    }
}

/// Entries that are told of at once.
const BATCH: usize = 256;

/// Bytes of tar after which somebody hears of it, even if all are of one file.
const NEWS: u64 = 4 << 20;

/// Bytes of memory for a run of blocks.
const RUN: u64 = 8;
