//! The loop of a running containerVM: one thread, one closed set of events, and nothing in it blocks but the wait at its top.
//!
//! It owns the link and the sessions and hands each event to whom it concerns: what the host asks to [`crate::requests`], what becomes of processes to
//! [`crate::life`]. It ends when the spec's sessions have ended and the host has received everything, or has had its time; then the machine powers off, and whatever else runs in it is killed.

use std::io;
use std::time::Duration;

use guest::cgroup::Cgroup;
use guest::clock;
use guest::events::{Happened, Interest, Poller, Signals};
use guest::guestinfo::Store;
use guest::net::networks::Networks;
use guest::power::Ending;
use guest::power_button::PowerButton;
use guest::toolbox::tools::Tools;
use guest::{journal, say};
use nix::sys::signal::Signal;
use wire::codec::MAX_ENCODED;
use wire::link;
use wire::message::{Event as Told, FIRST_OTHER, Message, Reply, SessionId};
use wire::spec::Spec;
use wire::status::Failure;

use crate::boot::{BootError, Machine};
use crate::chores::Chores;
use crate::health;
use crate::machine::Hardware;
use crate::members::Member;
use crate::outside::Outside;
use crate::reload::Reloading;
use crate::sessions::Sessions;
use crate::status::Teller;
use crate::syslog::Syslog;
use crate::toolbox;
use crate::toolbox::operations::Operations;

/// How often a machine that is done looks whether its log has left.
const LOOK: Duration = Duration::from_millis(10);
/// The most bytes that are read from a process at once.
const READ: usize = 32 * 1024;

const LINK: u64 = 0;
const SIGNALS: u64 = 1;
const BUTTON: u64 = 2;
const LOG: u64 = 3;
const UEVENTS: u64 = 4;
const NETWORK: u64 = 5;
const SYSLOG: u64 = 6;
const OWNLOG: u64 = 7;
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
    /// There is room on the log's device, or on the console.
    Log,
    /// DHCP answers, or a card has come.
    Network,
    /// Devices have come or gone.
    Uevents,
    /// The container's processes have waited for a disk or for memory.
    Pressure,
    /// Something happened on the connection to the syslog server.
    Syslog(Happened),
    /// A session's stream can be read or written.
    Stream(u64),
    /// The health check of a session has written something.
    Check(SessionId),
}

/// What remains to be done.
#[derive(Clone, Copy)]
pub(crate) enum Goal {
    /// Run the spec's sessions.
    Serve,
    /// See them end.
    Stop,
    /// Let the host take what was sent, then power off.
    Flush { until: Duration },
}

pub(crate) struct Agent {
    pub(crate) spec: Spec,
    pub(crate) sessions: Sessions,
    /// The spec's own sessions, the main one first.
    pub(crate) members: Vec<Member>,
    pub(crate) outside: Outside,
    pub(crate) goal: Goal,
    pub(crate) chores: Chores,
    /// Another spec, on its way.
    pub(crate) reloading: Option<Reloading>,
    /// The text of the spec that a host has brought; none while the store's counts.
    pub(crate) reloaded: Option<String>,
    /// Every process of the container begins in it.
    pub(crate) cgroup: Cgroup,
    pub(crate) network: Networks,
    /// The number of the next session that is added to the spec.
    pub(crate) next_other: SessionId,
    /// Where the spec came from.
    pub(crate) store: Box<dyn Store>,
    pub(crate) teller: Teller,
    /// Why the machine, or a process that was to be started again, could not do what was asked.
    pub(crate) failure: Option<Failure>,
    pub(crate) ending: Ending,
    /// None on a machine that is not VMware's.
    tools: Option<Tools>,
    pub(crate) operations: Operations,
    pub(crate) hardware: Hardware,
    signals: Signals,
    button: Option<PowerButton>,
}

impl Agent {
    /// Starts the main process, unless it is held, or tells why it cannot.
    pub(crate) fn new(machine: Machine) -> Result<Agent, BootError> {
        let Machine { signals, spec, store, mut line, log, button, cgroup, network, hardware, root } = machine;
        let poller = Poller::new()?;
        poller.add(&signals, SIGNALS, Interest::READ)?;
        poller.add(line.pipe(), LINK, CHANGES)?;
        poller.add(&network, NETWORK, Interest::READ)?;
        if let Some(button) = &button {
            poller.add(button, BUTTON, Interest::READ)?;
        }
        if let Some(log) = &log {
            poller.add(log, LOG, Interest { writable: true, edge: true, ..Interest::default() })?;
        }
        journal::watch(&poller, OWNLOG)?;
        hardware.watch(&poller, UEVENTS, PRESSURE)?;
        let tools = toolbox::tools(&spec);
        let members = Member::all(&spec, &cgroup);
        let sessions = Sessions::new(&members, &mut line.link);
        let outside = Outside { line, poller, log, syslog: Syslog::new(&spec), buffer: vec![0; READ].into() };
        let mut agent = Agent {
            next_other: members.last().map_or(FIRST_OTHER, |last| FIRST_OTHER.max(SessionId(last.id.0 + 1))),
            spec,
            sessions,
            members,
            outside,
            goal: Goal::Serve,
            chores: Chores::default(),
            reloading: None,
            reloaded: None,
            cgroup,
            network,
            ending: Ending::default(),
            tools,
            operations: Operations::default(),
            hardware,
            store,
            teller: Teller { changed: true, ..Teller::default() },
            failure: None,
            signals,
            button,
        };
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
            self.tell_status();
            busy |= self.outside.transmit();
            if self.is_done() {
                self.network.release();
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
                    LOG | OWNLOG => Event::Log,
                    NETWORK => Event::Network,
                    UEVENTS => Event::Uevents,
                    SYSLOG => Event::Syslog(happened),
                    PRESSURE => Event::Pressure,
                    token => health::of_token(token).map_or(Event::Stream(token), Event::Check),
                });
            }
            self.handle_time()?;
            busy = self.handle_link();
        }
    }

    fn is_done(&self) -> bool {
        match self.goal {
            Goal::Serve | Goal::Stop => false,
            Goal::Flush { until } => self.outside.is_flushed() || clock::now() >= until,
        }
    }

    fn deadline(&self) -> Option<Duration> {
        let own = match self.goal {
            Goal::Serve | Goal::Stop => self.members.iter().filter_map(Member::deadline).min(),
            // only the log is waited for, and a serial line does not tell when it has sent what it took
            Goal::Flush { until } if self.outside.line.link.is_flushed() => Some(until.min(clock::now() + LOOK)),
            Goal::Flush { until } => Some(until),
        };
        let syslog = self.outside.syslog.as_ref().and_then(Syslog::deadline);
        let devices = self.hardware.deadline();
        let vcenter = [self.tools.as_ref().map(Tools::deadline), self.operations.deadline()];
        [own, self.sessions.deadline(), self.outside.line.deadline(), devices, self.network.deadline(), syslog]
            .into_iter()
            .chain(vcenter)
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
            Event::Network => self.handle_network(),
            // what it takes is sent before each wait
            Event::Uevents => self.hardware.handle_changes(&self.spec, &self.cgroup),
            // pressure has stirred
            Event::Button | Event::Log | Event::Pressure => {}
            Event::Syslog(happened) => {
                if let Some(syslog) = &mut self.outside.syslog {
                    syslog.handle(happened, clock::now());
                }
            }
            Event::Stream(token) => self.sessions.handle(token, &mut self.outside.io()),
            Event::Check(id) => {
                let member = self.members.iter_mut().find(|member| member.id == id);
                if let Some(checker) = member.and_then(|member| member.health.as_mut()) {
                    checker.read(&self.outside.poller);
                }
            }
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
                link::Event::Closed(why) => say!(Error, "the link is over: {why}"),
                link::Event::Refused(why) => say!(Warn, "a host refuses the link: {why}"),
                // what can be read and written is looked at before each wait
                link::Event::Opened { .. } => say!(Debug, "a host is there"),
                link::Event::Readable(_) | link::Event::Writable(_) => {}
                link::Event::Reset(channel, _) => self.sessions.refuse(channel, &self.outside.io()),
            }
        }
        false
    }

    fn handle_network(&mut self) {
        self.network.handle();
        self.teller.changed = true;
    }

    fn handle_message(&mut self, bytes: &[u8]) {
        match Message::decode_request(bytes) {
            Ok(Some(Message::Request { id, request })) => {
                say!(Trace, "the host asks"; request = request.name(), id = id);
                // of what takes time, the answer comes later
                if let Some(reply) = self.serve(id, request) {
                    self.reply(id, reply);
                }
            }
            Ok(Some(Message::UnknownRequest { id })) => self.reply(id, Reply::Unsupported),
            Ok(Some(Message::Reply { .. } | Message::Event(_) | Message::UnknownEvent) | None) => {}
            Err(error) => say!(Warn, "a message of the host cannot be read: {error}"),
        }
    }

    pub(crate) fn reply(&mut self, id: u64, reply: Reply) {
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
                Signal::SIGCHLD => self.handle_children(),
                Signal::SIGHUP => {
                    if let Some(Err(reason)) = self.reload(None, "") {
                        say!(Warn, "the spec is not taken over: {reason}");
                    }
                }
                Signal::SIGTERM | Signal::SIGINT | Signal::SIGPWR => self.stop(),
                _ => {}
            }
        }
    }

    fn handle_time(&mut self) -> io::Result<()> {
        self.hardware.handle_time(clock::now());
        let Outside { line, poller, syslog, .. } = &mut self.outside;
        if line.handle_time(clock::now()) {
            poller.add(line.pipe(), LINK, CHANGES)?;
        }
        if let Some(syslog) = syslog {
            syslog.handle_time(clock::now(), poller, SYSLOG);
        }
        if self.network.deadline().is_some_and(|deadline| deadline <= clock::now()) {
            self.handle_network();
        }
        if let Some(mut tools) = self.tools.take() {
            tools.handle_time(clock::now(), self);
            self.tools = Some(tools);
        }
        self.handle_doomed(clock::now());
        self.handle_members(clock::now());
        Ok(())
    }
}
