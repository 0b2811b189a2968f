//! The life of the spec's own sessions: start, health, restart, stop, and the end of the machine with the last of them.
//!
//! ```text
//!   Serve  -- asked to stop, or the main session has ended -->  Stop  -- every member has ended -->  Flush  -->  power off
//! ```
//!
//! A member that is asked to stop gets its stop signal and its time, or those that the host names, and is killed when that has passed; when the main one's has passed, all
//! are. As with docker, asking again sends the signal again and gives no more time. What runs beside the members has no say: sessions that the host made get SIGTERM, and whatever is
//! left when the last member has gone is killed.

use std::time::Duration;

use guest::{clock, say};
use wire::message::{Event as Told, MAIN, Message, SessionId};
use wire::spec::{Process, SIGTERM};
use wire::status::{Exit, Failure};

use crate::agent::{Agent, Goal};
use crate::launch;
use crate::members::{Leave, Member, Stop};
use crate::pipes::Place;
use crate::session::{SIGKILL, Session};

/// How long a machine that is done waits for its host to take what was sent.
const FLUSH: Duration = Duration::from_secs(30);

impl Agent {
    // -- start

    /// Starts every member. A failure has been told to the host when this returns.
    pub(crate) fn start(&mut self) -> Result<(), Failure> {
        for at in 0..self.members.len() {
            if let Err(failure) = self.launch(at) {
                let failure = match at {
                    0 => failure,
                    _ => Failure { reason: format!("session {}: {failure}", self.members[at].name), ..failure },
                };
                self.give_up(failure.clone());
                return Err(failure);
            }
        }
        Ok(())
    }

    /// Starts a member's process, or starts it again.
    pub(crate) fn launch(&mut self, at: usize) -> Result<(), Failure> {
        self.teller.changed = true;
        let Agent { members, sessions, outside, .. } = self;
        let member = &mut members[at];
        member.start_at = None;
        let session = sessions.find(member.id).map_err(launch::machine)?;
        // the terminal has the size that was told last
        let process = Process { terminal: session.terminal(), ..member.process.clone() };
        let launched = launch::launch(&process, Place::Main, &member.group)?;
        let pid = u32::try_from(launched.pid.as_raw()).unwrap_or_default();
        session.begin(launched, &mut outside.io()).map_err(|error| launch::streams_failure(&error))?;
        if let (Some(checker), Some(check)) = (&mut member.health, &member.process.health) {
            checker.watch(check, clock::now());
        }
        say!(Info, "a session runs"; session = member.name, pid = pid, restarts = member.restarts.count);
        let event = Told::Started { session: member.id, pid };
        // what a host that is away would hear of a restart, the status says as well
        if member.restarts.count == 0 || outside.line.has_room_for_news() {
            outside.line.tell(&Message::Event(event));
        }
        Ok(())
    }

    // -- stop

    /// Asks every member to end, and all that runs beside them. Those that were never started have no end to tell: the machine powers off at once, and that the
    /// link ends after a `PowerOff` was answered, with neither `Ended` nor `Failed`, says that nothing has run.
    pub(crate) fn stop(&mut self) {
        self.stop_as(Leave::default());
    }

    /// The same, as the host wants it.
    pub(crate) fn stop_as(&mut self, leave: Leave) {
        if let Goal::Flush { .. } = self.goal {
            return;
        }
        if self.sessions.main().is_waiting() {
            return self.flush();
        }
        if let Goal::Serve = self.goal {
            self.sessions.signal_guests(SIGTERM);
        }
        self.goal = Goal::Stop;
        self.stop_members(leave, |_| true);
    }

    /// Asks some of the members to end.
    pub(crate) fn stop_members(&mut self, leave: Leave, which: impl Fn(&Member) -> bool) {
        self.teller.changed = true;
        let now = clock::now();
        let mut over = Vec::new();
        for member in self.members.iter_mut().filter(|member| !member.over && which(member)) {
            let signal = leave.signal.unwrap_or(member.process.stop_signal);
            say!(Info, "a session is asked to stop"; session = member.name, signal = signal);
            member.ask_to_stop(leave, now);
            let Ok(session) = self.sessions.find(member.id) else { continue };
            session.must_end();
            // an error means that it has ended already
            let _gone = session.signal(signal);
            if session.is_waiting() || session.is_resting() {
                over.push(member.id);
            }
        }
        over.into_iter().for_each(|id| self.over(id));
    }

    /// The host has sent a signal to a session's process; some of them mean that it is not to be started again.
    pub(crate) fn send(&mut self, session: SessionId, signal: u8) -> Result<(), String> {
        let member = self.members.iter_mut().find(|member| member.id == session);
        if let Some(member) = member {
            member.was_sent(signal);
            if self.sessions.find(session)?.is_resting() && member.stop != Stop::No {
                self.over(session);
                return Ok(());
            }
        }
        self.sessions.find(session)?.signal(signal)
    }

    // -- what happens

    /// Does what is due in the members' lives.
    pub(crate) fn handle_members(&mut self, now: Duration) {
        for at in 0..self.members.len() {
            let member = &mut self.members[at];
            if member.take_kill(now) {
                say!(Warn, "a session does not stop, and is killed"; session = member.name);
                self.kill(at);
            }
            let member = &mut self.members[at];
            if let (Some(checker), Some(check)) = (&mut member.health, &member.process.health)
                && checker.handle_time(&member.process, check, &self.outside.poller, now)
            {
                self.teller.changed = true;
            }
            let (id, due) = (member.id, member.start_at.is_some_and(|start_at| start_at <= now));
            if due && let Err(failure) = self.launch(at) {
                say!(Error, "a session cannot be started again: {failure}"; session = self.members[at].name);
                self.failure = Some(failure);
                self.over(id);
            }
        }
        for (id, exit) in self.sessions.poll_ends(&mut self.outside.io()) {
            self.ended(id, exit, now);
        }
        let sessions = &mut self.sessions;
        self.members.retain(|member| {
            let gone = member.removed && member.over;
            if gone {
                sessions.release(member.id);
            }
            !gone
        });
    }

    /// The main one is everything.
    fn kill(&mut self, at: usize) {
        let Agent { members, sessions, cgroup, .. } = self;
        let everything = members[at].id == MAIN;
        let group = if everything { cgroup } else { &members[at].group };
        if !group.kill() {
            for member in members.iter().filter(|member| everything || member.id == members[at].id) {
                if let Ok(session) = sessions.find(member.id) {
                    // an error means that it has ended already
                    let _gone = session.signal(SIGKILL);
                }
            }
        }
    }

    /// Children have ended. Once those that count have, after they were asked to, nobody waits for what they have left behind.
    pub(crate) fn handle_children(&mut self) {
        let now = clock::now();
        for (pid, ending) in guest::reap::ended_children() {
            if let Some((id, reply)) = self.chores.ended(pid) {
                if let Some((id, reply)) = self.chore_ended(id, reply) {
                    self.reply(id, reply);
                }
                continue;
            }
            let poller = &self.outside.poller;
            let health = self.members.iter_mut().find_map(|member| {
                member.health.as_mut()?.reaped(pid, ending, member.process.health.as_ref(), poller, now)
            });
            match health {
                Some(news) => self.teller.changed |= news,
                None if self.sessions.reaped(pid, ending, &self.cgroup, now) => self.teller.changed = true,
                // an orphan of the container
                None => {}
            }
        }
        for member in &mut self.members {
            let runs = self.sessions.find(member.id).is_ok_and(|session| session.is_running());
            if let (Some(checker), false) = (&mut member.health, runs) {
                checker.leave(&self.outside.poller);
            }
        }
        let run = |session: SessionId| self.sessions.get(session).is_some_and(Session::is_running);
        if let Goal::Stop = self.goal
            && !self.members.iter().any(|member| run(member.id))
        {
            self.cgroup.kill();
        }
    }

    /// A session's process has ended, and its output is complete.
    fn ended(&mut self, id: SessionId, exit: Exit, now: Duration) {
        self.teller.changed = true;
        let Some(member) = self.members.iter_mut().find(|member| member.id == id) else {
            say!(Debug, "a process beside the sessions has ended"; number = id.0, code = exit.ending.code(), oom = exit.oom);
            self.sessions.conclude(id, &mut self.outside.io());
            return self.outside.line.tell(&Message::Event(Told::Ended { session: id, exit }));
        };
        say!(Info, "a session's process has ended"; session = member.name, code = exit.ending.code(), oom = exit.oom);
        match member.ended(&exit, now) {
            Some(_) => {
                // what it has left behind may hold what the next one needs
                member.group.kill();
                self.sessions.rest(id, &self.outside.poller);
            }
            None => self.over(id),
        }
    }

    /// A member has ended for good. The main one takes the others with it, and its end is told last.
    fn over(&mut self, id: SessionId) {
        self.teller.changed = true;
        let Some(member) = self.members.iter_mut().find(|member| member.id == id) else { return };
        (member.over, member.start_at) = (true, None);
        if let Some(checker) = &mut member.health {
            checker.leave(&self.outside.poller);
        }
        let exit = member.exit.clone();
        self.sessions.conclude(id, &mut self.outside.io());
        if id == MAIN {
            self.goal = Goal::Stop;
            self.stop_members(Leave::default(), |member| !matches!(member.stop, Stop::Asked { .. }));
        } else if let Some(exit) = exit {
            self.outside.line.tell(&Message::Event(Told::Ended { session: id, exit }));
        }
        let all_over = self.members.iter().all(|member| member.over);
        if all_over && !matches!(self.goal, Goal::Flush { .. }) {
            if let Some(exit) = self.members.first().and_then(|main| main.exit.clone()) {
                self.outside.line.tell(&Message::Event(Told::Ended { session: MAIN, exit }));
            }
            self.flush();
        }
    }

    // -- the end

    pub(crate) fn give_up(&mut self, failure: Failure) {
        say!(Error, "{failure}");
        self.failure = Some(failure.clone());
        if let Some(evidence) = crate::machine::evidence(&failure) {
            self.outside.line.tell(&evidence);
        }
        self.outside.line.tell(&Message::Event(Told::Failed(failure)));
        self.flush();
    }

    /// Nothing runs any more that matters.
    fn flush(&mut self) {
        self.teller.changed = true;
        self.sessions.abandon(&mut self.outside.io());
        if let Some(syslog) = &mut self.outside.syslog {
            syslog.end_all(clock::now());
        }
        self.goal = Goal::Flush { until: clock::now() + FLUSH };
    }
}
