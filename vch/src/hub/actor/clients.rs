//! What clients ask of the hub: sessions made, attached, waited for and forgotten; input, and what was taken.

use std::time::Duration;

use tokio::time::Instant;
use wire::message::{MAIN, Reply, Request, SessionId, Work};
use wire::packet::MAX_CHANNELS;
use wire::status::Exit;

use super::{Actor, Stage};
use crate::hub::attachment::{AttachOptions, Attachment, ClientId};
use crate::hub::requests::Asked;
use crate::hub::session::{Session, Wish};
use crate::hub::{Answer, Command, Created, HubError};

impl Actor {
    pub(super) fn command(&mut self, command: Command) {
        match command {
            // nobody listens here any more: its other end is to try another hub
            Command::Pipe(_) if self.link.is_closed() => return,
            Command::Pipe(pipe) => {
                let now = self.now();
                return self.pipes.add(pipe, &mut self.link, now);
            }
            Command::MachineEnded(reason) => {
                self.lost.get_or_insert((reason, Instant::now() + LAST_WORDS));
                return;
            }
            Command::Wake => return,
            _ => {}
        }
        if self.stage != Stage::Up {
            return self.early.push_back(command);
        }
        match command {
            Command::Request { request, answer } => self.request(request, answer),
            Command::Create { work, options, answer } => self.create(work, options, answer),
            Command::Attach { session, options, answer } => drop(answer.send(self.attach(session, options))),
            Command::Wait { session, answer } => self.wait(session, answer),
            Command::Forget { session, answer } => self.forget(session, answer),
            Command::Taken { client: ClientId { session, number }, stream, offset } => {
                if let Some(reader) = self.sessions.get_mut(&session).and_then(|it| it.reader(number, stream)) {
                    reader.take(offset);
                }
            }
            Command::GiveUp { client: ClientId { session, number }, stream } => {
                if let Some(reader) = self.sessions.get_mut(&session).and_then(|it| it.reader(number, stream)) {
                    reader.give_up();
                }
            }
            Command::Write { client: ClientId { session, number }, bytes, done } => {
                match self.sessions.get_mut(&session) {
                    Some(session) => session.write(number, bytes, done),
                    None => drop(done.send(Err(HubError::NoSession(session)))),
                }
            }
            Command::EndStdin(ClientId { session, number }) => {
                if let Some(session) = self.sessions.get_mut(&session) {
                    session.end_input(number);
                }
            }
            Command::Leave(ClientId { session, number }) => {
                if let Some(wish) = self.sessions.get_mut(&session).and_then(|it| it.leave(number)) {
                    self.wish(session, wish);
                }
            }
            Command::Pipe(_) | Command::MachineEnded(_) | Command::Wake => {}
        }
    }

    fn request(&mut self, request: Request, answer: Answer<Reply>) {
        if let Some(why) = &self.over {
            drop(answer.send(Err(why.clone())));
        } else if matches!(
            request,
            Request::Create { .. } | Request::Attach { .. } | Request::Detach { .. } | Request::Forget { .. }
        ) {
            let reason = "sessions are made, attached and forgotten by the hub, which counts their clients";
            drop(answer.send(Err(HubError::Refused(reason.into()))));
        } else {
            self.requests.send(request, Asked::Anyone(answer), &mut self.link);
        }
    }

    fn create(&mut self, mut work: Work, options: Option<AttachOptions>, answer: Answer<Created>) {
        if let Some(why) = &self.over {
            return drop(answer.send(Err(why.clone())));
        }
        if self.link.channels().count() + 3 > MAX_CHANNELS {
            let reason = "there are as many sessions as the link has channels for: forget those that have ended";
            return drop(answer.send(Err(HubError::Refused(reason.into()))));
        }
        // the guest's archives go to the host in any case
        let attached = match &mut work {
            Work::Exec(exec) => {
                exec.attach = options.is_some();
                exec.attach
            }
            Work::CopyOut { .. } | Work::CopyIn { .. } | Work::Changes => true,
        };
        let id = SessionId(self.next_session);
        self.next_session += 1;
        // the channels and the client have to be there before the first byte
        let session = Session::new(id, attached, &mut self.link);
        self.sessions.insert(id, session);
        let attachment = options.map(|options| self.attach(id, options)).transpose();
        match attachment {
            Ok(attachment) => {
                let asked = Asked::Create { session: id, attachment, answer };
                self.requests.send(Request::Create { session: id, work }, asked, &mut self.link);
            }
            Err(why) => {
                self.remove(id, "it was never made");
                drop(answer.send(Err(why)));
            }
        }
    }

    fn attach(&mut self, id: SessionId, options: AttachOptions) -> Result<Attachment, HubError> {
        let Some(session) = self.sessions.get_mut(&id) else {
            return Err(self.over.clone().unwrap_or(HubError::NoSession(id)));
        };
        let offsets = session.offsets(options, self.tuning, &self.link)?;
        self.next_client += 1;
        let client = ClientId { session: id, number: self.next_client };
        let (attachment, outlet) = Attachment::new(client, offsets, self.hub.clone());
        if let Some(wish) = session.join(client.number, outlet, options, offsets) {
            self.wish(id, wish);
        }
        Ok(attachment)
    }

    fn wait(&mut self, id: SessionId, answer: Answer<Exit>) {
        let over = self.over.clone();
        let known = self.exits.iter().rev().find(|(session, _)| *session == id).map(|(_, exit)| exit.clone());
        let result = match (self.sessions.get_mut(&id), known) {
            (Some(Session { exit: Some(exit), .. }), _) => Ok(exit.clone()),
            (_, Some(exit)) => Ok(exit),
            (Some(session), None) if over.is_none() => return session.waiting.push(answer),
            (_, None) => Err(over.unwrap_or(HubError::NoSession(id))),
        };
        drop(answer.send(result));
    }

    fn forget(&mut self, session: SessionId, answer: Answer<()>) {
        if let Some(why) = &self.over {
            drop(answer.send(Err(why.clone())));
        } else if !self.sessions.contains_key(&session) || session == MAIN {
            drop(answer.send(Err(HubError::NoSession(session))));
        } else {
            let asked = Asked::Forget { session, answer };
            self.requests.send(Request::Forget { session }, asked, &mut self.link);
        }
    }

    pub(super) fn wish(&mut self, session: SessionId, wish: Wish) {
        if self.over.is_some() {
            return;
        }
        match wish {
            Wish::Attach => self.requests.send(Request::Attach { session }, Asked::Attach(session), &mut self.link),
            Wish::Detach => self.requests.send(Request::Detach { session }, Asked::Detach, &mut self.link),
        }
    }

    /// A session that is no more.
    pub(super) fn remove(&mut self, id: SessionId, reason: &str) {
        let Some(mut session) = self.sessions.remove(&id) else { return };
        session.dismiss(reason);
        session.over(&HubError::NoSession(id));
        if let Some(exit) = session.exit {
            self.exits.push_back((id, exit));
            if self.exits.len() > EXITS {
                self.exits.pop_front();
            }
        }
        let channels = id.streams();
        for channel in [channels.stdin, channels.stdout, channels.stderr] {
            self.link.forget(channel);
        }
    }
}

/// How long the last bytes of a machine that is gone may take to come out of its pipe.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How many exits of forgotten sessions are kept.
const EXITS: usize = 1024;
