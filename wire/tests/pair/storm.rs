//! Whole lives of a link, drawn from seeds: every byte of every stream is compared, and every message.

use wire::link::Tuning;

use crate::dice::{Dice, NEVER};
use crate::lines::{CLEAN, Faults};
use crate::seeds::replay_and_run;
use crate::world::{Plan, World};

/// A kind of bad luck.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    /// How many seeds every test run draws.
    pub(crate) runs: u64,
    /// Sealed, not sealed, or either.
    sealed: Option<bool>,
    faults: fn(&mut Dice) -> Faults,
}

pub(crate) const KINDS: [Kind; 8] = [
    // a pipe that is cut at any byte, with everything in it
    Kind { name: "cut", runs: 350, sealed: None, faults: |dice| Faults { cut: 20 + dice.roll(150), ..CLEAN } },
    // a serial line
    Kind {
        name: "noise",
        runs: 350,
        sealed: None,
        faults: |dice| Faults { flip: 20 + dice.roll(60), noise: 15, ..CLEAN },
    },
    // chunks twice, late, or in another order
    Kind { name: "shuffle", runs: 250, sealed: Some(true), faults: |_| Faults { shuffle: 25, ..CLEAN } },
    // kill -9, and the pipe goes with the host
    Kind { name: "kill", runs: 350, sealed: None, faults: |dice| Faults { kill: 40 + dice.roll(150), ..CLEAN } },
    // kill -9 behind a line that shows nothing
    Kind {
        name: "unseen",
        runs: 350,
        sealed: None,
        faults: |dice| Faults { kill: 50 + dice.roll(150), seen: false, ..CLEAN },
    },
    // a connection that comes while the one before still delivers
    Kind {
        name: "second",
        runs: 250,
        sealed: Some(true),
        faults: |dice| Faults { second: 20 + dice.roll(150), ..CLEAN },
    },
    // everything at once
    Kind { name: "storm", runs: 250, sealed: Some(true), faults: storm },
    Kind {
        name: "unseenstorm",
        runs: 150,
        sealed: Some(true),
        faults: |dice| Faults { seen: false, cut: NEVER, ..storm(dice) },
    },
];

fn storm(dice: &mut Dice) -> Faults {
    Faults {
        cut: 60 + dice.roll(200),
        flip: 100,
        noise: 60,
        shuffle: 100,
        kill: 60 + dice.roll(200),
        seen: true,
        second: 60 + dice.roll(200),
    }
}

impl Kind {
    pub(crate) fn run(&self, seed: u64) {
        let mut dice = Dice::new(seed);
        let faults = (self.faults)(&mut dice);
        let sealed = self.sealed.unwrap_or(dice.once_in(2));
        let payload = 64 + dice.up_to(1000);
        let tuning = Tuning { window: 1000 + dice.roll(8000) as u32, payload };
        let many = if dice.once_in(20) { 30 } else { 4 };
        let length = 20_000 / many;
        let sessions = (0..=dice.up_to(many - 1))
            .map(|_| {
                let (input, output) = (dice.up_to(length), dice.up_to(3 * length));
                (dice.bytes(input), dice.bytes(output))
            })
            .collect();
        World::new(Plan { sealed, tuning, faults, quiet: false, sessions }, dice).run();
    }
}

fn run(name: &str) {
    replay_and_run(KINDS.iter().find(|kind| kind.name == name).expect("it is in the table"));
}

#[test]
fn nothing_is_lost_on_a_line_that_is_cut_at_any_byte() {
    run("cut");
}

#[test]
fn nothing_is_lost_on_a_line_with_noise_and_flipped_bits() {
    run("noise");
}

#[test]
fn nothing_is_lost_when_chunks_come_twice_or_late() {
    run("shuffle");
}

#[test]
fn nothing_is_lost_when_the_host_is_killed() {
    run("kill");
}

#[test]
fn nothing_is_lost_when_the_host_is_killed_and_the_guest_sees_no_cut() {
    run("unseen");
}

#[test]
fn nothing_is_lost_when_a_second_connection_takes_over() {
    run("second");
}

#[test]
fn nothing_is_lost_in_a_storm() {
    run("storm");
}

#[test]
fn nothing_is_lost_in_a_storm_that_the_guest_does_not_see() {
    run("unseenstorm");
}

#[test]
fn two_thousand_lives_are_lived_in_every_test_run() {
    assert!(KINDS.iter().map(|kind| kind.runs).sum::<u64>() >= 2000);
}
