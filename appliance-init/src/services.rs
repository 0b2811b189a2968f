//! The appliance's services: starts them in order, hears what they say of themselves, writes down what they write, ends and restarts them.
//!
//! ```text
//! life    when one is started, ended and started again      plan    which services there are, and with which arguments
//! notify  what they say: sd_notify(3)                       output  what they write: /run/log/NAME.log
//! ```
//!
//! Each service waits until the one before it is ready for the first time; they stop in the other order. It waits for nothing itself: its owner waits on one
//! descriptor and for one point in time.

mod life;
mod notify;
mod output;
pub(crate) mod plan;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use guest::events::{Interest, Poller};
use guest::sys::process;
use guest::sys::spawn::{Program, Stdio, spawn};
use guest::{clock, say};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use wire::appliance::LogLimits;
use wire::status::Ending;

pub(crate) use self::life::Terms;
use self::life::{Life, Reason, Wish};
use self::notify::Ear;
use self::output::{LogFile, Pipe};

/// A program that is to run as long as the appliance does.
#[derive(Debug)]
pub(crate) struct Service {
    /// It names the service's log.
    pub(crate) name: String,
    pub(crate) program: Program,
    pub(crate) terms: Terms,
    /// The terminal that it runs on, and its output goes to; none: its output goes to its log, and it has no input.
    pub(crate) terminal: Option<PathBuf>,
}

/// All services, in the order in which they start.
#[derive(Debug)]
pub(crate) struct Services {
    running: Vec<Running>,
    poller: Poller,
    ear: Ear,
    stopping: bool,
}

#[derive(Debug)]
struct Running {
    service: Service,
    life: Life,
    log: LogFile,
    pipe: Option<Pipe>,
    /// What it says of itself, for a person.
    status: String,
}

/// Why services cannot be watched.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServicesError {
    #[error("cannot make {path}, which holds the services' logs")]
    Logs { path: PathBuf, source: io::Error },
    #[error("cannot open {path}, at which services tell how they are")]
    Notify { path: PathBuf, source: io::Error },
    #[error("cannot wait for services")]
    Wait(#[source] io::Error),
}

/// In the set of descriptors; services have their places in the list.
const EAR: u64 = u64::MAX;
/// More messages wait for the next event, so that no service keeps the others waiting.
const MESSAGES_AT_ONCE: usize = 64;
/// The most that is still read of what an ended process has written: a pipe holds 64 KiB, unless somebody has made it larger.
const LAST_READS: usize = 16;

impl Services {
    /// Nothing is started yet. `logs` is the directory of their logs, and `socket` the path that their environment has as `NOTIFY_SOCKET`.
    pub(crate) fn new(
        list: Vec<Service>,
        limits: LogLimits,
        logs: &Path,
        socket: &Path,
    ) -> Result<Services, ServicesError> {
        fs::create_dir_all(logs).map_err(|source| ServicesError::Logs { path: logs.into(), source })?;
        let ear = Ear::open(socket).map_err(|source| ServicesError::Notify { path: socket.into(), source })?;
        let poller = Poller::new().map_err(ServicesError::Wait)?;
        poller.add(&ear, EAR, Interest::READ).map_err(ServicesError::Wait)?;
        let running = list.into_iter().map(|service| Running {
            life: Life::new(service.terms),
            log: LogFile::new(logs, &service.name, limits),
            pipe: None,
            status: String::new(),
            service,
        });
        Ok(Services { running: running.collect(), poller, ear, stopping: false })
    }

    /// Starts the first one; the others follow as those before them are ready.
    pub(crate) fn start(&mut self, now: Duration) {
        self.start_next(now);
    }

    /// What is to be done when its descriptor is readable.
    pub(crate) fn handle(&mut self, now: Duration) {
        let events = self.poller.wait(Some(Duration::ZERO)).unwrap_or_default();
        for event in events {
            match event.token {
                EAR => self.hear(now),
                place => {
                    if let Some(running) = usize::try_from(place).ok().and_then(|at| self.running.get_mut(at)) {
                        running.read(&self.poller);
                    }
                }
            }
        }
    }

    /// Whether the process that has ended was a service's; an orphan's end means nothing.
    pub(crate) fn handle_exit(&mut self, pid: Pid, ending: Ending, now: Duration) -> bool {
        // what it said before it ended counts, and lies in the socket
        self.hear(now);
        let Some(running) = self.running.iter_mut().find(|running| running.life.pid() == Some(pid)) else {
            return false;
        };
        running.ended(pid, ending, now, &self.poller);
        if self.stopping {
            self.stop_next(now)
        } else {
            self.start_next(now)
        }
        true
    }

    /// What is due at `now`: see [`Services::deadline`].
    pub(crate) fn handle_time(&mut self, now: Duration) {
        for at in 0..self.running.len() {
            match self.running[at].life.time(now) {
                Some(Wish::Start) => self.launch(at, now),
                Some(Wish::Signal(pid, signal, reason)) => self.running[at].signal(pid, signal, reason),
                None => {}
            }
        }
        self.start_next(now);
    }

    /// When [`Services::handle_time`] has something to do.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.running.iter().filter_map(|running| running.life.deadline()).min()
    }

    /// Asks them to stop, the last one first.
    pub(crate) fn stop(&mut self, now: Duration) {
        if !self.stopping {
            self.stopping = true;
            self.stop_next(now);
        }
    }

    /// Nothing runs any more, and nothing will.
    pub(crate) fn is_stopped(&self) -> bool {
        self.running.iter().all(|running| running.life.is_ended())
    }

    fn hear(&mut self, now: Duration) {
        for _ in 0..MESSAGES_AT_ONCE {
            let Some(message) = self.ear.next() else { return };
            let Some(at) = self.running.iter().position(|running| running.life.pid() == Some(message.pid)) else {
                say!(Debug, "a message for the watch over services is from somebody else"; pid = message.pid);
                continue;
            };
            let running = &mut self.running[at];
            if let Some(status) = message.status {
                running.status = status;
                say!(Debug, "{} says: {}", running.service.name, running.status);
            }
            let mut ready = false;
            for notice in message.notices {
                ready |= running.life.told(notice, now);
            }
            if ready {
                say!(Info, "{} is ready", running.service.name; pid = message.pid);
                self.start_next(now);
            }
        }
    }

    /// Starts those whose turn it is.
    fn start_next(&mut self, now: Duration) {
        for at in 0..self.running.len() {
            if self.stopping || !self.running[..at].iter().all(|before| before.life.lets_others_start()) {
                return;
            }
            if self.running[at].life.is_waiting() {
                self.launch(at, now);
            }
        }
    }

    /// Asks the last one that is not ended yet, and those that do not run.
    fn stop_next(&mut self, now: Duration) {
        for running in self.running.iter_mut().rev() {
            if let Some(Wish::Signal(pid, signal, reason)) = running.life.stop(now) {
                running.signal(pid, signal, reason);
            }
            if !running.life.is_ended() {
                return;
            }
        }
    }

    fn launch(&mut self, at: usize, now: Duration) {
        let running = &mut self.running[at];
        let name = running.service.name.clone();
        match running.launch() {
            Ok(pid) => {
                running.life.started(pid, now);
                if let Some(pipe) = &running.pipe
                    && let Err(error) = self.poller.add(pipe, at as u64, Interest::READ)
                {
                    say!(Warn, "cannot hear what {} writes: {}", name, error);
                    running.pipe = None;
                }
                say!(Info, "{} has started", name; pid = pid);
            }
            Err(reason) => {
                running.life.failed(now);
                say!(Error, "cannot start {}: {}", name, reason);
            }
        }
    }
}

/// It is readable when [`Services::handle`] has something to do.
impl AsFd for Services {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.poller.as_fd()
    }
}

impl Running {
    fn launch(&mut self) -> Result<Pid, String> {
        let spawned = match &self.service.terminal {
            Some(path) => {
                let open = File::options().read(true).write(true).open(path);
                let terminal = open.map_err(|error| format!("cannot open {}: {error}", path.display()))?;
                spawn(&self.service.program, &Stdio::Terminal(terminal.as_fd()), &[])
            }
            None => {
                let (ours, theirs) = Pipe::new().map_err(|error| format!("no pipe for what it writes: {error}"))?;
                let null = File::open("/dev/null").map_err(|error| format!("cannot open /dev/null: {error}"))?;
                self.pipe = Some(ours);
                let (stdout, stderr) = (theirs.as_fd(), theirs.as_fd());
                spawn(&self.service.program, &Stdio::Streams { stdin: null.as_fd(), stdout, stderr }, &[])
            }
        };
        spawned.map_err(|failure| {
            self.pipe = None;
            format!("{:?}: {}", failure.step, failure.error)
        })
    }

    /// False: nobody can write any more.
    fn read(&mut self, poller: &Poller) -> bool {
        let Some(pipe) = &mut self.pipe else { return false };
        let (log, name) = (&mut self.log, &self.service.name);
        let is_open = pipe.read(|bytes| log.write(bytes, clock::wall_nanos(), |line| show(name, line)));
        if !is_open {
            // dropped while it is watched, it would be told for ever if somebody has a copy
            let _unwatched = poller.remove(&*pipe);
            self.pipe = None;
            log.finish(clock::wall_nanos(), |line| show(name, line));
        }
        is_open
    }

    fn ended(&mut self, pid: Pid, ending: Ending, now: Duration, poller: &Poller) {
        // what it started and left behind would hold its ports and files
        let _none_left = killpg(pid, Signal::SIGKILL);
        for _ in 0..LAST_READS {
            if !self.read(poller) {
                break;
            }
        }
        if let Some(pipe) = self.pipe.take() {
            let _unwatched = poller.remove(&pipe);
        }
        self.log.finish(clock::wall_nanos(), |line| show(&self.service.name, line));
        self.status.clear();
        let how = match ending {
            Ending::Exited { code } => format!("with code {code}"),
            Ending::Signaled { signal, .. } => format!("by signal {signal}"),
        };
        match self.life.exited(ending, now) {
            Some(pause) => {
                say!(Warn, "{} has ended {}: it is started again in {} s", self.service.name, how, pause.as_secs(); pid = pid);
            }
            None => say!(Info, "{} has ended {}", self.service.name, how; pid = pid),
        }
    }

    fn signal(&mut self, pid: Pid, signal: u8, reason: Reason) {
        let name = &self.service.name;
        match reason {
            Reason::Late => say!(Warn, "{} is not ready in time: it is ended", name; pid = pid, signal = signal),
            Reason::Silent => {
                say!(Warn, "{} does not say that it is alive: it is ended", name; pid = pid, signal = signal)
            }
            Reason::Stubborn => say!(Warn, "{} does not end: it is killed", name; pid = pid),
            Reason::Stop => say!(Debug, "{} is asked to stop", name; pid = pid, signal = signal),
        }
        // it may have ended meanwhile: then its end is on its way
        let _gone = process::kill(pid, signal);
    }
}

/// What a service writes is on the console, too, which outlives the machine: a hypervisor keeps it.
fn show(name: &str, line: &[u8]) {
    say!(Info, "{}: {}", name, String::from_utf8_lossy(line));
}
