//! Where an image's documents and blobs lie: in a directory, or in a tar, compressed or not.
//!
//! A tar is indexed once; its members are then read in place. A compressed one is unpacked into the spool directory
//! first. What the members mean is decided in `layout`.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Error;
use super::compression::{Compression, Decoder};
use super::layer::read_start;
use super::limits::Limits;
use super::path::{components, shown};
use super::section::Section;
use super::spool::Spool;
use super::tar::{self, EntryKind, Reader};
use crate::input;

/// A directory or an archive, and its path for messages.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) path: PathBuf,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Dir,
    Archive { file: Section, members: HashMap<Vec<u8>, Member>, ended_well: bool },
}

#[derive(Debug)]
enum Member {
    File { start: u64, len: u64 },
    Link(Vec<u8>),
}

impl Store {
    pub(super) fn open(path: &Path, spool: &Path) -> Result<Store, Error> {
        let unreadable = |source| Error::Read { path: path.to_owned(), source };
        match fs::metadata(path).map_err(unreadable)?.is_dir() {
            true => Ok(Store { path: path.to_owned(), place: Place::Dir }),
            false => Store::of(input::open(path).map_err(unreadable)?, path, spool),
        }
    }

    /// The archive in a file; `path` is what messages call it.
    pub(super) fn of(file: File, path: &Path, spool: &Path) -> Result<Store, Error> {
        let unreadable = |source| Error::Read { path: path.to_owned(), source };
        let mut file = Section::whole(file).map_err(unreadable)?;
        let mut start = [0; 8];
        let sniffed = read_start(&mut file.reader(), &mut start).map_err(unreadable)?;
        let compression = Compression::sniff(&start[..sniffed]);
        if compression != Compression::None {
            file = unpack(path, &file, compression, spool)?;
        }
        let (members, ended_well) = index(&file).map_err(|source| Error::Archive { path: path.to_owned(), source })?;
        Ok(Store { path: path.to_owned(), place: Place::Archive { file, members, ended_well } })
    }

    /// The file called `name`, a relative path without `..`; `None` when there is none.
    pub(super) fn find(&self, name: &str) -> Result<Option<Section>, Error> {
        let Some(clean) = cleaned(name.as_bytes()) else { return Ok(None) };
        match &self.place {
            Place::Dir => {
                let path = self.path.join(std::str::from_utf8(&clean).unwrap_or_default());
                let unreadable = |source| Error::Read { path: path.clone(), source };
                match fs::metadata(&path) {
                    Ok(meta) if meta.is_file() => {}
                    Ok(_) => return Ok(None),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                    Err(error) => return Err(unreadable(error)),
                }
                let file = File::open(&path).map_err(unreadable)?;
                Section::whole(file).map(Some).map_err(unreadable)
            }
            Place::Archive { file, members, .. } => {
                let mut name = &clean;
                for _ in 0..MAX_LINKS {
                    match members.get(name) {
                        None => return Ok(None),
                        Some(&Member::File { start, len }) => {
                            return Ok(Some(Section { file: file.file.clone(), start, len }));
                        }
                        Some(Member::Link(target)) => name = target,
                    }
                }
                Ok(None)
            }
        }
    }

    /// As `find`, but a file that is not there is an error.
    pub(super) fn get(&self, name: &str) -> Result<Section, Error> {
        self.find(name)?.ok_or_else(|| self.lacks(&format!("{:?} is missing", shown(name.as_bytes()))))
    }

    /// The error for something that is not there, with the likely reason if there is one.
    pub(super) fn lacks(&self, what: &str) -> Error {
        let reason = match self.place {
            Place::Archive { ended_well: false, .. } => "; the archive is truncated",
            _ => "",
        };
        self.malformed(format!("{what}{reason}"))
    }

    /// A JSON document in memory.
    pub(super) fn document(&self, name: &str) -> Result<Vec<u8>, Error> {
        let read = self.get(name)?.read_up_to(DOCUMENT_LIMIT);
        let read = read.map_err(|source| Error::Read { path: self.path.join(name), source })?;
        read.ok_or_else(|| self.malformed(format!("{name:?} is larger than 4 MiB")))
    }

    pub(super) fn parse<'a, T: serde::Deserialize<'a>>(&self, name: &str, bytes: &'a [u8]) -> Result<T, Error> {
        serde_json::from_slice(bytes)
            .map_err(|error| self.malformed(format!("{:?} is not as it should be: {error}", shown(name.as_bytes()))))
    }

    pub(super) fn malformed(&self, what: String) -> Error {
        Error::Malformed { path: self.path.clone(), what }
    }
}

/// The tar in a file that may be compressed: the file itself, or an unlinked one in `spool`. `shown` is what messages call it.
pub fn unpacked(file: File, shown: &Path, spool: &Path) -> Result<Arc<File>, Error> {
    let unreadable = |source| Error::Read { path: shown.to_owned(), source };
    let packed = Section::whole(file).map_err(unreadable)?;
    let mut start = [0; 8];
    let sniffed = read_start(&mut packed.reader(), &mut start).map_err(unreadable)?;
    match Compression::sniff(&start[..sniffed]) {
        Compression::None => Ok(packed.file),
        compression => Ok(unpack(shown, &packed, compression, spool)?.file),
    }
}

/// Unpacks a compressed archive into an unlinked file.
fn unpack(path: &Path, packed: &Section, compression: Compression, dir: &Path) -> Result<Section, Error> {
    let unreadable = |source: io::Error| match source.kind() {
        io::ErrorKind::UnexpectedEof => Error::Archive { path: path.to_owned(), source: tar::Error::Truncated },
        _ => Error::Read { path: path.to_owned(), source },
    };
    let mut decoder = Decoder::new(compression, packed.reader()).map_err(unreadable)?;
    let mut spool = Spool::create(dir)?;
    // a few kilobytes may unpack to terabytes: others need the disk too
    let limit = spool.room().min(Limits::default().unpacked);
    let mut chunk = vec![0; 256 << 10];
    loop {
        match decoder.read(&mut chunk) {
            Ok(0) => break,
            Ok(len) if spool.end() + len as u64 > limit => {
                return Err(Error::Room { path: path.to_owned(), dir: dir.to_owned(), limit });
            }
            Ok(len) => spool.append(&chunk[..len])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(unreadable(error)),
        }
    }
    spool.flush()?;
    Ok(Section { file: spool.file().clone(), start: 0, len: spool.end() })
}

/// Where each member lies; the last one of a name counts. Also, whether the archive has its end.
fn index(file: &Section) -> Result<(HashMap<Vec<u8>, Member>, bool), tar::Error> {
    let mut members = HashMap::new();
    let mut reader = Reader::new(file.reader());
    while let Some(entry) = reader.next()? {
        let Some(name) = cleaned(&entry.path) else { continue };
        let member = match entry.kind {
            EntryKind::File { size, segments } if segments.iter().map(|part| part.len).sum::<u64>() == size => {
                Member::File { start: reader.offset(), len: size }
            }
            EntryKind::HardLink(target) => match cleaned(&target) {
                Some(target) => Member::Link(target),
                None => continue,
            },
            EntryKind::Symlink(target) => {
                let dir = name.iter().rposition(|&byte| byte == b'/').map_or(&b""[..], |slash| &name[..slash]);
                match cleaned(&[dir, b"/", &target].concat()) {
                    Some(target) if !target.starts_with(b"/") => Member::Link(target),
                    _ => continue,
                }
            }
            _ => continue,
        };
        members.insert(name, member);
    }
    Ok((members, reader.ended_well()))
}

/// A name without `.`, `..` and doubled slashes; `None` when it climbs out.
fn cleaned(name: &[u8]) -> Option<Vec<u8>> {
    Some(components(name).ok()?.join(&b'/'))
}

/// Bytes of one JSON document: what registries accept of a manifest.
const DOCUMENT_LIMIT: u64 = 4 << 20;

/// Links on the way to one member; more are a loop.
const MAX_LINKS: u32 = 8;
