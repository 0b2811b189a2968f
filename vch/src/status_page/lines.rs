//! A container's output as lines for a person: each with its time and its stream. It reads journals, and waits for nothing that is not there yet.

use std::collections::VecDeque;
use std::convert::Infallible;

use axum::body::Bytes;
use futures_util::{Stream as Pieces, stream};
use wire::log::Stream;

use crate::journal::{Journal, JournalError, Reader, Record, Selection};
use crate::timestamp;

/// A line, or a part of one that is very long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Its beginning: nanoseconds since 1970.
    pub(super) time_ns: u64,
    pub(super) stream: Stream,
    /// Without its end.
    pub(super) text: Vec<u8>,
}

/// The last lines of a log, or why they cannot be read.
#[derive(Debug)]
pub(super) struct Last {
    pub(super) lines: VecDeque<Line>,
    pub(super) failure: Option<String>,
}

/// Makes lines of records.
#[derive(Debug)]
struct Assembly {
    longest: usize,
    stdout: Option<Line>,
    stderr: Option<Line>,
}

impl Assembly {
    fn new(longest: usize) -> Assembly {
        Assembly { longest, stdout: None, stderr: None }
    }

    fn feed(&mut self, record: &Record, mut tell: impl FnMut(Line)) {
        let Record { stream, time_ns, bytes, .. } = record;
        let (stream, time_ns) = (*stream, *time_ns);
        let open = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        for mut piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let ends = piece.ends_with(b"\n");
            piece = piece.strip_suffix(b"\n").unwrap_or(piece);
            let mut line = open.take().unwrap_or(Line { time_ns, stream, text: Vec::new() });
            while line.text.len() + piece.len() > self.longest {
                let (now, later) = piece.split_at(self.longest - line.text.len());
                line.text.extend_from_slice(now);
                tell(std::mem::replace(&mut line, Line { time_ns, stream, text: Vec::new() }));
                piece = later;
            }
            line.text.extend_from_slice(piece);
            if ends {
                tell(line);
            } else {
                *open = Some(line);
            }
        }
    }

    /// Lines that have no end yet.
    fn rest(&mut self) -> impl Iterator<Item = Line> {
        self.stdout.take().into_iter().chain(self.stderr.take()).filter(|line| !line.text.is_empty())
    }
}

/// The last lines. Of a log with very long ones, fewer.
pub(super) async fn last(journal: &Journal, count: usize) -> Last {
    let mut found = Last { lines: VecDeque::new(), failure: None };
    for start in journal.starts().into_iter().rev().take(SEGMENTS) {
        let selection = Selection { from: start, to: Some(journal.end()) };
        found = match tail(journal.read(selection), count).await {
            Ok(lines) => Last { lines, failure: None },
            Err(error) => Last { failure: Some(error.to_string()), ..found },
        };
        if found.lines.len() >= count || found.failure.is_some() {
            break;
        }
    }
    found
}

async fn tail(mut reader: Reader, count: usize) -> Result<VecDeque<Line>, JournalError> {
    let mut lines = VecDeque::new();
    let mut keep = |line| {
        lines.push_back(line);
        if lines.len() > count {
            lines.pop_front();
        }
    };
    let mut assembly = Assembly::new(SHOWN);
    while let Some(record) = reader.next().await? {
        assembly.feed(&record, &mut keep);
    }
    assembly.rest().for_each(keep);
    Ok(lines)
}

/// A log as text, from its oldest entry to the one that is its last now.
#[derive(Debug)]
pub(super) struct Text {
    reader: Option<Reader>,
    assembly: Assembly,
}

impl Text {
    pub(super) fn of(journal: &Journal) -> Text {
        let selection = Selection { to: Some(journal.end()), ..Selection::default() };
        Text { reader: Some(journal.read(selection)), assembly: Assembly::new(LONG) }
    }

    /// The next lines; none at the end.
    pub(super) async fn next(&mut self) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        while out.len() < PIECE
            && let Some(reader) = &mut self.reader
        {
            match reader.next().await {
                Ok(Some(record)) => self.assembly.feed(&record, |line| line.write(&mut out)),
                end => {
                    self.reader = None;
                    self.assembly.rest().for_each(|line| line.write(&mut out));
                    if let Err(error) = end {
                        out.extend_from_slice(format!("(the log cannot be read further: {error})\n").as_bytes());
                    }
                }
            }
        }
        (!out.is_empty()).then_some(out)
    }
}

/// The same, as a body.
pub(super) fn whole(journal: Journal) -> impl Pieces<Item = Result<Bytes, Infallible>> {
    stream::unfold(Text::of(&journal), async |mut text| {
        let bytes = text.next().await?;
        Some((Ok(bytes.into()), text))
    })
}

/// What a stream is called.
pub(super) fn word(stream: Stream) -> &'static str {
    match stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    }
}

impl Line {
    /// Its time, its stream and its bytes as they were written.
    fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(timestamp::format(self.time_ns).as_bytes());
        out.extend_from_slice(format!(" {} ", word(self.stream)).as_bytes());
        out.extend_from_slice(&self.text);
        out.push(b'\n');
    }
}

/// Longer lines are told in pieces, in bytes: on the page, and in text.
const SHOWN: usize = 2_000;
const LONG: usize = 16 * 1024;
/// So much text is sent at once.
const PIECE: usize = 64 * 1024;
/// The page looks through so many segments of a journal, at most.
const SEGMENTS: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    fn record(stream: Stream, time_ns: u64, text: &str) -> Record {
        Record { stream, time_ns, bytes: text.into(), next: Default::default() }
    }

    #[test]
    fn lines_are_whole_and_of_one_stream() {
        let mut assembly = Assembly::new(4);
        let mut told = Vec::new();
        for (stream, time, text) in
            [(Stream::Stdout, 1, "a"), (Stream::Stderr, 2, "x\ny"), (Stream::Stdout, 3, "b\n\n123456789\n1234\n")]
        {
            assembly.feed(&record(stream, time, text), |line| told.push(line));
        }
        told.extend(assembly.rest());
        let shown: Vec<_> = told
            .iter()
            .map(|line| format!("{}{}:{}", line.time_ns, word(line.stream), String::from_utf8_lossy(&line.text)))
            .collect();
        let expected = [
            "2stderr:x",
            "1stdout:ab",
            "3stdout:",
            "3stdout:1234",
            "3stdout:5678",
            "3stdout:9",
            "3stdout:1234",
            "2stderr:y",
        ];
        assert_eq!(shown, expected);
    }
}
