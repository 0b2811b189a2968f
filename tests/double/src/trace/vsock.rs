//! The vsock of a guest of VMware's, for a program whose kernel has none: its sockets become unix sockets to our own server, and its addresses ours. Pure: which
//! registers a system call is to begin and end with.
//!
//! Sources: vsock(7), unix(7); `struct sockaddr_vm` in linux/vm_sockets.h; open-vm-tools, lib/rpcChannel/simpleSocket.c, for what it calls.

use std::collections::BTreeMap;

use nix::errno::Errno;

use crate::Origin;
use crate::vsock::{HYPERVISOR, RPCI_PORT, TCLO_PORT};

/// linux/vm_sockets.h
pub(crate) const AF_VSOCK: u64 = 40;

/// A program's sockets of this kind, by number, each with the port that it is bound to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sockets(BTreeMap<u64, u32>);

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is nobody's business.
    Pass,
    /// It is not made, and its result is this.
    Answer(Result<u64, Errno>),
    /// It goes to our server.
    Connect { port: u32, origin: Origin },
}

impl Sockets {
    /// A socket has this number.
    pub(crate) fn add(&mut self, number: u64) {
        self.0.insert(number, u32::MAX);
    }

    pub(crate) fn close(&mut self, number: u64) {
        self.0.remove(&number);
    }

    pub(crate) fn has(&self, number: u64) -> bool {
        self.0.contains_key(&number)
    }

    /// The address is what the program gave, or nothing.
    pub(crate) fn bind(&mut self, number: u64, address: &[u8]) -> Fate {
        match (self.0.get_mut(&number), Address::read(address)) {
            (None, _) => Fate::Pass,
            (Some(bound), Some(address)) => {
                *bound = address.port;
                Fate::Answer(Ok(0))
            }
            (Some(_), None) => Fate::Answer(Err(Errno::EINVAL)),
        }
    }

    pub(crate) fn connect(&self, number: u64, address: &[u8]) -> Fate {
        match (self.0.get(&number), Address::read(address)) {
            (None, _) => Fate::Pass,
            (Some(&bound), Some(Address { port: port @ (RPCI_PORT | TCLO_PORT), cid: HYPERVISOR })) => {
                Fate::Connect { port, origin: Origin::of(bound) }
            }
            (Some(_), Some(_)) => Fate::Answer(Err(Errno::ECONNRESET)),
            (Some(_), None) => Fate::Answer(Err(Errno::EINVAL)),
        }
    }

    /// Options that only a vsock has are taken, and change nothing.
    pub(crate) fn option(&self, number: u64, level: u64) -> Fate {
        match self.has(number) && level == AF_VSOCK {
            true => Fate::Answer(Ok(0)),
            false => Fate::Pass,
        }
    }
}

/// `struct sockaddr_vm`: family, zero, port, CID.
struct Address {
    port: u32,
    cid: u32,
}

impl Address {
    fn read(bytes: &[u8]) -> Option<Address> {
        let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let family = u16::from_le_bytes(bytes.get(..2)?.try_into().ok()?);
        (u64::from(family) == AF_VSOCK).then_some(Address { port: word(4)?, cid: word(8)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(family: u16, port: u32, cid: u32) -> Vec<u8> {
        [&family.to_le_bytes()[..], &[0, 0], &port.to_le_bytes(), &cid.to_le_bytes(), &[0; 4]].concat()
    }

    #[test]
    fn who_is_bound_below_1024_is_privileged() {
        let mut sockets = Sockets::default();
        sockets.add(5);
        let vmx = address(40, 976, 0);
        assert_eq!(sockets.connect(5, &vmx), Fate::Connect { port: 976, origin: Origin::Unprivileged });
        for (port, origin) in [(1023, Origin::Privileged), (1024, Origin::Unprivileged)] {
            assert_eq!(sockets.bind(5, &address(40, port, u32::MAX)), Fate::Answer(Ok(0)));
            assert_eq!(sockets.connect(5, &vmx), Fate::Connect { port: 976, origin });
        }
        sockets.close(5);
        assert_eq!(sockets.connect(5, &vmx), Fate::Pass);
    }

    #[test]
    fn nothing_else_is_reached() {
        let mut sockets = Sockets::default();
        sockets.add(5);
        for (port, cid) in [(974, 0), (976, 2), (0, 0)] {
            assert_eq!(sockets.connect(5, &address(40, port, cid)), Fate::Answer(Err(Errno::ECONNRESET)));
        }
        for bad in [vec![], address(1, 976, 0), address(40, 976, 0)[..11].to_vec()] {
            assert_eq!(sockets.connect(5, &bad), Fate::Answer(Err(Errno::EINVAL)));
            assert_eq!(sockets.bind(5, &bad), Fate::Answer(Err(Errno::EINVAL)));
        }
        assert_eq!(sockets.bind(6, &address(40, 1, 0)), Fate::Pass);
        assert_eq!(sockets.option(5, 40), Fate::Answer(Ok(0)));
        assert_eq!(sockets.option(5, 1), Fate::Pass);
        assert_eq!(sockets.option(6, 40), Fate::Pass);
    }
}
