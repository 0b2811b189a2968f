//! When an ended process is started again, if it is: docker's rules and figures. It decides and counts; it starts nothing.

use std::time::Duration;

use wire::spec::Restart;
use wire::status::{Ending, Exit};

/// The first pause.
const FIRST: Duration = Duration::from_millis(100);
/// The longest.
const LONGEST: Duration = Duration::from_secs(60);
/// A process that has run for so long was well, and the pauses begin anew.
const WELL: Duration = Duration::from_secs(10);

/// How often one process was started again, and how long it has waited for it last.
#[derive(Debug, Default)]
pub(crate) struct Restarts {
    pub(crate) count: u32,
    pause: Duration,
}

impl Restarts {
    /// How long to wait before the process that has ended so is started again; `None` when that was its end.
    pub(crate) fn after(&mut self, exit: &Exit, policy: Restart) -> Option<Duration> {
        let failed = exit.ending != Ending::Exited { code: 0 };
        let again = match policy {
            Restart::No => false,
            Restart::Always => true,
            Restart::OnFailure(most) => failed && (most == 0 || self.count < most),
        };
        if !again {
            return None;
        }
        let lived = Duration::from_micros(exit.ended_us.saturating_sub(exit.started_us));
        self.pause = match self.pause {
            Duration::ZERO => FIRST,
            _ if lived >= WELL => FIRST,
            pause => (2 * pause).min(LONGEST),
        };
        self.count = self.count.saturating_add(1);
        Some(self.pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(ending: Ending, seconds: u64) -> Exit {
        Exit { ending, started_us: 5_000_000, ended_us: 5_000_000 + seconds * 1_000_000, oom: false }
    }

    const FAILURE: Ending = Ending::Exited { code: 3 };

    #[test]
    fn pauses_double_up_to_a_minute() {
        let mut restarts = Restarts::default();
        let mut pauses = Vec::new();
        for _ in 0..13 {
            pauses.push(restarts.after(&exit(FAILURE, 9), Restart::Always).unwrap().as_millis());
        }
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 51_200, 60_000, 60_000, 60_000]);
        assert_eq!(restarts.count, 13);
    }

    #[test]
    fn who_has_lived_for_ten_seconds_begins_anew() {
        let mut restarts = Restarts::default();
        let pauses = [1, 1, 1, 10, 1, 100, 9]
            .map(|seconds| restarts.after(&exit(FAILURE, seconds), Restart::Always).unwrap().as_millis());
        assert_eq!(pauses, [100, 200, 400, 100, 200, 100, 200]);
    }

    #[test]
    fn each_policy_is_kept() {
        let (good, killed) = (Ending::Exited { code: 0 }, Ending::Signaled { signal: 15, core: false });
        for (policy, ending, expected) in [
            (Restart::No, FAILURE, [false; 4]),
            (Restart::Always, good, [true; 4]),
            (Restart::Always, killed, [true; 4]),
            (Restart::OnFailure(0), FAILURE, [true; 4]),
            (Restart::OnFailure(0), killed, [true; 4]),
            (Restart::OnFailure(0), good, [false; 4]),
            (Restart::OnFailure(2), FAILURE, [true, true, false, false]),
            (Restart::OnFailure(2), good, [false; 4]),
        ] {
            let mut restarts = Restarts::default();
            let again = [(); 4].map(|()| restarts.after(&exit(ending, 0), policy).is_some());
            assert_eq!(again, expected, "{policy:?} {ending:?}");
            assert_eq!(restarts.count, again.iter().map(|&again| u32::from(again)).sum::<u32>());
        }
    }
}
