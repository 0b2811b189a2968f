//! File systems: the early ones, what every container finds, and which root is whose.
//!
//! ```text
//! filesystem   a disk's, memory's, layers under a top        table   what is mounted, and the end of all of it
//! volume       what the spec mounts in the container         seed    a volume's first content
//! server       a file server's directory
//! ```
//!
//! While the machine boots, the current directory is the machine's own root, and so it is in a process that mounts later: paths of the machine's own are
//! relative.

mod filesystem;
mod seed;
mod server;
mod table;
mod volume;

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::fcntl::{OFlag, ResolveFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, fstat, makedev, mknod};

use crate::copy::CopyError;
use crate::sys;
use crate::within::{Made, NAMED_DIR, open_below, reach};

pub use filesystem::{Access, Said, Top, layered, merged};
pub(crate) use filesystem::{UPPER, layer_place};
pub use server::server;
pub use table::trim_all;
pub(crate) use table::{has_servers, mount_points, unmount_all};
pub use volume::{memory, volume};

/// A file system or file that could not be put in its place.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    #[error("cannot mount {what} on {on}")]
    Mount { what: String, on: PathBuf, source: io::Error },
    #[error("cannot make {path}")]
    Make { path: PathBuf, source: io::Error },
    #[error("cannot make {root} the root")]
    Switch { root: PathBuf, source: io::Error },
    #[error("cannot mount the disk {name}{said}")]
    Disk { name: String, said: Said, source: io::Error },
    #[error("the disk {name} cannot be written, and the spec wants to: mount it read-only, or attach it writable")]
    Protected { name: String },
    #[error("cannot mount memory")]
    Memory(#[source] io::Error),
    #[error("cannot put the layers together{said}")]
    Overlay { said: Said, source: io::Error },
    #[error("cannot read the volume {name}")]
    Look { name: String, source: io::Error },
    #[error("cannot fill the volume {name} with what the image has there")]
    Seed { name: String, source: CopyError },
    #[error("cannot mount {name}, {host}:{path}: {reason}")]
    Server { name: String, host: String, path: String, reason: String },
    #[error("cannot mount {name} on {destination}")]
    Place { name: String, destination: String, source: io::Error },
    #[error("cannot mount {name} on {destination}: the image's links lead to /, /proc, /sys or /dev")]
    Kernels { name: String, destination: String },
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

/// Puts a file of ours over one of the image's, without changing the image: as docker does for `/etc/hosts`. A link of the image leads within its root.
pub fn cover_file(root: &Path, path: &str, text: &str) -> Result<(), MountError> {
    let ours = covering(path);
    fs::write(&ours, text).map_err(|source| MountError::Make { path: ours.clone(), source })?;
    let over = root.join(path);
    let named = named_dir(root).and_then(|root| reach(root.as_fd(), path, Made::File));
    let over_fd = match named {
        Err(Errno::EPERM) => return Ok(()),
        other => other.map_err(|errno| MountError::Make { path: over.clone(), source: errno.into() })?,
    };
    let put = || {
        // what the image has in place of a file stays as it is
        if SFlag::from_bits_truncate(fstat(&over_fd)?.st_mode & SFlag::S_IFMT.bits()) != SFlag::S_IFREG {
            return Ok(());
        }
        let ours = open(&ours, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
        sys::mount::attach(sys::mount::copy_of(ours.as_fd())?.as_fd(), over_fd.as_fd())
    };
    put().map_err(|errno: Errno| MountError::Mount { what: ours.display().to_string(), on: over, source: errno.into() })
}

/// Files that [`cover_file`] may have covered: with docker they are as read-only as their root.
const COVERED: [&str; 3] = ["etc/hostname", "etc/hosts", "etc/resolv.conf"];

/// Takes no more writes to the container's root; what is mounted in it keeps what it has.
pub fn forbid_writes(root: &Path) -> Result<(), MountError> {
    let failed =
        |errno: Errno| MountError::Mount { what: "the root, read-only,".into(), on: root.into(), source: errno.into() };
    let dir = named_dir(root).map_err(failed)?;
    sys::mount::forbid_writes(dir.as_fd()).map_err(failed)?;
    for path in COVERED {
        let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
        if let Ok(file) = open_below(dir.as_fd(), path.as_bytes(), flags, ResolveFlag::RESOLVE_IN_ROOT) {
            // an error means that nothing covers it: it is a file of a volume
            let _volume = sys::mount::forbid_writes(file.as_fd());
        }
    }
    Ok(())
}

fn named_dir(path: &Path) -> nix::Result<OwnedFd> {
    open(path, NAMED_DIR, Mode::empty())
}

/// The root that the machine booted with, once it is out of sight.
static OWN_ROOT: OnceLock<OwnedFd> = OnceLock::new();

/// The machine's own root, which holds its devices and what is mounted for its own use; none while it is this process's root as well.
pub fn own_root() -> Option<BorrowedFd<'static>> {
    OWN_ROOT.get().map(OwnedFd::as_fd)
}

/// Where a file of ours lies that covers the image's, before the root changes. Written there, it changes in its place too.
pub fn covering(path: &str) -> PathBuf {
    PathBuf::from("/").join(path.replace('/', "-"))
}

/// Makes `root` the root of this process and its children. The old one stays below, out of reach.
pub fn switch_root(root: &Path) -> Result<(), MountError> {
    let switch = || {
        let own = named_dir(Path::new("/"))?;
        nix::unistd::chdir(root)?;
        mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)?;
        nix::unistd::chroot(".")?;
        let _first = OWN_ROOT.set(own);
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
