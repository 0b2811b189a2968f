//! What is mounted in the container's root: in which order, and from where. How: [`guest::mounts`].

use std::path::Path;

use guest::disks::{self, Disk};
use guest::mounts;
use wire::spec::{DiskId, Mount, Source};
use wire::status::Failure;

use crate::root::{DISK_BOUND, disk_failure};

/// What can be mounted before there is a network, what is nearer to the root first.
pub(crate) fn local(mounts: &[Mount]) -> Vec<&Mount> {
    sorted(mounts.iter().filter(|mount| !needs_network(mount, mounts)))
}

/// The rest.
pub(crate) fn remote(mounts: &[Mount]) -> Vec<&Mount> {
    sorted(mounts.iter().filter(|mount| needs_network(mount, mounts)))
}

/// It lies on a file server, or in what does.
fn needs_network(mount: &Mount, mounts: &[Mount]) -> bool {
    let is_below =
        |path: &str| mount.destination.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    mounts.iter().any(|other| matches!(other.source, Source::Nfs { .. }) && is_below(&other.destination))
}

fn sorted<'a>(mounts: impl Iterator<Item = &'a Mount>) -> Vec<&'a Mount> {
    let mut mounts: Vec<&Mount> = mounts.collect();
    mounts.sort_by_key(|mount| mount.destination.split('/').count());
    mounts
}

pub(crate) fn disk_of(mount: &Mount) -> Option<&DiskId> {
    match &mount.source {
        Source::Disk(id) => Some(id),
        Source::Nfs { .. } | Source::Memory { .. } => None,
    }
}

/// Waits for the disks of these mounts, and mounts them in their order.
pub(crate) fn find_and_mount(mounts: &[&Mount], root: &Path) -> Result<(), Failure> {
    let ids: Vec<DiskId> = mounts.iter().filter_map(|mount| disk_of(mount)).cloned().collect();
    let disks = disks::find(&ids, DISK_BOUND).map_err(disk_failure)?;
    mount(mounts, &disks, root)
}

/// Mounts them in their order; `disks` has those of the mounts that have one.
pub(crate) fn mount(mounts: &[&Mount], disks: &[Disk], root: &Path) -> Result<(), Failure> {
    let with_disk: Vec<(&Mount, &Disk)> =
        mounts.iter().filter(|mount| disk_of(mount).is_some()).copied().zip(disks).collect();
    let mut left = with_disk.iter();
    for mount in mounts {
        match &mount.source {
            Source::Disk(_) => {
                let Some((_, disk)) = left.next() else { continue };
                let is_written = |(other, its): &(&Mount, &Disk)| its.name == disk.name && !other.read_only;
                let written = with_disk.iter().any(is_written);
                mounts::volume(disk, mount, written, root).map_err(disk_failure)?;
            }
            Source::Memory { size, mode, exec } => {
                mounts::memory(*size, *mode, *exec, mount, root).map_err(disk_failure)?;
            }
            Source::Nfs { host, path, options } => {
                mounts::server(host, path, options, mount, root).map_err(disk_failure)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(destination: &str, source: Source) -> Mount {
        Mount { name: String::new(), source, destination: destination.into(), read_only: false, seed: false }
    }

    #[test]
    fn what_lies_in_another_comes_after_it() {
        let disk = || Source::Disk(DiskId::Label("x".into()));
        let nfs = Source::Nfs { host: String::new(), path: String::new(), options: String::new() };
        let mounts = [
            mount("/a/b/c", disk()),
            mount("/files/deep", disk()),
            mount("/a", disk()),
            mount("/filesystem", disk()),
            mount("/files", nfs),
            mount("/a/b", disk()),
        ];
        let names = |mounts: Vec<&Mount>| mounts.iter().map(|mount| mount.destination.clone()).collect::<Vec<_>>();
        assert_eq!(names(local(&mounts)), ["/a", "/filesystem", "/a/b", "/a/b/c"]);
        assert_eq!(names(remote(&mounts)), ["/files", "/files/deep"]);
    }
}
