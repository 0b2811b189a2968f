//! Output on its way from records to what a docker client shows: which lines, and how they are marked and framed. It reads and waits for nothing.
//!
//! A record may hold a part of a line, or many. A line is told as a whole when its end has come, so that lines of the two streams do not mix; one that is long, or
//! whose end is not there yet when nothing more is, is told as far as it is there. Its time is that of its beginning.

use crate::hub::Stream;
use crate::timestamp;

/// How lines are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::api) struct Format {
    pub(in crate::api) stdout: bool,
    pub(in crate::api) stderr: bool,
    /// Each line begins with its time.
    pub(in crate::api) timestamps: bool,
    /// Each line has what a log driver adds to it: here, nothing, and the space behind it.
    pub(in crate::api) details: bool,
    /// As the process wrote it, and not in frames: it has a terminal.
    pub(in crate::api) raw: bool,
    /// Lines before this moment are not shown: nanoseconds since 1970.
    pub(in crate::api) since_ns: u64,
    /// So many lines at the beginning are not shown.
    pub(in crate::api) skip: u64,
}

/// Makes what is sent of what was written.
#[derive(Debug)]
pub(in crate::api) struct Lines {
    format: Format,
    to_skip: u64,
    stdout: Line,
    stderr: Line,
    /// What is to be sent.
    out: Vec<u8>,
}

/// A stream's line that has not ended.
#[derive(Debug, Default)]
struct Line {
    /// What of it was not told.
    text: Vec<u8>,
    /// When it began, if it has.
    began_ns: Option<u64>,
    /// The first part of it was told, or not shown: so is the rest.
    fate: Option<Fate>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Shown,
    Hidden,
}

impl Lines {
    pub(in crate::api) fn new(format: Format) -> Lines {
        Lines { format, to_skip: format.skip, stdout: Line::default(), stderr: Line::default(), out: Vec::new() }
    }

    /// Takes what was written at this moment.
    pub(in crate::api) fn feed(&mut self, stream: Stream, time_ns: u64, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let line = self.line(stream);
            line.began_ns.get_or_insert(time_ns);
            line.text.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                self.tell(stream);
                *self.line(stream) = Line::default();
            } else if self.line(stream).text.len() >= LONG {
                self.tell(stream);
            }
        }
    }

    /// There is nothing more for now: tells what there is of lines that have not ended.
    pub(in crate::api) fn flush(&mut self) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            if !self.line(stream).text.is_empty() {
                self.tell(stream);
            }
        }
    }

    /// How much is to be sent, in bytes.
    pub(in crate::api) fn len(&self) -> usize {
        self.out.len()
    }

    /// What is to be sent.
    pub(in crate::api) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// The log cannot be read further: docker's clients show this as an error.
    pub(in crate::api) fn fail(&mut self, reason: &str) {
        self.frame(ERROR, reason.len());
        self.out.extend_from_slice(reason.as_bytes());
    }

    fn frame(&mut self, stream: u8, len: usize) {
        let len = u32::try_from(len).expect("a line is told before it is as long");
        self.out.extend_from_slice(&[stream, 0, 0, 0]);
        self.out.extend_from_slice(&len.to_be_bytes());
    }

    fn line(&mut self, stream: Stream) -> &mut Line {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    /// Tells what there is of a stream's line.
    fn tell(&mut self, stream: Stream) {
        let format = self.format;
        let Line { text, began_ns, fate } = std::mem::take(self.line(stream));
        let began_ns = began_ns.unwrap_or_default();
        let decided = fate.unwrap_or_else(|| {
            let wanted = match stream {
                Stream::Stdout => format.stdout,
                Stream::Stderr => format.stderr,
            };
            // both streams' lines count, as they do for docker
            let skipped = self.to_skip > 0;
            self.to_skip = self.to_skip.saturating_sub(1);
            if wanted && !skipped && began_ns >= format.since_ns { Fate::Shown } else { Fate::Hidden }
        });
        if decided == Fate::Shown {
            let mut mark = String::new();
            if fate.is_none() && format.timestamps {
                mark = timestamp::format(began_ns) + " ";
            }
            if fate.is_none() && format.details {
                mark.push(' ');
            }
            if !format.raw {
                self.frame(stream as u8, mark.len() + text.len());
            }
            self.out.extend_from_slice(mark.as_bytes());
            self.out.extend_from_slice(&text);
        }
        *self.line(stream) = Line { text: Vec::new(), began_ns: Some(began_ns), fate: Some(decided) };
    }
}

/// A part of a line that is told without its end, in bytes: docker's size.
const LONG: usize = 16 * 1024;
/// The stream of the daemon's own errors.
const ERROR: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: Format =
        Format { stdout: true, stderr: true, timestamps: false, details: false, raw: true, since_ns: 0, skip: 0 };

    fn at(second: u64) -> u64 {
        second * 1_000_000_000
    }

    /// What is shown of the sample, and of what comes behind it.
    fn shown(format: Format) -> String {
        let mut lines = Lines::new(format);
        lines.feed(Stream::Stdout, at(1), b"one\ntw");
        lines.feed(Stream::Stderr, at(2), b"error\n");
        lines.feed(Stream::Stdout, at(3), b"o\r\n\nthree\n");
        lines.feed(Stream::Stdout, at(4), b"four");
        lines.flush();
        lines.feed(Stream::Stdout, at(5), b", the rest\n");
        lines.flush();
        String::from_utf8(lines.take()).unwrap()
    }

    #[test]
    fn a_line_comes_whole_and_one_without_an_end_when_nothing_follows() {
        assert_eq!(shown(BOTH), "one\nerror\ntwo\r\n\nthree\nfour, the rest\n");
        let mut lines = Lines::new(BOTH);
        lines.feed(Stream::Stdout, 1, b"prompt> ");
        assert_eq!(lines.len(), 0);
        lines.flush();
        assert_eq!(lines.take(), b"prompt> ");
        lines.flush();
        assert_eq!(lines.len(), 0);
    }

    #[test]
    fn a_line_has_one_time_that_of_its_beginning() {
        let text = shown(Format { timestamps: true, ..BOTH });
        let time = |second: u8| format!("1970-01-01T00:00:0{second}.000000000Z");
        let expected = [
            format!("{} one\n", time(1)),
            format!("{} error\n", time(2)),
            format!("{} two\r\n", time(1)),
            format!("{} \n", time(3)),
            format!("{} three\n", time(3)),
            format!("{} four, the rest\n", time(4)),
        ];
        assert_eq!(text, expected.concat());
        let text = shown(Format { timestamps: true, details: true, stdout: false, ..BOTH });
        assert_eq!(text, format!("{}  error\n", time(2)));
    }

    #[test]
    fn lines_are_chosen_by_stream_time_and_number() {
        let check = |format: Format, expected: &str| assert_eq!(shown(format), expected, "{format:?}");
        check(Format { stderr: false, ..BOTH }, "one\ntwo\r\n\nthree\nfour, the rest\n");
        check(Format { stdout: false, ..BOTH }, "error\n");
        check(Format { since_ns: at(2), ..BOTH }, "error\n\nthree\nfour, the rest\n");
        check(Format { since_ns: at(60), ..BOTH }, "");
        check(Format { skip: 1, ..BOTH }, "error\ntwo\r\n\nthree\nfour, the rest\n");
        check(Format { skip: 4, ..BOTH }, "three\nfour, the rest\n");
        check(Format { skip: 5, ..BOTH }, "four, the rest\n");
        check(Format { skip: 6, ..BOTH }, "");
        // those of the other stream count too
        check(Format { skip: 2, stderr: false, ..BOTH }, "two\r\n\nthree\nfour, the rest\n");
    }

    #[test]
    fn frames_name_their_stream() {
        let mut lines = Lines::new(Format { raw: false, ..BOTH });
        lines.feed(Stream::Stdout, 1, b"a\0\n");
        lines.feed(Stream::Stderr, 1, b"no");
        lines.flush();
        lines.feed(Stream::Stderr, 2, b"!\n");
        let expected = [&b"\x01\0\0\0\0\0\0\x03a\0\n"[..], b"\x02\0\0\0\0\0\0\x02no", b"\x02\0\0\0\0\0\0\x02!\n"];
        assert_eq!(lines.take(), expected.concat());
    }

    #[test]
    fn a_line_without_end_is_told_in_parts_and_marked_once() {
        let mut lines = Lines::new(Format { timestamps: true, ..BOTH });
        let mut most = 0;
        for time in 0..100 {
            lines.feed(Stream::Stdout, time, &[b'x'; 1000]);
            most = most.max(lines.stdout.text.len());
        }
        lines.flush();
        assert!(most <= LONG + 1000, "{most}");
        let text = String::from_utf8(lines.take()).unwrap();
        assert_eq!(text, format!("1970-01-01T00:00:00.000000000Z {}", "x".repeat(100_000)));
    }
}
