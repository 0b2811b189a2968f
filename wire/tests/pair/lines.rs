//! A pipe between the two ends: it holds bytes, takes and gives a few at a time, and spoils some.

use std::collections::VecDeque;

use crate::dice::{Dice, NEVER};

/// What goes wrong, each once in so many times.
#[derive(Clone, Copy)]
pub(crate) struct Faults {
    /// The pipe is cut at both ends, with everything in it.
    pub(crate) cut: u64,
    /// A bit of a chunk is flipped.
    pub(crate) flip: u64,
    /// Random bytes appear.
    pub(crate) noise: u64,
    /// A chunk comes twice, or later than what follows it.
    pub(crate) shuffle: u64,
    /// The host is killed, and another one starts. The guest sees the pipe cut, or does not.
    pub(crate) kill: u64,
    /// Does the guest see it?
    pub(crate) seen: bool,
    /// A second pipe appears, which the guest uses from then on without having seen the first go.
    pub(crate) second: u64,
}

pub(crate) const CLEAN: Faults =
    Faults { cut: NEVER, flip: NEVER, noise: NEVER, shuffle: NEVER, kill: NEVER, seen: true, second: NEVER };

/// One direction.
#[derive(Default)]
pub(crate) struct Line {
    bytes: VecDeque<u8>,
    /// A chunk that comes later than it should.
    late: Vec<u8>,
}

/// More than this on a line, and its writer waits.
const FULL: usize = 2048;
const CHUNK: usize = 700;

impl Line {
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.late.is_empty()
    }

    /// Takes some of what an end has to say: a short write.
    pub(crate) fn take(&mut self, outbox: &mut Vec<u8>, dice: &mut Dice) {
        let room = FULL.saturating_sub(self.bytes.len()).min(outbox.len());
        let some = if dice.once_in(4) { dice.up_to(room) } else { room };
        self.bytes.extend(outbox.drain(..some));
    }

    /// Gives some of it to the other end: a short read.
    pub(crate) fn give(&mut self, faults: &Faults, dice: &mut Dice) -> Vec<u8> {
        let some = dice.up_to(CHUNK).min(self.bytes.len());
        let mut chunk: Vec<u8> = self.bytes.drain(..some).collect();
        if chunk.is_empty() {
            return std::mem::take(&mut self.late);
        }
        if dice.once_in(faults.flip) {
            let at = dice.up_to(chunk.len() - 1);
            chunk[at] ^= 1 << dice.roll(8);
        }
        if dice.once_in(faults.shuffle) {
            self.late = chunk.clone();
            if dice.once_in(2) {
                chunk.clear();
            }
        } else if !self.late.is_empty() && dice.once_in(3) {
            chunk.append(&mut self.late);
        }
        if dice.once_in(faults.noise) {
            let len = dice.up_to(64);
            chunk.extend(dice.bytes(len));
        }
        chunk
    }
}

/// Both directions.
#[derive(Default)]
pub(crate) struct Pipe {
    pub(crate) to_host: Line,
    pub(crate) to_guest: Line,
}
