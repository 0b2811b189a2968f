//! The life of one service: when it is started, when it counts as ready, when it is ended, and when it is started again. It decides; it starts and signals nothing,
//! and time is an argument.
//!
//! ```text
//! Waiting -> Starting -> Running ----> Pausing -> Starting ...
//!               |           |  silence, STOPPING=1, stop
//!               +--late---> Leaving -> Pausing, or Ended
//! ```

use std::time::Duration;

use nix::unistd::Pid;
use wire::spec::Restart;
use wire::status::Ending;

/// What is expected of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    /// It says that it is ready, within this time of its start; none: it is ready once it runs.
    pub(crate) readiness: Option<Duration>,
    /// It says that it is alive, at least so often once it is ready; none: nobody asks.
    pub(crate) watchdog: Option<Duration>,
    pub(crate) restart: Restart,
    /// The signal that asks it to stop (Linux number).
    pub(crate) stop_signal: u8,
    /// How long it has to obey before it is killed; none is for ever.
    pub(crate) grace: Option<Duration>,
}

/// What is to be done for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    Start,
    /// A signal for the process, and a sentence's end for the log.
    Signal(Pid, u8, Reason),
}

/// Why a service is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// It was not ready in time.
    Late,
    /// It did not say that it is alive.
    Silent,
    /// It was asked to stop, or said that it stops, and did not.
    Stubborn,
    /// The appliance stops.
    Stop,
}

/// What it says of itself: sd_notify(3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    Ready,
    Alive,
    Stopping,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Its turn has not come.
    Waiting,
    Starting {
        pid: Pid,
        until: Option<Duration>,
    },
    Running {
        pid: Pid,
        since: Duration,
        heard: Duration,
    },
    /// It has been told to end, or has said that it does. At `until` it is killed.
    Leaving {
        pid: Pid,
        until: Option<Duration>,
        for_good: bool,
    },
    Pausing {
        until: Duration,
    },
    Ended,
}

/// The first pause before it is started again. Each one after it is twice as long.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);
/// Who has been ready for so long was well, and its pauses begin anew.
const WELL: Duration = Duration::from_secs(60);
/// How long a service has to die by SIGABRT, which lets it leave a trace of where it hung.
const LAST_WORDS: Duration = Duration::from_secs(5);

const SIGABRT: u8 = 6;
const SIGKILL: u8 = 9;

/// A service as it is.
#[derive(Debug)]
pub(crate) struct Life {
    terms: Terms,
    state: State,
    /// The last one; zero: it has not failed since it was well.
    pause: Duration,
    /// How often it was started again.
    pub(crate) restarts: u32,
}

impl Life {
    pub(crate) fn new(terms: Terms) -> Life {
        Life { terms, state: State::Waiting, pause: Duration::ZERO, restarts: 0 }
    }

    pub(crate) fn pid(&self) -> Option<Pid> {
        match self.state {
            State::Starting { pid, .. } | State::Running { pid, .. } | State::Leaving { pid, .. } => Some(pid),
            State::Waiting | State::Pausing { .. } | State::Ended => None,
        }
    }

    pub(crate) fn is_waiting(&self) -> bool {
        self.state == State::Waiting
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// Those that come after it can be started: it is ready, or has done what it had to.
    pub(crate) fn lets_others_start(&self) -> bool {
        matches!(self.state, State::Running { .. } | State::Ended)
    }

    /// The process runs, but nobody knows yet whether it is of use.
    pub(crate) fn started(&mut self, pid: Pid, now: Duration) {
        self.state = match self.terms.readiness {
            None => State::Running { pid, since: now, heard: now },
            Some(bound) => State::Starting { pid, until: Some(now + bound) },
        };
    }

    /// There is no process: the machine lacked something.
    pub(crate) fn failed(&mut self, now: Duration) {
        self.pause_or_end(now, true);
    }

    /// True if it has become ready by this.
    pub(crate) fn told(&mut self, notice: Notice, now: Duration) -> bool {
        match (notice, &mut self.state) {
            (Notice::Ready, &mut State::Starting { pid, .. }) => {
                self.state = State::Running { pid, since: now, heard: now };
                return true;
            }
            (Notice::Alive, State::Running { heard, .. }) => *heard = now,
            (Notice::Stopping, &mut (State::Starting { pid, .. } | State::Running { pid, .. })) => {
                let until = self.terms.grace.map(|grace| now + grace);
                self.state = State::Leaving { pid, until, for_good: false };
            }
            _ => {}
        }
        false
    }

    /// Its process has ended. The pause before the next one, if there is to be one.
    pub(crate) fn exited(&mut self, ending: Ending, now: Duration) -> Option<Duration> {
        match self.state {
            State::Leaving { for_good: true, .. } => {
                self.state = State::Ended;
                return None;
            }
            State::Running { since, .. } if now.saturating_sub(since) >= WELL => self.pause = Duration::ZERO,
            _ => {}
        }
        self.pause_or_end(now, ending != Ending::Exited { code: 0 })
    }

    fn pause_or_end(&mut self, now: Duration, failed: bool) -> Option<Duration> {
        let again = match self.terms.restart {
            Restart::No => false,
            Restart::Always => true,
            Restart::OnFailure(most) => failed && (most == 0 || self.restarts < most),
        };
        if !again {
            self.state = State::Ended;
            return None;
        }
        self.pause = if self.pause.is_zero() { FIRST } else { (2 * self.pause).min(LONGEST) };
        self.state = State::Pausing { until: now + self.pause };
        Some(self.pause)
    }

    /// Asks it to stop, for good.
    pub(crate) fn stop(&mut self, now: Duration) -> Option<Wish> {
        let pid = match self.state {
            State::Starting { pid, .. } | State::Running { pid, .. } | State::Leaving { pid, for_good: false, .. } => {
                pid
            }
            State::Leaving { for_good: true, .. } => return None,
            State::Waiting | State::Pausing { .. } | State::Ended => {
                self.state = State::Ended;
                return None;
            }
        };
        let until = self.terms.grace.map(|grace| now + grace);
        self.state = State::Leaving { pid, until, for_good: true };
        Some(Wish::Signal(pid, self.terms.stop_signal, Reason::Stop))
    }

    /// When [`Life::time`] has something to say.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        match self.state {
            State::Starting { until, .. } | State::Leaving { until, .. } => until,
            State::Running { heard, .. } => self.terms.watchdog.map(|bound| heard + bound),
            State::Pausing { until } => Some(until),
            State::Waiting | State::Ended => None,
        }
    }

    /// What is due.
    pub(crate) fn time(&mut self, now: Duration) -> Option<Wish> {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return None;
        }
        match self.state {
            State::Pausing { .. } => {
                self.restarts = self.restarts.saturating_add(1);
                Some(Wish::Start)
            }
            State::Starting { pid, .. } => Some(self.abort(pid, Reason::Late, now)),
            State::Running { pid, .. } => Some(self.abort(pid, Reason::Silent, now)),
            State::Leaving { pid, for_good, .. } => {
                self.state = State::Leaving { pid, until: None, for_good };
                Some(Wish::Signal(pid, SIGKILL, Reason::Stubborn))
            }
            State::Waiting | State::Ended => None,
        }
    }

    fn abort(&mut self, pid: Pid, reason: Reason, now: Duration) -> Wish {
        self.state = State::Leaving { pid, until: Some(now + LAST_WORDS), for_good: false };
        Wish::Signal(pid, SIGABRT, reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PID: Pid = Pid::from_raw(42);
    const FAILURE: Ending = Ending::Exited { code: 3 };

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn terms() -> Terms {
        Terms {
            readiness: Some(s(20)),
            watchdog: Some(s(30)),
            restart: Restart::Always,
            stop_signal: 15,
            grace: Some(s(10)),
        }
    }

    /// A service that is ready at second 1.
    fn running(terms: Terms) -> Life {
        let mut life = Life::new(terms);
        life.started(PID, s(0));
        assert!(!life.lets_others_start() || terms.readiness.is_none());
        life.told(Notice::Ready, s(1));
        assert!(life.lets_others_start());
        life
    }

    #[test]
    fn pauses_double_up_to_a_minute() {
        let mut life = Life::new(terms());
        let (mut now, mut pauses) = (s(0), Vec::new());
        for _ in 0..8 {
            life.started(PID, now);
            life.told(Notice::Ready, now);
            let pause = life.exited(FAILURE, now + s(59)).unwrap();
            now += s(59) + pause;
            assert_eq!(life.time(now - Duration::from_nanos(1)), None);
            assert_eq!(life.time(now), Some(Wish::Start));
            pauses.push(pause.as_secs());
        }
        assert_eq!((pauses.as_slice(), life.restarts), (&[1, 2, 4, 8, 16, 32, 60, 60][..], 8));
        // who was ready for a minute was well
        life.started(PID, now);
        life.told(Notice::Ready, now + s(5));
        assert_eq!(life.exited(FAILURE, now + s(65)), Some(s(1)));
    }

    #[test]
    fn a_minute_without_being_ready_is_not_well() {
        let mut life = Life::new(Terms { readiness: Some(s(500)), ..terms() });
        life.started(PID, s(0));
        assert_eq!(life.exited(FAILURE, s(400)), Some(s(1)));
        life.started(PID, s(401));
        assert_eq!(life.exited(FAILURE, s(801)), Some(s(2)));
    }

    #[test]
    fn who_is_late_or_silent_is_ended_and_comes_again() {
        let mut late = Life::new(terms());
        late.started(PID, s(0));
        assert_eq!((late.time(s(19)), late.deadline()), (None, Some(s(20))));
        assert_eq!(late.time(s(20)), Some(Wish::Signal(PID, SIGABRT, Reason::Late)));

        let mut silent = running(terms());
        silent.told(Notice::Alive, s(25));
        assert_eq!(silent.time(s(54)), None);
        assert_eq!(silent.time(s(55)), Some(Wish::Signal(PID, SIGABRT, Reason::Silent)));
        // what it says now comes too late
        silent.told(Notice::Alive, s(56));
        silent.told(Notice::Ready, s(56));
        assert_eq!((silent.time(s(59)), silent.deadline()), (None, Some(s(60))));
        assert_eq!(silent.time(s(60)), Some(Wish::Signal(PID, SIGKILL, Reason::Stubborn)));
        assert_eq!((silent.time(s(1000)), silent.deadline()), (None, None));
        assert_eq!(silent.exited(Ending::Signaled { signal: 9, core: false }, s(61)), Some(s(1)));
        assert_eq!(silent.time(s(62)), Some(Wish::Start));
    }

    #[test]
    fn nobody_asks_who_has_no_watchdog() {
        let life = running(Terms { watchdog: None, ..terms() });
        assert_eq!(life.deadline(), None);
        // ready once it runs
        let mut life = Life::new(Terms { readiness: None, watchdog: None, ..terms() });
        life.started(PID, s(0));
        assert!(life.lets_others_start());
    }

    #[test]
    fn a_stop_is_asked_for_and_then_enforced() {
        let mut life = running(terms());
        assert_eq!(life.stop(s(5)), Some(Wish::Signal(PID, 15, Reason::Stop)));
        assert_eq!((life.stop(s(6)), life.time(s(14))), (None, None));
        assert_eq!(life.time(s(15)), Some(Wish::Signal(PID, SIGKILL, Reason::Stubborn)));
        assert_eq!(life.exited(Ending::Signaled { signal: 9, core: false }, s(15)), None);
        assert!(life.is_ended());
        // who does not run has nothing to obey
        let mut pausing = running(terms());
        pausing.exited(FAILURE, s(2));
        assert_eq!((pausing.stop(s(3)), pausing.is_ended(), pausing.time(s(100))), (None, true, None));
        // and who is being ended for another reason does not come again
        let mut silent = running(terms());
        silent.time(s(31));
        assert_eq!(silent.stop(s(32)), Some(Wish::Signal(PID, 15, Reason::Stop)));
        assert_eq!((silent.exited(FAILURE, s(33)), silent.is_ended()), (None, true));
        let mut patient = running(Terms { grace: None, ..terms() });
        patient.stop(s(5));
        assert_eq!(patient.deadline(), None);
    }

    #[test]
    fn who_says_that_it_stops_has_its_time_for_it() {
        let mut life = running(terms());
        life.told(Notice::Stopping, s(20));
        assert_eq!((life.time(s(29)), life.deadline()), (None, Some(s(30))));
        assert_eq!(life.time(s(30)), Some(Wish::Signal(PID, SIGKILL, Reason::Stubborn)));
        assert_eq!(life.exited(Ending::Exited { code: 0 }, s(30)), Some(s(1)));
    }

    #[test]
    fn each_policy_is_kept() {
        let (good, bad) = (Ending::Exited { code: 0 }, FAILURE);
        for (restart, ending, again) in [
            (Restart::No, bad, false),
            (Restart::Always, good, true),
            (Restart::OnFailure(0), bad, true),
            (Restart::OnFailure(0), good, false),
        ] {
            let mut life = running(Terms { restart, ..terms() });
            assert_eq!(life.exited(ending, s(2)).is_some(), again, "{restart:?} {ending:?}");
            // those after it wait for one that comes again, and for no other
            assert_eq!((life.lets_others_start(), life.is_ended()), (!again, !again));
        }
        let mut twice = Life::new(Terms { restart: Restart::OnFailure(2), ..terms() });
        for expected in [true, true, false] {
            twice.failed(s(0));
            assert_eq!(twice.time(s(1000)).is_some(), expected);
        }
    }
}
