//! The status page: what a person sees of this host and its containers in a browser, a log bundle to send to somebody, and the same facts for machines.
//!
//! ```text
//! containers, guests' answers ──> facts ──> overview, details    pages of HTML, made here: they need no script and nothing from elsewhere
//!                                   └─────> /status.json
//! journals, own log, facts ──────> bundle                        /logs.tar.gz, made while it is sent
//! ```
//!
//! It decides what is shown, and changes nothing: it answers GET alone. What containers and their guests say is theirs to choose, so all of it is escaped; keys and
//! the values of environment variables are never shown. Who may look is decided where browsers connect ([`crate::listen`]).

mod bundle;
mod details;
mod facts;
mod html;
mod lines;
mod overview;
mod own_log;
mod vitals;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderName, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use tokio::sync::Semaphore;

use self::facts::{ContainerFacts, Facts, HostFacts};
use self::vitals::Vitals;
use crate::containers::{Container, Containers, FindError};
use crate::timestamp::now_ns;

pub(crate) use self::own_log::said;

/// What the page shows.
#[derive(Debug)]
pub(crate) struct Page {
    containers: Arc<Containers>,
    /// Where others connect, by whom: as they were told when this program began.
    listeners: [(&'static str, Vec<String>); 3],
    began_ns: u64,
    vitals: Arc<Vitals>,
    /// Bundles on their way.
    bundles: Arc<Semaphore>,
    policy: String,
}

impl Page {
    /// `listeners`: where others connect, and what kind of others.
    pub(crate) fn new(containers: Arc<Containers>, listeners: [(&'static str, Vec<String>); 3]) -> Arc<Page> {
        Arc::new(Page {
            containers,
            listeners,
            began_ns: now_ns(),
            vitals: Arc::default(),
            bundles: Arc::new(Semaphore::new(BUNDLES)),
            policy: html::policy(),
        })
    }

    fn host(&self) -> HostFacts {
        HostFacts::of(&self.containers.list(), &self.listeners, self.began_ns, now_ns())
    }

    /// All that is known, with what guests answer within a moment.
    async fn facts(&self) -> Facts {
        let containers = self.containers.list();
        self.vitals.refresh(&containers).await;
        let now = now_ns();
        let told = containers.iter().map(|container| self.told(container, now)).collect();
        Facts { host: self.host(), containers: told }
    }

    fn told(&self, container: &Container, now_ns: u64) -> ContainerFacts {
        ContainerFacts::of(container, self.vitals.last(&container.id), now_ns)
    }

    fn find(&self, id: &str) -> Result<Arc<Container>, NotFound> {
        self.containers.find(id).map_err(|error| match error {
            FindError::Unknown(_) => NotFound("There is no such container, or not any more."),
            FindError::Ambiguous(_) => NotFound("More than one container’s id begins so."),
        })
    }
}

/// The page. It is a service for any listener.
pub(crate) fn router(page: Arc<Page>) -> Router {
    Router::new()
        .route("/", get(overview))
        .route("/containers/{id}", get(details))
        .route("/containers/{id}/log.txt", get(log))
        .route("/logs.tar.gz", get(bundle))
        .route("/status.json", get(status))
        .route("/health", get(async || "well\n"))
        .fallback(async || NotFound("There is no such page."))
        .layer(from_fn_with_state(page.clone(), guard))
        .with_state(page)
}

/// Nothing but GET, and with every answer what browsers are to keep to.
async fn guard(State(page): State<Arc<Page>>, request: Request, next: Next) -> Response {
    let mut response = match *request.method() {
        Method::GET | Method::HEAD => next.run(request).await,
        _ => (
            StatusCode::METHOD_NOT_ALLOWED,
            [(header::ALLOW, "GET, HEAD")],
            "The status page changes nothing: it takes GET alone.\n",
        )
            .into_response(),
    };
    let headers = response.headers_mut();
    let rules = [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ];
    for (name, value) in rules {
        headers.insert(name, header::HeaderValue::from_static(value));
    }
    if let Ok(policy) = page.policy.parse() {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    response
}

async fn overview(State(page): State<Arc<Page>>) -> Html<String> {
    Html(overview::page(&page.facts().await))
}

async fn details(State(page): State<Arc<Page>>, Path(id): Path<String>) -> Result<Html<String>, NotFound> {
    let container = page.find(&id)?;
    page.vitals.refresh(std::slice::from_ref(&container)).await;
    let log = lines::last(&container.journal, details::LINES).await;
    Ok(Html(details::page(&container, &page.told(&container, now_ns()), &log)))
}

async fn status(State(page): State<Arc<Page>>) -> Response {
    let facts = page.facts().await;
    let text = serde_json::to_string_pretty(&facts).unwrap_or_default();
    ([(header::CONTENT_TYPE, "application/json")], text + "\n").into_response()
}

async fn log(State(page): State<Arc<Page>>, Path(id): Path<String>) -> Result<Response, NotFound> {
    let container = page.find(&id)?;
    let kind = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8".to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{}.log\"", html::file_name(&container.name()))),
    ];
    Ok((kind, Body::from_stream(lines::whole(container.journal.clone()))).into_response())
}

async fn bundle(State(page): State<Arc<Page>>) -> Response {
    let Ok(place) = page.bundles.clone().try_acquire_owned() else {
        let busy = "Others are downloading the logs at this moment: try again later.\n";
        return (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "30")], busy).into_response();
    };
    let status = serde_json::to_vec_pretty(&page.facts().await).unwrap_or_default();
    let kind = [
        (header::CONTENT_TYPE, "application/gzip"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"vch-logs.tar.gz\""),
    ];
    let body = bundle::stream(bundle::Contents { containers: page.containers.list(), status }, place);
    (kind, Body::from_stream(body)).into_response()
}

/// There is no such thing, and a sentence about it.
struct NotFound(&'static str);

impl IntoResponse for NotFound {
    fn into_response(self) -> Response {
        (StatusCode::NOT_FOUND, Html(html::not_found(self.0))).into_response()
    }
}

/// Each takes some MiB while it is made.
const BUNDLES: usize = 2;

#[cfg(test)]
mod tests;
