//! Docker volume: create, ls, inspect, rm, prune, and what inspect says of a container's mounts.
//!
//! It decides which volumes docker's words mean. What a volume is, and which machine has it, is decided in [`crate::volumes`]; without a hypervisor of its own
//! this host has none, and says so.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use bollard_stubs::models::VolumeCreateOptions;
use serde_json::{Value, json};

use super::aside::aside;
use super::error::ApiError;
use super::filters::Filters;
use super::query::Params;
use super::{Api, json, refused};
use crate::containers::Event;
use crate::maker::{Maker, MountPoint, On, no_driver};
use crate::state;
use crate::timestamp::{self, now_ns};
use crate::volumes::{ANONYMOUS, DRIVER, Options, Stored, Wanted, check_name};

/// Its paths.
pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/volumes", get(list))
        .route("/volumes/create", post(create))
        .route("/volumes/prune", post(prune))
        .route("/volumes/{name}", get(inspect).delete(remove))
}

async fn list(State(api): State<Arc<Api>>, params: Params) -> Result<Response, ApiError> {
    let filters = Filters::read(&params, &["dangling", "driver", "label", "name"])?;
    let dangling = filters.truth("dangling")?;
    let mut shown = Vec::new();
    if let Some(maker) = &api.maker {
        for volume in stored(maker).await? {
            let fits = filters.exact("driver", DRIVER)
                && filters.any("name", |part| volume.name.contains(part))
                && filters.labels("label", &volume.labels)
                && dangling.is_none_or(|wanted| wanted == maker.users(&volume.name).is_empty());
            if fits {
                shown.push(self::shown(maker, &volume));
            }
        }
    }
    Ok(json::json(&json!({ "Volumes": shown, "Warnings": null })))
}

/// All volumes, with what they take of the host's disk: `docker system df`.
pub(super) async fn usage(api: &Api) -> Result<Vec<Value>, ApiError> {
    let Some(maker) = &api.maker else { return Ok(Vec::new()) };
    let with_usage = |volume: &Stored| {
        let (size, users) = (maker.volumes.store.used(&volume.name), maker.users(&volume.name).len());
        let mut shown = shown(maker, volume);
        shown["UsageData"] = json!({ "Size": size, "RefCount": users });
        shown
    };
    Ok(stored(maker).await?.iter().map(with_usage).collect())
}

async fn stored(maker: &Maker) -> Result<Vec<Stored>, ApiError> {
    let volumes = maker.volumes.clone();
    let listed = aside(move || volumes.store.list()).await?;
    listed.map_err(|error| ApiError::internal(format!("{error:#}")))
}

async fn create(State(api): State<Arc<Api>>, body: Bytes) -> Result<Response, ApiError> {
    let maker = api.maker(refused::VOLUMES)?;
    let asked: VolumeCreateOptions = json::read(&body)?;
    let mut wanted = Wanted {
        options: asked.driver_opts.into_iter().flatten().collect(),
        labels: asked.labels.into_iter().flatten().collect(),
    };
    let name = match asked.name.filter(|name| !name.is_empty()) {
        Some(name) => name,
        None => {
            wanted.labels.insert(ANONYMOUS.into(), String::new());
            state::new_id().map_err(|error| ApiError::internal(format!("{error:#}")))?
        }
    };
    if let Some(driver) = asked.driver.filter(|driver| !driver.is_empty() && driver != DRIVER) {
        return Err(ApiError::not_found(format!("create {name}: {}", no_driver(&driver))));
    }
    check_name(&name, 2).map_err(|error| ApiError::bad_parameter(error.to_string()))?;
    let (volume, _) = maker.make_volume(name, wanted).await?;
    Ok(json::with_status(StatusCode::CREATED, &shown(maker, &volume)))
}

async fn inspect(State(api): State<Arc<Api>>, Path(name): Path<String>) -> Result<Response, ApiError> {
    let maker = api.maker.as_ref().ok_or_else(|| unknown(&name))?;
    let volumes = maker.volumes.clone();
    let volume = aside(move || volumes.store.find(&name)).await?.map_err(crate::maker::MakeError::from)?;
    Ok(json::json(&shown(maker, &volume)))
}

fn unknown(name: &str) -> ApiError {
    ApiError::not_found(format!("get {name}: no such volume"))
}

async fn remove(State(api): State<Arc<Api>>, Path(name): Path<String>, params: Params) -> Result<StatusCode, ApiError> {
    let maker = api.maker.as_ref().ok_or_else(|| unknown(&name))?;
    let users = maker.users(&name);
    if !users.is_empty() {
        return Err(ApiError::conflict(format!("remove {name}: volume is in use - [{}]", users.join(", "))));
    }
    match maker.remove_volume(&name).await.map_err(ApiError::from) {
        // who insists has what he wants
        Err(error) if error.status == StatusCode::NOT_FOUND && params.flag("force") => Ok(StatusCode::NO_CONTENT),
        Err(error) => Err(error),
        Ok(_) => Ok(StatusCode::NO_CONTENT),
    }
}

async fn prune(State(api): State<Arc<Api>>, params: Params) -> Result<Response, ApiError> {
    let maker = api.maker(refused::VOLUMES)?;
    let filters = Filters::read(&params, &["all", "label", "label!"])?;
    let all = filters.truth("all")? == Some(true);
    let (mut deleted, mut reclaimed) = (Vec::new(), 0);
    for volume in stored(maker).await? {
        let spared = filters.has("label!") && filters.labels("label!", &volume.labels);
        let fits = (all || volume.is_anonymous()) && filters.labels("label", &volume.labels) && !spared;
        if fits && maker.users(&volume.name).is_empty() {
            // one that a machine of another program has is in use
            if let Ok(size) = maker.remove_volume(&volume.name).await {
                deleted.push(volume.name);
                reclaimed += size;
            }
        }
    }
    api.containers.events.tell(Event {
        kind: "volume",
        action: "prune".into(),
        id: String::new(),
        attributes: [("reclaimed".to_owned(), reclaimed.to_string())].into(),
        time_ns: now_ns(),
    });
    Ok(json::json(&json!({ "VolumesDeleted": deleted, "SpaceReclaimed": reclaimed })))
}

fn shown(maker: &Maker, volume: &Stored) -> Value {
    // as docker writes that there are none
    let some = |options: &Options| if options.is_empty() { Value::Null } else { json!(options) };
    json!({
        // whole seconds, as docker tells them
        "CreatedAt": format!("{}Z", &timestamp::format(volume.created_ns)[..SECONDS]),
        "Driver": volume.driver,
        "Labels": some(&volume.labels),
        "Mountpoint": maker.volumes.store.disk(&volume.name),
        "Name": volume.name,
        "Options": some(&volume.options),
        "Scope": "local",
    })
}

/// `Mounts` of a container whose machine is made here.
pub(super) fn mounts(mounts: &[MountPoint]) -> Vec<Value> {
    let shown = |mount: &MountPoint| {
        let mut shown: BTreeMap<&str, Value> = [
            ("Destination", mount.destination.as_str().into()),
            ("Mode", mount.mode.as_str().into()),
            ("RW", (!mount.read_only).into()),
            ("Propagation", "".into()),
        ]
        .into();
        match &mount.on {
            On::Volume { name, file, .. } => shown.extend([
                ("Type", "volume".into()),
                ("Name", name.as_str().into()),
                ("Source", json!(file)),
                ("Driver", DRIVER.into()),
            ]),
            On::File(path) => shown.extend([("Type", "bind".into()), ("Source", json!(path))]),
            On::Memory { .. } => shown.extend([("Type", "tmpfs".into()), ("Source", "".into())]),
        }
        json!(shown)
    };
    mounts.iter().map(shown).collect()
}

/// Characters of a time without its fractions: `2026-01-31T23:59:59`.
const SECONDS: usize = 19;
