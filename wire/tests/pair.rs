//! Two ends of a link in one process: virtual time, and every fault that a serial line has.
//!
//! Each run is drawn from a seed; a failing one prints it. `PAIR_RUNS` changes how many runs there are.

#![allow(clippy::cast_possible_truncation, reason = "the numbers of a test are small")]

use std::collections::VecDeque;
use std::time::Duration;

use wire::handshake::LinkKey;
use wire::link::{Event, HELLO_INTERVAL, Link, Role, Security, Tuning};
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

fn security(key: u8, sealed: bool, seed: u8) -> Security {
    Security { key: LinkKey::new([key; 32]), sealed, seed: [seed; 32] }
}

fn guest(tuning: Tuning, security: Security) -> Link {
    Link::new(Role::Guest { vm: "c1".into(), boot: [7; 16] }, tuning, security)
}

fn host(tuning: Tuning, security: Security) -> Link {
    Link::new(Role::Host { vm: "c1".into() }, tuning, security)
}

/// Everything that one end has to say now.
fn said(link: &mut Link, now: Duration) -> Vec<u8> {
    let mut out = Vec::new();
    while link.poll_transmit(now, &mut out) {}
    out
}

impl Pair {
    /// A serial line is sealed, a fast pipe is not.
    fn new(seed: u64, tuning: Tuning, faults: Faults) -> Pair {
        let sealed = tuning.payload <= Tuning::SERIAL.payload;
        let mut pair = Pair {
            guest: guest(tuning, security(1, sealed, 2)),
            host: host(tuning, security(1, sealed, 3)),
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
    std::env::var("PAIR_RUNS").ok().and_then(|text| text.parse().ok()).unwrap_or(500)
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
    assert_eq!(taken, 10_000, "what is not taken is kept, in the same window");
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

/// Lets two ends talk until neither has anything to say.
fn settle(guest: &mut Link, host: &mut Link, now: Duration) {
    loop {
        let (up, down) = (said(guest, now), said(host, now));
        if up.is_empty() && down.is_empty() {
            return;
        }
        host.handle_bytes(now, &up);
        guest.handle_bytes(now, &down);
    }
}

fn up(links: [&mut Link; 2]) {
    links.into_iter().for_each(|link| link.pipe_up(Duration::ZERO));
}

#[test]
fn a_stranger_is_told_so_and_nothing_happens() {
    let mut host = host(Tuning::FAST, security(1, true, 3));
    let role = Role::Guest { vm: "c2".into(), boot: [1; 16] };
    let mut guest = Link::new(role, Tuning::FAST, security(1, true, 2));
    up([&mut guest, &mut host]);
    settle(&mut guest, &mut host, Duration::ZERO);
    assert_eq!(guest.poll_event(), Some(Event::Refused("this is the link of c1, not of c2".into())));
    assert!(!host.is_open() && !guest.is_open() && !guest.is_closed());
}

#[test]
fn without_the_key_nobody_hears_a_byte() {
    let mut host = host(Tuning::FAST, security(9, true, 3));
    let mut guest = guest(Tuning::FAST, security(1, true, 2));
    up([&mut guest, &mut host]);
    said(&mut host, Duration::ZERO); // the delimiter that every pipe begins with
    let hello = said(&mut guest, Duration::ZERO);
    host.handle_bytes(Duration::ZERO, &hello);
    assert!(said(&mut host, Duration::ZERO).is_empty());
    assert_eq!((host.counters().forged, host.is_open(), guest.is_open()), (1, false, false));
}

#[test]
fn a_downgrade_is_refused() {
    let mut host = host(Tuning::FAST, security(1, true, 3));
    let mut guest = guest(Tuning::FAST, security(1, false, 2));
    up([&mut guest, &mut host]);
    settle(&mut guest, &mut host, Duration::ZERO);
    assert_eq!(guest.poll_event(), Some(Event::Refused("packets must be sealed here".into())));
    assert!(!host.is_open());
}

#[test]
fn a_recorded_hello_does_not_touch_a_live_session() {
    let mut pair = Pair::new(1, Tuning::SERIAL, CLEAN);
    let recorded = said(&mut pair.guest, pair.now);
    pair.host.handle_bytes(pair.now, &recorded);
    settle(&mut pair.guest, &mut pair.host, pair.now);
    assert!(pair.host.is_open() && pair.guest.is_open());
    for round in 1..20_u32 {
        // later, because hellos are rate-limited
        pair.now = Duration::from_secs(round.into());
        pair.host.handle_bytes(pair.now, &recorded);
        let reply = said(&mut pair.host, pair.now);
        pair.guest.handle_bytes(pair.now, &reply);
    }
    pair.exchange(1);
}

#[test]
fn what_comes_back_to_its_sender_is_nothing() {
    let mut pair = Pair::new(1, Tuning::SERIAL, CLEAN);
    settle(&mut pair.guest, &mut pair.host, pair.now);
    pair.guest.write(STDOUT, b"secret words");
    let sent = said(&mut pair.guest, pair.now);
    assert!(!sent.windows(6).any(|window| window == b"secret"), "sealed");
    pair.guest.handle_bytes(pair.now, &sent);
    assert!(pair.guest.readable(STDOUT).is_empty() && pair.guest.counters().forged > 0);
    pair.host.handle_bytes(pair.now, &sent);
    pair.host.handle_bytes(pair.now, &sent);
    assert_eq!(pair.host.readable(STDOUT), b"secret words", "once");
    assert!(pair.host.counters().replayed > 0, "the replay");
    pair.host.consume(STDOUT, 12);
    assert!(pair.host.is_open() && pair.guest.is_open());
}

#[test]
fn hellos_without_the_key_are_not_checked_without_end() {
    let mut host = host(Tuning::FAST, security(1, true, 3));
    host.pipe_up(Duration::ZERO);
    let flood: Vec<u8> = (0..50)
        .flat_map(|seed| {
            let mut stranger = guest(Tuning::FAST, security(8, true, seed));
            stranger.pipe_up(Duration::ZERO);
            said(&mut stranger, Duration::ZERO)
        })
        .collect();
    host.handle_bytes(Duration::ZERO, &flood);
    assert_eq!((host.counters().forged, host.counters().hurried), (1, 49));
    let mut friend = guest(Tuning::FAST, security(1, true, 2));
    friend.pipe_up(Duration::ZERO);
    settle(&mut friend, &mut host, Duration::from_millis(20));
    assert!(friend.is_open() && host.is_open());
}

#[test]
fn what_a_later_version_says_is_counted_and_passed_over() {
    let mut pair = Pair::new(1, Tuning::FAST, CLEAN);
    let mut line = Vec::new();
    wire::frame::encode(&[0x7f, 1, 2], &[], &mut line);
    pair.host.handle_bytes(pair.now, &line);
    assert_eq!(pair.host.counters().unknown, 1);
    pair.exchange(1);
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
