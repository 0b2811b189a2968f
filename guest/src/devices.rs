//! What the container can use of the machine's devices: those that every container has.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use crate::mounts::own_root;
use crate::sys::devices;

/// The container's control group, which [`crate::cgroup`] makes.
const GROUP: &str = "/sys/fs/cgroup/container";

/// The machine's own null device. What a container has put in the place of its own, a pipe that nobody writes for one, would hold PID 1 up.
pub fn null() -> io::Result<File> {
    match own_root() {
        None => File::open("/dev/null"),
        Some(own) => Ok(openat(own, c"dev/null", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?.into()),
    }
}

/// Keeps the container's processes from every other device. To be called once their group is there; a kernel without control groups is no failure.
pub fn confine() -> io::Result<()> {
    match File::open(GROUP) {
        Ok(group) => devices::confine(group.as_fd()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}
