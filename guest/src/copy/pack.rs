//! A tree into entries: what is read, in which order, and what is left out.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{BufWriter, ErrorKind, Read as _, Write};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, major, minor};
use nix::sys::statfs::{self, FsType, fstatfs};

use super::entry::{Entry, Kind, Meta, Time};
use super::header::{self, BLOCK, padding};
use super::{BUFFER, CopyError, failed, refused};
use crate::sys::xattr::{self, Subject};
use crate::within::{DIR, look, open_dir};

/// The names of files with several names that are remembered take at most this much memory; beyond it, a file is copied once for each name.
const LINKS: usize = 8 * 1024 * 1024;
/// The longest path that Linux takes, and so the deepest tree that is copied.
pub(super) const LONGEST_NAME: usize = 4096;
/// Linux, ipc/mqueue.c.
const MQUEUE: FsType = FsType(0x1980_0202);
/// What docker leaves out: the kernel's own file systems, and memory.
const LEFT_OUT: [FsType; 6] = [
    statfs::PROC_SUPER_MAGIC,
    statfs::SYSFS_MAGIC,
    statfs::CGROUP2_SUPER_MAGIC,
    statfs::DEVPTS_SUPER_MAGIC,
    statfs::TMPFS_MAGIC,
    MQUEUE,
];

/// Whether it is a file system of the kernel's own.
pub(crate) fn is_kernels(system: FsType) -> bool {
    system != statfs::TMPFS_MAGIC && LEFT_OUT.contains(&system)
}

pub(super) fn pack(root: OwnedFd, path: &str, out: &mut dyn Write) -> Result<(), CopyError> {
    let out = BufWriter::with_capacity(BUFFER, out);
    let mut packer = Packer { out, links: BTreeMap::new(), links_bytes: 0, shrunk: None };
    let source = Source::parse(path);
    match source {
        Source::Contents { from, name } => {
            let at_path = |errno| failed("open the directory", path.as_bytes(), errno);
            let above = open_dir(root.as_fd(), &from).map_err(at_path)?;
            let dir = Dir::openat(&above, c".", DIR, Mode::empty()).map_err(at_path)?;
            packer.directory(dir, None, &mut name.into_bytes())?;
        }
        Source::Named { parent, name } => {
            let at_path = |errno| failed("copy", path.as_bytes(), errno);
            let parent = open_dir(root.as_fd(), &parent).map_err(at_path)?;
            let last = CString::new(name.as_str()).map_err(|_| refused(path.as_bytes(), "its name holds a NUL"))?;
            if !packer.child(parent.as_fd(), &last, None, &mut name.into_bytes())? {
                // nothing, or a socket
                let there = look(parent.as_fd(), &last).map_err(at_path)?;
                return Err(at_path(if there.is_some() { Errno::EOPNOTSUPP } else { Errno::ENOENT }));
            }
        }
    }
    packer.out.write_all(&[0; 2 * BLOCK]).and_then(|()| packer.out.flush()).map_err(CopyError::Write)?;
    match packer.shrunk {
        Some(name) => Err(CopyError::Shrunk { name: super::text(&name) }),
        None => Ok(()),
    }
}

/// What a path asks for. As docker does, `..` goes back in the text, before any link is followed.
#[derive(Debug, PartialEq, Eq)]
enum Source {
    /// A directory, also through a link, under that name.
    Contents { from: Vec<u8>, name: String },
    /// What has that name in a directory.
    Named { parent: Vec<u8>, name: String },
}

impl Source {
    fn parse(path: &str) -> Source {
        let mut components = Vec::new();
        for component in path.split('/') {
            match component {
                "" | "." => {}
                ".." => drop(components.pop()),
                component => components.push(component),
            }
        }
        let from_root = |components: &[&str]| format!("./{}", components.join("/")).into_bytes();
        let dotted = path == "." || path.ends_with("/.");
        match components.split_last() {
            None => Source::Contents { from: from_root(&[]), name: ".".into() },
            Some(_) if dotted => Source::Contents { from: from_root(&components), name: ".".into() },
            Some((last, _)) if path.ends_with('/') => {
                Source::Contents { from: from_root(&components), name: (*last).into() }
            }
            Some((last, above)) => Source::Named { parent: from_root(above), name: (*last).into() },
        }
    }
}

struct Packer<'a> {
    out: BufWriter<&'a mut dyn Write>,
    /// The first name of each file that has several.
    links: BTreeMap<(u64, u64), Vec<u8>>,
    links_bytes: usize,
    /// The first file that became shorter while it was read.
    shrunk: Option<Vec<u8>>,
}

impl Packer<'_> {
    /// Copies one thing; false when it is gone. `device` is that of the directory that it is in, unless it is what was asked for.
    fn child(
        &mut self,
        parent: BorrowedFd<'_>,
        last: &CStr,
        device: Option<u64>,
        name: &mut Vec<u8>,
    ) -> Result<bool, CopyError> {
        if name.len() > LONGEST_NAME {
            return Err(refused_to_pack(name));
        }
        let Some(stat) = look(parent, last).map_err(|errno| failed("read", name, errno))? else { return Ok(false) };
        if kind_of(&stat) == SFlag::S_IFDIR {
            return match Dir::openat(parent, last, DIR, Mode::empty()) {
                Err(Errno::ENOENT) => Ok(false),
                Err(errno) => Err(failed("read", name, errno)),
                Ok(dir) => self.directory(dir, device, name).map(|()| true),
            };
        }
        let key = (stat.st_dev, stat.st_ino);
        if stat.st_nlink == 1 {
            return self.leaf(parent, last, &stat, name);
        }
        if let Some(target) = self.links.get(&key) {
            let kind = Kind::HardLink { target: target.clone() };
            let entry = Entry { name: name.clone(), kind, meta: meta(&stat) };
            self.out.write_all(&header::encode(&entry)).map_err(CopyError::Write)?;
            return Ok(true);
        }
        let copied = self.leaf(parent, last, &stat, name)?;
        let bytes = name.len() + 128;
        if copied && self.links_bytes + bytes <= LINKS {
            self.links_bytes += bytes;
            self.links.insert(key, name.clone());
        }
        Ok(copied)
    }

    /// Copies what is no directory; false when there is nothing to copy.
    fn leaf(&mut self, parent: BorrowedFd<'_>, last: &CStr, stat: &FileStat, name: &[u8]) -> Result<bool, CopyError> {
        let kind = match kind_of(stat) {
            SFlag::S_IFREG => return self.file(parent, last, name),
            SFlag::S_IFLNK => match readlinkat(parent, last) {
                Err(Errno::ENOENT) => return Ok(false),
                target => Kind::Symlink { target: target.map_err(|errno| failed("read", name, errno))?.into_vec() },
            },
            SFlag::S_IFIFO => Kind::Fifo,
            SFlag::S_IFCHR => Kind::CharDevice { major: major(stat.st_rdev), minor: minor(stat.st_rdev) },
            SFlag::S_IFBLK => Kind::BlockDevice { major: major(stat.st_rdev), minor: minor(stat.st_rdev) },
            // a socket is nothing without its process
            _ => return Ok(false),
        };
        self.entry(name.into(), kind, stat, Subject::Named(parent, last))?;
        Ok(true)
    }

    /// Copies a directory and all below it.
    fn directory(&mut self, mut dir: Dir, device: Option<u64>, name: &mut Vec<u8>) -> Result<(), CopyError> {
        let stat = fstat(&dir).map_err(|errno| failed("read", name, errno))?;
        let shown = [name.as_slice(), b"/"].concat();
        self.entry(shown, Kind::Directory, &stat, Subject::Open(dir.as_fd()))?;
        if device.is_some_and(|device| device != stat.st_dev) {
            let system = fstatfs(&dir).map_err(|errno| failed("read", name, errno))?;
            if LEFT_OUT.contains(&system.filesystem_type()) {
                return Ok(());
            }
        }
        // the stream of names has a descriptor of its own to lend
        let own = openat(&dir, c".", DIR, Mode::empty()).map_err(|errno| failed("read", name, errno))?;
        let length = name.len();
        for child in dir.iter() {
            let child = child.map_err(|errno| failed("read", &name[..length], errno))?;
            let last = child.file_name();
            if matches!(last.to_bytes(), b"." | b"..") {
                continue;
            }
            name.push(b'/');
            name.extend_from_slice(last.to_bytes());
            let _or_gone = self.child(own.as_fd(), last, Some(stat.st_dev), name)?;
            name.truncate(length);
        }
        Ok(())
    }

    fn file(&mut self, parent: BorrowedFd<'_>, last: &CStr, name: &[u8]) -> Result<bool, CopyError> {
        let at_entry = |errno| failed("read", name, errno);
        // a pipe that has taken its place must not hold us up
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = match openat(parent, last, flags, Mode::empty()) {
            Err(Errno::ENOENT) => return Ok(false),
            other => other.map_err(at_entry)?,
        };
        let stat = fstat(&file).map_err(at_entry)?;
        if kind_of(&stat) != SFlag::S_IFREG {
            return Err(failed("read", name, Errno::ESTALE));
        }
        let size = u64::try_from(stat.st_size).unwrap_or_default();
        self.entry(name.into(), Kind::File { size }, &stat, Subject::Open(file.as_fd()))?;
        let mut file = File::from(file);
        let mut buffer = vec![0; BUFFER];
        let mut left = size;
        while left > 0 {
            let bound = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let count = match file.read(&mut buffer[..bound]) {
                Ok(0) => {
                    self.shrunk.get_or_insert_with(|| name.into());
                    buffer[..bound].fill(0);
                    bound
                }
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(source) => return Err(CopyError::File { doing: "read", name: super::text(name), source }),
            };
            self.out.write_all(&buffer[..count]).map_err(CopyError::Write)?;
            left -= count as u64;
        }
        self.out.write_all(&[0; BLOCK][..padding(size)]).map_err(CopyError::Write)?;
        Ok(true)
    }

    fn entry(&mut self, name: Vec<u8>, kind: Kind, stat: &FileStat, subject: Subject<'_>) -> Result<(), CopyError> {
        let xattrs = match xattr::all(subject) {
            // the path to what cannot be opened leads through /proc, or it is gone
            Err(Errno::ENOENT) if matches!(subject, Subject::Named(..)) => Vec::new(),
            other => other.map_err(|errno| failed("read the attributes of", &name, errno))?,
        };
        let entry = Entry { name, kind, meta: Meta { xattrs, ..meta(stat) } };
        self.out.write_all(&header::encode(&entry)).map_err(CopyError::Write)
    }
}

fn meta(stat: &FileStat) -> Meta {
    let nanos = u32::try_from(stat.st_mtime_nsec).unwrap_or_default();
    let mtime = Time { seconds: stat.st_mtime, nanos };
    Meta { mode: stat.st_mode & 0o7777, uid: stat.st_uid, gid: stat.st_gid, mtime, xattrs: Vec::new() }
}

pub(super) fn kind_of(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())
}

pub(super) fn refused_to_pack(name: &[u8]) -> CopyError {
    let reason = format!("its path is longer than {LONGEST_NAME} bytes: copy from a directory nearer to it");
    CopyError::Unnameable { name: super::text(&name[..64]), reason }
}
