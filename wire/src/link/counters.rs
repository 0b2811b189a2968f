//! What came and could not be used, counted by kind. Nothing of it closes a link, and nothing of it is kept.

use crate::frame::Noise;

/// What a link has passed over since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Bytes that were no frame: noise, half frames, bits that were flipped, runs that are too long.
    pub noise: Noise,
    /// Intact frames whose packet cannot be read: fields are missing, or something follows them.
    pub malformed: u64,
    /// Packets of a kind that this version does not know.
    pub unknown: u64,
    /// Packets that mean nothing at this end or in this state: a hello to a guest, data before a greeting or outside the seal.
    pub misplaced: u64,
    /// Hellos, welcomes and sealed packets that were not made with the key, or for another connection.
    pub forged: u64,
    /// Sealed packets that had been opened before, or come after a later one.
    pub replayed: u64,
    /// Hellos that came too soon after another one to be checked.
    pub hurried: u64,
    /// Knocks that a guest did not answer: it greets anyway, or has answered another one just now.
    pub idle_knocks: u64,
    /// Refusals that a guest's user was not told of: one was told on the same pipe, or the same one before.
    pub untold_refusals: u64,
    /// Hellos for another VM.
    pub wrong_vm: u64,
    /// Hellos without a version that both ends speak.
    pub wrong_version: u64,
    /// Hellos that want packets sealed where they are not, or the other way round.
    pub wrong_sealing: u64,
    /// Data or an end beyond what had come in order: asked for again.
    pub gaps: u64,
    /// Data or an end that had come before.
    pub repeated: u64,
    /// Packets for a channel that is not there.
    pub strays: u64,
}
