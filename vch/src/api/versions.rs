//! Before and behind every route: the API's version in front of a path, the headers of every answer, and one form for every refusal.
//!
//! It decides which versions are spoken.

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::VERSION;
use super::error::ApiError;

/// The oldest version that is answered: what docker's own client and daemon went down to for years.
const OLDEST: (u32, u32) = (1, 24);
/// [`VERSION`], to compare with.
const NEWEST: (u32, u32) = (1, 50);

/// Takes a version's prefix off, so that every version has the same paths, and makes answers what docker's clients expect.
pub(super) async fn spoken(mut request: Request, next: Next) -> Response {
    let is_head = request.method() == Method::HEAD;
    let answer = match without_version(&mut request) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    };
    let mut answer = if is_head { answer } else { in_json(answer).await };
    let headers = answer.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    answer
}

/// What every answer of docker's has.
const HEADERS: [(&str, &str); 4] = [
    ("api-version", VERSION),
    ("docker-experimental", "false"),
    ("ostype", "linux"),
    ("server", concat!("tether/", env!("CARGO_PKG_VERSION"), " (linux)")),
];

/// `/v1.50/containers/json` is `/containers/json`.
fn without_version(request: &mut Request) -> Result<(), ApiError> {
    let uri = request.uri();
    let Some((version, rest)) = versioned(uri.path()) else { return Ok(()) };
    let asked = format!("client version {}.{} is", version.0, version.1);
    if version > NEWEST {
        return Err(ApiError::bad_parameter(format!("{asked} too new. Maximum supported API version is {VERSION}")));
    }
    if version < OLDEST {
        return Err(ApiError::bad_parameter(format!(
            "{asked} too old. Minimum supported API version is {}.{}, please upgrade your client to a newer version",
            OLDEST.0, OLDEST.1
        )));
    }
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let odd = |_| ApiError::bad_parameter(format!("{uri} is no path"));
    let path = PathAndQuery::try_from(format!("{rest}{query}")).map_err(odd)?;
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(path);
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    Ok(())
}

/// The version in front of a path, and the path behind it; none if there is none.
fn versioned(path: &str) -> Option<((u32, u32), &str)> {
    let rest = path.strip_prefix("/v")?;
    let (version, _) = rest.split_once('/')?;
    let (major, minor) = version.split_once('.')?;
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?;
    Some(((number(major)?, number(minor)?), &rest[version.len()..]))
}

/// Axum refuses what it cannot read in plain text, and with statuses that docker's clients do not know.
async fn in_json(answer: Response) -> Response {
    let status = answer.status();
    let is_json = answer.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/json");
    if is_json || !(status.is_client_error() || status.is_server_error()) {
        return answer;
    }
    let status = match status {
        StatusCode::UNSUPPORTED_MEDIA_TYPE | StatusCode::UNPROCESSABLE_ENTITY | StatusCode::PAYLOAD_TOO_LARGE => {
            StatusCode::BAD_REQUEST
        }
        other => other,
    };
    let (parts, body) = answer.into_parts();
    let text = to_bytes(body, LONGEST).await.unwrap_or_default();
    let mut error = ApiError::new(status, String::from_utf8_lossy(&text).trim()).into_response();
    // what else was said stays said
    for (name, value) in &parts.headers {
        if name != header::CONTENT_TYPE && name != header::CONTENT_LENGTH {
            error.headers_mut().insert(name, value.clone());
        }
    }
    error.map(Body::new)
}

/// Bytes of a refusal.
const LONGEST: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_has_the_same_paths() {
        assert_eq!(versioned("/v1.24/containers/json"), Some(((1, 24), "/containers/json")));
        assert_eq!(versioned("/v1.50/_ping"), Some(((1, 50), "/_ping")));
        for path in ["/_ping", "/volumes/x", "/v1/x", "/version", "/v1.x/y", "/v1.44", "/v.1/x", "/v99999999999.1/x"] {
            assert_eq!(versioned(path), None, "{path}");
        }
        assert_eq!(format!("{}.{}", NEWEST.0, NEWEST.1), VERSION);
    }
}
