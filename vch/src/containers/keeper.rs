//! A container's life, as its machine tells it: from the moment at which its link has authenticated until its link is over for good.
//!
//! ```text
//!   Created -- its process runs --> Running -- it ends, fails, or its link stays away --> Exited -- its machine boots again --> Created
//! ```
//!
//! It decides what a guest's word, and its silence, mean for the container's state and which events docker's users hear of it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use wire::message::{Reply, Request};

use super::Containers;
use super::container::{Container, Life};
use super::health::{Checks, verdict};
use super::state::{Exited, Running, State};
use crate::hub::{GuestStatus, Hub, MainState, PipeState};
use crate::serve::say;
use crate::timestamp::now_ns;

/// Sees a machine through one boot.
pub(super) async fn keep(containers: Arc<Containers>, container: Arc<Container>, hub: Hub, is_new: bool) {
    container.journal.resume();
    let _listens = container.made().is_some().then(|| container.listens());
    let seen = async {
        learn(&containers, &container, &hub, is_new).await;
        let (main, boot) = {
            let status = hub.watch();
            let status = status.borrow();
            (status.main.clone(), status.boot)
        };
        // how an earlier boot ended is known; this one may have ended, too, before anybody saw it run
        let is_new_boot = boot.is_some_and(|boot| container.journal.offsets(boot).is_none());
        if is_new_boot && container.made().is_none() {
            tell(&containers, &container, booted(&container.state()));
        }
        tell(&containers, &container, next(&container.state_of_boot(), &main, now_ns()));
        // not before: whoever finds it is to know how the container is, and whether its process has a terminal
        container.set_hub(Some(hub.clone()));
        // what was written is read to its end
        tokio::join!(
            follow(&containers, &container, &hub),
            crate::recorder::record(hub.clone(), container.journal.clone(), container.name()),
        )
    };
    let patience = containers.lost_after;
    let watchdog = async {
        stays_away(hub.watch(), patience).await;
        // whoever waits for an answer, or for output, waits no longer; a machine that comes back all the same gets another hub
        hub.machine_ended(&lost_because(patience));
        std::future::pending::<()>().await;
    };
    let off = async {
        if container.made().is_none() {
            return std::future::pending().await;
        }
        container.machine_gone().await;
        // what it has told by then is told; nothing more comes
        hub.machine_ended(OFF);
        std::future::pending::<()>().await;
    };
    let mut life = container.watch();
    tokio::select! {
        _ = seen => {}
        () = watchdog => {}
        () = off => {}
        _ = life.wait_for(|life| life.removed) => {}
    }
    container.unset_hub(&hub);
}

/// Waits for the link of a container that an earlier serve has left; without one, its machine went while nobody looked.
pub(super) async fn expect(containers: Arc<Containers>, container: Arc<Container>) {
    // of those whose machines this host makes, whoever finds the machines tells
    if container.made().is_some() {
        return;
    }
    let mut life = container.watch();
    tokio::select! {
        () = sleep(containers.lost_after) => {}
        _ = life.wait_for(Life::is_over) => return,
    }
    if !container.has_hub() {
        let why = lost_because(containers.lost_after);
        tell(&containers, &container, next(&container.state(), &MainState::Lost(why), now_ns()));
    }
}

/// Tells what becomes of the process, until nothing more will.
async fn follow(containers: &Containers, container: &Arc<Container>, hub: &Hub) {
    let mut status = hub.watch();
    loop {
        let now = status.borrow_and_update().clone();
        if now.main == MainState::Waiting && container.take_start_when_held() {
            hub.post(Request::Start);
        }
        tell(containers, container, next(&container.state_of_boot(), &now.main, now_ns()));
        tell_health(containers, container, &now);
        if is_last(&now) || status.changed().await.is_err() {
            return;
        }
    }
}

/// Tells whether it is well, when that changes.
fn tell_health(containers: &Containers, container: &Container, status: &GuestStatus) {
    let Some(machine) = status.machine.as_ref().filter(|_| container.state().is_running()) else { return };
    let Some(health) = machine.main().and_then(|main| main.health.as_ref()) else { return };
    if let Some(news) = container.with_checks(|checks| checks.hear(health, now_ns())) {
        containers.events.container(container, format!("health_status: {}", verdict(news)), &[]);
    }
}

/// Returns when a link has been away for so long, at once.
async fn stays_away(mut status: watch::Receiver<GuestStatus>, patience: Duration) {
    let is_there = |status: &GuestStatus| status.pipe == PipeState::Open;
    // a hub that is gone tells nothing more
    while status.wait_for(|status| !is_there(status)).await.is_ok() {
        match timeout(patience, status.wait_for(is_there)).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

/// Asks the guest what it was asked to be.
async fn learn(containers: &Containers, container: &Arc<Container>, hub: &Hub, is_new: bool) {
    let first = container.told().is_none();
    match hub.request(Request::Spec).await {
        Ok(Reply::Spec(text)) => container.set_told(&text.0),
        Ok(_) => {
            say(&format!("{}: its guest does not tell its spec: docker inspect shows little of it", container.name()))
        }
        // it is gone already, and what follows tells why
        Err(_) => {}
    }
    // a name that a user gave it since stays
    if let Some(name) = container.told().filter(|_| first).and_then(|told| told.about.name.clone()) {
        container.set_name(&containers.free_name(container, &name));
    }
    if is_new {
        containers.events.container(container, "create", &[]);
    }
    container.save();
}

/// The guest says no more.
fn is_last(status: &GuestStatus) -> bool {
    status.closed.is_some()
        || matches!(status.main, MainState::Lost(_))
        || (status.main.is_over() && status.pipe == PipeState::Down)
}

/// What follows from the guest's word; none if nothing does.
fn next(state: &State, main: &MainState, now_ns: u64) -> Option<State> {
    let started = match state {
        State::Running(running) => running.started_ns,
        State::Created | State::Exited(_) | State::Restarting(_) => 0,
    };
    let exited = |code, oom, error: String| {
        Some(State::Exited(Exited { started_ns: started, finished_ns: now_ns, code, oom, error }))
    };
    match (state, main) {
        (State::Running(before), MainState::Running { pid }) if before.pid == *pid => None,
        (_, MainState::Running { pid }) => {
            Some(State::Running(Running { pid: *pid, started_ns: now_ns, paused: false }))
        }
        (State::Running(_) | State::Created, MainState::Ended(exit)) => {
            let ran_ns = exit.ended_us.saturating_sub(exit.started_us).saturating_mul(1000);
            // a process that began and ended unseen began so long ago
            let started_ns = if started == 0 { now_ns.saturating_sub(ran_ns) } else { started };
            let (code, oom) = (exit.ending.code(), exit.oom);
            Some(State::Exited(Exited { started_ns, finished_ns: now_ns, code, oom, error: String::new() }))
        }
        (State::Running(_) | State::Created, MainState::Failed(failure)) => {
            exited(failure.kind.code(), false, failure.to_string())
        }
        (State::Running(_) | State::Created, MainState::Lost(reason)) => exited(LOST, false, reason.clone()),
        (State::Running(_), MainState::Closed(why)) => exited(LOST, false, why.to_string()),
        // its machine has booted again
        (State::Exited(_), MainState::Waiting) => Some(State::Created),
        _ => None,
    }
}

/// What follows from a boot of which nothing is recorded yet.
fn booted(state: &State) -> Option<State> {
    match state {
        State::Exited(_) => Some(State::Created),
        State::Created | State::Running(_) | State::Restarting(_) => None,
    }
}

/// Why a machine counts as gone.
fn lost_because(patience: Duration) -> String {
    format!("its link has been away for {} s: its machine is gone, or cannot reach this host", patience.as_secs())
}

/// Takes a container to its next state, and tells. Of one whose machine this host makes, the end is told when the machine is off.
fn tell(containers: &Containers, container: &Arc<Container>, next: Option<State>) {
    match next {
        Some(State::Exited(exited)) if container.made().is_some() => container.end_told(exited),
        Some(state) => pass(containers, container, state),
        None => {}
    }
}

/// Takes a container to a state, and tells.
pub(super) fn pass(containers: &Containers, container: &Arc<Container>, state: State) {
    match &state {
        State::Created => {}
        State::Running(_) => {
            container.runs();
            container.with_checks(|checks| *checks = Checks::begun());
            containers.events.networks(container, "connect");
            containers.events.volumes(container, "mount");
            containers.events.container(container, "start", &[]);
        }
        // it was told how it ended
        State::Exited(_) if matches!(container.state(), State::Restarting(_)) => {}
        State::Exited(exited) | State::Restarting(exited) => {
            // it ran, and nobody saw it
            if exited.started_ns != 0 && !container.state().is_running() {
                container.runs();
                containers.events.networks(container, "connect");
                containers.events.volumes(container, "mount");
                containers.events.container(container, "start", &[]);
            }
            let seconds = exited.finished_ns.saturating_sub(exited.started_ns) / 1_000_000_000;
            let seconds = if exited.started_ns == 0 { 0 } else { seconds };
            let attributes = [("execDuration", seconds.to_string()), ("exitCode", exited.code.to_string())];
            if exited.oom {
                containers.events.container(container, "oom", &[]);
            }
            containers.events.networks(container, "disconnect");
            containers.events.volumes(container, "unmount");
            if container.take_stop_asked() {
                containers.events.container(container, "stop", &[]);
            }
            // one that could not be run has not died
            if exited.started_ns != 0 || container.made().is_none() {
                containers.events.container(container, "die", &attributes);
            }
        }
    }
    // who waits for it finds its events told
    container.set_state(state);
    container.save();
}

/// What a hub's users hear when the hypervisor says that a machine is off.
const OFF: &str = "its machine is off";
/// The exit code of a container of which nobody knows how it ended.
const LOST: u8 = 255;

#[cfg(test)]
mod tests;
