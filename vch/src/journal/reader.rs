//! A reader's way through a journal: from segment to segment, at its own pace.
//!
//! It holds nobody up. When segments are dropped before it comes to them, it goes on behind them.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use wire::log::{self, Stream};

use super::segment::Segment;
use super::{Journal, JournalError, Position};

/// What is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Selection {
    /// From here on; by default, from the oldest entry.
    pub(crate) from: Position,
    /// Up to here, and not further than what is there now; `None`: to the end that [`Journal::finish`] makes.
    pub(crate) to: Option<Position>,
}

/// A piece of output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) stream: Stream,
    /// When it came: nanoseconds since 1970.
    pub(crate) time_ns: u64,
    pub(crate) bytes: Vec<u8>,
    /// Where the next one begins.
    pub(crate) next: Position,
}

/// Reads a journal.
#[derive(Debug)]
pub(crate) struct Reader {
    journal: Journal,
    moved: watch::Receiver<()>,
    to: Option<Position>,
    /// What is to be looked at next: `buffer[looked_at..]` begins here.
    at: Position,
    buffer: Vec<u8>,
    looked_at: usize,
    /// The segment that it is in.
    segment: Option<Arc<Segment>>,
    file: Option<Arc<File>>,
    /// Bytes on their way to the buffer.
    reading: Option<JoinHandle<io::Result<Read>>>,
    entries: log::Reader,
}

/// A file, and what was read from it.
type Read = (Arc<File>, Vec<u8>);

/// What there is for a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// In its segment, from this byte on, so many bytes.
    Bytes(u64, usize),
    /// Another segment.
    Moved,
    Nothing,
    End,
}

impl Reader {
    pub(super) fn new(journal: Journal, Selection { from, to }: Selection) -> Reader {
        Reader {
            moved: journal.0.moved.subscribe(),
            journal,
            to,
            at: from,
            buffer: Vec::new(),
            looked_at: 0,
            segment: None,
            file: None,
            reading: None,
            entries: log::Reader::default(),
        }
    }

    /// The next piece of output; waits for it if the reader follows. `None` at the end. May be dropped while it waits: nothing is lost.
    pub(crate) async fn next(&mut self) -> Result<Option<Record>, JournalError> {
        loop {
            if let Some(record) = self.look() {
                return Ok(Some(record));
            }
            if self.reading.is_some() {
                self.finish_reading().await?;
                continue;
            }
            self.moved.mark_unchanged();
            match self.find() {
                Next::Bytes(from, count) => self.start_reading(from, count),
                Next::Moved => {}
                Next::End => return Ok(None),
                // its sender is in the journal, which is here
                Next::Nothing => drop(self.moved.changed().await),
            }
        }
    }

    /// There is nothing more for it at this moment: what comes next comes later, or never.
    pub(crate) fn is_at_end(&mut self) -> bool {
        let has_entry = memchr::memchr(wire::frame::DELIMITER, &self.buffer[self.looked_at..]).is_some();
        !has_entry && self.reading.is_none() && matches!(self.find(), Next::Nothing | Next::End)
    }

    /// It follows no more: it ends here, or before.
    pub(crate) fn end_at(&mut self, to: Position) {
        self.to = Some(to);
    }

    /// The next entry of the buffer.
    fn look(&mut self) -> Option<Record> {
        let Reader { buffer, looked_at, at, entries, .. } = self;
        loop {
            let rest = &buffer[*looked_at..];
            let run = &rest[..=memchr::memchr(wire::frame::DELIMITER, rest)?];
            *looked_at += run.len();
            at.byte += run.len() as u64;
            let mut record = None;
            entries.feed(run, |entry| {
                let bytes = entry.bytes.to_vec();
                record = Some(Record { stream: entry.stream, time_ns: entry.time_ns, bytes, next: *at });
            });
            if record.is_some() {
                return record;
            }
        }
    }

    /// Looks where there is more.
    fn find(&mut self) -> Next {
        let state = self.journal.state();
        let nothing = || if state.is_finished || self.to.is_some() { Next::End } else { Next::Nothing };
        // the one that it is in may have been dropped: it can be read to its end all the same
        if let Some(segment) = self.segment.as_ref().filter(|segment| segment.number == self.at.segment) {
            let have = self.at.byte + (self.buffer.len() - self.looked_at) as u64;
            let end = match self.to {
                Some(to) if to.segment < segment.number => 0,
                Some(to) if to.segment == segment.number => to.byte.min(segment.len()),
                _ => segment.len(),
            };
            if have < end {
                return Next::Bytes(have, usize::try_from(end - have).map_or(CHUNK, |count| count.min(CHUNK)));
            }
        }
        let has_it = self.segment.as_ref().is_some_and(|segment| segment.number == self.at.segment);
        let least = self.at.segment + u64::from(has_it);
        let Some(next) = state.segments.iter().find(|segment| segment.number >= least) else { return nothing() };
        if self.to.is_some_and(|to| to.segment < next.number) {
            return Next::End;
        }
        let next = next.clone();
        drop(state);
        let byte = if next.number == self.at.segment { self.at.byte } else { 0 };
        self.at = Position { segment: next.number, byte };
        self.buffer.clear();
        self.looked_at = 0;
        self.file = None;
        self.segment = Some(next);
        Next::Moved
    }

    fn start_reading(&mut self, from: u64, count: usize) {
        let Some(segment) = self.segment.clone() else { return };
        let file = self.file.clone();
        self.reading = Some(tokio::task::spawn_blocking(move || {
            let file = match file {
                Some(file) => file,
                None => Arc::new(File::open(&segment.path)?),
            };
            let mut bytes = vec![0; count];
            let mut read = 0;
            while read < count {
                match file.read_at(&mut bytes[read..], from + read as u64)? {
                    0 => break,
                    more => read += more,
                }
            }
            bytes.truncate(read);
            Ok((file, bytes))
        }));
    }

    async fn finish_reading(&mut self) -> Result<(), JournalError> {
        let Some(reading) = &mut self.reading else { return Ok(()) };
        let result = reading.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        self.reading = None;
        match result {
            Ok((file, bytes)) if !bytes.is_empty() => {
                self.buffer.drain(..self.looked_at);
                self.looked_at = 0;
                self.buffer.extend_from_slice(&bytes);
                self.file = Some(file);
                Ok(())
            }
            // cut off or dropped before it was read
            Ok(_) => {
                self.skip();
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.skip();
                Ok(())
            }
            Err(source) => {
                let path = self.segment.as_ref().map(|segment| segment.path.clone()).unwrap_or_default();
                Err(JournalError::Read { path, source })
            }
        }
    }

    /// Goes on behind the segment that it is in.
    fn skip(&mut self) {
        self.at = Position { segment: self.at.segment + 1, byte: 0 };
        self.buffer.clear();
        self.looked_at = 0;
    }
}

/// So much is read at once.
const CHUNK: usize = 256 * 1024;
