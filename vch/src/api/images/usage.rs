//! Docker system df. What containers and images take is on the disks of machines, and this host does not see those: sizes are 0.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use serde_json::{Value, json};

use super::known;
use crate::api::Api;
use crate::api::error::ApiError;
use crate::api::json;
use crate::api::listing;
use crate::api::volumes;

/// Its path.
pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new().route("/system/df", get(usage))
}

async fn usage(State(api): State<Arc<Api>>) -> Result<Response, ApiError> {
    let known = known(&api.containers);
    let images: Vec<Value> =
        known.values().map(|image| image.summary(i64::try_from(image.containers).unwrap_or(i64::MAX))).collect();
    let containers = listing::with_sizes(&api).await;
    Ok(json::json(&json!({
        "LayersSize": 0,
        "Images": images,
        "Containers": containers,
        "Volumes": volumes::usage(&api).await?,
        "BuildCache": [],
    })))
}
