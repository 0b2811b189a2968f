//! Two ends of a link in one process: virtual time, and every fault that a serial line has.
//!
//! Each run is drawn from a seed; a failing one prints it. `PAIR_RUNS` changes how many runs there are.

#![allow(clippy::cast_possible_truncation, reason = "the numbers of a test are small")]

use std::collections::VecDeque;
use std::time::Duration;

use wire::link::{Event, HELLO_INTERVAL, Link, Role, Tuning};
use wire::message::{self, MAIN, Message, Request};
use wire::packet::{ChannelId, ResetReason};

const STDIN: ChannelId = ChannelId(1);
const STDOUT: ChannelId = ChannelId(2);

/// xorshift64*: enough to choose faults, the same on every machine.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % sides
    }

    fn bytes(&mut self, len: u64) -> Vec<u8> {
        (0..len).map(|_| self.roll(256) as u8).collect()
    }
}

/// How bad the line is: one in so many.
#[derive(Clone, Copy)]
struct Faults {
    cut: u64,
    flip: u64,
    noise: u64,
}

const NEVER: u64 = u64::MAX;
const CLEAN: Faults = Faults { cut: NEVER, flip: NEVER, noise: NEVER };

struct Pair {
    guest: Link,
    host: Link,
    /// Bytes on their way.
    to_host: VecDeque<u8>,
    to_guest: VecDeque<u8>,
    now: Duration,
    dice: Dice,
    faults: Faults,
    events: [Vec<Event>; 2],
}

impl Pair {
    fn new(seed: u64, tuning: Tuning, faults: Faults) -> Pair {
        let vm = String::from("c1");
        let mut pair = Pair {
            guest: Link::new(Role::Guest { vm: vm.clone(), boot: [7; 16] }, tuning),
            host: Link::new(Role::Host { vm }, tuning),
            to_host: VecDeque::new(),
            to_guest: VecDeque::new(),
            now: Duration::ZERO,
            dice: Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            faults,
            events: [Vec::new(), Vec::new()],
        };
        for id in [STDIN, STDOUT] {
            pair.guest.open(id);
            pair.host.open(id);
        }
        pair.connect();
        pair
    }

    fn connect(&mut self) {
        self.to_host.clear();
        self.to_guest.clear();
        self.host.pipe_up(self.now);
        self.guest.pipe_up(self.now);
    }

    /// Moves some bytes in both directions; time passes when nothing else can happen.
    fn step(&mut self) {
        if self.dice.roll(self.faults.cut) == 0 {
            self.guest.pipe_down();
            self.host.pipe_down();
            self.connect();
        }
        let mut moved = false;
        for end in 0..2 {
            let (from, to, line) = match end {
                0 => (&mut self.guest, &mut self.host, &mut self.to_host),
                _ => (&mut self.host, &mut self.guest, &mut self.to_guest),
            };
            let mut out = Vec::new();
            if line.len() < 4096 {
                from.poll_transmit(self.now, &mut out);
            }
            if self.dice.roll(self.faults.noise) == 0 {
                let len = self.dice.roll(64);
                out.extend(self.dice.bytes(len));
            }
            line.extend(out);
            let some = (self.dice.roll(3000) as usize).min(line.len());
            let mut chunk: Vec<u8> = line.drain(..some).collect();
            if !chunk.is_empty() && self.dice.roll(self.faults.flip) == 0 {
                let at = self.dice.roll(chunk.len() as u64) as usize;
                chunk[at] ^= 1 << self.dice.roll(8);
            }
            moved |= !chunk.is_empty();
            to.handle_bytes(self.now, &chunk);
            self.events[1 - end].extend(std::iter::from_fn(|| to.poll_event()));
        }
        if !moved && self.to_host.is_empty() && self.to_guest.is_empty() {
            let next = [self.guest.poll_timeout(), self.host.poll_timeout()].into_iter().flatten().min();
            self.now = next.unwrap_or(self.now).max(self.now) + Duration::from_millis(1);
            self.guest.handle_timeout(self.now);
            self.host.handle_timeout(self.now);
        }
    }

    /// Sends both streams to their end, with a reader that takes a little at a time, and compares.
    fn exchange(&mut self, seed: u64) {
        let (up, down) = (self.dice.bytes(150_000), self.dice.bytes(40_000));
        let (mut up_sent, mut down_sent) = (0, 0);
        let (mut up_got, mut down_got) = (Vec::new(), Vec::new());
        let mut steps = 0;
        while !(self.host.is_ended(STDOUT) && self.guest.is_ended(STDIN)) {
            up_sent += self.guest.write(STDOUT, &up[up_sent..(up_sent + 5000).min(up.len())]);
            down_sent += self.host.write(STDIN, &down[down_sent..(down_sent + 300).min(down.len())]);
            if up_sent == up.len() {
                self.guest.finish(STDOUT);
            }
            if down_sent == down.len() {
                self.host.finish(STDIN);
            }
            self.step();
            for (link, id, got) in [(&mut self.host, STDOUT, &mut up_got), (&mut self.guest, STDIN, &mut down_got)] {
                let some = link.readable(id).len().min(self.dice.roll(4000) as usize);
                got.extend_from_slice(&link.readable(id)[..some]);
                link.consume(id, some);
            }
            steps += 1;
            assert!(
                steps < 200_000,
                "seed {seed}: stuck at {} of {}, {} of {}",
                up_got.len(),
                up.len(),
                down_got.len(),
                down.len()
            );
            let closed = self.events.iter().flatten().find(|event| matches!(event, Event::Closed(_)));
            assert!(closed.is_none(), "seed {seed}: {closed:?}");
        }
        assert!(up_got == up && down_got == down, "seed {seed}: bytes were lost, repeated or reordered");
    }
}

fn runs() -> u64 {
    std::env::var("PAIR_RUNS").ok().and_then(|text| text.parse().ok()).unwrap_or(150)
}

#[test]
fn a_clean_line_needs_no_retry() {
    let mut pair = Pair::new(1, Tuning::FAST, CLEAN);
    pair.exchange(1);
    assert_eq!(pair.now, Duration::ZERO, "nothing waited");
    while !(pair.guest.is_flushed() && pair.host.is_flushed()) {
        pair.step();
    }
    assert_eq!(pair.guest.poll_timeout(), None, "an idle link needs no timer");
    assert_eq!(pair.host.poll_timeout(), None);
}

#[test]
fn nothing_is_lost_on_a_line_that_is_cut_at_any_byte() {
    for seed in 0..runs() {
        Pair::new(seed, Tuning::SERIAL, Faults { cut: 40, ..CLEAN }).exchange(seed);
    }
}

#[test]
fn nothing_is_lost_on_a_line_with_noise_and_flipped_bits() {
    for seed in 0..runs() {
        let tuning = Tuning { window: 8192, payload: 1024 };
        Pair::new(seed, tuning, Faults { cut: 400, flip: 40, noise: 30 }).exchange(seed);
    }
}

#[test]
fn a_hello_is_repeated_until_the_host_is_there() {
    let mut pair = Pair::new(1, Tuning::SERIAL, CLEAN);
    let mut sink = Vec::new();
    for _ in 0..5 {
        while pair.guest.poll_transmit(pair.now, &mut sink) {}
        assert_eq!(pair.guest.poll_timeout(), Some(pair.now + HELLO_INTERVAL));
        pair.now += HELLO_INTERVAL;
    }
    pair.exchange(1);
}

#[test]
fn a_slow_reader_bounds_what_is_kept() {
    let tuning = Tuning { window: 10_000, payload: 1024 };
    let mut pair = Pair::new(1, tuning, CLEAN);
    let mut taken = 0;
    for _ in 0..1000 {
        taken += pair.guest.write(STDOUT, &[1; 5000]);
        pair.step();
    }
    assert_eq!(pair.host.readable(STDOUT).len(), 10_000, "the window, and not a byte more");
    assert_eq!(taken, 20_000, "the window, and as much kept to be sent");
}

#[test]
fn a_key_press_overtakes_bulk() {
    let mut pair = Pair::new(1, Tuning::SERIAL, CLEAN);
    let request = Message::Request { id: 1, request: Request::Signal { session: MAIN, signal: 2 } };
    while !pair.host.is_open() {
        pair.step();
    }
    pair.host.write(STDIN, &[1; 60_000]);
    let mut out = Vec::new();
    pair.host.poll_transmit(pair.now, &mut out);
    pair.host.send_message(&request.encode());
    pair.host.poll_transmit(pair.now, &mut out);
    pair.guest.handle_bytes(pair.now, &out);
    let events: Vec<_> = std::iter::from_fn(|| pair.guest.poll_event()).collect();
    let Some(Event::Message(bytes)) = events.iter().find(|event| matches!(event, Event::Message(_))) else {
        panic!("the message waits behind bulk: {events:?}");
    };
    assert_eq!(message::Message::decode(bytes), Ok(request));
}

#[test]
fn what_nobody_reads_does_not_hold_up_its_sender() {
    let mut pair = Pair::new(1, Tuning { window: 4096, payload: 1024 }, CLEAN);
    pair.guest.discard(STDIN);
    let mut taken = 0;
    for _ in 0..200 {
        taken += pair.host.write(STDIN, &[1; 1000]);
        pair.step();
    }
    assert!(pair.events[1].contains(&Event::Reset(STDIN, ResetReason::NotRead)));
    assert!(pair.host.is_flushed() && taken < 10_000);
    assert_eq!(pair.host.room(STDIN), 0, "a stream that was reset takes no more");
}

#[test]
fn a_stranger_is_refused() {
    let mut host = Link::new(Role::Host { vm: "c1".into() }, Tuning::FAST);
    let mut guest = Link::new(Role::Guest { vm: "c2".into(), boot: [1; 16] }, Tuning::FAST);
    host.pipe_up(Duration::ZERO);
    guest.pipe_up(Duration::ZERO);
    let (mut out, mut back) = (Vec::new(), Vec::new());
    while guest.poll_transmit(Duration::ZERO, &mut out) {}
    host.handle_bytes(Duration::ZERO, &out);
    while host.poll_transmit(Duration::ZERO, &mut back) {}
    guest.handle_bytes(Duration::ZERO, &back);
    let Some(Event::Closed(why)) = guest.poll_event() else { panic!("the guest goes on") };
    assert_eq!(why.to_string(), "the host refused the link: this is the link of c1, not of c2");
    assert!(!host.is_open());
}

#[test]
fn garbage_does_no_harm() {
    let mut dice = Dice(99);
    for _ in 0..2000 {
        let mut pair = Pair::new(1, Tuning::FAST, CLEAN);
        pair.step();
        // whole frames of random bodies get past the checksum
        let len = dice.roll(40);
        let mut body = dice.bytes(len);
        if let Some(kind) = body.first_mut() {
            *kind = [1, 2, 3, 0x10, 0x11, 0x12, 0x13, 0x14][dice.roll(8) as usize];
        }
        let mut line = Vec::new();
        wire::frame::encode(&body, &[], &mut line);
        pair.host.handle_bytes(pair.now, &line);
        pair.guest.handle_bytes(pair.now, &line);
    }
}
