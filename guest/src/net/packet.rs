//! Whole Ethernet frames, past the kernel's own IP: packet(7). What is in them is decided elsewhere.

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socket};

use crate::sys::net::{self, Instruction};

/// Every frame, as its receiver: Ethernet's broadcast address.
pub const BROADCAST: [u8; 6] = [0xff; 6];

/// A socket on one interface.
#[derive(Debug)]
pub struct PacketSocket(OwnedFd);

impl PacketSocket {
    /// One that only sends.
    pub fn sender(index: u32) -> nix::Result<PacketSocket> {
        PacketSocket::bound(index, 0, &[])
    }

    /// One that receives what the filter lets pass, of one protocol (`ETH_P_IP` and its like). Not a frame that came before the filter was there.
    pub fn receiver(index: u32, protocol: u16, filter: &[Instruction]) -> nix::Result<PacketSocket> {
        PacketSocket::bound(index, protocol, filter)
    }

    fn bound(index: u32, protocol: u16, filter: &[Instruction]) -> nix::Result<PacketSocket> {
        // without a protocol until it is bound: it receives nothing
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None)?;
        if !filter.is_empty() {
            net::set_filter(socket.as_fd(), filter)?;
        }
        net::bind_packet(socket.as_fd(), index, protocol)?;
        Ok(PacketSocket(socket))
    }

    /// Sends a frame. That it arrives, nobody says.
    pub fn send(&self, frame: &[u8]) -> nix::Result<()> {
        send(self.0.as_raw_fd(), frame, MsgFlags::empty()).map(drop)
    }

    /// The next frame; what does not fit is cut off.
    pub fn receive<'a>(&self, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
        loop {
            match recv(self.0.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => return buffer.get(..length),
                // the interface was down: it is told once
                Err(Errno::ENETDOWN | Errno::EINTR) => {}
                Err(_) => return None,
            }
        }
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// An Ethernet frame.
pub fn frame(to: [u8; 6], from: [u8; 6], protocol: u16, parts: &[&[u8]]) -> Vec<u8> {
    let mut frame = [&to[..], &from, &protocol.to_be_bytes()].concat();
    parts.iter().for_each(|part| frame.extend_from_slice(part));
    frame
}

/// The sum that IP, UDP and ICMPv6 carry: RFC 1071. Over data that holds its own sum it is 0.
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        }
    }
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !u16::try_from(sum).unwrap_or(0)
}
