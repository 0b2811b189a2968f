//! A process tree from its start to the end of its output.
//!
//! ```text
//!   Running  -- its process is reaped -->  Draining  -- no more output -->  Ended
//! ```
//!
//! Output is drained after the process has ended, because its last words are still in the pipes, and a grandchild may hold them open: until the end of
//! file, or until nothing came for [`IDLE`], never longer than [`CAP`]. Time in which the host takes nothing counts for neither. This file
//! decides when a session ends and what moves between its descriptors and its channels; it does not wait.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use guest::events::{Interest, Poller};
use guest::sys::{process, terminal};
use nix::errno::Errno;
use nix::unistd::Pid;
use wire::link::Link;
use wire::message::MAIN;
use wire::packet::ChannelId;
use wire::spec::TermSize;
use wire::status::{Ending, Exit};

use crate::launch::{Launched, Streams};

/// Silence after which the output of an ended process is complete.
const IDLE: Duration = Duration::from_millis(300);
/// The longest that output is drained after the process has ended.
const CAP: Duration = Duration::from_secs(10);

/// The main session.
pub(crate) struct Session {
    pid: Pid,
    started: Duration,
    phase: Phase,
    terminal: bool,
    input: Option<Stream>,
    outputs: Vec<Stream>,
    buffer: Box<[u8]>,
}

enum Phase {
    Running,
    Draining { exit: Exit, quiet_since: Duration, since: Duration },
    Ended,
}

/// One of our ends of a process's streams.
struct Stream {
    fd: OwnedFd,
    channel: ChannelId,
    token: u64,
    interest: Interest,
    /// The host does not take what comes: it is read and dropped.
    unwanted: bool,
}

/// What a descriptor is called in events: see [`Session::handle`].
pub(crate) const FIRST_TOKEN: u64 = 16;
const STDIN: u64 = FIRST_TOKEN;
const STDOUT: u64 = FIRST_TOKEN + 1;
const STDERR: u64 = FIRST_TOKEN + 2;

const READ: usize = 64 * 1024;

impl Session {
    /// Takes over a launched process.
    pub(crate) fn new(launched: Launched, link: &mut Link, poller: &Poller, now: Duration) -> io::Result<Session> {
        let channels = MAIN.streams();
        let stream = |fd, channel, token| Stream { fd, channel, token, interest: Interest::default(), unwanted: false };
        let terminal = matches!(launched.streams, Streams::Terminal(_));
        let (input, outputs) = match launched.streams {
            Streams::Pipes { stdin, stdout, stderr } => (
                stdin.map(|fd| stream(fd, channels.stdin, STDIN)),
                vec![stream(stdout, channels.stdout, STDOUT), stream(stderr, channels.stderr, STDERR)],
            ),
            Streams::Terminal(master) => {
                link.finish(channels.stderr);
                let writer = master.try_clone()?;
                (Some(stream(writer, channels.stdin, STDIN)), vec![stream(master, channels.stdout, STDOUT)])
            }
        };
        for stream in input.iter().chain(&outputs) {
            poller.add(&stream.fd, stream.token, stream.interest)?;
        }
        if input.is_none() {
            link.discard(channels.stdin);
        }
        let buffer = vec![0; READ].into();
        Ok(Session { pid: launched.pid, started: now, phase: Phase::Running, terminal, input, outputs, buffer })
    }

    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    pub(crate) fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running)
    }

    pub(crate) fn signal(&self, signal: u8) -> io::Result<()> {
        match self.phase {
            Phase::Running => process::kill(self.pid, signal),
            // its number may be another process's by now
            _ => Err(Errno::ESRCH.into()),
        }
    }

    pub(crate) fn resize(&self, size: TermSize) -> io::Result<()> {
        match self.outputs.first() {
            Some(output) if self.terminal => terminal::resize(&output.fd, size),
            _ => Err(Errno::ENOTTY.into()),
        }
    }

    /// The process has ended; its output may not.
    pub(crate) fn exited(&mut self, ending: Ending, now: Duration) {
        let exit = Exit {
            ending,
            started_us: guest::clock::micros(self.started),
            ended_us: guest::clock::micros(now),
            oom: false,
        };
        self.phase = Phase::Draining { exit, quiet_since: now, since: now };
    }

    /// Moves what can be moved on the descriptor of that token.
    pub(crate) fn handle(&mut self, token: u64, link: &mut Link, now: Duration) {
        match token {
            STDIN => self.feed(link),
            _ => self.drain(token, link, now),
        }
    }

    /// Moves what the link brought, or made room for, and waits for what it must.
    pub(crate) fn settle(&mut self, link: &mut Link, poller: &Poller, now: Duration) -> io::Result<()> {
        self.feed(link);
        if let Some(input) = &mut self.input {
            let writable = !link.readable(input.channel).is_empty();
            input.want(Interest { writable, ..Interest::default() }, poller)?;
        }
        let mut held_up = false;
        for output in &mut self.outputs {
            let readable = output.unwanted || link.room(output.channel) > 0;
            held_up |= !readable;
            output.want(Interest { readable, ..Interest::default() }, poller)?;
        }
        if held_up && let Phase::Draining { quiet_since, since, .. } = &mut self.phase {
            (*quiet_since, *since) = (now, now);
        }
        Ok(())
    }

    /// The host does not want what comes on a channel. Whoever writes to a closed pipe is told so by SIGPIPE; a terminal has no such end.
    pub(crate) fn refuse(&mut self, channel: ChannelId, poller: &Poller) -> io::Result<()> {
        let Some(at) = self.outputs.iter().position(|output| output.channel == channel) else { return Ok(()) };
        match self.terminal {
            true => self.outputs[at].unwanted = true,
            false => poller.remove(self.outputs.remove(at))?,
        }
        Ok(())
    }

    /// When to call [`Session::poll_end`] at the latest.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        match &self.phase {
            Phase::Draining { .. } if self.outputs.is_empty() => Some(Duration::ZERO),
            Phase::Draining { quiet_since, since, .. } => Some((*quiet_since + IDLE).min(*since + CAP)),
            Phase::Running | Phase::Ended => None,
        }
    }

    /// The exit, once, when the output is complete.
    pub(crate) fn poll_end(&mut self, link: &mut Link, now: Duration) -> Option<Exit> {
        if self.deadline().is_none_or(|deadline| deadline > now) {
            return None;
        }
        for output in self.outputs.drain(..) {
            link.finish(output.channel);
        }
        self.input = None;
        match std::mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Draining { exit, .. } => Some(exit),
            Phase::Running | Phase::Ended => None,
        }
    }

    /// Host to process.
    fn feed(&mut self, link: &mut Link) {
        let Some(input) = &self.input else { return };
        loop {
            let bytes = link.readable(input.channel);
            if bytes.is_empty() {
                break;
            }
            match nix::unistd::write(&input.fd, bytes) {
                Ok(count) => link.consume(input.channel, count),
                Err(Errno::EAGAIN | Errno::EINTR) => return,
                // the process has closed it, or is gone
                Err(_) => {
                    link.discard(input.channel);
                    self.input = None;
                    return;
                }
            }
        }
        // a terminal has no end of input of its own: only who types there can end it
        if link.is_ended(input.channel) && !self.terminal {
            self.input = None;
        }
    }

    /// Process to host.
    fn drain(&mut self, token: u64, link: &mut Link, now: Duration) {
        let Some(at) = self.outputs.iter().position(|output| output.token == token) else { return };
        let output = &self.outputs[at];
        let room = if output.unwanted { READ } else { link.room(output.channel).min(READ) };
        if room == 0 {
            return;
        }
        match nix::unistd::read(&output.fd, &mut self.buffer[..room]) {
            // a terminal ends with EIO when its last user is gone
            Ok(0) | Err(Errno::EIO) => {
                link.finish(output.channel);
                self.outputs.remove(at);
            }
            Ok(count) => {
                link.write(output.channel, &self.buffer[..count]);
                if let Phase::Draining { quiet_since, .. } = &mut self.phase {
                    *quiet_since = now;
                }
            }
            Err(_) => {}
        }
    }
}

impl Stream {
    fn want(&mut self, interest: Interest, poller: &Poller) -> io::Result<()> {
        if interest != self.interest {
            self.interest = interest;
            poller.modify(self.fd.as_fd(), self.token, interest)?;
        }
        Ok(())
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
