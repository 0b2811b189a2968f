//! Memory that the container has not used for a while, given back: the cold part of its file cache, which the host then gets by free page reporting.
//!
//! It must cost an idle machine nothing, so nothing here ticks. Whatever the container does that PID 1 hears of (a byte, an exec, a process that ends), and
//! every wait of its processes for a disk or for memory, of which the kernel tells (Linux, accounting/psi.rst), *stirs* it:
//!
//! ```text
//!   Resting -- stirred --> Watching -- QUIET without a stir, then another with the processors idle --> Giving -- all is given --> Resting
//!                             ^--------- stirred, or the processors were busy: look again, later each time -----'
//! ```
//!
//! The file cache grows by reading and writing disks, which waits; so what can be given back has stirred it. Without swap nothing else can.
//! Sources: Linux, admin-guide/cgroup-v2.rst, `memory.reclaim`, `memory.stat`, `cpu.stat`.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use crate::cgroup::{text, value_of};

/// How long it must be quiet, twice: once without a stir, once with the processors idle.
const QUIET: Duration = Duration::from_secs(10);
/// The longest time from one look at a busy container to the next.
const LONGEST: Duration = Duration::from_secs(160);
/// Processor time, in thousandths of the time that passes, up to which a container is idle.
const IDLE: u128 = 10;
/// What is given back at once: it takes a few milliseconds, in which nothing else is done.
const STEP: u64 = 4 << 20;
const PAUSE: Duration = Duration::from_millis(50);
/// Cold memory that is not worth the work.
const LITTLE: u64 = 2 * STEP;
/// Microseconds that the container's processes may wait for memory in the meantime.
const MISSED: u64 = 20_000;
/// Tell when processes have waited for 100 ms of a second, in microseconds.
const TRIGGER: &[u8] = b"some 100000 1000000";

/// The container's group, as far as this is concerned. All is opened at boot: see [`crate::cgroup`].
#[derive(Debug)]
pub struct Reclaim {
    phase: Phase,
    reclaim: File,
    cpu: File,
    memory: File,
    pressure: File,
    /// The kernel tells as long as they are open.
    triggers: Vec<File>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Resting,
    Watching { at: Duration, pause: Duration, before: Option<Sample> },
    Giving { at: Duration, left: u64, began: Sample },
}

/// The container at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sample {
    at: Duration,
    cpu_us: u64,
    /// File cache that was not used lately, in bytes.
    cold: u64,
    /// What processes have waited for memory.
    missed_us: u64,
}

impl Reclaim {
    /// None where the kernel does not have what it takes.
    pub fn open() -> Option<Reclaim> {
        let group = Path::new("/sys/fs/cgroup/container");
        let open = |name: &str| File::open(group.join(name)).ok();
        let trigger = |name: &str| {
            let mut file = OpenOptions::new().read(true).write(true).open(group.join(name)).ok()?;
            file.write_all(TRIGGER).ok()?;
            Some(file)
        };
        Some(Reclaim {
            phase: Phase::Resting,
            reclaim: OpenOptions::new().write(true).open(group.join("memory.reclaim")).ok()?,
            cpu: open("cpu.stat")?,
            memory: open("memory.stat")?,
            pressure: open("memory.pressure")?,
            triggers: ["io.pressure", "memory.pressure"].into_iter().filter_map(trigger).collect(),
        })
    }

    /// What tells that processes have waited, each time as an exceptional condition of the descriptor.
    pub fn triggers(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.triggers.iter().map(|file| file.as_fd())
    }

    /// The container does something.
    pub fn stir(&mut self, now: Duration) {
        self.phase = Phase::stirred(now);
    }

    /// When to call [`Reclaim::handle_time`].
    pub fn deadline(&self) -> Option<Duration> {
        match self.phase {
            Phase::Resting => None,
            Phase::Watching { at, .. } | Phase::Giving { at, .. } => Some(at),
        }
    }

    /// Looks, and gives a little back if it is time for that.
    pub fn handle_time(&mut self, now: Duration) {
        if self.deadline().is_none_or(|at| now < at) {
            return;
        }
        let (next, bytes) = self.phase.next(self.sample(now));
        self.phase = next;
        if bytes > 0 && self.give(bytes).is_err() {
            // it has not as much as it said, or its disk is too slow to take what is written
            self.phase = Phase::Resting;
        }
    }

    fn give(&mut self, bytes: u64) -> io::Result<()> {
        self.reclaim.write_all(bytes.to_string().as_bytes())
    }

    fn sample(&self, at: Duration) -> Sample {
        let pressure = text(Some(&self.pressure));
        let some = pressure.lines().next().and_then(|line| line.rsplit_once("total="));
        Sample {
            at,
            cpu_us: value_of(&text(Some(&self.cpu)), "usage_usec"),
            cold: value_of(&text(Some(&self.memory)), "inactive_file"),
            missed_us: some.and_then(|(_, total)| total.parse().ok()).unwrap_or_default(),
        }
    }
}

impl Phase {
    fn stirred(now: Duration) -> Phase {
        Phase::Watching { at: now + QUIET, pause: QUIET, before: None }
    }

    /// Where it goes on at its time, and how many bytes to give back now.
    fn next(self, sample: Sample) -> (Phase, u64) {
        let now = sample.at;
        match self {
            Phase::Resting => (Phase::Resting, 0),
            Phase::Watching { pause, before: None, .. } => {
                (Phase::Watching { at: now + QUIET, pause, before: Some(sample) }, 0)
            }
            Phase::Watching { pause, before: Some(before), .. } => match sample.is_idle_since(before) {
                true if sample.cold < LITTLE => (Phase::Resting, 0),
                true => Phase::give(now, sample.cold, sample),
                false => {
                    let pause = (2 * pause).min(LONGEST);
                    (Phase::Watching { at: now + pause, pause, before: None }, 0)
                }
            },
            Phase::Giving { left: 0, .. } => (Phase::Resting, 0),
            Phase::Giving { began, .. } if sample.missed_us > began.missed_us + MISSED => (Phase::stirred(now), 0),
            Phase::Giving { left, began, .. } => Phase::give(now, left, began),
        }
    }

    fn give(now: Duration, left: u64, began: Sample) -> (Phase, u64) {
        let bytes = left.min(STEP);
        (Phase::Giving { at: now + PAUSE, left: left - bytes, began }, bytes)
    }
}

impl Sample {
    fn is_idle_since(self, before: Sample) -> bool {
        let used = u128::from(self.cpu_us.saturating_sub(before.cpu_us));
        used * 1000 <= self.at.saturating_sub(before.at).as_micros() * IDLE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn at(seconds: u64, cpu_ms: u64, cold_mib: u64) -> Sample {
        Sample { at: Duration::from_secs(seconds), cpu_us: cpu_ms * 1000, cold: cold_mib * MIB, missed_us: 0 }
    }

    fn deadline(phase: Phase) -> Option<u64> {
        match phase {
            Phase::Resting => None,
            Phase::Watching { at, .. } | Phase::Giving { at, .. } => Some(at.as_secs()),
        }
    }

    #[test]
    fn an_idle_container_gives_back_what_is_cold_and_then_rests() {
        let (phase, bytes) = Phase::stirred(Duration::ZERO).next(at(10, 500, 90));
        assert_eq!((deadline(phase), bytes), (Some(20), 0));
        let (mut phase, mut bytes) = phase.next(at(20, 600, 90));
        let mut given = bytes;
        for _ in 0..22 {
            assert!(bytes <= STEP && bytes > 0);
            (phase, bytes) = phase.next(at(20, 600, 5));
            given += bytes;
        }
        assert_eq!(given, 90 * MIB);
        assert_eq!(phase.next(at(21, 600, 5)), (Phase::Resting, 0));
        assert_eq!(Phase::Resting.next(at(99, 600, 90)), (Phase::Resting, 0));
    }

    #[test]
    fn a_busy_container_is_left_alone_and_looked_at_ever_more_rarely() {
        let (mut phase, mut looks, mut seconds) = (Phase::stirred(Duration::ZERO), 0, 0);
        while seconds < 3600 {
            seconds = deadline(phase).unwrap();
            let bytes;
            // 1.1 % of a processor
            (phase, bytes) = phase.next(at(seconds, seconds * 11, 90));
            assert_eq!(bytes, 0);
            looks += 1;
        }
        assert!((40..60).contains(&looks), "{looks}");
    }

    #[test]
    fn what_is_missed_is_not_taken() {
        let watching = Phase::Watching { at: Duration::ZERO, pause: QUIET, before: Some(at(10, 0, 90)) };
        let (giving, _) = watching.next(at(20, 0, 90));
        let missed = Sample { missed_us: MISSED + 1, ..at(21, 0, 80) };
        assert_eq!(giving.next(missed), (Phase::stirred(Duration::from_secs(21)), 0));
        // nor what is hardly worth it
        assert_eq!(watching.next(at(20, 0, 7)), (Phase::Resting, 0));
    }
}
