//! One layer on its way from a blob into the tree.
//!
//! A thread of its own reads, decompresses and hashes; the caller's thread takes the tar stream apart and spools what
//! files hold. Both digests are verified whatever the tar holds: a layer that is not what its image says is reported
//! as that, and not as the broken tar or the broken gzip stream that it will also be.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;

use super::compression::{Compression, Decoder};
use super::digest::{Digest, Hasher};
use super::merge::Merge;
use super::path::EntryError;
use super::section::{Section, SectionReader};
use super::spool::{Spool, SpoolError};
use super::tar::{self, EntryKind, Reader, Segment, Stream};
use crate::tree::{Content, Extent, Source};

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
    #[error("its blob has the digest {found}, not {expected}")]
    Blob { found: Digest, expected: Digest },
    #[error("its tar has the digest {found}, not {expected}")]
    DiffId { found: Digest, expected: Digest },
    #[error("it cannot be read")]
    Read(#[source] io::Error),
}

impl Layer {
    /// Lays the layer over the tree; `progress` is told the bytes of the blob that have been read.
    pub(super) fn apply(
        &self,
        merge: &mut Merge,
        spool: &mut Spool,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), LayerError> {
        let mut start = [0; 8];
        let sniffed = read_start(&mut self.blob.reader(), &mut start).map_err(LayerError::Read)?;
        let compression = Compression::sniff(&start[..sniffed]);
        // The tar of an uncompressed layer need not be copied: it lies in a file already.
        let in_place = (compression == Compression::None).then_some(&self.blob);
        let read = AtomicU64::new(0);
        let stop = AtomicBool::new(false);
        let (merged, decoded) = thread::scope(|scope| {
            let (sender, receiver) = sync_channel(CHUNKS);
            let (give_back, used) = channel();
            let decoder = thread::Builder::new()
                .name("decode".to_owned())
                .spawn_scoped(scope, || self.decode(compression, sender, used, &read, &stop))
                .map_err(LayerError::Read)?;
            let chunks = Chunks { receiver, give_back, chunk: Vec::new(), at: 0, read: &read, progress };
            let merged = merge_entries(Reader::new(chunks), in_place, merge, spool);
            stop.store(matches!(merged, Err(LayerError::Spool(_))), Ordering::Relaxed);
            let decoded = decoder.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            Ok::<_, LayerError>((merged, decoded))
        })?;
        if let Err(LayerError::Spool(error)) = merged {
            return Err(error.into());
        }
        let Decoded { blob, diff_id } = decoded.map_err(LayerError::Read)?;
        if let (Some(found), Some(expected)) = (blob, self.digest)
            && found != expected
        {
            return Err(LayerError::Blob { found, expected });
        }
        match diff_id {
            Err(error) => Err(tar::Error::from(error).into()),
            Ok(found) if found != self.diff_id => Err(LayerError::DiffId { found, expected: self.diff_id }),
            Ok(_) => merged,
        }
    }

    /// Sends the tar on and tells the digests. Goes on when nobody listens any more, as behind the end of the tar.
    fn decode(
        &self,
        compression: Compression,
        sender: SyncSender<Vec<u8>>,
        used: Receiver<Vec<u8>>,
        read: &AtomicU64,
        stop: &AtomicBool,
    ) -> io::Result<Decoded> {
        let blob = Blob { reader: self.blob.reader(), hasher: self.digest.map(|_| Hasher::default()), read };
        let mut decoder = Decoder::new(compression, blob)?;
        let mut hasher = Hasher::default();
        let mut sender = Some(sender);
        let ended = loop {
            let mut chunk = used.try_recv().unwrap_or_default();
            chunk.resize(CHUNK, 0);
            match decoder.read(&mut chunk) {
                Ok(0) => break Ok(()),
                Ok(_) if stop.load(Ordering::Relaxed) => break Ok(()),
                Ok(len) => {
                    chunk.truncate(len);
                    hasher.update(&chunk);
                    sender = sender.filter(|sender| sender.send(chunk).is_ok());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        drop(sender);
        // A stream that cannot be decompressed is judged by its digest first, which needs the rest of it.
        let blob = decoder.source_mut();
        if !stop.load(Ordering::Relaxed) {
            io::copy(blob, &mut io::sink())?;
        }
        Ok(Decoded { blob: blob.hasher.take().map(Hasher::finish), diff_id: ended.map(|()| hasher.finish()) })
    }
}

/// What a blob turned out to be.
struct Decoded {
    blob: Option<Digest>,
    /// The digest of the tar, or why it could not be decompressed.
    diff_id: io::Result<Digest>,
}

fn merge_entries<S: Stream>(
    mut reader: Reader<S>,
    in_place: Option<&Section>,
    merge: &mut Merge,
    spool: &mut Spool,
) -> Result<(), LayerError> {
    merge.next_layer();
    while let Some(entry) = reader.next()? {
        let content = match &entry.kind {
            EntryKind::File { size, segments } => {
                let mut extents = Vec::with_capacity(1);
                for &Segment { at, len } in segments {
                    let (source, from) = match in_place {
                        Some(blob) => {
                            let from = blob.start + reader.offset();
                            reader.skip(len)?;
                            (&blob.file, from)
                        }
                        None => {
                            let from = spool.end();
                            copy(&mut reader, len, spool)?;
                            (spool.file(), from)
                        }
                    };
                    extents.push(Extent { at, len, source: Source::File(Arc::clone(source)), from });
                }
                Content { size: *size, extents }
            }
            _ => Content::default(),
        };
        merge.lay(entry, content)?;
    }
    Ok(spool.flush()?)
}

fn copy<S: Stream>(reader: &mut Reader<S>, mut len: u64, spool: &mut Spool) -> Result<(), LayerError> {
    let mut buf = [0; 64 << 10];
    while len > 0 {
        let want = usize::try_from(len).map_or(buf.len(), |len| len.min(buf.len()));
        match reader.read(&mut buf[..want])? {
            0 => return Err(tar::Error::Truncated.into()),
            read => {
                spool.append(&buf[..read])?;
                len -= read as u64;
            }
        }
    }
    Ok(())
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

/// The tar as it comes from the decoder; at its end when the decoder has ended, well or not.
struct Chunks<'a> {
    receiver: Receiver<Vec<u8>>,
    /// Where chunks go that have been read, to be filled anew.
    give_back: Sender<Vec<u8>>,
    chunk: Vec<u8>,
    at: usize,
    read: &'a AtomicU64,
    progress: &'a mut dyn FnMut(u64),
}

impl Chunks<'_> {
    /// Bytes at hand; none at the end.
    fn fill(&mut self) -> &[u8] {
        if self.at == self.chunk.len() {
            self.at = 0;
            let next = self.receiver.recv().unwrap_or_default();
            // At the end, nobody takes it.
            self.give_back.send(std::mem::replace(&mut self.chunk, next)).ok();
            (self.progress)(self.read.load(Ordering::Relaxed));
        }
        &self.chunk[self.at..]
    }
}

impl Read for Chunks<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill();
        let len = bytes.len().min(buf.len());
        buf[..len].copy_from_slice(&bytes[..len]);
        self.at += len;
        Ok(len)
    }
}

impl Stream for Chunks<'_> {
    fn skip(&mut self, mut len: u64) -> io::Result<()> {
        while len > 0 {
            let available = self.fill().len();
            if available == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let step = usize::try_from(len).map_or(available, |len| len.min(available));
            self.at += step;
            len -= step as u64;
        }
        Ok(())
    }
}

/// Bytes that go from the decoder to the reader at once, and how many such may wait: enough to even out a slow write.
const CHUNK: usize = 256 << 10;
const CHUNKS: usize = 16;
