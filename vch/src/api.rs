//! The Docker Engine API, as far as a host can serve it whose machines are made elsewhere (docs/docker-api.md).
//!
//! ```text
//! any version's prefix is taken off ──> routes: one file for each part ──> containers, hub, journal
//! ```
//!
//! It decides which versions are spoken and how a request finds its part; what is not served is refused with a sentence.

mod archive;
mod aside;
mod attach;
mod carried;
mod changes;
mod commit;
mod create;
#[cfg(test)]
mod double;
mod endpoints;
mod error;
mod events;
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
mod networks;
mod query;
mod refused;
mod resources;
mod stdcopy;
mod still;
mod system;
mod update;
mod versions;
mod volumes;
mod wait;

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn;

use self::error::ApiError;
pub(crate) use self::inspect::{Condition, details};
use crate::containers::Containers;
use crate::execs::Execs;
use crate::maker::Maker;

/// What every request may use.
#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) containers: Arc<Containers>,
    pub(crate) execs: Execs,
    /// None: machines are made elsewhere.
    pub(crate) maker: Option<Arc<Maker>>,
}

impl Api {
    /// What makes machines; without one, `why` says what to do instead.
    fn maker(&self, why: &'static str) -> Result<&Arc<Maker>, ApiError> {
        self.maker.as_ref().ok_or_else(|| ApiError::not_implemented(why))
    }
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
        .merge(commit::routes())
        .merge(create::routes())
        .merge(exec::routes())
        .merge(images::routes())
        .merge(lifecycle::routes())
        .merge(listing::routes())
        .merge(logs::routes())
        .merge(resources::routes())
        .merge(system::routes())
        .merge(volumes::routes())
        .merge(update::routes())
        .fallback(async || ApiError::not_found("page not found"))
        .method_not_allowed_fallback(async || ApiError::not_found("page not found"))
        .with_state(api);
    // before it is routed: what is nested under a prefix would have it among its parameters
    Router::new().fallback_service(routes).layer(from_fn(versions::spoken))
}

#[cfg(test)]
mod tests;
