//! What the spec mounts in the container: volumes and memory. Where a destination leads is the image's business, and stays within its root.

use std::fs::{self, File};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, ResolveFlag};
use nix::mount::{MntFlags, umount2};
use wire::spec::Mount;

use super::filesystem::{self, Access, put};
use super::{MountError, seed};
use crate::disks::Disk;
use crate::sys::mount::{self, NO_DEV, NO_EXEC, NO_SUID, READ_ONLY};
use crate::within::{DIR, Made, open_below, reach};

/// VIC keeps a volume's files in this directory of its disk, so that its users do not see `lost+found`.
const INNER: &str = ".vic.vol.data";
/// Where a disk is mounted while its inner directory is taken, relative to the machine's own root.
const HOLD: &str = "volume";

/// Mounts a disk as a volume, and fills it before that if the spec says so and it never was. With `written` the same disk is mounted elsewhere too, and written.
pub fn volume(disk: &Disk, mount: &Mount, written: bool, root: &Path) -> Result<(), MountError> {
    let access = if mount.read_only && !written { Access::ReadOnly } else { Access::ReadWrite };
    if mount.seed {
        let is_due = {
            let looked_at = filesystem::disk(disk, access, READ_ONLY)?;
            top_of(looked_at.as_fd()).and_then(|top| seed::is_due(&top))
        };
        if is_due.map_err(|errno| MountError::Look { name: mount.name.clone(), source: errno.into() })? {
            match filesystem::disk(disk, Access::ReadWrite, 0) {
                Ok(filled) => fill(filled.as_fd(), mount, root)?,
                // it stays as empty as it is
                Err(MountError::Protected { .. }) if mount.read_only => {}
                Err(error) => return Err(error),
            }
        }
    }
    let attributes = if mount.read_only { READ_ONLY } else { 0 };
    attach(filesystem::disk(disk, access, attributes)?, mount, root)
}

/// Mounts memory.
pub fn memory(size: u64, mode: u32, exec: bool, mount: &Mount, root: &Path) -> Result<(), MountError> {
    let mut attributes = NO_SUID | NO_DEV;
    for (attribute, wanted) in [(NO_EXEC, !exec), (READ_ONLY, mount.read_only)] {
        if wanted {
            attributes |= attribute;
        }
    }
    attach(filesystem::memory(size, mode, attributes)?, mount, root)
}

pub(super) fn fill(volume: BorrowedFd<'_>, mount: &Mount, root: &Path) -> Result<(), MountError> {
    let at_volume = |errno: Errno| MountError::Look { name: mount.name.clone(), source: errno.into() };
    let image = File::open(root).map_err(|source| MountError::Make { path: root.into(), source })?;
    // without what is mounted in it already: another volume's files are not the image's
    let image = mount::copy_of(image.as_fd()).map_err(at_volume)?;
    let path = [b".", mount.destination.as_bytes()].concat();
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    match open_below(image.as_fd(), &path, flags, ResolveFlag::RESOLVE_IN_ROOT) {
        // the image has nothing there
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => Ok(()),
        Err(errno) => Err(at_volume(errno)),
        Ok(from) => seed::fill(from, top_of(volume).map_err(at_volume)?)
            .map_err(|source| MountError::Seed { name: mount.name.clone(), source }),
    }
}

/// Puts a mount on its destination, which is made.
pub(super) fn attach(volume: OwnedFd, mount: &Mount, root: &Path) -> Result<(), MountError> {
    let inner = match has_inner(volume.as_fd()) {
        true => Some(inner_of(volume.as_fd())?),
        false => None,
    };
    let volume = inner.unwrap_or(volume);
    let put = || {
        let root = nix::fcntl::open(root, crate::within::NAMED_DIR, nix::sys::stat::Mode::empty())?;
        let on = reach(root.as_fd(), &mount.destination, Made::Directory)?;
        mount::attach(volume.as_fd(), on.as_fd())
    };
    put().map_err(|errno: Errno| match errno {
        Errno::EPERM => MountError::Kernels { name: mount.name.clone(), destination: mount.destination.clone() },
        errno => {
            MountError::Place { name: mount.name.clone(), destination: mount.destination.clone(), source: errno.into() }
        }
    })
}

pub(super) fn top_of(volume: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    let path = if has_inner(volume) { INNER } else { "." };
    open_below(volume, path.as_bytes(), DIR, ResolveFlag::RESOLVE_BENEATH)
}

fn has_inner(volume: BorrowedFd<'_>) -> bool {
    open_below(volume, INNER.as_bytes(), DIR, ResolveFlag::RESOLVE_BENEATH).is_ok()
}

/// Only of a mount that is somewhere can a part be taken.
fn inner_of(volume: BorrowedFd<'_>) -> Result<OwnedFd, MountError> {
    put(volume, Path::new(HOLD))?;
    let path = Path::new(HOLD).join(INNER);
    let inner = fs::File::open(&path)
        .and_then(|dir| Ok(mount::copy_of(dir.as_fd())?))
        .map_err(|source| MountError::Make { path, source });
    let _detached = umount2(HOLD, MntFlags::MNT_DETACH);
    inner
}
