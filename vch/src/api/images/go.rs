//! Names that images get, and images that go: docker tag, rmi, image prune.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::{event, kept, refused, users};
use crate::api::aside::aside;
use crate::api::error::ApiError;
use crate::api::filters::Filters;
use crate::api::query::Params;
use crate::api::{Api, json};
use crate::containers::Event;
use crate::image_store::{Removal, RemoveError, StoredImage, familiar, normal};
use crate::maker::Maker;
use crate::timestamp::now_ns;

/// Docker tag.
pub(super) async fn tag(maker: Arc<Maker>, name: &str, params: &Params) -> Result<Response, ApiError> {
    let full = named(params.required("repo")?, params.text("tag"))?;
    let image = maker.images.find(name)?;
    let (store, of, to) = (maker.clone(), image.clone(), full.clone());
    let tagged = aside(move || store.images.tag(&of, &to)).await?;
    tagged.map_err(|error| ApiError::internal(format!("{error:#}")))?;
    event(&maker, "tag", &image.id, &familiar(&full), Some(&image));
    Ok(StatusCode::CREATED.into_response())
}

/// The full form of what is to be a name.
pub(in crate::api) fn named(repository: &str, tag: Option<&str>) -> Result<String, ApiError> {
    let text = match tag {
        Some(tag) => format!("{repository}:{tag}"),
        None => repository.to_owned(),
    };
    let full = normal(&text)
        .ok_or_else(|| ApiError::bad_parameter(format!("invalid reference format: {text:?} is no name of an image")))?;
    if full.contains('@') {
        return Err(ApiError::bad_parameter("refusing to create a tag with a digest reference"));
    }
    if full.starts_with("docker.io/library/sha256:") {
        return Err(ApiError::bad_parameter("refusing to create an ambiguous tag using digest algorithm as name"));
    }
    Ok(full)
}

/// Docker rmi.
pub(super) async fn remove(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    params: Params,
    body: Body,
) -> Result<Response, ApiError> {
    let Some(maker) = api.maker.clone() else { return Err(refused(body).await) };
    let force = params.flag("force");
    let image = maker.images.find(&name)?;
    let store = maker.clone();
    let gone = aside(move || store.images.remove(&name, force, || users(&store))).await??;
    Ok(json::json(&told(&maker, &gone, Some(&image))))
}

/// As docker lists what went; events tell of it too.
fn told(maker: &Maker, gone: &[Removal], image: Option<&StoredImage>) -> Vec<Value> {
    let told = gone.iter().map(|removal| match removal {
        Removal::Untagged { name, id } => {
            event(maker, "untag", id, id, image);
            json!({ "Untagged": name })
        }
        Removal::Deleted(id) => {
            event(maker, "delete", id, id, image);
            json!({ "Deleted": id })
        }
        Removal::Layer(layer) => json!({ "Deleted": layer }),
    });
    told.collect()
}

/// Docker image prune: what has no name; with `dangling=false`, all that no container needs.
pub(super) async fn prune(State(api): State<Arc<Api>>, params: Params, body: Body) -> Result<Response, ApiError> {
    let Some(maker) = api.maker.clone() else { return Err(refused(body).await) };
    let filters = Filters::read(&params, &["dangling", "label", "label!", "until"])?;
    let dangling = filters.truth("dangling")?.unwrap_or(true);
    let until = kept::until(&filters)?;
    let (all, used) = (maker.images.list(), users(&maker));
    let before = kept::layers_size(&all);
    let has = |image: &StoredImage, wanted: &str| match wanted.split_once('=') {
        Some((key, value)) => image.config.labels.get(key).is_some_and(|has| has == value),
        None => image.config.labels.contains_key(wanted),
    };
    let fits = |image: &&Arc<StoredImage>| {
        (!dangling || image.names.is_empty())
            && !used.iter().any(|user| user.image == image.id)
            && filters.labels("label", &image.config.labels)
            && filters.all("label!", |label| !has(image, label))
            && until.is_none_or(|until| image.created_ns < until)
    };
    let mut deleted = Vec::new();
    let chosen: Vec<Arc<StoredImage>> = all.iter().filter(fits).cloned().collect();
    for image in chosen {
        let (store, one) = (maker.clone(), image.clone());
        let gone = aside(move || store.images.prune(&one, || users(&store))).await??;
        deleted.extend(told(&maker, &gone, Some(&image)));
    }
    let store = maker.clone();
    let forgotten = aside(move || store.images.forget_unused(|| users(&store))).await?;
    forgotten.map_err(|error| ApiError::internal(format!("{error:#}")))?;
    let reclaimed = before.saturating_sub(kept::layers_size(&maker.images.list()));
    maker.containers.events.tell(Event {
        kind: "image",
        action: "prune".into(),
        id: String::new(),
        attributes: [("reclaimed".to_owned(), reclaimed.to_string())].into(),
        time_ns: now_ns(),
    });
    let deleted = if deleted.is_empty() { Value::Null } else { Value::Array(deleted) };
    Ok(json::json(&json!({ "ImagesDeleted": deleted, "SpaceReclaimed": reclaimed })))
}

impl From<RemoveError> for ApiError {
    fn from(error: RemoveError) -> ApiError {
        match error {
            RemoveError::Unknown(unknown) => unknown.into(),
            RemoveError::Named { .. } | RemoveError::Used { .. } => ApiError::conflict(error.to_string()),
            RemoveError::Failed(_) => ApiError::internal(error.to_string()),
        }
    }
}
