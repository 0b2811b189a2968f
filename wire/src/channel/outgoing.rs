//! The sending half of a channel: what is kept, what may go, and what the peer has made of it.

use super::{Queue, index};

/// How far the end of a stream has come, once it is finished and everything before it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Unsent,
    Sent,
    Received,
}

/// The sending half.
#[derive(Debug)]
pub(crate) struct Outgoing {
    kept: Queue,
    /// The peer's application has dealt with it: it is not kept.
    taken: u64,
    /// The peer has it. It may lose it, with its life, and ask for it again.
    received: u64,
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
            taken: 0,
            received: 0,
            sent: 0,
            farthest: 0,
            limit,
            finished: false,
            end: End::Unsent,
            reset: false,
        }
    }

    /// The oldest byte that is still here.
    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }

    /// The offset after the last byte that the peer has.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// The offset after the last byte written.
    pub(crate) fn written(&self) -> u64 {
        self.taken + self.kept.len()
    }

    /// Bytes kept: not yet taken by the peer.
    pub(crate) fn buffered(&self) -> usize {
        self.kept.as_slice().len()
    }

    /// The farthest that the peer can have come, the end counted as one.
    pub(crate) fn farthest(&self) -> u64 {
        self.farthest
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

    pub(crate) fn is_reset(&self) -> bool {
        self.reset
    }

    /// Drops everything: the peer does not want it. The stream ends where it was written to.
    pub(crate) fn reset(&mut self) {
        let at = self.written();
        let places = Outgoing { taken: at, received: at, sent: at, farthest: at + 1, ..Outgoing::new(at) };
        *self = Outgoing { finished: true, reset: true, end: End::Received, ..places };
    }

    /// The peer has dealt with everything, and has the end.
    pub(crate) fn is_flushed(&self) -> bool {
        self.kept.len() == 0 && (!self.finished || self.end == End::Received)
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
        self.sent > self.received || self.end == End::Sent
    }

    /// The peer owes news: of what is under way, or of what it has and has not taken.
    pub(crate) fn awaits_news(&self) -> bool {
        self.in_flight() || self.sent > self.taken
    }

    /// Where the next byte goes.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// The next bytes to go, at most `most`, with their offset.
    pub(crate) fn take(&mut self, most: usize) -> (u64, &[u8]) {
        let (from, len) = (self.sent, self.sendable().min(most));
        let start = index(from - self.taken);
        self.sent += len as u64;
        self.farthest = self.farthest.max(self.sent);
        (from, &self.kept.as_slice()[start..start + len])
    }

    pub(crate) fn take_end(&mut self) -> u64 {
        self.end = End::Sent;
        self.farthest = self.written() + 1;
        self.written()
    }

    /// The peer has come to `received`, its application to `taken`, and it lets us go to `limit`. Tells whether it makes sense.
    pub(crate) fn credit(&mut self, received: u64, taken: u64, limit: u64) -> bool {
        self.limit = self.limit.max(limit);
        let written = self.written();
        if received > self.farthest || taken > received || taken > written {
            // who throws a stream away may count as it likes
            return self.reset;
        }
        if received > written {
            self.end = End::Received;
        }
        self.received = self.received.max(received.min(written));
        self.sent = self.sent.max(self.received);
        if taken > self.taken {
            self.kept.drop_front(index(taken - self.taken));
            self.taken = taken;
        }
        true
    }

    /// Goes back to what the peer has, which may be less than it once had. Tells whether we still have what follows.
    pub(crate) fn rewind(&mut self, from: u64) -> bool {
        if self.reset {
            return true;
        }
        let possible = (self.taken..=self.farthest).contains(&from);
        if possible {
            let written = self.written();
            self.received = from.min(written);
            self.sent = self.received;
            self.end = if from > written { End::Received } else { End::Unsent };
        }
        possible
    }

    /// Goes back to the first byte that the peer has not told of.
    pub(crate) fn rewind_all(&mut self) {
        self.sent = self.received;
        if self.end == End::Sent {
            self.end = End::Unsent;
        }
    }

    /// A new connection begins, and the peer says where it is. It may be another one than before, which grants less. Tells whether we can go on from
    /// there.
    pub(crate) fn resume(&mut self, received: u64, taken: u64, limit: u64) -> bool {
        self.limit = limit;
        if self.reset {
            // nothing is sent again, but whoever listens now may not know that the stream is at its end
            self.end = if received > self.written() { End::Received } else { End::Unsent };
            return true;
        }
        self.rewind(received) && self.credit(received, taken, limit)
    }

    /// Takes over a stream of which the peer has `received`, its end included or not, from a sender that is no more. What was written here before goes
    /// behind that.
    pub(crate) fn adopt(&mut self, received: u64, ended: bool, limit: u64) {
        let at = received - u64::from(ended);
        (self.taken, self.received, self.sent, self.farthest) = (at, at, at, received);
        self.limit = limit;
        if ended {
            self.kept = Queue::default();
            self.finished = true;
            self.end = End::Received;
        }
    }
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
        assert!(out.credit(4, 4, 6));
        assert_eq!(out.take(9), (4, &b"ef"[..]));
        assert!(!out.is_flushed());
        assert!(out.credit(6, 6, 10) && out.is_flushed());
    }

    #[test]
    fn what_is_received_is_kept_until_it_is_taken() {
        let mut out = Outgoing::new(100);
        out.write(b"abcdef");
        out.take(6);
        assert!(out.credit(6, 2, 100));
        assert!(!out.in_flight() && out.awaits_news() && !out.is_flushed());
        assert_eq!((out.buffered(), out.taken(), out.received()), (4, 2, 6));
        assert!(out.rewind(2), "a receiver that lost it asks again");
        assert_eq!(out.take(9), (2, &b"cdef"[..]));
        assert!(!out.rewind(1), "what was taken is gone");
        assert!(out.credit(6, 6, 100) && out.is_flushed() && !out.awaits_news());
        assert!(!out.credit(6, 7, 100), "nobody takes more than it has");
    }

    #[test]
    fn an_end_is_sent_again_to_who_does_not_know_it() {
        let mut out = Outgoing::new(100);
        out.write(b"abcdef");
        out.finish();
        out.take(6);
        assert!(!out.credit(7, 0, 100), "nobody has received an end that was not sent");
        assert!(out.wants_end());
        assert_eq!(out.take_end(), 6);
        assert!(out.credit(6, 6, 100) && !out.is_flushed(), "the end may be lost");
        assert!(out.credit(7, 6, 100) && out.is_flushed());
        assert!(!out.credit(8, 6, 100));
        assert!(out.resume(6, 6, 100) && out.wants_end());
        assert!(out.resume(7, 6, 100) && !out.wants_end() && out.is_flushed());
    }

    #[test]
    fn a_reset_stream_is_silent_and_still_ends() {
        let mut out = Outgoing::new(100);
        out.write(b"abcdef");
        out.take(3);
        out.reset();
        out.write(b"more");
        assert!(out.is_flushed() && out.sendable() == 0 && !out.wants_end());
        assert!(out.rewind(0) && out.credit(3, 3, 100) && out.sendable() == 0);
        assert!(out.resume(3, 3, 100) && out.wants_end());
        assert_eq!(out.take_end(), 6);
        assert!(out.credit(7, 6, 100) && out.is_flushed());
    }

    #[test]
    fn a_stream_is_taken_over_where_the_peer_is() {
        let mut out = Outgoing::new(10);
        out.write(b"new");
        out.adopt(5, false, 20);
        assert_eq!(out.written(), 8);
        assert_eq!(out.take(9), (5, &b"new"[..]));
        let mut out = Outgoing::new(10);
        out.adopt(5, true, 20);
        assert_eq!((out.written(), out.is_finished(), out.is_flushed()), (4, true, true));
    }
}
