//! Images that this host keeps, as docker lists and inspects them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::response::Response;
use serde_json::{Value, json};

use super::patterns::is_called;
use crate::api::aside::aside;
use crate::api::error::ApiError;
use crate::api::filters::Filters;
use crate::api::json;
use crate::api::query::Params;
use crate::image_store::StoredImage;
use crate::maker::Maker;
use crate::timestamp;

/// Docker images: the newest first.
pub(super) fn list(maker: &Maker, params: &Params, filters: &Filters) -> Result<Vec<Value>, ApiError> {
    let all = maker.images.list();
    let dangling = filters.truth("dangling")?;
    let created = |name: &str| match filters.values(name) {
        [] => Ok(None),
        [first, ..] => maker.images.find(first).map(|image| Some(image.created_ns)),
    };
    let (since, before, until) = (created("since")?, created("before")?, until(filters)?);
    let parents: BTreeSet<&String> = all.iter().filter_map(|image| image.parent.as_ref()).collect();
    let fits = |image: &&Arc<StoredImage>| {
        // what others were committed from, and nobody calls by a name
        let is_between = image.names.is_empty() && image.digests.is_empty() && parents.contains(&image.id);
        (params.flag("all") || !is_between)
            && dangling.is_none_or(|dangling| dangling == image.names.is_empty())
            && filters.any("reference", |pattern| is_called(image.names.iter().chain(&image.digests), pattern))
            && filters.labels("label", &image.config.labels)
            && since.is_none_or(|since| image.created_ns > since)
            && before.is_none_or(|before| image.created_ns < before)
            && until.is_none_or(|until| image.created_ns < until)
    };
    let mut listed: Vec<&Arc<StoredImage>> = all.iter().filter(fits).collect();
    listed.sort_by_key(|image| std::cmp::Reverse(image.created_ns));
    let shared = params.flag("shared-size").then(|| shared(&all));
    let size =
        |image: &StoredImage| shared.as_ref().and_then(|shared| shared.get(&image.id)).map_or(-1, |&size| signed(size));
    // of its names those are told that were asked for
    let asked = |image: &StoredImage| {
        let fits = |name: &&String| filters.any("reference", |pattern| is_called(std::iter::once(*name), pattern));
        let names = |all: &[String]| -> Vec<String> { all.iter().filter(fits).cloned().collect() };
        let mut told = image.clone();
        (told.names, told.digests) = (names(&image.names), names(&image.digests));
        told
    };
    Ok(listed.into_iter().map(|image| summary(&asked(image), -1, size(image))).collect())
}

/// `until=`, of docker images and of prune.
pub(super) fn until(filters: &Filters) -> Result<Option<u64>, ApiError> {
    let wrong = |text: &str| ApiError::bad_parameter(format!("invalid filter 'until={text}'"));
    match filters.values("until") {
        [] => Ok(None),
        [one] => timestamp::parse(one, timestamp::now_ns()).map(Some).ok_or_else(|| wrong(one)),
        _ => Err(ApiError::bad_parameter("more than one until filter specified")),
    }
}

/// One line of `docker images`.
pub(super) fn summary(image: &StoredImage, containers: i64, shared: i64) -> Value {
    json!({
        "Containers": containers,
        "Created": image.created_ns / 1_000_000_000,
        "Id": image.id,
        "Labels": image.config.labels,
        "ParentId": image.parent.as_deref().unwrap_or_default(),
        "RepoDigests": image.digests,
        "RepoTags": image.names,
        "SharedSize": shared,
        "Size": image.size(),
    })
}

/// The bytes of each image's layers that others have too.
pub(super) fn shared(all: &[Arc<StoredImage>]) -> BTreeMap<String, u64> {
    let mut count: BTreeMap<&_, usize> = BTreeMap::new();
    for layer in all.iter().flat_map(|image| &image.chain) {
        *count.entry(layer).or_default() += 1;
    }
    let of = |image: &Arc<StoredImage>| {
        let layers = image.chain.iter().zip(&image.sizes);
        layers.filter(|(layer, _)| count.get(layer).is_some_and(|&count| count > 1)).map(|(_, size)| size).sum()
    };
    all.iter().map(|image| (image.id.clone(), of(image))).collect()
}

/// The bytes of all layers, each counted once.
pub(super) fn layers_size(all: &[Arc<StoredImage>]) -> u64 {
    let layers: BTreeMap<_, _> = all.iter().flat_map(|image| image.chain.iter().zip(&image.sizes)).collect();
    layers.into_values().sum()
}

pub(super) fn signed(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

/// Docker image inspect.
pub(super) async fn details(maker: Arc<Maker>, name: &str) -> Result<Response, ApiError> {
    let image = maker.images.find(name)?;
    let document = document(maker, image.clone()).await?;
    Ok(json::json(&inspected(&image, &document)))
}

fn inspected(image: &StoredImage, document: &Value) -> Value {
    let text = |key: &str| document[key].as_str().unwrap_or_default();
    let last = document["history"].as_array().and_then(|history| history.last());
    let comment = last.and_then(|entry| entry["comment"].as_str()).unwrap_or_default();
    let mut config = json!({
        "Cmd": null, "Entrypoint": null, "Env": null, "Labels": null, "OnBuild": null, "User": "", "Volumes": null, "WorkingDir": "",
    });
    if let (Some(config), Some(own)) = (config.as_object_mut(), document["config"].as_object()) {
        config.extend(own.clone());
    }
    let tagged = image.tagged_ns.map_or_else(|| NEVER.to_owned(), timestamp::format);
    let created = if image.created.is_empty() { NEVER } else { &image.created };
    let mut told = json!({
        "Id": image.id,
        "RepoTags": image.names,
        "RepoDigests": image.digests,
        "Parent": image.parent.as_deref().unwrap_or_default(),
        "Comment": Some(text("comment")).filter(|text| !text.is_empty()).unwrap_or(comment),
        "Created": created,
        "DockerVersion": text("docker_version"),
        "Author": text("author"),
        "Architecture": text("architecture"),
        "Os": text("os"),
        "Size": image.size(),
        "GraphDriver": { "Data": {}, "Name": "vm" },
        "RootFS": { "Type": "layers", "Layers": document["rootfs"]["diff_ids"] },
        "Metadata": { "LastTagTime": tagged },
        "Config": config,
    });
    if !text("variant").is_empty() {
        told["Variant"] = json!(text("variant"));
    }
    told
}

/// Docker history.
pub(super) async fn history(maker: Arc<Maker>, name: &str) -> Result<Response, ApiError> {
    let image = maker.images.find(name)?;
    let document = document(maker, image.clone()).await?;
    Ok(json::json(&told(&image, &document)))
}

/// The newest first; only the newest has an id.
fn told(image: &StoredImage, document: &Value) -> Vec<Value> {
    let mut sizes = image.sizes.iter();
    let entries = document["history"].as_array().cloned().unwrap_or_default();
    let told = entries.iter().map(|entry| {
        let text = |key: &str| entry[key].as_str().unwrap_or_default();
        let is_empty = entry["empty_layer"].as_bool().unwrap_or_default();
        let size = if is_empty { 0 } else { sizes.next().copied().unwrap_or_default() };
        let created = timestamp::parse(text("created"), 0).unwrap_or_default() / 1_000_000_000;
        json!({
            "Comment": text("comment"),
            "Created": created,
            "CreatedBy": text("created_by"),
            "Id": "<missing>",
            "Size": size,
            "Tags": null,
        })
    });
    let mut told: Vec<Value> = told.collect();
    told.reverse();
    if let Some(newest) = told.first_mut() {
        newest["Id"] = json!(image.id);
        newest["Tags"] = json!(image.names);
    }
    told
}

async fn document(maker: Arc<Maker>, image: Arc<StoredImage>) -> Result<Value, ApiError> {
    let document = aside(move || maker.images.document(&image)).await?;
    document.map_err(|error| ApiError::internal(format!("{error:#}")))
}

/// Go's zero.
const NEVER: &str = "0001-01-01T00:00:00Z";
