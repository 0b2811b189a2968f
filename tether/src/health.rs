//! Whether a process is well: when its health check runs, how long, and what its outcomes mean. The rules are docker's.
//!
//! ```text
//!   Idle  -- its process runs -->  Pause  -- interval -->  Running  -- exit ---------------> Pause ...
//!                                    ^                        `-- timeout --> Killed --.
//!                                    `-------------------- reaped ---------------------'
//! ```
//!
//! A check is a process beside the one that it looks at, with the same rights, and no session: its output goes nowhere but into the verdict. There is one at a
//! time. What it leaves behind is killed with it.

use std::os::fd::OwnedFd;
use std::time::Duration;

use guest::cgroup::Cgroup;
use guest::events::{Interest, Poller};
use guest::sys::process;
use nix::errno::Errno;
use nix::unistd::Pid;
use wire::message::{Exec, SessionId};
use wire::spec::{Environment, HealthCheck, Process};
use wire::status::{Ending, Failure, Health, Verdict};

use crate::launch::{self, Launched};
use crate::pipes::{Place, Streams};
use crate::session::SIGKILL;

/// The first of the tokens of checks: far behind those of streams.
const FIRST_TOKEN: u64 = 1 << 40;
/// So much of a check's output is kept, in bytes.
const KEPT: usize = 4096;
/// The code of a check that took too long, as of `timeout(1)`.
const TIMED_OUT: u8 = 124;

/// Whose check has something to read; `None` for a token of somebody else's.
pub(crate) fn of_token(token: u64) -> Option<SessionId> {
    Some(SessionId(u32::try_from(token.checked_sub(FIRST_TOKEN)? / 2).ok()?))
}

/// The health check of one process.
pub(crate) struct Checker {
    pub(crate) health: Health,
    id: SessionId,
    /// Of what a check starts.
    group: Cgroup,
    /// Since when its process runs.
    since: Option<Duration>,
    phase: Phase,
}

enum Phase {
    Idle,
    Pause {
        until: Duration,
    },
    Running(Check),
    /// It was killed, and has not yet gone.
    Killed {
        pid: Pid,
    },
}

/// A check that runs.
struct Check {
    pid: Pid,
    began: Duration,
    kill_at: Duration,
    outputs: Vec<(OwnedFd, u64)>,
    text: Vec<u8>,
}

impl Checker {
    pub(crate) fn new(id: SessionId, group: Cgroup) -> Checker {
        Checker { health: fresh(), id, group, since: None, phase: Phase::Idle }
    }

    // -- its process

    /// The process has just been started.
    pub(crate) fn watch(&mut self, check: &HealthCheck, now: Duration) {
        self.health = fresh();
        self.since = Some(now);
        self.pause(check, now);
    }

    /// The process has ended, or nobody wants to know any more.
    pub(crate) fn leave(&mut self, poller: &Poller) {
        self.since = None;
        self.phase = match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Running(check) => {
                self.kill(check.pid);
                Phase::Killed { pid: check.close(poller) }
            }
            Phase::Killed { pid } => Phase::Killed { pid },
            Phase::Idle | Phase::Pause { .. } => Phase::Idle,
        };
    }

    // -- time

    /// When to call [`Checker::handle_time`].
    pub(crate) fn deadline(&self) -> Option<Duration> {
        match &self.phase {
            Phase::Pause { until } => Some(*until),
            Phase::Running(check) => Some(check.kill_at),
            Phase::Idle | Phase::Killed { .. } => None,
        }
    }

    /// Starts a check, or ends one, if it is time. True if there is news.
    pub(crate) fn handle_time(&mut self, of: &Process, check: &HealthCheck, poller: &Poller, now: Duration) -> bool {
        if self.deadline().is_none_or(|deadline| deadline > now) {
            return false;
        }
        match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Pause { .. } => match self.start(of, check, poller, now) {
                Ok(running) => {
                    self.phase = Phase::Running(running);
                    false
                }
                Err(failure) => {
                    self.pause(check, now);
                    self.judge(check, now, failure.kind.code(), failure.reason)
                }
            },
            Phase::Running(running) => {
                self.kill(running.pid);
                let (began, pid) = (running.began, running.close(poller));
                self.phase = Phase::Killed { pid };
                let text = format!("the health check took more than {} ms", check.timeout.as_millis());
                self.judge(check, began, TIMED_OUT, text)
            }
            other @ (Phase::Idle | Phase::Killed { .. }) => {
                self.phase = other;
                false
            }
        }
    }

    fn start(&self, of: &Process, check: &HealthCheck, poller: &Poller, now: Duration) -> Result<Check, Failure> {
        let exec = Exec {
            argv: check.argv.clone(),
            env: Environment::default(),
            dir: String::new(),
            user: String::new(),
            terminal: None,
            stdin: false,
            attach: false,
        };
        let process = launch::beside(of, exec).map_err(launch::machine)?;
        let Launched { pid, streams, .. } = launch::launch(&process, Place::Beside, &self.group)?;
        let mut running =
            Check { pid, began: now, kill_at: now + check.timeout, outputs: Vec::new(), text: Vec::new() };
        if let Streams::Pipes { stdout, stderr, .. } = streams {
            for (number, fd) in (0..).zip([stdout, stderr]) {
                let token = FIRST_TOKEN + 2 * u64::from(self.id.0) + number;
                // one that cannot be watched is read when the check has ended
                let _unwatched = poller.add(&fd, token, Interest::READ);
                running.outputs.push((fd, token));
            }
        }
        Ok(running)
    }

    // -- what happens

    /// The check that runs has written something.
    pub(crate) fn read(&mut self, poller: &Poller) {
        if let Phase::Running(check) = &mut self.phase {
            check.read(poller);
        }
    }

    /// Whether the process that has ended was the check's; and whether there is news.
    pub(crate) fn reaped(
        &mut self,
        pid: Pid,
        ending: Ending,
        check: Option<&HealthCheck>,
        poller: &Poller,
        now: Duration,
    ) -> Option<bool> {
        match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Killed { pid: ours } if ours == pid => {
                if let Some(check) = check.filter(|_| self.since.is_some()) {
                    self.pause(check, now);
                }
                Some(false)
            }
            Phase::Running(mut running) if running.pid == pid => {
                running.read(poller);
                let (began, text) = (running.began, String::from_utf8_lossy(&running.text).into_owned());
                running.close(poller);
                // nothing of it stays: the next one would come on top
                self.group.kill();
                let Some(check) = check else { return Some(false) };
                self.pause(check, now);
                Some(self.judge(check, began, ending.code(), text))
            }
            other => {
                self.phase = other;
                None
            }
        }
    }

    /// The next check, an interval from now.
    fn pause(&mut self, check: &HealthCheck, now: Duration) {
        let starts = self.since.is_some_and(|since| now < since + check.start_period);
        let pause = match starts && self.health.verdict == Verdict::Starting {
            true => check.start_interval,
            false => check.interval,
        };
        self.phase = Phase::Pause { until: now + pause };
    }

    /// What a check that began then says of the process. True if that is news.
    fn judge(&mut self, check: &HealthCheck, began: Duration, code: u8, output: String) -> bool {
        let old = self.health.clone();
        let Health { verdict, failing, .. } = &mut self.health;
        let starts = self.since.is_some_and(|since| began < since + check.start_period);
        match (code, *verdict) {
            (0, _) => (*verdict, *failing) = (Verdict::Healthy, 0),
            (_, Verdict::Starting) if starts => {}
            (_, before) => {
                *failing = failing.saturating_add(1);
                *verdict = if *failing >= check.retries.max(1) { Verdict::Unhealthy } else { before };
            }
        }
        (self.health.code, self.health.output) = (Some(code), output);
        self.health != old
    }

    fn kill(&self, pid: Pid) {
        if !self.group.kill() {
            // it leads a group of its own: setsid(2). An error means that it has ended already.
            let _gone = process::kill(Pid::from_raw(-pid.as_raw()), SIGKILL);
        }
    }
}

impl Check {
    /// Takes what there is, up to what is kept; the rest is dropped, so that the check is not held up.
    fn read(&mut self, poller: &Poller) {
        let Check { outputs, text, .. } = self;
        let mut buffer = [0; KEPT];
        outputs.retain(|(fd, _)| {
            loop {
                match nix::unistd::read(fd, &mut buffer) {
                    Ok(count) if count > 0 => {
                        let room = KEPT - text.len();
                        text.extend_from_slice(&buffer[..count.min(room)]);
                        // a check that never stops must not stop us
                        if count < buffer.len() || room == 0 {
                            return true;
                        }
                    }
                    Err(Errno::EAGAIN | Errno::EINTR) => return true,
                    Ok(_) | Err(_) => {
                        let _unwatched = poller.remove(fd);
                        return false;
                    }
                }
            }
        });
    }

    fn close(self, poller: &Poller) -> Pid {
        for (fd, _) in &self.outputs {
            let _unwatched = poller.remove(fd);
        }
        self.pid
    }
}

fn fresh() -> Health {
    Health { verdict: Verdict::Starting, failing: 0, code: None, output: String::new() }
}
