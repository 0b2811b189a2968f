//! Options of sockets that nix does not know. What they are set on and why: the caller's decision.

use std::os::fd::{AsRawFd as _, BorrowedFd};

use nix::errno::Errno;

/// Turns an option on whose value is an `int`.
pub fn set_flag(socket: BorrowedFd<'_>, level: libc::c_int, option: libc::c_int) -> nix::Result<()> {
    let on: libc::c_int = 1;
    let length = libc::socklen_t::try_from(size_of_val(&on)).map_err(|_| Errno::EINVAL)?;
    // JUSTIFICATION: nix has no options of netlink(7).
    // SAFETY: the value is a whole int of which the length is said, and it outlives the call, which only reads it.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const on).cast(), length) };
    Errno::result(result).map(drop)
}
