//! Docker attach: a container's streams, hijacked or by websocket.

use std::sync::Arc;

use axum::Router;

use super::Api;

/// Its paths.
pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new()
}
