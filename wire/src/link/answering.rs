//! The host's half of the greeting: which hellos it answers, what it says of itself, and whose confirmation it believes.
//!
//! A host that has never been open knows nothing, and says what the guest says: its welcome claims, for each channel of the guest's, to have what the
//! guest no longer keeps. When the guest confirms, it is so (*adoption*). Until then nothing is changed: a hello may be a recording.

use std::time::Duration;

use super::greeting::clear_frame;
use super::state::{Channel, State};
use super::{Closed, HELLO_INTERVAL, KNOCK_INTERVAL, Link, Role, VERSION};
use crate::codec;
use crate::handshake::{Opening, Sealer, Unopened};
use crate::packet::{Greeting, Hello, Packet, Position};

/// The least time between two hellos that the host takes the trouble to check: each costs it two curve operations.
const HELLO_COST: Duration = Duration::from_millis(20);

/// What a host has answered on one pipe.
#[derive(Debug, Default)]
pub(super) struct Answers {
    last: Option<Answer>,
    /// No hello is checked before.
    not_before: Duration,
}

/// A host's welcome that waits for its confirmation.
#[derive(Debug)]
struct Answer {
    hello: Vec<u8>,
    frame: Vec<u8>,
    sealer: Sealer,
    greeting: Greeting,
}

impl Link {
    /// A host that knows nothing yet, not even which boot of its VM it talks to.
    pub(super) fn adopts(&self) -> bool {
        self.peer_boot.is_none() && matches!(self.role, Role::Host { .. })
    }

    /// Knocks while no hello is heard.
    pub(super) fn transmit_knock(&mut self, now: Duration, out: &mut Vec<u8>) -> bool {
        match &mut self.state {
            State::Greeting { knock_at: Some(at) } if *at <= now => *at = now + HELLO_INTERVAL,
            _ => return false,
        }
        out.extend_from_slice(&clear_frame(&Packet::Knock));
        true
    }

    /// The frame that answers a hello: a welcome, a refusal, or nothing.
    pub(super) fn answer(
        &mut self,
        now: Duration,
        hello: &Hello,
        message: &[u8],
        answers: &mut Answers,
    ) -> Option<Vec<u8>> {
        let Role::Host { vm } = &self.role else {
            self.counters.misplaced += 1;
            return None;
        };
        if let Some(answer) = answers.last.as_ref().filter(|answer| answer.hello == message) {
            return Some(answer.frame.clone());
        }
        if now < answers.not_before {
            self.counters.hurried += 1;
            return None;
        }
        answers.not_before = now + HELLO_COST;
        let refusal = if hello.vm != *vm {
            self.counters.wrong_vm += 1;
            Some(format!("this is the link of {vm}, not of {}", hello.vm))
        } else if !(hello.versions.0..=hello.versions.1).contains(&VERSION) {
            self.counters.wrong_version += 1;
            Some(format!("no common version: {}-{} there, {VERSION} here", hello.versions.0, hello.versions.1))
        } else if hello.sealed != self.sealed {
            self.counters.wrong_sealing += 1;
            Some(String::from(if self.sealed { "packets must be sealed here" } else { "packets are not sealed here" }))
        } else {
            None
        };
        if let Some(reason) = refusal {
            return Some(clear_frame(&Packet::Refuse(reason)));
        }
        let Some((opening, payload)) = Opening::read(&self.key, &hello.prologue(), message, &mut self.entropy) else {
            self.counters.forged += 1;
            return None;
        };
        let greeting = codec::decode::<Greeting>(&payload).ok().map(|(greeting, _)| greeting);
        let Some(greeting) = greeting.filter(Greeting::is_possible) else {
            self.counters.malformed += 1;
            return None;
        };
        if self.is_taken_over(&greeting) {
            self.close(Closed::TakenOver);
            return None;
        }
        // it was heard; if nothing comes of it, the guest is asked for another
        if let State::Greeting { knock_at: Some(at) } = &mut self.state {
            *at = now + KNOCK_INTERVAL;
        }
        // one that restarted is believed, too, so that it confirms: only then is it sure that it did, and the link is over
        let restarted = self.peer_boot.is_some_and(|boot| boot != greeting.boot);
        let positions = match self.adopts() || restarted {
            true => self.adopted_positions(&greeting),
            false => self.positions(),
        };
        let own = Greeting { version: VERSION, boot: greeting.boot, window: self.tuning.window, positions };
        let mut payload = Vec::new();
        codec::encode(&own, &mut payload);
        let (answer, sealer) = opening.answer(&payload);
        let frame = clear_frame(&Packet::Welcome { message: &answer });
        answers.last = Some(Answer { hello: message.to_vec(), frame: frame.clone(), sealer, greeting });
        Some(frame)
    }

    /// What the guest states was agreed with another host since: this one has missed it.
    fn is_taken_over(&self, greeting: &Greeting) -> bool {
        self.peer_boot == Some(greeting.boot)
            && greeting.positions.iter().any(|at| match self.channels.get(&at.channel) {
                Some(channel) if !channel.over => {
                    !channel.input.is_discarding() && at.kept > channel.input.received()
                        || !channel.out.is_reset() && at.received > channel.out.farthest()
                }
                _ => false,
            })
    }

    /// Where a host that takes over what the guest has will be.
    fn adopted_positions(&self, greeting: &Greeting) -> Vec<Position> {
        let adopted = greeting.positions.iter().map(|at| {
            let limit = match self.channels.get(&at.channel) {
                Some(channel) => channel.input.limit_from(at.kept),
                None => Channel::new(at.channel, self.tuning.window, 0).input.limit_from(at.kept),
            };
            let kept = at.received - u64::from(at.ended);
            Position { channel: at.channel, received: at.kept, taken: at.kept, limit, kept, ended: false }
        });
        let listed = |own: &Position| greeting.positions.iter().any(|at| at.channel == own.channel);
        let own = self.positions().into_iter().filter(|own| self.adopts() && !listed(own));
        adopted.chain(own).collect()
    }

    /// Opens a packet of the live session, or the first one of the session that was answered last.
    pub(super) fn open_sealed(&mut self, now: Duration, number: u64, packet: &[u8]) -> Option<Vec<u8>> {
        let live = match &mut self.state {
            State::Open { sealer, .. } => sealer.open(number, packet),
            _ => Err(Unopened::Forged),
        };
        let why = match live {
            Ok(packet) => return Some(packet),
            Err(why) => why,
        };
        let mut answers = std::mem::take(&mut self.answers);
        let confirmed = self.confirm(now, number, packet, &mut answers);
        self.answers = answers;
        if confirmed.is_none() {
            match why {
                Unopened::Replayed => self.counters.replayed += 1,
                Unopened::Forged => self.counters.forged += 1,
            }
        }
        confirmed
    }

    /// Moves to the session that was answered, if the packet is its first.
    pub(super) fn confirm(
        &mut self,
        now: Duration,
        number: u64,
        packet: &[u8],
        answers: &mut Answers,
    ) -> Option<Vec<u8>> {
        let packet = answers.last.as_mut()?.sealer.open(number, packet).ok()?;
        let Answer { sealer, greeting, .. } = answers.last.take()?;
        if self.peer_boot.is_some_and(|boot| boot != greeting.boot) {
            self.close(Closed::Restarted);
            return None;
        }
        self.resume(now, &greeting, sealer, None);
        Some(packet)
    }
}
