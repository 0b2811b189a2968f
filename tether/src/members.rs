//! The spec's own sessions, the members of its pod: the main one first. What each was asked to be, and what of that is still to come.
//!
//! It decides when something of a member is due, and no more: [`crate::life`] does it.

use std::time::Duration;

use guest::cgroup::Cgroup;
use wire::message::{FIRST_OTHER, MAIN, SessionId};
use wire::spec::{Process, Restart, Spec};
use wire::status::Exit;

use crate::health::Checker;
use crate::restart::Restarts;
use crate::session::SIGKILL;

/// One of the spec's own sessions.
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) id: SessionId,
    pub(crate) process: Process,
    /// Of its process and what comes of that.
    pub(crate) group: Cgroup,
    pub(crate) restarts: Restarts,
    /// When its process is started again.
    pub(crate) start_at: Option<Duration>,
    pub(crate) stop: Stop,
    /// How its process ended last.
    pub(crate) exit: Option<Exit>,
    /// It has ended for good.
    pub(crate) over: bool,
    /// The spec does not name it any more.
    pub(crate) removed: bool,
    pub(crate) health: Option<Checker>,
}

/// Whether a member's next end is its last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Its restart policy says.
    No,
    /// The host sent it a signal that means the end.
    Doomed,
    /// It was asked to stop, and is killed then.
    Asked { kill_at: Option<Duration> },
}

/// How a member is asked to stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Leave {
    /// In place of its stop signal.
    pub(crate) signal: Option<u8>,
    /// In place of its stop timeout; `u64::MAX` is for ever.
    grace_ms: Option<u64>,
}

impl Leave {
    /// What the host asks for.
    pub(crate) fn asked(signal: Option<u8>, grace_ms: Option<u64>) -> Result<Leave, String> {
        match signal {
            Some(signal) if !(1..=64).contains(&signal) => Err(no_signal(signal)),
            _ => Ok(Leave { signal, grace_ms }),
        }
    }
}

pub(crate) fn no_signal(signal: u8) -> String {
    format!("there is no signal {signal}: they go from 1 to 64")
}

impl Member {
    pub(crate) fn new(name: &str, id: SessionId, process: &Process, cgroup: &Cgroup) -> Member {
        Member {
            name: name.into(),
            id,
            process: process.clone(),
            group: cgroup.child(&format!("session-{}", id.0)),
            restarts: Restarts::default(),
            start_at: None,
            stop: Stop::No,
            exit: None,
            over: false,
            removed: false,
            health: process.health.as_ref().map(|_| checker(id, cgroup)),
        }
    }

    /// Every member of a spec, the main one first, the others in the order of their names.
    pub(crate) fn all(spec: &Spec, cgroup: &Cgroup) -> Vec<Member> {
        let main = Member::new(&spec.id, MAIN, &spec.main, cgroup);
        let numbered = spec.others.iter().zip(FIRST_OTHER.0..);
        let others = numbered.map(|((name, process), id)| Member::new(name, SessionId(id), process, cgroup));
        [main].into_iter().chain(others).collect()
    }

    /// Its process may be started again.
    pub(crate) fn may_restart(&self) -> bool {
        self.process.restart != Restart::No
    }

    /// A signal has been sent to it. Docker takes some for the wish that it ends for good.
    pub(crate) fn was_sent(&mut self, signal: u8) {
        let means_the_end = signal == SIGKILL || signal == self.process.stop_signal;
        if means_the_end && self.stop == Stop::No {
            self.stop = Stop::Doomed;
        }
    }

    /// Its process has ended so: when to start it again, or never.
    pub(crate) fn ended(&mut self, exit: &Exit, now: Duration) -> Option<Duration> {
        self.exit = Some(exit.clone());
        self.start_at = match self.stop {
            Stop::No => self.restarts.after(exit, self.process.restart).map(|pause| now + pause),
            Stop::Doomed | Stop::Asked { .. } => None,
        };
        self.start_at
    }

    /// It is asked to stop. Asked again, it has no more time than it had, but it can have less.
    pub(crate) fn ask_to_stop(&mut self, leave: Leave, now: Duration) {
        let grace = match leave.grace_ms {
            None => self.process.stop_timeout,
            Some(u64::MAX) => None,
            Some(millis) => Some(Duration::from_millis(millis)),
        };
        let before = match self.stop {
            Stop::Asked { kill_at } => kill_at,
            Stop::No | Stop::Doomed => None,
        };
        let kill_at = [before, grace.map(|grace| now + grace)].into_iter().flatten().min();
        self.stop = Stop::Asked { kill_at };
    }

    /// Whether it must be killed; once.
    pub(crate) fn take_kill(&mut self, now: Duration) -> bool {
        let Stop::Asked { kill_at: Some(at) } = self.stop else { return false };
        let due = at <= now && !self.over;
        if due {
            self.stop = Stop::Asked { kill_at: None };
        }
        due
    }

    /// When something of it is due.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        if self.over {
            return None;
        }
        let kill_at = match self.stop {
            Stop::Asked { kill_at } => kill_at,
            Stop::No | Stop::Doomed => None,
        };
        let check = self.health.as_ref().and_then(Checker::deadline);
        [kill_at, self.start_at, check].into_iter().flatten().min()
    }
}

pub(crate) fn checker(id: SessionId, cgroup: &Cgroup) -> Checker {
    Checker::new(id, cgroup.child(&format!("health-{}", id.0)))
}

#[cfg(test)]
mod tests {
    use wire::status::Ending;

    use super::*;

    fn member(restart: Restart) -> Member {
        let process = Process { restart, stop_signal: 2, ..Process::new(vec!["true".into()]) };
        Member::new("m", MAIN, &process, &Cgroup::default())
    }

    fn failure() -> Exit {
        Exit { ending: Ending::Exited { code: 1 }, started_us: 0, ended_us: 0, oom: false }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn who_was_told_to_end_is_not_started_again() {
        for (signal, again) in [(2, false), (SIGKILL, false), (15, true), (1, true)] {
            let mut member = member(Restart::Always);
            member.was_sent(signal);
            assert_eq!(member.ended(&failure(), SECOND).is_some(), again, "signal {signal}");
        }
        let mut member = member(Restart::Always);
        member.ask_to_stop(Leave::default(), SECOND);
        assert_eq!(member.ended(&failure(), SECOND), None);
    }

    #[test]
    fn asking_twice_gives_no_more_time_and_killing_is_once() {
        let mut member = member(Restart::No);
        member.ask_to_stop(Leave::default(), SECOND);
        member.ask_to_stop(Leave::default(), 9 * SECOND);
        assert_eq!(member.deadline(), Some(11 * SECOND));
        assert!(!member.take_kill(10 * SECOND) && member.take_kill(11 * SECOND) && !member.take_kill(12 * SECOND));
        assert_eq!(member.deadline(), None);
        member.process.stop_timeout = None;
        member.stop = Stop::No;
        member.ask_to_stop(Leave::default(), SECOND);
        assert_eq!(member.deadline(), None, "for ever");
    }

    #[test]
    fn the_host_can_give_other_time_and_then_less_and_never_more() {
        let mut member = member(Restart::No);
        let mut ask = |grace_ms, now: u32, expected: Option<u32>| {
            member.ask_to_stop(Leave::asked(None, grace_ms).unwrap(), now * SECOND);
            assert_eq!(member.deadline(), expected.map(|at| at * SECOND), "{grace_ms:?}");
        };
        ask(Some(u64::MAX), 1, None);
        ask(Some(60_000), 2, Some(62));
        // the spec's ten seconds
        ask(None, 3, Some(13));
        ask(Some(u64::MAX), 4, Some(13));
        ask(Some(u64::MAX - 1), 5, Some(13));
        ask(Some(0), 6, Some(6));
        assert_eq!(Leave::asked(Some(65), None), Err("there is no signal 65: they go from 1 to 64".into()));
        assert!(Leave::asked(Some(0), None).is_err() && Leave::asked(Some(64), None).is_ok());
    }
}
