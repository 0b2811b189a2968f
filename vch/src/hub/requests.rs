//! Requests that wait for the guest's reply, by number.

use std::collections::HashMap;

use wire::link::Link;
use wire::message::{Message, Reply, Request, SessionId};

use super::{Answer, Attachment, Created, HubError};

/// Who waits for a reply.
#[derive(Debug)]
pub(super) enum Asked {
    Anyone(Answer<Reply>),
    /// Nobody waits: whatever the answer is, nothing follows from it.
    Nobody,
    /// The hub itself, which tells whoever watches.
    Status,
    List,
    Create {
        session: SessionId,
        attachment: Option<Attachment>,
        answer: Answer<Created>,
    },
    Attach(SessionId),
    Detach,
    Forget {
        session: SessionId,
        answer: Answer<()>,
    },
}

/// Requests under way. They survive a cut, as the link's messages do.
#[derive(Debug)]
pub(super) struct Requests {
    next: u64,
    asked: HashMap<u64, Asked>,
}

impl Requests {
    pub(super) fn new(first: u64) -> Requests {
        Requests { next: first, asked: HashMap::new() }
    }

    pub(super) fn send(&mut self, request: Request, asked: Asked, link: &mut Link) {
        link.send_message(&Message::Request { id: self.next, request }.encode());
        self.asked.insert(self.next, asked);
        self.next += 1;
    }

    /// Who asked; an answer to somebody else's question has nobody.
    pub(super) fn answered(&mut self, id: u64) -> Option<Asked> {
        self.asked.remove(&id)
    }

    /// No reply will come.
    pub(super) fn fail(&mut self, why: &HubError) {
        for asked in std::mem::take(&mut self.asked).into_values() {
            asked.fail(why.clone());
        }
    }
}

impl Asked {
    /// Who no longer listens does not miss it.
    pub(super) fn fail(self, why: HubError) {
        match self {
            Asked::Anyone(answer) => drop(answer.send(Err(why))),
            Asked::Create { answer, .. } => drop(answer.send(Err(why))),
            Asked::Forget { answer, .. } => drop(answer.send(Err(why))),
            Asked::Nobody | Asked::Status | Asked::List | Asked::Attach(_) | Asked::Detach => {}
        }
    }
}
