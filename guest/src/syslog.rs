//! Lines of output as messages for a syslog server: their text, and the connection that carries them. It never blocks.
//!
//! ```text
//! <30>1 2026-11-21T12:14:20.123456Z web 3f0c9a1be277 42 - - a line of standard output
//! ```
//!
//! Sources: RFC 5424 (the message), RFC 6587, 3.4.1 (counted octets over TCP), RFC 5426 (one message a datagram). What is sent, what waits, and what is dropped: the caller's decision.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, MsgFlags, SockFlag, SockType, SockaddrIn, SockaddrIn6, sockopt};
use wire::spec::{Syslog, Transport};

use crate::clock::Utc;
use crate::sys::terminal;

/// The longest message, in bytes, its header included: what every receiver should take (RFC 5424, 6.1).
pub const LONGEST: usize = 2048;

/// Facility and severity of a message, in one number: RFC 5424, 6.2.1. They are those of vSphere Integrated Containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Priority {
    /// daemon, informational: standard output.
    Output = 30,
    /// daemon, error: standard error.
    Error = 27,
    /// daemon, warning: of tether itself.
    Warning = 28,
}

/// Who says it: the fields that every message has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    host: String,
    app: String,
}

impl Origin {
    /// A host's name and a program's. Characters that cannot stand there become `_`, and what is too long is cut: RFC 5424, 6.
    pub fn new(host: &str, app: &str) -> Origin {
        Origin { host: field(host, 255), app: field(app, 48) }
    }

    /// The message, in the frame that `transport` needs. `pid` 0 is nobody's. Of a text that is longer than [`Origin::room`], the rest is left out.
    pub fn message(&self, transport: Transport, priority: Priority, pid: u32, time_ns: u64, text: &[u8]) -> Vec<u8> {
        let mut header = self.header(priority, pid, time_ns);
        let text = &text[..text.len().min(LONGEST - header.len())];
        if let Transport::Tcp = transport {
            header.insert_str(0, &format!("{} ", header.len() + text.len()));
        }
        let mut message = header.into_bytes();
        message.extend_from_slice(text);
        message
    }

    /// How long a text may be, in bytes.
    pub fn room(&self) -> usize {
        LONGEST - self.header(Priority::Output, u32::MAX, 0).len()
    }

    fn header(&self, priority: Priority, pid: u32, time_ns: u64) -> String {
        let Origin { host, app } = self;
        let pid = if pid == 0 { "-".into() } else { pid.to_string() };
        format!("<{}>1 {} {host} {app} {pid} - - ", priority as u8, Utc(time_ns))
    }
}

fn field(text: &str, longest: usize) -> String {
    let text: String =
        text.chars().take(longest).map(|char| if char.is_ascii_graphic() { char } else { '_' }).collect();
    if text.is_empty() { "-".into() } else { text }
}

/// A stream's bytes on their way to being lines.
#[derive(Debug, Default)]
pub struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    /// Hands on every line that `bytes` completes, without its end. One that is longer than `longest` is cut in several, between characters if it is UTF-8.
    pub fn feed(&mut self, bytes: &[u8], longest: usize, mut take: impl FnMut(&[u8])) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.partial.extend_from_slice(piece);
            let is_whole = self.partial.pop_if(|byte| *byte == b'\n').is_some();
            if is_whole {
                // a terminal ends its lines with both
                self.partial.pop_if(|byte| *byte == b'\r');
            }
            let mut rest = &self.partial[..];
            while rest.len() > longest {
                let (line, behind) = rest.split_at(cut(rest, longest));
                take(line);
                rest = behind;
            }
            if is_whole {
                take(rest);
                rest = &[];
            }
            let gone = self.partial.len() - rest.len();
            self.partial.drain(..gone);
        }
    }

    /// The last line, if nothing has ended it.
    pub fn finish(&mut self) -> Option<Vec<u8>> {
        (!self.partial.is_empty()).then(|| std::mem::take(&mut self.partial))
    }
}

/// Where to cut, at `longest` or before: a byte of the form 10xxxxxx is not the first of its character, which has four at most.
fn cut(bytes: &[u8], longest: usize) -> usize {
    (longest - 3..=longest).rev().find(|at| bytes[*at] & 0xc0 != 0x80).unwrap_or(longest)
}

/// A socket on its way to a server, or there.
#[derive(Debug)]
pub struct Connection {
    fd: OwnedFd,
    transport: Transport,
}

/// A server that acknowledges nothing for so long, in milliseconds, is gone: tcp(7), `TCP_USER_TIMEOUT`.
const UNACKNOWLEDGED_MS: u32 = 30_000;

impl Connection {
    /// Begins. An event of it tells that it is there, or has failed: see [`Connection::failure`].
    pub fn begin(to: Syslog) -> io::Result<Connection> {
        let family = if to.server.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let kind = match to.transport {
            Transport::Tcp => SockType::Stream,
            Transport::Udp => SockType::Datagram,
        };
        let fd = socket::socket(family, kind, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, None)?;
        if let Transport::Tcp = to.transport {
            socket::setsockopt(&fd, sockopt::TcpUserTimeout, &UNACKNOWLEDGED_MS)?;
        }
        let connected = match to.server {
            SocketAddr::V4(server) => socket::connect(fd.as_raw_fd(), &SockaddrIn::from(server)),
            SocketAddr::V6(server) => socket::connect(fd.as_raw_fd(), &SockaddrIn6::from(server)),
        };
        match connected {
            Ok(()) | Err(Errno::EINPROGRESS) => Ok(Connection { fd, transport: to.transport }),
            Err(errno) => Err(errno.into()),
        }
    }

    /// What has happened to it, once: a refusal, a silence that was too long.
    pub fn failure(&self) -> Option<io::Error> {
        match socket::getsockopt(&self.fd, sockopt::SocketError) {
            Ok(0) => None,
            Ok(number) => Some(io::Error::from_raw_os_error(number)),
            Err(errno) => Some(errno.into()),
        }
    }

    /// The server has ended it. What else it says is read and forgotten: syslog has no answers.
    pub fn is_ended(&self) -> bool {
        let mut buffer = [0; 512];
        // a datagram is an end of nothing, and who sends no more of them does not say so
        if self.transport == Transport::Udp {
            return false;
        }
        loop {
            match socket::recv(self.fd.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(0) => return true,
                Ok(_) | Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return false,
                Err(_) => return true,
            }
        }
    }

    /// How much of it has been taken; 0 when nothing can be now, and an event will tell.
    pub fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        match socket::send(self.fd.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) {
            Ok(count) => Ok(count),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(0),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Everything that was sent has been acknowledged, or at least has left.
    pub fn is_flushed(&self) -> bool {
        // SIOCOUTQ has the number of TIOCOUTQ: tcp(7)
        terminal::unsent(&self.fd) == 0
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests;
