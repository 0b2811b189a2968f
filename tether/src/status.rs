//! What is told of the machine as a whole, and when: once a turn of the loop at most, when something has changed, and when the host takes news.
//!
//! A host that is away misses the statuses between: it asks for the last one.

use guest::guestinfo::Store;
use wire::guestinfo::STATUS;
use wire::message::{Event as Told, Message};
use wire::status::{MachineState, ProcessState, SessionStatus, Status};

use crate::agent::{Agent, Goal};
use crate::boot::reason;
use crate::members::Member;
use crate::session::Session;

/// What was told last.
#[derive(Debug, Default)]
pub(crate) struct Teller {
    /// Something may not be as it was told.
    pub(crate) changed: bool,
    pub(crate) last: Status,
}

impl Teller {
    /// The status as it is to be told, with a number of its own if it is not the last one's.
    fn take(&mut self, status: Status) -> Option<&Status> {
        self.changed = false;
        let status = Status { generation: self.last.generation, ..status };
        if status == self.last {
            return None;
        }
        self.last = Status { generation: self.last.generation + 1, ..status };
        Some(&self.last)
    }
}

impl Agent {
    /// Tells how the machine is, if that is news.
    pub(crate) fn tell_status(&mut self) {
        if self.teller.changed && self.outside.line.has_room_for_news() {
            self.publish();
        }
    }

    /// The status as JSON, told last to those who listen.
    pub(crate) fn status(&mut self) -> String {
        self.publish();
        self.teller.last.to_json()
    }

    fn publish(&mut self) {
        let status = self.compose();
        let Some(status) = self.teller.take(status) else { return };
        let json = status.to_json();
        publish_in(self.store.as_mut(), &json);
        self.outside.line.tell(&Message::Event(Told::Status(json)));
    }

    fn compose(&self) -> Status {
        let state = match (self.goal, &self.failure) {
            (Goal::Serve, _) => MachineState::Running,
            (_, Some(_)) => MachineState::Failed,
            (_, None) => MachineState::Stopping,
        };
        let session = |member: &Member| {
            let known = self.sessions.get(member.id)?;
            Some((member.name.clone(), session_status(member, known)))
        };
        Status {
            generation: 0,
            state,
            failure: self.failure.clone(),
            sessions: self.members.iter().filter_map(session).collect(),
            networks: self.network.status(),
        }
    }
}

/// Where the hypervisor has a place for it.
pub(crate) fn publish_in(store: &mut dyn Store, json: &str) {
    if store.is_writable()
        && let Err(error) = store.set(STATUS, json)
    {
        guest::say!(Warn, "{}", reason(&error));
    }
}

fn session_status(member: &Member, session: &Session) -> SessionStatus {
    let state = if member.over {
        ProcessState::Ended
    } else if session.is_waiting() {
        ProcessState::Waiting
    } else if session.is_resting() {
        ProcessState::Restarting
    } else {
        ProcessState::Running
    };
    SessionStatus {
        session: member.id.0,
        state,
        pid: session.pid().and_then(|pid| u32::try_from(pid.as_raw()).ok()),
        exit: member.exit.clone(),
        restarts: member.restarts.count,
        health: member.health.as_ref().map(|checker| checker.health.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_told_once_and_each_has_a_higher_number() {
        let mut teller = Teller::default();
        let status = |state| Status { state, ..Status::default() };
        let mut told = Vec::new();
        for state in [MachineState::Running, MachineState::Running, MachineState::Stopping, MachineState::Running] {
            told.push(teller.take(status(state)).map(|status| status.generation));
        }
        assert_eq!(told, [Some(1), None, Some(2), Some(3)]);
    }
}
