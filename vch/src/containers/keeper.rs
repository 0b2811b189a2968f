//! A container's life, as its machine tells it: from the moment at which its link has authenticated until its link is over for good.
//!
//! ```text
//!   Created -- its process runs --> Running -- it ends, fails, or its link stays away --> Exited -- its machine boots again --> Created
//! ```
//!
//! It decides what a guest's word, and its silence, mean for the container's state and which events docker's users hear of it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use wire::message::{Reply, Request};

use super::Containers;
use super::container::Container;
use super::state::{Exited, Running, State};
use crate::hub::{GuestStatus, Hub, MainState, PipeState};
use crate::serve::say;
use crate::timestamp::now_ns;

/// Sees a machine through one boot.
pub(super) async fn keep(containers: Arc<Containers>, container: Arc<Container>, hub: Hub) {
    container.set_hub(Some(hub.clone()));
    container.journal.resume();
    learn(&containers, &container, &hub).await;
    let recorder = tokio::spawn(crate::recorder::record(hub.clone(), container.journal.clone(), container.name()));
    let mut status = hub.watch();
    let mut life = container.watch();
    let mut cut_at = None;
    loop {
        let now = status.borrow_and_update().clone();
        cut_at = match now.pipe {
            PipeState::Open => None,
            PipeState::Awaited | PipeState::Down | PipeState::Unproved => cut_at.or_else(|| Some(Instant::now())),
        };
        if now.main == MainState::Waiting && container.take_start_when_held() {
            hub.post(Request::Start);
        }
        tell(&containers, &container, next(&container.state(), &now.main, now_ns()));
        if is_last(&now) {
            break;
        }
        let given_up = async {
            match cut_at {
                Some(cut) if !now.main.is_over() => sleep_until(cut + GIVEN_UP_AFTER).await,
                _ => std::future::pending().await,
            }
        };
        let removed = async { life.wait_for(|life| life.removed).await.is_ok() };
        tokio::select! {
            changed = status.changed() => if changed.is_err() { break },
            () = given_up => {
                tell(&containers, &container, lost(&container.state(), now_ns()));
                // whoever comes back is still the one
                if status.changed().await.is_err() { break }
                cut_at = None;
            }
            _ = removed => break,
        }
    }
    // what was written is read to its end
    let _ended = recorder.await;
}

/// Asks the guest what it was asked to be.
async fn learn(containers: &Containers, container: &Arc<Container>, hub: &Hub) {
    let first = container.told().is_none();
    match hub.request(Request::Spec).await {
        Ok(Reply::Spec(text)) => container.set_told(&text.0),
        Ok(_) => {
            say(&format!("{}: its guest does not tell its spec: docker inspect shows little of it", container.name()))
        }
        // it is gone already
        Err(_) => return,
    }
    if first {
        // a name that a user gave it since stays
        if let Some(name) = container.told().and_then(|told| told.about.name.clone()) {
            container.set_name(&containers.free_name(container, &name));
        }
        containers.events.container(container, "create", &[]);
    }
    container.save();
}

/// The guest says no more.
fn is_last(status: &GuestStatus) -> bool {
    let closed = matches!(status.main, MainState::Closed(_) | MainState::Lost(_));
    closed || (status.main.is_over() && status.pipe == PipeState::Down)
}

/// What follows from the guest's word; none if nothing does.
fn next(state: &State, main: &MainState, now_ns: u64) -> Option<State> {
    let started = match state {
        State::Running(running) => running.started_ns,
        State::Created | State::Exited(_) => 0,
    };
    let exited = |code, oom, error: String| {
        Some(State::Exited(Exited { started_ns: started, finished_ns: now_ns, code, oom, error }))
    };
    match (state, main) {
        (State::Running(before), MainState::Running { pid }) if before.pid == *pid => None,
        (_, MainState::Running { pid }) => Some(State::Running(Running { pid: *pid, started_ns: now_ns })),
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
        (State::Running(_), MainState::Lost(reason)) => exited(LOST, false, reason.clone()),
        (State::Running(_), MainState::Closed(why)) => exited(LOST, false, why.to_string()),
        // its machine has booted again
        (State::Exited(_), MainState::Waiting) => Some(State::Created),
        _ => None,
    }
}

/// The link has not come back.
fn lost(state: &State, now_ns: u64) -> Option<State> {
    let State::Running(Running { started_ns, .. }) = *state else { return None };
    let error = format!(
        "its link has been away for {} s: its machine is gone, or cannot reach this host",
        GIVEN_UP_AFTER.as_secs()
    );
    Some(State::Exited(Exited { started_ns, finished_ns: now_ns, code: LOST, oom: false, error }))
}

/// Takes a container to its next state, and tells.
fn tell(containers: &Containers, container: &Arc<Container>, next: Option<State>) {
    let Some(state) = next else { return };
    container.set_state(state.clone());
    container.save();
    match state {
        State::Created => {}
        State::Running(_) => containers.events.container(container, "start", &[]),
        State::Exited(exited) => {
            let seconds = exited.finished_ns.saturating_sub(exited.started_ns) / 1_000_000_000;
            let attributes = [("execDuration", seconds.to_string()), ("exitCode", exited.code.to_string())];
            containers.events.container(container, "die", &attributes);
        }
    }
}

/// From a cut until a machine that has not come back counts as gone. ESXi and QEMU connect again within seconds; one that does come back later runs again.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(60);
/// The exit code of a container of which nobody knows how it ended.
const LOST: u8 = 255;

#[cfg(test)]
mod tests;
