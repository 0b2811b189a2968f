//! Files in and out of containers, and what a container changed.

use std::sync::Arc;

use axum::Router;

use super::Api;

/// Its paths.
pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new()
}
