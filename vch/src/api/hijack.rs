//! Connections that a client takes for itself: its input and a container's output in place of HTTP (Docker Engine API, ContainerAttach: "Hijacking").
//!
//! ```text
//! Upgrade: tcp        101, then bytes in both directions
//! no Upgrade          200 and a body without an end; what the request's own body holds is the input
//! a websocket         101, then messages; each has a piece of output or of input
//! ```
//!
//! It decides how such a connection begins and how it ends: the client hears the end behind the last byte, and bytes that it has sent in vain do not take that from it.
//! A client that has closed its half has not left: clients do that as soon as they have no more to say.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::extract::ws::{Message, WebSocket};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use futures_util::{SinkExt, StreamExt, TryStreamExt};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::time::timeout;
use tokio_util::io::{ReaderStream, StreamReader};

use super::error::ApiError;
use super::stdcopy::Framing;

/// What a client says, up to the end of its half.
pub(super) type Reader = Box<dyn AsyncRead + Send + Unpin>;
/// What a client hears. It fails when the client has gone.
pub(super) type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// A connection that belongs to a client.
pub(super) struct Connection {
    pub(super) reader: Reader,
    pub(super) writer: Writer,
}

/// A request whose connection the client wants.
pub(super) struct Hijack {
    upgrade: Option<OnUpgrade>,
    body: Body,
    /// The body was read as something else than input.
    is_body_read: bool,
}

impl Hijack {
    pub(super) fn of(request: Request) -> (Parts, Hijack) {
        let (mut parts, body) = request.into_parts();
        let upgrade = parts.extensions.remove::<OnUpgrade>();
        (parts, Hijack { upgrade, body, is_body_read: false })
    }

    /// Reads the request's body. What is left of it when the connection is handed over would be taken for input.
    pub(super) async fn body(&mut self) -> Result<Bytes, ApiError> {
        self.is_body_read = true;
        let body = std::mem::take(&mut self.body);
        axum::body::to_bytes(body, MAX_BODY)
            .await
            .map_err(|error| ApiError::bad_parameter(format!("cannot read the request's body: {error}")))
    }

    /// Answers, and hands the connection over. `serve` runs whatever becomes of the client.
    pub(super) fn answer<Served>(
        self,
        framing: Framing,
        serve: impl FnOnce(Connection) -> Served + Send + 'static,
    ) -> Response
    where
        Served: Future<Output = ()> + Send + 'static,
    {
        let mut response = Response::new(Body::empty());
        response.headers_mut().insert(header::CONTENT_TYPE, framing.content_type());
        let Hijack { upgrade, body, is_body_read } = self;
        if let Some(upgrade) = upgrade {
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
            response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("tcp"));
            tokio::spawn(async move {
                let connection = match upgrade.await {
                    Ok(upgraded) => {
                        let (reader, writer) = tokio::io::split(TokioIo::new(upgraded));
                        Connection { reader: Box::new(reader), writer: Box::new(writer) }
                    }
                    // it has gone with the answer under way
                    Err(_) => Connection { reader: Box::new(tokio::io::empty()), writer: Box::new(gone()) },
                };
                serve(connection).await;
            });
        } else {
            let (ours, theirs) = tokio::io::duplex(BUFFER);
            *response.body_mut() = Body::from_stream(ReaderStream::new(theirs));
            let reader: Reader = match is_body_read {
                true => Box::new(tokio::io::empty()),
                false => Box::new(StreamReader::new(body.into_data_stream().map_err(std::io::Error::other))),
            };
            tokio::spawn(serve(Connection { reader, writer: Box::new(ours) }));
        }
        response
    }
}

impl Connection {
    /// A websocket as a connection: messages of both kinds are input, and each piece of output is a binary one.
    pub(super) fn of_websocket(socket: WebSocket) -> Connection {
        let (mut to_client, mut from_client) = socket.split();
        let (writer, mut output) = tokio::io::duplex(BUFFER);
        let (mut input, reader) = tokio::io::duplex(BUFFER);
        tokio::spawn(async move {
            let mut buffer = vec![0; BUFFER];
            while let Ok(count @ 1..) = output.read(&mut buffer).await {
                if to_client.send(Message::Binary(Bytes::copy_from_slice(&buffer[..count]))).await.is_err() {
                    return;
                }
            }
            // who has closed his end needs no farewell
            let _closed = to_client.close().await;
        });
        tokio::spawn(async move {
            while let Some(Ok(message)) = from_client.next().await {
                let written = match message {
                    Message::Binary(bytes) => input.write_all(&bytes).await,
                    Message::Text(text) => input.write_all(text.as_bytes()).await,
                    Message::Ping(_) | Message::Pong(_) => Ok(()),
                    Message::Close(_) => return,
                };
                if written.is_err() {
                    return;
                }
            }
        });
        Connection { reader: Box::new(reader), writer: Box::new(writer) }
    }
}

/// Tells the client that this was the last byte, and waits a while for it to go. A socket that is closed with bytes unread takes what its peer has not yet read
/// with it (RFC 1122, 4.2.2.13): so these are read.
pub(super) async fn close(mut reader: Reader, mut writer: Writer) {
    if writer.shutdown().await.is_err() {
        return;
    }
    let mut rest = vec![0; 4096];
    let read = async { while reader.read(&mut rest).await.is_ok_and(|count| count > 0) {} };
    let _patience_ends = timeout(FAREWELL, read).await;
}

/// A writer of which nobody hears.
fn gone() -> DuplexStream {
    tokio::io::duplex(1).0
}

/// The most that a request of this kind has to say.
const MAX_BODY: usize = 4 << 20;
/// Bytes on their way to or from a client that has no socket of its own.
const BUFFER: usize = 64 * 1024;
/// How long a client may take to go.
const FAREWELL: Duration = Duration::from_secs(10);
