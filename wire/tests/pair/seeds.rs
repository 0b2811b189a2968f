//! Which seeds a storm is drawn from: those that failed before, those of every day, and fresh ones for a soak.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::storm::{KINDS, Kind};

/// `KIND SEED`, one a line, and `#` for comments. A failing seed is added; it stays when the fault is mended.
const KEPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/seeds.txt");

static WRITING: Mutex<()> = Mutex::new(());

fn kept(name: &str) -> Vec<u64> {
    let text = fs::read_to_string(KEPT).unwrap_or_default();
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    lines.filter_map(|line| line.trim().strip_prefix(name)?.trim().parse().ok()).collect()
}

fn keep(name: &str, seed: u64) {
    let _writing = WRITING.lock();
    if !kept(name).contains(&seed) {
        let mut file = OpenOptions::new().append(true).create(true).open(KEPT).unwrap();
        writeln!(file, "{name} {seed}").unwrap();
    }
}

/// One life. A failure is printed, kept, and passed on.
fn run(kind: &Kind, seed: u64) {
    if let Err(failure) = catch_unwind(AssertUnwindSafe(|| kind.run(seed))) {
        eprintln!("the storm \"{} {seed}\" failed; tests/seeds.txt keeps it", kind.name);
        keep(kind.name, seed);
        resume_unwind(failure);
    }
}

/// What every test run does.
pub(crate) fn replay_and_run(kind: &Kind) {
    kept(kind.name).into_iter().chain(0..kind.runs).for_each(|seed| run(kind, seed));
}

/// Fresh seeds, on every core, until the time is up: `./dev soak`.
#[test]
#[ignore = "takes as long as it is told: ./dev soak"]
fn soak() {
    let minutes: f64 =
        std::env::var("SOAK_MINUTES").map_or(5.0, |text| text.parse().expect("SOAK_MINUTES is a number"));
    let until = Instant::now() + Duration::from_secs_f64(60.0 * minutes);
    let first = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() << 20;
    let next = AtomicU64::new(first);
    let (next, cores) = (&next, thread::available_parallelism().map_or(1, usize::from));
    let weather = || {
        while Instant::now() < until {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            run(&KINDS[(seed % KINDS.len() as u64) as usize], seed);
        }
    };
    thread::scope(|scope| (0..cores).for_each(|_| drop(scope.spawn(weather))));
    let last = next.load(Ordering::Relaxed);
    println!("soak: {} runs in {minutes} minutes, every byte compared; the last seed was {}", last - first, last - 1);
}
