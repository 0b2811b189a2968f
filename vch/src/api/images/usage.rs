//! Docker system df. What a container has written is on its machine's disk; where this host keeps no images either, sizes are 0.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use serde_json::json;

use super::{kept, known, users};
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
    let (size, images) = match &api.maker {
        None => (0, known::usage(&api.containers)),
        Some(maker) => {
            let (all, users) = (maker.images.list(), users(maker));
            let shared = kept::shared(&all);
            let summary = |image: &Arc<_>| {
                let image: &crate::image_store::StoredImage = image;
                let containers = users.iter().filter(|user| user.image == image.id).count();
                let shared = shared.get(&image.id).copied().unwrap_or_default();
                kept::summary(image, i64::try_from(containers).unwrap_or(i64::MAX), kept::signed(shared))
            };
            (kept::layers_size(&all), all.iter().map(summary).collect())
        }
    };
    let containers = listing::with_sizes(&api).await;
    Ok(json::json(&json!({
        "LayersSize": size,
        "Images": images,
        "Containers": containers,
        "Volumes": volumes::usage(&api).await?,
        "BuildCache": [],
    })))
}
