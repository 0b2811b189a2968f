//! One of a process's standard streams: our end of it, its channel, and what it is called in events.
//!
//! ```text
//! token   = 16 + 4 * session + stream        below 16: the agent's own
//! channel =  1 + 3 * session + stream        0: messages (wire::message)
//! ```

use std::io;
use std::os::fd::OwnedFd;

use guest::events::{Interest, Poller};
use wire::log;
use wire::message::{SessionId, Streams};
use wire::packet::ChannelId;

/// The first token of a stream.
const FIRST_TOKEN: u64 = 16;

/// Which of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    Stdin,
    /// With a terminal, everything.
    Stdout,
    Stderr,
}

impl Which {
    const ALL: [Which; 3] = [Which::Stdin, Which::Stdout, Which::Stderr];

    pub(crate) fn channel(self, session: SessionId) -> ChannelId {
        let Streams { stdin, stdout, stderr } = session.streams();
        [stdin, stdout, stderr][self as usize]
    }

    /// Whose channel it is; `None` for messages.
    pub(crate) fn of_channel(channel: ChannelId) -> Option<(SessionId, Which)> {
        let number = channel.0.checked_sub(1)?;
        Some((SessionId(number / 3), Which::ALL[(number % 3) as usize]))
    }

    pub(crate) fn token(self, session: SessionId) -> u64 {
        FIRST_TOKEN + 4 * u64::from(session.0) + self as u64
    }

    /// Whose token it is; `None` for one of the agent's own.
    pub(crate) fn of_token(token: u64) -> Option<(SessionId, Which)> {
        let number = token.checked_sub(FIRST_TOKEN)?;
        let which = *Which::ALL.get((number % 4) as usize)?;
        Some((SessionId(u32::try_from(number / 4).ok()?), which))
    }

    pub(crate) fn in_log(self) -> log::Stream {
        match self {
            Which::Stderr => log::Stream::Stderr,
            Which::Stdin | Which::Stdout => log::Stream::Stdout,
        }
    }
}

/// Our end of a stream, watched. It does not block.
pub(crate) struct Stream {
    pub(crate) fd: OwnedFd,
    pub(crate) which: Which,
    pub(crate) channel: ChannelId,
    /// The host does not take what comes.
    pub(crate) unwanted: bool,
    /// The most bytes that its process, which has ended, can have left in it.
    pub(crate) left: usize,
    token: u64,
    interest: Interest,
}

impl Stream {
    /// Begins to watch it, for nothing yet.
    pub(crate) fn new(fd: OwnedFd, which: Which, session: SessionId, poller: &Poller) -> io::Result<Stream> {
        let (channel, token) = (which.channel(session), which.token(session));
        poller.add(&fd, token, NOTHING)?;
        Ok(Stream { fd, which, channel, unwanted: false, left: 0, token, interest: NOTHING })
    }

    pub(crate) fn want_readable(&mut self, readable: bool, poller: &Poller) -> io::Result<()> {
        self.want(Interest { readable, ..NOTHING }, poller)
    }

    pub(crate) fn want_writable(&mut self, writable: bool, poller: &Poller) -> io::Result<()> {
        self.want(Interest { writable, ..NOTHING }, poller)
    }

    fn want(&mut self, mut interest: Interest, poller: &Poller) -> io::Result<()> {
        interest.edge = !(interest.readable || interest.writable);
        if interest != self.interest {
            self.interest = interest;
            poller.modify(&self.fd, self.token, interest)?;
        }
        Ok(())
    }

    /// Closes it. It must not only be dropped: while another descriptor leads to the same file, its events would go on.
    pub(crate) fn close(self, poller: &Poller) {
        // an error means that it is not watched
        let _unwatched = poller.remove(&self.fd);
    }
}

/// An end is told even to those who wait for nothing: as a change, it is told once.
const NOTHING: Interest = Interest { readable: false, writable: false, edge: true, ..Interest::READ };

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sessions::LAST_NUMBER;
    use wire::message::MAIN;

    #[test]
    fn every_stream_has_a_token_and_a_channel_of_its_own() {
        let mut seen = std::collections::BTreeSet::new();
        for session in [MAIN, SessionId(1), SessionId(2), SessionId(1023), SessionId(LAST_NUMBER)] {
            for which in Which::ALL {
                let token = which.token(session);
                assert!(token >= FIRST_TOKEN && seen.insert(token), "{session:?} {which:?}");
                assert_eq!(Which::of_token(token), Some((session, which)));
                assert_eq!(Which::of_channel(which.channel(session)), Some((session, which)));
            }
        }
    }

    #[test]
    fn what_is_nobodys_is_nobodys() {
        assert_eq!(Which::of_channel(ChannelId(0)), None);
        assert_eq!((0..FIRST_TOKEN).find_map(Which::of_token), None);
        assert_eq!(Which::of_token(FIRST_TOKEN + 3), None);
        assert_eq!(Which::of_token(u64::MAX), None);
    }
}
