//! One connection to the link's device: frames out as the device takes them, bytes in, and a recording of both for a test that repeats them.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use wire::link::Link;

/// A recording of the line.
#[derive(Debug, Default)]
pub struct Tap {
    pub sent: Vec<u8>,
    pub received: Vec<u8>,
}

/// A connection to the link's device.
pub(crate) struct Line {
    socket: UnixStream,
    outbox: Vec<u8>,
    gone: usize,
}

impl Line {
    pub(crate) fn new(socket: UnixStream) -> Line {
        socket.set_nonblocking(true).expect("a socket");
        Line { socket, outbox: Vec::new(), gone: 0 }
    }

    /// Adds bytes that are none of the link's.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.outbox.extend_from_slice(bytes);
    }

    /// The device has not taken everything.
    pub(crate) fn is_pending(&self) -> bool {
        self.gone < self.outbox.len()
    }

    /// What is half written stays half written.
    pub(crate) fn drop_pending(&mut self) {
        self.outbox.clear();
        self.gone = 0;
    }

    /// Sends until there is nothing to send, or the device takes no more; false when it is gone.
    pub(crate) fn transmit(&mut self, link: &mut Link, tap: &mut Option<Tap>, now: Duration) -> bool {
        loop {
            if self.gone == self.outbox.len() {
                self.outbox.clear();
                self.gone = 0;
                if !link.poll_transmit(now, &mut self.outbox) {
                    return true;
                }
                if let Some(tap) = tap {
                    tap.sent.extend_from_slice(&self.outbox);
                }
            }
            match self.socket.write(&self.outbox[self.gone..]) {
                Ok(count) => self.gone += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(_) => return false,
            }
        }
    }

    /// Waits for bytes, or for room when there is something to send, and reads once; false when the device is gone.
    pub(crate) fn receive(&mut self, link: &mut Link, tap: &mut Option<Tap>, limit: Duration, now: Duration) -> bool {
        let room = if self.is_pending() { PollFlags::POLLOUT } else { PollFlags::empty() };
        let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN | room)];
        let due = link.poll_timeout().map_or(limit, |at| at.saturating_sub(now).min(limit));
        // rounded up, so that what is due is due when it returns
        let timeout = PollTimeout::try_from(due.as_millis() + u128::from(!due.is_zero())).expect("a short time");
        poll(&mut fds, timeout).expect("poll");
        let mut buffer = [0; 1 << 16];
        match self.socket.read(&mut buffer) {
            Ok(0) => false,
            Ok(count) => {
                link.handle_bytes(now, &buffer[..count]);
                if let Some(tap) = tap {
                    tap.received.extend_from_slice(&buffer[..count]);
                }
                true
            }
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        }
    }
}
