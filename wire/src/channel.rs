//! One numbered byte stream of a link, in each direction: offsets, credit, and the bytes that may be needed again.
//!
//! Every byte of a stream has an absolute offset. The receiver says up to which offset the sender may go (`limit`) and
//! how far it has come (`received`). The sender keeps what it has written until it is received, so that after a cut it
//! can go back. A stream ends at a stated offset, so an end is never mistaken for a cut.
//!
//! ```text
//! sender      acked ........ sent ........ written            (kept: acked..written)
//! receiver    consumed ..... received ............ limit      (kept: consumed..received)
//! ```
//!
//! This file decides what may be sent and what is accepted. When to send is [`crate::link`]'s business.

/// Bytes in order, taken from the front.
#[derive(Debug, Default)]
struct Queue {
    bytes: Vec<u8>,
    start: usize,
}

impl Queue {
    fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 && self.bytes.len() + bytes.len() > self.bytes.capacity() {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    fn drop_front(&mut self, count: usize) {
        self.start += count;
        if self.start == self.bytes.len() {
            self.bytes.clear();
            self.start = 0;
        }
    }
}

/// How far the end of a stream has come, once it is finished and everything before it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Unsent,
    Sent,
    Acked,
}

/// The sending half.
#[derive(Debug)]
pub(crate) struct Outgoing {
    kept: Queue,
    acked: u64,
    sent: u64,
    /// The farthest that was ever sent, the end counted as one: after a rewind the peer may still tell that it has it.
    farthest: u64,
    limit: u64,
    /// No more will be written.
    finished: bool,
    end: End,
    /// The peer does not want the rest.
    reset: bool,
}

impl Outgoing {
    pub(crate) fn new(limit: u64) -> Outgoing {
        Outgoing {
            kept: Queue::default(),
            acked: 0,
            sent: 0,
            farthest: 0,
            limit,
            finished: false,
            end: End::Unsent,
            reset: false,
        }
    }

    /// The offset after the last byte written.
    pub(crate) fn written(&self) -> u64 {
        self.acked + self.kept.as_slice().len() as u64
    }

    /// Bytes kept: not yet received by the peer.
    pub(crate) fn buffered(&self) -> usize {
        self.kept.as_slice().len()
    }

    /// Queues `bytes`. After a reset they are dropped: nobody reads them.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        if !self.reset && !self.finished {
            self.kept.push(bytes);
        }
    }

    pub(crate) fn finish(&mut self) {
        self.finished = true;
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.finished
    }

    pub(crate) fn reset(&mut self) {
        let written = self.written();
        *self =
            Outgoing { acked: written, sent: written, farthest: written, end: End::Acked, ..Outgoing::new(written) };
        self.finished = true;
        self.reset = true;
    }

    /// The peer has everything, the end included.
    pub(crate) fn is_flushed(&self) -> bool {
        self.acked == self.written() && (!self.finished || self.end == End::Acked)
    }

    /// How many bytes wait for their turn and may go now.
    pub(crate) fn sendable(&self) -> usize {
        index(self.written().min(self.limit).saturating_sub(self.sent))
    }

    pub(crate) fn wants_end(&self) -> bool {
        self.finished && self.end == End::Unsent && self.sent == self.written()
    }

    /// Something is under way of which the peer has not told that it came.
    pub(crate) fn in_flight(&self) -> bool {
        self.sent > self.acked || self.end == End::Sent
    }

    /// The next bytes to go, at most `most`, with their offset.
    pub(crate) fn take(&mut self, most: usize) -> (u64, &[u8]) {
        let (from, len) = (self.sent, self.sendable().min(most));
        let start = index(from - self.acked);
        self.sent += len as u64;
        self.farthest = self.farthest.max(self.sent);
        (from, &self.kept.as_slice()[start..start + len])
    }

    pub(crate) fn take_end(&mut self) -> u64 {
        self.end = End::Sent;
        self.farthest = self.written() + 1;
        self.written()
    }

    /// The peer has come to `received` and lets us go to `limit`. Tells whether it makes sense.
    pub(crate) fn credit(&mut self, received: u64, limit: u64) -> bool {
        self.limit = self.limit.max(limit);
        self.reset || received <= self.farthest && self.acknowledge(received)
    }

    /// Goes back to what the peer has. Tells whether we still have what follows.
    pub(crate) fn rewind(&mut self, from: u64) -> bool {
        if self.reset {
            return true;
        }
        let possible = (self.acked..=self.farthest).contains(&from) && self.acknowledge(from);
        if possible {
            self.sent = self.acked;
            if self.end != End::Acked {
                self.end = End::Unsent;
            }
        }
        possible
    }

    /// Goes back to the first byte that is not acknowledged.
    pub(crate) fn rewind_all(&mut self) {
        self.rewind(self.acked);
    }

    fn acknowledge(&mut self, received: u64) -> bool {
        let written = self.written();
        if self.finished && received == written + 1 {
            self.end = End::Acked;
        } else if received > written {
            return false;
        }
        let bytes = received.min(written);
        if bytes > self.acked {
            self.kept.drop_front(index(bytes - self.acked));
            self.acked = bytes;
            self.sent = self.sent.max(bytes);
        }
        true
    }
}

/// What a receiver makes of a piece of the stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Accepted {
    /// New bytes, in order.
    New,
    /// Nothing new: a repetition.
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
    end: Option<u64>,
    /// Nobody reads: bytes are counted and dropped.
    discarding: bool,
}

impl Incoming {
    pub(crate) fn new(window: u32) -> Incoming {
        let window = u64::from(window);
        Incoming { kept: Queue::default(), consumed: 0, window, told: window, end: None, discarding: false }
    }

    /// Bytes received in order, and one more for the end.
    pub(crate) fn received(&self) -> u64 {
        self.bytes() + u64::from(self.end.is_some())
    }

    fn bytes(&self) -> u64 {
        self.consumed + self.kept.as_slice().len() as u64
    }

    /// The limit to tell now; remembers that it was told.
    pub(crate) fn grant(&mut self) -> u64 {
        self.told = self.consumed + self.window;
        self.told
    }

    /// The limit that the peer was told last.
    pub(crate) fn told(&self) -> u64 {
        self.told
    }

    /// So much has been read since the last grant that the peer should hear of it.
    pub(crate) fn owes_credit(&self) -> bool {
        self.consumed + self.window >= self.told + self.window / 2
    }

    pub(crate) fn accept(&mut self, offset: u64, bytes: &[u8]) -> Accepted {
        let (received, end) = (self.bytes(), offset.saturating_add(bytes.len() as u64));
        if end > self.told || self.end.is_some_and(|last| end > last) {
            return Accepted::Violation;
        }
        if offset > received {
            return Accepted::Gap;
        }
        if end <= received {
            return Accepted::Old;
        }
        match self.discarding {
            true => self.consumed = end,
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
            return Accepted::Gap;
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
}

/// A difference of offsets within what is kept in memory, as an index.
#[allow(clippy::cast_possible_truncation)]
fn index(difference: u64) -> usize {
    difference as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credit_bounds_what_is_sent() {
        let mut out = Outgoing::new(4);
        out.write(b"abcdef");
        assert_eq!(out.take(3), (0, &b"abc"[..]));
        assert_eq!(out.take(3), (3, &b"d"[..]));
        assert_eq!(out.sendable(), 0);
        assert!(out.credit(4, 6));
        assert_eq!(out.take(9), (4, &b"ef"[..]));
        assert!(!out.is_flushed());
        assert!(out.credit(6, 10) && out.is_flushed());
    }

    #[test]
    fn a_rewind_sends_again_what_was_not_received() {
        let mut out = Outgoing::new(100);
        out.write(b"abcdef");
        out.finish();
        out.take(6);
        assert!(out.rewind(2));
        assert_eq!(out.take(9), (2, &b"cdef"[..]));
        assert!(!out.rewind(1), "what was received is gone");
        assert!(!out.credit(7, 100), "nobody has received an end that was not sent");
        assert!(out.wants_end());
        assert_eq!(out.take_end(), 6);
        assert!(out.credit(6, 100) && !out.is_flushed(), "the end may be lost");
        assert!(out.credit(7, 100) && out.is_flushed());
        assert!(!out.credit(8, 100));
    }

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
    fn a_discarded_stream_keeps_no_bytes_but_its_place() {
        let mut input = Incoming::new(8);
        input.accept(0, b"abc");
        input.discard();
        assert_eq!(input.accept(3, b"de"), Accepted::New);
        assert!(input.readable().is_empty());
        assert_eq!((input.received(), input.grant()), (5, 13));
    }
}
