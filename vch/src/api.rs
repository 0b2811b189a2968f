//! The Docker Engine API, as far as a host can serve it whose machines are made elsewhere (docs/docker-api.md).
//!
//! ```text
//! any version's prefix is taken off ──> routes: one file for each part ──> containers, hub, journal
//! ```
//!
//! It decides which versions are spoken and how a request finds its part; what is not served is refused with a sentence.

mod archive;
mod attach;
mod carried;
mod changes;
mod endpoints;
mod error;
mod exec;
mod filters;
mod hijack;
mod images;
mod input;
mod inspect;
mod json;
mod lifecycle;
mod listing;
mod logs;
mod query;
mod resources;
mod stdcopy;
mod system;
mod wait;

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::Uri;
use axum::http::uri::PathAndQuery;
use tower::ServiceExt as _;

use self::error::ApiError;
use crate::containers::Containers;
use crate::execs::Execs;

/// What every request may use.
#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) containers: Arc<Containers>,
    pub(crate) execs: Execs,
}

/// The newest version that is spoken; a client that speaks a newer one speaks this one then.
const VERSION: &str = "1.50";
/// The oldest that is promised. Older ones are answered in the same way, down to 1.24.
const MIN_VERSION: &str = "1.44";

/// The API. It is a service for any listener.
pub(crate) fn router(api: Arc<Api>) -> Router {
    let routes = Router::new()
        .merge(archive::routes())
        .merge(attach::routes())
        .merge(changes::routes())
        .merge(exec::routes())
        .merge(images::routes())
        .merge(lifecycle::routes())
        .merge(listing::routes())
        .merge(logs::routes())
        .merge(resources::routes())
        .merge(system::routes())
        .fallback(async || ApiError::not_found("page not found"))
        .method_not_allowed_fallback(async || ApiError::not_found("page not found"))
        .with_state(api);
    // before it is routed: what is nested under a prefix would have it among its parameters
    Router::new().fallback_service(routes.map_request(without_version))
}

/// `/v1.50/containers/json` is `/containers/json`.
fn without_version(mut request: Request) -> Request {
    let uri = request.uri();
    let Some(rest) = unversioned(uri.path()) else { return request };
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    if let Ok(path) = PathAndQuery::try_from(format!("{rest}{query}")) {
        let mut parts = uri.clone().into_parts();
        parts.path_and_query = Some(path);
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
    }
    request
}

/// The path behind a version's prefix; none if there is none.
fn unversioned(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("/v")?;
    let (version, _) = rest.split_once('/')?;
    let (major, minor) = version.split_once('.')?;
    let is_number = |text: &str| !text.is_empty() && text.chars().all(|char| char.is_ascii_digit());
    (is_number(major) && is_number(minor)).then(|| &rest[version.len()..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_has_the_same_paths() {
        assert_eq!(unversioned("/v1.24/containers/json"), Some("/containers/json"));
        assert_eq!(unversioned("/v1.50/_ping"), Some("/_ping"));
        for path in ["/_ping", "/volumes/x", "/v1/x", "/version", "/v1.x/y", "/v1.44"] {
            assert_eq!(unversioned(path), None, "{path}");
        }
    }
}
