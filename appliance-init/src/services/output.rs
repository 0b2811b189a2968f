//! What a service writes, on its way into files of bounded length: each line with the time of day before it. It blocks nobody: the pipe is read as far as it is
//! filled, and a file that takes nothing loses lines, not the service.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use guest::clock::Utc;
use guest::syslog::Lines;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::pipe2;
use wire::appliance::LogLimits;

/// Our end of the pipe that a process has as its standard output and error.
#[derive(Debug)]
pub(crate) struct Pipe(File);

/// The most that is read at one event: another service's turn comes.
const AT_ONCE: usize = 64 * 1024;
/// The longest line; a longer one becomes several.
const LONGEST: usize = 4096;

impl Pipe {
    /// Ours, and the process's.
    pub(crate) fn new() -> io::Result<(Pipe, OwnedFd)> {
        let (ours, theirs) = pipe2(OFlag::O_CLOEXEC)?;
        fcntl(&ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok((Pipe(File::from(ours)), theirs))
    }

    /// Reads what is there, `AT_ONCE` at most. False: everybody who could write has gone.
    pub(crate) fn read(&mut self, mut take: impl FnMut(&[u8])) -> bool {
        let mut buffer = [0; 4096];
        for _ in 0..AT_ONCE / buffer.len() {
            match self.0.read(&mut buffer) {
                Ok(0) => return false,
                Ok(count) => take(&buffer[..count]),
                Err(error) => return matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted),
            }
        }
        true
    }
}

impl AsFd for Pipe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// `NAME.log`, and `NAME.log.1` and so on, which are older.
#[derive(Debug)]
pub(crate) struct LogFile {
    path: PathBuf,
    limits: LogLimits,
    lines: Lines,
    /// None: it could not be opened, and is tried again with the next line.
    file: Option<File>,
    length: u64,
}

impl LogFile {
    /// Goes on where a file of that name ends.
    pub(crate) fn new(dir: &Path, name: &str, limits: LogLimits) -> LogFile {
        LogFile { path: dir.join(format!("{name}.log")), limits, lines: Lines::default(), file: None, length: 0 }
    }

    /// Takes bytes; every line that is complete by them is written, and shown to `see`.
    pub(crate) fn write(&mut self, bytes: &[u8], time_ns: u64, mut see: impl FnMut(&[u8])) {
        let mut lines = std::mem::take(&mut self.lines);
        lines.feed(bytes, LONGEST, |line| {
            see(line);
            self.add(line, time_ns);
        });
        self.lines = lines;
    }

    /// The last line, though nothing has ended it.
    pub(crate) fn finish(&mut self, time_ns: u64, mut see: impl FnMut(&[u8])) {
        if let Some(line) = self.lines.finish() {
            see(&line);
            self.add(&line, time_ns);
        }
    }

    fn add(&mut self, line: &[u8], time_ns: u64) {
        let mut entry = format!("{} ", Utc(time_ns)).into_bytes();
        entry.extend_from_slice(line);
        entry.push(b'\n');
        let more = u64::try_from(entry.len()).unwrap_or(u64::MAX);
        // who watches services must not stop for want of a file; the console has the line too
        let _lost = self.append(&entry, more);
    }

    fn append(&mut self, entry: &[u8], more: u64) -> io::Result<()> {
        self.open()?;
        if self.length > 0 && self.length + more > self.limits.size {
            self.file = None;
            self.turn()?;
            self.open()?;
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        let written = file.write_all(entry);
        self.length += more;
        if written.is_err() {
            // how much of it was taken is told by the file
            self.file = None;
        }
        written
    }

    fn open(&mut self) -> io::Result<()> {
        if self.file.is_none() {
            let file = OpenOptions::new().append(true).create(true).mode(0o640).open(&self.path)?;
            self.length = file.metadata()?.len();
            self.file = Some(file);
        }
        Ok(())
    }

    /// Each file becomes one older; the oldest goes.
    fn turn(&self) -> io::Result<()> {
        let older = |age: u8| PathBuf::from(format!("{}.{age}", self.path.display()));
        if self.limits.files == 0 {
            return fs::remove_file(&self.path);
        }
        for age in (1..self.limits.files).rev() {
            match fs::rename(older(age), older(age + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(&self.path, older(1))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Dir {
            let path = std::env::temp_dir().join(format!("appliance-log-{name}-{}", std::process::id()));
            let _old = fs::remove_dir_all(&path);
            fs::create_dir(&path).unwrap();
            Dir(path)
        }

        fn text(&self, name: &str) -> String {
            fs::read_to_string(self.0.join(name)).unwrap()
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _gone = fs::remove_dir_all(&self.0);
        }
    }

    fn limits(size: u64, files: u8) -> LogLimits {
        LogLimits { size, files, output: None }
    }

    const TIME: u64 = 1_500_000_000_000_000_000;
    const STAMP: &str = "2017-07-14T02:40:00.000000Z";

    #[test]
    fn lines_get_their_time_whatever_pieces_they_come_in() {
        let dir = Dir::new("lines");
        let mut log = LogFile::new(&dir.0, "vch", limits(10_000, 1));
        let mut seen = Vec::new();
        for piece in [&b"on"[..], b"e\ntwo\r\n\nfo", b"ur"] {
            log.write(piece, TIME, |line| seen.push(String::from_utf8(line.to_vec()).unwrap()));
        }
        log.finish(TIME, |line| seen.push(String::from_utf8(line.to_vec()).unwrap()));
        log.finish(TIME, |_| panic!("it is written"));
        assert_eq!(seen, ["one", "two", "", "four"]);
        let expected: String = seen.iter().map(|line| format!("{STAMP} {line}\n")).collect();
        assert_eq!(dir.text("vch.log"), expected);
        assert_eq!(fs::metadata(dir.0.join("vch.log")).unwrap().permissions().mode() & 0o777, 0o640);
        // a supervisor that comes again goes on
        LogFile::new(&dir.0, "vch", limits(10_000, 1)).write(b"five\n", TIME, |_| {});
        assert_eq!(dir.text("vch.log"), format!("{expected}{STAMP} five\n"));
    }

    #[test]
    fn files_are_as_long_as_they_may_be_and_the_oldest_goes() {
        let dir = Dir::new("turn");
        let line = STAMP.len() + 1 + 4 + 1;
        let mut log = LogFile::new(&dir.0, "vch", limits(3 * line as u64, 2));
        for number in 0..100 {
            log.write(format!("{number:04}\n").as_bytes(), TIME, |_| {});
            let mut files: Vec<_> = fs::read_dir(&dir.0).unwrap().map(|entry| entry.unwrap()).collect();
            files.sort_by_key(std::fs::DirEntry::file_name);
            assert!(files.len() <= 3 && files.iter().all(|file| file.metadata().unwrap().len() <= 3 * line as u64));
        }
        let numbers = |name: &str| -> Vec<String> {
            dir.text(name).lines().map(|line| line.split(' ').nth(1).unwrap().to_owned()).collect()
        };
        assert_eq!(numbers("vch.log"), ["0099"]);
        assert_eq!(
            (numbers("vch.log.1"), numbers("vch.log.2")),
            (vec!["0096".into(), "0097".into(), "0098".into()], vec!["0093".into(), "0094".into(), "0095".into()],)
        );
        // a line that no file has room for has one of its own
        log.write(&[&[b'x'; 200][..], b"\n"].concat(), TIME, |_| {});
        assert_eq!(dir.text("vch.log").len(), STAMP.len() + 202);
    }

    #[test]
    fn without_older_files_the_newest_begins_anew() {
        let dir = Dir::new("none");
        let mut log = LogFile::new(&dir.0, "vch", limits(40, 0));
        log.write(b"one\ntwo\nthree\n", TIME, |_| {});
        assert_eq!((dir.text("vch.log"), fs::read_dir(&dir.0).unwrap().count()), (format!("{STAMP} three\n"), 1));
    }

    #[test]
    fn a_folder_that_is_gone_stops_nobody() {
        let dir = Dir::new("gone");
        let mut log = LogFile::new(&dir.0.join("below"), "vch", limits(1000, 1));
        let mut seen = 0;
        log.write(b"one\n", TIME, |_| seen += 1);
        fs::create_dir(dir.0.join("below")).unwrap();
        log.write(b"two\n", TIME, |_| seen += 1);
        assert_eq!((dir.text("below/vch.log"), seen), (format!("{STAMP} two\n"), 2));
    }

    #[test]
    fn a_pipe_is_read_as_far_as_it_is_filled() {
        let (mut ours, theirs) = Pipe::new().unwrap();
        let mut theirs = File::from(theirs);
        let mut taken = Vec::new();
        assert!(ours.read(|_| panic!("nothing is there")));
        theirs.write_all(&[7; 10_000]).unwrap();
        assert!(ours.read(|bytes| taken.extend_from_slice(bytes)));
        theirs.write_all(b"end").unwrap();
        drop(theirs);
        assert!(!ours.read(|bytes| taken.extend_from_slice(bytes)));
        assert_eq!((taken.len(), &taken[10_000..]), (10_003, &b"end"[..]));
    }
}
