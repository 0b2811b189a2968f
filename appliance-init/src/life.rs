//! The loop of a running appliance: one thread, one closed set of events, and nothing in it blocks but the wait at its top.
//!
//! ```text
//!   Serve  -- power button, Ctrl-Alt-Del, a signal, vCenter -->  Stop  -- the services have ended -->  the end of the machine
//! ```
//!
//! An appliance whose boot has failed has no services, and waits for the same events.

use std::path::PathBuf;
use std::time::Duration;

use guest::clock::{self, HardwareClock};
use guest::events::{Interest, Poller, Signals};
use guest::guestinfo::Store;
use guest::net::networks::Networks;
use guest::power::Ending;
use guest::power_button::PowerButton;
use guest::toolbox::tools::Tools;
use guest::{journal, say};
use nix::sys::signal::Signal;
use wire::status::{Failure, MachineState, Status};

use crate::boot::{BootError, Machine, Prepared, reason};
use crate::services::Services;
use crate::toolbox;

const SIGNALS: u64 = 0;
const BUTTON: u64 = 1;
const NETWORKS: u64 = 2;
const SERVICES: u64 = 3;
const CONSOLE: u64 = 4;

/// Everything that can happen.
enum Event {
    /// Signals to PID 1 are pending.
    Signals,
    /// Something happened on the power button.
    Button,
    /// DHCP answers.
    Networks,
    /// A service has said or written something.
    Services,
    /// There is room on the console.
    Console,
}

/// What remains to be done.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Goal {
    Serve,
    /// See the services end.
    Stop,
}

/// Where the host finds the appliance's status: with a `.` where others have a `/`, so that the guest may write it (vSphere's rule).
const STATUS: &str = "guestinfo.vice..init.status";
/// How often the time of day is compared with the machine's own clock, which goes on while the machine is paused.
const CLOCK_LOOK: Duration = Duration::from_secs(60);

pub(crate) struct Appliance {
    pub(crate) networks: Networks,
    /// None: the boot has failed.
    services: Option<Services>,
    /// Where state is kept.
    pub(crate) state: Option<PathBuf>,
    failure: Option<Failure>,
    goal: Goal,
    ending: Ending,
    store: Option<Box<dyn Store>>,
    /// The number of the status that was told last, and what it was made of.
    told: (u64, Option<(Goal, u64)>),
    /// None on a machine that is not VMware's.
    tools: Option<Tools>,
    clock: Option<HardwareClock>,
    clock_at: Duration,
    signals: Signals,
    button: Option<PowerButton>,
    poller: Poller,
}

impl Appliance {
    /// Starts the services, or says why it cannot.
    pub(crate) fn new(machine: Machine) -> Result<Appliance, BootError> {
        let Machine { signals, button, clock, store, networks, outcome } = machine;
        let poller = Poller::new()?;
        poller.add(&signals, SIGNALS, Interest::READ)?;
        poller.add(&networks, NETWORKS, Interest::READ)?;
        if let Some(button) = &button {
            poller.add(button, BUTTON, Interest::READ)?;
        }
        journal::watch(&poller, CONSOLE)?;
        let (mut services, state, failure) = match outcome {
            Ok(Prepared { services, state }) => (Some(services), Some(state), None),
            Err(failure) => {
                say!(Error, "nothing is served, until this is put right and the appliance starts again: {failure}");
                (None, None, Some(failure))
            }
        };
        if let Some(services) = &mut services {
            poller.add(&*services, SERVICES, Interest::READ)?;
            services.start(clock::now());
            say!(Info, "up, version {}", env!("CARGO_PKG_VERSION"));
        }
        Ok(Appliance {
            networks,
            services,
            state,
            failure,
            goal: Goal::Serve,
            ending: Ending::default(),
            store,
            told: (0, None),
            tools: toolbox::tools(),
            clock_at: clock::now() + CLOCK_LOOK,
            clock,
            signals,
            button,
            poller,
        })
    }

    /// Serves until it is asked to stop, and has.
    pub(crate) fn run(mut self) -> Result<Ending, BootError> {
        loop {
            self.tell();
            if self.goal == Goal::Stop && self.services.as_ref().is_none_or(Services::is_stopped) {
                self.networks.release();
                return Ok(self.ending);
            }
            let now = clock::now();
            let timeout = self.deadline().map(|deadline| deadline.saturating_sub(now));
            for happened in self.poller.wait(timeout)? {
                self.handle(match happened.token {
                    SIGNALS => Event::Signals,
                    BUTTON => Event::Button,
                    NETWORKS => Event::Networks,
                    SERVICES => Event::Services,
                    _ => Event::Console,
                });
            }
            self.handle_time(clock::now());
        }
    }

    fn deadline(&self) -> Option<Duration> {
        let clock = self.clock.as_ref().map(|_| self.clock_at);
        let services = self.services.as_ref().and_then(Services::deadline);
        [clock, services, self.networks.deadline(), self.tools.as_ref().map(Tools::deadline)]
            .into_iter()
            .flatten()
            .min()
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Signals => self.handle_signals(),
            Event::Button if self.button.as_ref().is_some_and(PowerButton::was_pressed) => {
                say!(Info, "the power button was pressed");
                self.stop(Ending::PowerOff);
            }
            Event::Networks => self.networks.handle(),
            Event::Services => {
                if let Some(services) = &mut self.services {
                    services.handle(clock::now());
                }
            }
            Event::Console => journal::transmit(),
            Event::Button => {}
        }
    }

    fn handle_signals(&mut self) {
        while let Some(signal) = self.signals.next() {
            match signal {
                Signal::SIGCHLD => {
                    for (pid, ending) in guest::reap::ended_children() {
                        // that of an orphan means nothing
                        if let Some(services) = &mut self.services {
                            services.handle_exit(pid, ending, clock::now());
                        }
                    }
                }
                Signal::SIGTERM | Signal::SIGPWR => self.stop(Ending::PowerOff),
                // what the kernel makes of Ctrl-Alt-Del
                Signal::SIGINT => self.stop(Ending::Reboot),
                _ => {}
            }
        }
    }

    fn handle_time(&mut self, now: Duration) {
        if self.networks.deadline().is_some_and(|deadline| deadline <= now) {
            self.networks.handle();
        }
        if let Some(services) = &mut self.services {
            services.handle_time(now);
        }
        if let Some(mut tools) = self.tools.take() {
            tools.handle_time(now, self);
            self.tools = Some(tools);
        }
        if now >= self.clock_at {
            self.set_clock();
        }
    }

    /// Asks the services to end, and the machine after them. Who asks again changes nothing.
    pub(crate) fn stop(&mut self, ending: Ending) {
        if self.goal == Goal::Stop {
            return;
        }
        say!(Info, "the appliance stops");
        (self.goal, self.ending) = (Goal::Stop, ending);
        if let Some(services) = &mut self.services {
            services.stop(clock::now());
        }
    }

    /// Sets the time of day by the machine's own clock.
    pub(crate) fn set_clock(&mut self) {
        self.clock_at = clock::now() + CLOCK_LOOK;
        match self.clock.as_ref().map(|clock| clock.read().and_then(clock::set_wall)) {
            Some(Ok(true)) => say!(Info, "the time of day was set by the machine's clock"),
            Some(Err(error)) => say!(Warn, "the time of day may be wrong: {error}"),
            Some(Ok(false)) | None => {}
        }
    }

    /// Tells how the appliance is, if that is news and the host has a place for it.
    fn tell(&mut self) {
        let Some(store) = self.store.as_mut().filter(|store| store.is_writable()) else { return };
        let made_of = Some((self.goal, self.networks.changes()));
        if self.told.1 == made_of {
            return;
        }
        self.told = (self.told.0 + 1, made_of);
        let state = match (self.goal, &self.failure) {
            (_, Some(_)) => MachineState::Failed,
            (Goal::Serve, None) => MachineState::Running,
            (Goal::Stop, None) => MachineState::Stopping,
        };
        let status = Status {
            generation: self.told.0,
            state,
            failure: self.failure.clone(),
            networks: self.networks.status(),
            ..Status::default()
        };
        if let Err(error) = store.set(STATUS, &status.to_json()) {
            say!(Warn, "{}", reason(&error));
        }
    }
}
