//! What the container can use of the machine's devices: those that every container has.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;

use crate::sys::devices;

/// The container's control group, which [`crate::cgroup`] makes.
const GROUP: &str = "/sys/fs/cgroup/container";

/// Keeps the container's processes from every other device. To be called once their group is there; a kernel without control groups is no failure.
pub fn confine() -> io::Result<()> {
    match File::open(GROUP) {
        Ok(group) => devices::confine(group.as_fd()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}
