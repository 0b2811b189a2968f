//! File systems that are made known to the kernel and put in their places: a disk's, memory's, layers under a top.

use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use super::MountError;
use crate::disks::{Disk, FsKind};
use crate::sys::mount::{self, Context};

/// Whether a disk is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    ReadWrite,
    /// Not even its journal or the count of its mounts.
    ReadOnly,
}

/// Where the directory is that takes it.
pub(crate) const UPPER: &CStr = c"top/upper";

/// Where a layer is, counted from the lowest; relative to the machine's own root. It stays mounted there, to be compared with the top.
pub(crate) fn layer_place(at: usize) -> CString {
    CString::new(format!("l{at}")).unwrap_or_default()
}

/// The disk that takes what a container with layers writes; relative to the machine's own root. It stays mounted there, for those who trim and unmount.
pub(super) const TOP: &CStr = c"top";

/// A disk's file system, mounted nowhere yet. `attributes` are those of [`mount`].
pub(super) fn disk(disk: &Disk, access: Access, attributes: u32) -> Result<OwnedFd, MountError> {
    let failed = |errno: Errno, said| match (errno, access) {
        (Errno::EACCES | Errno::EROFS, Access::ReadWrite) => MountError::Protected { name: disk.name.clone() },
        _ => MountError::Disk { name: disk.name.clone(), said: Said(said), source: errno.into() },
    };
    let kind = match disk.kind {
        Some(FsKind::Erofs) if access == Access::ReadWrite => {
            return Err(MountError::Protected { name: disk.name.clone() });
        }
        Some(FsKind::Erofs) => c"erofs",
        _ => c"ext4",
    };
    let context = Context::open(kind).map_err(|errno| failed(errno, None))?;
    let device = CString::new(format!("dev/{}", disk.name)).unwrap_or_default();
    let make = || {
        context.set(c"source", &device)?;
        if access == Access::ReadOnly {
            context.flag(c"ro")?;
        }
        context.create(attributes)
    };
    make().map_err(|errno| failed(errno, context.said()))
}

/// Memory, of at most so many bytes; 0 is half of the machine's.
pub(super) fn memory(size: u64, mode: u32, attributes: u32) -> Result<OwnedFd, MountError> {
    let make = || {
        let context = Context::open(c"tmpfs")?;
        let number = |text: String| CString::new(text).unwrap_or_default();
        context.set(c"source", c"tmpfs")?;
        context.set(c"mode", &number(format!("{mode:o}")))?;
        if size > 0 {
            context.set(c"size", &number(size.to_string()))?;
        }
        context.create(attributes)
    };
    make().map_err(|errno| MountError::Memory(errno.into()))
}

/// Mounts the container's one disk.
pub fn merged(root: &Disk, access: Access, on: &Path) -> Result<(), MountError> {
    put(disk(root, access, 0)?.as_fd(), on)
}

/// What lies over layers.
#[derive(Clone, Copy, Debug)]
pub enum Top<'a> {
    Disk(&'a Disk),
    /// Of at most so many bytes; 0 is half of the machine's.
    Memory(u64),
}

/// Mounts layers, the lowest first, under a top: Linux, Documentation/filesystems/overlayfs.rst. A layer's whiteouts are overlayfs's own.
pub fn layered(layers: &[Disk], top: Top<'_>, on: &Path) -> Result<(), MountError> {
    // each layer is an option of its own, so that no page of options is ever full
    let places: Vec<CString> = (0..layers.len()).map(layer_place).collect();
    for (layer, place) in layers.iter().zip(&places) {
        put(disk(layer, Access::ReadOnly, 0)?.as_fd(), path(place))?;
    }
    let top = match top {
        Top::Disk(top) => disk(top, Access::ReadWrite, 0)?,
        Top::Memory(size) => memory(size, 0o755, 0)?,
    };
    put(top.as_fd(), path(TOP))?;
    let overlay_failed = |said, errno: Errno| MountError::Overlay { said: Said(said), source: errno.into() };
    if let Some(highest) = places.last() {
        make_top(path(highest)).map_err(|source| MountError::Overlay { said: Said(None), source })?;
    }
    let context = Context::open(c"overlay").map_err(|errno| overlay_failed(None, errno))?;
    let make = || {
        context.set(c"source", c"overlay")?;
        for place in places.iter().rev() {
            context.set(c"lowerdir+", place)?;
        }
        context.set(c"upperdir", UPPER)?;
        context.set(c"workdir", c"top/work")?;
        context.create(0)
    };
    let overlay = make().map_err(|errno| overlay_failed(context.said(), errno))?;
    put(overlay.as_fd(), on)
}

/// The root directory of the container is the top's from now on: at first it is as the highest layer has it.
fn make_top(highest: &Path) -> io::Result<()> {
    make_dir("top/work")?;
    if make_dir("top/upper")? {
        let like = fs::metadata(highest)?;
        std::os::unix::fs::chown("top/upper", Some(like.uid()), Some(like.gid()))?;
        fs::set_permissions("top/upper", fs::Permissions::from_mode(like.mode()))?;
    }
    Ok(())
}

/// False when it was there.
fn make_dir(path: &str) -> io::Result<bool> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        other => other.map(|()| true),
    }
}

/// Attaches a mount to a directory of the machine's own, which is made.
pub(super) fn put(mount: BorrowedFd<'_>, on: &Path) -> Result<(), MountError> {
    super::make_dir(on)?;
    let attach = || {
        let dir = open(on, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        mount::attach(mount, dir.as_fd())
    };
    attach().map_err(|errno: Errno| MountError::Mount {
        what: "a file system".into(),
        on: on.into(),
        source: errno.into(),
    })
}

fn path(name: &CStr) -> &Path {
    Path::new(name.to_str().unwrap_or_default())
}

/// What the kernel said about a failure, behind its name.
#[derive(Debug)]
pub struct Said(pub(super) Option<String>);

impl std::fmt::Display for Said {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            None => Ok(()),
            Some(text) => write!(formatter, " ({text})"),
        }
    }
}
