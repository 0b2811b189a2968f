//! What a link is doing, what it holds of a channel, and how a packet leaves in that state.

use std::time::Duration;

use super::{CONTROL, CONTROL_WINDOW, RETRY};
use crate::channel::{Incoming, Outgoing};
use crate::frame;
use crate::handshake::Sealer;
use crate::packet::{ChannelId, Packet, Position, ResetReason};

#[derive(Debug)]
pub(super) enum State {
    Down,
    /// A guest asks; a host waits to be asked, and knocks at this time.
    Greeting {
        knock_at: Option<Duration>,
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
    /// The peer has been silent for so long that it is asked how far it is.
    pub(super) probe_due: bool,
    /// When to go back or ask, and how often that has been.
    pub(super) retry: Option<(Duration, u32)>,
    /// The peer has no such channel: nothing more will come.
    pub(super) over: bool,
    /// When it was served last, in packets.
    pub(super) served: u64,
}

impl Channel {
    pub(super) fn new(id: ChannelId, window: u32, peer_window: u64) -> Channel {
        let (window, limit) = match id {
            CONTROL => (CONTROL_WINDOW, CONTROL_WINDOW.into()),
            _ => (window, peer_window),
        };
        Channel {
            out: Outgoing::new(limit),
            input: Incoming::new(window),
            credit_due: false,
            rewind_due: false,
            rewind_asked: None,
            reset_due: None,
            probe_due: false,
            retry: None,
            over: false,
            served: 0,
        }
    }

    /// Bytes of it have reached the other end, in either direction.
    pub(super) fn has_progressed(&self) -> bool {
        self.out.received() > 0 || self.input.received() > 0
    }

    /// The peer has no such channel, or has it no more.
    pub(super) fn end(&mut self) {
        self.over = true;
        self.out.reset();
        self.input.break_off();
        self.retry = None;
        (self.credit_due, self.rewind_due, self.probe_due) = (false, false, false);
    }

    /// Sets the alarm for a peer that owes news.
    pub(super) fn await_news(&mut self, now: Duration) {
        self.retry = self.out.awaits_news().then_some((now + RETRY, 0));
    }

    /// What a greeting says of it: what was granted last, and no more, because a greeting may never come to its peer.
    pub(super) fn position(&self, channel: ChannelId) -> Position {
        Position {
            channel,
            received: self.input.received(),
            taken: self.input.consumed(),
            limit: self.input.told(),
            kept: self.out.taken(),
            ended: self.input.has_end(),
        }
    }
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
