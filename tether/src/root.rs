//! The container's root: found, put together, and entered. What is mounted in it: [`crate::volumes`].

use std::path::Path;
use std::time::Duration;

use guest::disks::{self, Disk, DiskError};
use guest::mounts::{self, Access, MountError};
use wire::spec::{DiskId, ROOT_LABEL, Root, Spec, Top};
use wire::status::{Failure, FailureKind};

use crate::boot::failure;
use crate::volumes;

/// How long disks may take to appear, all of them together. Those that are there at power-on are found at once.
pub(crate) const DISK_BOUND: Duration = Duration::from_secs(5);
/// Where the root is until it is the root.
pub(crate) const NEW_ROOT: &str = "/newroot";

/// Mounts the root, in it what every container finds, and what the spec mounts that needs no network.
pub(crate) fn assemble(spec: &Spec) -> Result<(), Failure> {
    let root = Path::new(NEW_ROOT);
    let local = volumes::local(&spec.mounts);
    let mut ids = ids_of(&spec.root);
    let of_root = ids.len();
    ids.extend(local.iter().filter_map(|mount| volumes::disk_of(mount)).cloned());
    let disks = disks::find(&ids, DISK_BOUND).map_err(disk_failure)?;
    let (of_root, of_volumes) = disks.split_at(of_root);
    once_each(of_root, of_volumes).map_err(disk_failure)?;
    put_together(&spec.root, of_root, root).map_err(disk_failure)?;
    mounts::container(root).map_err(mount_failure)?;
    volumes::mount(&local, of_volumes, root)
}

/// Mounts what needs the network, and what lies in that. Nothing more is made in the root then.
pub(crate) fn mount(spec: &Spec) -> Result<(), Failure> {
    let root = Path::new(NEW_ROOT);
    volumes::find_and_mount(&volumes::remote(&spec.mounts), root)?;
    match spec.root.read_only {
        true => mounts::forbid_writes(root).map_err(mount_failure),
        false => Ok(()),
    }
}

/// Makes it the root.
pub(crate) fn enter() -> Result<(), Failure> {
    mounts::switch_root(Path::new(NEW_ROOT)).map_err(mount_failure)
}

/// The disks of a root: its layers, the lowest first, and the top; or the one that it is.
fn ids_of(root: &Root) -> Vec<DiskId> {
    match (root.layers.as_slice(), &root.top) {
        ([], _) => vec![DiskId::Label(ROOT_LABEL.into())],
        (layers, Top::Disk(top)) => layers.iter().chain([top]).cloned().collect(),
        (layers, Top::Memory(_)) => layers.to_vec(),
    }
}

fn put_together(root: &Root, disks: &[Disk], on: &Path) -> Result<(), MountError> {
    let (layers, rest) = disks.split_at(root.layers.len());
    match (rest, &root.top) {
        ([disk], _) if layers.is_empty() => match mounts::merged(disk, Access::ReadWrite, on) {
            // then the image itself must have the directories that others are mounted on
            Err(MountError::Protected { .. }) if root.read_only => mounts::merged(disk, Access::ReadOnly, on),
            other => other,
        },
        ([top], _) => mounts::layered(layers, mounts::Top::Disk(top), on),
        (_, Top::Memory(size)) => mounts::layered(layers, mounts::Top::Memory(*size), on),
        (_, Top::Disk(_)) => mounts::layered(layers, mounts::Top::Memory(0), on), // it was found, above
    }
}

/// A disk may be known by several names; a part of the root is nothing else besides.
fn once_each(of_root: &[Disk], of_volumes: &[Disk]) -> Result<(), RootError> {
    for (at, disk) in of_root.iter().enumerate() {
        if of_root[at + 1..].iter().chain(of_volumes).any(|other| other.name == disk.name) {
            return Err(RootError::Twice { name: disk.name.clone() });
        }
    }
    Ok(())
}

pub(crate) fn disk_failure(error: impl Into<RootError>) -> Failure {
    failure(FailureKind::Disk, &error.into())
}

/// Something of the machine's own, not of a disk.
pub(crate) fn mount_failure(error: MountError) -> Failure {
    failure(FailureKind::Machine, &error)
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum RootError {
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error("the spec names the disk {name} twice, once as a part of the root")]
    Twice { name: String },
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
