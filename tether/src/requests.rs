//! What the host asks of a running guest, and the answers. Each is given at once, but for what [`crate::chores`] does; what takes longer is told by an event.

use std::io;

use guest::power::Ending;
use wire::guestinfo;
use wire::message::{Exec, Reply, Request, SessionId, Work};
use wire::vmx::Dictionary;

use crate::agent::{Agent, Goal};
use crate::boot::reason;
use crate::chores;
use crate::copies::{self, Copy};
use crate::launch::{self, Launched};
use crate::machine;
use crate::members::Leave;
use crate::pipes::Place;
use crate::session::Session;
use crate::sessions::close_channels;

impl Agent {
    /// The answer; `None` when it comes later.
    pub(crate) fn serve(&mut self, id: u64, request: Request) -> Option<Reply> {
        let begun = match request {
            Request::Trim => self.chores.begin(id, chores::trim),
            Request::Reload { keys } => {
                return self.reload(Some(id), &keys.0).map(|outcome| match outcome {
                    Ok(()) => Reply::Done,
                    Err(reason) => Reply::Refused { reason },
                });
            }
            request => return Some(self.answer(request).unwrap_or_else(|reason| Reply::Refused { reason })),
        };
        begun.err().map(|reason| Reply::Refused { reason })
    }

    /// The answer, or why there is none.
    fn answer(&mut self, request: Request) -> Result<Reply, String> {
        match request {
            Request::Resize { session, size } => self.sessions.find(session)?.resize(size)?,
            Request::Signal { session, signal } => self.send(session, signal)?,
            Request::PowerOff => self.stop(),
            Request::Stop { signal, grace_ms } => self.stop_as(Leave::asked(signal, grace_ms)?),
            Request::Restart { signal, grace_ms } => {
                let leave = Leave::asked(signal, grace_ms)?;
                self.ending = Ending::Reboot;
                self.stop_as(leave);
            }
            Request::Spec => return self.told_spec(),
            Request::Create { session, work } => return self.create(session, work),
            Request::Start => return self.start_held(),
            Request::Attach { session } => self.sessions.find(session)?.attach(true),
            Request::Detach { session } => self.sessions.find(session)?.attach(false),
            Request::List => return Ok(Reply::Sessions(self.sessions.list())),
            Request::Forget { session } => self.sessions.forget(session, &mut self.outside.line.link)?,
            Request::Top => return Ok(Reply::Processes(guest::processes::list())),
            Request::Stats => return Ok(Reply::Stats(Box::new(guest::stats::read(&self.cgroup)))),
            Request::Inspect { path } => return self.inspect(&path),
            Request::Status => return Ok(Reply::Text(self.status())),
            Request::SetClock { unix_ns } => return self.hardware.take_time(unix_ns),
            Request::KernelLog => return machine::kernel_log(),
            Request::Reboot => {
                self.ending = Ending::Reboot;
                self.stop();
            }
            // answered later, above
            Request::Trim | Request::Reload { .. } => return Ok(Reply::Unsupported),
        }
        Ok(Reply::Done)
    }

    /// The spec as it stands, for hosts that have the key already.
    fn told_spec(&self) -> Result<Reply, String> {
        let mut keys = match &self.reloaded {
            Some(text) => Dictionary::parse(text).map_err(|error| error.to_string())?,
            None => self.store.read().map_err(|error| reason(&error))?,
        };
        // a store that lists nothing was asked only for what the machine needs
        for key in guestinfo::ABOUT.into_iter().filter(|_| self.reloaded.is_none()) {
            if keys.get(key).is_none()
                && let Some(value) = self.store.get(key).map_err(|error| reason(&error))?
            {
                keys.set(key, value);
            }
        }
        guestinfo::without_key(&keys, &self.spec.link.key).map(Reply::Spec).map_err(|error| error.to_string())
    }

    /// Starts the main process, if nobody has yet.
    fn start_held(&mut self) -> Result<Reply, String> {
        match (self.goal, self.sessions.main().is_waiting()) {
            (Goal::Serve | Goal::Stop, true) => Ok(self.start().map_or_else(Reply::Failed, |()| Reply::Done)),
            // it runs, or has run
            (_, false) => Ok(Reply::Done),
            (Goal::Flush { .. }, true) => Err(self.not_running()),
        }
    }

    pub(crate) fn create(&mut self, id: SessionId, work: Work) -> Result<Reply, String> {
        self.sessions.admit(id)?;
        match work {
            Work::Exec(exec) => self.exec(id, exec),
            Work::CopyOut { path } => self.copy(id, &Copy::Out { path }),
            Work::CopyIn { dir, owners, replace } => self.copy(id, &Copy::In { dir, owners, replace }),
            Work::Changes => self.copy(id, &Copy::Changes),
        }
    }

    fn exec(&mut self, id: SessionId, exec: Exec) -> Result<Reply, String> {
        if self.sessions.main().is_resting() {
            // as docker says it
            return Err(format!("container {} is restarting, wait until the container is running", self.spec.id));
        }
        if !self.sessions.main().is_running() {
            return Err(self.not_running());
        }
        let process = launch::beside(&self.spec.main, exec)?;
        match launch::launch(&process, Place::Beside, &self.cgroup) {
            Ok(launched) => self.begin(Session::waiting(id, process.terminal, process.attach), launched),
            Err(failure) => Ok(Reply::Failed(failure)),
        }
    }

    /// The files are there as soon as the root is, whether or not the main process has been started.
    fn copy(&mut self, id: SessionId, copy: &Copy) -> Result<Reply, String> {
        if matches!(self.goal, Goal::Flush { .. }) {
            return Err(self.not_running());
        }
        match copies::start(copy, &self.cgroup) {
            Ok(launched) => self.begin(Session::waiting(id, None, true), launched),
            Err(failure) => Ok(Reply::Failed(failure)),
        }
    }

    /// Makes a session of a process that runs.
    fn begin(&mut self, mut session: Session, launched: Launched) -> Result<Reply, String> {
        let pid = u32::try_from(launched.pid.as_raw()).unwrap_or_default();
        self.sessions.open(session.id(), &mut self.outside.line.link);
        if let Err(error) = session.begin(launched, &mut self.outside.io()) {
            close_channels(session.id(), &mut self.outside.line.link);
            return Ok(Reply::Failed(launch::streams_failure(&error)));
        }
        self.sessions.add(session);
        Ok(Reply::Started { pid })
    }

    fn inspect(&self, path: &str) -> Result<Reply, String> {
        guest::inspect::path(path).map(Reply::Path).map_err(|error| match error.kind() {
            // as docker says it
            io::ErrorKind::NotFound => format!("Could not find the file {path} in container {}", self.spec.id),
            _ => format!("{path}: {error}"),
        })
    }

    /// As docker says it.
    fn not_running(&self) -> String {
        format!("container {} is not running", self.spec.id)
    }
}
