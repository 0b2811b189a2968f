//! Options and addresses of sockets that nix does not know. What they are for: the caller's decision.

use std::os::fd::{AsRawFd as _, BorrowedFd};

use nix::errno::Errno;

/// One instruction of a filter: Linux, Documentation/networking/filter.rst.
pub type Instruction = libc::sock_filter;

/// Turns an option on whose value is an `int`.
pub fn set_flag(socket: BorrowedFd<'_>, level: libc::c_int, option: libc::c_int) -> nix::Result<()> {
    let on: libc::c_int = 1;
    let length = libc::socklen_t::try_from(size_of_val(&on)).map_err(|_| Errno::EINVAL)?;
    // JUSTIFICATION: nix has no options of netlink(7).
    // SAFETY: the value is a whole int of which the length is said, and it outlives the call, which only reads it.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const on).cast(), length) };
    Errno::result(result).map(drop)
}

/// Lets a socket receive only what the filter accepts: socket(7), `SO_ATTACH_FILTER`.
pub fn set_filter(socket: BorrowedFd<'_>, filter: &[Instruction]) -> nix::Result<()> {
    let len = u16::try_from(filter.len()).map_err(|_| Errno::EINVAL)?;
    let program = libc::sock_fprog { len, filter: filter.as_ptr().cast_mut() };
    let length = libc::socklen_t::try_from(size_of_val(&program)).map_err(|_| Errno::EINVAL)?;
    let (level, option) = (libc::SOL_SOCKET, libc::SO_ATTACH_FILTER);
    // JUSTIFICATION: nix has no socket filters on Linux.
    // SAFETY: the value is a whole sock_fprog of which the length is said; it names `len` instructions, which the kernel copies and, in spite of the pointer's
    // type, does not write. Both outlive the call.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const program).cast(), length) };
    Errno::result(result).map(drop)
}

/// Binds a packet socket to the interface with that number, and to a protocol; 0 receives nothing: packet(7).
pub fn bind_packet(socket: BorrowedFd<'_>, index: u32, protocol: u16) -> nix::Result<()> {
    // SAFETY: an all-zero sockaddr_ll is a valid value: plain numbers.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).map_err(|_| Errno::EINVAL)?;
    address.sll_protocol = protocol.to_be();
    address.sll_ifindex = i32::try_from(index).map_err(|_| Errno::ENODEV)?;
    let length = libc::socklen_t::try_from(size_of_val(&address)).map_err(|_| Errno::EINVAL)?;
    // JUSTIFICATION: nix can read addresses of packet sockets, and cannot make one.
    // SAFETY: the address is a whole sockaddr_ll of which the length is said, and it outlives the call, which only reads it.
    let result = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
    Errno::result(result).map(drop)
}
