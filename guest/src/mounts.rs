//! File systems: the early ones, the container's root, and what every container finds in it.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

/// A file system or file that could not be put in its place.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    #[error("cannot mount {what} on {on}")]
    Mount { what: String, on: PathBuf, source: io::Error },
    #[error("cannot make {path}")]
    Make { path: PathBuf, source: io::Error },
    #[error("cannot make {root} the root")]
    Switch { root: PathBuf, source: io::Error },
}

struct Entry {
    kind: &'static str,
    on: &'static str,
    flags: MsFlags,
    options: &'static str,
}

const NO_SUID_EXEC_DEV: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC).union(MsFlags::MS_NODEV);

/// What PID 1 itself needs.
const EARLY: [Entry; 4] = [
    Entry { kind: "devtmpfs", on: "dev", flags: MsFlags::MS_NOSUID, options: "mode=0755" },
    Entry { kind: "proc", on: "proc", flags: NO_SUID_EXEC_DEV, options: "" },
    Entry { kind: "sysfs", on: "sys", flags: NO_SUID_EXEC_DEV, options: "" },
    CGROUPS,
];

const CGROUPS: Entry = Entry { kind: "cgroup2", on: "sys/fs/cgroup", flags: NO_SUID_EXEC_DEV, options: "nsdelegate" };

/// What a container finds, as docker mounts it: the OCI runtime specification, "Default Filesystems".
const CONTAINER: [Entry; 7] = [
    Entry { kind: "proc", on: "proc", flags: NO_SUID_EXEC_DEV, options: "" },
    Entry {
        kind: "tmpfs",
        on: "dev",
        flags: MsFlags::MS_NOSUID.union(MsFlags::MS_STRICTATIME),
        options: "mode=0755,size=64k",
    },
    Entry {
        kind: "devpts",
        on: "dev/pts",
        flags: MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC),
        options: "newinstance,ptmxmode=0666,mode=0620,gid=5",
    },
    Entry { kind: "tmpfs", on: "dev/shm", flags: NO_SUID_EXEC_DEV, options: "mode=1777,size=64m" },
    Entry { kind: "mqueue", on: "dev/mqueue", flags: NO_SUID_EXEC_DEV, options: "" },
    Entry { kind: "sysfs", on: "sys", flags: NO_SUID_EXEC_DEV.union(MsFlags::MS_RDONLY), options: "" },
    CGROUPS,
];

/// Mode 0666 character devices: the OCI runtime specification, "Default Devices". Numbers: Linux, admin-guide/devices.txt.
const DEVICES: [(&str, u64, u64); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

const DEVICE_LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Mounts what PID 1 itself needs. A file system that the kernel has mounted already is left as it is.
pub fn early() -> Result<(), MountError> {
    EARLY.iter().try_for_each(|entry| match mount_entry(Path::new("/"), entry) {
        Err(MountError::Mount { source, .. }) if source.raw_os_error() == Some(nix::libc::EBUSY) => Ok(()),
        other => other,
    })
}

/// Mounts a container's disk.
pub fn disk(device: &Path, on: &Path) -> Result<(), MountError> {
    make_dir(on)?;
    mount(Some(device), on, Some("ext4"), MsFlags::empty(), None::<&str>).map_err(|errno| MountError::Mount {
        what: device.display().to_string(),
        on: on.into(),
        source: errno.into(),
    })
}

/// Mounts what every container finds, below its root. The directories are made where the image has none.
pub fn container(root: &Path) -> Result<(), MountError> {
    for entry in &CONTAINER {
        mount_entry(root, entry)?;
        if entry.on == "dev" {
            populate_dev(&root.join("dev"))?;
        }
    }
    Ok(())
}

/// Puts a file of ours over one of the image's, without changing the image: as docker does for `/etc/hosts`.
pub fn cover_file(root: &Path, path: &str, text: &str) -> Result<(), MountError> {
    let ours = covering(path);
    let over = root.join(path);
    let make = |path: &Path, source| MountError::Make { path: path.into(), source };
    fs::write(&ours, text).map_err(|source| make(&ours, source))?;
    if let Some(parent) = over.parent() {
        fs::create_dir_all(parent).map_err(|source| make(parent, source))?;
    }
    if fs::symlink_metadata(&over).is_err() {
        fs::write(&over, "").map_err(|source| make(&over, source))?;
    }
    // a symlink of the image would lead out of its root from here: it stays as it is
    if !fs::symlink_metadata(&over).is_ok_and(|meta| meta.is_file()) {
        return Ok(());
    }
    mount(Some(&ours), &over, None::<&str>, MsFlags::MS_BIND, None::<&str>).map_err(|errno| MountError::Mount {
        what: ours.display().to_string(),
        on: over,
        source: errno.into(),
    })
}

/// Where a file of ours lies that covers the image's, before the root changes. Written there, it changes in its place too.
pub fn covering(path: &str) -> PathBuf {
    PathBuf::from("/").join(path.replace('/', "-"))
}

/// Makes `root` the root of this process and its children. The old one stays below, out of reach.
pub fn switch_root(root: &Path) -> Result<(), MountError> {
    let switch = || {
        nix::unistd::chdir(root)?;
        mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)?;
        nix::unistd::chroot(".")?;
        nix::unistd::chdir("/")
    };
    switch().map_err(|errno: nix::Error| MountError::Switch { root: root.into(), source: errno.into() })
}

fn mount_entry(root: &Path, entry: &Entry) -> Result<(), MountError> {
    let on = root.join(entry.on);
    if !entry.on.starts_with("sys/") {
        make_dir(&on)?;
    }
    match mount(Some(entry.kind), &on, Some(entry.kind), entry.flags, Some(entry.options)) {
        // control groups only count: a kernel without them runs containers as well
        Err(Errno::ENODEV | Errno::ENOENT) if entry.kind == CGROUPS.kind => Ok(()),
        other => other.map_err(|errno| MountError::Mount { what: entry.kind.into(), on, source: errno.into() }),
    }
}

fn make_dir(path: &Path) -> Result<(), MountError> {
    match fs::create_dir(path) {
        // a symlink of the image would be followed out of its root
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match fs::symlink_metadata(path) {
            Ok(meta) if meta.is_dir() => Ok(()),
            _ => Err(MountError::Make { path: path.into(), source: io::ErrorKind::NotADirectory.into() }),
        },
        other => other.map_err(|source| MountError::Make { path: path.into(), source }),
    }
}

fn populate_dev(dev: &Path) -> Result<(), MountError> {
    for (name, major, minor) in DEVICES {
        let path = dev.join(name);
        let mode = Mode::from_bits_truncate(0o666);
        let make = || {
            mknod(&path, SFlag::S_IFCHR, mode, makedev(major, minor))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o666)) // whatever the umask took
        };
        make().map_err(|source| MountError::Make { path: path.clone(), source })?;
    }
    for (name, target) in DEVICE_LINKS {
        let path = dev.join(name);
        symlink(target, &path).map_err(|source| MountError::Make { path, source })?;
    }
    Ok(())
}
