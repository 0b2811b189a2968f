//! The connection machine: greeting, resumption after a cut, and who sends next.
//!
//! ```text
//!            pipe_up            guest: a welcome comes
//!            guest: hello       host: the guest's confirmation comes
//!   Down  ------------>  Greeting  ------------>  Open  ---.  guest: a knock comes, and a welcome to the hello that
//!    ^     host: knock      |                     |  ^-----'  answers it; host: a hello, and its confirmation, also
//!    +------- pipe_down ----+------- pipe_down ---+           on a second pipe
//!                           +-- violation --------+-->  Closed   (for good)
//! ```
//!
//! Both ends run this file; [`Role`] decides only who greets first: the guest, which knows when it is ready, and repeats its hello until it is
//! answered, because a serial line may have lost it. A host whose line shows no cut to the guest knocks, and gets a hello. In hello and welcome each
//! end states what it has of each channel, and the other goes on from there: a cut loses and repeats no byte. A frame lost in between shows as a gap
//! (the receiver asks for a rewind) or as silence (the sender goes back or asks by itself, [`RETRY`]).
//!
//! A host that was killed comes back with nothing: a link that has never been open *adopts* what the guest states. A sender keeps its bytes until they
//! are taken ([`Link::consume`]), so an adopted stream begins at the first byte that the host before had not dealt with, and [`Link::consumed`],
//! [`Link::delivered`] and [`Link::channels`] tell the application where it is. An end writes on a channel only when it knows that the other has opened
//! it; a channel that the peer has no more is over: [`Event::Reset`] with `NoSuchChannel`.
//!
//! How to drive it. Inputs: [`Link::pipe_up`], [`Link::pipe_down`], [`Link::handle_bytes`], [`Link::handle_beside`] for a pipe that may take the place
//! of the one in use, [`Link::handle_timeout`]. Commands: `open`, `write`, `finish`, `consume`, `discard`, `forget`, `send_message`. Outputs:
//! [`Link::poll_transmit`] until it says false, [`Link::poll_event`] until `None`, then sleep until [`Link::poll_timeout`]. `now` is the time since any
//! fixed moment; it must not run backwards.

mod answering;
mod beside;
mod counters;
mod greeting;
mod state;
mod terms;
mod traffic;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::codec;
use crate::frame::{self, Decoder, Noise};
use crate::handshake::{Entropy, LinkKey};
use crate::message;
use crate::packet::{ChannelId, MAX_CHANNELS, Packet, ResetReason};

use self::answering::Answers;
pub use self::beside::{Door, Side, knock_frame};
pub use self::counters::Counters;
use self::greeting::{Asking, Refusals};
use self::state::{Channel, State};
pub use self::terms::{Closed, Event, Role, Security, Tuning};

/// The version of the protocol that this crate speaks.
pub const VERSION: u16 = 1;

/// The channel of messages.
pub const CONTROL: ChannelId = ChannelId(0);

/// The window of [`CONTROL`], at both ends and on every pipe: it holds the longest message as a whole, because messages are taken as a whole.
pub const CONTROL_WINDOW: u32 = 0x11_0000;
const _: () = assert!(CONTROL_WINDOW as usize >= codec::MAX_ENCODED + message::RECORD_HEADER);

/// How often a guest repeats its hello, and a host its knock, while nobody answers. Short, because a start waits for it; it ends with the answer.
pub const HELLO_INTERVAL: Duration = Duration::from_millis(100);

/// The least time from one hello that answers a knock to the next: a knock proves nothing.
pub const KNOCK_INTERVAL: Duration = Duration::from_secs(1);

/// How long a hello that answers a knock stands. Then the guest stays with the session that it has.
pub const OFFER_LIFE: Duration = Duration::from_secs(5);

/// Silence after which a sender goes back to what was received, or asks how far its peer is, doubled each time up to 32 times. Longer than a full window
/// takes at 115200 baud.
pub const RETRY: Duration = Duration::from_secs(8);

/// The most characters of a refusal that are told: nothing proves who wrote it.
pub const MAX_REFUSAL: usize = 200;

/// Frames that wait to go before all others; what is beyond is not answered, and asks again.
const MAX_URGENT: usize = 64;

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
    /// Frames that go before all others: delimiter, welcome, refusal.
    urgent: VecDeque<Vec<u8>>,
    events: VecDeque<Event>,
    /// Bytes of [`CONTROL`] that wait as messages in `events`.
    announced: usize,
    /// Channels that the peer means to have, and that are not here.
    strays: BTreeSet<ChannelId>,
    served: u64,
    /// When somebody typed last, at either end.
    typed: Option<Duration>,
    counters: Counters,
    key: LinkKey,
    sealed: bool,
    entropy: Entropy,
    /// A guest's hello that waits for its welcome: while it greets, or beside a live session.
    asking: Option<Asking>,
    /// When a guest answered a knock last.
    knocked: Option<Duration>,
    answers: Answers,
    refusals: Refusals,
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
            announced: 0,
            strays: BTreeSet::new(),
            served: 0,
            typed: None,
            counters: Counters::default(),
            key,
            sealed,
            entropy: Entropy::new(seed),
            asking: None,
            knocked: None,
            answers: Answers::default(),
            refusals: Refusals::default(),
        };
        link.open(CONTROL);
        link
    }

    // -- what is the case

    /// Greetings have been exchanged on the pipe that is up.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. })
    }

    /// The peer's application has dealt with everything that was written on every channel, or never will.
    pub fn is_flushed(&self) -> bool {
        self.is_closed() || self.channels.values().all(|channel| channel.out.is_flushed())
    }

    /// The link is over for good: it takes everything and keeps nothing, so that nobody waits for it.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// What came and could not be used.
    pub fn counters(&self) -> Counters {
        Counters { noise: self.noise(), ..self.counters }
    }

    /// Bytes that were no frames.
    pub fn noise(&self) -> Noise {
        self.counters.noise + self.decoder.noise()
    }

    /// The channels that are open, [`CONTROL`] among them: those that were opened here, and those that were adopted.
    pub fn channels(&self) -> impl Iterator<Item = ChannelId> + '_ {
        self.channels.keys().copied()
    }

    /// Bytes received and not yet consumed.
    pub fn readable(&self, id: ChannelId) -> &[u8] {
        self.channels.get(&id).map_or(&[], |channel| channel.input.readable())
    }

    /// The absolute offset of the first readable byte: how much has been consumed since the channel began, here or at the host before.
    pub fn consumed(&self, id: ChannelId) -> u64 {
        self.channels.get(&id).map_or(0, |channel| channel.input.consumed())
    }

    /// How long the channel's stream to us is; known once its end has come.
    pub fn length(&self, id: ChannelId) -> Option<u64> {
        self.channels.get(&id).and_then(|channel| channel.input.length())
    }

    /// The peer has sent all that it may: it waits for us to consume.
    pub fn is_full(&self, id: ChannelId) -> bool {
        self.channels.get(&id).is_some_and(|channel| channel.input.is_full())
    }

    /// The absolute offset after the last byte that [`Link::write`] took.
    pub fn written(&self, id: ChannelId) -> u64 {
        self.channels.get(&id).map_or(0, |channel| channel.out.written())
    }

    /// How far the peer has received what was written, as an absolute offset. Where a stream was adopted, its next byte goes here.
    pub fn delivered(&self, id: ChannelId) -> u64 {
        self.channels.get(&id).map_or(0, |channel| channel.out.received())
    }

    /// Nothing more can be written: it was finished, here or by the host before, or the peer does not want it, or there is no such channel.
    pub fn is_finished(&self, id: ChannelId) -> bool {
        self.channels.get(&id).is_none_or(|channel| channel.out.is_finished())
    }

    /// The peer has finished the channel and everything is consumed.
    pub fn is_ended(&self, id: ChannelId) -> bool {
        self.channels.get(&id).is_some_and(|channel| channel.input.is_ended())
    }

    /// How many bytes [`Link::write`] would take: the window, less what the peer's application has not yet taken.
    pub fn room(&self, id: ChannelId) -> usize {
        let cap = self.tuning.window as usize;
        self.channels.get(&id).map_or(0, |channel| match channel.out.is_finished() {
            true => 0,
            false if self.is_closed() => cap,
            false => cap.saturating_sub(channel.out.buffered()),
        })
    }

    // -- commands

    /// Makes a channel known. Both ends do it; its bytes may flow from then on. False when there are [`MAX_CHANNELS`] already.
    pub fn open(&mut self, id: ChannelId) -> bool {
        let (window, peer_window) = (self.tuning.window, self.peer_window);
        let known = self.channels.contains_key(&id);
        if !known && self.channels.len() < MAX_CHANNELS {
            self.channels.insert(id, Channel::new(id, window, peer_window));
            if let Some(asking) = &mut self.asking {
                asking.stale = true;
            }
            return true;
        }
        known
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

    /// The first `count` readable bytes have been dealt with: they will not come again, not even to a host that takes this one's place.
    /// Messages are taken by [`Link::poll_event`] instead.
    pub fn consume(&mut self, id: ChannelId, count: usize) {
        if id != CONTROL
            && let Some(channel) = self.channels.get_mut(&id)
        {
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
        if self.is_closed() {
            return;
        }
        let mut record = Vec::with_capacity(bytes.len() + message::RECORD_HEADER);
        message::frame_record(bytes, &mut record);
        self.control().out.write(&record);
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
        self.answers = Answers::default();
        self.refusals.told_here = false;
        self.asking = self.ask(now);
        self.state = State::Greeting { knock_at: self.asking.is_none().then_some(now) };
    }

    /// The pipe is gone. Everything is kept for the next one.
    pub fn pipe_down(&mut self) {
        if !self.is_closed() {
            self.state = State::Down;
            self.asking = None;
        }
    }

    /// Keys are drawn from other randomness from here on: a machine that was copied has the same as its copy.
    pub fn reseed(&mut self, seed: [u8; 32]) {
        self.entropy = Entropy::new(seed);
    }

    /// Bytes have come.
    pub fn handle_bytes(&mut self, now: Duration, bytes: &[u8]) {
        let mut decoder = std::mem::take(&mut self.decoder);
        decoder.feed(bytes, |body| self.handle_body(now, body));
        self.decoder = decoder;
    }

    /// The time that [`Link::poll_timeout`] named has come.
    pub fn handle_timeout(&mut self, now: Duration) {
        self.expire_offer(now);
        self.retry(now);
    }

    // -- outputs

    /// When to call [`Link::handle_timeout`] and [`Link::poll_transmit`] even if nothing happens; `None` while idle.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let asking = self.asking.as_ref().map(|asking| if asking.stale { Duration::ZERO } else { asking.next });
        match &self.state {
            State::Greeting { knock_at } => asking.or(*knock_at),
            State::Open { confirm_at, .. } => {
                let retries = self.channels.values().filter_map(|channel| channel.retry.map(|(at, _)| at));
                retries.chain(*confirm_at).chain(asking).min()
            }
            State::Down | State::Closed => None,
        }
    }

    /// The next thing that the application has to know. A message that it returns counts as dealt with.
    pub fn poll_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        if let Event::Message(message) = &event {
            self.take_message(message);
        }
        Some(event)
    }

    /// Appends the next frame to `out`; false when there is nothing to send now. Call it when the pipe can take bytes, not before:
    /// what goes next is decided here.
    pub fn poll_transmit(&mut self, now: Duration, out: &mut Vec<u8>) -> bool {
        if matches!(self.state, State::Down | State::Closed) {
            return false;
        }
        if let Some(bytes) = self.urgent.pop_front() {
            out.extend_from_slice(&bytes);
            return true;
        }
        if self.transmit_hello(now, out) || self.transmit_knock(now, out) {
            return true;
        }
        self.is_open()
            && (self.transmit_confirm(now, out) || self.transmit_notice(now, out) || self.transmit_stream(now, out))
    }

    // -- packets

    fn handle_body(&mut self, now: Duration, body: &[u8]) {
        if matches!(self.state, State::Down | State::Closed) {
            return;
        }
        match Packet::decode(body) {
            Ok(packet) => self.handle_packet(now, packet),
            Err(error) => self.count_unreadable(&error),
        }
    }

    fn handle_packet(&mut self, now: Duration, packet: Packet<'_>) {
        match packet {
            Packet::Hello { hello, message } => {
                let mut answers = std::mem::take(&mut self.answers);
                if let Some(frame) = self.answer(now, &hello, message, &mut answers) {
                    self.say(frame);
                }
                self.answers = answers;
            }
            Packet::Welcome { message } => self.handle_welcome(now, message),
            Packet::Refuse(reason) => self.handle_refuse(&reason),
            Packet::Knock => self.handle_knock(now),
            Packet::Sealed { number, packet } => {
                if let Some(packet) = self.open_sealed(now, number, packet) {
                    self.handle_sealed(now, &packet);
                }
            }
            Packet::Confirm => self.counters.misplaced += 1,
            packet if self.is_open() && !self.sealed => self.handle_stream(now, packet),
            _ => self.counters.misplaced += 1,
        }
    }

    /// What came under the seal of the session that is open.
    fn handle_sealed(&mut self, now: Duration, packet: &[u8]) {
        match Packet::decode(packet) {
            // the guest wants to hear that it was heard
            Ok(Packet::Confirm) => self.control().credit_due = true,
            Ok(packet) => self.handle_stream(now, packet),
            Err(error) => self.count_unreadable(&error),
        }
    }

    fn count_unreadable(&mut self, error: &codec::DecodeError) {
        match error {
            codec::DecodeError::UnknownKind => self.counters.unknown += 1,
            codec::DecodeError::Truncated | codec::DecodeError::Malformed(_) => self.counters.malformed += 1,
        }
    }

    /// A frame that goes before all others.
    fn say(&mut self, frame: Vec<u8>) {
        if self.urgent.len() < MAX_URGENT {
            self.urgent.push_back(frame);
        }
    }

    fn control(&mut self) -> &mut Channel {
        self.channels.get_mut(&CONTROL).expect("opened in new()")
    }

    fn close(&mut self, why: Closed) {
        self.state = State::Closed;
        self.asking = None;
        self.events.push_back(Event::Closed(why));
    }
}
