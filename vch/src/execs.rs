//! The execs of this host: what docker calls a program beside a container's own, from its creation until its container is forgotten.
//!
//! ```text
//!   Created -- begin --> Starting -- the guest runs it --> Running -- it ends --> Ended
//!                            └────────── it cannot be run ───────────────────────> Ended
//! ```
//!
//! It decides how often one can be started (once) and how long it is known. It runs nothing: [`crate::api`] does. A serve that begins anew knows none, as a docker
//! daemon does not.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use wire::message::SessionId;

use crate::containers::Container;
use crate::detach::Keys;
use crate::lock::locked;
use crate::state;

/// All execs that are known.
#[derive(Debug, Default)]
pub(crate) struct Execs(Mutex<BTreeMap<String, Arc<Exec>>>);

/// A program that is to run, runs or ran beside a container's own.
#[derive(Debug)]
pub(crate) struct Exec {
    /// 64 hexadecimal digits.
    pub(crate) id: String,
    pub(crate) container: Arc<Container>,
    pub(crate) asked: Asked,
    life: watch::Sender<Life>,
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) program: wire::message::Exec,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
    /// The keys that leave it, if it has a terminal and they were named.
    pub(crate) keys: Option<Keys>,
    pub(crate) privileged: bool,
}

/// How far an exec is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    Created,
    /// The guest was asked.
    Starting,
    Running {
        session: SessionId,
        pid: u32,
    },
    Ended {
        code: u8,
        /// 0: it never ran.
        pid: u32,
        at: Instant,
    },
}

/// Why an exec cannot be had or started.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ExecError {
    #[error("No such exec instance: {0}")]
    Unknown(String),
    #[error("exec {0} is already running: each is started once")]
    Running(String),
    #[error("exec {0} has already run: each is started once")]
    Ended(String),
    #[error("exec {0} does not run")]
    NotRunning(String),
}

impl Execs {
    /// A new one.
    pub(crate) fn create(&self, container: Arc<Container>, asked: Asked) -> anyhow::Result<Arc<Exec>> {
        let id = state::new_id()?;
        let exec = Arc::new(Exec { id: id.clone(), container, asked, life: watch::Sender::new(Life::Created) });
        let mut all = locked(&self.0);
        all.retain(|_, exec| !exec.is_forgotten());
        all.insert(id, exec.clone());
        Ok(exec)
    }

    /// The exec of this id.
    pub(crate) fn find(&self, id: &str) -> Result<Arc<Exec>, ExecError> {
        let exec = locked(&self.0).get(id).filter(|exec| !exec.is_forgotten()).cloned();
        exec.ok_or_else(|| ExecError::Unknown(id.into()))
    }

    /// The ids of a container's execs that have not ended.
    pub(crate) fn of(&self, container: &Container) -> Vec<String> {
        let all = locked(&self.0);
        let lives = |exec: &&Arc<Exec>| exec.container.id == container.id && !matches!(exec.life(), Life::Ended { .. });
        all.values().filter(lives).map(|exec| exec.id.clone()).collect()
    }
}

impl Exec {
    pub(crate) fn life(&self) -> Life {
        *self.life.borrow()
    }

    fn is_forgotten(&self) -> bool {
        let ended = matches!(self.life(), Life::Ended { at, .. } if at.elapsed() > KNOWN_AFTER);
        ended || self.container.watch().borrow().removed
    }

    /// It is started, by whoever comes first.
    pub(crate) fn begin(&self) -> Result<(), ExecError> {
        let mut result = Ok(());
        self.life.send_if_modified(|life| {
            result = match life {
                Life::Created => Ok(()),
                Life::Starting | Life::Running { .. } => Err(ExecError::Running(self.id.clone())),
                Life::Ended { .. } => Err(ExecError::Ended(self.id.clone())),
            };
            if result.is_ok() {
                *life = Life::Starting;
            }
            result.is_ok()
        });
        result
    }

    /// The guest runs it.
    pub(crate) fn running(&self, session: SessionId, pid: u32) {
        self.life.send_replace(Life::Running { session, pid });
    }

    /// It has ended, or could not be run, with docker's exit code.
    pub(crate) fn ended(&self, code: u8) {
        self.life.send_modify(|life| {
            let pid = if let Life::Running { pid, .. } = *life { pid } else { 0 };
            *life = Life::Ended { code, pid, at: Instant::now() };
        });
    }

    /// The session of one that runs; one that is being started is waited for.
    pub(crate) async fn session(&self) -> Result<SessionId, ExecError> {
        let mut life = self.life.subscribe();
        let begun = timeout(START_TIME, life.wait_for(|life| !matches!(life, Life::Created | Life::Starting))).await;
        match begun.map(|life| life.map(|life| *life)) {
            Ok(Ok(Life::Running { session, .. })) => Ok(session),
            _ => Err(ExecError::NotRunning(self.id.clone())),
        }
    }
}

/// How long it is known how one has ended, as in moby.
const KNOWN_AFTER: Duration = Duration::from_secs(300);
/// A terminal's size may be told while its program is being started.
const START_TIME: Duration = Duration::from_secs(10);
