//! Docker wait: the head of the answer at once, and the body when it has happened.
//!
//! Docker's client asks before it starts a container, and starts it only when the head is there: so what is waited for is counted from the question on, and
//! nothing that happens meanwhile is missed, however short.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures_util::stream;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::Api;
use super::error::ApiError;
use super::query::Params;
use crate::containers::{Exited, Life};

/// Its path.
pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new().route("/containers/{id}/wait", post(wait))
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    /// It does not run: at once, if that is so already.
    NotRunning,
    /// It ends after now.
    NextExit,
    /// It is forgotten, and its name free.
    Removed,
}

async fn wait(State(api): State<Arc<Api>>, Path(id): Path<String>, params: Params) -> Result<Response, ApiError> {
    let condition = match params.text("condition") {
        None | Some("not-running") => Condition::NotRunning,
        Some("next-exit") => Condition::NextExit,
        Some("removed") => Condition::Removed,
        Some(other) => return Err(ApiError::bad_parameter(format!("invalid condition: {other:?}"))),
    };
    let container = api.containers.find(&id)?;
    // why one has ended whose machine this host makes is at the container: docker's client takes a reason here for a failure to wait
    let tells_reasons = container.made().is_none();
    let life = container.watch();
    drop(container);
    let exits = life.borrow().exits;
    let body = stream::once(async move {
        let mut answer = happened(life, condition, exits).await;
        if !tells_reasons {
            answer.as_object_mut().map(|answer| answer.remove("Error"));
        }
        Ok::<_, std::convert::Infallible>(Bytes::from(format!("{answer}\n")))
    });
    // hyper sends the head while the body is still awaited
    Ok(([(header::CONTENT_TYPE, "application/json")], Body::from_stream(body)).into_response())
}

/// The answer, once there is one.
async fn happened(mut life: watch::Receiver<Life>, condition: Condition, exits: u64) -> Value {
    let has = |life: &Life| {
        life.removed
            || match condition {
                Condition::NotRunning => !life.state.is_active() || life.exits > exits,
                Condition::NextExit => life.exits > exits,
                Condition::Removed => false,
            }
    };
    let last = match life.wait_for(has).await {
        Ok(life) => life.last.clone(),
        // forgotten, and nobody is left who could tell
        Err(_) => None,
    };
    answer(last.as_ref())
}

/// One that has never ended has 0, as with docker.
fn answer(last: Option<&Exited>) -> Value {
    match last {
        None => json!({ "StatusCode": 0 }),
        Some(Exited { code, error, .. }) if error.is_empty() => json!({ "StatusCode": code }),
        Some(Exited { code, error, .. }) => json!({ "StatusCode": code, "Error": { "Message": error } }),
    }
}
