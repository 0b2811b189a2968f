//! The loop of a running containerVM: one thread, one closed set of events, and nothing in it blocks but the wait at its top.
//!
//! It owns the link and the session and decides what each event means. It ends when the main session has ended and the host has received everything, or
//! [`FLUSH`] has passed; then the machine powers off.

use std::io;
use std::time::Duration;

use guest::clock;
use guest::events::{Happened, Interest, Poller, Signals};
use guest::power_button::PowerButton;
use guest::reap;
use nix::sys::signal::Signal;
use wire::link;
use wire::message::{Event as Told, MAIN, Message, Reply, Request, SessionId};
use wire::spec::Spec;
use wire::status::Failure;

use crate::boot::{BootError, Machine};
use crate::launch;
use crate::line::Line;
use crate::session::Session;

/// How long a machine that is done waits for its host to take what was sent.
const FLUSH: Duration = Duration::from_secs(30);
/// How long a process has to obey its stop signal.
const GRACE: Duration = Duration::from_secs(10);
const SIGKILL: u8 = 9;

const LINK: u64 = 0;
const SIGNALS: u64 = 1;
const BUTTON: u64 = 2;

/// The link's device is watched for changes, and read and written until it says to wait.
const CHANGES: Interest = Interest { readable: true, writable: true, edge: true };

/// Everything that can happen.
enum Event {
    /// Bytes, room, or an end on the link's device.
    Link(Happened),
    /// Signals to PID 1 are pending.
    Signals,
    /// Something happened on the power button.
    Button,
    /// One of the session's streams can be read or written.
    Stream(u64),
}

/// What remains to be done.
enum Goal {
    /// Run the session; `kill_at` once it has been asked to stop.
    Serve { session: Box<Session>, kill_at: Option<Duration> },
    /// Let the host take what was sent, then power off.
    Flush { until: Duration },
}

pub(crate) struct Agent {
    poller: Poller,
    signals: Signals,
    spec: Spec,
    line: Line,
    button: Option<PowerButton>,
    goal: Goal,
}

impl Agent {
    /// Starts the process, or tells why it cannot.
    pub(crate) fn new(machine: Machine) -> Result<Agent, BootError> {
        let Machine { signals, spec, mut line, button, cgroup, root } = machine;
        let poller = Poller::new()?;
        poller.add(&signals, SIGNALS, Interest::READ)?;
        poller.add(line.pipe(), LINK, CHANGES)?;
        if let Some(button) = &button {
            poller.add(button, BUTTON, Interest::READ)?;
        }
        let started = root.and_then(|ready| {
            line.tell(&Message::Event(Told::Ready(ready)));
            launch::launch(&spec.main, cgroup.procs_fd())
        });
        let goal = match started {
            Ok(launched) => {
                let session = Session::new(launched, &mut line.link, &poller, clock::now())?;
                let pid = u32::try_from(session.pid().as_raw()).unwrap_or_default();
                line.tell(&Message::Event(Told::Started { session: MAIN, pid }));
                Goal::Serve { session: Box::new(session), kill_at: None }
            }
            Err(failure) => give_up(failure, &mut line),
        };
        Ok(Agent { poller, signals, spec, line, button, goal })
    }

    /// Serves until there is nothing left to do.
    pub(crate) fn run(mut self) -> Result<(), BootError> {
        while !self.is_done() {
            self.settle()?;
            self.line.transmit();
            let now = clock::now();
            let timeout = self.deadline().map(|deadline| deadline.saturating_sub(now));
            for happened in self.poller.wait(timeout)? {
                self.handle(match happened.token {
                    LINK => Event::Link(happened),
                    SIGNALS => Event::Signals,
                    BUTTON => Event::Button,
                    token => Event::Stream(token),
                });
            }
            self.handle_time()?;
        }
        Ok(())
    }

    fn is_done(&self) -> bool {
        match &self.goal {
            Goal::Serve { .. } => false,
            Goal::Flush { until } => self.line.link.is_flushed() || clock::now() >= *until,
        }
    }

    fn deadline(&self) -> Option<Duration> {
        let own = match &self.goal {
            Goal::Serve { session, kill_at } => [session.deadline(), *kill_at],
            Goal::Flush { until } => [Some(*until), None],
        };
        own.into_iter().chain([self.line.deadline()]).flatten().min()
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Link(happened) => self.line.handle(happened),
            Event::Signals => self.handle_signals(),
            Event::Button if self.button.as_ref().is_some_and(PowerButton::was_pressed) => self.stop(),
            Event::Button => {}
            Event::Stream(token) => {
                if let Goal::Serve { session, .. } = &mut self.goal {
                    session.handle(token, &mut self.line.link, clock::now());
                }
            }
        }
        while let Some(event) = self.line.poll_event() {
            self.handle_link(event);
        }
    }

    fn handle_link(&mut self, event: link::Event) {
        match event {
            link::Event::Message(bytes) => match Message::decode(&bytes) {
                Ok(Message::Request { id, request }) => {
                    let reply = self.serve(request);
                    self.line.tell(&Message::Reply { id, reply });
                }
                Ok(Message::UnknownRequest { id }) => {
                    self.line.tell(&Message::Reply { id, reply: Reply::Unsupported });
                }
                Ok(Message::Reply { .. } | Message::Event(_) | Message::UnknownEvent) => {}
                Err(error) => eprintln!("tether: a message of the host cannot be read: {error}"),
            },
            // it takes everything from here on and keeps nothing: the process is not held up
            link::Event::Closed(why) => eprintln!("tether: the link is over: {why}"),
            // what can be read and written is looked at before each wait
            link::Event::Refused(why) => eprintln!("tether: a host refuses the link: {why}"),
            link::Event::Opened { .. } | link::Event::Readable(_) | link::Event::Writable(_) => {}
            link::Event::Reset(channel, _) => {
                if let Goal::Serve { session, .. } = &mut self.goal
                    && let Err(error) = session.refuse(channel, &self.poller)
                {
                    eprintln!("tether: cannot give up a stream that the host does not want: {error}");
                }
            }
        }
    }

    fn serve(&mut self, request: Request) -> Reply {
        let done = |result: io::Result<()>| match result {
            Ok(()) => Reply::Done,
            Err(error) => Reply::Refused { reason: error.to_string() },
        };
        let no_session = |session: SessionId| Reply::Refused { reason: format!("there is no session {}", session.0) };
        match (request, &self.goal) {
            (Request::PowerOff, _) => {
                self.stop();
                Reply::Done
            }
            (Request::Resize { session: MAIN, size }, Goal::Serve { session, .. }) => done(session.resize(size)),
            (Request::Signal { session: MAIN, signal }, Goal::Serve { session, .. }) => done(session.signal(signal)),
            (Request::Resize { session, .. } | Request::Signal { session, .. }, _) => no_session(session),
            _ => Reply::Unsupported,
        }
    }

    fn handle_signals(&mut self) {
        while let Some(signal) = self.signals.next() {
            match signal {
                Signal::SIGCHLD => self.reap(),
                Signal::SIGTERM | Signal::SIGINT | Signal::SIGPWR => self.stop(),
                _ => {}
            }
        }
    }

    fn reap(&mut self) {
        for (pid, ending) in reap::ended_children() {
            if let Goal::Serve { session, .. } = &mut self.goal
                && session.is_running()
                && session.pid() == pid
            {
                session.exited(ending, clock::now());
            }
        }
    }

    /// Asks the process to end; it is killed when it does not.
    fn stop(&mut self) {
        if let Goal::Serve { session, kill_at: kill_at @ None } = &mut self.goal {
            // an error means that it has ended already
            let _gone = session.signal(self.spec.main.stop_signal);
            *kill_at = Some(clock::now() + GRACE);
        }
    }

    fn handle_time(&mut self) -> io::Result<()> {
        let now = clock::now();
        if self.line.handle_time(now) {
            self.poller.add(self.line.pipe(), LINK, CHANGES)?;
        }
        let Goal::Serve { session, kill_at } = &mut self.goal else { return Ok(()) };
        if kill_at.is_some_and(|at| at <= now) {
            let _gone = session.signal(SIGKILL);
            *kill_at = None;
        }
        if let Some(exit) = session.poll_end(&mut self.line.link, now) {
            self.line.tell(&Message::Event(Told::Ended { session: MAIN, exit }));
            self.goal = Goal::Flush { until: now + FLUSH };
        }
        Ok(())
    }

    fn settle(&mut self) -> io::Result<()> {
        let Goal::Serve { session, .. } = &mut self.goal else { return Ok(()) };
        session.settle(&mut self.line.link, &self.poller, clock::now())
    }
}

fn give_up(failure: Failure, line: &mut Line) -> Goal {
    eprintln!("tether: {failure}");
    for stream in [MAIN.streams().stdout, MAIN.streams().stderr] {
        line.link.finish(stream);
    }
    line.tell(&Message::Event(Told::Failed(failure)));
    Goal::Flush { until: clock::now() + FLUSH }
}
