//! What of the machine a container does not see, or cannot change, whoever it is: docker's masked and read-only paths.
//!
//! Below `/sys/firmware` lies the spec itself, with the link's key. A process with `CAP_SYS_ADMIN` can unmount all of this: to give it that is to trust it.
//! Source: moby, `oci/defaults.go`.

use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};

use crate::mounts::MountError;

const MASKED: [&str; 12] = [
    "sys/firmware",
    "sys/devices/virtual/powercap",
    "proc/acpi",
    "proc/asound",
    "proc/interrupts",
    "proc/kcore",
    "proc/keys",
    "proc/latency_stats",
    "proc/sched_debug",
    "proc/scsi",
    "proc/timer_list",
    "proc/timer_stats",
];

const READ_ONLY: [&str; 5] = ["proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger"];

const CONTROL_GROUPS: &str = "sys/fs/cgroup";

const FLAGS: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC).union(MsFlags::MS_NODEV);

/// Covers them below a container's root. What this kernel does not have needs no cover. With `own_groups`, the container may make control groups.
pub fn cover(root: &Path, own_groups: bool) -> Result<(), MountError> {
    let on = |path: &str| root.join(path);
    for path in MASKED.map(on) {
        let covered = match mount(Some("/dev/null"), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>) {
            // a directory is covered by an empty one
            Err(Errno::ENOTDIR) => {
                mount(Some("tmpfs"), &path, Some("tmpfs"), FLAGS | MsFlags::MS_RDONLY, Some("size=4k"))
            }
            other => other,
        };
        there(&path, covered)?;
    }
    let groups = (!own_groups).then_some(CONTROL_GROUPS);
    for path in READ_ONLY.into_iter().chain(groups).map(on) {
        let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
        let covered = mount(path.to_str(), &path, None::<&str>, bind, None::<&str>).and_then(|()| {
            let read_only = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | FLAGS;
            mount(None::<&str>, &path, None::<&str>, read_only, None::<&str>)
        });
        there(&path, covered)?;
    }
    Ok(())
}

/// Sets the size of the container's shared memory, in bytes. What is in it stays.
pub fn resize_shm(root: &Path, bytes: u64) -> Result<(), MountError> {
    let on = root.join("dev/shm");
    let options = format!("size={bytes},mode=1777");
    mount(None::<&str>, &on, None::<&str>, MsFlags::MS_REMOUNT | FLAGS, Some(options.as_str()))
        .map_err(|errno| MountError::Mount { what: options, on, source: errno.into() })
}

fn there(path: &Path, covered: nix::Result<()>) -> Result<(), MountError> {
    match covered {
        Err(Errno::ENOENT) => Ok(()),
        other => other.map_err(|errno| failed(path, errno)),
    }
}

fn failed(on: &Path, errno: Errno) -> MountError {
    MountError::Mount { what: "a cover".into(), on: on.into(), source: errno.into() }
}
