//! Images, as far as this host knows them: what its containers run.

use std::sync::Arc;

use axum::Router;

use super::Api;

/// Its paths.
pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new()
}
