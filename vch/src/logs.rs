//! `vch logs`: what a container has written, from its log device's file.
//!
//! It decides which entries are shown, and how lines are counted and marked. The file's bytes are [`wire::log`]'s.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use wire::log::{Entry, Reader, Stream};

use crate::cli::LogsArgs;
use crate::state::LOG;
use crate::timestamp;

/// Prints a log; the result is the exit code.
pub fn run(args: &LogsArgs) -> Result<u8> {
    let (path, exit) = files(&args.source);
    let mut file = File::open(&path).with_context(|| format!("cannot read the log {}", path.display()))?;
    let now = timestamp::now_ns();
    let moment = |text: &Option<String>| match text {
        None => Ok(None),
        Some(text) => match timestamp::parse(text, now) {
            Some(ns) => Ok(Some(ns)),
            None => {
                bail!("{text:?} is no time: write 2026-01-31T23:59:59Z, seconds since 1970, or how long ago, as 10m")
            }
        },
    };
    let tail = match args.tail.as_str() {
        "all" => None,
        number => Some(number.parse().with_context(|| format!("--tail {number:?} is neither a number nor `all`"))?),
    };
    let mut log = Log::new(moment(&args.since)?, moment(&args.until)?, args.timestamps, tail);
    match show(&mut file, &mut log, args.follow, exit.as_deref()) {
        // who looked has seen enough
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(0),
        result => result.map(|()| 0).with_context(|| format!("cannot show the log {}", path.display())),
    }
}

/// The log's file, and the file that appears when its container has ended.
fn files(source: &Path) -> (PathBuf, Option<PathBuf>) {
    match source.is_dir() {
        true => (source.join(LOG), Some(source.join(EXIT))),
        false => (source.into(), source.parent().map(|dir| dir.join(EXIT))),
    }
}

fn show(file: &mut File, log: &mut Log, follow: bool, exit: Option<&Path>) -> io::Result<()> {
    let (mut stdout, mut stderr) = (io::stdout().lock(), io::stderr().lock());
    let mut buffer = vec![0; CHUNK];
    loop {
        // asked first: what was written before the end is there when the end is told
        let over = !follow || exit.is_some_and(Path::exists);
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                count => {
                    log.feed(&buffer[..count]);
                    log.print(&mut stdout, &mut stderr)?;
                }
            }
        }
        log.catch_up();
        log.print(&mut stdout, &mut stderr)?;
        stdout.flush()?;
        if over {
            return Ok(());
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// The file in a container's directory.
const EXIT: &str = "exit.json";
/// How long a person does not notice that a file has grown.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
const CHUNK: usize = 256 * 1024;

/// A log on its way from entries to text.
struct Log {
    reader: Reader,
    choice: Choice,
    lines: Lines,
}

/// Which entries are shown.
struct Choice {
    since: Option<u64>,
    until: Option<u64>,
}

/// A line, or a part of one, that waits to be printed.
struct Piece {
    stream: Stream,
    begins_line: bool,
    text: Vec<u8>,
}

struct Lines {
    timestamps: bool,
    /// While the past is read: keep only so many lines.
    tail: Option<usize>,
    begun: usize,
    pieces: VecDeque<Piece>,
    /// Stdout's and stderr's last piece ended in the middle of a line.
    open: [bool; 2],
    /// The beginning of a line of theirs was dropped, and so must be its rest.
    headless: [bool; 2],
}

impl Log {
    fn new(since: Option<u64>, until: Option<u64>, timestamps: bool, tail: Option<usize>) -> Log {
        let lines =
            Lines { timestamps, tail, begun: 0, pieces: VecDeque::new(), open: [false; 2], headless: [false; 2] };
        Log { reader: Reader::default(), choice: Choice { since, until }, lines }
    }

    fn feed(&mut self, bytes: &[u8]) {
        let Log { reader, choice, lines } = self;
        reader.feed(bytes, |entry| {
            let shown = choice.since.is_none_or(|since| entry.time_ns >= since)
                && choice.until.is_none_or(|until| entry.time_ns <= until);
            if shown {
                lines.add(&entry);
            }
        });
    }

    /// The past has been read: from here on everything is shown.
    fn catch_up(&mut self) {
        self.lines.tail = None;
    }

    fn print(&mut self, stdout: &mut impl Write, stderr: &mut impl Write) -> io::Result<()> {
        if self.lines.tail.is_some() {
            return Ok(());
        }
        let Lines { pieces, headless, .. } = &mut self.lines;
        for piece in pieces.drain(..) {
            let headless = &mut headless[usize::from(piece.stream == Stream::Stderr)];
            *headless &= !piece.begins_line;
            match piece.stream {
                _ if *headless => {}
                Stream::Stdout => stdout.write_all(&piece.text)?,
                Stream::Stderr => {
                    // in the order of the log, should both be one terminal
                    stdout.flush()?;
                    stderr.write_all(&piece.text)?;
                }
            }
        }
        Ok(())
    }
}

impl Lines {
    fn add(&mut self, entry: &Entry<'_>) {
        for line in entry.bytes.split_inclusive(|&byte| byte == b'\n') {
            let open = &mut self.open[usize::from(entry.stream == Stream::Stderr)];
            let begins_line = !*open;
            *open = line.last() != Some(&b'\n');
            let mut text = Vec::new();
            if begins_line && self.timestamps {
                text.extend_from_slice(timestamp::format(entry.time_ns).as_bytes());
                text.push(b' ');
            }
            text.extend_from_slice(line);
            self.begun += usize::from(begins_line);
            self.pieces.push_back(Piece { stream: entry.stream, begins_line, text });
        }
        let Some(tail) = self.tail else { return self.begun = 0 };
        while self.begun > tail || (self.begun == tail && self.pieces.front().is_some_and(|piece| !piece.begins_line)) {
            let Some(piece) = self.pieces.pop_front() else { return };
            self.begun -= usize::from(piece.begins_line);
            self.headless[usize::from(piece.stream == Stream::Stderr)] = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(stream: Stream, time_ns: u64, text: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        Entry { stream, time_ns, bytes: text.as_bytes() }.encode(&mut bytes);
        bytes
    }

    fn sample() -> Vec<u8> {
        let mut log = Vec::new();
        log.extend(entry(Stream::Stdout, 1_000_000_000, "one\ntw"));
        log.extend(entry(Stream::Stderr, 2_000_000_000, "error\n"));
        log.extend(entry(Stream::Stdout, 3_000_000_000, "o\nthree\n"));
        log.extend(entry(Stream::Stdout, 4_000_000_000, "four"));
        log
    }

    fn print(log: &mut Log) -> (String, String) {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        log.print(&mut stdout, &mut stderr).unwrap();
        (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
    }

    fn shown(mut log: Log) -> (String, String) {
        log.feed(&sample());
        log.catch_up();
        print(&mut log)
    }

    #[test]
    fn streams_are_told_apart() {
        assert_eq!(shown(Log::new(None, None, false, None)), ("one\ntwo\nthree\nfour".into(), "error\n".into()));
    }

    #[test]
    fn a_line_has_one_time_the_one_of_its_beginning() {
        let (stdout, stderr) = shown(Log::new(None, None, true, None));
        let at = |second: u32| format!("1970-01-01T00:00:0{second}.000000000Z ");
        assert_eq!(stdout, format!("{0}one\n{0}two\n{1}three\n{2}four", at(1), at(3), at(4)));
        assert_eq!(stderr, format!("{}error\n", at(2)));
    }

    #[test]
    fn the_tail_is_counted_in_lines() {
        let check = |tail: usize, stdout: &str, stderr: &str| {
            assert_eq!(shown(Log::new(None, None, false, Some(tail))), (stdout.into(), stderr.into()), "{tail}");
        };
        check(0, "", "");
        check(1, "four", "");
        check(2, "three\nfour", "");
        check(3, "three\nfour", "error\n");
        check(100, "one\ntwo\nthree\nfour", "error\n");
    }

    #[test]
    fn what_follows_the_tail_is_shown_to_the_last_byte() {
        let mut log = Log::new(None, None, false, Some(1));
        log.feed(&sample());
        log.catch_up();
        assert_eq!(print(&mut log).0, "four");
        let more = entry(Stream::Stdout, 5, " and more\nfive");
        // a torn entry is waited for
        log.feed(&more[..more.len() - 3]);
        assert_eq!(print(&mut log).0, "");
        log.feed(&more[more.len() - 3..]);
        assert_eq!(print(&mut log).0, " and more\nfive");
    }

    #[test]
    fn times_choose() {
        let log = Log::new(Some(2_000_000_000), Some(3_000_000_000), false, None);
        assert_eq!(shown(log), ("o\nthree\n".into(), "error\n".into()));
    }

    #[test]
    fn following_ends_with_the_container() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(LOG), sample()).unwrap();
        std::fs::write(dir.path().join(EXIT), "{}").unwrap();
        let (path, exit) = files(dir.path());
        let mut log = Log::new(Some(u64::MAX), None, false, None);
        assert!(show(&mut File::open(path).unwrap(), &mut log, true, exit.as_deref()).is_ok());
    }
}
