//! Docker diff: what a container has changed of its image. What counts as a change is decided in the guest, and in [`crate::root_disk`] of one whose machine is off.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use wire::message::Work;

use super::Api;
use super::aside::aside;
use super::carried::{Carried, Failure};
use super::error::ApiError;
use super::json;
use super::still::{Still, is_still};
use crate::containers::AbsentError;
use crate::root_disk::{self, Change, ChangeKind};

/// Its paths.
pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new().route("/containers/{id}/changes", get(changes))
}

async fn changes(State(api): State<Arc<Api>>, Path(name): Path<String>) -> Result<Response, ApiError> {
    let container = api.containers.find(&name)?;
    if let Some(maker) = is_still(&api, &container).await {
        let still = Still::open(maker, container, false).await?;
        // two whole trees are compared
        let list = aside(move || root_disk::changes(still.disk())).await?;
        let list: Vec<Value> = list
            .into_iter()
            .map(|Change { kind, path }| json!({ "Path": String::from_utf8_lossy(&path), "Kind": number(kind) }))
            .collect();
        // docker has no list where there is nothing
        return Ok(json::json(&if list.is_empty() { Value::Null } else { list.into() }));
    }
    let hub = container.reach().await.map_err(|error| match error {
        AbsentError::NotRunning(_) => ApiError::conflict(format!(
            "container {name} is not running: its changes are on the disk of its machine, which is off; start it, and ask then"
        )),
        error => error.into(),
    })?;
    let told = Carried::begin(hub, Work::Changes).await?.into_stream().await.map_err(|failure| match failure {
        Failure::Said(said) if said.starts_with(UNLAYERED) => ApiError::not_implemented(said),
        failure => failure.into(),
    })?;
    // as it comes: there may be many
    let list = stream::unfold((Box::pin(told), Some(List::default())), async |(mut told, list)| {
        let mut list = list?;
        Some(match told.next().await {
            Some(Ok(bytes)) => (Ok(list.add(&bytes)), (told, Some(list))),
            Some(Err(error)) => (Err(error), (told, None)),
            None => (Ok(list.end()), (told, None)),
        })
    });
    Ok(([(header::CONTENT_TYPE, "application/json")], Body::from_stream(list)).into_response())
}

/// The beginning of what a guest says whose root is one disk: nothing there tells what was the image's.
const UNLAYERED: &str = "the container's root is one disk";

/// A guest's list on its way to JSON.
#[derive(Debug, Default)]
struct List {
    /// The beginning of an entry whose end is still to come.
    part: Vec<u8>,
    is_begun: bool,
}

impl List {
    fn add(&mut self, bytes: &[u8]) -> Bytes {
        let mut text = Vec::new();
        for piece in bytes.split_inclusive(|&byte| byte == 0) {
            self.part.extend_from_slice(piece);
            if self.part.last() != Some(&0) {
                continue;
            }
            if let Some((&letter, path)) = self.part.split_first() {
                text.push(if self.is_begun { b',' } else { b'[' });
                self.is_begun = true;
                let path = String::from_utf8_lossy(&path[..path.len().saturating_sub(1)]);
                text.extend_from_slice(json!({ "Path": path, "Kind": kind(letter) }).to_string().as_bytes());
            }
            self.part.clear();
        }
        text.into()
    }

    fn end(&self) -> Bytes {
        Bytes::from_static(if self.is_begun { b"]\n" } else { b"[]\n" })
    }
}

/// The same of a change that was found here.
fn number(kind: ChangeKind) -> u8 {
    match kind {
        ChangeKind::Changed => 0,
        ChangeKind::Added => 1,
        ChangeKind::Deleted => 2,
    }
}

/// Docker Engine API, `ChangeType`.
fn kind(letter: u8) -> u8 {
    match letter {
        b'A' => 1,
        b'D' => 2,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(parts: &[&[u8]]) -> String {
        let mut list = List::default();
        let mut text: Vec<u8> = parts.iter().flat_map(|part| list.add(part)).collect();
        text.extend(list.end());
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn a_list_may_come_in_any_pieces() {
        let expected = r#"[{"Kind":0,"Path":"/etc"},{"Kind":1,"Path":"/etc/\"new\""},{"Kind":2,"Path":"/gone"}]"#;
        let whole = b"C/etc\0A/etc/\"new\"\0D/gone\0";
        assert_eq!(listed(&[whole]).trim_end(), expected);
        let single: Vec<&[u8]> = whole.chunks(1).collect();
        assert_eq!(listed(&single).trim_end(), expected);
        assert_eq!(listed(&[]).trim_end(), "[]");
    }
}
