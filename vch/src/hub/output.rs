//! One output stream of a session and its readers.
//!
//! ```text
//! consumed ......... taken ......... sent ......... received        the guest keeps what is not consumed
//!     ^ the least      ^ of one        ^ to one        ^ by the link
//!       taken            reader          reader
//! ```
//!
//! The link's receive window is the only buffer. What all readers have taken is consumed; a reader that holds the window back while others wait is sent away. A
//! stream without readers is held for those who may come, or dropped: [`super::session`] knows which.

use std::time::Duration;

use tokio::time::Instant;
use wire::link::Link;
use wire::packet::ChannelId;

/// One client's place in a stream.
#[derive(Debug)]
pub(super) struct Reader {
    sent: u64,
    taken: u64,
    /// It does not want the rest.
    given_up: bool,
    /// Since when others wait for it.
    awaited_since: Option<Instant>,
}

/// A stream: where the link has it, and whether anybody ever will read it again.
#[derive(Debug)]
pub(super) struct OutputStream {
    pub(super) channel: ChannelId,
    discarded: bool,
}

/// What becomes of bytes that no reader wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    Hold,
    Drop,
}

impl Reader {
    /// A reader that has everything before `offset`.
    pub(super) fn new(offset: u64) -> Reader {
        Reader { sent: offset, taken: offset, given_up: false, awaited_since: None }
    }

    /// It has dealt with everything before `offset`; more than it was sent it cannot have.
    pub(super) fn take(&mut self, offset: u64) {
        self.taken = self.taken.max(offset.min(self.sent));
    }

    pub(super) fn give_up(&mut self) {
        self.given_up = true;
    }

    /// When its patience with it ends.
    pub(super) fn awaited_until(&self) -> Option<Instant> {
        self.awaited_since.map(|since| since + PATIENCE)
    }
}

impl OutputStream {
    pub(super) fn new(channel: ChannelId) -> OutputStream {
        OutputStream { channel, discarded: false }
    }

    fn received(&self, link: &Link) -> u64 {
        link.consumed(self.channel) + link.readable(self.channel).len() as u64
    }

    /// Where one begins who has nothing: with what is kept, or beside others with what comes.
    pub(super) fn start(&self, link: &Link, alone: bool) -> u64 {
        if alone { link.consumed(self.channel) } else { self.received(link) }
    }

    /// The next piece for a reader, with its offset.
    pub(super) fn next(&self, reader: &mut Reader, link: &Link) -> Option<(u64, Vec<u8>)> {
        if reader.given_up {
            return None;
        }
        // one that comes again may have what the guest is still to send again
        let skip = usize::try_from(reader.sent.checked_sub(link.consumed(self.channel))?).ok()?;
        let bytes = link.readable(self.channel).get(skip..).filter(|bytes| !bytes.is_empty())?;
        let piece = bytes[..bytes.len().min(PIECE)].to_vec();
        let offset = reader.sent;
        reader.sent += piece.len() as u64;
        Some((offset, piece))
    }

    /// A reader was sent all that there will ever be.
    pub(super) fn is_complete(&self, reader: &Reader, link: &Link) -> bool {
        self.discarded || reader.given_up || link.length(self.channel).is_some_and(|length| reader.sent >= length)
    }

    /// A reader was sent all that has come.
    pub(super) fn is_told(&self, reader: &Reader, link: &Link) -> bool {
        self.discarded || reader.given_up || reader.sent >= self.received(link)
    }

    /// Consumes what all readers have taken.
    pub(super) fn consume<'a>(&mut self, readers: impl Iterator<Item = &'a Reader>, unread: Unread, link: &mut Link) {
        let (mut least, mut gave_up) = (None::<u64>, false);
        for reader in readers {
            match reader.given_up {
                true => gave_up = true,
                false => least = Some(least.map_or(reader.taken, |least| least.min(reader.taken))),
            }
        }
        let to = match (least, unread) {
            (Some(least), _) => least,
            (None, _) if gave_up => {
                if !std::mem::replace(&mut self.discarded, true) {
                    link.discard(self.channel);
                }
                return;
            }
            (None, Unread::Drop) => u64::MAX,
            (None, Unread::Hold) => return,
        };
        let to = to.min(self.received(link));
        let count = to.saturating_sub(link.consumed(self.channel));
        if count > 0 {
            // no more than is readable, which is in memory
            link.consume(self.channel, usize::try_from(count).unwrap_or(usize::MAX));
        }
    }

    /// Notes which readers hold the others up.
    pub(super) fn watch<'a>(&self, readers: impl Iterator<Item = &'a mut Reader>, link: &Link, now: Instant) {
        let received = self.received(link);
        let mut readers: Vec<&mut Reader> = readers.filter(|reader| !reader.given_up).collect();
        let others_wait = readers.iter().any(|reader| reader.taken == received);
        let held = others_wait && link.is_full(self.channel);
        for reader in &mut readers {
            // one that is less behind does not keep credit from the guest
            let behind = held && received - reader.taken > (link.readable(self.channel).len() / 2) as u64;
            reader.awaited_since = if behind { reader.awaited_since.or(Some(now)) } else { None };
        }
    }

    /// How far behind a reader is, when the others have waited long enough for it.
    pub(super) fn overdue(&self, reader: &Reader, link: &Link, now: Instant) -> Option<u64> {
        reader.awaited_until().is_some_and(|until| until <= now).then(|| self.received(link) - reader.taken)
    }
}

/// How long clients wait for a slower one that holds a whole window back.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// The most in one piece: a client has a few of them under way.
const PIECE: usize = 64 * 1024;
