//! Images: those that this host keeps, if it makes machines; else what its containers were made of, and whatever is asked of a store is refused with a sentence.
//!
//! ```text
//! kept    list, inspect, history     come      load, import    pull, save: as it goes on    go      tag, rmi, prune
//! known   the same without a store   registry  login, distribution                          usage   system df
//! ```

mod come;
mod go;
mod kept;
mod known;
mod lines;
mod patterns;
mod pull;
mod registry;
mod save;
mod usage;

pub(super) use self::go::named;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::{get, post};

use super::Api;
use super::carried;
use super::error::ApiError;
use super::filters::Filters;
use super::json;
use super::query::Params;
use crate::containers::Event;
use crate::image_store::{StoredImage, UnknownImage, User};
use crate::maker::Maker;
use crate::timestamp::now_ns;

/// Its paths.
pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/images/json", get(list))
        .route("/images/search", get(search))
        .route("/images/get", get(save::several))
        .route("/auth", post(registry::login))
        .route("/distribution/{*rest}", get(registry::look))
        .route("/images/create", post(create))
        .route("/images/load", post(come::load))
        .route("/images/prune", post(go::prune))
        // names may hold slashes
        .route("/images/{*rest}", get(about).post(change).delete(go::remove))
        .merge(usage::routes())
}

async fn list(State(api): State<Arc<Api>>, params: Params) -> Result<Response, ApiError> {
    let filters = Filters::read(&params, &["reference", "dangling", "label", "since", "before", "until"])?;
    let listed = match &api.maker {
        None => known::list(&api.containers, &filters)?,
        Some(maker) => kept::list(maker, &params, &filters)?,
    };
    Ok(json::json(&listed))
}

async fn about(State(api): State<Arc<Api>>, Path(rest): Path<String>) -> Result<Response, ApiError> {
    let Some((name, what)) = rest.rsplit_once('/') else { return Err(ApiError::not_found("page not found")) };
    match (what, api.maker.clone()) {
        ("json", None) => Ok(json::json(&known::details(&api.containers, name)?)),
        ("history", None) => Ok(json::json(&known::history(&api.containers, name)?)),
        ("get", None) => Err(no_store()),
        ("json", Some(maker)) => kept::details(maker, name).await,
        ("get", Some(maker)) => save::save(maker, vec![name.to_owned()]).await,
        ("history", Some(maker)) => kept::history(maker, name).await,
        _ => Err(ApiError::not_found("page not found")),
    }
}

async fn change(
    State(api): State<Arc<Api>>,
    Path(rest): Path<String>,
    params: Params,
    body: Body,
) -> Result<Response, ApiError> {
    let Some(maker) = api.maker.clone() else { return Err(refused(body).await) };
    match rest.rsplit_once('/') {
        Some((name, "tag")) => go::tag(maker, name, &params).await,
        Some((_, "push")) => Err(ApiError::not_implemented(
            "this host does not push: docker save IMAGE | skopeo copy docker-archive:/dev/stdin docker://NAME does",
        )),
        _ => Err(ApiError::not_found("page not found")),
    }
}

/// Docker pull, and docker import.
async fn create(
    State(api): State<Arc<Api>>,
    params: Params,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let Some(maker) = api.maker.clone() else { return Err(refused(body).await) };
    match (params.text("fromImage"), params.text("fromSrc")) {
        (None, Some("-")) => come::import(maker, params, body).await,
        (None, Some(_)) => {
            Err(ApiError::not_implemented("this host fetches no archives: curl URL | docker import - NAME does"))
        }
        (Some(image), _) => pull::pull(maker, image, &params, &headers).await,
        (None, None) => Err(ApiError::bad_parameter("say fromImage, or fromSrc=-")),
    }
}

async fn search(State(api): State<Arc<Api>>) -> ApiError {
    if api.maker.is_none() {
        return no_store();
    }
    ApiError::not_implemented(
        "this host does not search registries: https://hub.docker.com/search does, for those of Docker Hub",
    )
}

async fn refused(body: Body) -> ApiError {
    // a client that loads an image would rather write to the end than read why not
    carried::drain(&mut body.into_data_stream()).await;
    no_store()
}

fn no_store() -> ApiError {
    ApiError::not_implemented(
        "this host keeps no images: its containers are virtual machines, and what they run is chosen where they are made (vch run, vch vmx, vch ova)",
    )
}

/// The containers that need an image.
fn users(maker: &Maker) -> Vec<User> {
    User::all(&maker.containers)
}

/// Tells of an image: `id` is what it happened to, `name` what that is called.
pub(super) fn event(maker: &Maker, action: &str, id: &str, name: &str, image: Option<&StoredImage>) {
    let mut attributes: BTreeMap<String, String> = image.map(|image| image.config.labels.clone()).unwrap_or_default();
    attributes.insert("name".into(), name.into());
    maker.containers.events.tell(Event {
        kind: "image",
        action: action.into(),
        id: id.into(),
        attributes,
        time_ns: now_ns(),
    });
}

impl From<UnknownImage> for ApiError {
    fn from(error: UnknownImage) -> ApiError {
        match error {
            UnknownImage::None(_) => ApiError::not_found(error.to_string()),
            UnknownImage::Many(_) => ApiError::bad_parameter(error.to_string()),
        }
    }
}
