//! The host itself: ping, version, info, events.

use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use serde_json::json;

use super::{Api, MIN_VERSION, VERSION};

/// Its paths.
pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new().route("/_ping", get(ping)).route("/version", get(version))
}

async fn ping() -> impl IntoResponse {
    let headers = [
        ("Api-Version", VERSION),
        ("Ostype", "linux"),
        ("Docker-Experimental", "false"),
        ("Swarm", "inactive"),
        ("Cache-Control", "no-cache, no-store, must-revalidate"),
        ("Content-Type", "text/plain; charset=utf-8"),
    ];
    (headers, "OK")
}

async fn version() -> impl IntoResponse {
    let body = json!({
        "Platform": { "Name": "tether Virtual Container Host" },
        "Version": env!("CARGO_PKG_VERSION"),
        "ApiVersion": VERSION,
        "MinAPIVersion": MIN_VERSION,
        "Os": "linux",
        "Arch": "amd64",
    });
    (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], body.to_string())
}
