//! One container: what is known of it, and the handles to its machine and its output.
//!
//! It decides what can be asked of a container in which state. What becomes of it: [`super::keeper`].

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use wire::message::{Reply, Request};
use wire::status::Status;

use super::health::Checks;
use super::power::Desk;
use super::record::{Power, Record, RecordError, Told};
use super::state::{Exited, State};
use crate::hub::{GuestStatus, Hub, HubError, PipeState};
use crate::journal::Journal;
use crate::lock::locked;
use crate::maker::Made;
use crate::networks::Joined;
use crate::pipe::VmwareNames;
use crate::state::make_dir;
use crate::timestamp::now_ns;

/// A container.
#[derive(Debug)]
pub(crate) struct Container {
    /// 64 hexadecimal digits.
    pub(crate) id: String,
    /// What it writes.
    pub(crate) journal: Journal,
    dir: PathBuf,
    record: Mutex<Record>,
    told: Mutex<Option<Arc<Told>>>,
    hub: watch::Sender<Option<Hub>>,
    /// When its link was opened or cut last, in nanoseconds since 1970, as far as this program has seen it.
    link_changed_ns: Mutex<Option<u64>>,
    vmware: Mutex<Option<VmwareNames>>,
    life: watch::Sender<Life>,
    /// One write of the record at a time: the last has what is newest.
    saving: Mutex<()>,
    /// Its process is started when it is held after a restart that a user asked for.
    start_when_held: Mutex<bool>,
    /// Docker tells of an end that was asked for by two events.
    stop_asked: Mutex<bool>,
    /// Its machine, if this host makes it.
    pub(super) desk: Desk,
    /// The networks that this host has it on; none where others do that.
    joined: Mutex<Option<Arc<Vec<Joined>>>>,
    checks: Mutex<Checks>,
    /// Its record could not be written, and is tried again.
    unsaved: AtomicBool,
}

/// A container's state, and what has happened to it, for whoever waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Life {
    pub(crate) state: State,
    /// How often it has ended while this program runs.
    pub(crate) exits: u64,
    /// How it ended last, also when it runs again.
    pub(crate) last: Option<Exited>,
    /// It is forgotten.
    pub(crate) removed: bool,
}

impl Life {
    /// It runs, or may yet.
    pub(crate) fn is_over(&self) -> bool {
        self.removed || matches!(self.state, State::Exited(_))
    }
}

/// The machine cannot be asked.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AbsentError {
    #[error("container {0} is not running")]
    NotRunning(String),
    /// Its guest would not answer before it goes on.
    #[error("container {0} is paused: unpause it, and its guest answers")]
    Paused(String),
    /// It ran when it was last heard of.
    #[error("the link to container {0} is not there: its machine is starting, or cannot reach this host")]
    Unreachable(String),
}

impl Container {
    /// One that nobody has heard of before.
    pub(super) fn new(id: &str, vm: &str, dir: &Path, journal_limit: u64) -> Result<Container> {
        make_dir(dir)?;
        let record = Record {
            vm: vm.into(),
            name: vm.into(),
            created_ns: now_ns(),
            state: State::Created,
            spec: None,
            made: None,
            power: Power::default(),
        };
        record.write(dir)?;
        Container::with(id, dir, record, journal_limit)
    }

    /// One that is to have a machine of this host's; `told` is its spec, as its guest will tell it.
    pub(super) fn created(
        id: &str,
        name: &str,
        dir: &Path,
        (made, told): (Made, &str),
        journal_limit: u64,
    ) -> Result<Container> {
        make_dir(dir)?;
        let (vm, name, spec, made) = (id.into(), name.into(), Some(told.into()), Some(Arc::new(made)));
        let (created_ns, power) = (now_ns(), Power::default());
        let record = Record { vm, name, created_ns, state: State::Created, spec, made, power };
        // the record is last: without one, there is no container
        let journal = Journal::open(&dir.join(JOURNAL), journal_limit).map_err(anyhow::Error::from);
        let written = journal.and_then(|_| Ok(record.write(dir)?));
        if let Err(error) = written {
            // what was begun takes room that may be what is missing
            let _left = fs::remove_dir_all(dir);
            return Err(error);
        }
        Container::with(id, dir, record, journal_limit)
    }

    /// One that is remembered; none if the directory holds no record.
    pub(super) fn remembered(id: &str, dir: &Path, journal_limit: u64) -> Result<Option<Container>> {
        match Record::read(dir)? {
            Some(record) => Container::with(id, dir, record, journal_limit).map(Some),
            None => Ok(None),
        }
    }

    fn with(id: &str, dir: &Path, record: Record, journal_limit: u64) -> Result<Container> {
        let journal = Journal::open(&dir.join(JOURNAL), journal_limit)?;
        let last = match &record.state {
            State::Exited(exited) | State::Restarting(exited) => Some(exited.clone()),
            State::Created | State::Running(_) => None,
        };
        let life = Life { state: record.state.clone(), exits: 0, last, removed: false };
        if !life.state.is_running() {
            journal.finish();
        }
        Ok(Container {
            id: id.into(),
            journal,
            dir: dir.into(),
            told: Mutex::new(record.spec.as_deref().and_then(Told::parse).map(Arc::new)),
            record: Mutex::new(record),
            hub: watch::Sender::new(None),
            link_changed_ns: Mutex::default(),
            vmware: Mutex::default(),
            life: watch::Sender::new(life),
            saving: Mutex::default(),
            start_when_held: Mutex::default(),
            stop_asked: Mutex::default(),
            desk: Desk::default(),
            joined: Mutex::default(),
            checks: Mutex::default(),
            unsaved: AtomicBool::default(),
        })
    }

    // -- what is known

    pub(crate) fn name(&self) -> String {
        locked(&self.record).name.clone()
    }

    /// The VM's own id.
    pub(crate) fn vm(&self) -> String {
        locked(&self.record).vm.clone()
    }

    /// Nanoseconds since 1970.
    pub(crate) fn created_ns(&self) -> u64 {
        locked(&self.record).created_ns
    }

    /// Its spec, once its guest has told it.
    pub(crate) fn told(&self) -> Option<Arc<Told>> {
        locked(&self.told).clone()
    }

    /// The number of the signal by which it is asked to end.
    pub(crate) fn stop_signal(&self) -> u8 {
        self.told().map_or(wire::spec::SIGTERM, |told| told.spec.main.stop_signal)
    }

    /// The image's name as its user wrote it; empty where nobody told.
    pub(crate) fn image(&self) -> String {
        self.told().and_then(|told| told.about.image.clone()).unwrap_or_default()
    }

    pub(crate) fn labels(&self) -> BTreeMap<String, String> {
        self.told().map(|told| told.about.labels.clone()).unwrap_or_default()
    }

    /// Its process has a terminal.
    pub(crate) fn has_terminal(&self) -> bool {
        self.told().is_some_and(|told| told.spec.main.terminal.is_some())
    }

    /// Its process reads standard input.
    pub(crate) fn reads_stdin(&self) -> bool {
        self.told().is_some_and(|told| told.spec.main.stdin)
    }

    pub(crate) fn state(&self) -> State {
        self.life.borrow().state.clone()
    }

    /// Its life, now and from now on.
    pub(crate) fn watch(&self) -> watch::Receiver<Life> {
        self.life.subscribe()
    }

    /// How many wait for something of it.
    #[cfg(test)]
    pub(crate) fn watchers(&self) -> usize {
        self.life.receiver_count()
    }

    /// What its machine is made of, if this host makes it.
    pub(crate) fn made(&self) -> Option<Arc<Made>> {
        locked(&self.record).made.clone()
    }

    /// Where its files are.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    // -- its machine

    /// The link to its machine, as long as that can be asked.
    pub(crate) fn hub(&self) -> Result<Hub, AbsentError> {
        let hub = self.hub.borrow().clone();
        match (self.state(), hub) {
            (State::Exited(_), _) => Err(AbsentError::NotRunning(self.id.clone())),
            (state, _) if state.is_paused() => Err(AbsentError::Paused(self.id.clone())),
            (_, Some(hub)) => Ok(hub),
            (_, None) => Err(AbsentError::Unreachable(self.id.clone())),
        }
    }

    /// The link of a container whose process runs.
    pub(crate) fn running(&self) -> Result<Hub, AbsentError> {
        match self.state() {
            State::Running(_) => self.hub(),
            _ => Err(AbsentError::NotRunning(self.id.clone())),
        }
    }

    /// The link of a container whose process has not ended. After a restart of this host, guests come back within seconds: they are waited for.
    pub(crate) async fn reach(&self) -> Result<Hub, AbsentError> {
        let (mut life, mut hub) = (self.watch(), self.hub.subscribe());
        let here = async {
            tokio::select! {
                biased;
                _ = life.wait_for(Life::is_over) => {}
                _ = hub.wait_for(Option::is_some) => {}
            }
        };
        // what is there now is told in any case
        let _late = timeout(RETURN_TIME, here).await;
        self.hub()
    }

    /// Asks its guest. A guest that has ended, or stays away for so long that it counts as gone, is not waited for.
    pub(crate) async fn ask(&self, hub: &Hub, request: Request) -> Result<Reply, HubError> {
        let mut life = self.watch();
        tokio::select! {
            biased;
            reply = hub.request(request) => reply,
            _ = life.wait_for(Life::is_over) => Err(HubError::Lost(format!("container {} is not running", self.id))),
        }
    }

    /// What its guest told last about its machine; none when that is gone.
    pub(crate) fn machine(&self) -> Option<Status> {
        self.hub.borrow().as_ref().and_then(|hub| hub.watch().borrow().machine.clone())
    }

    /// Where its output is kept.
    pub(crate) fn log_path(&self) -> PathBuf {
        self.dir.join(JOURNAL)
    }

    /// The networks that this host has it on, the way to everywhere first; none where its machine is made elsewhere.
    pub(crate) fn joined(&self) -> Option<Arc<Vec<Joined>>> {
        locked(&self.joined).clone()
    }

    pub(crate) fn set_joined(&self, joined: Vec<Joined>) {
        *locked(&self.joined) = Some(Arc::new(joined));
    }

    /// What its health checks have found since it was started.
    pub(crate) fn checks(&self) -> Checks {
        locked(&self.checks).clone()
    }

    pub(super) fn with_checks<T>(&self, use_them: impl FnOnce(&mut Checks) -> T) -> T {
        use_them(&mut locked(&self.checks))
    }

    /// The link of a container that has ended `exits` times, as soon as there is one: its machine may yet have to be made. None if it ends before.
    pub(crate) async fn next_hub(&self, exits: u64) -> Option<Hub> {
        let mut hub = self.hub.subscribe();
        let mut life = self.watch();
        // that of an earlier boot stays until all that it told is written
        let lives = |hub: &Option<Hub>| hub.as_ref().is_some_and(|hub| !hub.watch().borrow().main.is_over());
        tokio::select! {
            hub = hub.wait_for(lives) => hub.ok().and_then(|hub| hub.clone()),
            _ = life.wait_for(|life| life.removed || life.exits > exits) => None,
        }
    }

    /// Its link is open at this moment.
    pub(crate) fn is_connected(&self) -> bool {
        self.hub.borrow().as_ref().is_some_and(|hub| hub.watch().borrow().pipe == PipeState::Open)
    }

    /// What is known of its guest and its link; none when its machine is gone.
    pub(crate) fn guest(&self) -> Option<GuestStatus> {
        self.hub.borrow().as_ref().map(|hub| hub.watch().borrow().clone())
    }

    /// When its link was opened or cut last: nanoseconds since 1970. None: not while this program runs.
    pub(crate) fn link_changed_ns(&self) -> Option<u64> {
        *locked(&self.link_changed_ns)
    }

    /// Its link was opened or cut just now.
    pub(crate) fn link_changed(&self) {
        *locked(&self.link_changed_ns) = Some(now_ns());
    }

    /// What vSphere calls its VM, as the host of its serial port says.
    pub(crate) fn vmware_names(&self) -> Option<VmwareNames> {
        locked(&self.vmware).clone()
    }

    pub(crate) fn set_vmware_names(&self, names: VmwareNames) {
        *locked(&self.vmware) = Some(names);
    }

    /// When its machine comes back after a restart, its process is to run, or is not any more.
    pub(crate) fn start_when_held(&self, is_to_run: bool) {
        *locked(&self.start_when_held) = is_to_run;
    }

    /// Its end will have been asked for by docker stop.
    pub(crate) fn stop_asked(&self) {
        *locked(&self.stop_asked) = true;
    }

    pub(super) fn take_stop_asked(&self) -> bool {
        std::mem::take(&mut *locked(&self.stop_asked))
    }

    pub(super) fn take_start_when_held(&self) -> bool {
        std::mem::take(&mut *locked(&self.start_when_held))
    }

    pub(super) fn set_hub(&self, hub: Option<Hub>) {
        self.hub.send_replace(hub);
    }

    /// This boot of its machine is over. The next one may have a hub already.
    pub(super) fn unset_hub(&self, hub: &Hub) {
        self.hub.send_if_modified(|now| now.take_if(|now| now.is_same(hub)).is_some());
    }

    pub(super) fn has_hub(&self) -> bool {
        self.hub.borrow().is_some()
    }

    // -- what becomes of it

    pub(super) fn set_name(&self, name: &str) {
        locked(&self.record).name = name.into();
    }

    /// Its guest has told what it was asked to be.
    pub(crate) fn set_told(&self, text: &str) {
        let told = Told::parse(text);
        let mut record = locked(&self.record);
        if let Some(created) = told.as_ref().and_then(|told| u64::try_from(told.about.created_ns?).ok()) {
            record.created_ns = created;
        }
        record.spec = Some(text.into());
        *locked(&self.told) = told.map(Arc::new);
    }

    /// It is in another state from now on.
    pub(crate) fn set_state(&self, state: State) {
        self.remember(state.clone());
        self.life.send_modify(|life| {
            match (&life.state, &state) {
                // it is not started again after all: that end was counted
                (State::Restarting(_), State::Exited(_)) => {}
                (_, State::Exited(exited) | State::Restarting(exited)) => {
                    life.exits += 1;
                    life.last = Some(exited.clone());
                }
                _ => {}
            }
            life.state = state;
        });
    }

    /// Who starts this program again finds it in this state.
    pub(super) fn remember(&self, state: State) {
        locked(&self.record).state = state;
    }

    pub(super) fn with_record<T>(&self, use_it: impl FnOnce(&mut Record) -> T) -> T {
        use_it(&mut locked(&self.record))
    }

    /// Has the record written, on another thread: disks are slow. Whoever waits for the result knows that it lasts.
    pub(crate) fn save(self: &Arc<Self>) -> JoinHandle<()> {
        let container = self.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = container.write()
                && !container.unsaved.swap(true, Ordering::Relaxed)
            {
                crate::serve::say(&format!("{}: {error}: it is tried again until it is written", container.name()));
                tokio::spawn(container.save_later());
            }
        })
    }

    fn write(&self) -> Result<(), RecordError> {
        let _turn = locked(&self.saving);
        let record = locked(&self.record).clone();
        // one that is gone has no place for it
        if self.is_discarded() { Ok(()) } else { record.write(&self.dir) }
    }

    /// There may be room for its record some time.
    async fn save_later(self: Arc<Self>) {
        loop {
            sleep(SAVE_AGAIN).await;
            // whose write fails from now on sees to the next attempt
            self.unsaved.store(false, Ordering::Relaxed);
            let container = self.clone();
            let written = tokio::task::spawn_blocking(move || container.write()).await;
            if !matches!(written, Ok(Err(_))) || self.unsaved.swap(true, Ordering::Relaxed) {
                break;
            }
        }
    }

    /// It is forgotten, or is being so: its directory is gone.
    fn is_discarded(&self) -> bool {
        self.life.borrow().removed || !self.dir.is_dir()
    }

    /// Removes all that is kept of it.
    pub(super) async fn discard(self: &Arc<Self>) -> Result<()> {
        let container = self.clone();
        let removed = tokio::task::spawn_blocking(move || {
            let _turn = locked(&container.saving);
            // without its record it is no container, whatever else is there when the power goes
            Record::remove(&container.dir)?;
            // whoever reads or writes it comes to an end first
            container.journal.clone().remove()?;
            fs::remove_dir_all(&container.dir)
        });
        removed.await?.with_context(|| format!("cannot remove {}", self.dir.display()))
    }

    pub(super) fn removed(&self) {
        self.set_hub(None);
        self.journal.finish();
        self.life.send_modify(|life| life.removed = true);
    }
}

/// Between two attempts to write a record that could not be written.
const SAVE_AGAIN: Duration = Duration::from_secs(5);
/// In its directory.
const JOURNAL: &str = "journal";
/// After a restart of this host: more than the seconds in which QEMU and ESXi connect again.
const RETURN_TIME: Duration = Duration::from_secs(10);
