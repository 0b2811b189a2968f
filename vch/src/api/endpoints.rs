//! A container's networks, addresses and ports, in docker's words.
//!
//! What was asked for is in the spec; which addresses came of it, the guest tells.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Map, Value, json};
use wire::spec::{Endpoint, Port, Protocol};
use wire::status::{EndpointStatus, Status};

use crate::containers::{Container, Told, network_id};
use crate::ids;
use crate::networks::{BRIDGE, Joined, mac_text};
use crate::state::id_from;

/// A port of a container, and where it can be reached, if it can be from outside.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Published {
    pub(super) port: u16,
    /// `tcp` or `udp`.
    pub(super) protocol: String,
    /// Address and port.
    pub(super) at: Option<(String, u16)>,
}

/// `NetworkSettings.Networks`.
pub(super) fn networks(container: &Container, told: Option<&Told>, machine: Option<&Status>) -> Value {
    if let Some(joined) = container.joined() {
        let settings = joined.iter().map(|one| (one.network.clone(), joined_settings(container, one)));
        return Value::Object(settings.collect());
    }
    let endpoints = told.map(|told| told.spec.networks.as_slice()).unwrap_or_default();
    let settings = endpoints.iter().map(|endpoint| {
        let status = machine.and_then(|machine| machine.networks.get(&endpoint.name));
        (endpoint.name.clone(), settings(endpoint, status))
    });
    Value::Object(settings.collect::<Map<String, Value>>())
}

/// The settings of a network that this host has the container on. While its machine is off, it has no address there.
fn joined_settings(container: &Container, joined: &Joined) -> Value {
    let Joined { network, wish, lease } = joined;
    let ipam = wish.address.map(|address| json!({ "IPv4Address": address.to_string() }));
    let lease = lease.as_ref();
    let mac = lease.map(|lease| mac_text(lease.mac)).or_else(|| wish.mac.clone()).unwrap_or_default();
    let gateway = lease.filter(|lease| !lease.internal).map(|lease| lease.gateway.to_string());
    let or_null = |list: &[String]| if list.is_empty() { Value::Null } else { json!(list) };
    let short = ids::short(&container.id).to_owned();
    let mut names = vec![container.name()];
    for name in wish.aliases.iter().chain([&short]) {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    json!({
        "IPAMConfig": ipam,
        "Links": or_null(&wish.links),
        "Aliases": or_null(&wish.aliases),
        "MacAddress": mac,
        "DriverOpts": if wish.driver_opts.is_empty() { Value::Null } else { json!(wish.driver_opts) },
        "GwPriority": wish.gw_priority,
        "NetworkID": network_id(network),
        "EndpointID": lease.map(|_| endpoint_id(network, &container.id)).unwrap_or_default(),
        "Gateway": gateway.unwrap_or_default(),
        "IPAddress": lease.map(|lease| lease.address.to_string()).unwrap_or_default(),
        "IPPrefixLen": lease.map(|lease| lease.prefix).unwrap_or_default(),
        "IPv6Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "DNSNames": if joined.driver() == "null" { Value::Null } else { json!(names) },
    })
}

/// The network that was asked for first, of a container that this host makes.
pub(super) fn mode(container: &Container) -> Option<String> {
    let asked = container.made()?.host().and_then(|host| host.network_mode.clone());
    Some(asked.filter(|mode| !matches!(mode.as_str(), "" | "default")).unwrap_or_else(|| BRIDGE.into()))
}

/// Docker's name for a container on a network.
pub(super) fn endpoint_id(network: &str, container: &str) -> String {
    id_from(format!("endpoint {network} {container}"))
}

/// One network's settings. Without a guest that tells, there are no addresses.
fn settings(endpoint: &Endpoint, status: Option<&EndpointStatus>) -> Value {
    let (four, six) = status.map(addresses).unwrap_or_default();
    json!({
        "IPAMConfig": null,
        "Links": null,
        "Aliases": null,
        "MacAddress": status.map(|status| status.mac.clone()).unwrap_or_default(),
        "DriverOpts": null,
        "GwPriority": 0,
        "NetworkID": network_id(&endpoint.name),
        "EndpointID": status.map(|status| network_id(&format!("{} {}", endpoint.name, status.mac))).unwrap_or_default(),
        "Gateway": four.gateway,
        "IPAddress": four.address,
        "IPPrefixLen": four.prefix,
        "IPv6Gateway": six.gateway,
        "GlobalIPv6Address": six.address,
        "GlobalIPv6PrefixLen": six.prefix,
        "DNSNames": null,
    })
}

#[derive(Default)]
struct Address {
    address: String,
    prefix: u8,
    gateway: String,
}

/// The first addresses of both versions, of those that others can reach.
fn addresses(status: &EndpointStatus) -> (Address, Address) {
    let find = |fits: fn(&IpAddr) -> bool| {
        let is = |text: &str| text.parse().is_ok_and(|address| fits(&address));
        let parts = status.addresses.iter().map(|text| text.split_once('/').unwrap_or((text, "0")));
        let (address, prefix) = parts.into_iter().find(|(address, _)| is(address)).unwrap_or_default();
        let gateway = status.gateways.iter().find(|gateway| is(gateway)).cloned().unwrap_or_default();
        Address { address: address.into(), prefix: prefix.parse().unwrap_or_default(), gateway }
    };
    let is_global = |address: &IpAddr| matches!(address, IpAddr::V6(six) if !six.is_unicast_link_local());
    (find(IpAddr::is_ipv4), find(is_global))
}

/// All ports, in order: the ones that lead in, and those that the image names.
pub(super) fn ports(told: &Told, machine: Option<&Status>) -> Vec<Published> {
    let mut all: Vec<Published> = told.about.published.iter().filter_map(|text| published(text)).collect();
    if all.is_empty() {
        // at the machine's own address
        for endpoint in &told.spec.networks {
            let status = machine.and_then(|machine| machine.networks.get(&endpoint.name));
            let address = status.map(|status| addresses(status).0.address).unwrap_or_default();
            all.extend(endpoint.ports.iter().flat_map(|port| opened(port, &address)));
        }
    }
    for text in &told.about.exposed {
        let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let known = |one: &Published| one.port.to_string() == port && one.protocol == protocol;
        if let Ok(number) = port.parse()
            && !all.iter().any(known)
        {
            all.push(Published { port: number, protocol: protocol.into(), at: None });
        }
    }
    all.sort();
    all.dedup();
    all
}

/// `127.0.0.1:8080:80/tcp`
fn published(text: &str) -> Option<Published> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let mut parts = ports.rsplitn(3, ':');
    let (inner, outer) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let address = parts.next().filter(|address| !address.is_empty()).unwrap_or("0.0.0.0");
    Some(Published { port: inner, protocol: protocol.into(), at: Some((address.into(), outer)) })
}

fn opened(port: &Port, address: &str) -> Vec<Published> {
    let protocol = match port.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    let (first, last) = port.ports;
    let one = |outer: u16| {
        let inner = port.to.filter(|_| outer == first).unwrap_or(outer);
        Published { port: inner, protocol: protocol.into(), at: Some((address.into(), outer)) }
    };
    (first..=last).map(one).collect()
}

/// `NetworkSettings.Ports` and `HostConfig.PortBindings`: the second has only what leads in.
pub(super) fn bindings(ports: &[Published], with_exposed: bool) -> Value {
    let mut all: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for Published { port, protocol, at } in ports.iter().filter(|port| with_exposed || port.at.is_some()) {
        let list = all.entry(format!("{port}/{protocol}")).or_default();
        list.extend(at.iter().map(|(address, port)| json!({ "HostIp": address, "HostPort": port.to_string() })));
    }
    let list = |list: Vec<Value>| if list.is_empty() { Value::Null } else { Value::Array(list) };
    Value::Object(all.into_iter().map(|(name, bindings)| (name, list(bindings))).collect())
}

/// The column PORTS of `docker ps`.
pub(super) fn column(ports: &[Published]) -> Vec<Value> {
    let one = |published: &Published| {
        let Published { port, protocol, at } = published;
        match at {
            Some((address, outer)) if !address.is_empty() => {
                json!({ "IP": address, "PrivatePort": port, "PublicPort": outer, "Type": protocol })
            }
            _ => json!({ "PrivatePort": port, "Type": protocol }),
        }
    };
    ports.iter().map(one).collect()
}

/// `NetworkSettings`, with the fields of the times when there was one network only: they show the first one, as docker's showed the bridge.
pub(super) fn network_settings(container: &Container, told: Option<&Told>, machine: Option<&Status>) -> Value {
    let ports = match container.state().is_running() {
        true => told.map(|told| ports(told, machine)).unwrap_or_default(),
        false => Vec::new(),
    };
    let networks = networks(container, told, machine);
    let joined = container.joined().and_then(|all| Some(all.first()?.network.clone()));
    let first = joined.or_else(|| Some(told?.spec.networks.first()?.name.clone()));
    let first = first.and_then(|name| networks.get(&name)).cloned();
    let first = |name: &str, none: Value| first.as_ref().and_then(|first| first.get(name)).cloned().unwrap_or(none);
    json!({
        "Bridge": "",
        "SandboxID": "",
        "SandboxKey": "",
        "Ports": bindings(&ports, true),
        "HairpinMode": false,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": null,
        "SecondaryIPv6Addresses": null,
        "EndpointID": first("EndpointID", "".into()),
        "Gateway": first("Gateway", "".into()),
        "GlobalIPv6Address": first("GlobalIPv6Address", "".into()),
        "GlobalIPv6PrefixLen": first("GlobalIPv6PrefixLen", 0.into()),
        "IPAddress": first("IPAddress", "".into()),
        "IPPrefixLen": first("IPPrefixLen", 0.into()),
        "IPv6Gateway": first("IPv6Gateway", "".into()),
        "MacAddress": first("MacAddress", "".into()),
        "Networks": networks,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_ports_are_read_with_any_address() {
        let check = |text: &str, expected: Option<(u16, &str, &str, u16)>| {
            let read = published(text);
            let read = read.as_ref().and_then(|read| {
                let (address, outer) = read.at.as_ref()?;
                Some((read.port, read.protocol.as_str(), address.as_str(), *outer))
            });
            assert_eq!(read, expected, "{text}");
        };
        check("127.0.0.1:8080:80/tcp", Some((80, "tcp", "127.0.0.1", 8080)));
        check("::1:53:53/udp", Some((53, "udp", "::1", 53)));
        check(":8080:80", Some((80, "tcp", "0.0.0.0", 8080)));
        check("80/tcp", None);
        check("x:y:z", None);
    }

    #[test]
    fn what_only_the_image_names_is_bound_to_nothing() {
        let ports = [
            Published { port: 80, protocol: "tcp".into(), at: Some(("0.0.0.0".into(), 8080)) },
            Published { port: 443, protocol: "tcp".into(), at: None },
        ];
        let bound = json!({ "80/tcp": [{ "HostIp": "0.0.0.0", "HostPort": "8080" }] });
        assert_eq!(bindings(&ports, false), bound);
        assert_eq!(bindings(&ports, true)["443/tcp"], Value::Null);
        assert_eq!(bindings(&[], true), json!({}));
        assert_eq!(column(&ports)[1], json!({ "PrivatePort": 443, "Type": "tcp" }));
    }

    #[test]
    fn the_first_address_of_each_version_is_shown() {
        let status = EndpointStatus {
            interface: "eth0".into(),
            mac: "52:54:00:12:34:56".into(),
            addresses: ["fe80::1/64", "10.0.2.15/24", "fd00::5/48"].map(String::from).to_vec(),
            gateways: vec!["10.0.2.2".into()],
            dns: Vec::new(),
        };
        let endpoint = Endpoint::new("bridge", wire::spec::Nic::Slot(1));
        let shown = settings(&endpoint, Some(&status));
        let shown = ["IPAddress", "Gateway", "GlobalIPv6Address", "MacAddress"].map(|name| shown[name].clone());
        assert_eq!(shown, ["10.0.2.15", "10.0.2.2", "fd00::5", "52:54:00:12:34:56"]);
        assert_eq!(settings(&endpoint, None)["IPPrefixLen"], 0);
    }
}
