//! Docker update: limits and the restart policy of a container whose machine this host makes.
//!
//! It decides nothing: what can be changed is [`crate::maker`]'s to say.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::post;
use bollard_stubs::models::ContainerUpdateBody;
use serde_json::json;

use super::error::ApiError;
use super::{Api, json};

/// Its path.
pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new().route("/containers/{id}/update", post(update))
}

async fn update(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let maker = api.maker(UPDATES)?;
    let container = api.containers.find(&id)?;
    if container.made().is_none() {
        return Err(ApiError::not_implemented(UPDATES));
    }
    let body = body.map_err(|rejection| ApiError::bad_parameter(rejection.body_text()))?;
    let asked: ContainerUpdateBody = json::read(&body)?;
    maker.update(&container, asked).await?;
    Ok(json::json(&json!({ "Warnings": [] })))
}

const UPDATES: &str = "limits of a containerVM are its machine's: change them where it was made";
