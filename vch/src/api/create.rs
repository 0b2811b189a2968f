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
use serde_json::json;

use super::error::ApiError;
use super::query::Params;
use super::{Api, json, refused};
use crate::maker::MakeError;
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
    let asked: ContainerCreateBody = json::read(&body)?;
    let container = maker.create(params.text("name"), asked).await?;
    let told = json::json(&json!({ "Id": container.id, "Warnings": [] }));
    Ok((StatusCode::CREATED, told).into_response())
}

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
            MakeError::Conflict(_) => ApiError::conflict(message),
            MakeError::Failed(_) => ApiError::internal(message),
        }
    }
}
