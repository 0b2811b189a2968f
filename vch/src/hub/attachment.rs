//! A client's end of a session: what it hears, what it says, and how far it has come.
//!
//! Nothing is decided here. A client that is dropped has left.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
pub use wire::log::Stream;
use wire::message::SessionId;
use wire::status::Exit;

use super::{Command, HubError};

/// What a client wants of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttachOptions {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    /// The client has all output before these offsets (`stdin` counts for nothing here). Otherwise it begins with what nobody has taken, or, beside others, with
    /// what comes from now on.
    pub from: Option<Offsets>,
}

/// Absolute offsets in a session's streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Offsets {
    pub stdin: u64,
    pub stdout: u64,
    pub stderr: u64,
}

/// What a client hears, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// The bytes from `offset` on.
    Stdout {
        offset: u64,
        bytes: Vec<u8>,
    },
    Stderr {
        offset: u64,
        bytes: Vec<u8>,
    },
    /// The guest has received standard input up to this offset.
    StdinTaken(u64),
    /// The process has ended, and its output is complete. The last word.
    Ended(Exit),
    /// The client is no longer attached, and why. The last word.
    Detached(String),
}

/// One client of a session. Its parts may be used apart.
#[derive(Debug)]
pub struct Attachment {
    pub events: Events,
    pub client: Client,
    /// Where it begins. `stdin` is the offset of the next byte that is written.
    pub offsets: Offsets,
}

/// What a client hears. Dropped, the client has left.
#[derive(Debug)]
pub struct Events {
    outputs: mpsc::Receiver<Output>,
    full: Arc<AtomicBool>,
    id: ClientId,
    hub: mpsc::WeakUnboundedSender<Command>,
}

/// What a client says.
#[derive(Clone, Debug)]
pub struct Client {
    id: ClientId,
    hub: mpsc::WeakUnboundedSender<Command>,
}

/// Which client of which session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClientId {
    pub(super) session: SessionId,
    pub(super) number: u64,
}

/// The hub's end of [`Events`].
#[derive(Debug)]
pub(super) struct Outlet {
    outputs: mpsc::Sender<Output>,
    full: Arc<AtomicBool>,
}

impl Attachment {
    pub(super) fn new(id: ClientId, offsets: Offsets, hub: mpsc::WeakUnboundedSender<Command>) -> (Attachment, Outlet) {
        let (sender, outputs) = mpsc::channel(QUEUE + 1);
        let full = Arc::new(AtomicBool::new(false));
        let outlet = Outlet { outputs: sender, full: full.clone() };
        let events = Events { outputs, full, id, hub: hub.clone() };
        (Attachment { events, client: Client { id, hub }, offsets }, outlet)
    }

    /// See [`Events::next`].
    pub async fn next(&mut self) -> Option<Output> {
        self.events.next().await
    }

    /// See [`Client::taken`].
    pub fn taken(&self, stream: Stream, offset: u64) {
        self.client.taken(stream, offset);
    }

    /// See [`Client::write_stdin`].
    pub async fn write_stdin(&self, bytes: Vec<u8>) -> Result<u64, HubError> {
        self.client.write_stdin(bytes).await
    }

    /// See [`Client::end_stdin`].
    pub fn end_stdin(&self) {
        self.client.end_stdin();
    }
}

impl Events {
    /// What comes next; `None` after the last word, or when the hub is gone. May be dropped while it waits: nothing is lost.
    pub async fn next(&mut self) -> Option<Output> {
        let output = self.outputs.recv().await;
        if self.full.swap(false, Ordering::AcqRel) {
            tell(&self.hub, Command::Wake);
        }
        output
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        tell(&self.hub, Command::Leave(self.id));
    }
}

impl Client {
    /// Everything before `offset` is dealt with and need not be kept. What is not taken holds the process up, in the end, and would be told again after a restart of
    /// the hub.
    pub fn taken(&self, stream: Stream, offset: u64) {
        tell(&self.hub, Command::Taken { client: self.id, stream, offset });
    }

    /// The client will not read the rest of a stream. When that is so for all, the writer hears of it, as of a broken pipe.
    pub fn give_up(&self, stream: Stream) {
        tell(&self.hub, Command::GiveUp { client: self.id, stream });
    }

    /// Waits until the link has taken `bytes`, and tells the offset behind them. The streams of several clients are merged in the order of arrival.
    pub async fn write_stdin(&self, bytes: Vec<u8>) -> Result<u64, HubError> {
        let (done, written) = oneshot::channel();
        tell(&self.hub, Command::Write { client: self.id, bytes, done });
        written.await.unwrap_or(Err(HubError::Stopped))
    }

    /// There is no more input, of any client.
    pub fn end_stdin(&self) {
        tell(&self.hub, Command::EndStdin(self.id));
    }
}

impl Outlet {
    /// There is room for another output. If not, the hub is woken when there is.
    pub(super) fn has_room(&self) -> bool {
        // the last place is for the last word
        self.outputs.capacity() > 1 || {
            self.full.store(true, Ordering::Release);
            self.outputs.capacity() > 1
        }
    }

    /// Only after [`Outlet::has_room`], or for the last word. A client that is gone has told so, or will.
    pub(super) fn send(&self, output: Output) {
        let _gone = self.outputs.try_send(output);
    }
}

/// A hub that is gone needs to hear nothing.
fn tell(hub: &mpsc::WeakUnboundedSender<Command>, command: Command) {
    if let Some(hub) = hub.upgrade() {
        let _gone = hub.send(command);
    }
}

/// Outputs under way to a client: with [`super::session`]'s pieces, 256 KiB.
const QUEUE: usize = 4;
