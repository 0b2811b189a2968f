//! Lines of JSON, told by work that blocks as it goes on, to a client that may be slow or gone.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::api::error::ApiError;

/// To whom work tells how far it is.
#[derive(Clone, Debug)]
pub(super) struct Teller(Sender<Result<Value, ApiError>>);

impl Teller {
    /// Waits while the client is slow; whether there is one still.
    pub(super) fn tell(&self, line: Value) -> bool {
        self.0.blocking_send(Ok(line)).is_ok()
    }
}

/// Has the work done; what it fails with is the answer if nothing was told before, and else the last line.
pub(super) async fn answer(
    work: impl FnOnce(&Teller) -> Result<(), ApiError> + Send + 'static,
) -> Result<Response, ApiError> {
    let mut lines = begin(work);
    let first = match lines.recv().await {
        Some(Err(error)) => return Err(error),
        first => first,
    };
    Ok(response(first, lines))
}

/// The same; what it fails with is always a line.
pub(super) fn always(work: impl FnOnce(&Teller) -> Result<(), ApiError> + Send + 'static) -> Response {
    response(None, begin(work))
}

fn begin(work: impl FnOnce(&Teller) -> Result<(), ApiError> + Send + 'static) -> Receiver<Result<Value, ApiError>> {
    let (sender, lines) = channel(16);
    tokio::task::spawn_blocking(move || {
        let teller = Teller(sender);
        if let Err(error) = work(&teller) {
            // who has gone need not know
            teller.0.blocking_send(Err(error)).ok();
        }
    });
    lines
}

fn response(first: Option<Result<Value, ApiError>>, lines: Receiver<Result<Value, ApiError>>) -> Response {
    let lines = stream::unfold((first, lines), async |(first, mut lines)| {
        let line = match first {
            Some(line) => line,
            None => lines.recv().await?,
        };
        let line = line.unwrap_or_else(|error| failed(&error.message));
        Some((Ok::<_, Infallible>(Bytes::from(format!("{line}\r\n"))), (None, lines)))
    });
    ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(lines)).into_response()
}

/// How docker's clients are told that it failed after all.
pub(super) fn failed(message: &str) -> Value {
    json!({ "errorDetail": { "message": message }, "error": message })
}

/// Lets through a line now and then: a client draws them, and thousands are no use.
#[derive(Debug, Default)]
pub(super) struct Now(Option<Instant>);

impl Now {
    pub(super) fn and_then(&mut self) -> bool {
        let due = self.0.is_none_or(|last| last.elapsed() >= PAUSE);
        if due {
            self.0 = Some(Instant::now());
        }
        due
    }
}

const PAUSE: Duration = Duration::from_millis(100);
