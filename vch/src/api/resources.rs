//! What containers use: top and stats.

use std::sync::Arc;

use axum::Router;

use super::Api;

/// Its paths.
pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new()
}
