//! Networks: this host's own, and what the specs of containers name whose machines are made elsewhere.
//!
//! It decides how a network is shown. What is done to them: [`changes`].

mod changes;

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
use crate::maker::Maker;
use crate::networks::{Lease, Network, mac_text};
use crate::timestamp;

/// Their paths.
pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new().route("/networks", get(list)).route("/networks/{id}", get(inspect)).merge(changes::routes())
}

/// The containers that are on each network.
type Members = BTreeMap<String, Vec<Arc<Container>>>;

fn members(api: &Api) -> Members {
    let mut all = Members::new();
    // those of this host's making are on networks of this host's
    for container in api.containers.list().into_iter().filter(|container| container.joined().is_none()) {
        for network in container.told().iter().flat_map(|told| &told.spec.networks) {
            all.entry(network.name.clone()).or_default().push(container.clone());
        }
    }
    all.retain(|name, _| own(api, name).is_none());
    all
}

/// A network of this host's.
fn own(api: &Api, called: &str) -> Option<Arc<Network>> {
    api.maker.as_ref()?.networks.find(called).ok()
}

async fn list(State(api): State<Arc<Api>>, params: Params) -> Result<Response, ApiError> {
    let filters = Filters::read(&params, &["driver", "id", "label", "name", "scope", "type", "dangling"])?;
    let dangling = filters.truth("dangling")?;
    let fits = |name: &str, driver: &str, labels: &BTreeMap<String, String>, is_builtin: bool| {
        filters.any("id", |id| network_id(name).starts_with(id))
            && filters.any("name", |part| name.contains(part))
            && filters.exact("driver", driver)
            && filters.exact("scope", "local")
            && filters.exact("type", if is_builtin { "builtin" } else { "custom" })
            && filters.labels("label", labels)
    };
    let mut shown = Vec::new();
    if let Some(maker) = &api.maker {
        for one in maker.networks.list() {
            let record = &one.record;
            let is_dangling = !record.is_predefined() && maker.networks.members(&record.name).is_empty();
            if fits(&record.name, record.driver(), &record.labels, record.is_predefined())
                && dangling.is_none_or(|wanted| wanted == is_dangling)
            {
                shown.push(made(maker, &one, false));
            }
        }
    }
    if dangling != Some(true) {
        let members = members(&api);
        let fitting = members.iter().filter(|(name, _)| fits(name, network_driver(name), &BTreeMap::new(), true));
        // a list does not say who is on them
        shown.extend(fitting.map(|(name, members)| network(name, members, false)));
    }
    Ok(json::json(&shown))
}

async fn inspect(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Result<Response, ApiError> {
    if let Some(maker) = &api.maker
        && let Some(found) = own(&api, &id)
    {
        return Ok(json::json(&made(maker, &found, true)));
    }
    let members = members(&api);
    let exact = members.get_key_value(&id);
    let named = exact.or_else(|| members.iter().find(|(name, _)| !id.is_empty() && network_id(name).starts_with(&id)));
    match named {
        Some((name, members)) => Ok(json::json(&network(name, members, true))),
        None => Err(ApiError::not_found(format!("network {id} not found"))),
    }
}

/// A network of this host's.
fn made(maker: &Maker, network: &Network, with_members: bool) -> Value {
    let Network { id, record, .. } = network;
    let config = record.pool().map(|pool| {
        let mut config = json!({ "Subnet": pool.subnet.to_string(), "Gateway": pool.gateway.to_string() });
        if let Some(range) = pool.range {
            config["IPRange"] = range.to_string().into();
        }
        if !pool.aux.is_empty() {
            config["AuxiliaryAddresses"] = json!(pool.aux);
        }
        vec![config]
    });
    let members = if with_members { maker.networks.members(&record.name) } else { Vec::new() };
    let member = |(container, lease): (Arc<Container>, Lease)| {
        let shown = json!({
            "Name": container.name(),
            "EndpointID": endpoints::endpoint_id(&record.name, &container.id),
            "MacAddress": mac_text(lease.mac),
            "IPv4Address": format!("{}/{}", lease.address, lease.prefix),
            "IPv6Address": "",
        });
        (container.id.clone(), shown)
    };
    let options = match record.ipam_options.is_empty() {
        // docker says nothing of those that nobody has made
        true if record.is_predefined() => Value::Null,
        _ => json!(record.ipam_options),
    };
    json!({
        "Name": record.name,
        "Id": id,
        "Created": timestamp::format(record.created_ns),
        "Scope": "local",
        "Driver": record.driver(),
        "EnableIPv4": true,
        "EnableIPv6": false,
        "IPAM": { "Driver": "default", "Options": options, "Config": config },
        "Internal": record.internal,
        "Attachable": record.attachable,
        "Ingress": false,
        "ConfigFrom": { "Network": "" },
        "ConfigOnly": false,
        "Containers": members.into_iter().map(member).collect::<Map<String, Value>>(),
        "Options": record.options,
        "Labels": record.labels,
    })
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
    let settings = endpoints::networks(container, told.as_deref(), machine.as_ref());
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
