//! What the container can use of the machine's devices: those that every container has.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use crate::mounts::own_root;
use crate::sys::devices::Confinement;

/// The container's control group, which [`crate::cgroup`] makes.
const GROUP: &str = "/sys/fs/cgroup/container";

/// The machine's own null device. What a container has put in the place of its own, a pipe that nobody writes for one, would hold PID 1 up.
pub fn null() -> io::Result<File> {
    match own_root() {
        None => File::open("/dev/null"),
        Some(own) => Ok(openat(own, c"dev/null", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?.into()),
    }
}

/// What keeps the container's processes from every other device. To be loaded once their group is there; none for a kernel without control groups.
#[derive(Debug)]
pub struct Fence {
    group: File,
    confinement: Confinement,
}

impl Fence {
    pub fn load() -> io::Result<Option<Fence>> {
        match File::open(GROUP) {
            Ok(group) => Ok(Some(Fence { group, confinement: Confinement::load()? })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// From now on nobody gets past it.
    pub fn close(&self) -> io::Result<()> {
        self.confinement.confine(self.group.as_fd())
    }
}
