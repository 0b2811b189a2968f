//! Refusals as docker's clients want them: a status, and `{"message": ...}` under the plainest of content types.

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::containers::{AbsentError, FindError, NameError};
use crate::execs::ExecError;
use crate::hub::HubError;
use crate::networks::NetworkError;

/// Why a request is not met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ApiError {
    pub(super) status: StatusCode,
    pub(super) message: String,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> ApiError {
        ApiError { status, message: message.into() }
    }

    /// 400: the request makes no sense.
    pub(super) fn bad_parameter(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, message)
    }

    /// 404: there is no such thing.
    pub(super) fn not_found(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::NOT_FOUND, message)
    }

    /// 409: not in this state.
    pub(super) fn conflict(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::CONFLICT, message)
    }

    /// 500: it failed, and it is not the client's fault.
    pub(super) fn internal(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    /// 501: this host does not do that, and why.
    pub(super) fn not_implemented(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::NOT_IMPLEMENTED, message)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        // with a character set behind it, docker's client would print the JSON as it is
        let kind = [(header::CONTENT_TYPE, "application/json")];
        (self.status, kind, json!({ "message": self.message }).to_string()).into_response()
    }
}

impl From<FindError> for ApiError {
    fn from(error: FindError) -> ApiError {
        match error {
            FindError::Unknown(_) => ApiError::not_found(error.to_string()),
            FindError::Ambiguous(_) => ApiError::bad_parameter(error.to_string()),
        }
    }
}

impl From<NameError> for ApiError {
    fn from(error: NameError) -> ApiError {
        match error {
            NameError::Invalid(_) => ApiError::bad_parameter(error.to_string()),
            NameError::Taken { .. } => ApiError::conflict(error.to_string()),
        }
    }
}

impl From<NetworkError> for ApiError {
    fn from(error: NetworkError) -> ApiError {
        let message = error.to_string();
        match error {
            NetworkError::Unknown(_) | NetworkError::Missing(_) => ApiError::not_found(message),
            NetworkError::Ambiguous(..) | NetworkError::Invalid(_) | NetworkError::Refused(_) => {
                ApiError::bad_parameter(message)
            }
            NetworkError::Exists(_) => ApiError::conflict(message),
            NetworkError::Forbidden(_) => ApiError::new(StatusCode::FORBIDDEN, message),
            NetworkError::Setup(_) | NetworkError::Failed(_) => ApiError::internal(message),
        }
    }
}

impl From<AbsentError> for ApiError {
    fn from(error: AbsentError) -> ApiError {
        match error {
            AbsentError::NotRunning(_) | AbsentError::Paused(_) => ApiError::conflict(error.to_string()),
            AbsentError::Unreachable(_) => ApiError::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
        }
    }
}

impl From<ExecError> for ApiError {
    fn from(error: ExecError) -> ApiError {
        match error {
            ExecError::Unknown(_) => ApiError::not_found(error.to_string()),
            ExecError::Running(_) | ExecError::Ended(_) | ExecError::NotRunning(_) => {
                ApiError::conflict(error.to_string())
            }
        }
    }
}

impl From<HubError> for ApiError {
    fn from(error: HubError) -> ApiError {
        match error {
            HubError::Failed(_) | HubError::Refused(_) => ApiError::bad_parameter(error.to_string()),
            HubError::NoSession(_) => ApiError::not_found(error.to_string()),
            HubError::InputClosed | HubError::Offset { .. } => ApiError::conflict(error.to_string()),
            HubError::Closed(_) | HubError::Lost(_) | HubError::Stopped => ApiError::internal(error.to_string()),
        }
    }
}

impl From<QueryRejection> for ApiError {
    fn from(rejection: QueryRejection) -> ApiError {
        ApiError::bad_parameter(rejection.body_text())
    }
}

impl From<JsonRejection> for ApiError {
    fn from(rejection: JsonRejection) -> ApiError {
        ApiError::bad_parameter(rejection.body_text())
    }
}
