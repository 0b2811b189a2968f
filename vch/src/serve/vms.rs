//! The VMs that serve knows: a hub for each, found by its id or the beginning of it.
//!
//! It decides when a hub begins and when it is forgotten, and which sessions nobody will ask for again.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use wire::handshake::MasterKey;
use wire::link::Tuning;
use wire::message::{MAIN, Reply, Request, SessionId};

use super::door::Guest;
use super::say;
use crate::containers::{Containers, Life};
use crate::control::{Problem, ProblemKind, Vm, VmState};
use crate::hub::{GuestStatus, Hub, HubError, Identity, MainState, PipeState};
use crate::lock::locked;
use crate::pipe::VmwareNames;

pub(super) struct Vms {
    key: MasterKey,
    containers: Arc<Containers>,
    /// Those that have proved themselves.
    known: Mutex<BTreeMap<String, Arc<Known>>>,
    /// Those that have yet to, by id and sealing: a stranger who claims an id takes nothing from the one whose it is.
    strangers: Mutex<BTreeMap<(String, bool), Arc<Known>>>,
    /// Grows when a VM has proved itself.
    proved: watch::Sender<u64>,
    began: Instant,
}

/// A VM, and who uses its sessions.
pub(super) struct Known {
    pub(super) vm: String,
    pub(super) hub: Hub,
    used: Mutex<BTreeMap<SessionId, Arc<AtomicUsize>>>,
}

/// A client uses a session; dropped, it does not any more.
pub(super) struct Use(Arc<AtomicUsize>);

/// What a guest may take to prove itself after its hello: the handshake crosses even a slow line in less.
const PROOF_TIME: Duration = Duration::from_secs(10);
/// VMs that have not proved themselves, at any time.
const STRANGERS: usize = 256;
/// How long it is known how a VM ended.
const KNOWN_AFTER: Duration = Duration::from_secs(600);
/// After a restart, guests come back within their reconnection time, which QEMU counts in seconds: a client does not hear before that a VM is unknown.
const RETURN_TIME: Duration = Duration::from_secs(3);
/// From the end of a session that nobody uses until it is forgotten: longer than a client waits for serve.
const UNUSED_TIME: Duration = Duration::from_secs(90);

impl Vms {
    pub(super) fn new(key: MasterKey, containers: Arc<Containers>) -> Vms {
        Vms {
            key,
            containers,
            known: Mutex::default(),
            strangers: Mutex::default(),
            proved: watch::Sender::new(0),
            began: Instant::now(),
        }
    }

    /// A connection that names its VM: its hub checks whether that is true.
    pub(super) async fn arrive(self: &Arc<Self>, guest: Guest, tuning: Tuning) {
        let Guest { vm, sealed, reader, writer, already_read } = guest;
        // what has ended does not come back; its successor may, under the same id
        let living = locked(&self.known).get(&vm).filter(|known| !known.is_gone()).cloned();
        let place = (vm, sealed);
        let stranger = locked(&self.strangers).get(&place).cloned();
        let known = match living.or(stranger) {
            Some(known) => known,
            None => {
                let vm = place.0.clone();
                if locked(&self.strangers).len() >= STRANGERS {
                    return say(&format!(
                        "{vm}: closed its connection: {STRANGERS} others have yet to prove who they are"
                    ));
                }
                let identity = match Identity::new(vm.clone(), self.key.link_key(&vm), sealed, tuning) {
                    Ok(identity) => identity,
                    Err(error) => return say(&format!("{vm}: closed its connection: {error:#}")),
                };
                let known = Arc::new(Known { vm, hub: Hub::start(identity), used: Mutex::default() });
                locked(&self.strangers).insert(place.clone(), known.clone());
                spawn_local(self.clone().attend(known.clone(), place));
                known
            }
        };
        known.hub.pipe(reader, writer, already_read).await;
    }

    /// Sees a hub through its life, and tells what happens.
    async fn attend(self: Arc<Self>, known: Arc<Known>, place: (String, bool)) {
        let mut status = known.hub.watch();
        let proved =
            timeout(PROOF_TIME, status.wait_for(|status| status.boot.is_some())).await.is_ok_and(|it| it.is_ok());
        locked(&self.strangers).remove(&place);
        if !proved {
            return say(&format!("{}: it did not prove that it has its key", known.vm));
        }
        locked(&self.known).insert(known.vm.clone(), known.clone());
        say(&format!("{}: its link is open", known.vm));
        let container = match self.containers.arrived(&known.vm, known.hub.clone()) {
            Ok(container) => Some(container),
            Err(error) => {
                say(&format!("{}: docker does not see it: {error:#}", known.vm));
                None
            }
        };
        if let Some(container) = &container {
            container.link_changed();
        }
        let mut removed = container.as_ref().map(|container| container.watch());
        self.proved.send_modify(|count| *count += 1);
        spawn_local(adopt(known.clone()));
        let mut pipe = PipeState::Open;
        loop {
            let now = status.borrow_and_update().clone();
            if let Some(why) = &now.closed {
                say(&format!("{}: {why}", known.vm));
                // its guest connects again, to a hub that begins anew
                return self.forget(&known);
            }
            if now.pipe != pipe {
                match now.pipe {
                    PipeState::Down => say(&format!("{}: its link is cut", known.vm)),
                    PipeState::Open => say(&format!("{}: its link is open again", known.vm)),
                    PipeState::Awaited | PipeState::Unproved => {}
                }
                if let Some(container) = &container {
                    container.link_changed();
                }
                pipe = now.pipe;
            }
            let known_for = match now.main.is_over() && now.pipe == PipeState::Down {
                true => KNOWN_AFTER,
                false => Duration::MAX,
            };
            let changed = tokio::select! {
                changed = timeout(known_for, status.changed()) => changed.is_ok_and(|changed| changed.is_ok()),
                () = is_removed(&mut removed) => {
                    // its guest may have something to say yet, and is told that it is heard
                    let _silent = timeout(PROOF_TIME, status.wait_for(|status| status.pipe == PipeState::Down)).await;
                    false
                }
            };
            if !changed {
                return self.forget(&known);
            }
        }
    }

    /// What vSphere calls a VM is told before the VM has proved itself: it is kept where it does.
    pub(super) async fn names(&self, vm: &str, names: VmwareNames) {
        let mut proved = self.proved.subscribe();
        let kept = async {
            loop {
                if let Some(container) = self.containers.of_vm(vm) {
                    return container.set_vmware_names(names);
                }
                if proved.changed().await.is_err() {
                    return;
                }
            }
        };
        let _stranger = timeout(PROOF_TIME, kept).await;
    }

    fn forget(&self, known: &Arc<Known>) {
        let mut all = locked(&self.known);
        if all.get(&known.vm).is_some_and(|now| Arc::ptr_eq(now, known)) {
            all.remove(&known.vm);
        }
    }

    pub(super) fn list(&self) -> Vec<Vm> {
        let known = locked(&self.known);
        known.values().map(|known| known.told()).collect()
    }

    /// The VM of this id, or the only one whose id begins so.
    pub(super) async fn find(&self, name: &str) -> Result<Arc<Known>, Problem> {
        let mut proved = self.proved.subscribe();
        loop {
            let found = self.look_up(name);
            let early = matches!(&found, Err(problem) if problem.kind == ProblemKind::UnknownVm);
            if !early {
                return found;
            }
            match timeout_at(self.began + RETURN_TIME, proved.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return found,
            }
        }
    }

    fn look_up(&self, name: &str) -> Result<Arc<Known>, Problem> {
        let known = locked(&self.known);
        if let Some(exact) = known.get(name) {
            return Ok(exact.clone());
        }
        let fits = |known: &&Arc<Known>| !name.is_empty() && known.vm.starts_with(name);
        let mut fitting = known.values().filter(fits);
        match (fitting.next(), fitting.next()) {
            (Some(only), None) => Ok(only.clone()),
            (None, _) => {
                let message = format!("there is no VM {name:?}: `vch ps` lists those whose links are here");
                Err(Problem::new(ProblemKind::UnknownVm, message))
            }
            (Some(_), Some(_)) => {
                let message = format!("{name:?} is the beginning of more than one VM's id: write more of it");
                Err(Problem::new(ProblemKind::Ambiguous, message))
            }
        }
    }
}

impl Known {
    pub(super) fn status(&self) -> GuestStatus {
        self.hub.watch().borrow().clone()
    }

    /// Nobody can be asked any more: the process has ended, and the machine with it.
    pub(super) fn is_gone(&self) -> bool {
        let status = self.status();
        status.main.is_over() && status.pipe == PipeState::Down
    }

    fn told(&self) -> Vm {
        let status = self.status();
        let state = match status.main {
            MainState::Booting => VmState::Booting,
            MainState::Waiting => VmState::Waiting,
            MainState::Running { pid } => VmState::Running { pid },
            MainState::Ended(exit) => VmState::Ended(exit),
            MainState::Failed(failure) => VmState::Failed(failure),
            MainState::Lost(reason) => VmState::Gone { reason },
            MainState::Closed(why) => VmState::Gone { reason: why.to_string() },
        };
        Vm {
            vm: self.vm.clone(),
            state,
            connected: status.pipe == PipeState::Open,
            version: status.ready.map(|ready| ready.version),
            machine: status.machine,
        }
    }

    /// A client begins to use a session.
    pub(super) fn use_session(&self, session: SessionId) -> Use {
        let count = locked(&self.used).entry(session).or_default().clone();
        count.fetch_add(1, Ordering::Relaxed);
        Use(count)
    }

    /// It is over, and nobody wants to know more.
    pub(super) async fn forget_session(&self, session: SessionId) {
        locked(&self.used).remove(&session);
        // a guest that is gone has forgotten it already
        let _gone: Result<(), HubError> = self.hub.forget(session).await;
    }

    /// Forgets a session when it has ended and nobody has used it for a while.
    pub(super) async fn tidy_up(self: Arc<Self>, session: SessionId) {
        while self.hub.wait(session).await.is_ok() {
            sleep(UNUSED_TIME).await;
            let used = locked(&self.used).get(&session).is_some_and(|count| count.load(Ordering::Relaxed) > 0);
            if !used {
                return self.forget_session(session).await;
            }
        }
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Returns when docker's users have removed the container.
async fn is_removed(container: &mut Option<watch::Receiver<Life>>) {
    if let Some(life) = container
        && life.wait_for(|life| life.removed).await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

/// Sessions of an earlier serve: their clients may come back, or not.
async fn adopt(known: Arc<Known>) {
    let Ok(Reply::Sessions(sessions)) = known.hub.request(Request::List).await else { return };
    for session in sessions.into_iter().map(|info| info.session).filter(|&session| session != MAIN) {
        spawn_local(known.clone().tidy_up(session));
    }
}
