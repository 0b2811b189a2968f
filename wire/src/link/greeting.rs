//! Greeting and resumption: who has the key, and where each channel goes on.
//!
//! ```text
//!   guest                                    host
//!   hello (clear part, Noise message 1) ---> made with the key? else silence. A live session is not touched:
//!                                            the hello may be a recording
//!   has the key, and is fresh: open <------- welcome (Noise message 2)
//!   confirm (sealed) ----------------------> the guest is alive: this session takes the place of the old one
//! ```
//!
//! Hello and confirm are repeated until they are answered. The same hello gets the same welcome, so that a repetition crosses no answer.

use std::time::Duration;

use super::state::{Channel, State};
use super::{Closed, Event, HELLO_INTERVAL, Link, Role, VERSION};
use crate::channel::Incoming;
use crate::codec;
use crate::frame;
use crate::handshake::{Offer, Opening, Sealer};
use crate::packet::{ChannelId, Greeting, Hello, Packet, Position};

/// The least time between two hellos that the host takes the trouble to check: each costs it two curve operations.
const HELLO_COST: Duration = Duration::from_millis(20);

/// A guest's hello that waits for its welcome.
#[derive(Debug)]
pub(super) struct Asking {
    offer: Option<Offer>,
    frame: Vec<u8>,
    /// When it goes out next.
    pub(super) at: Duration,
}

/// A host's welcome that waits for its confirmation.
#[derive(Debug)]
pub(super) struct Answering {
    hello: Vec<u8>,
    frame: Vec<u8>,
    sealer: Sealer,
    greeting: Greeting,
}

impl Link {
    /// The guest's hello for a pipe that has just opened.
    pub(super) fn ask(&mut self, now: Duration) -> Option<Asking> {
        let Role::Guest { vm, boot } = &self.role else { return None };
        let hello = Hello { versions: (VERSION, VERSION), vm: vm.clone(), sealed: self.sealed };
        // what was granted last, and no more: a hello that is repeated must not change what it says
        let stated = |(&id, channel): (&ChannelId, &Channel)| Position {
            channel: id,
            received: channel.input.received(),
            limit: channel.input.told(),
        };
        let positions = self.channels.iter().map(stated).collect();
        let greeting = Greeting { version: VERSION, boot: *boot, window: self.tuning.window, positions };
        let mut payload = Vec::new();
        codec::encode(&greeting, &mut payload);
        let (offer, message) = Offer::new(&self.key, &hello.prologue(), &payload, &mut self.entropy);
        let frame = clear_frame(&Packet::Hello { hello, message: &message });
        Some(Asking { offer: Some(offer), frame, at: now })
    }

    /// Sends the hello when its time has come.
    pub(super) fn transmit_hello(&mut self, now: Duration, out: &mut Vec<u8>) -> bool {
        let State::Greeting { asking: Some(asking) } = &mut self.state else { return false };
        if asking.at > now {
            return false;
        }
        asking.at = now + HELLO_INTERVAL;
        out.extend_from_slice(&asking.frame);
        true
    }

    pub(super) fn handle_welcome(&mut self, now: Duration, message: &[u8]) {
        let State::Greeting { asking: Some(asking) } = &mut self.state else { return self.denied += 1 };
        let Some(offer) = asking.offer.take() else { return };
        let (payload, sealer) = match offer.accept(message) {
            Ok(accepted) => accepted,
            Err(offer) => {
                asking.offer = Some(offer);
                self.denied += 1;
                return;
            }
        };
        match codec::decode::<Greeting>(&payload) {
            Ok((greeting, _)) => self.resume(&greeting, sealer, Some(now)),
            Err(_) => self.close(Closed::Violation("its greeting cannot be read")),
        }
    }

    pub(super) fn handle_hello(&mut self, now: Duration, hello: &Hello, message: &[u8]) {
        let Role::Host { vm } = &self.role else { return self.denied += 1 };
        if let Some(answering) = &self.answering
            && answering.hello == message
        {
            return self.urgent.push_back(answering.frame.clone());
        }
        if now < self.hello_after {
            return self.denied += 1;
        }
        self.hello_after = now + HELLO_COST;
        let refusal = if hello.vm != *vm {
            Some(format!("this is the link of {vm}, not of {}", hello.vm))
        } else if !(hello.versions.0..=hello.versions.1).contains(&VERSION) {
            Some(format!("no common version: {}-{} there, {VERSION} here", hello.versions.0, hello.versions.1))
        } else if hello.sealed != self.sealed {
            Some(String::from(if self.sealed { "packets must be sealed here" } else { "packets are not sealed here" }))
        } else {
            None
        };
        if let Some(reason) = refusal {
            return self.urgent.push_back(clear_frame(&Packet::Refuse(reason)));
        }
        let opened = Opening::read(&self.key, &hello.prologue(), message, &mut self.entropy);
        let Some((opening, payload)) = opened else { return self.denied += 1 };
        let Ok((greeting, _)) = codec::decode::<Greeting>(&payload) else { return self.denied += 1 };
        let positions = self.channels.iter_mut().map(|(&id, channel)| position(id, &mut channel.input)).collect();
        let own = Greeting { version: VERSION, boot: greeting.boot, window: self.tuning.window, positions };
        let mut payload = Vec::new();
        codec::encode(&own, &mut payload);
        let (answer, sealer) = opening.answer(&payload);
        let frame = clear_frame(&Packet::Welcome { message: &answer });
        self.urgent.push_back(frame.clone());
        self.answering = Some(Answering { hello: message.to_vec(), frame, sealer, greeting });
    }

    /// Opens a packet of the live session, or the first one of the session that was answered last.
    pub(super) fn open_sealed(&mut self, number: u64, packet: &[u8]) -> Option<Vec<u8>> {
        if let State::Open { sealer, .. } = &mut self.state
            && let Some(packet) = sealer.open(number, packet)
        {
            return Some(packet);
        }
        let packet = self.answering.as_mut()?.sealer.open(number, packet)?;
        let Answering { sealer, greeting, .. } = self.answering.take()?;
        if self.peer_boot.is_some_and(|boot| boot != greeting.boot) {
            self.close(Closed::Restarted);
            return None;
        }
        self.resume(&greeting, sealer, None);
        Some(packet)
    }

    /// Takes up every channel where the peer says that it is.
    fn resume(&mut self, greeting: &Greeting, sealer: Sealer, confirm_at: Option<Duration>) {
        self.peer_boot = Some(greeting.boot);
        self.peer_window = u64::from(greeting.window);
        for (id, channel) in &mut self.channels {
            let stated = greeting.positions.iter().find(|position| position.channel == *id);
            let (received, limit) = match stated {
                Some(position) => (position.received, position.limit),
                None => (0, self.peer_window),
            };
            channel.retry = None;
            channel.rewind_asked = None;
            if !(channel.out.rewind(received) && channel.out.credit(received, limit)) {
                return self.close(Closed::Violation("it has other bytes than were sent"));
            }
        }
        self.state = State::Open { sealer, confirm_at };
        self.events.push_back(Event::Opened { boot: greeting.boot });
        self.events.extend(self.channels.keys().map(|&id| Event::Writable(id)));
    }
}

/// A packet that goes in the clear, whatever the link does afterwards.
fn clear_frame(packet: &Packet<'_>) -> Vec<u8> {
    let (mut body, mut bytes) = (Vec::new(), Vec::new());
    packet.encode(&mut body);
    frame::encode(&body, &[], &mut bytes);
    bytes
}

pub(super) fn position(channel: ChannelId, input: &mut Incoming) -> Position {
    Position { channel, received: input.received(), limit: input.grant() }
}
