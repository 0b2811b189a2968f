//! Interfaces, as the kernel knows them: found, named, taken up.

use nix::sys::socket::SockProtocol;

use super::netlink::{NetlinkError, Request, Socket};

const LOOPBACK: u32 = 1;

/// Takes `lo` up, as every process expects it.
pub fn loopback_up() -> Result<(), NetlinkError> {
    Socket::open(SockProtocol::NetlinkRoute)?.send(Request::new(libc::RTM_NEWLINK, 0, &header(LOOPBACK, true)))
}

/// `struct ifinfomsg`, rtnetlink(7): family, kind, index, flags, and which of the flags change.
fn header(index: u32, up: bool) -> [u8; 16] {
    let flag = if up { libc::IFF_UP.cast_unsigned() } else { 0 };
    let mut bytes = [0; 16];
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flag.to_ne_bytes());
    bytes[12..].copy_from_slice(&flag.to_ne_bytes());
    bytes
}
