//! The container's root: found, put together, and entered.

use std::path::Path;
use std::time::Duration;

use guest::disks::{self, DiskError};
use guest::mounts::{self, MountError};
use wire::spec::{ROOT_LABEL, Spec};
use wire::status::{Failure, FailureKind};

use crate::boot::failure;

/// How long a disk may take to appear. Disks that are there at power-on are found at once.
const DISK_BOUND: Duration = Duration::from_secs(5);
/// Where the root is until it is the root.
pub(crate) const NEW_ROOT: &str = "/newroot";

/// Mounts the root, and in it what every container finds.
pub(crate) fn assemble(_spec: &Spec) -> Result<(), Failure> {
    let root = Path::new(NEW_ROOT);
    let disk = disks::find(ROOT_LABEL, DISK_BOUND).map_err(disk_failure)?;
    mounts::disk(&disk, root).map_err(disk_failure)?;
    mounts::container(root).map_err(mount_failure)
}

/// Mounts what the spec asks for.
pub(crate) fn mount(_spec: &Spec) -> Result<(), Failure> {
    Ok(())
}

/// Makes it the root.
pub(crate) fn enter() -> Result<(), Failure> {
    mounts::switch_root(Path::new(NEW_ROOT)).map_err(mount_failure)
}

fn disk_failure(error: impl Into<RootError>) -> Failure {
    failure(FailureKind::Disk, &error.into())
}

/// Something of the machine's own, not of a disk.
pub(crate) fn mount_failure(error: MountError) -> Failure {
    failure(FailureKind::Machine, &error)
}

#[derive(Debug, thiserror::Error)]
enum RootError {
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Mount(#[from] MountError),
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_failure_tells_the_whole_chain() {
        let source = io::Error::from_raw_os_error(nix::libc::EINVAL);
        let error = MountError::Mount { what: "/dev/vda".into(), on: "/newroot".into(), source };
        assert_eq!(disk_failure(error).reason, "cannot mount /dev/vda on /newroot: Invalid argument (os error 22)");
    }
}
