//! Which children ended, and how. It records facts and never blocks; what they mean is the caller's.

use nix::errno::Errno;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use wire::status::Ending;

use crate::sys::process;

/// Reaps every child that has ended, orphans of the container included.
pub fn ended_children() -> Vec<(Pid, Ending)> {
    std::iter::from_fn(process::wait_any).collect()
}

/// Whether any child is left, ended or not.
pub fn has_children() -> bool {
    waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT) != Err(Errno::ECHILD)
}
