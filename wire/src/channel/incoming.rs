//! The receiving half of a channel: what is accepted, what waits to be read, and what the peer is told of it.

use super::{LONGEST, Queue, index};

/// What a receiver makes of a piece of the stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Accepted {
    /// New bytes, in order.
    New,
    /// Nothing new: a repetition, or a question how far we are.
    Old,
    /// Bytes before it are missing.
    Gap,
    /// Beyond the credit, or beyond the stated end.
    Violation,
}

/// The receiving half.
#[derive(Debug)]
pub(crate) struct Incoming {
    kept: Queue,
    consumed: u64,
    /// Bytes that may wait here to be read.
    window: u64,
    /// The limit that the peer was told last.
    told: u64,
    /// What the peer was told last of what is consumed.
    told_taken: u64,
    end: Option<u64>,
    /// Nobody reads: bytes are counted and dropped.
    discarding: bool,
}

impl Incoming {
    pub(crate) fn new(window: u32) -> Incoming {
        let window = u64::from(window);
        Incoming {
            kept: Queue::default(),
            consumed: 0,
            window,
            told: window,
            told_taken: 0,
            end: None,
            discarding: false,
        }
    }

    /// Bytes received in order, and one more for the end.
    pub(crate) fn received(&self) -> u64 {
        self.bytes() + u64::from(self.end.is_some())
    }

    /// Bytes that the application has dealt with.
    pub(crate) fn consumed(&self) -> u64 {
        self.consumed
    }

    /// The end has come.
    pub(crate) fn has_end(&self) -> bool {
        self.end.is_some()
    }

    /// How long the stream is, once its end has come.
    pub(crate) fn length(&self) -> Option<u64> {
        self.end
    }

    /// The peer has sent all that it may.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes() == self.told
    }

    fn bytes(&self) -> u64 {
        self.consumed + self.kept.len()
    }

    /// The limit to tell now; remembers what is told.
    pub(crate) fn grant(&mut self) -> u64 {
        self.told = self.consumed + self.window;
        self.told_taken = self.consumed;
        self.told
    }

    /// The limit that the peer was told last.
    pub(crate) fn told(&self) -> u64 {
        self.told
    }

    /// The limit for who begins at `offset`.
    pub(crate) fn limit_from(&self, offset: u64) -> u64 {
        offset + self.window
    }

    /// So much has been read since the last grant that the peer should hear of it: half the window, or everything.
    pub(crate) fn owes_credit(&self) -> bool {
        let all = self.kept.len() == 0 && self.told_taken < self.consumed;
        all || self.consumed + self.window >= self.told + self.window / 2
    }

    pub(crate) fn accept(&mut self, offset: u64, bytes: &[u8]) -> Accepted {
        let (received, end) = (self.bytes(), offset.saturating_add(bytes.len() as u64));
        if end > self.told || self.end.is_some_and(|last| end > last) {
            return Accepted::Violation;
        }
        if end <= received {
            return Accepted::Old;
        }
        match self.discarding {
            true => self.consumed = end,
            false if offset > received => return Accepted::Gap,
            false => self.kept.push(&bytes[index(received - offset)..]),
        }
        Accepted::New
    }

    /// The stream has exactly `offset` bytes.
    pub(crate) fn accept_end(&mut self, offset: u64) -> Accepted {
        if self.end.is_some_and(|end| end != offset) || offset < self.bytes() {
            return Accepted::Violation;
        }
        if offset > self.bytes() {
            match self.discarding {
                false => return Accepted::Gap,
                true if offset > LONGEST => return Accepted::Violation,
                // its sender has dropped the rest
                true => self.consumed = offset,
            }
        }
        match self.end.replace(offset) {
            Some(_) => Accepted::Old,
            None => Accepted::New,
        }
    }

    pub(crate) fn readable(&self) -> &[u8] {
        self.kept.as_slice()
    }

    pub(crate) fn consume(&mut self, count: usize) {
        self.kept.drop_front(count);
        self.consumed += count as u64;
    }

    /// Everything has been read, and there will be no more.
    pub(crate) fn is_ended(&self) -> bool {
        self.end == Some(self.consumed)
    }

    pub(crate) fn discard(&mut self) {
        self.consume(self.readable().len());
        self.discarding = true;
    }

    pub(crate) fn is_discarding(&self) -> bool {
        self.discarding
    }

    /// Forgets all but the first `count` readable bytes: the sender has them still.
    pub(crate) fn forget_after(&mut self, count: usize) {
        self.kept.truncate(count);
    }

    /// Nothing more will come, and nobody will say where the stream ends.
    pub(crate) fn break_off(&mut self) {
        self.end = self.end.or(Some(self.bytes()));
    }

    /// Takes over a stream from the receiver that has taken `kept` bytes and is no more.
    pub(crate) fn adopt(&mut self, kept: u64) {
        self.kept = Queue::default();
        (self.consumed, self.told_taken, self.end) = (kept, kept, None);
        self.told = self.limit_from(kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_taken_once_and_in_order() {
        let mut input = Incoming::new(8);
        assert_eq!(input.accept(0, b"abc"), Accepted::New);
        assert_eq!(input.accept(4, b"e"), Accepted::Gap);
        assert_eq!(input.accept(1, b"bcd"), Accepted::New);
        assert_eq!(input.accept(0, b"abcd"), Accepted::Old);
        assert_eq!(input.readable(), b"abcd");
        assert_eq!(input.accept(4, b"efghi"), Accepted::Violation);
        assert_eq!(input.accept_end(5), Accepted::Gap);
        assert_eq!(input.accept_end(4), Accepted::New);
        assert_eq!(input.accept(4, b"e"), Accepted::Violation);
        assert!(!input.is_ended());
        input.consume(4);
        assert!(input.is_ended());
        assert_eq!(input.grant(), 12);
    }

    #[test]
    fn the_peer_hears_when_half_a_window_or_everything_is_read() {
        let mut input = Incoming::new(8);
        input.accept(0, b"abcdefgh");
        input.grant();
        input.consume(3);
        assert!(!input.owes_credit());
        input.consume(1);
        assert!(input.owes_credit());
        input.grant();
        input.consume(3);
        assert!(!input.owes_credit());
        input.consume(1);
        assert!(input.owes_credit(), "else its sender would keep it for ever");
        input.grant();
        assert!(!input.owes_credit());
    }

    #[test]
    fn a_discarded_stream_keeps_no_bytes_but_its_place() {
        let mut input = Incoming::new(8);
        input.accept(0, b"abc");
        input.discard();
        assert_eq!(input.accept(3, b"de"), Accepted::New);
        assert!(input.readable().is_empty());
        assert_eq!((input.received(), input.grant()), (5, 13));
        assert_eq!(input.accept(7, b"h"), Accepted::New, "what is missing is not missed");
        assert_eq!(input.accept_end(20), Accepted::New);
        assert!(input.is_ended());
    }

    #[test]
    fn what_is_forgotten_may_come_again() {
        let mut input = Incoming::new(8);
        input.accept(0, b"abcdef");
        input.consume(1);
        input.forget_after(2);
        assert_eq!((input.readable(), input.received()), (&b"bc"[..], 3));
        assert_eq!(input.accept(3, b"d"), Accepted::New);
    }
}
