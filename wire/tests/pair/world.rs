//! A guest with sessions, a host that may die, and a record of every byte that passed between them.
//!
//! Both ends do with their link what real ones do: the host asks for sessions by messages, opens their channels first, and writes when the guest has
//! answered; the guest forgets a session when the host says so. A host that starts knows only which sessions it wants: where their streams are it learns
//! from its link.

use std::collections::BTreeMap;
use std::time::Duration;

use wire::link::{Link, Side, Tuning, knock_frame};
use wire::packet::ChannelId;

use crate::dice::{Dice, NEVER};
use crate::ends::{GuestSide, HostSide, streams};
use crate::lines::{CLEAN, Faults, Pipe};

/// Steps after which the worst is over.
const ENOUGH: u64 = 10_000;

/// What a run is made of.
pub(crate) struct Plan {
    pub(crate) sealed: bool,
    pub(crate) tuning: Tuning,
    pub(crate) faults: Faults,
    /// Nobody says more than it must.
    pub(crate) quiet: bool,
    /// Bytes of each session: to the guest, and from it.
    pub(crate) sessions: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What has come out of the hosts, one after the other: it outlives them.
#[derive(Default)]
pub(crate) struct Record {
    pub(crate) got: BTreeMap<ChannelId, Vec<u8>>,
    /// The number of the guest's message that comes next.
    pub(crate) expected: u32,
}

pub(crate) struct World {
    plan: Plan,
    dice: Dice,
    now: Duration,
    guest: GuestSide,
    host: HostSide,
    pipe: Pipe,
    /// A pipe whose connection is gone, and which still delivers.
    stale: Option<Pipe>,
    /// A pipe that the host has not taken yet. The guest uses it.
    second: Option<(Side, Vec<u8>, Pipe)>,
    /// How much the guest's sessions have read.
    read: BTreeMap<ChannelId, usize>,
    record: Record,
    steps: u64,
}

impl World {
    pub(crate) fn new(plan: Plan, dice: Dice) -> World {
        let (guest, host) = (GuestSide::new(&plan), HostSide::new(&plan, 0));
        let mut world = World {
            dice,
            now: Duration::ZERO,
            guest,
            host,
            pipe: Pipe::default(),
            stale: None,
            second: None,
            read: BTreeMap::new(),
            record: Record::default(),
            steps: 0,
            plan,
        };
        world.guest.link.pipe_up(world.now);
        world.host.link.pipe_up(world.now);
        world
    }

    /// Goes on until every session is over and every byte compared; then lets the line calm down.
    pub(crate) fn run(mut self) {
        let count = self.plan.sessions.len();
        while self.host.over.len() < count {
            self.step();
        }
        for (session, (_, output)) in self.plan.sessions.iter().enumerate() {
            let (stdin, stdout) = streams(session as u32);
            assert_eq!(self.read.get(&stdin), Some(&self.plan.sessions[session].0.len()), "input of {session}");
            assert!(self.record.got[&stdout] == *output, "output of {session}");
        }
        (self.plan.faults, self.plan.quiet) = (CLEAN, true);
        while !(self.guest.link.is_flushed() && self.host.link.is_flushed() && self.second.is_none()) {
            self.step();
        }
        let calm = self.now + Duration::from_secs(10);
        while self.now < calm {
            self.step();
            self.now += Duration::from_millis(50);
        }
        assert_eq!(self.guest.link.poll_timeout(), None, "an idle guest has no timer");
        assert!(self.host.link.is_open() && self.host.link.poll_timeout().is_none());
    }

    /// Moves some bytes in both directions. Time passes slowly, and quickly when nothing else can happen.
    pub(crate) fn step(&mut self) {
        self.steps += 1;
        assert!(self.steps < 150_000, "stuck: {}", self.describe());
        if self.steps == ENOUGH {
            // who is killed or cut off before it can say a word gets nothing done
            self.plan.faults = Faults { cut: NEVER, kill: NEVER, second: NEVER, ..self.plan.faults };
        }
        self.misfortune();
        let moved = self.guest_moves() | self.host_moves();
        self.guest_works();
        self.host_works();
        self.now += Duration::from_millis(self.dice.roll(3));
        if !moved && self.is_silent() {
            let due = [self.guest.link.poll_timeout(), self.host.link.poll_timeout()].into_iter().flatten().min();
            self.now = due.unwrap_or(self.now).max(self.now) + Duration::from_millis(1);
        }
        self.guest.link.handle_timeout(self.now);
        self.host.link.handle_timeout(self.now);
    }

    fn misfortune(&mut self) {
        let Faults { cut, kill, seen, second, .. } = self.plan.faults;
        if self.dice.once_in(cut) {
            self.cut();
        }
        if self.dice.once_in(kill) {
            // its last frame may be half written; what it had received and not dealt with is gone
            self.host = HostSide::new(&self.plan, self.host.life + 1);
            if let Some((_, _, pipe)) = self.second.take() {
                self.pipe = pipe;
            }
            match seen {
                true => self.cut(),
                false => self.host.link.pipe_up(self.now),
            }
        }
        if self.dice.once_in(second) && self.host.link.is_open() {
            let old = match self.second.take() {
                Some((_, _, pipe)) => pipe,
                None => std::mem::take(&mut self.pipe),
            };
            let late = self.dice.once_in(2);
            match late {
                // the host still hears the first
                true => self.pipe = old,
                false => self.stale = Some(old),
            }
            self.second = Some((Side::default(), knock_frame(), Pipe::default()));
        }
    }

    fn cut(&mut self) {
        (self.pipe, self.stale, self.second) = (Pipe::default(), None, None);
        self.guest.outbox.clear();
        self.host.outbox.clear();
        self.guest.link.pipe_down();
        self.host.link.pipe_down();
        self.guest.link.pipe_up(self.now);
        self.host.link.pipe_up(self.now);
    }

    fn guest_moves(&mut self) -> bool {
        let World { plan, dice, now, guest, pipe, stale, second, .. } = self;
        if guest.outbox.is_empty() {
            guest.link.poll_transmit(*now, &mut guest.outbox);
        }
        let device = match second {
            Some((_, _, pipe)) => pipe,
            None => pipe,
        };
        device.to_host.take(&mut guest.outbox, dice);
        let mut chunk = device.to_guest.give(&plan.faults, dice);
        // what an old connection still delivers
        if let Some(stale) = stale
            && dice.once_in(3)
        {
            chunk.extend(stale.to_guest.give(&plan.faults, dice));
        }
        guest.link.handle_bytes(*now, &chunk);
        !chunk.is_empty()
    }

    fn host_moves(&mut self) -> bool {
        let World { plan, dice, now, host, pipe, stale, second, .. } = self;
        if host.outbox.is_empty() {
            host.link.poll_transmit(*now, &mut host.outbox);
        }
        pipe.to_guest.take(&mut host.outbox, dice);
        let mut chunk = pipe.to_host.give(&plan.faults, dice);
        if let Some(stale) = stale
            && dice.once_in(3)
        {
            chunk.extend(stale.to_host.give(&plan.faults, dice));
        }
        host.link.handle_bytes(*now, &chunk);
        let mut moved = !chunk.is_empty();
        if let Some((side, reply, candidate)) = second {
            candidate.to_guest.take(reply, dice);
            let chunk = candidate.to_host.give(&plan.faults, dice);
            moved |= !chunk.is_empty();
            // a listening host asks until it is answered
            if reply.is_empty() && chunk.is_empty() && dice.once_in(50) {
                reply.extend(knock_frame());
            }
            if host.link.handle_beside(side, *now, &chunk, reply) {
                host.outbox = std::mem::take(reply);
                let taken = std::mem::take(candidate);
                *stale = Some(std::mem::replace(pipe, taken));
                *second = None;
            }
        }
        moved
    }

    fn is_silent(&self) -> bool {
        let empty = |pipe: &Pipe| pipe.to_guest.is_empty() && pipe.to_host.is_empty();
        empty(&self.pipe) && self.second.as_ref().is_none_or(|(_, reply, pipe)| reply.is_empty() && empty(pipe))
    }

    fn guest_works(&mut self) {
        self.guest.work(&self.plan, &mut self.dice, &mut self.read);
    }

    fn host_works(&mut self) {
        let World { plan, dice, guest, host, record, .. } = self;
        host.work(plan, dice, record, &guest.forgotten);
    }

    fn describe(&self) -> String {
        let at = |link: &Link| -> String {
            let channel =
                |id| format!(" {id:?} in {} out {}/{}", link.consumed(id), link.delivered(id), link.written(id));
            format!(
                "open {} {}; {:?}",
                link.is_open(),
                link.channels().map(channel).collect::<String>(),
                link.counters()
            )
        };
        format!("life {}, {:?}\nguest {}\nhost {}", self.host.life, self.now, at(&self.guest.link), at(&self.host.link))
    }
}
