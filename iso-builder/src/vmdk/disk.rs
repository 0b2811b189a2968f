//! Opens a virtual disk: its descriptor, its extents, and its parents. What they are stored as is `sparse`'s and `descriptor`'s.
//!
//! A disk is untrusted, and it names files. Were they read wherever they are, `RW 8 FLAT "/etc/shadow"` would make a disk of the host's secrets. So a disk's
//! extents and its parent lie in its own directory or below, after symbolic links, or it is refused.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

use super::Error;
use super::descriptor::{Descriptor, Stored, TEXT_LIMIT};
use super::format::SECTOR;
use super::sparse::{Caches, Part, Sparse};
use crate::input;
use crate::tree::ReadAt;

/// Parents of a disk at most; VMware's limit is 32.
pub(super) const CHAIN_LIMIT: usize = 32;

/// The disk in a VMDK of any kind that is written here, by QEMU, or by VMware's hosted products, with its parents.
///
/// Reading it gives an error of the kind `InvalidData` where a file turns out to be malformed.
pub fn open(path: &Path) -> Result<Arc<dyn ReadAt>, Error> {
    Ok(Arc::new(Disk::open(path)?))
}

/// Whether [`open`] is what reads this file: it starts as a sparse extent or as a descriptor does.
pub fn is_vmdk(file: &File) -> io::Result<bool> {
    let start = start(file)?;
    Ok(start.starts_with(b"KDMV") || Descriptor::starts(&start))
}

/// A disk that is open.
#[derive(Debug)]
pub(super) struct Disk {
    /// What of it is not in its extents.
    parent: Option<Box<Disk>>,
    /// In their order, without gaps.
    extents: Vec<Extent>,
    size: u64,
    cid: u32,
    caches: Arc<Caches>,
}

#[derive(Debug)]
struct Extent {
    start: u64,
    end: u64,
    stored: Open,
}

#[derive(Debug)]
enum Open {
    /// From this byte of the file on.
    Flat(File, u64),
    Sparse(Sparse),
    Zero,
}

impl Disk {
    pub(super) fn open(path: &Path) -> Result<Disk, Error> {
        Chain { caches: Arc::default(), opened: 0, disks: Vec::new() }.open(path)
    }

    pub(super) fn cid(&self) -> u32 {
        self.cid
    }

    pub(super) fn bytes(&self) -> u64 {
        self.size
    }

    /// Fills `buf`; what is beyond the disk's end is zero.
    fn read(&self, mut buf: &mut [u8], mut from: u64) -> Result<(), Error> {
        while !buf.is_empty() {
            let place = self.extents.partition_point(|extent| extent.end <= from);
            let Some(extent) = self.extents.get(place) else {
                buf.fill(0);
                return Ok(());
            };
            let mut end = extent.end;
            if let Open::Sparse(sparse) = &extent.stored {
                let within = from - extent.start;
                end = end.min(extent.start + (within / sparse.grain() + 1) * sparse.grain());
            }
            let length = usize::try_from(end - from).map_or(buf.len(), |length| length.min(buf.len()));
            let (part, rest) = buf.split_at_mut(length);
            let within = from - extent.start;
            match &extent.stored {
                Open::Flat(file, first) => super::sparse::read(file, part, first + within)?,
                Open::Zero => part.fill(0),
                Open::Sparse(sparse) => match sparse.part(within, &self.caches)? {
                    Part::Stored(at) => sparse.read(part, at)?,
                    Part::Unpacked(grain, at) => part.copy_from_slice(&grain[at..][..length]),
                    Part::Zero => part.fill(0),
                    Part::Absent => match &self.parent {
                        Some(parent) => parent.read(part, from)?,
                        None => part.fill(0),
                    },
                },
            }
            buf = rest;
            from += length as u64;
        }
        Ok(())
    }

    /// The first byte from `from` on that is stored somewhere, or `None`: the rest is zero.
    pub(super) fn next_data(&self, from: u64) -> Result<Option<u64>, Error> {
        let place = self.extents.partition_point(|extent| extent.end <= from);
        let mut own = None;
        for extent in &self.extents[place..] {
            let within = from.saturating_sub(extent.start);
            let next = match &extent.stored {
                Open::Zero => None,
                Open::Sparse(sparse) => sparse.next_stored(within, &self.caches)?,
                Open::Flat(file, first) => {
                    next_in_file(file, first + within).map_err(Error::Open)?.map(|at| at - first)
                }
            };
            own = next.map(|at| extent.start + at).filter(|&at| at < extent.end);
            if own.is_some() {
                break;
            }
        }
        let Some(parent) = &self.parent else { return Ok(own) };
        let parents = parent.next_data(from)?.filter(|&at| at < self.size);
        Ok(own.into_iter().chain(parents).min())
    }
}

/// The first byte from `from` on that the file system has data for.
pub(super) fn next_in_file(file: &File, from: u64) -> io::Result<Option<u64>> {
    let Ok(offset) = i64::try_from(from) else { return Ok(None) };
    match lseek(file, offset, Whence::SeekData) {
        Ok(at) => Ok(u64::try_from(at).ok()),
        Err(Errno::ENXIO) => Ok(None),
        // A file system that does not know its holes has data everywhere.
        Err(Errno::EINVAL | Errno::EOPNOTSUPP) => Ok(Some(from)),
        Err(error) => Err(error.into()),
    }
}

impl ReadAt for Disk {
    fn read_exact_at(&self, buf: &mut [u8], from: u64) -> io::Result<()> {
        if from.checked_add(buf.len() as u64).is_none_or(|end| end > self.size) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.read(buf, from).map_err(Error::into_io)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.size)
    }
}

/// A disk and its parents while they are opened.
struct Chain {
    caches: Arc<Caches>,
    /// Extents of all of them.
    opened: usize,
    /// Device and inode of each.
    disks: Vec<(u64, u64)>,
}

impl Chain {
    fn open(&mut self, path: &Path) -> Result<Disk, Error> {
        self.open_disk(path).map_err(|error| match error {
            error @ Error::In { .. } => error,
            error => Error::In { path: path.to_owned(), source: Box::new(error) },
        })
    }

    fn open_disk(&mut self, path: &Path) -> Result<Disk, Error> {
        let path = path.canonicalize().map_err(Error::Open)?;
        let dir = path.parent().unwrap_or(Path::new("/"));
        let file = regular(&path)?;
        let metadata = file.metadata().map_err(Error::Open)?;
        if self.disks.contains(&(metadata.dev(), metadata.ino())) {
            return Err(Error::Loop);
        }
        if self.disks.len() > CHAIN_LIMIT {
            return Err(Error::Chain);
        }
        self.disks.push((metadata.dev(), metadata.ino()));
        let start = start(&file).map_err(Error::Open)?;
        let (descriptor, extents) = if Descriptor::starts(&start) {
            let mut text = Vec::new();
            file.take(TEXT_LIMIT as u64 + 1).read_to_end(&mut text).map_err(Error::Open)?;
            if text.len() > TEXT_LIMIT {
                return Err(Error::Malformed { why: "its descriptor is larger than 1 MiB", at: TEXT_LIMIT as u64 });
            }
            let descriptor = Descriptor::parse(&text)?;
            let extents = self.extents(&descriptor, dir)?;
            (descriptor, extents)
        } else if start.starts_with(b"KDMV") {
            let sparse = self.sparse(file)?;
            let text = sparse.descriptor()?;
            if text.is_empty() {
                let why = "it is one extent of a disk, and has no descriptor: open the file that names it";
                return Err(Error::Malformed { why, at: 28 });
            }
            let descriptor = Descriptor::parse(&text)?;
            // its only extent is itself, whatever it was called when it was written
            let end = sparse.capacity().checked_mul(SECTOR).filter(|&end| i64::try_from(end).is_ok()).ok_or(HUGE)?;
            (descriptor, vec![Extent { start: 0, end, stored: Open::Sparse(sparse) }])
        } else {
            return Err(Error::Malformed { why: "it starts as neither a sparse extent nor a descriptor does", at: 0 });
        };
        let parent = match (descriptor.parent_cid, &descriptor.parent) {
            (None, _) => None,
            (Some(_), None) => return Err(Error::Malformed { why: "it has a parent, and does not say which", at: 0 }),
            (Some(expected), Some(hint)) => {
                let parent = inside(dir, hint)?;
                let disk = self.open(&parent)?;
                if disk.cid != expected {
                    return Err(Error::Parent { parent, expected, found: disk.cid });
                }
                Some(Box::new(disk))
            }
        };
        let size = extents.last().map_or(0, |extent| extent.end);
        Ok(Disk { parent, extents, size, cid: descriptor.cid, caches: Arc::clone(&self.caches) })
    }

    fn extents(&mut self, descriptor: &Descriptor, dir: &Path) -> Result<Vec<Extent>, Error> {
        let (mut extents, mut start) = (Vec::new(), 0u64);
        for extent in &descriptor.extents {
            let length = extent.sectors.checked_mul(SECTOR);
            let end = length.and_then(|length| start.checked_add(length)).filter(|&end| i64::try_from(end).is_ok());
            let end = end.ok_or(HUGE)?;
            let stored = match &extent.stored {
                Stored::Zero => Open::Zero,
                Stored::Flat { file, from } => {
                    let path = inside(dir, file)?;
                    let within = |error| Error::In { path: path.clone(), source: Box::new(error) };
                    let file = regular(&path).map_err(within)?;
                    let size = file.metadata().map_err(|error| within(Error::Open(error)))?.len();
                    let first = from.checked_mul(SECTOR).ok_or(HUGE)?;
                    if first.checked_add(end - start).is_none_or(|end| end > size) {
                        return Err(within(Error::Malformed {
                            why: "it ends before the extent that it holds",
                            at: size,
                        }));
                    }
                    self.count()?;
                    Open::Flat(file, first)
                }
                Stored::Sparse { file } => {
                    let path = inside(dir, file)?;
                    let within = |error| Error::In { path: path.clone(), source: Box::new(error) };
                    let sparse = regular(&path).and_then(|file| self.sparse(file)).map_err(within)?;
                    if sparse.capacity() < extent.sectors {
                        let why = "it is smaller than the extent that it holds";
                        return Err(within(Error::Malformed { why, at: 12 }));
                    }
                    Open::Sparse(sparse)
                }
            };
            extents.push(Extent { start, end, stored });
            start = end;
        }
        extents.retain(|extent| extent.start < extent.end);
        Ok(extents)
    }

    fn sparse(&mut self, file: File) -> Result<Sparse, Error> {
        self.count()?;
        Sparse::open(file, self.opened)
    }

    /// Each extent is an open file, and a process has a thousand.
    fn count(&mut self) -> Result<(), Error> {
        self.opened += 1;
        let limit = Error::Malformed { why: "it and its parents have more than 512 extents", at: 0 };
        if self.opened > 512 { Err(limit) } else { Ok(()) }
    }
}

const HUGE: Error = Error::Malformed { why: "its capacity is larger than any file can be", at: 0 };

/// What the descriptor of a disk in `dir` means by `name`.
fn inside(dir: &Path, name: &Path) -> Result<PathBuf, Error> {
    let named = |error| Error::In { path: dir.join(name), source: Box::new(Error::Open(error)) };
    let outside = || Error::Outside { file: name.to_owned() };
    let path = match dir.join(name).canonicalize() {
        Ok(path) => path,
        // whether a file elsewhere exists is nothing to tell either
        Err(error) if plain(name) => return Err(named(error)),
        Err(_) => return Err(outside()),
    };
    if path.starts_with(dir) { Ok(path) } else { Err(outside()) }
}

fn plain(name: &Path) -> bool {
    name.components().all(|part| matches!(part, std::path::Component::Normal(_) | std::path::Component::CurDir))
}

/// A file that may be a disk, or a part of one.
fn regular(path: &Path) -> Result<File, Error> {
    input::open(path).map_err(Error::Open)
}

/// As much as tells the kind of a file, or less.
pub(super) fn start(file: &File) -> io::Result<Vec<u8>> {
    let mut start = vec![0; 32];
    let mut filled = 0;
    loop {
        match file.read_at(&mut start[filled..], filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    start.truncate(filled);
    Ok(start)
}
