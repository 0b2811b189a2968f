//! Docker create: a container of an image that this host keeps.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bollard_stubs::models::ContainerCreateBody;
use serde_json::{Value, json};

use super::error::ApiError;
use super::query::Params;
use super::{Api, json, refused};
use crate::containers::{Container, NameError};
use crate::maker::{self, MakeError, Maker};
use crate::volumes::VolumeError;

/// Its path.
pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new().route("/containers/create", post(create))
}

async fn create(
    State(api): State<Arc<Api>>,
    params: Params,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let maker = api.maker(refused::MAKES)?;
    let body = body.map_err(|rejection| ApiError::bad_parameter(rejection.body_text()))?;
    if body.is_empty() {
        return Err(ApiError::bad_parameter("invalid JSON: got EOF while reading request body"));
    }
    let asked: Value = json::read(&body)?;
    let wanted = asked["Image"].as_str().unwrap_or_default().to_owned();
    let (asked, warnings) = maker.asked(asked)?;
    platform(params.text("platform"), &wanted)?;
    let container = match params.text("name") {
        Some(name) => maker.create(Some(name), asked).await?,
        None => unnamed(maker, &asked).await?,
    };
    let told = json::json(&json!({ "Id": container.id, "Warnings": warnings }));
    Ok((StatusCode::CREATED, told).into_response())
}

/// Gives it a name that nobody has.
async fn unnamed(maker: &Arc<Maker>, asked: &ContainerCreateBody) -> Result<Arc<Container>, ApiError> {
    for _ in 0..ATTEMPTS {
        match maker.create(Some(&maker::name().map_err(MakeError::from)?), asked.clone()).await {
            Err(MakeError::Name(NameError::Taken { .. })) => {}
            made => return Ok(made?),
        }
    }
    // its id is nobody else's
    Ok(maker.create(None, asked.clone()).await?)
}

/// Images are for linux/amd64 here, whatever registries have.
fn platform(asked: Option<&str>, image: &str) -> Result<(), ApiError> {
    let Some(asked) = asked else { return Ok(()) };
    let words: Vec<&str> = asked.split('/').collect();
    match words.as_slice() {
        ["linux"] | ["amd64" | "x86_64"] | ["linux", "amd64" | "x86_64", ..] => Ok(()),
        _ => Err(ApiError::not_found(format!(
            "image with reference {image} was found but its platform (linux/amd64) does not match the specified platform ({asked})"
        ))),
    }
}

/// Of random names, before there is none.
const ATTEMPTS: usize = 6;

impl From<MakeError> for ApiError {
    fn from(error: MakeError) -> ApiError {
        let message = error.to_string();
        match error {
            MakeError::Refused(_) | MakeError::Unstartable(_) => ApiError::bad_parameter(message),
            MakeError::NoImage(_) => ApiError::not_found(message),
            MakeError::Volume(VolumeError::Unknown(_)) => ApiError::not_found(message),
            MakeError::Volume(VolumeError::InUse(_)) | MakeError::InUse(_) => ApiError::conflict(message),
            MakeError::Volume(VolumeError::Failed(_)) => ApiError::internal(message),
            MakeError::Volume(_) => ApiError::bad_parameter(message),
            MakeError::Name(error) => error.into(),
            MakeError::Network(error) => error.into(),
            MakeError::Conflict(_) => ApiError::conflict(message),
            MakeError::Failed(_) => ApiError::internal(message),
        }
    }
}
