//! What a link is doing, what it holds of a channel, and how a packet leaves in that state.

use std::time::Duration;

use super::greeting::Asking;
use crate::channel::{Incoming, Outgoing};
use crate::frame;
use crate::handshake::Sealer;
use crate::packet::{Packet, ResetReason};

#[derive(Debug)]
pub(super) enum State {
    Down,
    /// A guest asks; a host waits to be asked.
    Greeting {
        asking: Option<Asking>,
    },
    /// A guest confirms at this time, until it hears of it.
    Open {
        sealer: Sealer,
        confirm_at: Option<Duration>,
    },
    Closed,
}

#[derive(Debug)]
pub(super) struct Channel {
    pub(super) out: Outgoing,
    pub(super) input: Incoming,
    /// The peer should be told how far we are.
    pub(super) credit_due: bool,
    /// A gap has been seen and not yet been filled: ask once, from here.
    pub(super) rewind_due: bool,
    pub(super) rewind_asked: Option<u64>,
    /// Bytes come that nobody wants.
    pub(super) reset_due: Option<ResetReason>,
    /// When to go back, and how often that has been.
    pub(super) retry: Option<(Duration, u32)>,
    /// When it was served last, in packets.
    pub(super) served: u64,
}

impl State {
    /// Appends a packet, in two parts, as this connection sends it.
    pub(super) fn transmit(&mut self, sealed: bool, header: &[u8], payload: &[u8], out: &mut Vec<u8>) {
        match self {
            State::Open { sealer, .. } if sealed => seal(sealer, &[header, payload].concat(), out),
            _ => frame::encode(header, payload, out),
        }
    }
}

pub(super) fn seal(sealer: &mut Sealer, packet: &[u8], out: &mut Vec<u8>) {
    let (number, packet) = sealer.seal(packet);
    let mut header = Vec::new();
    Packet::Sealed { number, packet: &[] }.encode(&mut header);
    frame::encode(&header, &packet, out);
}
