//! The hub: the host's end of one VM's link, which many clients share.
//!
//! ```text
//!   pipe, next pipe ...            clients: attach, exec, copy, wait
//!         |                              ^ outputs      | requests, input
//!   +-----v------------------------------+--------------v---+
//!   | pipes     who has the key          session   clients  |
//!   | actor     link, messages           output    cursors  |
//!   +-------------------------------------------------------+
//! ```
//!
//! It survives cuts: the next pipe goes on where the last one ended. It keeps nothing on disk and can be restarted at any time: the guest keeps every byte that the
//! host has not consumed, and the hub consumes only what its clients have taken. A new hub finds the guest's channels and sessions where they are.
//!
//! It decides who hears what, and who is too slow for the others. It does not know what its pipes are made of, nor what the machine is doing.

mod actor;
mod attachment;
mod output;
mod pipes;
mod requests;
mod session;
mod status;

use tokio::sync::{mpsc, oneshot, watch};
use wire::handshake::LinkKey;
use wire::link::{Closed, Tuning};
use wire::message::{Reply, Request, SessionId, Work};
use wire::status::{Exit, Failure};

use crate::pipe::{Reader, Writer};
use crate::state;

use self::attachment::ClientId;
pub use self::attachment::{AttachOptions, Attachment, Client, Events, Offsets, Output, Stream};
use self::pipes::Pipe;
pub use self::status::{GuestStatus, MainState, PipeState};

/// Which VM this is the host of.
#[derive(Debug)]
pub struct Identity {
    /// The VM's id, from its spec.
    pub vm: String,
    pub key: LinkKey,
    /// Packets are sealed: see [`wire::link::Security`].
    pub sealed: bool,
    pub tuning: Tuning,
    /// From the system's generator, for this hub only.
    pub seed: [u8; 32],
    /// Requests are numbered from here: at random, so that an answer to an earlier hub is not taken for one to this.
    pub first_request: u64,
}

impl Identity {
    /// Draws what has to be fresh.
    pub fn new(vm: String, key: LinkKey, sealed: bool, tuning: Tuning) -> anyhow::Result<Identity> {
        let drawn = state::random()?;
        let first_request = drawn.iter().take(7).fold(0, |number, &byte| number << 8 | u64::from(byte));
        Ok(Identity { vm, key, sealed, tuning, seed: state::random()?, first_request })
    }
}

/// A handle to a hub. When the last one is dropped, the hub is gone, and the guest waits for the
/// next one. A program that ends and means to come back drops its hubs before their clients: a client that is dropped first has left, and what it has not taken is not kept.
#[derive(Clone, Debug)]
pub struct Hub {
    commands: mpsc::UnboundedSender<Command>,
    status: watch::Receiver<GuestStatus>,
}

/// Why something could not be had from a guest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HubError {
    #[error("cannot talk with the guest: {0}")]
    Closed(#[source] Closed),
    /// The machine ended.
    #[error("{0}")]
    Lost(String),
    /// The guest, or the session, could not run what it was asked to.
    #[error("{0}")]
    Failed(#[source] Failure),
    #[error("{0}")]
    Refused(String),
    #[error("there is no session {}", .0.0)]
    NoSession(SessionId),
    #[error("cannot go on at byte {asked} of {stream:?}: bytes {first} to {last} can be had")]
    Offset { stream: Stream, asked: u64, first: u64, last: u64 },
    #[error("nobody reads the standard input")]
    InputClosed,
    /// The hub is gone.
    #[error("the connection to the guest was given up")]
    Stopped,
}

impl HubError {
    /// Docker's exit code for it.
    pub fn code(&self) -> u8 {
        match self {
            HubError::Failed(failure) => failure.kind.code(),
            _ => 125,
        }
    }
}

/// A session that was made.
#[derive(Debug)]
pub struct Created {
    pub session: SessionId,
    /// Of its process, by the guest's count.
    pub pid: u32,
    /// The client, if one was asked for.
    pub attachment: Option<Attachment>,
}

type Answer<T> = oneshot::Sender<Result<T, HubError>>;

/// What handles and clients tell the hub.
#[derive(Debug)]
enum Command {
    Pipe(Pipe),
    MachineEnded(String),
    Request {
        request: Request,
        answer: Answer<Reply>,
    },
    Create {
        work: Work,
        options: Option<AttachOptions>,
        answer: Answer<Created>,
    },
    Attach {
        session: SessionId,
        options: AttachOptions,
        answer: Answer<Attachment>,
    },
    Wait {
        session: SessionId,
        answer: Answer<Exit>,
    },
    Forget {
        session: SessionId,
        answer: Answer<()>,
    },
    Taken {
        client: ClientId,
        stream: Stream,
        offset: u64,
    },
    GiveUp {
        client: ClientId,
        stream: Stream,
    },
    Write {
        client: ClientId,
        bytes: Vec<u8>,
        done: Answer<u64>,
    },
    EndStdin(ClientId),
    Leave(ClientId),
    /// A client that was full has room.
    Wake,
}

impl Hub {
    /// Starts a hub that waits for its first pipe. Must be called within a runtime.
    pub fn start(identity: Identity) -> Hub {
        let (commands, inbox) = mpsc::unbounded_channel();
        let (told, status) = watch::channel(GuestStatus::default());
        tokio::spawn(actor::Actor::new(identity, inbox, commands.downgrade(), told).run());
        Hub { commands, status }
    }

    /// Hands over a pipe. It takes the place of the one that is open only once its other end has proved that it has the key. `already_read` is what was read from it before.
    pub async fn pipe(&self, reader: Reader, writer: Writer, already_read: Vec<u8>) {
        self.tell(Command::Pipe(Pipe { reader, writer, already_read }));
    }

    /// The machine is gone, and why: no pipe will come. Clients hear it behind all that came from the guest.
    pub fn machine_ended(&self, reason: &str) {
        self.tell(Command::MachineEnded(reason.to_owned()));
    }

    /// Asks the guest, and waits for its reply: also until it can be reached, and across cuts. Sessions are made, attached and forgotten by the methods for it.
    pub async fn request(&self, request: Request) -> Result<Reply, HubError> {
        self.ask(|answer| Command::Request { request, answer }).await
    }

    /// Asks the guest, behind what was asked before, and does not wait for its reply.
    pub fn post(&self, request: Request) {
        let (answer, _nobody) = oneshot::channel();
        self.tell(Command::Request { request, answer });
    }

    /// Makes a session without a client.
    pub async fn create(&self, work: Work) -> Result<SessionId, HubError> {
        Ok(self.begin(work, None).await?.session)
    }

    /// Makes a session with a client that is there from its first byte.
    pub async fn create_attached(
        &self,
        work: Work,
        options: AttachOptions,
    ) -> Result<(SessionId, Attachment), HubError> {
        let Created { session, attachment, .. } = self.begin(work, Some(options)).await?;
        Ok((session, attachment.ok_or(HubError::Stopped)?))
    }

    /// Makes a session, with a client that is there from its first byte if there are options for one.
    pub async fn begin(&self, work: Work, options: Option<AttachOptions>) -> Result<Created, HubError> {
        self.ask(|answer| Command::Create { work, options, answer }).await
    }

    /// Becomes a client of a session.
    pub async fn attach(&self, session: SessionId, options: AttachOptions) -> Result<Attachment, HubError> {
        self.ask(|answer| Command::Attach { session, options, answer }).await
    }

    /// Waits until a session's process has ended; at once if it has.
    pub async fn wait(&self, session: SessionId) -> Result<Exit, HubError> {
        self.ask(|answer| Command::Wait { session, answer }).await
    }

    /// A session that has ended is over: the guest keeps nothing of it. This hub still knows how it ended.
    pub async fn forget(&self, session: SessionId) -> Result<(), HubError> {
        self.ask(|answer| Command::Forget { session, answer }).await
    }

    /// What is known of the guest, now and from now on.
    pub fn watch(&self) -> watch::Receiver<GuestStatus> {
        self.status.clone()
    }

    /// Both are handles to one hub.
    pub(crate) fn is_same(&self, other: &Hub) -> bool {
        self.commands.same_channel(&other.commands)
    }

    async fn ask<T>(&self, command: impl FnOnce(Answer<T>) -> Command) -> Result<T, HubError> {
        let (answer, answered) = oneshot::channel();
        self.tell(command(answer));
        answered.await.unwrap_or(Err(HubError::Stopped))
    }

    fn tell(&self, command: Command) {
        // it ends after its handles, unless its runtime does
        let _gone = self.commands.send(command);
    }
}

#[cfg(test)]
pub(crate) mod tests;
