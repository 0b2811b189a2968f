//! One file of a journal: its name, its making, and what of it is intact after a crash.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use wire::log::{self, Stream};

use crate::hub::Offsets;

/// A segment. It stays readable for whoever holds it open when its file is deleted.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) boot: [u8; 16],
    /// Where its first entry is in the boot's streams.
    at: Offsets,
    pub(super) path: PathBuf,
    /// Whole entries end here.
    pub(super) len: AtomicU64,
}

/// Which file it was.
type Failed = (PathBuf, io::Error);

impl Segment {
    /// A new file, which is there also after a crash.
    pub(super) fn create(dir: &Path, number: u64, boot: [u8; 16], at: Offsets) -> Result<(Segment, File), Failed> {
        let path = dir.join(name(number, boot, at));
        let make = || {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&path)?;
            File::open(dir)?.sync_all()?;
            Ok(file)
        };
        match make() {
            Ok(file) => Ok((Segment { number, boot, at, path, len: AtomicU64::new(0) }, file)),
            Err(error) => Err((path, error)),
        }
    }

    /// Opens the last segment to go on with it: finds where it is intact, cuts the rest off, and tells how far the streams are.
    pub(super) fn recover(self) -> Result<(Segment, File, Offsets), Failed> {
        let open = || {
            let mut file = OpenOptions::new().read(true).write(true).open(&self.path)?;
            let (len, at) = intact(&mut file, self.at)?;
            file.set_len(len)?;
            // what is told from here on is told to the guest too
            file.sync_all()?;
            Ok((file, len, at))
        };
        match open() {
            Ok((file, len, at)) => {
                self.len.store(len, Ordering::Release);
                Ok((self, file, at))
            }
            Err(error) => Err((self.path, error)),
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.len.load(Ordering::Acquire)
    }

    pub(super) fn grow(&self, by: u64) {
        self.len.fetch_add(by, Ordering::AcqRel);
    }

    /// What it counts against the limit: a file with little in it takes a block too.
    pub(super) fn charge(&self) -> u64 {
        self.len().max(1).next_multiple_of(BLOCK)
    }
}

/// The segments in a directory, the oldest first. Other files are none of ours.
pub(super) fn list(dir: &Path) -> io::Result<VecDeque<Segment>> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if let Some((number, boot, at)) = entry.file_name().to_str().and_then(parse) {
            let len = AtomicU64::new(entry.metadata()?.len());
            segments.push(Segment { number, boot, at, path: entry.path(), len });
        }
    }
    segments.sort_by_key(|segment| segment.number);
    Ok(segments.into())
}

fn name(number: u64, boot: [u8; 16], at: Offsets) -> String {
    format!("{number:08}.{:032x}.{}.{}.log", u128::from_be_bytes(boot), at.stdout, at.stderr)
}

fn parse(name: &str) -> Option<(u64, [u8; 16], Offsets)> {
    let mut parts = name.split('.');
    let number = parts.next()?.parse().ok()?;
    let boot = parts.next().filter(|hex| hex.len() == 32)?;
    let boot = u128::from_str_radix(boot, 16).ok()?.to_be_bytes();
    let at = Offsets { stdin: 0, stdout: parts.next()?.parse().ok()?, stderr: parts.next()?.parse().ok()? };
    (parts.next() == Some("log") && parts.next().is_none()).then_some((number, boot, at))
}

/// Where the whole entries at the beginning of a file end, and where the streams are then. What is behind an entry that is not intact was never synced.
fn intact(file: &mut File, mut at: Offsets) -> io::Result<(u64, Offsets)> {
    let mut entries = log::Reader::default();
    let (mut read, mut end) = (0, 0);
    let mut buffer = vec![0; CHUNK];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok((end, at));
        }
        for run in buffer[..count].split_inclusive(|&byte| byte == wire::frame::DELIMITER) {
            read += run.len() as u64;
            entries.feed(run, |entry| {
                end = read;
                match entry.stream {
                    Stream::Stdout => at.stdout += entry.bytes.len() as u64,
                    Stream::Stderr => at.stderr += entry.bytes.len() as u64,
                }
            });
            if entries.noise().runs + entries.unknown() > 0 {
                return Ok((end, at));
            }
        }
    }
}

const CHUNK: usize = 256 * 1024;
/// The least that a file takes on most file systems.
const BLOCK: u64 = 4096;
