//! One numbered byte stream of a link, in each direction: offsets, credit, and the bytes that may be needed again.
//!
//! Every byte of a stream has an absolute offset. The receiver says how far it has come (`received`), how much of that its application has dealt with
//! (`taken`), and up to which offset the sender may go (`limit`). The sender keeps what it has written until it is *taken*: a receiver that is killed
//! loses what it had only received, and the one that comes after it asks for it again. A stream ends at a stated offset, so an end is never mistaken
//! for a cut.
//!
//! ```text
//! sender      taken ...... received ...... sent ...... written      (kept: taken..written)
//! receiver    taken ...... received ...................... limit    (kept: taken..received)
//! ```
//!
//! This file and the two below it decide what may be sent and what is accepted. When to send is [`crate::link`]'s business.

mod incoming;
mod outgoing;

pub(crate) use self::incoming::{Accepted, Incoming};
pub(crate) use self::outgoing::Outgoing;

/// No stream is longer. Whoever claims more is not believed, so that sums of offsets never overflow.
pub(crate) const LONGEST: u64 = 1 << 62;

/// Bytes in order, taken from the front.
#[derive(Debug, Default)]
struct Queue {
    bytes: Vec<u8>,
    start: usize,
}

/// An empty queue keeps no more memory than this, which is a frame's worth: most channels are silent, and one that is busy is empty often.
const SPARE: usize = 64 * 1024;

impl Queue {
    fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    fn len(&self) -> u64 {
        self.as_slice().len() as u64
    }

    fn push(&mut self, bytes: &[u8]) {
        // what is moved is not more than what was dropped since the last time
        if self.start > self.bytes.len() / 2 && self.bytes.len() + bytes.len() > self.bytes.capacity() {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    fn drop_front(&mut self, count: usize) {
        self.start += count;
        if self.start == self.bytes.len() {
            self.start = 0;
            match self.bytes.capacity() > SPARE {
                true => self.bytes = Vec::new(),
                false => self.bytes.clear(),
            }
        }
    }

    /// Forgets what lies behind the first `len` bytes.
    fn truncate(&mut self, len: usize) {
        self.bytes.truncate(self.start + len);
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
    fn an_empty_queue_gives_its_memory_back() {
        let mut queue = Queue::default();
        queue.push(&[1; 100_000]);
        queue.drop_front(99_999);
        assert_eq!(queue.as_slice(), [1]);
        queue.drop_front(1);
        assert_eq!(queue.bytes.capacity(), 0);
        queue.push(b"key");
        queue.drop_front(3);
        assert!(queue.bytes.capacity() > 0, "a key press needs no new memory");
    }
}
