//! Docker commit: what a container has changed of its image becomes a layer over it, and both a new image.
//!
//! ```text
//! machine off                                ─┐
//! machine on: sync ──> processors stand still ─┴─> its disks, journal replayed ──> layer, configuration ──> images ──> processors go on
//! ```
//!
//! It decides when the disks are read and what the new image says of itself. What counts as a change is decided in [`crate::root_disk`], how an image is kept in
//! [`crate::image_store`].

mod sync;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write as _};
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::post;
use iso_builder::tree::ROOT;
use serde_json::{Value, json};

use super::aside::aside;
use super::error::ApiError;
use super::images::{event, named};
use super::query::Params;
use super::still::is_still;
use super::{Api, inspect, json as answer};
use crate::containers::Container;
use crate::hypervisor::{Order, Powered};
use crate::image_store::{Deed, apply_change, familiar};
use crate::maker::Maker;
use crate::root_disk::{Names, RootDisk, pack, whiteouts};
use crate::timestamp::now_ns;

/// Its path.
pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new().route("/commit", post(commit))
}

async fn commit(State(api): State<Arc<Api>>, params: Params, body: Bytes) -> Result<Response, ApiError> {
    let maker = api.maker(COMMITS)?.clone();
    let container = api.containers.find(params.required("container")?)?;
    if container.made().is_none() {
        return Err(ApiError::not_implemented(COMMITS));
    }
    let name = params.text("repo").map(|repository| named(repository, params.text("tag"))).transpose()?;
    let mut config = asked(&body)?;
    for line in params.all("changes").filter(|line| !line.is_empty()) {
        apply_change(&mut config, line)?;
    }
    let own = inspect::details(&container, Vec::new())["Config"].clone();
    let deed = Deed {
        created_ns: now_ns(),
        author: params.text("author").unwrap_or_default().into(),
        comment: params.text("comment").unwrap_or_default().into(),
        created_by: words(&own["Cmd"]).join(" "),
    };
    inherit(&mut config, &own);
    let comment = deed.comment.clone();
    let paused = match is_still(&api, &container).await {
        Some(_) => None,
        None => Some(Paused::begin(&container).await?),
    };
    let layer = layer(maker.clone(), container.clone()).await;
    if let Some(paused) = paused {
        paused.end().await;
    }
    let layer = layer?;
    let (of, by, called) = (container.clone(), maker.clone(), name.clone());
    let id = aside(move || {
        let failed = |error: anyhow::Error| ApiError::internal(format!("{error:#}"));
        let image_id = of.made().map(|made| made.image_id.clone()).unwrap_or_default();
        let parent = by.images.of_container(&image_id)?;
        by.images.commit(Some(&parent), layer, config, &deed, called.as_deref()).map_err(failed)
    })
    .await??;
    let image = maker.images.find(&id).ok();
    event(&maker, "create", &id, &id, image.as_deref());
    let shown = name.as_deref().map(familiar).unwrap_or_default();
    if !shown.is_empty() {
        event(&maker, "tag", &id, &shown, image.as_deref());
    }
    let more = [("comment", comment), ("imageID", id.clone()), ("imageRef", shown)];
    api.containers.events.container(&container, "commit", &more);
    Ok(answer::with_status(StatusCode::CREATED, &json!({ "Id": id })))
}

/// The configuration that a client sends: its objects are objects.
fn asked(body: &Bytes) -> Result<Value, ApiError> {
    let config = if body.is_empty() { Value::Null } else { answer::read(body)? };
    let malformed = |what: &str| ApiError::bad_parameter(format!("invalid JSON: {what} is no object"));
    let config = match config {
        Value::Null => json!({}),
        Value::Object(_) => config,
        _ => return Err(malformed("the configuration")),
    };
    let is_other = |key: &&&str| !matches!(config[**key], Value::Null | Value::Object(_));
    match OBJECTS.iter().find(is_other) {
        Some(key) => Err(malformed(key)),
        None => Ok(config),
    }
}

/// The container's changes as a tar, in a file without a name.
async fn layer(maker: Arc<Maker>, container: Arc<Container>) -> Result<File, ApiError> {
    aside(move || {
        let failed = |error: io::Error| ApiError::internal(format!("cannot write the layer: {error}"));
        let mut disk = RootDisk::open(maker.place(&container)?)?;
        let changed = whiteouts(&mut disk);
        let mut out = io::BufWriter::new(maker.images.spool().map_err(failed)?);
        pack(&changed, ROOT, &Names::Layer, &mut out).map_err(failed)?;
        out.flush().map_err(failed)?;
        out.into_inner().map_err(|error| failed(error.into_error()))
    })
    .await?
}

/// A machine whose processors stand still, and whose disks hold what its container has written.
///
/// Docker lets a client ask not to pause. A disk that is written while it is read is none, so that the pause is made in any case: it is short.
struct Paused(Option<Powered>);

impl Paused {
    async fn begin(container: &Container) -> Result<Paused, ApiError> {
        if container.made().is_some_and(|made| made.removes_itself()) {
            return Err(ApiError::conflict(format!(
                "container {} goes when it ends (--rm), and so its disk keeps nothing: create it without --rm to commit it",
                container.name()
            )));
        }
        let Some(powered) = container.powered() else {
            return Err(ApiError::conflict(format!(
                "container {} is between two states: commit it again",
                container.name()
            )));
        };
        // its guest cannot write what it holds
        if container.state().is_paused() {
            return Err(ApiError::conflict(format!(
                "container {} is paused, and what it has written may not be on its disk yet: unpause it to commit it",
                container.name()
            )));
        }
        if !container.state().is_running() {
            return Err(ApiError::conflict(format!(
                "container {} does not run yet: commit it again",
                container.name()
            )));
        }
        sync::sync(container).await.map_err(|why| {
            ApiError::conflict(format!(
                "container {} cannot be committed while it runs: what it has written may not be on its disk yet ({why}); stop it first",
                container.name()
            ))
        })?;
        powered.order(Order::Pause).await.map_err(|error| ApiError::internal(format!("cannot pause: {error:#}")))?;
        Ok(Paused(Some(powered)))
    }

    async fn end(mut self) {
        if let Some(powered) = self.0.take() {
            // a machine that is off needs none
            drop(powered.order(Order::Resume).await);
        }
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        // a client that has gone away leaves no machine behind that stands still
        let (Some(powered), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) else { return };
        runtime.spawn(async move { drop(powered.order(Order::Resume).await) });
    }
}

fn words(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// What a new image does not say itself, it says as its container does: by docker's rules.
fn inherit(config: &mut Value, own: &Value) {
    if words(&config["Entrypoint"]).is_empty() {
        if words(&config["Cmd"]).is_empty() {
            config["Cmd"] = own["Cmd"].clone();
        }
        if config["Entrypoint"].is_null() {
            config["Entrypoint"] = own["Entrypoint"].clone();
        }
    }
    for key in ["User", "WorkingDir", "StopSignal", "Healthcheck", "Shell", "OnBuild"] {
        let is_unsaid = match &config[key] {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            _ => false,
        };
        if is_unsaid && !own[key].is_null() {
            config[key] = own[key].clone();
        }
    }
    for key in OBJECTS {
        let Some(all) = own[key].as_object() else { continue };
        for (name, value) in all {
            if config[key].get(name).is_none() {
                config[key][name] = value.clone();
            }
        }
    }
    let variable = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    let mut env: Vec<String> = words(&config["Env"]).into_iter().map(str::to_owned).collect();
    let known: BTreeSet<String> = env.iter().map(|entry| variable(entry)).collect();
    env.extend(words(&own["Env"]).into_iter().filter(|entry| !known.contains(&variable(entry))).map(str::to_owned));
    config["Env"] = json!(env);
    if let Some(config) = config.as_object_mut() {
        config.retain(|_, value| !value.is_null());
    }
}

/// What has names in a configuration: what the container says there is added to what is asked for.
const OBJECTS: [&str; 3] = ["ExposedPorts", "Volumes", "Labels"];
const COMMITS: &str = "a containerVM's disk is not made into an image here: docker export has its files";

#[cfg(test)]
mod tests {
    use super::*;

    fn inherited(config: Value, own: &Value) -> Value {
        let mut config = config;
        inherit(&mut config, own);
        config
    }

    #[test]
    fn a_configuration_of_another_shape_is_refused() {
        let read = |body: &'static str| asked(&Bytes::from_static(body.as_bytes()));
        for body in ["", "null", "{}", r#"{"Labels":null,"Volumes":{}}"#] {
            let own = json!({ "Labels": { "a": "1" }, "Volumes": { "/data": {} }, "ExposedPorts": { "1/tcp": {} } });
            assert_eq!(inherited(read(body).unwrap(), &own)["Labels"]["a"], "1", "{body}");
        }
        for body in ["[]", "5", "\"x\"", r#"{"Labels":[]}"#, r#"{"Volumes":"x"}"#, r#"{"ExposedPorts":true}"#] {
            let error = read(body).unwrap_err();
            assert!(error.status == StatusCode::BAD_REQUEST && error.message.contains("is no object"), "{error:?}");
        }
    }

    #[test]
    fn an_image_says_what_its_container_said_but_for_what_is_said_anew() {
        let own = json!({
            "Cmd": ["sh"], "Entrypoint": ["/init"], "Env": ["PATH=/bin", "A=1"], "User": "joe", "WorkingDir": "/srv",
            "Labels": { "a": "1", "b": "1" }, "Volumes": { "/data": {} }, "ExposedPorts": null, "OnBuild": null,
        });
        let same = inherited(json!({}), &own);
        assert_eq!((&same["Cmd"], &same["Entrypoint"]), (&json!(["sh"]), &json!(["/init"])));
        assert_eq!((&same["User"], &same["Env"]), (&json!("joe"), &own["Env"]));
        assert!(same.get("OnBuild").is_none());
        let changed = json!({
            "Entrypoint": ["/x"], "Cmd": null, "Env": ["A=2"], "Labels": { "b": "2" }, "User": "",
            "Volumes": { "/more": {} },
        });
        let changed = inherited(changed, &own);
        assert_eq!((changed.get("Cmd"), &changed["Entrypoint"]), (None, &json!(["/x"])));
        assert_eq!(changed["Env"], json!(["A=2", "PATH=/bin"]));
        assert_eq!(changed["Labels"], json!({ "a": "1", "b": "2" }));
        assert_eq!(changed["Volumes"], json!({ "/data": {}, "/more": {} }));
        let command = inherited(json!({ "Cmd": ["other"] }), &own);
        assert_eq!((&command["Cmd"], &command["Entrypoint"]), (&json!(["other"]), &json!(["/init"])));
    }
}
