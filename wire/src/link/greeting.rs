//! The guest's half of the greeting, and resumption at both ends: where each channel goes on.
//!
//! ```text
//!   guest                                    host
//!                                      <---- knock: is there a hello for me? (clear; it proves nothing)
//!   hello (clear part, Noise message 1) ---> made with the key? else silence. A live session is not touched:
//!                                            the hello may be a recording
//!   has the key, and is fresh: open <------- welcome (Noise message 2)
//!   confirm (sealed) ----------------------> the guest is alive: this session takes the place of the old one
//! ```
//!
//! Hello and confirm are repeated until they are answered. The same hello gets the same welcome, so that a repetition crosses no answer.
//!
//! A guest that is open and hears a knock makes an offer *beside* its session: hello, a few times, and then no more. The session stays as it is until
//! a welcome made with the key comes; and as long as it lives, which any packet of it shows, the offer is void, because what it states is old.

use std::collections::BTreeMap;
use std::time::Duration;

use super::state::{Channel, State};
use super::{
    CONTROL, CONTROL_WINDOW, Closed, Event, HELLO_INTERVAL, KNOCK_INTERVAL, Link, MAX_REFUSAL, OFFER_LIFE, Role,
    VERSION,
};
use crate::codec;
use crate::frame;
use crate::handshake::{Offer, Sealer};
use crate::packet::{ChannelId, Greeting, Hello, Packet, Position, ResetReason};

/// A guest's hello that waits for its welcome.
#[derive(Debug)]
pub(super) struct Asking {
    offer: Offer,
    frame: Vec<u8>,
    /// When it goes out next, or is given up.
    pub(super) next: Duration,
    /// From then to the time after.
    pause: Duration,
    /// When it is given up. Only an offer beside a live session is.
    until: Option<Duration>,
    /// A channel was opened since: a host that believed the offer would not know it. It is made again before it goes out again.
    pub(super) stale: bool,
}

/// What a guest has told its user of refusals.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    last: Option<String>,
    /// One was told on the pipe that is up.
    pub(super) told_here: bool,
}

/// A stranger's words, fit for a console: short, and without characters that move its cursor or end its line.
fn presentable(words: &str) -> String {
    let shown = |symbol: char| if symbol.is_control() { char::REPLACEMENT_CHARACTER } else { symbol };
    words.chars().take(MAX_REFUSAL).map(shown).collect()
}

impl Link {
    /// A guest's offer, with a hello that goes out now.
    pub(super) fn ask(&mut self, now: Duration) -> Option<Asking> {
        let Role::Guest { vm, boot } = &self.role else { return None };
        let hello = Hello { versions: (VERSION, VERSION), vm: vm.clone(), sealed: self.sealed };
        let positions = self.positions();
        let greeting = Greeting { version: VERSION, boot: *boot, window: self.tuning.window, positions };
        let mut payload = Vec::new();
        codec::encode(&greeting, &mut payload);
        let (offer, message) = Offer::new(&self.key, &hello.prologue(), &payload, &mut self.entropy);
        let frame = clear_frame(&Packet::Hello { hello, message: &message });
        Some(Asking { offer, frame, next: now, pause: HELLO_INTERVAL, until: None, stale: false })
    }

    /// Where each channel is. Of messages, only whole ones count: who comes after a host that is no more must begin at the front of one.
    pub(super) fn positions(&self) -> Vec<Position> {
        let position = |(&id, channel): (&ChannelId, &Channel)| match channel.position(id) {
            at if id == CONTROL => Position { received: at.taken + self.announced as u64, ..at },
            at => at,
        };
        self.channels.iter().filter(|(_, channel)| !channel.over).map(position).collect()
    }

    /// Sends the hello when its time has come.
    pub(super) fn transmit_hello(&mut self, now: Duration, out: &mut Vec<u8>) -> bool {
        self.expire_offer(now);
        if let Some(Asking { until, .. }) = self.asking.take_if(|asking| asking.stale) {
            self.asking = self.ask(now).map(|asking| Asking { until, ..asking });
        }
        let Some(asking) = &mut self.asking else { return false };
        if asking.next > now {
            return false;
        }
        asking.next = now + asking.pause;
        if let Some(until) = asking.until {
            asking.pause *= 2;
            asking.next = asking.next.min(until);
        }
        out.extend_from_slice(&asking.frame);
        true
    }

    /// Nobody has answered the hello that answered a knock.
    pub(super) fn expire_offer(&mut self, now: Duration) {
        self.asking.take_if(|asking| asking.until.is_some_and(|until| until <= now));
    }

    /// Somebody who may be a host asks for a hello.
    pub(super) fn handle_knock(&mut self, now: Duration) {
        let recently = self.knocked.is_some_and(|at| now < at + KNOCK_INTERVAL);
        match (&self.role, &self.state) {
            (Role::Guest { .. }, State::Open { .. }) if !recently => {
                self.knocked = Some(now);
                self.asking = self.ask(now).map(|asking| Asking { until: Some(now + OFFER_LIFE), ..asking });
            }
            (Role::Guest { .. }, _) => self.counters.idle_knocks += 1,
            (Role::Host { .. }, _) => self.counters.misplaced += 1,
        }
    }

    /// Anyone on the line can say so, as often as it likes: one is told on each pipe, unless it was the last one already, and it changes nothing.
    pub(super) fn handle_refuse(&mut self, reason: &str) {
        if !matches!((&self.role, &self.state), (Role::Guest { .. }, State::Greeting { .. })) {
            self.counters.misplaced += 1;
            return;
        }
        let reason = presentable(reason);
        if self.refusals.told_here || self.refusals.last.as_ref() == Some(&reason) {
            self.counters.untold_refusals += 1;
            return;
        }
        self.refusals = Refusals { last: Some(reason.clone()), told_here: true };
        self.events.push_back(Event::Refused(reason));
    }

    pub(super) fn handle_welcome(&mut self, now: Duration, message: &[u8]) {
        let Some(asking) = self.asking.take_if(|asking| !asking.stale) else { return self.counters.misplaced += 1 };
        let (payload, sealer) = match asking.offer.accept(message) {
            Ok(accepted) => accepted,
            Err(offer) => {
                self.asking = Some(Asking { offer, ..asking });
                self.counters.forged += 1;
                return;
            }
        };
        match codec::decode::<Greeting>(&payload) {
            Ok((greeting, _)) if greeting.is_possible() => self.resume(now, &greeting, sealer, Some(now)),
            _ => self.close(Closed::Violation("its greeting cannot be read")),
        }
    }

    /// Takes up every channel where the peer says that it is. A host that knows nothing believes the guest.
    pub(super) fn resume(&mut self, now: Duration, greeting: &Greeting, sealer: Sealer, confirm_at: Option<Duration>) {
        let adopts = self.adopts();
        self.peer_boot = Some(greeting.boot);
        self.peer_window = u64::from(greeting.window);
        let stated: BTreeMap<ChannelId, &Position> = greeting.positions.iter().map(|at| (at.channel, at)).collect();
        if adopts {
            for &id in stated.keys() {
                self.open(id);
            }
        }
        for (&id, channel) in self.channels.iter_mut().filter(|(_, channel)| !channel.over) {
            (channel.rewind_asked, channel.rewind_due, channel.probe_due) = (None, false, false);
            let possible = match stated.get(&id) {
                Some(at) if adopts => {
                    channel.input.adopt(at.kept);
                    channel.out.adopt(at.received, at.ended, at.limit);
                    true
                }
                Some(at) => channel.out.resume(at.received, at.taken, at.limit),
                None if channel.has_progressed() => {
                    channel.end();
                    self.events.extend([Event::Reset(id, ResetReason::NoSuchChannel), Event::Readable(id)]);
                    continue;
                }
                None if id == CONTROL => channel.out.resume(0, 0, CONTROL_WINDOW.into()),
                None => channel.out.resume(0, 0, self.peer_window),
            };
            if !possible {
                return self.close(Closed::Violation("it has other bytes than were sent"));
            }
            if id == CONTROL {
                // the peer sends the message again from its front, as we have stated
                channel.input.forget_after(self.announced);
            }
            channel.await_news(now);
            // what was granted since the greeting was made went to the session before: a peer that is out of room, and has nothing under way, would never ask
            let in_use = channel.input.received() > 0 && !channel.input.has_end();
            channel.credit_due = in_use || channel.input.owes_credit();
            // a host that came after the one that was told does not know it
            channel.reset_due = channel.input.is_discarding().then_some(ResetReason::NotRead);
        }
        self.strays.clear();
        for at in &greeting.positions {
            let begun = at.received > 0 || at.kept > 0;
            if begun && self.channels.get(&at.channel).is_none_or(|channel| channel.over) {
                self.refuse_stray(at.channel);
            }
        }
        self.urgent.clear();
        self.state = State::Open { sealer, confirm_at };
        self.events.push_back(Event::Opened { boot: greeting.boot });
        self.events.extend(self.channels.keys().map(|&id| Event::Writable(id)));
    }
}

/// A packet that goes in the clear, whatever the link does afterwards.
pub(super) fn clear_frame(packet: &Packet<'_>) -> Vec<u8> {
    let (mut body, mut bytes) = (Vec::new(), Vec::new());
    packet.encode(&mut body);
    frame::encode(&body, &[], &mut bytes);
    bytes
}
