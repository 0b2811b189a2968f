//! Entries into a tree: what an entry replaces, and in which order it gets its owner, mode, attributes and time.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::fs::File;
use std::io::{Read, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{
    FchmodatFlags, FileStat, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, futimens, makedev, mkdirat, mknodat,
    utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fchownat, linkat, symlinkat, unlinkat};

use super::entry::{Entry, Kind, Meta, Time};
use super::place::{Inside, Place, Spot};
use super::reader::Reader;
use super::{CopyError, failed, refused, text};
use crate::sys::xattr::{self, Subject};
use crate::within::look;

/// Directories whose times are still to be set take at most this much memory, and those above the current entry.
const PENDING: usize = 4 * 1024 * 1024;

pub(super) fn unpack(
    root: OwnedFd,
    dir: &str,
    owners: bool,
    replace: bool,
    input: &mut dyn Read,
) -> Result<(), CopyError> {
    let place = Place::open(root, dir)?;
    let mut unpacker = Unpacker { place, owners, replace, pending: BTreeMap::new(), pending_bytes: 0 };
    let mut reader = Reader::new(input);
    while let Some(mut entry) = reader.next()? {
        if !unpacker.owners {
            (entry.meta.uid, entry.meta.gid) = (0, 0);
        }
        unpacker.put(&entry, &mut reader)?;
    }
    unpacker.set_times(None)
}

struct Unpacker {
    place: Place,
    owners: bool,
    replace: bool,
    /// What is put in a directory changes its time, so it is set when nothing more will come.
    pending: BTreeMap<Vec<u8>, Time>,
    pending_bytes: usize,
}

/// About what the time of one directory takes.
fn bytes_of(path: &[u8]) -> usize {
    path.len() + 128
}

impl Unpacker {
    fn put(&mut self, entry: &Entry, reader: &mut Reader<'_>) -> Result<(), CopyError> {
        let name = &entry.name;
        let inside = Inside::parse(name)?;
        // as docker does: the directory itself keeps what it has
        if inside.is_empty() && entry.kind == Kind::Directory {
            return Ok(());
        }
        let spot = self.place.spot(name, &inside)?;
        let existing = look(spot.parent.as_fd(), &spot.name).map_err(|errno| failed("look at", name, errno))?;
        if let Kind::HardLink { target } = &entry.kind {
            return self.link(name, target, &spot, existing.as_ref());
        }
        let merges = entry.kind == Kind::Directory && existing.is_some_and(|existing| is_dir(&existing));
        if let Some(existing) = existing.filter(|_| !merges) {
            self.clear(entry, &spot, &existing)?;
        }
        let (parent, last) = (spot.parent.as_fd(), spot.name.as_c_str());
        match &entry.kind {
            Kind::File { .. } => write_file(&spot, entry, reader)?,
            Kind::Directory => {
                let make = || {
                    if !merges {
                        mkdirat(parent, last, Mode::S_IRWXU)?;
                    }
                    openat(parent, last, OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())
                };
                let dir = make().map_err(|errno| failed("make the directory", name, errno))?;
                describe(&dir, entry)?;
                self.remember(inside.path(), entry.meta.mtime)?;
            }
            Kind::Symlink { target } => {
                symlinkat(target.as_slice(), parent, last)
                    .map_err(|errno| failed("make the symbolic link", name, errno))?;
                self.place.has_link_to(target);
                describe_named(&spot, entry)?;
            }
            Kind::Fifo | Kind::CharDevice { .. } | Kind::BlockDevice { .. } => {
                let (kind, device) = match entry.kind {
                    Kind::CharDevice { major, minor } => (SFlag::S_IFCHR, makedev(major, minor)),
                    Kind::BlockDevice { major, minor } => (SFlag::S_IFBLK, makedev(major, minor)),
                    _ => (SFlag::S_IFIFO, 0),
                };
                mknodat(parent, last, kind, Mode::S_IRUSR, device)
                    .map_err(|errno| failed("make the device", name, errno))?;
                describe_named(&spot, entry)?;
            }
            Kind::HardLink { .. } => {} // above
        }
        Ok(())
    }

    /// Removes what an entry replaces. The texts are docker's.
    fn clear(&self, entry: &Entry, spot: &Spot, existing: &FileStat) -> Result<(), CopyError> {
        let name = &entry.name;
        let becomes_dir = entry.kind == Kind::Directory;
        match is_dir(existing) {
            true if !self.replace => {
                return Err(refused(
                    name,
                    format!("cannot overwrite directory {:?} with non-directory {:?}", text(name), text(name)),
                ));
            }
            false if becomes_dir && !self.replace => {
                return Err(refused(
                    name,
                    format!("cannot overwrite non-directory {:?} with directory {:?}", text(name), text(name)),
                ));
            }
            true => remove_tree(spot.parent.as_fd(), &spot.name),
            false => unlinkat(&spot.parent, spot.name.as_c_str(), UnlinkatFlags::NoRemoveDir),
        }
        .map_err(|errno| failed("replace", name, errno))
    }

    fn link(&mut self, name: &[u8], target: &[u8], spot: &Spot, existing: Option<&FileStat>) -> Result<(), CopyError> {
        let source = self.place.target(name, &Inside::parse(target)?)?;
        let of_target = look(source.parent.as_fd(), &source.name)
            .map_err(|errno| failed("look at the target of the hard link", name, errno))?;
        let Some(of_target) = of_target else {
            return Err(refused(name, format!("it is a hard link to {:?}, which is not there", text(target))));
        };
        if let Some(existing) = existing {
            // they are one file already, which must not be removed for its own sake
            if (existing.st_dev, existing.st_ino) == (of_target.st_dev, of_target.st_ino) {
                return Ok(());
            }
            let kind = Kind::HardLink { target: target.into() };
            self.clear(&Entry { name: name.into(), kind, meta: Meta::default() }, spot, existing)?;
        }
        linkat(&source.parent, source.name.as_c_str(), &spot.parent, spot.name.as_c_str(), AtFlags::empty())
            .map_err(|errno| failed("make the hard link", name, errno))?;
        if kind_of(&of_target) == SFlag::S_IFLNK {
            self.place.has_moved_link();
        }
        Ok(())
    }

    fn remember(&mut self, path: Vec<u8>, mtime: Time) -> Result<(), CopyError> {
        if self.pending.insert(path.clone(), mtime).is_none() {
            self.pending_bytes += bytes_of(&path);
        }
        match self.pending_bytes > PENDING {
            true => self.set_times(Some(&path)),
            false => Ok(()),
        }
    }

    /// Sets the times of directories; `current` and those above it will have more put in them.
    fn set_times(&mut self, current: Option<&[u8]>) -> Result<(), CopyError> {
        let is_above = |path: &[u8]| {
            let rest = current.and_then(|current| current.strip_prefix(path));
            rest.is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
        };
        let (kept, done): (BTreeMap<_, _>, BTreeMap<_, _>) =
            std::mem::take(&mut self.pending).into_iter().partition(|(path, _)| is_above(path));
        self.pending_bytes = kept.keys().map(|path| bytes_of(path)).sum();
        self.pending = kept;
        for (path, mtime) in done {
            let at_entry = |errno| failed("set the time of", &path, errno);
            let Some(Spot { parent, name: last }) = self.place.made(&Inside::parse(&path)?) else { continue };
            // what has taken its place since, or nothing, has a time of its own
            if look(parent.as_fd(), &last).map_err(at_entry)?.is_some_and(|there| is_dir(&there)) {
                let flag = UtimensatFlags::NoFollowSymlink;
                utimensat(&parent, last.as_c_str(), &TimeSpec::UTIME_OMIT, &time_spec(mtime), flag)
                    .map_err(at_entry)?;
            }
        }
        Ok(())
    }
}

fn write_file(spot: &Spot, entry: &Entry, reader: &mut Reader<'_>) -> Result<(), CopyError> {
    let at_entry = |errno| failed("write", &entry.name, errno);
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let file = openat(&spot.parent, spot.name.as_c_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR).map_err(at_entry)?;
    let mut file = File::from(file);
    loop {
        let bytes = reader.data()?;
        if bytes.is_empty() {
            break;
        }
        let count = bytes.len();
        file.write_all(bytes).map_err(|source| CopyError::File { doing: "write", name: text(&entry.name), source })?;
        reader.consume(count);
    }
    let file = OwnedFd::from(file);
    describe(&file, entry)?;
    futimens(&file, &TimeSpec::UTIME_OMIT, &time_spec(entry.meta.mtime)).map_err(at_entry)
}

/// Of an open file or directory. A change of owner takes set-id bits and capabilities away, so it comes first; the time is the caller's.
fn describe(file: &OwnedFd, entry: &Entry) -> Result<(), CopyError> {
    let meta = &entry.meta;
    fchown(file, Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)))
        .map_err(|errno| failed("set the owner of", &entry.name, errno))?;
    fchmod(file, mode(meta)).map_err(|errno| failed("set the mode of", &entry.name, errno))?;
    set_xattrs(Subject::Open(file.as_fd()), entry)
}

/// Of what is not to be opened: links, devices, pipes.
fn describe_named(Spot { parent, name: last }: &Spot, entry: &Entry) -> Result<(), CopyError> {
    let (name, meta) = (&entry.name, &entry.meta);
    let (uid, gid) = (Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)));
    fchownat(parent, last.as_c_str(), uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW)
        .map_err(|errno| failed("set the owner of", name, errno))?;
    if !matches!(entry.kind, Kind::Symlink { .. }) {
        fchmodat(parent, last.as_c_str(), mode(meta), FchmodatFlags::FollowSymlink)
            .map_err(|errno| failed("set the mode of", name, errno))?;
    }
    set_xattrs(Subject::Named(parent.as_fd(), last), entry)?;
    let flag = UtimensatFlags::NoFollowSymlink;
    utimensat(parent, last.as_c_str(), &TimeSpec::UTIME_OMIT, &time_spec(meta.mtime), flag)
        .map_err(|errno| failed("set the time of", name, errno))
}

fn set_xattrs(subject: Subject<'_>, entry: &Entry) -> Result<(), CopyError> {
    entry.meta.xattrs.iter().try_for_each(|(key, value)| match xattr::set(subject, key, value) {
        // as docker does: this file system has no place for it
        Ok(()) | Err(Errno::EOPNOTSUPP) => Ok(()),
        Err(errno) => Err(failed("set the attributes of", &entry.name, errno)),
    })
}

pub(crate) fn remove_tree(parent: BorrowedFd<'_>, name: &CStr) -> nix::Result<()> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut dir = Dir::openat(parent, name, flags, Mode::empty())?;
    // removing while reading may pass names over: read until none is left
    let mut names = Vec::new();
    loop {
        for child in dir.iter().take(BATCH + 2) {
            let child = child?;
            if !matches!(child.file_name().to_bytes(), b"." | b"..") {
                names.push((child.file_name().to_owned(), child.file_type()));
            }
        }
        if names.is_empty() {
            break;
        }
        for (child, kind) in names.drain(..) {
            let is_dir = match kind {
                Some(kind) => kind == Type::Directory,
                None => look(dir.as_fd(), &child)?.is_some_and(|there| is_dir(&there)),
            };
            match is_dir {
                true => remove_tree(dir.as_fd(), &child)?,
                false => unlinkat(&dir, child.as_c_str(), UnlinkatFlags::NoRemoveDir)?,
            }
        }
    }
    unlinkat(parent, name, UnlinkatFlags::RemoveDir)
}

/// Names that are held at once while a directory is emptied.
const BATCH: usize = 256;

fn mode(meta: &Meta) -> Mode {
    Mode::from_bits_truncate(meta.mode)
}

fn time_spec(time: Time) -> TimeSpec {
    TimeSpec::new(time.seconds, time.nanos.into())
}

fn kind_of(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())
}

fn is_dir(stat: &FileStat) -> bool {
    kind_of(stat) == SFlag::S_IFDIR
}
