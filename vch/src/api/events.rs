//! Docker events: a line of JSON for each thing that happens, as soon as it does.
//!
//! It decides who hears which of them. Each listener has its own place in what was told: one that is slow, or has gone, holds nobody up, and hears it when it
//! has missed some.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::stream;
use serde_json::{Value, json};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, timeout_at};

use super::Api;
use super::error::ApiError;
use super::filters::Filters;
use super::query::Params;
use crate::containers::Event;
use crate::timestamp::{self, now_ns};

/// Its path.
pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new().route("/events", get(events))
}

/// Docker's filters.
const FILTERS: [&str; 16] = [
    "config",
    "container",
    "daemon",
    "event",
    "image",
    "label",
    "network",
    "node",
    "plugin",
    "scope",
    "secret",
    "service",
    "type",
    "volume",
    "reference",
    "id",
];

async fn events(State(api): State<Arc<Api>>, params: Params) -> Result<Response, ApiError> {
    let filters = Filters::read(&params, &FILTERS)?;
    let now = now_ns();
    let time = |name: &str| match params.text(name) {
        None => Ok(None),
        Some(text) => timestamp::parse(text, now).map(Some).ok_or_else(|| {
            ApiError::bad_parameter(format!(
                "{name}: {text:?} is no time: write seconds since 1970, or 2026-01-31T23:59:59Z"
            ))
        }),
    };
    let (since, until) = (time("since")?, time("until")?);
    if since.zip(until).is_some_and(|(since, until)| since > until) {
        return Err(ApiError::bad_parameter("`since` time cannot be after `until` time"));
    }
    let (past, receiver) = api.containers.events.listen();
    // who asks for neither wants what comes
    let wants_past = since.is_some() || until.is_some();
    let past = past.into_iter().filter(|event| wants_past && event.time_ns >= since.unwrap_or(0)).collect();
    let ends = until.map(|until| Instant::now() + Duration::from_nanos(until.saturating_sub(now)));
    let listener = Listener { past, receiver, filters, until: until.unwrap_or(u64::MAX), ends };
    let lines = stream::unfold(listener, async |mut listener| {
        let event = listener.next().await?;
        let line = Bytes::from(format!("{}\n", told(&event)));
        Some((Ok::<_, Infallible>(line), listener))
    });
    Ok(([(header::CONTENT_TYPE, "application/json")], Body::from_stream(lines)).into_response())
}

struct Listener {
    past: VecDeque<Event>,
    receiver: Receiver<Event>,
    filters: Filters,
    until: u64,
    ends: Option<Instant>,
}

impl Listener {
    /// The next one that fits; none when it is over.
    async fn next(&mut self) -> Option<Event> {
        loop {
            let event = match self.past.pop_front() {
                Some(event) => event,
                None => self.heard().await?,
            };
            if event.time_ns <= self.until && fits(&self.filters, &event) {
                return Some(event);
            }
        }
    }

    async fn heard(&mut self) -> Option<Event> {
        let heard = match self.ends {
            Some(ends) => timeout_at(ends, self.receiver.recv()).await.ok()?,
            None => self.receiver.recv().await,
        };
        match heard {
            Ok(event) => Some(event),
            Err(RecvError::Lagged(missed)) => Some(Event {
                kind: "daemon",
                action: format!("{missed} events were missed: this client was too slow"),
                id: String::new(),
                attributes: [("name".to_owned(), "events".to_owned())].into(),
                time_ns: now_ns(),
            }),
            Err(RecvError::Closed) => None,
        }
    }
}

/// Of one filter any value, and of several all filters must fit.
fn fits(filters: &Filters, event: &Event) -> bool {
    let attribute = |name: &str| event.attributes.get(name).map(String::as_str).unwrap_or_default();
    let is = |kind: &str, wanted: &str| {
        // what happens to a network happens to the container that is on it
        let of = kind == "container" && event.kind == "network" && attribute("container") == wanted;
        let id = !event.id.is_empty() && !wanted.is_empty() && event.id.starts_with(wanted);
        of || event.kind == kind && (id || attribute("name") == wanted)
    };
    let image = |wanted: &str| {
        let image = if event.kind == "image" { attribute("name") } else { attribute("image") };
        image == wanted || image.rsplit_once(':').is_some_and(|(name, tag)| !tag.contains('/') && name == wanted)
    };
    // exec_create: sh -c true is exec_create to who asks for it
    let action = |wanted: &str| {
        event.action == wanted || event.action.split_once(':').is_some_and(|(action, _)| action == wanted)
    };
    let kinds = ["config", "node", "plugin", "secret", "service", "volume", "network", "daemon"];
    filters.exact("type", event.kind)
        && filters.exact("scope", "local")
        && filters.any("event", action)
        && filters.any("container", |wanted| is("container", wanted))
        && filters.any("image", image)
        && filters.any("id", |id| event.id.starts_with(id))
        && filters.labels("label", &event.attributes)
        && kinds.iter().all(|kind| filters.any(kind, |wanted| is(kind, wanted)))
}

/// As docker says it, with the fields of its first versions, which are read still.
fn told(event: &Event) -> Value {
    let Event { kind, action, id, attributes, time_ns } = event;
    let mut told = json!({
        "Type": kind,
        "Action": action,
        "Actor": { "ID": id, "Attributes": attributes },
        "scope": "local",
        "time": time_ns / 1_000_000_000,
        "timeNano": time_ns,
    });
    if *kind == "container" {
        (told["status"], told["id"]) = (action.as_str().into(), id.as_str().into());
        if let Some(image) = attributes.get("image") {
            told["from"] = image.as_str().into();
        }
    }
    if *kind == "image" {
        (told["status"], told["id"]) = (action.as_str().into(), id.as_str().into());
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &'static str, action: &str, attributes: &[(&str, &str)]) -> Event {
        let attributes = attributes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Event { kind, action: action.into(), id: "abcdef".into(), attributes, time_ns: 1_500_000_000 }
    }

    fn check(json: &str, event: &Event, expected: bool) {
        let escaped: String = json.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let filters = Filters::read(&Params::of(&format!("filters={escaped}")), &FILTERS).unwrap();
        assert_eq!(fits(&filters, event), expected, "{json}");
    }

    #[test]
    fn filters_choose_as_dockers_do() {
        let start =
            event("container", "exec_start: sh -c true", &[("image", "busybox:1"), ("name", "web"), ("a", "b")]);
        for fits in [
            "{}",
            r#"{"container":["web"]}"#,
            r#"{"container":["abc"],"type":["container"]}"#,
            r#"{"event":["exec_start"],"image":["busybox"]}"#,
            r#"{"label":["a=b"]}"#,
            r#"{"container":["db","web"]}"#,
        ] {
            check(fits, &start, true);
        }
        for other in [
            r#"{"container":["db"]}"#,
            r#"{"type":["network"]}"#,
            r#"{"event":["start"]}"#,
            r#"{"label":["a=c"]}"#,
            r#"{"network":["bridge"]}"#,
        ] {
            check(other, &start, false);
        }
        let connect = event("network", "connect", &[("container", "c1"), ("name", "bridge")]);
        check(r#"{"container":["c1"]}"#, &connect, true);
        check(r#"{"network":["bridge"]}"#, &connect, true);
        check(r#"{"container":["bridge"]}"#, &connect, false);
    }

    #[test]
    fn the_first_versions_fields_are_there() {
        let told = told(&event("container", "start", &[("image", "busybox"), ("name", "web")]));
        assert_eq!(
            (&told["status"], &told["id"], &told["from"]),
            (&json!("start"), &json!("abcdef"), &json!("busybox"))
        );
        assert_eq!((&told["time"], &told["timeNano"]), (&json!(1), &json!(1_500_000_000)));
    }
}
