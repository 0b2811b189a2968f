//! Answers and questions in JSON, as docker's clients want the ones and write the others.

use axum::body::Bytes;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::ApiError;

/// 200 with this value. The content type stands alone: with a character set behind it, docker's client takes an error for text.
pub(super) fn json(value: &impl Serialize) -> Response {
    with_status(StatusCode::OK, value)
}

/// The same with another status.
pub(super) fn with_status(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => (status, [(header::CONTENT_TYPE, "application/json")], bytes).into_response(),
        Err(error) => ApiError::internal(format!("cannot write the answer: {error}")).into_response(),
    }
}

/// A body, whatever its content type says: some clients say nothing.
pub(super) fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| ApiError::bad_parameter(format!("invalid JSON: {error}")))
}
