//! Docker network create, rm, connect, disconnect and prune.
//!
//! It decides what docker's words for a network mean here; without a maker of machines there is nothing to connect.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{delete, post};
use bollard_stubs::models::{Ipam, IpamConfig, NetworkConnectRequest, NetworkCreateRequest, NetworkDisconnectRequest};
use serde_json::json;

use super::super::aside::aside;
use super::super::error::ApiError;
use super::super::filters::Filters;
use super::super::query::Params;
use super::super::{Api, json, refused};
use crate::containers::Event;
use crate::networks::{Kind, Pool, Record, Subnet};
use crate::timestamp::{self, now_ns};

/// Their paths.
pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/networks/create", post(create))
        .route("/networks/prune", post(prune))
        .route("/networks/{id}", delete(remove))
        .route("/networks/{id}/connect", post(connect))
        .route("/networks/{id}/disconnect", post(disconnect))
}

async fn create(State(api): State<Arc<Api>>, body: Bytes) -> Result<Response, ApiError> {
    let maker = api.maker(refused::NETWORKS)?;
    let asked: NetworkCreateRequest = json::read(&body)?;
    let (record, pool) = read(asked)?;
    let networks = maker.networks.clone();
    // a file is written
    let made = aside(move || networks.create(record, pool)).await??;
    Ok(json::with_status(StatusCode::CREATED, &json!({ "Id": made.id, "Warning": "" })))
}

/// What docker asks for, as far as a switch in this program can be that.
fn read(asked: NetworkCreateRequest) -> Result<(Record, Option<Pool>), ApiError> {
    let name = asked.name.trim_start_matches('/').to_owned();
    let first = name.starts_with(|char: char| char.is_ascii_alphanumeric() || char == '_');
    if !first || !name.chars().all(|char| char.is_ascii_alphanumeric() || "_.-".contains(char)) {
        let why = format!("invalid network name {name:?}: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed");
        return Err(ApiError::bad_parameter(why));
    }
    match asked.driver.as_deref() {
        None | Some("" | "default" | "bridge") => {}
        Some(one @ ("host" | "null")) => {
            return Err(ApiError::new(
                StatusCode::FORBIDDEN,
                format!("only one instance of {one:?} network is allowed"),
            ));
        }
        Some(other) => {
            let why = "networks of this host are bridges between its machines: leave out --driver";
            return Err(ApiError::not_implemented(format!("{why} {other}")));
        }
    }
    let is = |flag: Option<bool>| flag.unwrap_or_default();
    if is(asked.enable_ipv6) {
        return Err(ApiError::not_implemented("networks of this host carry IPv4 alone: leave out --ipv6"));
    }
    if asked.enable_ipv4 == Some(false) {
        return Err(ApiError::not_implemented("networks of this host carry IPv4: leave out --ipv4=false"));
    }
    if is(asked.ingress)
        || is(asked.config_only)
        || asked.config_from.is_some_and(|from| from.network.is_some_and(|name| !name.is_empty()))
    {
        return Err(ApiError::not_implemented("this host takes part in no swarm: its networks are its own"));
    }
    let ipam = asked.ipam.unwrap_or_default();
    let pool = pool(&ipam)?;
    let kind = pool.clone().map_or(Kind::Null, Kind::Bridge);
    let record = Record {
        name,
        kind,
        created_ns: now_ns(),
        internal: is(asked.internal),
        attachable: is(asked.attachable),
        options: asked.options.unwrap_or_default().into_iter().collect(),
        ipam_options: ipam.options.unwrap_or_default().into_iter().collect(),
        labels: asked.labels.unwrap_or_default().into_iter().collect(),
    };
    Ok((record, pool))
}

/// The addresses that its user wants; none where any will do.
fn pool(ipam: &Ipam) -> Result<Option<Pool>, ApiError> {
    let invalid = |why: String| ApiError::bad_parameter(format!("invalid network config:\n{why}"));
    if let Some(driver) = ipam.driver.as_deref().filter(|driver| !matches!(*driver, "" | "default")) {
        return Err(ApiError::not_implemented(format!(
            "this host gives addresses itself: leave out --ipam-driver {driver}"
        )));
    }
    let filled = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let configs: Vec<&IpamConfig> =
        ipam.config.iter().flatten().filter(|config| filled(&config.subnet).is_some()).collect();
    let config = match configs[..] {
        [] if ipam
            .config
            .iter()
            .flatten()
            .any(|config| filled(&config.gateway).is_some() || filled(&config.ip_range).is_some()) =>
        {
            return Err(invalid("a gateway and a range lie in a subnet: name it with --subnet".into()));
        }
        [] => return Ok(None),
        [config] => config,
        _ => return Err(invalid("a network of this host has one subnet".into())),
    };
    let block = |text: &str| {
        let subnet: Subnet = text.parse().map_err(invalid)?;
        match subnet.canonical() {
            same if same == subnet => Ok(subnet),
            right => Err(invalid(format!("invalid subnet {subnet}: it should be {right}"))),
        }
    };
    let subnet = block(&filled(&config.subnet).unwrap_or_default())?;
    if subnet.prefix > 30 {
        return Err(invalid(format!("invalid subnet {subnet}: it has no room for a gateway and a machine")));
    }
    let range =
        filled(&config.ip_range).map(|text| text.parse().map(Subnet::canonical).map_err(invalid)).transpose()?;
    if let Some(range) = range.filter(|range| !subnet.contains(range.address) || range.prefix < subnet.prefix) {
        return Err(invalid(format!("invalid ip-range {range}: it is not in the subnet {subnet}")));
    }
    let inside = |what: &str, text: &str| {
        let address: Option<Ipv4Addr> = text.split('/').next().and_then(|bare| bare.parse().ok());
        let inside = address.filter(|address| subnet.is_for_machines(*address));
        inside.ok_or_else(|| invalid(format!("invalid {what} {text}: it is not in the subnet {subnet}")))
    };
    let gateway = match filled(&config.gateway) {
        None => subnet.first(),
        Some(text) => inside("gateway", &text)?,
    };
    let mut aux = BTreeMap::new();
    for (name, text) in config.auxiliary_addresses.iter().flatten() {
        aux.insert(name.clone(), inside("auxiliary address", text)?);
    }
    Ok(Some(Pool { subnet, range, gateway, aux, is_chosen: true }))
}

async fn remove(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Result<StatusCode, ApiError> {
    let maker = api.maker(refused::NETWORKS)?;
    maker.networks.remove(&maker.networks.find(&id)?)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn connect(State(api): State<Arc<Api>>, Path(id): Path<String>, body: Bytes) -> Result<StatusCode, ApiError> {
    let maker = api.maker(refused::NETWORKS)?;
    let asked: NetworkConnectRequest = json::read(&body)?;
    let network = maker.networks.find(&id)?;
    let container = api.containers.find(&asked.container.unwrap_or_default())?;
    if container.joined().is_none() {
        return Err(ApiError::not_implemented(refused::NETWORKS));
    }
    maker.connect(&container, &network, asked.endpoint_config.unwrap_or_default()).await?;
    Ok(StatusCode::OK)
}

async fn disconnect(State(api): State<Arc<Api>>, Path(id): Path<String>, body: Bytes) -> Result<StatusCode, ApiError> {
    let maker = api.maker(refused::NETWORKS)?;
    let asked: NetworkDisconnectRequest = json::read(&body)?;
    let network = maker.networks.find(&id)?;
    let container = api.containers.find(&asked.container.unwrap_or_default())?;
    maker.disconnect(&container, &network).await?;
    Ok(StatusCode::OK)
}

async fn prune(State(api): State<Arc<Api>>, params: Params) -> Result<Response, ApiError> {
    let maker = api.maker(refused::NETWORKS)?;
    let filters = Filters::read(&params, &["until", "label", "label!"])?;
    let until = match filters.values("until") {
        [] => u64::MAX,
        [one] => timestamp::parse(one, now_ns())
            .ok_or_else(|| ApiError::bad_parameter(format!("invalid filter 'until={one}': it is no time")))?,
        _ => return Err(ApiError::bad_parameter("more than one until filter specified")),
    };
    let mut deleted = Vec::new();
    for network in maker.networks.list() {
        let record = &network.record;
        let spared = filters.has("label!") && filters.labels("label!", &record.labels);
        let fits = record.created_ns < until && filters.labels("label", &record.labels) && !spared;
        // one that somebody uses stays
        if fits && !record.is_predefined() && maker.networks.remove(&network).is_ok() {
            deleted.push(record.name.clone());
        }
    }
    api.containers.events.tell(Event {
        kind: "network",
        action: "prune".into(),
        id: String::new(),
        attributes: [("reclaimed".to_owned(), "0".to_owned())].into(),
        time_ns: now_ns(),
    });
    Ok(json::json(&json!({ "NetworksDeleted": if deleted.is_empty() { None } else { Some(deleted) } })))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create(json: &str) -> Result<(Record, Option<Pool>), ApiError> {
        read(serde_json::from_str(json).unwrap())
    }

    #[test]
    fn a_network_is_read_as_docker_writes_it() {
        let json = r#"{"Name":"n1","Driver":"bridge","Internal":true,"Labels":{"a":"b"},"IPAM":{"Driver":"default","Config":[
            {"Subnet":"10.5.0.0/16","IPRange":"10.5.7.0/24","Gateway":"10.5.0.9","AuxiliaryAddresses":{"r":"10.5.0.8"}}]}}"#;
        let (record, pool) = create(json).unwrap();
        let pool = pool.unwrap();
        assert_eq!((record.name.as_str(), record.internal, record.labels["a"].as_str()), ("n1", true, "b"));
        assert_eq!(
            (pool.subnet.to_string(), pool.range.unwrap().to_string()),
            ("10.5.0.0/16".into(), "10.5.7.0/24".into())
        );
        assert_eq!((pool.gateway.to_string(), pool.aux["r"].to_string()), ("10.5.0.9".into(), "10.5.0.8".into()));
        assert_eq!(create(r#"{"Name":"n1"}"#).unwrap().1, None);
        assert_eq!(create(r#"{"Name":"n1","IPAM":{"Config":[{}]}}"#).unwrap().1, None);
    }

    #[test]
    fn what_no_network_here_can_be_is_refused_with_a_sentence() {
        let check = |json: &str, status: u16, part: &str| {
            let error = create(json).unwrap_err();
            assert!(error.status.as_u16() == status && error.message.contains(part), "{error:?}");
        };
        check(r#"{"Name":""}"#, 400, "invalid network name");
        check(r#"{"Name":"a b"}"#, 400, "invalid network name");
        check(r#"{"Name":"n1","Driver":"macvlan"}"#, 501, "leave out --driver macvlan");
        check(r#"{"Name":"n1","Driver":"host"}"#, 403, "only one instance");
        check(r#"{"Name":"n1","EnableIPv6":true}"#, 501, "IPv4 alone");
        let config = |config: &str| format!(r#"{{"Name":"n1","IPAM":{{"Config":[{config}]}}}}"#);
        check(&config(r#"{"Subnet":"10.5.1.0/16"}"#), 400, "it should be 10.5.0.0/16");
        check(&config(r#"{"Subnet":"10.5.0.0/16","Gateway":"10.6.0.1"}"#), 400, "invalid gateway 10.6.0.1");
        check(&config(r#"{"Subnet":"10.5.0.0/16","IPRange":"10.6.0.0/24"}"#), 400, "invalid ip-range");
        check(&config(r#"{"Gateway":"10.6.0.1"}"#), 400, "name it with --subnet");
        check(&config(r#"{"Subnet":"10.5.0.0/16"},{"Subnet":"10.6.0.0/16"}"#), 400, "one subnet");
    }
}
