//! A process tree from its start to the end of its output.
//!
//! ```text
//!   Waiting  -- begin -->  Running  -- its process is reaped -->  Draining  -- no more output -->  Ended
//!                             ^                                       |
//!                             `------------ begin --- Resting <-------'   (the spec's own, if they are started again)
//! ```
//!
//! A process that follows another in its session goes on where that one's streams were: its output at the next offset, its input with what the last one's pipe had not
//! taken. What the pipe had, and the last one did not read, is lost with it.
//!
//! Output goes to the link while the session is attached, and that of the spec's own sessions to the log if there is one; whoever of them takes least decides how
//! much is read; with nobody to take it, it is read and dropped.
//!
//! Output is drained after the process has ended, because its last words are still in the pipes, and a grandchild may hold them open: until the end of
//! file, or until nothing came for [`IDLE`], never longer than [`CAP`] beyond what the process itself has left there: a slow line may take longer for that.
//! Time in which nobody takes anything counts for neither, unless the machine has been asked to power off: then [`STUCK`] is its bound. This file decides when a session ends and what moves between its descriptors and its channels; it
//! does not wait.

mod flow;

use std::io;
use std::time::Duration;

use guest::clock;
use guest::events::Poller;
use guest::log::Log;
use guest::sys::{process, terminal};
use nix::fcntl::{FcntlArg, fcntl};
use nix::unistd::Pid;
use wire::link::Link;
use wire::log::member;
use wire::message::{SessionId, SessionInfo, SessionState};
use wire::spec::TermSize;
use wire::status::{Ending, Exit};

use self::flow::room;
use crate::launch::Launched;
use crate::members::no_signal;
use crate::pipes::Streams;
use crate::stream::{Stream, Which};
use crate::syslog::Syslog;

/// Silence after which the output of an ended process is complete.
const IDLE: Duration = Duration::from_millis(300);
/// The longest that others' output is drained after the process has ended.
const CAP: Duration = Duration::from_secs(10);
/// How long a session that must end waits for somebody to take anything of its output.
const STUCK: Duration = Duration::from_secs(30);

pub(crate) const SIGKILL: u8 = 9;

/// What was asked to run, and how far it is.
pub(crate) struct Session {
    id: SessionId,
    /// It has a terminal, which began with this size.
    terminal: Option<TermSize>,
    attached: bool,
    /// It has been asked to end, for good: who takes nothing does not keep it.
    must_end: bool,
    /// Its process may be started again: what one of them closes is not closed for the next.
    may_rest: bool,
    phase: Phase,
    input: Option<Stream>,
    outputs: Vec<Stream>,
}

enum Phase {
    Waiting,
    Running {
        pid: Pid,
        started: Duration,
        oom_kills: u64,
    },
    Draining(Drain),
    /// Its process has ended, as it says, and another is to follow.
    Resting(Exit),
    Ended(Exit),
}

struct Drain {
    pid: Pid,
    exit: Exit,
    quiet_since: Duration,
    since: Duration,
    /// Nobody takes what there is: no time passes.
    held_up: bool,
}

/// What a session's bytes move through.
pub(crate) struct Io<'a> {
    pub(crate) link: &'a mut Link,
    pub(crate) poller: &'a Poller,
    /// Of the spec's own sessions, if their output is logged.
    pub(crate) log: Option<&'a mut Log>,
    /// Where the lines of the spec's sessions go as well.
    pub(crate) syslog: Option<&'a mut Syslog>,
    /// Where bytes are between two system calls; one for all.
    pub(crate) buffer: &'a mut [u8],
    pub(crate) now: Duration,
}

impl Session {
    /// A session whose process is still to be started.
    pub(crate) fn waiting(id: SessionId, terminal: Option<TermSize>, attached: bool) -> Session {
        let (input, outputs) = (None, Vec::new());
        Session { id, terminal, attached, must_end: false, may_rest: false, phase: Phase::Waiting, input, outputs }
    }

    /// The same, for one whose process may be started again.
    pub(crate) fn restartable(self, may_rest: bool) -> Session {
        Session { may_rest, ..self }
    }

    pub(crate) fn set_restartable(&mut self, may_rest: bool) {
        self.may_rest = may_rest;
    }

    /// Takes over its process. When it cannot, the process is killed.
    pub(crate) fn begin(&mut self, launched: Launched, io: &mut Io<'_>) -> io::Result<()> {
        let Launched { pid, streams, oom_kills } = launched;
        if let Err(error) = self.watch(streams, io.poller) {
            self.close(io.poller);
            // an error means that it has ended already
            let _gone = process::kill(pid, SIGKILL);
            return Err(error);
        }
        if let Phase::Waiting = self.phase {
            if self.input.is_none() {
                io.link.discard(Which::Stdin.channel(self.id));
            }
            if self.terminal.is_some() {
                io.link.finish(Which::Stderr.channel(self.id));
            }
        }
        self.phase = Phase::Running { pid, started: io.now, oom_kills };
        // what the host did not want of the process before, it does not want of this one
        for which in [Which::Stdout, Which::Stderr] {
            if io.link.is_finished(which.channel(self.id)) {
                self.refuse(which, io);
            }
        }
        Ok(())
    }

    fn watch(&mut self, streams: Streams, poller: &Poller) -> io::Result<()> {
        let id = self.id;
        let (stdin, outputs) = match streams {
            Streams::Pipes { stdin, stdout, stderr } => (stdin, vec![(stdout, Which::Stdout), (stderr, Which::Stderr)]),
            Streams::Terminal(master) => (Some(master.try_clone()?), vec![(master, Which::Stdout)]),
        };
        if let Some(fd) = stdin {
            self.input = Some(Stream::new(fd, Which::Stdin, id, poller)?);
        }
        for (fd, which) in outputs {
            self.outputs.push(Stream::new(fd, which, id, poller)?);
        }
        Ok(())
    }

    // -- what is the case

    pub(crate) fn id(&self) -> SessionId {
        self.id
    }

    pub(crate) fn is_waiting(&self) -> bool {
        matches!(self.phase, Phase::Waiting)
    }

    pub(crate) fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running { .. })
    }

    pub(crate) fn is_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended(_))
    }

    /// Its process has ended, and another is to follow.
    pub(crate) fn is_resting(&self) -> bool {
        matches!(self.phase, Phase::Resting(_))
    }

    /// The process that runs, if its number is still its own.
    pub(crate) fn pid(&self) -> Option<Pid> {
        match self.phase {
            Phase::Running { pid, .. } => Some(pid),
            _ => None,
        }
    }

    /// The process that runs, or whose last words are read; 0 if there is none.
    fn number(&self) -> u32 {
        match &self.phase {
            Phase::Running { pid, .. } | Phase::Draining(Drain { pid, .. }) => {
                u32::try_from(pid.as_raw()).unwrap_or_default()
            }
            Phase::Waiting | Phase::Resting(_) | Phase::Ended(_) => 0,
        }
    }

    pub(crate) fn terminal(&self) -> Option<TermSize> {
        self.terminal
    }

    pub(crate) fn info(&self) -> SessionInfo {
        let number = |pid: Pid| u32::try_from(pid.as_raw()).unwrap_or_default();
        let state = match &self.phase {
            Phase::Waiting => SessionState::Waiting,
            Phase::Running { pid, started, .. } => {
                SessionState::Running { pid: number(*pid), started_us: clock::micros(*started) }
            }
            Phase::Draining(drain) => {
                SessionState::Running { pid: number(drain.pid), started_us: drain.exit.started_us }
            }
            // no process, and yet not the end
            Phase::Resting(exit) => SessionState::Running { pid: 0, started_us: exit.started_us },
            Phase::Ended(exit) => SessionState::Ended(exit.clone()),
        };
        SessionInfo { session: self.id, state, terminal: self.terminal.is_some(), attached: self.attached }
    }

    // -- what the host asks

    /// Lets output go to the host, or not.
    pub(crate) fn attach(&mut self, attached: bool) {
        self.attached = attached;
    }

    /// Its machine is to be powered off.
    pub(crate) fn must_end(&mut self) {
        self.must_end = true;
    }

    pub(crate) fn signal(&self, signal: u8) -> Result<(), String> {
        if !(1..=64).contains(&signal) {
            return Err(no_signal(signal));
        }
        match self.phase {
            Phase::Running { pid, .. } => process::kill(pid, signal).map_err(|error| error.to_string()),
            Phase::Waiting => Err(format!("session {} has not been started", self.id.0)),
            Phase::Resting(_) => Err(format!("the process of session {} is about to be started again", self.id.0)),
            // its number may be another process's by now
            Phase::Draining(_) | Phase::Ended(_) => Err(format!("the process of session {} has ended", self.id.0)),
        }
    }

    pub(crate) fn resize(&mut self, size: TermSize) -> Result<(), String> {
        let Some(known) = &mut self.terminal else {
            return Err(format!("session {} has no terminal", self.id.0));
        };
        *known = size;
        match self.outputs.first() {
            Some(output) => terminal::resize(&output.fd, size).map_err(|error| error.to_string()),
            // it begins with it, or needs it no more
            None => Ok(()),
        }
    }

    // -- what happens

    /// The process has ended; its output may not. `oom_kills` is how many processes the kernel has killed for lack of memory by now.
    pub(crate) fn exited(&mut self, ending: Ending, oom_kills: u64, now: Duration) {
        let Phase::Running { pid, started, oom_kills: before } = self.phase else { return };
        let oom = matches!(ending, Ending::Signaled { signal: SIGKILL, .. }) && oom_kills > before;
        let exit = Exit { ending, started_us: clock::micros(started), ended_us: clock::micros(now), oom };
        self.outputs.iter_mut().for_each(|output| output.left = capacity(output));
        self.phase = Phase::Draining(Drain { pid, exit, quiet_since: now, since: now, held_up: false });
    }

    /// Moves what can be moved on a stream.
    pub(crate) fn handle(&mut self, which: Which, io: &mut Io<'_>) {
        match which {
            Which::Stdin => self.feed(io),
            Which::Stdout | Which::Stderr => self.drain(which, io),
        }
    }

    /// Moves what the link brought, or made room for, and waits for what it must.
    pub(crate) fn settle(&mut self, io: &mut Io<'_>) -> io::Result<()> {
        self.feed(io);
        if let Some(input) = &mut self.input {
            let writable = !io.link.readable(input.channel).is_empty();
            input.want_writable(writable, io.poller)?;
        }
        for output in &mut self.outputs {
            let readable = room(self.id, self.attached, output, io) > 0;
            output.want_readable(readable, io.poller)?;
        }
        self.look_who_takes(io);
        Ok(())
    }

    /// Stops the clock of an ended process while nobody takes what there is.
    fn look_who_takes(&mut self, io: &Io<'_>) {
        let held_up = self.outputs.iter().any(|output| room(self.id, self.attached, output, io) == 0);
        if let Phase::Draining(drain) = &mut self.phase
            && drain.held_up != held_up
        {
            (drain.held_up, drain.quiet_since, drain.since) = (held_up, io.now, io.now);
        }
    }

    /// The host does not want what comes on a channel. Whoever writes to a closed pipe is told so by SIGPIPE; a terminal has no such end, and a process
    /// whose output goes elsewhere anyway is left in peace.
    pub(crate) fn refuse(&mut self, which: Which, io: &Io<'_>) {
        let Some(at) = self.outputs.iter().position(|output| output.which == which) else { return };
        let is_logged = member(self.id).is_some() && (io.log.is_some() || io.syslog.is_some());
        match self.terminal.is_some() || is_logged || !self.attached {
            true => self.outputs[at].unwanted = true,
            false => self.outputs.remove(at).close(io.poller),
        }
    }

    /// When to call [`Session::poll_end`] at the latest.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        match &self.phase {
            Phase::Draining(_) if self.outputs.is_empty() => Some(Duration::ZERO),
            Phase::Draining(drain) if !drain.held_up => Some((drain.quiet_since + IDLE).min(drain.since + CAP)),
            Phase::Draining(drain) if self.must_end => Some(drain.since + STUCK),
            _ => None,
        }
    }

    /// The exit, once, when the output is complete: [`Session::conclude`] or [`Session::rest`] comes next.
    pub(crate) fn poll_end(&mut self, io: &mut Io<'_>) -> Option<Exit> {
        let is_due = |session: &Session, now| session.deadline().is_some_and(|deadline| deadline <= now);
        if !is_due(self, io.now) {
            return None;
        }
        // it may have been long since anybody looked: silence counts only then
        self.look_who_takes(io);
        for which in [Which::Stdout, Which::Stderr] {
            self.drain(which, io);
        }
        if !is_due(self, io.now) {
            return None;
        }
        let Phase::Draining(Drain { exit, .. }) = &self.phase else { return None };
        let exit = exit.clone();
        self.phase = Phase::Ended(exit.clone());
        Some(exit)
    }

    /// That was its end.
    pub(crate) fn conclude(&mut self, io: &mut Io<'_>) {
        if let Phase::Resting(exit) = &self.phase {
            self.phase = Phase::Ended(exit.clone());
        }
        self.abandon(io);
    }

    /// Another process is to follow: the channels stay.
    pub(crate) fn rest(&mut self, poller: &Poller) {
        if let Phase::Ended(exit) = &self.phase {
            self.phase = Phase::Resting(exit.clone());
            self.close(poller);
        }
    }

    /// Nothing more moves.
    pub(crate) fn abandon(&mut self, io: &mut Io<'_>) {
        for which in [Which::Stdout, Which::Stderr] {
            io.link.finish(which.channel(self.id));
        }
        let stdin = Which::Stdin.channel(self.id);
        if (self.input.is_some() || self.may_rest) && !io.link.is_ended(stdin) {
            io.link.discard(stdin);
        }
        self.may_rest = false;
        self.close(io.poller);
    }

    fn close(&mut self, poller: &Poller) {
        for stream in self.outputs.drain(..).chain(self.input.take()) {
            stream.close(poller);
        }
    }
}

/// The most bytes that an output holds before somebody reads them.
fn capacity(output: &Stream) -> usize {
    // a terminal is no pipe, and holds no more than this (the kernel's tty_buffer.c)
    fcntl(&output.fd, FcntlArg::F_GETPIPE_SZ).ok().and_then(|size| usize::try_from(size).ok()).unwrap_or(64 * 1024)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::sessions::tests::{Rig, exited};

    const ID: SessionId = SessionId(2);

    /// Bytes of a session's standard output that wait for the host.
    fn waiting(rig: &Rig) -> usize {
        usize::try_from(rig.link.written(Which::Stdout.channel(ID)) - rig.link.delivered(Which::Stdout.channel(ID)))
            .unwrap()
    }

    /// Bytes that nobody has read from a pipe.
    fn unread(pipe: impl AsFd) -> bool {
        let mut fds = [nix::poll::PollFd::new(pipe.as_fd(), nix::poll::PollFlags::POLLIN)];
        nix::poll::poll(&mut fds, nix::poll::PollTimeout::ZERO).unwrap() > 0
    }

    #[test]
    fn output_goes_to_the_host_while_attached() {
        let mut rig = Rig::new();
        let (mut session, process) = rig.running(ID, false);
        for (attached, expected) in [(false, 0), (true, 5), (true, 10), (false, 10)] {
            session.attach(attached);
            nix::unistd::write(&process.stdout, b"12345").unwrap();
            session.handle(Which::Stdout, &mut rig.io(Duration::ZERO));
            assert_eq!((waiting(&rig), unread(&session.outputs[0].fd)), (expected, false));
        }
    }

    #[test]
    fn a_host_that_takes_nothing_holds_up_only_what_it_is_attached_to() {
        let mut rig = Rig::new();
        let (mut session, process) = rig.running(ID, true);
        let channel = Which::Stdout.channel(ID);
        while rig.link.room(channel) > 0 {
            rig.link.write(channel, &[0; 4096]);
        }
        nix::unistd::write(&process.stdout, b"12345").unwrap();
        session.handle(Which::Stdout, &mut rig.io(Duration::ZERO));
        assert!(unread(&session.outputs[0].fd), "it waits");
        session.attach(false);
        session.handle(Which::Stdout, &mut rig.io(Duration::ZERO));
        assert!(!unread(&session.outputs[0].fd), "nobody wants it");
    }

    #[test]
    fn a_held_up_end_waits_without_a_clock_until_the_machine_must_end() {
        let mut rig = Rig::new();
        let (mut session, process) = rig.running(ID, true);
        let channel = Which::Stdout.channel(ID);
        while rig.link.room(channel) > 0 {
            rig.link.write(channel, &[0; 4096]);
        }
        session.exited(exited(3), 0, Duration::ZERO);
        session.settle(&mut rig.io(Duration::ZERO)).unwrap();
        assert_eq!(session.deadline(), None);
        session.must_end();
        assert_eq!(session.deadline(), Some(STUCK));
        session.attach(false);
        session.settle(&mut rig.io(CAP * 2)).unwrap();
        assert_eq!(session.deadline(), Some(CAP * 2 + IDLE), "a grandchild may still write");
        assert_eq!(session.poll_end(&mut rig.io(CAP * 2)), None);
        drop(process);
        let exit = session.poll_end(&mut rig.io(CAP * 2 + IDLE)).unwrap();
        assert_eq!(exit.ending, exited(3));
        assert_eq!(session.info().state, SessionState::Ended(exit));
    }

    #[test]
    fn a_process_whose_output_nobody_wants_is_told_only_while_attached() {
        for (attached, told) in [(true, true), (false, false)] {
            let mut rig = Rig::new();
            let (mut session, process) = rig.running(ID, attached);
            session.refuse(Which::Stdout, &rig.io(Duration::ZERO));
            assert_eq!(nix::unistd::write(&process.stdout, b"1").is_err(), told);
        }
    }

    #[test]
    fn a_busy_machine_does_not_take_its_own_silence_for_the_processs() {
        let mut rig = Rig::new();
        let (mut session, process) = rig.running(ID, true);
        nix::unistd::write(&process.stdout, b"last words").unwrap();
        session.exited(exited(0), 0, Duration::ZERO);
        assert_eq!(session.poll_end(&mut rig.io(IDLE * 2)), None);
        assert_eq!((waiting(&rig), session.deadline()), (10, Some(IDLE * 3)));
        drop(process);
        assert!(session.poll_end(&mut rig.io(IDLE * 3)).is_some());
    }

    #[test]
    fn a_slow_machine_reads_all_that_the_process_has_left_and_of_others_what_comes_in_their_time() {
        let mut rig = Rig::new();
        let (mut session, process) = rig.running(ID, true);
        let left = nix::unistd::write(&process.stdout, &[7; 1 << 16]).unwrap();
        session.exited(exited(0), 0, Duration::ZERO);
        // nobody looks for so long each time, and the grandchild does not cease
        let mut now = Duration::ZERO;
        let exit = loop {
            now += CAP;
            if let Some(exit) = session.poll_end(&mut rig.io(now)) {
                break exit;
            }
            nix::unistd::write(&process.stdout, &[8; 4096]).unwrap();
            assert!(now < CAP * 40, "it does not end");
        };
        assert_eq!(exit.ending, exited(0));
        assert!(waiting(&rig) >= left, "{} of {left} bytes", waiting(&rig));
    }

    #[test]
    fn a_kill_for_lack_of_memory_is_told_from_others() {
        let killed = Ending::Signaled { signal: SIGKILL, core: false };
        for (ending, kills, oom) in [(killed, 0, false), (killed, 1, true), (exited(1), 1, false)] {
            let mut rig = Rig::new();
            let (mut session, process) = rig.running(ID, false);
            drop(process);
            session.exited(ending, kills, Duration::ZERO);
            assert_eq!(session.poll_end(&mut rig.io(CAP)).map(|exit| exit.oom), Some(oom), "{ending:?} {kills}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let mut rig = Rig::new();
        let (mut session, _process) = rig.running(ID, true);
        let size = TermSize { rows: 1, columns: 2 };
        assert_eq!(session.resize(size), Err("session 2 has no terminal".into()));
        assert_eq!(session.signal(0), Err("there is no signal 0: they go from 1 to 64".into()));
        assert_eq!(session.signal(65), Err("there is no signal 65: they go from 1 to 64".into()));
        session.exited(exited(0), 0, Duration::ZERO);
        assert_eq!(session.signal(9), Err("the process of session 2 has ended".into()));
        let mut held = Session::waiting(ID, Some(TermSize { rows: 24, columns: 80 }), true);
        assert_eq!(held.signal(9), Err("session 2 has not been started".into()));
        assert_eq!((held.resize(size), held.terminal()), (Ok(()), Some(size)));
    }
}
