//! The journal: a container's output on the VCH's disk, over all boots of its VM.
//!
//! ```text
//! 00000003.<boot>.<stdout>.<stderr>.log     entries of wire::log: the first is at these offsets of this boot's streams
//! 00000004.<boot>.<stdout>.<stderr>.log     the last one grows; when it is long enough, or the VM boots, a new one begins
//! ```
//!
//! One task writes ([`crate::recorder`]), any number read. Readers see what was appended at once; [`Journal::sync`] makes it last, and only that may be
//! acknowledged to the guest. So what a crash takes from the end, the guest still has: [`Journal::open`] cuts off a torn entry, and tells where to go on.
//! The oldest segments go when all are longer than the limit.
//!
//! It decides nothing about lines, clients or guests.

mod reader;
mod segment;

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::watch;
use wire::log::{Entry, MAX_BYTES, Stream};

use self::segment::Segment;
use crate::hub::Offsets;
use crate::lock::locked;

pub(crate) use self::reader::{Reader, Record, Selection};

/// A container's journal: a handle, of which there may be many.
#[derive(Clone, Debug)]
pub(crate) struct Journal(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    limit: u64,
    state: Mutex<State>,
    /// Told whenever a reader may find more, or its end.
    moved: watch::Sender<()>,
}

#[derive(Debug)]
struct State {
    /// The oldest first.
    segments: VecDeque<Arc<Segment>>,
    /// The last one, if it can be written.
    open: Option<Open>,
    next_number: u64,
    /// How far the streams of this boot are here.
    boot: [u8; 16],
    at: Offsets,
    is_finished: bool,
    /// How often it was resumed.
    resumed: u64,
    is_removed: bool,
}

/// The segment that grows.
#[derive(Debug)]
struct Open {
    segment: Arc<Segment>,
    file: Arc<File>,
    /// So much of it lasts, and is so far in the streams.
    synced: (u64, Offsets),
}

/// Where an entry begins, or the next one will. Later entries have greater ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    segment: u64,
    byte: u64,
}

/// Why output could not be kept or read: the disk's fault, and never that of the container.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JournalError {
    #[error("cannot use {} for output: {source}", .path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("there is no room for more output at {}: make room on that file system, and it goes on", .path.display())]
    Full { path: PathBuf },
    #[error("cannot write {}: {source}", .path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot read {}: {source}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    /// [`Journal::begin`] comes first.
    #[error("the journal {} does not know of which boot this output is", .path.display())]
    NotBegun { path: PathBuf },
    #[error("the journal was removed, with its container")]
    Removed,
}

impl JournalError {
    fn writing(path: &Path, source: io::Error) -> JournalError {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => JournalError::Full { path },
            _ => JournalError::Write { path, source },
        }
    }
}

impl Journal {
    /// Opens the journal in `dir`, or makes one. What a crash left half-written at its end is cut off. `limit` is in bytes.
    pub(crate) fn open(dir: &Path, limit: u64) -> Result<Journal, JournalError> {
        let failed = |path: &Path, source| JournalError::Open { path: path.to_owned(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| failed(dir, error))?;
        let mut segments = segment::list(dir).map_err(|error| failed(dir, error))?;
        let mut state = State {
            next_number: segments.back().map_or(1, |last| last.number + 1),
            open: None,
            boot: [0; 16],
            at: Offsets::default(),
            is_finished: false,
            resumed: 0,
            is_removed: false,
            segments: VecDeque::new(),
        };
        if let Some(last) = segments.pop_back() {
            let (segment, file, at) = last.recover().map_err(|(path, error)| failed(&path, error))?;
            let (segment, file) = (Arc::new(segment), Arc::new(file));
            (state.boot, state.at) = (segment.boot, at);
            state.open = Some(Open { segment: segment.clone(), file, synced: (segment.len(), at) });
            state.segments = segments.into_iter().map(Arc::new).chain([segment]).collect();
        }
        let (moved, _) = watch::channel(());
        Ok(Journal(Arc::new(Shared { dir: dir.to_owned(), limit, state: Mutex::new(state), moved })))
    }

    /// How far it has the streams of this boot of the guest; `None` if it has nothing of it. `stdin` counts for nothing here.
    pub(crate) fn offsets(&self, boot: [u8; 16]) -> Option<Offsets> {
        let state = self.state();
        (state.boot == boot && !state.segments.is_empty()).then_some(state.at)
    }

    /// The output that follows is of this boot, from these offsets on: a new segment, unless the last one is just there.
    pub(crate) async fn begin(&self, boot: [u8; 16], at: Offsets) -> Result<(), JournalError> {
        self.blocking(move |journal| {
            let before = {
                let state = journal.state();
                match &state.open {
                    Some(_) if (state.boot, state.at) == (boot, at) => return Ok(()),
                    Some(open) => Some(open.file.clone()),
                    None if state.is_removed => return Err(JournalError::Removed),
                    None => None,
                }
            };
            if let Some(file) = before {
                // of a boot that is over, or was cut back: nobody can be asked for it again
                let _lost = file.sync_data();
            }
            journal.start_segment(boot, at)
        })
        .await
    }

    /// Appends what came at this time, in nanoseconds since 1970: all of it, or nothing. Readers see it at once; a crash of the machine may take it until it is
    /// synced.
    pub(crate) fn append(&self, stream: Stream, time_ns: u64, bytes: &[u8]) -> Result<(), JournalError> {
        let mut encoded = Vec::with_capacity(bytes.len() + bytes.len() / 128 + 64);
        for bytes in bytes.chunks(MAX_BYTES) {
            Entry { stream, time_ns, bytes }.encode(&mut encoded);
        }
        let mut state = self.state();
        let Some(Open { segment, file, .. }) = &state.open else {
            return Err(self.not_open(&state));
        };
        let len = segment.len();
        if let Err(error) = file.write_all_at(&encoded, len) {
            // should that fail, it is behind the end for readers, and torn for the next serve
            let _torn = file.set_len(len);
            return Err(JournalError::writing(&segment.path, error));
        }
        segment.grow(encoded.len() as u64);
        match stream {
            Stream::Stdout => state.at.stdout += bytes.len() as u64,
            Stream::Stderr => state.at.stderr += bytes.len() as u64,
        }
        drop(state);
        self.tell();
        Ok(())
    }

    /// Makes all that was appended last, and tells how far that is in the streams. When it fails, what was not synced before is not in the journal any more, and the
    /// next thing is [`Journal::begin`] at [`Journal::offsets`].
    pub(crate) async fn sync(&self) -> Result<Offsets, JournalError> {
        self.blocking(|journal| {
            let (segment, file, len, at, synced) = {
                let state = journal.state();
                let Some(open) = &state.open else {
                    return Err(JournalError::NotBegun { path: journal.0.dir.clone() });
                };
                (open.segment.clone(), open.file.clone(), open.segment.len(), state.at, open.synced)
            };
            if len == synced.0 {
                return Ok(at);
            }
            if let Err(error) = file.sync_data() {
                // the kernel may have thrown these pages away: asked again, it would say that all is well
                let _torn = file.set_len(synced.0);
                let mut state = journal.state();
                segment.len.store(synced.0, Ordering::Release);
                state.at = synced.1;
                state.open = None;
                return Err(JournalError::writing(&segment.path, error));
            }
            let mut state = journal.state();
            if let Some(open) = &mut state.open {
                open.synced = (len, at);
            }
            let is_long = len >= journal.segment_limit() && state.at == at;
            let boot = state.boot;
            drop(state);
            if is_long {
                // if it cannot, this one goes on: what was asked for is done
                let _later = journal.start_segment(boot, at);
            }
            Ok(at)
        })
        .await
    }

    /// The process has ended: readers that follow come to an end behind the last entry.
    pub(crate) fn finish(&self) {
        self.state().is_finished = true;
        self.tell();
    }

    /// It runs again: readers that follow wait for more. The result is this turn's number.
    pub(crate) fn resume(&self) -> u64 {
        let mut state = self.state();
        state.is_finished = false;
        state.resumed += 1;
        state.resumed
    }

    /// As [`Journal::finish`], unless it was resumed after this turn: a slow disk may end one boot after the next one has begun.
    pub(crate) fn finish_turn(&self, turn: u64) {
        if self.state().resumed == turn {
            self.finish();
        }
    }

    /// Where the next entry will be.
    pub(crate) fn end(&self) -> Position {
        let state = self.state();
        match state.segments.back() {
            Some(last) => Position { segment: last.number, byte: last.len() },
            None => Position { segment: state.next_number, byte: 0 },
        }
    }

    /// Where its segments begin, the oldest first.
    pub(crate) fn starts(&self) -> Vec<Position> {
        self.state().segments.iter().map(|segment| Position { segment: segment.number, byte: 0 }).collect()
    }

    /// Entries in order.
    pub(crate) fn read(&self, selection: Selection) -> Reader {
        Reader::new(self.clone(), selection)
    }

    /// Its last segment is as long as one should be: the next [`Journal::sync`] begins another one, if nothing is appended meanwhile.
    pub(crate) fn is_long(&self) -> bool {
        self.state().open.as_ref().is_some_and(|open| open.segment.len() >= self.segment_limit())
    }

    /// What it takes on disk, in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.state().segments.iter().map(|segment| segment.len()).sum()
    }

    /// Deletes it. Its readers come to their end.
    pub(crate) fn remove(self) -> io::Result<()> {
        let mut state = self.state();
        state.open = None;
        state.is_finished = true;
        state.is_removed = true;
        state.segments.clear();
        drop(state);
        self.tell();
        fs::remove_dir_all(&self.0.dir)
    }

    // -- segments

    /// A new last segment, and room for it within the limit.
    fn start_segment(&self, boot: [u8; 16], at: Offsets) -> Result<(), JournalError> {
        let number = self.state().next_number;
        let (segment, file) = Segment::create(&self.0.dir, number, boot, at)
            .map_err(|(path, error)| JournalError::writing(&path, error))?;
        let (segment, file) = (Arc::new(segment), Arc::new(file));
        let mut state = self.state();
        state.next_number = number + 1;
        (state.boot, state.at) = (boot, at);
        state.open = Some(Open { segment: segment.clone(), file, synced: (0, at) });
        let mut gone: Vec<Arc<Segment>> = state.segments.pop_back_if(|last| last.len() == 0).into_iter().collect();
        state.segments.push_back(segment);
        let mut total: u64 = state.segments.iter().map(|segment| segment.charge()).sum();
        while total > self.0.limit
            && state.segments.len() > 1
            && let Some(oldest) = state.segments.pop_front()
        {
            total -= oldest.charge();
            gone.push(oldest);
        }
        drop(state);
        self.tell();
        for segment in gone {
            // if it stays, it is found by the next serve, and goes then
            let _stays = fs::remove_file(&segment.path);
        }
        Ok(())
    }

    fn segment_limit(&self) -> u64 {
        self.0.limit / SEGMENTS
    }

    fn not_open(&self, state: &State) -> JournalError {
        match state.is_removed {
            true => JournalError::Removed,
            false => JournalError::NotBegun { path: self.0.dir.clone() },
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.0.state)
    }

    fn tell(&self) {
        self.0.moved.send_replace(());
    }

    /// Runs what may wait for the disk where it holds nobody up.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Journal) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, JournalError> {
        let journal = self.clone();
        match tokio::task::spawn_blocking(move || work(&journal)).await {
            Ok(result) => result,
            Err(error) => Err(JournalError::Write { path: self.0.dir.clone(), source: io::Error::other(error) }),
        }
    }
}

/// A journal that is as long as it may be is in so many segments, and one more.
const SEGMENTS: u64 = 8;

#[cfg(test)]
mod tests;
