//! Docker attach: a container's streams, over a connection of the client's own or a websocket.
//!
//! ```text
//! journal (from its end, or its beginning) ── frames ──> client ── input ──> hub ══> the process
//! ```
//!
//! Output is read from the disk, so a client that does not read holds up nobody but itself. Input goes straight to the guest, and waits where the process does.

use std::io;
use std::sync::Arc;

use axum::Router;
use axum::extract::ws::{WebSocketUpgrade, rejection::WebSocketUpgradeRejection};
use axum::extract::{Path, Request, State};
use axum::response::Response;
use axum::routing::{get, post};
use futures_util::FutureExt;
use tokio::io::AsyncWriteExt;
use wire::message::{self, MAIN};
use wire::spec::TermSize;

use super::Api;
use super::error::ApiError;
use super::hijack::{self, Connection, Hijack, Reader, Writer};
use super::input::{Mouth, Said};
use super::query::Params;
use super::stdcopy::{Framing, Source};
use crate::containers::{Container, State as ContainerState};
use crate::detach::Keys;
use crate::hub::{AttachOptions, Stream};
use crate::journal::{self, Selection};

/// Its paths.
pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/containers/{id}/attach", post(attach))
        .route("/containers/{id}/attach/ws", get(attach_by_websocket))
        .route("/containers/{id}/resize", post(resize))
}

async fn attach(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    asked: Params,
    request: Request,
) -> Result<Response, ApiError> {
    let container = find(&api, &name).await?;
    let framing = Framing::of(container.has_terminal());
    let visit = Visit::prepare(api, container, &asked, framing).await?;
    let (_, hijack) = Hijack::of(request);
    Ok(hijack.answer(framing, |connection| visit.serve(connection)))
}

async fn attach_by_websocket(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    asked: Params,
    socket: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let container = find(&api, &name).await?;
    let socket = socket.map_err(|rejection| ApiError::bad_parameter(rejection.body_text()))?;
    // messages have no sources in them: docker's have none either
    let visit = Visit::prepare(api, container, &asked, Framing::Raw).await?;
    Ok(socket.on_upgrade(|socket| visit.serve(Connection::of_websocket(socket))))
}

async fn resize(State(api): State<Arc<Api>>, Path(name): Path<String>, asked: Params) -> Result<(), ApiError> {
    let container = api.containers.find(&name)?;
    let size = size(&asked)?;
    let hub = container.running()?;
    let more = [("height", size.rows.to_string()), ("width", size.columns.to_string())];
    // one without a terminal has no size, and docker does not mind
    if container.has_terminal() {
        hub.request(message::Request::Resize { session: MAIN, size }).await?;
    }
    api.containers.events.container(&container, "resize", &more);
    Ok(())
}

/// The container of this name. One that has just appeared is yet to say whether it has a terminal.
async fn find(api: &Api, name: &str) -> Result<Arc<Container>, ApiError> {
    let container = api.containers.find(name)?;
    if container.told().is_none() {
        // one that is gone has no more to say
        let _gone = container.reach().await;
    }
    Ok(container)
}

/// The size of a terminal that a client tells: its height and width in characters.
pub(super) fn size(asked: &Params) -> Result<TermSize, ApiError> {
    let number = |name| {
        let text = asked.required(name)?;
        text.parse().map_err(|_| ApiError::bad_parameter(format!("{name}: {text:?} is no number of characters")))
    };
    Ok(TermSize { rows: number("h")?, columns: number("w")? })
}

/// The keys that leave a terminal; docker's if the client names none.
fn detach_keys(asked: &Params) -> Result<Keys, ApiError> {
    asked.text("detachKeys").map_or_else(|| Ok(Keys::default()), keys)
}

/// Keys as a client names them.
pub(super) fn keys(text: &str) -> Result<Keys, ApiError> {
    text.parse().map_err(|error| ApiError::bad_parameter(format!("the keys to detach by: {error}")))
}

/// A client's stay with a container.
struct Visit {
    api: Arc<Api>,
    container: Arc<Container>,
    framing: Framing,
    /// None: nothing was asked for.
    records: Option<journal::Reader>,
    stdout: bool,
    stderr: bool,
    /// The input goes to its process.
    reads: bool,
    /// How often it had ended when the client came.
    exits: u64,
    keys: Keys,
}

/// Why a client hears no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    All,
    /// The client has gone.
    Gone,
}

impl Visit {
    async fn prepare(
        api: Arc<Api>,
        container: Arc<Container>,
        asked: &Params,
        framing: Framing,
    ) -> Result<Visit, ApiError> {
        let keys = detach_keys(asked)?;
        let exits = container.watch().borrow().exits;
        let (stream, logs) = (asked.flag("stream"), asked.flag("logs"));
        let has_ended = matches!(container.state(), ContainerState::Exited(_));
        // one whose machine this host makes may be started again, and whoever attaches before hears all of it
        let is_made = container.made().is_some();
        if is_made && !container.state().is_running() {
            container.journal.resume();
        } else if has_ended && !logs {
            return Err(ApiError::conflict("You cannot attach to a stopped container, start it first"));
        }
        let end = container.journal.end();
        let selection = match (logs, stream) {
            (true, true) => Some(Selection::default()),
            (true, false) => Some(Selection { to: Some(end), ..Selection::default() }),
            (false, true) => Some(Selection { from: end, to: None }),
            (false, false) => None,
        };
        let reads = stream && (is_made || !has_ended) && asked.flag("stdin") && container.reads_stdin();
        let is_held = matches!(container.state(), ContainerState::Created);
        // one that runs writes on, also while its link is away; one that is held is to be there
        if !is_made && (reads || (stream && is_held)) {
            container.reach().await?;
        }
        let records = selection.map(|selection| container.journal.read(selection));
        api.containers.events.container(&container, "attach", &[]);
        let (stdout, stderr) = (asked.flag("stdout"), asked.flag("stderr"));
        Ok(Visit { api, container, framing, records, stdout, stderr, reads, exits, keys })
    }

    async fn serve(self, Connection { mut reader, mut writer }: Connection) {
        let Visit { api, container, framing, records, stdout, stderr, reads, exits, keys } = self;
        let Some(records) = records else { return hijack::close(reader, writer).await };
        let heard = {
            let hearing = hear(records, &mut writer, framing, [stdout, stderr]);
            let saying = say(&container, reads.then_some(exits), keys, &mut reader);
            tokio::pin!(hearing, saying);
            tokio::select! {
                heard = &mut hearing => {
                    if heard == Heard::Gone {
                        // what it said before it went still counts, and so does its end
                        saying.await;
                    }
                    heard
                }
                said = &mut saying => match said {
                    Said::All => hearing.await,
                    Said::Left => Heard::All,
                    Said::Detached => {
                        api.containers.events.container(&container, "detach", &[]);
                        Heard::All
                    }
                },
            }
        };
        if heard == Heard::All {
            hijack::close(reader, writer).await;
        }
    }
}

/// Gives the client's input to the main process: that of a container that has ended `exits` times. None: it goes nowhere.
async fn say(container: &Container, exits: Option<u64>, keys: Keys, reader: &mut Reader) -> Said {
    let Some(exits) = exits else { return Said::All };
    let Some(hub) = container.next_hub(exits).await else { return Said::All };
    let options = AttachOptions { stdin: true, ..AttachOptions::default() };
    let terminal = container.has_terminal();
    match hub.attach(MAIN, options).await {
        Ok(attachment) => {
            let client = attachment.client.clone();
            let mouth = Mouth { client, ends_with_client: !terminal, keys: terminal.then_some(keys) };
            let said = mouth.speak(reader).await;
            // a client that has left can say nothing more
            drop(attachment);
            said
        }
        // it ended meanwhile, and that is what the client hears
        Err(_) => Said::All,
    }
}

/// Writes what is in the journal, and what comes, until the container has ended.
async fn hear(mut records: journal::Reader, writer: &mut Writer, framing: Framing, wanted: [bool; 2]) -> Heard {
    let mut bytes = Vec::new();
    loop {
        let mut next = Some(records.next().await);
        let mut is_last = false;
        // what is there already goes along
        while let Some(result) = next {
            match result {
                Ok(Some(record)) => {
                    let is_wanted = match record.stream {
                        Stream::Stdout => wanted[0],
                        Stream::Stderr => wanted[1],
                    };
                    if is_wanted {
                        framing.encode(record.stream.into(), &record.bytes, &mut bytes);
                    }
                }
                Ok(None) => is_last = true,
                Err(error) => {
                    framing.encode(Source::Daemon, error.to_string().as_bytes(), &mut bytes);
                    is_last = true;
                }
            }
            next = if is_last || bytes.len() >= AT_ONCE { None } else { records.next().now_or_never() };
        }
        if write(writer, &bytes).await.is_err() {
            return Heard::Gone;
        }
        if is_last {
            return Heard::All;
        }
        bytes.clear();
    }
}

async fn write(writer: &mut Writer, bytes: &[u8]) -> io::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    writer.write_all(bytes).await?;
    writer.flush().await
}

/// Bytes that are written at once, and a piece more.
const AT_ONCE: usize = 64 * 1024;

#[cfg(test)]
mod tests;
