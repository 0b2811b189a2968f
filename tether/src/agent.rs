//! The loop of a running containerVM: one thread, one closed set of events, and nothing in it blocks but the wait at its top.
//!
//! It owns the link and the sessions and decides what each event means; what the host asks is in [`crate::requests`]. It ends when the main session has ended
//! and the host has received everything, or [`FLUSH`] has passed; then the machine powers off, and whatever else runs in it is killed.

use std::io;
use std::time::Duration;

use guest::cgroup::Cgroup;
use guest::clock;
use guest::events::{Happened, Interest, Poller, Signals};
use guest::log::Log;
use guest::power::Ending;
use guest::power_button::PowerButton;
use guest::reap;
use nix::sys::signal::Signal;
use wire::codec::MAX_ENCODED;
use wire::link;
use wire::message::{Event as Told, MAIN, Message, Reply};
use wire::spec::Spec;
use wire::status::Failure;

use crate::boot::{BootError, Machine};
use crate::launch;
use crate::line::Line;
use crate::machine::{self, Hardware};
use crate::pipes::Place;
use crate::session::{Io, SIGKILL, Session};
use crate::sessions::Sessions;

/// How long a machine that is done waits for its host to take what was sent.
const FLUSH: Duration = Duration::from_secs(30);
/// How often a machine that is done looks whether its log has left.
const LOOK: Duration = Duration::from_millis(10);
/// How long a process has to obey its stop signal.
const GRACE: Duration = Duration::from_secs(10);
/// The most bytes that are read from a process at once.
const READ: usize = 32 * 1024;

const LINK: u64 = 0;
const SIGNALS: u64 = 1;
const BUTTON: u64 = 2;
const LOG: u64 = 3;
const UEVENTS: u64 = 4;
const PRESSURE: u64 = 8;

/// The link's device is watched for changes, and read and written until it says to wait.
const CHANGES: Interest = Interest { readable: true, writable: true, edge: true, ..Interest::READ };

/// Everything that can happen.
enum Event {
    /// Bytes, room, or an end on the link's device.
    Link(Happened),
    /// Signals to PID 1 are pending.
    Signals,
    /// Something happened on the power button.
    Button,
    /// There is room on the log's device.
    Log,
    /// Devices have come or gone.
    Uevents,
    /// The container's processes have waited for a disk or for memory.
    Pressure,
    /// A session's stream can be read or written.
    Stream(u64),
}

/// What remains to be done.
#[derive(Clone, Copy)]
pub(crate) enum Goal {
    /// Run the main session; `kill_at` once it has been asked to stop.
    Serve { kill_at: Option<Duration> },
    /// Let the host take what was sent, then power off.
    Flush { until: Duration },
}

pub(crate) struct Agent {
    pub(crate) spec: Spec,
    pub(crate) sessions: Sessions,
    pub(crate) outside: Outside,
    pub(crate) goal: Goal,
    /// Every process of the container begins in it.
    pub(crate) cgroup: Cgroup,
    pub(crate) ending: Ending,
    hardware: Hardware,
    signals: Signals,
    button: Option<PowerButton>,
}

/// What bytes of sessions go through on their way out and in.
pub(crate) struct Outside {
    pub(crate) line: Line,
    poller: Poller,
    log: Option<Log>,
    buffer: Box<[u8]>,
}

impl Outside {
    pub(crate) fn io(&mut self) -> Io<'_> {
        let Outside { line, poller, log, buffer } = self;
        Io { link: &mut line.link, poller, log: log.as_mut(), buffer, now: clock::now() }
    }

    /// Sends what the devices take, for a while; true if the link has more that could go at once.
    fn transmit(&mut self) -> bool {
        let more = self.line.transmit();
        let Some(log) = &mut self.log else { return more };
        if let Err(error) = log.transmit() {
            eprintln!("tether: the log's device is gone, and nothing more is logged: {error}");
            // an error means that it is not watched
            let _unwatched = self.poller.remove(&*log);
            self.log = None;
        }
        more
    }

    fn is_flushed(&self) -> bool {
        self.line.link.is_flushed() && self.log.as_ref().is_none_or(Log::is_flushed)
    }
}

impl Agent {
    /// Starts the main process, unless it is held, or tells why it cannot.
    pub(crate) fn new(machine: Machine) -> Result<Agent, BootError> {
        let Machine { signals, spec, mut line, log, button, cgroup, hardware, root } = machine;
        let poller = Poller::new()?;
        poller.add(&signals, SIGNALS, Interest::READ)?;
        poller.add(line.pipe(), LINK, CHANGES)?;
        if let Some(button) = &button {
            poller.add(button, BUTTON, Interest::READ)?;
        }
        if let Some(log) = &log {
            poller.add(log, LOG, Interest { writable: true, edge: true, ..Interest::default() })?;
        }
        hardware.watch(&poller, UEVENTS, PRESSURE)?;
        let main = Session::waiting(MAIN, spec.main.terminal, spec.main.attach);
        let sessions = Sessions::new(main, &mut line.link);
        let outside = Outside { line, poller, log, buffer: vec![0; READ].into() };
        let goal = Goal::Serve { kill_at: None };
        let ending = Ending::default();
        let mut agent = Agent { spec, sessions, outside, goal, cgroup, ending, hardware, signals, button };
        match root {
            Ok(ready) => {
                agent.outside.line.tell(&Message::Event(Told::Ready(ready)));
                if !agent.spec.hold {
                    // a failure has been told
                    let _told = agent.start();
                }
            }
            Err(failure) => agent.give_up(failure),
        }
        Ok(agent)
    }

    /// Serves until there is nothing left to do.
    pub(crate) fn run(mut self) -> Result<Ending, BootError> {
        let mut busy = false;
        loop {
            self.sessions.settle(&mut self.outside.io())?;
            busy |= self.outside.transmit();
            if self.is_done() {
                return Ok(self.ending);
            }
            let now = clock::now();
            let timeout = match busy {
                true => Some(Duration::ZERO),
                false => self.deadline().map(|deadline| deadline.saturating_sub(now)),
            };
            for happened in self.outside.poller.wait(timeout)? {
                self.handle(match happened.token {
                    LINK => Event::Link(happened),
                    SIGNALS => Event::Signals,
                    BUTTON => Event::Button,
                    LOG => Event::Log,
                    UEVENTS => Event::Uevents,
                    PRESSURE => Event::Pressure,
                    token => Event::Stream(token),
                });
            }
            self.handle_time()?;
            busy = self.handle_link();
        }
    }

    fn is_done(&self) -> bool {
        match self.goal {
            Goal::Serve { .. } => false,
            Goal::Flush { until } => self.outside.is_flushed() || clock::now() >= until,
        }
    }

    fn deadline(&self) -> Option<Duration> {
        let own = match self.goal {
            Goal::Serve { kill_at } => kill_at,
            // only the log is waited for, and a serial line does not tell when it has sent what it took
            Goal::Flush { until } if self.outside.line.link.is_flushed() => Some(until.min(clock::now() + LOOK)),
            Goal::Flush { until } => Some(until),
        };
        [own, self.sessions.deadline(), self.outside.line.deadline(), self.hardware.deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    fn handle(&mut self, event: Event) {
        if let Event::Signals | Event::Pressure | Event::Stream(_) = event {
            self.hardware.stir();
        }
        match event {
            Event::Link(happened) => self.outside.line.handle(happened),
            Event::Signals => self.handle_signals(),
            Event::Button if self.button.as_ref().is_some_and(PowerButton::was_pressed) => self.stop(),
            // what it takes is sent before each wait
            Event::Uevents => self.hardware.handle_changes(),
            // pressure has stirred
            Event::Button | Event::Log | Event::Pressure => {}
            Event::Stream(token) => self.sessions.handle(token, &mut self.outside.io()),
        }
    }

    /// Hears what the link has to tell, up to one message: many requests at once, each of which may start a process, keep no stream waiting. True when there
    /// may be more.
    fn handle_link(&mut self) -> bool {
        while let Some(event) = self.outside.line.poll_event() {
            match event {
                link::Event::Message(bytes) => {
                    self.handle_message(&bytes);
                    return true;
                }
                // it takes everything from here on and keeps nothing: the process is not held up
                link::Event::Closed(why) => eprintln!("tether: the link is over: {why}"),
                link::Event::Refused(why) => eprintln!("tether: a host refuses the link: {why}"),
                // what can be read and written is looked at before each wait
                link::Event::Opened { .. } | link::Event::Readable(_) | link::Event::Writable(_) => {}
                link::Event::Reset(channel, _) => self.sessions.refuse(channel, &self.outside.io()),
            }
        }
        false
    }

    fn handle_message(&mut self, bytes: &[u8]) {
        match Message::decode(bytes) {
            Ok(Message::Request { id, request }) => {
                let reply = self.serve(request);
                self.reply(id, reply);
            }
            Ok(Message::UnknownRequest { id }) => self.reply(id, Reply::Unsupported),
            Ok(Message::Reply { .. } | Message::Event(_) | Message::UnknownEvent) => {}
            Err(error) => eprintln!("tether: a message of the host cannot be read: {error}"),
        }
    }

    fn reply(&mut self, id: u64, reply: Reply) {
        let mut bytes = Message::Reply { id, reply }.encode();
        if bytes.len() > MAX_ENCODED {
            let reason = format!("the answer has {} bytes, more than a message can hold", bytes.len());
            bytes = Message::Reply { id, reply: Reply::Refused { reason } }.encode();
        }
        self.outside.line.link.send_message(&bytes);
    }

    fn handle_signals(&mut self) {
        while let Some(signal) = self.signals.next() {
            match signal {
                Signal::SIGCHLD => {
                    let now = clock::now();
                    for (pid, ending) in reap::ended_children() {
                        self.sessions.reaped(pid, ending, &self.cgroup, now);
                    }
                }
                Signal::SIGTERM | Signal::SIGINT | Signal::SIGPWR => self.stop(),
                _ => {}
            }
        }
    }

    fn handle_time(&mut self) -> io::Result<()> {
        self.hardware.handle_time(clock::now());
        let Outside { line, poller, .. } = &mut self.outside;
        if line.handle_time(clock::now()) {
            poller.add(line.pipe(), LINK, CHANGES)?;
        }
        if let Goal::Serve { kill_at: Some(at) } = self.goal
            && at <= clock::now()
        {
            // an error means that it has ended already
            let _gone = self.sessions.main().signal(SIGKILL);
            self.goal = Goal::Serve { kill_at: None };
        }
        for (session, exit) in self.sessions.poll_ends(&mut self.outside.io()) {
            self.ended(Told::Ended { session, exit });
        }
        Ok(())
    }

    fn ended(&mut self, event: Told) {
        let is_main = matches!(event, Told::Ended { session: MAIN, .. });
        self.outside.line.tell(&Message::Event(event));
        if is_main {
            self.flush();
        }
    }

    // -- the main session's life

    /// Starts the main process. A failure has been told to the host when this returns.
    pub(crate) fn start(&mut self) -> Result<(), Failure> {
        let main = self.sessions.main_mut();
        let process = wire::spec::Process { terminal: main.terminal(), ..self.spec.main.clone() };
        let begun = launch::launch(&process, Place::Main, &self.cgroup).and_then(|launched| {
            let pid = launched.pid;
            main.begin(launched, &mut self.outside.io()).map(|()| pid).map_err(|error| launch::streams_failure(&error))
        });
        match begun {
            Ok(pid) => {
                let pid = u32::try_from(pid.as_raw()).unwrap_or_default();
                self.outside.line.tell(&Message::Event(Told::Started { session: MAIN, pid }));
                Ok(())
            }
            Err(failure) => {
                self.give_up(failure.clone());
                Err(failure)
            }
        }
    }

    /// Asks the main process to end; it is killed when it does not. One that was never started has no end to tell: the machine powers off at once, and that the
    /// link ends after a `PowerOff` was answered, with neither `Ended` nor `Failed`, says that nothing has run.
    pub(crate) fn stop(&mut self) {
        let Goal::Serve { kill_at: None } = self.goal else { return };
        if self.sessions.main().is_waiting() {
            return self.flush();
        }
        self.sessions.main_mut().must_end();
        // an error means that it has ended already
        let _gone = self.sessions.main().signal(self.spec.main.stop_signal);
        self.goal = Goal::Serve { kill_at: Some(clock::now() + GRACE) };
    }

    fn give_up(&mut self, failure: Failure) {
        eprintln!("tether: {failure}");
        if let Some(evidence) = machine::evidence(&failure) {
            self.outside.line.tell(&evidence);
        }
        self.outside.line.tell(&Message::Event(Told::Failed(failure)));
        self.flush();
    }

    /// Nothing runs any more that matters.
    fn flush(&mut self) {
        self.sessions.abandon(&mut self.outside.io());
        self.goal = Goal::Flush { until: clock::now() + FLUSH };
    }
}
