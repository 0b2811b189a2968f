//! Networks: what the containers' specs name. They are made where the machines are.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::get;
use serde_json::{Map, Value, json};

use super::error::ApiError;
use super::filters::Filters;
use super::query::Params;
use super::{Api, endpoints, json};
use crate::containers::{Container, network_driver, network_id};
use crate::timestamp;

/// Their paths.
pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new().route("/networks", get(list)).route("/networks/{id}", get(inspect))
}

/// The containers that are on each network.
type Members = BTreeMap<String, Vec<Arc<Container>>>;

fn members(api: &Api) -> Members {
    let mut all = Members::new();
    for container in api.containers.list() {
        for network in container.told().iter().flat_map(|told| &told.spec.networks) {
            all.entry(network.name.clone()).or_default().push(container.clone());
        }
    }
    all
}

async fn list(State(api): State<Arc<Api>>, params: Params) -> Result<Response, ApiError> {
    let filters = Filters::read(&params, &["driver", "id", "label", "name", "scope", "type", "dangling"])?;
    let dangling = filters.truth("dangling")?;
    let fits = |name: &str| {
        filters.any("id", |id| network_id(name).starts_with(id))
            && filters.any("name", |part| name.contains(part))
            && filters.exact("driver", network_driver(name))
            && filters.exact("scope", "local")
            && filters.exact("type", "builtin")
            && filters.labels("label", &BTreeMap::new())
            && dangling != Some(true)
    };
    let members = members(&api);
    // a list does not say who is on them
    let shown = members.iter().filter(|(name, _)| fits(name)).map(|(name, members)| network(name, members, false));
    Ok(json::json(&shown.collect::<Vec<Value>>()))
}

async fn inspect(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Result<Response, ApiError> {
    let members = members(&api);
    let exact = members.get_key_value(&id);
    let named = exact.or_else(|| members.iter().find(|(name, _)| !id.is_empty() && network_id(name).starts_with(&id)));
    match named {
        Some((name, members)) => Ok(json::json(&network(name, members, true))),
        None => Err(ApiError::not_found(format!("network {id} not found"))),
    }
}

fn network(name: &str, members: &[Arc<Container>], with_members: bool) -> Value {
    let first = members.iter().map(|container| container.created_ns()).min().unwrap_or_default();
    let running = members.iter().filter(|container| with_members && container.state().is_running());
    let containers: Map<String, Value> = running.map(|container| member(name, container)).collect();
    json!({
        "Name": name,
        "Id": network_id(name),
        // nobody has heard of it before
        "Created": timestamp::format(first),
        "Scope": "local",
        "Driver": network_driver(name),
        "EnableIPv4": true,
        "EnableIPv6": false,
        "IPAM": { "Driver": "default", "Options": null, "Config": [] },
        "Internal": false,
        "Attachable": false,
        "Ingress": false,
        "ConfigFrom": { "Network": "" },
        "ConfigOnly": false,
        "Containers": containers,
        "Options": {},
        "Labels": {},
    })
}

fn member(network: &str, container: &Container) -> (String, Value) {
    let (told, machine) = (container.told(), container.machine());
    let settings = endpoints::networks(told.as_deref(), machine.as_ref());
    let field = |name: &str| settings[network][name].as_str().unwrap_or_default().to_owned();
    let prefixed = |address: &str, length: &str| match (field(address), &settings[network][length]) {
        (address, _) if address.is_empty() => address,
        (address, length) => format!("{address}/{length}"),
    };
    let shown = json!({
        "Name": container.name(),
        "EndpointID": field("EndpointID"),
        "MacAddress": field("MacAddress"),
        "IPv4Address": prefixed("IPAddress", "IPPrefixLen"),
        "IPv6Address": prefixed("GlobalIPv6Address", "GlobalIPv6PrefixLen"),
    });
    (container.id.clone(), shown)
}
