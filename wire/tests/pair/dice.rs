//! Chance, the same on every machine.

/// xorshift64*: enough to choose faults.
pub(crate) struct Dice(u64);

/// One in so many is never.
pub(crate) const NEVER: u64 = u64::MAX;

impl Dice {
    pub(crate) fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % sides
    }

    /// Happens once in so many times.
    pub(crate) fn once_in(&mut self, times: u64) -> bool {
        times != NEVER && self.roll(times) == 0
    }

    pub(crate) fn up_to(&mut self, most: usize) -> usize {
        self.roll(most as u64 + 1) as usize
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.roll(256) as u8).collect()
    }
}
