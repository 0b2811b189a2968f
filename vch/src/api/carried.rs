//! Sessions that carry files: what a client sends goes to a program of the guest's, and what that writes to the client.
//!
//! Nothing is kept here but a piece that is under way: whoever is slower sets the pace. A session whose client goes away is ended, and one that fails in the
//! middle ends the body as a broken one, so that the client does not take a part for the whole.

use std::io;
use std::time::Duration;

use axum::body::BodyDataStream;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use tokio::runtime::Handle;
use tokio::time::timeout;
use wire::message::{Request, SessionId, Work};

use super::error::ApiError;
use crate::hub::{AttachOptions, Attachment, Hub, HubError, Output, Stream as Of};
use crate::signals::SIGKILL;

/// A session that packs, unpacks or compares files. Dropped before its end, it is killed.
#[derive(Debug)]
pub(super) struct Carried {
    hub: Hub,
    session: SessionId,
    attachment: Attachment,
    /// The end of what was handed on; not yet known to have reached the client.
    handed: u64,
    /// What its program has said of itself.
    said: Vec<u8>,
    is_over: bool,
}

/// Why it did not come to its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    /// In the words of the guest.
    #[error("{0}")]
    Said(String),
    #[error("the connection to the container was lost: {0}")]
    Lost(String),
    #[error("the request's body broke off: {0}")]
    Body(String),
}

impl Carried {
    /// Starts it, with this client from its first byte.
    pub(super) async fn begin(hub: Hub, work: Work) -> Result<Carried, HubError> {
        let stdin = matches!(work, Work::CopyIn { .. });
        let options = AttachOptions { stdin, stdout: true, stderr: true, from: None };
        // on its own: a client that goes while the guest has not answered leaves a session behind that is to be ended
        let begun = tokio::spawn(async move {
            let (session, attachment) = hub.create_attached(work, options).await?;
            Ok(Carried { hub, session, attachment, handed: 0, said: Vec::new(), is_over: false })
        });
        begun.await.unwrap_or(Err(HubError::Stopped))
    }

    /// What it writes next; none when that was all. Who asks for more has dealt with what came before.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        self.attachment.taken(Of::Stdout, self.handed);
        loop {
            match self.attachment.next().await {
                Some(Output::Stdout { offset, bytes }) => {
                    self.handed = offset + bytes.len() as u64;
                    return Ok(Some(bytes.into()));
                }
                Some(Output::Stderr { offset, bytes }) => {
                    self.attachment.taken(Of::Stderr, offset + bytes.len() as u64);
                    let room = LONGEST_REASON.saturating_sub(self.said.len());
                    self.said.extend_from_slice(&bytes[..bytes.len().min(room)]);
                }
                Some(Output::StdinTaken(_)) => {}
                Some(Output::Ended(exit)) => {
                    self.is_over = true;
                    let said = String::from_utf8_lossy(&self.said).trim().to_owned();
                    return match exit.ending.code() {
                        0 => Ok(None),
                        code if said.is_empty() => Err(Failure::Said(format!("the copy ended with code {code}"))),
                        _ => Err(Failure::Said(said)),
                    };
                }
                Some(Output::Detached(reason)) => return Err(Failure::Lost(reason)),
                None => return Err(Failure::Lost(HubError::Stopped.to_string())),
            }
        }
    }

    /// All that it writes. What fails before the first byte fails here.
    pub(super) async fn into_stream(mut self) -> Result<impl Stream<Item = io::Result<Bytes>> + Send, Failure> {
        let Some(first) = self.next().await? else { return Ok(stream::empty().left_stream()) };
        let rest = stream::try_unfold(self, async |mut carried| match carried.next().await {
            Ok(bytes) => Ok(bytes.map(|bytes| (bytes, carried))),
            Err(failure) => Err(io::Error::other(failure)),
        });
        Ok(stream::iter([Ok(first)]).chain(rest).right_stream())
    }

    /// Sends it a body, as fast as it reads, and waits for its end. It may end before the body does.
    pub(super) async fn feed(mut self, body: &mut BodyDataStream) -> Result<(), Failure> {
        let client = self.attachment.client.clone();
        let write = async {
            while let Some(part) = body.next().await {
                let part = part.map_err(|error| Failure::Body(error.to_string()))?;
                for piece in part.chunks(PIECE) {
                    if client.write_stdin(piece.to_vec()).await.is_err() {
                        // it has read all that it wants; its end tells whether that is good
                        return Ok(());
                    }
                }
            }
            client.end_stdin();
            Ok(())
        };
        tokio::pin!(write);
        let mut is_written = false;
        loop {
            tokio::select! {
                written = &mut write, if !is_written => {
                    written?;
                    is_written = true;
                }
                next = self.next() => if next?.is_none() {
                    return Ok(());
                },
            }
        }
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        let (hub, session, is_over) = (self.hub.clone(), self.session, self.is_over);
        // none while the program ends: the guest then ends what nobody takes
        let Ok(runtime) = Handle::try_current() else { return };
        runtime.spawn(async move {
            if !is_over {
                let _ended_meanwhile = hub.request(Request::Signal { session, signal: SIGKILL }).await;
                let _lost = hub.wait(session).await;
            }
            let _lost = hub.forget(session).await;
        });
    }
}

/// Reads what is left of a body whose fate is known: a client that is still writing would miss the answer.
pub(super) async fn drain(body: &mut BodyDataStream) {
    let read = async { while let Some(Ok(_)) = body.next().await {} };
    let _endless = timeout(PATIENCE, read).await;
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> ApiError {
        match &failure {
            // the archive's fault, not the machine's
            Failure::Said(said) if said.starts_with("cannot unpack") || said.starts_with("the archive is broken") => {
                ApiError::bad_parameter(failure.to_string())
            }
            Failure::Body(_) => ApiError::bad_parameter(failure.to_string()),
            Failure::Said(_) | Failure::Lost(_) => ApiError::internal(failure.to_string()),
        }
    }
}

/// Bytes that are handed to the link at once.
const PIECE: usize = 32 * 1024;
/// Bytes of what a program may say of itself.
const LONGEST_REASON: usize = 4096;
/// How long a client may go on to write after its answer is known.
const PATIENCE: Duration = Duration::from_secs(10);
