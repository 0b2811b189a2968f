//! Netlink: requests with their attributes, written by hand, and the kernel's answers. What is asked for is decided elsewhere.
//!
//! netlink(7): a message is a header of 16 bytes (length, kind, flags, sequence number, port), a header of the family's own, and attributes; an attribute is a
//! length and a kind of two bytes each, and its value. Everything is in the machine's byte order and padded to 4 bytes.
//! Why by hand: `docs/decisions/0008-netlink-dhcp-by-hand.md`.

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt, socket,
    sockopt,
};

use crate::sys::net::set_flag;

const HEADER: usize = 16;
/// The longest answer: the kernel writes no longer one for a reader that asked for none. Linux, net/netlink/af_netlink.c.
const LONGEST: usize = 32 * 1024;

// include/uapi/linux/netlink.h: kinds of messages, and flags of requests
const ERROR: u16 = 2;
const DONE: u16 = 3;
const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const DUMP: u16 = 0x300;
/// `NLMSGERR_ATTR_MSG`, a text.
const REASON: u16 = 1;
const NESTED: u16 = 0x8000;

/// Creates what must not be there yet.
pub const CREATE: u16 = 0x600;
/// Creates, or takes the place of what is there.
pub const REPLACE: u16 = 0x500;
/// Adds behind what is there: a rule of a chain.
pub const APPEND: u16 = 0xc00;

/// What the kernel said against a request, in its own words where it has some.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{}{text}", .errno.desc(), if .text.is_empty() { "" } else { ": " })]
pub struct NetlinkError {
    pub errno: Errno,
    /// Empty where the kernel explains nothing.
    pub text: String,
    /// Which request of a transaction it is about.
    pub index: usize,
}

impl From<Errno> for NetlinkError {
    fn from(errno: Errno) -> NetlinkError {
        NetlinkError { errno, text: String::new(), index: 0 }
    }
}

/// A message to the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request(Vec<u8>);

impl Request {
    /// `family` is the header that messages of this kind begin with, such as `ifinfomsg`. Flags besides "request" and "acknowledge": [`CREATE`] and its like.
    pub fn new(kind: u16, flags: u16, family: &[u8]) -> Request {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | REQUEST).to_ne_bytes());
        let mut request = Request(bytes);
        request.extend(family);
        request
    }

    pub fn put(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.extend(value);
    }

    /// A number in the machine's byte order, as rtnetlink has them.
    pub fn put_u32(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_ne_bytes());
    }

    /// A text that ends in NUL.
    pub fn put_text(&mut self, kind: u16, text: &str) {
        let mut bytes = text.as_bytes().to_vec();
        bytes.push(0);
        self.put(kind, &bytes);
    }

    /// An attribute that consists of the attributes which `fill` puts.
    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Request)) {
        let start = self.0.len();
        self.put(kind | NESTED, &[]);
        fill(self);
        let length = u16::try_from(self.0.len() - start).unwrap_or(u16::MAX);
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }

    fn extend(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn seal(&mut self, flags: u16, sequence: u32) {
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        let flags = flags | u16_at(&self.0, 6);
        self.0[6..8].copy_from_slice(&flags.to_ne_bytes());
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
    }
}

/// A message of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub kind: u16,
    /// The family's header, then the attributes.
    pub body: Vec<u8>,
}

impl Answer {
    /// The first attribute of that kind behind a family's header of `header` bytes.
    pub fn attribute(&self, header: usize, kind: u16) -> Option<&[u8]> {
        attributes(self.body.get(header..)?).find(|&(found, _)| found == kind).map(|(_, value)| value)
    }
}

/// The attributes in a message's body, or in a nested attribute: kind and value of each. Garbage ends it.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes.get(..4)?, 0));
        let kind = u16_at(bytes, 2) & !(NESTED | 0x4000);
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// A conversation with one subsystem of the kernel. It answers while it is asked: nothing here waits.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

impl Socket {
    /// To [`SockProtocol::NetlinkRoute`] or [`SockProtocol::NetlinkNetFilter`].
    pub fn open(protocol: SockProtocol) -> nix::Result<Socket> {
        let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK] {
            set_flag(fd.as_fd(), libc::SOL_NETLINK, option)?;
        }
        Ok(Socket { fd, sequence: 0 })
    }

    /// Asks for one thing to be done.
    pub fn send(&mut self, request: Request) -> Result<(), NetlinkError> {
        self.send_all(vec![request], 0, 0)
    }

    /// Asks for things that are done together or not at all, of one subsystem of the firewall: `NFNL_SUBSYS_NFTABLES`.
    pub fn transact(&mut self, subsystem: u8, requests: Vec<Request>) -> Result<(), NetlinkError> {
        let edge = |kind: libc::c_int| Request::new(u16::try_from(kind).unwrap_or_default(), 0, &[0, 0, 0, subsystem]);
        let mut all = vec![edge(libc::NFNL_MSG_BATCH_BEGIN)];
        all.extend(requests);
        all.push(edge(libc::NFNL_MSG_BATCH_END));
        self.send_all(all, 1, 1)
    }

    /// Everything that a request asks to be listed.
    pub fn dump(&mut self, mut request: Request) -> Result<Vec<Answer>, NetlinkError> {
        self.sequence += 1;
        request.seal(DUMP, self.sequence);
        self.write(&request.0)?;
        let mut answers = Vec::new();
        let last = self.sequence;
        loop {
            for (sequence, answer) in self.read()? {
                match answer.kind {
                    _ if sequence != last => {}
                    ERROR => return verdict(&answer.body, HEADER, 0).map(|()| answers),
                    DONE => return verdict(&answer.body, 0, 0).map(|()| answers),
                    _ => answers.push(answer),
                }
            }
        }
    }

    /// The one before `after` others is acknowledged: an error of any comes in any case. The first `before` are nobody's.
    fn send_all(&mut self, mut requests: Vec<Request>, before: usize, after: usize) -> Result<(), NetlinkError> {
        let first = self.sequence + 1;
        let acknowledged = requests.len() - 1 - after;
        let mut bytes = Vec::new();
        let mut last = 0;
        for (index, request) in requests.iter_mut().enumerate() {
            self.sequence += 1;
            if index == acknowledged {
                last = self.sequence;
            }
            request.seal(if index == acknowledged { ACK } else { 0 }, self.sequence);
            bytes.extend_from_slice(&request.0);
        }
        self.write(&bytes)?;
        loop {
            for (sequence, answer) in self.read()? {
                if answer.kind != ERROR || sequence < first {
                    continue;
                }
                verdict(&answer.body, HEADER, ((sequence - first) as usize).saturating_sub(before))?;
                if sequence == last {
                    return Ok(());
                }
            }
        }
    }

    fn write(&self, bytes: &[u8]) -> nix::Result<()> {
        // socket(7) allows 200 KiB, of which the kernel keeps a little for itself; a firewall of many ports is longer
        if bytes.len() > 100 * 1024 {
            setsockopt(&self.fd, sockopt::SndBufForce, &bytes.len())?;
        }
        send(self.fd.as_raw_fd(), bytes, MsgFlags::empty()).map(drop)
    }

    /// The messages of the next datagram. `EAGAIN` means that the kernel has nothing more to say.
    fn read(&self) -> nix::Result<Vec<(u32, Answer)>> {
        let mut buffer = vec![0; LONGEST];
        let length = recv(self.fd.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT)?;
        Ok(messages(&buffer[..length]))
    }
}

/// The messages in a datagram, each with its sequence number. Garbage ends it.
fn messages(mut bytes: &[u8]) -> Vec<(u32, Answer)> {
    let mut all = Vec::new();
    while bytes.len() >= HEADER {
        let length = u32_at(bytes, 0) as usize;
        let Some(body) = bytes.get(HEADER..length) else { break };
        all.push((u32_at(bytes, 8), Answer { kind: u16_at(bytes, 4), body: body.to_vec() }));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    all
}

/// What a message says that ends a request: a negative number of errno(3) or 0; `between` bytes, which are the request's own header; attributes.
fn verdict(body: &[u8], between: usize, index: usize) -> Result<(), NetlinkError> {
    let number = body.get(..4).map_or(0, |_| u32_at(body, 0).cast_signed());
    if number == 0 {
        return Ok(());
    }
    let told = attributes(body.get(4 + between..).unwrap_or_default()).find(|&(kind, _)| kind == REASON);
    let text = told.map(|(_, text)| String::from_utf8_lossy(text).trim_end_matches('\0').to_owned());
    Err(NetlinkError { errno: Errno::from_raw(-number), text: text.unwrap_or_default(), index })
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_what_netlink_7_says() {
        let mut request = Request::new(16, CREATE, &[0; 4]);
        request.put(1, &[0xaa; 5]);
        request.nest(2, |nested| nested.put_text(3, "lo"));
        request.seal(ACK, 7);
        let expected: &[&[u8]] = &[
            &[48, 0, 0, 0, 16, 0, 0x05, 0x06, 7, 0, 0, 0, 0, 0, 0, 0],
            &[0; 4],
            &[9, 0, 1, 0, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0, 0, 0],
            &[12, 0, 2, 0x80, 7, 0, 3, 0, b'l', b'o', 0, 0],
        ];
        let expected = expected.concat();
        assert_eq!(request.0[4..], expected[4..]);
        assert_eq!(u32_at(&request.0, 0) as usize, request.0.len());
        let read: Vec<_> = attributes(&request.0[20..]).collect();
        assert_eq!(read, [(1, &[0xaa; 5][..]), (2, &[7, 0, 3, 0, b'l', b'o', 0, 0])]);
    }

    #[test]
    fn errors_are_told_in_the_kernels_words() {
        let mut body = (-22i32).to_ne_bytes().to_vec();
        body.extend([0; HEADER]);
        assert_eq!(verdict(&body, HEADER, 3).unwrap_err().to_string(), "Invalid argument");
        body.extend([10, 0, 1, 0, b'b', b'a', b'd', b' ', b'x', 0]);
        let error = verdict(&body, HEADER, 3).unwrap_err();
        assert_eq!((error.to_string(), error.index), ("Invalid argument: bad x".into(), 3));
        body[..4].fill(0);
        assert_eq!(verdict(&body, HEADER, 0), Ok(()));
        assert_eq!(verdict(&[], 0, 0), Ok(()));
    }

    #[test]
    fn garbage_is_no_panic() {
        let mut bytes: Vec<u8> = (0..=255).cycle().take(600).collect();
        for at in 0..bytes.len() {
            assert!(messages(&bytes[at..]).len() <= 40 && attributes(&bytes[at..]).count() <= 150);
            bytes[at] ^= 0x5a;
        }
        // lengths that lie: shorter than a header, longer than there is
        for length in [0u32, 1, 15, 17, u32::MAX] {
            let mut bytes = vec![0; 16];
            bytes[..4].copy_from_slice(&length.to_ne_bytes());
            assert!(messages(&bytes).is_empty());
        }
        for length in [0u16, 3, 5, u16::MAX] {
            assert_eq!(attributes(&[length.to_ne_bytes(), [1, 0]].concat()).count(), 0);
        }
    }

    /// The kernel under the test is asked what needs no right.
    #[test]
    fn the_kernel_answers() {
        let mut socket = Socket::open(SockProtocol::NetlinkRoute).unwrap();
        let links = socket.dump(Request::new(libc::RTM_GETLINK, 0, &[0; 16])).unwrap();
        let named = links.iter().any(|link| link.attribute(16, libc::IFLA_IFNAME) == Some(b"lo\0"));
        assert!(named && links.iter().all(|link| link.kind == libc::RTM_NEWLINK));
        let error = socket.send(Request::new(libc::RTM_DELLINK, 0, &[0; 16])).unwrap_err();
        assert!([Errno::EPERM, Errno::EINVAL].contains(&error.errno), "{error}");
        assert_eq!(socket.dump(Request::new(9999, 0, &[0; 16])).unwrap_err().errno, Errno::EOPNOTSUPP);
    }
}
