//! The keys of the networks that the container is on, and of names.
//!
//! VIC wrote addresses as base64 and lists of them as trees; we write text in lists. Both are read; where both are there they must say the same.

#[cfg(test)]
mod tests;
pub(super) mod text;
pub(crate) mod vic;

use core::net::{IpAddr, Ipv4Addr};

use self::text::{hardware, network, pool, port, prefix, route, trust};
use super::SpecError;
use super::node::{Node, Writer};
use crate::spec::{Endpoint, Names, Nic, Prefix, Route, Spec, Trust};

const ADDRESS: &str = "an address, such as 10.0.0.2 or fd00::2";
const ADDRESSES: &str = "an address and the length of its prefix, such as 10.0.0.2/24";

pub(crate) fn read_endpoints(root: &Node<'_>) -> Result<Vec<Endpoint>, SpecError> {
    let names = root.names("networks")?;
    let alone = names.len() == 1;
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for name in names {
        let node = root.below(&vic::path(&name));
        let endpoint = read_endpoint(root, &node, name, alone)?;
        for other in &endpoints {
            check_pair(&node, &endpoint, other)?;
        }
        endpoints.push(endpoint);
    }
    Ok(endpoints)
}

pub(crate) fn read_endpoint(
    root: &Node<'_>,
    node: &Node<'_>,
    name: String,
    alone: bool,
) -> Result<Endpoint, SpecError> {
    let old = vic::read(root, node, &name)?;
    // made whole and then filled: PID 1 is counted in bytes, and each half-made value would need its own way out
    let mut endpoint = Endpoint {
        interface: read_interface(node)?,
        addresses: each(node, "addresses", ADDRESSES, prefix)?,
        ..Endpoint::new(name, read_nic(node)?)
    };
    read_addresses(node, &mut endpoint, &old, alone)?;
    let routes = each(node, "routes", "a route, such as `192.168.0.0/16 via 10.0.0.1` or `10.1.0.0/16`", route)?;
    endpoint.routes = same(node, "routes", routes, vic::routes(&old.destinations, &endpoint.gateways))?;
    let bytes = |text: &str| text.parse().ok().filter(|mtu| (68..=65535).contains(mtu));
    endpoint.mtu = node.parsed("mtu", "a number of bytes from 68 to 65535", bytes)?;
    endpoint.dns = same(node, "dns", each(node, "dns", ADDRESS, parse)?, old.dns)?;
    endpoint.trust = read_trust(node, old.trust)?;
    let pools = each(node, "pools", "a range, such as 10.0.0.1-10.0.0.9", pool)?;
    endpoint.pools = same(node, "pools", pools, old.pools)?;
    endpoint.ports = each(node, "ports", "a port, such as `80/tcp`, `8080:80/tcp` or `5000-5010/udp`", port)?;
    check(node, &endpoint)?;
    Ok(endpoint)
}

#[inline(never)]
fn read_addresses(node: &Node<'_>, endpoint: &mut Endpoint, old: &vic::Old, alone: bool) -> Result<(), SpecError> {
    // an address of VIC's may be one of several
    match old.address {
        Some(own) if endpoint.addresses.is_empty() => endpoint.addresses.push(own),
        Some(own) if !endpoint.addresses.contains(&own) => {
            return Err(node.invalid("ip/IP", &own.address.to_string(), "one of the `addresses` that are given too"));
        }
        _ => {}
    }
    endpoint.dhcp = node.flag("dhcp", endpoint.addresses.is_empty() && !old.fixed)?;
    if endpoint.dhcp && old.fixed {
        return Err(node.invalid("dhcp", "true", "possible: `static` says that nobody is asked"));
    }
    endpoint.gateways = same(node, "gateways", each(node, "gateways", ADDRESS, parse)?, old.gateways.clone())?;
    endpoint.default = node.flag("network/default", alone && !old.internal)?;
    if endpoint.default && old.internal {
        return Err(node.invalid("network/default", "true", "possible: the network is `internal`"));
    }
    Ok(())
}

#[inline(never)]
fn read_trust(node: &Node<'_>, old: Option<Trust>) -> Result<Trust, SpecError> {
    let given = node.parsed("trust", "`published`, `open`, `closed`, `outbound` or `peers`", trust)?;
    match (given, old) {
        (Some(given), Some(old)) if given != old => {
            Err(node.invalid("trust", text::trust_name(given), "what TrustLevel, or the network's type, says"))
        }
        (given, old) => Ok(given.or(old).unwrap_or_default()),
    }
}

#[inline(never)]
fn read_nic(node: &Node<'_>) -> Result<Nic, SpecError> {
    let mac = node.parsed("mac", "the hardware address of a card, such as 52:54:00:12:34:56", hardware)?;
    let slot = node.parsed("Common/id", "vSphere's number of a PCI slot", vic::slot)?;
    match (mac, slot) {
        (Some(_), Some(slot)) => {
            Err(node.invalid("Common/id", &slot.to_string(), "needed: `mac` names the card, and only one may"))
        }
        (Some(mac), None) => Ok(Nic::Mac(mac)),
        (None, Some(slot)) => Ok(Nic::Slot(slot)),
        (None, None) => Err(SpecError::Missing(format!("{0}mac, nor {0}Common/id", node.path))),
    }
}

#[inline(never)]
fn read_interface(node: &Node<'_>) -> Result<Option<String>, SpecError> {
    const NAME: &str = "a name of an interface: at most 15 letters, digits and signs but `/` and `:`, and not `lo`";
    let fits = |name: &str| {
        let sound = name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/' && byte != b':');
        (sound && name.len() <= 15 && !["lo", ".", ".."].contains(&name)).then(|| name.to_owned())
    };
    let given = node.parsed("interface", NAME, fits)?;
    let old = node.parsed("Common/name", NAME, fits)?;
    match (given, old) {
        (Some(given), Some(old)) if given != old => Err(node.invalid("interface", &given, "what Common/name says")),
        (given, old) => Ok(given.or(old)),
    }
}

/// What one network says against itself.
#[inline(never)]
fn check(node: &Node<'_>, endpoint: &Endpoint) -> Result<(), SpecError> {
    const REACHED: &str = "reached from this network: it is in none of its addresses' prefixes";
    let on_link = |address: IpAddr| {
        let asked = endpoint.dhcp && address.is_ipv4();
        let local = matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
        let own = endpoint
            .addresses
            .iter()
            .chain(endpoint.routes.iter().filter(|route| route.gateway.is_none()).map(|route| &route.destination));
        asked || local || own.into_iter().any(|own| network(own.address, own.length) == network(address, own.length))
    };
    for &gateway in &endpoint.gateways {
        if gateway.is_unspecified() || gateway.is_multicast() || !on_link(gateway) {
            return Err(node.invalid("gateways", &gateway.to_string(), REACHED));
        }
    }
    for Route { destination, gateway } in &endpoint.routes {
        match *gateway {
            Some(gateway) if gateway.is_ipv4() != destination.address.is_ipv4() => {
                let text = text::route_text(&Route { destination: *destination, gateway: Some(gateway) });
                return Err(node.invalid("routes", &text, "a route within one version of IP"));
            }
            Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED)) if endpoint.dhcp => {}
            Some(gateway) if !on_link(gateway) => {
                return Err(node.invalid("routes", &gateway.to_string(), REACHED));
            }
            _ => {}
        }
    }
    if let Some(mtu) = endpoint.mtu.filter(|&mtu| mtu < 1280)
        && endpoint.addresses.iter().any(|own| own.address.is_ipv6())
    {
        return Err(node.invalid("mtu", &mtu.to_string(), "enough for IPv6, which needs 1280"));
    }
    Ok(())
}

/// What two networks say against each other.
#[inline(never)]
pub(crate) fn check_pair(node: &Node<'_>, one: &Endpoint, other: &Endpoint) -> Result<(), SpecError> {
    if one.name == other.name {
        return Err(node.invalid("", &one.name, "the name of one network only"));
    }
    for version in [IpAddr::is_ipv4, IpAddr::is_ipv6] {
        let leads = |endpoint: &Endpoint| {
            let asked = endpoint.dhcp && version(&IpAddr::V4(Ipv4Addr::UNSPECIFIED));
            endpoint.default && (asked || endpoint.gateways.iter().any(version))
        };
        if leads(one) && leads(other) {
            return Err(node.invalid(
                "network/default",
                "true",
                "possible: another network is the default one already",
            ));
        }
    }
    if let Some(Prefix { address, .. }) =
        one.addresses.iter().find(|own| other.addresses.iter().any(|there| own.address == there.address))
    {
        return Err(node.invalid("addresses", &address.to_string(), "free: another network has it"));
    }
    if one.nic == other.nic {
        if one.dhcp && other.dhcp {
            return Err(node.invalid("dhcp", "true", "possible: another network on the same card asks already"));
        }
    } else if let Some(name) = one.interface.as_ref().filter(|_| one.interface == other.interface) {
        return Err(node.invalid("interface", name, "free: another network's card is called so"));
    }
    Ok(())
}

/// A list, each element of which must be read.
#[inline(never)]
fn each<T>(
    node: &Node<'_>,
    key: &str,
    expected: &'static str,
    read: fn(&str) -> Option<T>,
) -> Result<Vec<T>, SpecError> {
    let mut all = Vec::new();
    every(node, key, expected, &mut |text| read(text).map(|one| all.push(one)).is_some())?;
    Ok(all)
}

/// The same for what is made of any of them: PID 1 has it once, and not for each kind.
fn every(
    node: &Node<'_>,
    key: &str,
    expected: &'static str,
    take: &mut dyn FnMut(&str) -> bool,
) -> Result<(), SpecError> {
    match node.list(key)?.iter().find(|text| !take(text)) {
        Some(text) => Err(node.invalid(key, text, expected)),
        None => Ok(()),
    }
}

/// What both grammars say, when they do not disagree.
#[inline(never)]
fn same<T: PartialEq>(node: &Node<'_>, key: &str, given: Vec<T>, old: Vec<T>) -> Result<Vec<T>, SpecError> {
    match (given.is_empty(), old.is_empty()) {
        (true, _) => Ok(old),
        (false, false) if given != old => Err(other(node, key)),
        (false, _) => Ok(given),
    }
}

fn other(node: &Node<'_>, key: &str) -> SpecError {
    let found = node.list(key).unwrap_or_default().join(", ");
    node.invalid(key, &found, "what the keys below `network` say")
}

fn parse(text: &str) -> Option<IpAddr> {
    text.parse().ok()
}

pub(crate) fn read_names(root: &Node<'_>) -> Result<Names, SpecError> {
    const HOST: &str = "an address and a name, such as `10.0.0.7 db`";
    let sound = |key: &str, names: Vec<String>, expected| match names.iter().find(|name| !is_word(name)) {
        Some(name) => Err(root.invalid(key, name, expected)),
        None => Ok(names),
    };
    for key in ["hostname", "domainname"] {
        let name = |text: &str| (is_word(text) && text.len() <= 64).then_some(());
        root.parsed(key, "a name of at most 64 letters, digits, `-`, `_` and `.`", name)?;
    }
    Ok(Names {
        hosts: each(root, "names/hosts", HOST, |text| {
            let (address, name) = text.split_once(' ')?;
            Some((address.parse().ok()?, Some(name).filter(|name| is_word(name))?.to_owned()))
        })?,
        search: sound("names/search", root.list("names/search")?, "the name of a domain")?,
        options: sound("names/options", root.list("names/options")?, "an option of resolv.conf(5)")?,
    })
}

/// It stays one word of one line.
fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte))
}

pub(super) fn write(keys: &mut Writer<'_>, spec: &Spec) {
    keys.names("networks", spec.networks.iter().map(|endpoint| endpoint.name.as_str()));
    for endpoint in &spec.networks {
        write_endpoint(&mut keys.below(&vic::path(&endpoint.name)), endpoint);
    }
    let Names { hosts, search, options } = &spec.names;
    let hosts: Vec<String> = hosts.iter().map(|(address, name)| format!("{address} {name}")).collect();
    keys.list("names/hosts", &hosts);
    keys.list("names/search", search);
    keys.list("names/options", options);
}

fn write_endpoint(keys: &mut Writer<'_>, endpoint: &Endpoint) {
    match endpoint.nic {
        Nic::Slot(slot) => keys.set("Common/id", &slot.to_string()),
        Nic::Mac(mac) => keys.set("mac", &text::hardware_text(mac)),
    }
    if let Some(name) = &endpoint.interface {
        keys.set("interface", name);
    }
    let texts = |list: &[IpAddr]| -> Vec<String> { list.iter().map(IpAddr::to_string).collect() };
    let addresses: Vec<String> = endpoint.addresses.iter().map(text::prefix_text).collect();
    let routes: Vec<String> = endpoint.routes.iter().map(text::route_text).collect();
    let pools: Vec<String> = endpoint.pools.iter().map(|(first, last)| format!("{first}-{last}")).collect();
    let ports: Vec<String> = endpoint.ports.iter().map(text::port_text).collect();
    keys.list("addresses", &addresses);
    keys.flag("dhcp", endpoint.dhcp);
    keys.list("gateways", &texts(&endpoint.gateways));
    keys.flag("network/default", endpoint.default);
    keys.list("routes", &routes);
    if let Some(mtu) = endpoint.mtu {
        keys.set("mtu", &mtu.to_string());
    }
    keys.list("dns", &texts(&endpoint.dns));
    if endpoint.trust != Trust::default() {
        keys.set("trust", text::trust_name(endpoint.trust));
    }
    keys.list("pools", &pools);
    keys.list("ports", &ports);
}
