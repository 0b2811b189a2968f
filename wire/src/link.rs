//! The connection machine: greeting, resumption after a cut, and who sends next.
//!
//! ```text
//!            pipe_up            guest: a welcome comes
//!            guest: hello       host: the guest's confirmation comes
//!   Down  ------------>  Greeting  ------------>  Open
//!    ^                       |                     |
//!    +------- pipe_down -----+------- pipe_down ---+
//!                            +-- violation --------+-->  Closed   (for good)
//! ```
//!
//! Both ends run this file; [`Role`] decides only who greets first: the guest, which knows when it is ready, and repeats its hello until it is
//! answered, because a serial line may have lost it. In hello and welcome each end states what it has received of each channel, and the other goes
//! on from there: a cut loses and repeats no byte. A frame lost in between shows as a gap (the receiver asks for a rewind) or as silence (the sender
//! goes back by itself, [`RETRY`]).
//!
//! How to drive it. Inputs: [`Link::pipe_up`], [`Link::pipe_down`], [`Link::handle_bytes`], [`Link::handle_timeout`]. Commands: `open`,
//! `write`, `finish`, `consume`, `discard`, `send_message`. Outputs: [`Link::poll_transmit`] until it says false, [`Link::poll_event`]
//! until `None`, then sleep until [`Link::poll_timeout`]. `now` is the time since any fixed moment; it must not run backwards.

mod greeting;
mod state;
mod terms;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::channel::{Accepted, Incoming, Outgoing};
use crate::frame::{self, Decoder, Noise};
use crate::handshake::{Entropy, LinkKey};
use crate::message;
use crate::packet::{ChannelId, Packet, Position, ResetReason};

use self::greeting::{Answering, position};
use self::state::{Channel, State, seal};
pub use self::terms::{Closed, Event, Role, Security, Tuning};

/// The version of the protocol that this crate speaks.
pub const VERSION: u16 = 1;

/// The channel of messages.
pub const CONTROL: ChannelId = ChannelId(0);

/// How often a guest repeats its hello while nobody answers. Short, because a start waits for it; it ends with the answer.
pub const HELLO_INTERVAL: Duration = Duration::from_millis(100);

/// Silence after which a sender goes back to what was received, doubled each time up to 32 times. Longer than a full window takes at 115200 baud.
pub const RETRY: Duration = Duration::from_secs(8);

/// One end of a connection. See the module for how to drive it.
#[derive(Debug)]
pub struct Link {
    role: Role,
    tuning: Tuning,
    state: State,
    decoder: Decoder,
    channels: BTreeMap<ChannelId, Channel>,
    /// What the peer lets us send on a new channel; known from the first greeting.
    peer_window: u64,
    peer_boot: Option<[u8; 16]>,
    /// Frames that go before all others: delimiter, welcome, refusal, resets of unknown channels.
    urgent: VecDeque<Vec<u8>>,
    events: VecDeque<Event>,
    record: Vec<u8>,
    served: u64,
    /// Intact frames that say nothing that this version knows.
    unknown: u64,
    key: LinkKey,
    sealed: bool,
    entropy: Entropy,
    answering: Option<Answering>,
    /// No hello is checked before.
    hello_after: Duration,
    /// What was not made with the key, or at the wrong time.
    denied: u64,
    refusal: Option<String>,
}

impl Link {
    /// A link whose pipe is down.
    pub fn new(role: Role, tuning: Tuning, security: Security) -> Link {
        let Security { key, sealed, seed } = security;
        let mut link = Link {
            role,
            tuning,
            state: State::Down,
            decoder: Decoder::default(),
            channels: BTreeMap::new(),
            peer_window: 0,
            peer_boot: None,
            urgent: VecDeque::new(),
            events: VecDeque::new(),
            record: Vec::new(),
            served: 0,
            unknown: 0,
            key,
            sealed,
            entropy: Entropy::new(seed),
            answering: None,
            hello_after: Duration::ZERO,
            denied: 0,
            refusal: None,
        };
        link.open(CONTROL);
        link
    }

    // -- what is the case

    /// Greetings have been exchanged on the pipe that is up.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. })
    }

    /// Everything written on every channel has been received by the peer, or never will be.
    pub fn is_flushed(&self) -> bool {
        self.is_closed() || self.channels.values().all(|channel| channel.out.is_flushed())
    }

    /// The link is over for good: it takes everything and keeps nothing, so that nobody waits for it.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// Bytes that were no frames.
    pub fn noise(&self) -> Noise {
        self.decoder.noise()
    }

    /// Intact frames whose packet this version does not know, or cannot read.
    pub fn unknown(&self) -> u64 {
        self.unknown
    }

    /// Packets that were intact and not made with the key: forged, replayed, reflected, or too many.
    pub fn denied(&self) -> u64 {
        self.denied
    }

    /// Bytes received and not yet consumed.
    pub fn readable(&self, id: ChannelId) -> &[u8] {
        self.channels.get(&id).map_or(&[], |channel| channel.input.readable())
    }

    /// The peer has finished the channel and everything is consumed.
    pub fn is_ended(&self, id: ChannelId) -> bool {
        self.channels.get(&id).is_some_and(|channel| channel.input.is_ended())
    }

    /// How many bytes [`Link::write`] would take.
    pub fn room(&self, id: ChannelId) -> usize {
        let cap = self.tuning.window as usize;
        self.channels.get(&id).map_or(0, |channel| match channel.out.is_finished() {
            true => 0,
            false if self.is_closed() => cap,
            false => cap.saturating_sub(channel.out.buffered()),
        })
    }

    // -- commands

    /// Makes a channel known. Both ends do it; its bytes may flow from then on.
    pub fn open(&mut self, id: ChannelId) {
        let channel = Channel {
            out: Outgoing::new(self.peer_window),
            input: Incoming::new(self.tuning.window),
            credit_due: false,
            rewind_due: false,
            rewind_asked: None,
            reset_due: None,
            retry: None,
            served: 0,
        };
        self.channels.entry(id).or_insert(channel);
    }

    /// Queues bytes to be sent; tells how many it took. The rest must wait for [`Event::Writable`].
    pub fn write(&mut self, id: ChannelId, bytes: &[u8]) -> usize {
        let taken = self.room(id).min(bytes.len());
        if !self.is_closed()
            && let Some(channel) = self.channels.get_mut(&id)
        {
            channel.out.write(&bytes[..taken]);
        }
        taken
    }

    /// Nothing more will be written on the channel.
    pub fn finish(&mut self, id: ChannelId) {
        if let Some(channel) = self.channels.get_mut(&id) {
            channel.out.finish();
        }
    }

    /// The first `count` readable bytes have been dealt with.
    pub fn consume(&mut self, id: ChannelId, count: usize) {
        if let Some(channel) = self.channels.get_mut(&id) {
            channel.input.consume(count);
            channel.credit_due |= channel.input.owes_credit();
        }
    }

    /// Nobody will read the channel any more: what comes is dropped, and the peer hears why.
    pub fn discard(&mut self, id: ChannelId) {
        if let Some(channel) = self.channels.get_mut(&id) {
            channel.input.discard();
            channel.reset_due = Some(ResetReason::NotRead);
        }
    }

    /// The channel is over: nothing of it is kept. What still comes for it is answered by a reset.
    pub fn forget(&mut self, id: ChannelId) {
        self.channels.remove(&id);
    }

    /// Sends an encoded message. Messages are never refused for lack of room: they are few, and each answers one or tells an event.
    pub fn send_message(&mut self, bytes: &[u8]) {
        let mut record = Vec::with_capacity(bytes.len() + message::RECORD_HEADER);
        message::frame_record(bytes, &mut record);
        self.channels.get_mut(&CONTROL).expect("opened in new()").out.write(&record);
    }

    // -- inputs

    /// The pipe can carry bytes from now on. What the decoder held belongs to another life.
    pub fn pipe_up(&mut self, now: Duration) {
        if self.is_closed() {
            return;
        }
        self.decoder.reset();
        self.urgent.clear();
        // cut off whatever noise is on the line before our first frame
        self.urgent.push_back(vec![frame::DELIMITER]);
        self.answering = None;
        self.state = State::Greeting { asking: self.ask(now) };
    }

    /// The pipe is gone. Everything is kept for the next one.
    pub fn pipe_down(&mut self) {
        if !self.is_closed() {
            self.state = State::Down;
        }
    }

    /// Bytes have come.
    pub fn handle_bytes(&mut self, now: Duration, bytes: &[u8]) {
        if matches!(self.state, State::Down | State::Closed) {
            return;
        }
        let mut decoder = std::mem::take(&mut self.decoder);
        decoder.feed(bytes, |body| match Packet::decode(body) {
            Ok(packet) => self.handle_packet(now, packet),
            Err(_) => self.unknown += 1,
        });
        self.decoder = decoder;
    }

    /// The time that [`Link::poll_timeout`] named has come.
    pub fn handle_timeout(&mut self, now: Duration) {
        for channel in self.channels.values_mut() {
            if let Some((at, times)) = channel.retry
                && at <= now
            {
                channel.retry = Some((now + RETRY * (1 << times.min(5)), times + 1));
                channel.out.rewind_all();
            }
        }
    }

    // -- outputs

    /// When to call [`Link::handle_timeout`] and [`Link::poll_transmit`] even if nothing happens; `None` while idle.
    pub fn poll_timeout(&self) -> Option<Duration> {
        match &self.state {
            State::Greeting { asking } => asking.as_ref().map(|asking| asking.at),
            State::Open { confirm_at, .. } => {
                self.channels.values().filter_map(|channel| channel.retry.map(|(at, _)| at)).chain(*confirm_at).min()
            }
            State::Down | State::Closed => None,
        }
    }

    /// The next thing that the application has to know.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Appends the next frame to `out`; false when there is nothing to send now. Call it when the pipe can take bytes, not before:
    /// what goes next is decided here.
    pub fn poll_transmit(&mut self, now: Duration, out: &mut Vec<u8>) -> bool {
        if matches!(self.state, State::Down) {
            return false;
        }
        if let Some(bytes) = self.urgent.pop_front() {
            out.extend_from_slice(&bytes);
            return true;
        }
        if self.is_open() {
            self.transmit_confirm(now, out) || self.transmit_notice(now, out) || self.transmit_stream(now, out)
        } else {
            self.transmit_hello(now, out)
        }
    }

    /// The guest's proof that it is alive, until the host is heard.
    fn transmit_confirm(&mut self, now: Duration, out: &mut Vec<u8>) -> bool {
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

    /// Credit, rewinds, resets and ends: short, and the peer waits for them.
    fn transmit_notice(&mut self, now: Duration, out: &mut Vec<u8>) -> bool {
        for (&id, channel) in &mut self.channels {
            let packet = if let Some(reason) = channel.reset_due.take() {
                Packet::Reset { channel: id, reason }
            } else if std::mem::take(&mut channel.rewind_due) {
                Packet::Rewind { channel: id, from: channel.input.received() }
            } else if std::mem::take(&mut channel.credit_due) {
                Packet::Credit(position(id, &mut channel.input))
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

    /// A piece of the stream whose turn it is: messages first, then those with little to say, then the one served longest ago.
    fn transmit_stream(&mut self, now: Duration, out: &mut Vec<u8>) -> bool {
        let payload = self.tuning.payload;
        let next = self
            .channels
            .iter_mut()
            .filter(|(_, channel)| channel.out.sendable() > 0)
            .min_by_key(|(id, channel)| (**id != CONTROL, channel.out.sendable() > INTERACTIVE, channel.served));
        let Some((&id, channel)) = next else { return false };
        self.served += 1;
        channel.served = self.served;
        channel.retry = channel.retry.or(Some((now + RETRY, 0)));
        let (offset, payload) = channel.out.take(payload);
        self.state.transmit(self.sealed, &Packet::data_header(id, offset), payload, out);
        true
    }

    // -- packets

    fn handle_packet(&mut self, now: Duration, packet: Packet<'_>) {
        match packet {
            Packet::Hello { hello, message } => self.handle_hello(now, &hello, message),
            Packet::Welcome { message } => self.handle_welcome(now, message),
            Packet::Refuse(reason) => self.handle_refuse(reason),
            Packet::Sealed { number, packet } => match self.open_sealed(number, packet) {
                Some(packet) => match Packet::decode(&packet) {
                    Ok(Packet::Confirm) => self.hear_confirm(),
                    Ok(packet) => self.handle_stream(now, packet),
                    Err(_) => self.unknown += 1,
                },
                None => self.denied += 1,
            },
            packet if self.is_open() && !self.sealed => self.handle_stream(now, packet),
            _ => self.denied += 1,
        }
    }

    /// Anyone can say so: it is told once, and changes nothing.
    fn handle_refuse(&mut self, reason: String) {
        if matches!(self.state, State::Greeting { asking: Some(_) }) && self.refusal.as_ref() != Some(&reason) {
            self.refusal = Some(reason.clone());
            self.events.push_back(Event::Refused(reason));
        }
    }

    /// The guest wants to hear that it was heard.
    fn hear_confirm(&mut self) {
        self.channels.get_mut(&CONTROL).expect("opened in new()").credit_due = true;
    }

    fn handle_stream(&mut self, now: Duration, packet: Packet<'_>) {
        let id = match packet {
            Packet::Data { channel, .. } | Packet::End { channel, .. } | Packet::Rewind { channel, .. } => channel,
            Packet::Credit(Position { channel, .. }) | Packet::Reset { channel, .. } => channel,
            _ => return,
        };
        // whatever the host says on a stream, it says because it has heard us
        if let State::Open { confirm_at, .. } = &mut self.state {
            *confirm_at = None;
        }
        let Some(channel) = self.channels.get_mut(&id) else {
            if matches!(packet, Packet::Data { .. } | Packet::End { .. }) {
                let (mut body, mut bytes) = (Vec::new(), Vec::new());
                Packet::Reset { channel: id, reason: ResetReason::NoSuchChannel }.encode(&mut body);
                self.state.transmit(self.sealed, &body, &[], &mut bytes);
                self.urgent.push_back(bytes);
            }
            return;
        };
        let accepted = match packet {
            Packet::Data { offset, payload, .. } => channel.input.accept(offset, payload),
            Packet::End { offset, .. } => channel.input.accept_end(offset),
            Packet::Credit(position) => {
                if !channel.out.credit(position.received, position.limit) {
                    return self.close(Closed::Violation("it acknowledged what was not sent"));
                }
                channel.retry = channel.out.in_flight().then_some((now + RETRY, 0));
                return self.events.push_back(Event::Writable(id));
            }
            Packet::Rewind { from, .. } => {
                if !channel.out.rewind(from) {
                    self.close(Closed::Violation("it asked again for what it had"));
                }
                return;
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
            Accepted::Old => channel.credit_due = true,
            Accepted::Gap => {
                let from = channel.input.received();
                if channel.rewind_asked != Some(from) {
                    channel.rewind_asked = Some(from);
                    channel.rewind_due = true;
                }
            }
            Accepted::Violation => self.close(Closed::Violation("it sent more than it was allowed")),
        }
    }

    fn read_messages(&mut self) {
        let channel = self.channels.get_mut(&CONTROL).expect("opened in new()");
        self.record.extend_from_slice(channel.input.readable());
        channel.input.consume(channel.input.readable().len());
        loop {
            match message::split_record(&self.record) {
                Ok(Some((message, len))) => {
                    self.events.push_back(Event::Message(message.to_vec()));
                    self.record.drain(..len);
                }
                Ok(None) => return,
                Err(_) => return self.close(Closed::Violation("its message is too long")),
            }
        }
    }

    fn close(&mut self, why: Closed) {
        self.state = State::Closed;
        self.events.push_back(Event::Closed(why));
    }
}

/// A channel with at most this many bytes waiting is someone typing, not bulk.
const INTERACTIVE: usize = 512;
