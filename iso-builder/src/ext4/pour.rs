//! Contents that are had in order only, as those of compressed layers are: each source is read once, from its start, and every file is written to its place as it
//! comes by. Several sources are read at the same time.
//!
//! Decides which files are written so; where to, a layout has decided.

use std::collections::HashMap;
use std::io::{self, Read};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;

use super::error::Error;
use super::extent::Extent;
use super::format::{BLOCK, index, wide};
use super::inodes::Inodes;
use super::layout::{Layout, Place};
use super::sink::Sink;
use super::survey::Needs;
use crate::ahead::{self, Ahead};
use crate::scan::{Cutter, Scanner};
use crate::tree::{Content, Kind, ReadAt, Source};

/// The files that are poured, by their sources.
#[derive(Debug)]
pub(super) struct Pour<'a> {
    streams: Vec<Stream<'a>>,
    /// Where blocks were looked for, for the file that has this place among the inodes; `None` for what is not poured. Extents are found again, as images have
    /// millions of files.
    fronts: Vec<Option<NonZeroU32>>,
}

#[derive(Debug)]
struct Stream<'a> {
    source: &'a Arc<dyn ReadAt>,
    /// Places among the inodes, in the order of the source.
    files: Vec<u32>,
}

/// A file, and the source's bytes that it takes.
#[derive(Debug)]
struct Part<'a> {
    place: usize,
    content: &'a Content,
    source: &'a Arc<dyn ReadAt>,
    start: u64,
    end: u64,
}

impl<'a> Part<'a> {
    /// A file that lies in one source, in order.
    fn new(inodes: &Inodes<'a>, place: usize) -> Option<Part<'a>> {
        let Kind::File(content) = &inodes.node(place).kind else { return None };
        let (source, start, end) = in_order(content)?;
        Some(Part { place, content, source, start, end })
    }

    /// One of those of a stream.
    fn of(inodes: &Inodes<'a>, place: u32) -> Part<'a> {
        Part::new(inodes, index(u64::from(place))).expect("it was one when it was chosen")
    }
}

impl<'a> Pour<'a> {
    pub(super) fn new(inodes: &Inodes<'a>) -> Pour<'a> {
        let mut streams: Vec<Stream<'a>> = Vec::new();
        // a source that is no stream has no place in the list
        let mut known: HashMap<*const (), Option<usize>> = HashMap::new();
        for place in 0..inodes.len() {
            let Some(Part { source, .. }) = Part::new(inodes, place) else { continue };
            let at = *known.entry(Arc::as_ptr(source).cast()).or_insert_with(|| {
                source.in_order().is_some().then(|| {
                    streams.push(Stream { source, files: Vec::new() });
                    streams.len() - 1
                })
            });
            if let Some(at) = at {
                streams[at].files.push(u32::try_from(place).expect("places of inodes have 32 bits"));
            }
        }
        let mut fronts = vec![None; if streams.is_empty() { 0 } else { inodes.len() }];
        for stream in &mut streams {
            stream.files.sort_by_key(|&place| Part::of(inodes, place).start);
            // what two files share passes by but once
            let mut passed = 0;
            stream.files.retain(|&place| {
                let part = Part::of(inodes, place);
                let passes = part.start >= passed;
                passed = passed.max(part.end);
                if passes {
                    fronts[part.place] = Some(NonZeroU32::MIN);
                }
                passes
            });
        }
        Pour { streams, fronts }
    }

    /// Takes a file with the [front](super::layout::Places::front) of its blocks, if it is one that will be poured.
    pub(super) fn place(&mut self, place: usize, front: NonZeroU32) -> bool {
        let taken = self.fronts.get_mut(place).and_then(Option::as_mut);
        taken.map(|taken| *taken = front).is_some()
    }

    /// Reads all sources and writes the files to `out`; tells how many bytes that took. `done` is told the bytes of contents written.
    pub(super) fn run(&self, plan: Plan<'_>, out: &Sink<'_>, done: &mut dyn FnMut(u64)) -> Result<u64, Error> {
        let next = AtomicUsize::new(0);
        let (told, news) = channel();
        thread::scope(|scope| {
            let readers = thread::available_parallelism().map_or(1, usize::from).min(READERS).min(self.streams.len());
            let readers: Vec<_> = (0..readers)
                .map(|_| {
                    let (next, told) = (&next, told.clone());
                    scope.spawn(move || self.read(next, plan, out, &told))
                })
                .collect();
            drop(told);
            news.iter().for_each(done);
            let written =
                readers.into_iter().map(|it| it.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            written.sum()
        })
    }

    /// Reads one source after the other of those that nobody has begun.
    fn read(&self, next: &AtomicUsize, plan: Plan<'_>, out: &Sink<'_>, told: &Sender<u64>) -> Result<u64, Error> {
        let mut sink = out.beside();
        while let Some(stream) = self.streams.get(next.fetch_add(1, Ordering::Relaxed)) {
            let poured = stream.pour(plan, &self.fronts, &mut sink, told);
            if poured.is_err() {
                // the others need not go on
                next.store(self.streams.len(), Ordering::Relaxed);
            }
            poured?;
        }
        sink.finish()
    }
}

impl Stream<'_> {
    fn pour(
        &self,
        plan: Plan<'_>,
        fronts: &[Option<NonZeroU32>],
        sink: &mut Sink<'_>,
        told: &Sender<u64>,
    ) -> Result<(), Error> {
        let contents = |place: u32, source| Error::Contents { path: plan.inodes.path(index(u64::from(place))), source };
        let (Some(&first), Some(opened)) = (self.files.first(), self.source.in_order()) else { return Ok(()) };
        let mut reader = opened.map_err(|source| contents(first, source))?;
        thread::scope(|scope| {
            let (feed, ahead) = ahead::ahead();
            let reading = scope.spawn(move || {
                loop {
                    let mut chunk = feed.buffer();
                    match reader.read(&mut chunk) {
                        Ok(0) => return Ok(()),
                        Ok(len) => chunk.truncate(len),
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                        Err(error) => return Err(error),
                    }
                    if !feed.send(chunk) {
                        return Ok(());
                    }
                }
            });
            let mut cursor = Cursor { ahead, offset: 0 };
            let mut cutter = Cutter::new();
            let mut last = first;
            let poured = self.files.iter().try_for_each(|&place| {
                last = place;
                let part = Part::of(plan.inodes, place);
                let front = fronts[part.place].expect("it is poured");
                let Place { extents, .. } = plan.layout.place(front, plan.needs.get(part.place));
                let poured = file(part.content, &extents, &mut cutter, &mut cursor, sink);
                told.send(part.end - part.start).ok();
                poured.map_err(|trouble| match trouble {
                    Trouble::Contents(source) => contents(place, source),
                    Trouble::Sink(error) => error,
                })
            });
            drop(cursor);
            // an early end has its reason on the other side
            let read = reading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            read.map_err(|source| contents(last, source)).and(poured)
        })
    }
}

/// What the places of files hang on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan<'a> {
    pub(super) inodes: &'a Inodes<'a>,
    pub(super) needs: &'a Needs,
    pub(super) layout: &'a Layout,
}

enum Trouble {
    Contents(io::Error),
    Sink(Error),
}

/// Writes one file whose bytes come next, or after others that nobody wants.
fn file(
    content: &Content,
    places: &[Extent],
    cutter: &mut Cutter,
    cursor: &mut Cursor,
    sink: &mut Sink<'_>,
) -> Result<(), Trouble> {
    let mut scanner = Scanner::new(content.size);
    let mut extents = places.iter().peekable();
    let mut put = |mut first: u64, mut blocks: &[u8]| {
        scanner.look(first, blocks);
        while !blocks.is_empty() {
            let Some(extent) = extents.peek() else { break };
            let (start, end) = (u64::from(extent.logical), u64::from(extent.logical) + u64::from(extent.len));
            if end <= first {
                extents.next();
                continue;
            }
            // blocks before it are all zero
            let (to, is_stored) = if first < start { (start, false) } else { (end, true) };
            let len = blocks.len().min(index((to - first).saturating_mul(wide(BLOCK))));
            if is_stored {
                sink.put(extent.physical + (first - start), &blocks[..len]).map_err(Trouble::Sink)?;
            }
            first += wide(len / BLOCK);
            blocks = &blocks[len..];
        }
        Ok(())
    };
    for extent in &content.extents {
        cursor.pass_to(extent.from).map_err(Trouble::Contents)?;
        let mut done = 0;
        while done < extent.len {
            let bytes = cursor.peek(extent.len - done).map_err(Trouble::Contents)?;
            cutter.add(extent.at + done, bytes, &mut put)?;
            let len = bytes.len();
            done += wide(len);
            cursor.take(len);
        }
    }
    cutter.close(&mut put)?;
    match content.known() {
        Some(known) if known != scanner.finish() => {
            Err(Trouble::Contents(io::Error::other("they have changed meanwhile")))
        }
        _ => Ok(()),
    }
}

/// The source of a file that lies in one source, in order: where its bytes start there, and where they end.
fn in_order(content: &Content) -> Option<(&Arc<dyn ReadAt>, u64, u64)> {
    let Source::Image(source) = &content.extents.first()?.source else { return None };
    let start = content.extents[0].from;
    let mut end = start;
    for extent in &content.extents {
        let is_of_it = matches!(&extent.source, Source::Image(other) if Arc::ptr_eq(source, other));
        if !is_of_it || extent.from < end {
            return None;
        }
        end = extent.from.checked_add(extent.len)?;
    }
    Some((source, start, end))
}

/// A place in a source that only moves on.
struct Cursor {
    ahead: Ahead,
    offset: u64,
}

impl Cursor {
    fn pass_to(&mut self, offset: u64) -> io::Result<()> {
        while self.offset < offset {
            let len = self.peek(offset - self.offset)?.len();
            self.take(len);
        }
        Ok(())
    }

    /// At most `most` bytes, and at least one.
    fn peek(&mut self, most: u64) -> io::Result<&[u8]> {
        let bytes = self.ahead.peek();
        if bytes.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(&bytes[..usize::try_from(most).map_or(bytes.len(), |most| most.min(bytes.len()))])
    }

    fn take(&mut self, len: usize) {
        self.ahead.take(len);
        self.offset += wide(len);
    }
}

/// Sources that are read at once: each has a decoder with its window, and two megabytes on their way.
const READERS: usize = 4;
