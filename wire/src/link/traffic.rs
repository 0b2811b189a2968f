//! A link that is open: what goes next, and what is done with what comes.

use std::time::Duration;

use super::state::{State, seal};
use super::{CONTROL, Closed, Event, HELLO_INTERVAL, Link, MAX_URGENT, RETRY, Tuning};
use crate::channel::Accepted;
use crate::message;
use crate::packet::{ChannelId, Credit, Packet, ResetReason};

impl Link {
    /// The guest's proof that it is alive, until the host is heard.
    pub(super) fn transmit_confirm(&mut self, now: Duration, out: &mut Vec<u8>) -> bool {
        let State::Open { sealer, confirm_at: Some(at) } = &mut self.state else { return false };
        if *at > now {
            return false;
        }
        *at = now + HELLO_INTERVAL;
        let mut body = Vec::new();
        Packet::Confirm.encode(&mut body);
        seal(sealer, &body, out);
        true
    }

    /// Credit, rewinds, resets, questions and ends: short, and the peer waits for them.
    pub(super) fn transmit_notice(&mut self, now: Duration, out: &mut Vec<u8>) -> bool {
        if let Some(id) = self.strays.pop_first() {
            let mut body = Vec::new();
            Packet::Reset { channel: id, reason: ResetReason::NoSuchChannel }.encode(&mut body);
            self.state.transmit(self.sealed, &body, &[], out);
            return true;
        }
        for (&id, channel) in self.channels.iter_mut().filter(|(_, channel)| !channel.over) {
            let packet = if let Some(reason) = channel.reset_due.take() {
                Packet::Reset { channel: id, reason }
            } else if std::mem::take(&mut channel.rewind_due) {
                Packet::Rewind { channel: id, from: channel.input.received() }
            } else if std::mem::take(&mut channel.credit_due) {
                let limit = channel.input.grant();
                let (received, taken) = (channel.input.received(), channel.input.consumed());
                Packet::Credit(Credit { channel: id, received, taken, limit })
            } else if std::mem::take(&mut channel.probe_due) {
                Packet::Data { channel: id, offset: channel.out.sent(), payload: &[] }
            } else if channel.out.wants_end() {
                channel.retry = channel.retry.or(Some((now + RETRY, 0)));
                Packet::End { channel: id, offset: channel.out.take_end() }
            } else {
                continue;
            };
            let mut body = Vec::new();
            packet.encode(&mut body);
            self.state.transmit(self.sealed, &body, &[], out);
            return true;
        }
        false
    }

    /// The longest payload that is sent now. Who types must not wait for long frames; a peer with a small window is on a slow line, whatever ours is like.
    pub fn pace(&self, now: Duration) -> usize {
        let line = match self.peer_window <= u64::from(Tuning::SERIAL.window) {
            true => self.tuning.payload.min(Tuning::SERIAL.payload),
            false => self.tuning.payload,
        };
        match self.typed.is_some_and(|at| now < at + TYPING) {
            true => line.min(SHORT),
            false => line,
        }
    }

    /// A piece of the stream whose turn it is: messages first, then those with little to say, then the one served longest ago.
    pub(super) fn transmit_stream(&mut self, now: Duration, out: &mut Vec<u8>) -> bool {
        let payload = self.pace(now);
        let next = self
            .channels
            .iter_mut()
            .filter(|(_, channel)| channel.out.sendable() > 0)
            .min_by_key(|(id, channel)| (**id != CONTROL, channel.out.sendable() > INTERACTIVE, channel.served));
        let Some((&id, channel)) = next else { return false };
        self.served += 1;
        channel.served = self.served;
        if id != CONTROL && channel.out.sendable() <= INTERACTIVE {
            self.typed = Some(now);
        }
        channel.retry = channel.retry.or(Some((now + RETRY, 0)));
        let (offset, payload) = channel.out.take(payload);
        self.state.transmit(self.sealed, &Packet::data_header(id, offset), payload, out);
        true
    }

    /// Goes back where nothing was heard of what is under way, and asks where nothing was heard of what the peer has.
    pub(super) fn retry(&mut self, now: Duration) {
        for channel in self.channels.values_mut() {
            if let Some((at, times)) = channel.retry
                && at <= now
            {
                channel.retry = Some((now + RETRY * (1 << times.min(5)), times.saturating_add(1)));
                match channel.out.in_flight() {
                    true => channel.out.rewind_all(),
                    false => channel.probe_due = true,
                }
            }
        }
    }

    /// A packet of the session that is open.
    pub(super) fn handle_stream(&mut self, now: Duration, packet: Packet<'_>) {
        let id = match packet {
            Packet::Data { channel, .. } | Packet::End { channel, .. } | Packet::Rewind { channel, .. } => channel,
            Packet::Credit(Credit { channel, .. }) | Packet::Reset { channel, .. } => channel,
            _ => return self.counters.misplaced += 1,
        };
        // whatever the host says on a stream, it says because it has heard us: nobody else needs to be answered
        self.asking = None;
        if let State::Open { confirm_at, .. } = &mut self.state {
            *confirm_at = None;
        }
        let Some(channel) = self.channels.get_mut(&id).filter(|channel| !channel.over) else {
            self.counters.strays += 1;
            if matches!(packet, Packet::Data { .. } | Packet::End { .. }) {
                self.refuse_stray(id);
            }
            return;
        };
        let accepted = match packet {
            Packet::Data { offset, payload, .. } => {
                if id != CONTROL && (1..=INTERACTIVE).contains(&payload.len()) {
                    self.typed = Some(now);
                }
                channel.input.accept(offset, payload)
            }
            Packet::End { offset, .. } => channel.input.accept_end(offset),
            Packet::Credit(at) => {
                if !channel.out.credit(at.received, at.taken, at.limit) {
                    return self.close(Closed::Violation("it acknowledged what was not sent"));
                }
                channel.await_news(now);
                return self.events.push_back(Event::Writable(id));
            }
            Packet::Rewind { from, .. } => {
                if !channel.out.rewind(from) {
                    self.close(Closed::Violation("it asked again for what it had"));
                }
                return;
            }
            Packet::Reset { .. } if id == CONTROL => return self.counters.misplaced += 1,
            Packet::Reset { reason: reason @ ResetReason::NoSuchChannel, .. } => {
                channel.end();
                return self.events.extend([Event::Reset(id, reason), Event::Readable(id)]);
            }
            Packet::Reset { reason, .. } => {
                channel.out.reset();
                channel.retry = None;
                return self.events.push_back(Event::Reset(id, reason));
            }
            _ => return,
        };
        match accepted {
            Accepted::New => {
                channel.credit_due = true;
                channel.rewind_asked = None;
                match id == CONTROL {
                    true => self.read_messages(),
                    false => self.events.push_back(Event::Readable(id)),
                }
            }
            Accepted::Old => {
                channel.credit_due = true;
                self.counters.repeated += 1;
            }
            Accepted::Gap => {
                self.counters.gaps += 1;
                let from = channel.input.received();
                if channel.rewind_asked != Some(from) {
                    channel.rewind_asked = Some(from);
                    channel.rewind_due = true;
                }
            }
            Accepted::Violation => self.close(Closed::Violation("it sent more than it was allowed")),
        }
    }

    /// The peer is told, as far as it is not told already.
    pub(super) fn refuse_stray(&mut self, id: ChannelId) {
        if self.strays.len() < MAX_URGENT {
            self.strays.insert(id);
        }
    }

    /// Announces every message that is complete. It stays in its channel until the application has it: only then is it taken.
    fn read_messages(&mut self) {
        let Link { channels, events, announced, .. } = self;
        let Some(channel) = channels.get(&CONTROL) else { return };
        loop {
            match message::split_record(&channel.input.readable()[*announced..]) {
                Ok(Some((message, len))) => {
                    events.push_back(Event::Message(message.to_vec()));
                    *announced += len;
                }
                Ok(None) => return,
                Err(_) => return self.close(Closed::Violation("its message is too long")),
            }
        }
    }

    /// The application has a message.
    pub(super) fn take_message(&mut self, message: &[u8]) {
        let len = message::RECORD_HEADER + message.len();
        self.announced -= len;
        let control = self.control();
        control.input.consume(len);
        control.credit_due |= control.input.owes_credit();
    }
}

/// A channel with at most this many bytes waiting is someone typing, not bulk.
const INTERACTIVE: usize = 512;

/// How long someone who typed is expected to type on.
const TYPING: Duration = Duration::from_secs(1);

/// The longest payload meanwhile.
const SHORT: usize = 4096;
