//! Docker logs: a container's output from its journal, as `GET /containers/{id}/logs` of the Docker Engine API has it.
//!
//! It decides what of the journal is read, and when that is at its end. Lines are [`lines`]'s.

mod lines;
mod tail;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::stream;
use serde::Deserialize;
use tokio::time::{Instant, sleep_until};

use self::lines::{Format, Lines};
use super::Api;
use super::error::ApiError;
use crate::journal::{Journal, JournalError, Position, Reader, Selection};
use crate::timestamp::now_ns;

/// Its paths.
pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new().route("/containers/{name}/logs", get(logs))
}

/// What a client asks for, in its words.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Parameters {
    stdout: String,
    stderr: String,
    follow: String,
    timestamps: String,
    details: String,
    since: String,
    until: String,
    tail: String,
}

/// The same, understood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Choice {
    format: Format,
    follow: bool,
    until_ns: Option<u64>,
    /// Only so many of the last lines.
    tail: Option<u64>,
}

async fn logs(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    parameters: Result<Query<Parameters>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(parameters) = parameters?;
    let choice = parameters.choice()?;
    let container = api.containers.find(&name)?;
    if container.made().is_some_and(|made| made.keeps_no_log()) {
        return Err(ApiError::not_implemented("configured logging driver does not support reading"));
    }
    let raw = container.has_terminal();
    let showing = Showing::begin(container.journal.clone(), choice, raw)
        .await
        .map_err(|error| ApiError::internal(error.to_string()))?;
    let kind = if raw { RAW } else { FRAMED };
    let body = Body::from_stream(stream::unfold(showing, async |mut showing| {
        let bytes = showing.next().await?;
        Some((Ok::<_, std::convert::Infallible>(Bytes::from(bytes)), showing))
    }));
    Ok(([(header::CONTENT_TYPE, kind)], body).into_response())
}

impl Parameters {
    fn choice(&self) -> Result<Choice, ApiError> {
        let format = Format {
            stdout: is_true(&self.stdout),
            stderr: is_true(&self.stderr),
            timestamps: is_true(&self.timestamps),
            details: is_true(&self.details),
            since_ns: moment("since", &self.since)?,
            ..Format::default()
        };
        if !format.stdout && !format.stderr {
            return Err(ApiError::bad_parameter("Bad parameters: you must choose at least one stream"));
        }
        Ok(Choice {
            format,
            follow: is_true(&self.follow),
            until_ns: Some(moment("until", &self.until)?).filter(|&until| until > 0),
            // `all`, and whatever else is no number, is all
            tail: self.tail.parse().ok(),
        })
    }
}

/// Docker's booleans: whatever does not say no.
fn is_true(text: &str) -> bool {
    !matches!(text.trim().to_ascii_lowercase().as_str(), "" | "0" | "no" | "false" | "none")
}

/// A moment as docker's clients send it, `seconds[.fraction]`, in nanoseconds since 1970; 0 if none is given, or one before.
fn moment(name: &str, text: &str) -> Result<u64, ApiError> {
    if text.is_empty() {
        return Ok(0);
    }
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
    let fraction = digits.chars().all(|char| char.is_ascii_digit()).then(|| digits.parse::<u64>().ok()).flatten();
    match (seconds.parse::<i64>(), fraction) {
        (Ok(seconds), Some(fraction)) => {
            let ns =
                u64::try_from(seconds).map(|seconds| seconds.saturating_mul(1_000_000_000).saturating_add(fraction));
            Ok(ns.unwrap_or_default())
        }
        _ => Err(ApiError::bad_parameter(format!(
            "invalid value for \"{name}\": {text:?} is not seconds since 1970, as 1700000000 or 1700000000.25"
        ))),
    }
}

/// A log on its way to a client.
struct Showing {
    journal: Journal,
    reader: Reader,
    lines: Lines,
    until_ns: Option<u64>,
    /// When what comes is later than what is wanted.
    ends_at: Option<Instant>,
    is_over: bool,
    raw: bool,
}

impl Showing {
    async fn begin(journal: Journal, choice: Choice, raw: bool) -> Result<Showing, JournalError> {
        let end = journal.end();
        let (from, skip) = match choice.tail {
            None => (Position::default(), 0),
            Some(0) => (end, 0),
            Some(lines) => tail::find(&journal, lines, end).await?,
        };
        let until = choice.until_ns.filter(|_| choice.follow);
        let ends_at = until.map(|until| Instant::now() + Duration::from_nanos(until.saturating_sub(now_ns())).min(FAR));
        Ok(Showing {
            reader: journal.read(Selection { from, to: (!choice.follow).then_some(end) }),
            journal,
            lines: Lines::new(Format { skip, raw, ..choice.format }),
            until_ns: choice.until_ns,
            ends_at,
            is_over: false,
            raw,
        })
    }

    /// What is sent next; none at the end.
    async fn next(&mut self) -> Option<Vec<u8>> {
        while !self.is_over && self.lines.len() < PIECE {
            if self.reader.is_at_end() {
                self.lines.flush();
                if self.lines.len() > 0 {
                    break;
                }
            }
            let ends_at = self.ends_at;
            let late = async {
                match ends_at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let record = tokio::select! {
                biased;
                record = self.reader.next() => record,
                () = late => {
                    self.ends_at = None;
                    self.reader.end_at(self.journal.end());
                    continue;
                }
            };
            match record {
                Ok(Some(record)) if self.until_ns.is_none_or(|until| record.time_ns <= until) => {
                    self.lines.feed(record.stream, record.time_ns, &record.bytes);
                }
                Ok(_) => self.end(),
                Err(error) => {
                    self.end();
                    self.complain(&error);
                }
            }
        }
        let bytes = self.lines.take();
        (!bytes.is_empty()).then_some(bytes)
    }

    fn end(&mut self) {
        self.lines.flush();
        self.is_over = true;
    }

    /// Docker's clients show what comes in the third stream as an error, and end with it. A raw stream has no place for it.
    fn complain(&mut self, error: &JournalError) {
        let text = error.to_string();
        crate::serve::say(&text);
        if !self.raw {
            self.lines.fail(&text);
        }
    }
}

/// So much is sent at once, if it is there.
const PIECE: usize = 64 * 1024;
/// A moment that never comes.
const FAR: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
const RAW: &str = "application/vnd.docker.raw-stream";
const FRAMED: &str = "application/vnd.docker.multiplexed-stream";

#[cfg(test)]
mod tests;
