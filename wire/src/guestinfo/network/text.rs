//! Addresses, routes, ports and their like as text, in the forms that people write.

use core::net::IpAddr;
use core::str::FromStr;

use crate::spec::{Port, Prefix, Protocol, Route, Trust};

const TRUSTS: [(&str, Trust); 5] = [
    ("published", Trust::Published),
    ("open", Trust::Open),
    ("closed", Trust::Closed),
    ("outbound", Trust::Outbound),
    ("peers", Trust::Peers),
];

pub(super) fn trust(text: &str) -> Option<Trust> {
    TRUSTS.iter().find(|(name, _)| *name == text).map(|&(_, trust)| trust)
}

pub(super) fn trust_name(trust: Trust) -> &'static str {
    TRUSTS.iter().find(|(_, known)| *known == trust).map_or("", |&(name, _)| name)
}

/// Six bytes of a single card's: the lowest bit of the first is a group's.
pub(in crate::guestinfo) fn hardware(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut digits = text.split([':', '-']);
    for byte in &mut mac {
        let pair = digits.next().filter(|pair| pair.len() == 2 && !pair.starts_with('+'))?;
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    (digits.next().is_none() && mac[0] & 1 == 0 && mac != [0; 6]).then_some(mac)
}

pub(in crate::guestinfo) fn hardware_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// The address that a network begins with, when its prefix has that length.
pub(super) fn network(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => IpAddr::V4(
            (address.to_bits() & u32::MAX.checked_shl(32u32.saturating_sub(length.into())).unwrap_or(0)).into(),
        ),
        IpAddr::V6(address) => IpAddr::V6(
            (address.to_bits() & u128::MAX.checked_shl(128u32.saturating_sub(length.into())).unwrap_or(0)).into(),
        ),
    }
}

fn any_prefix(text: &str) -> Option<Prefix> {
    let (address, length) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    Some(Prefix {
        address,
        length: number(length).filter(|&length| length <= if address.is_ipv4() { 32 } else { 128 })?,
    })
}

/// An address that a machine can have.
pub(super) fn prefix(text: &str) -> Option<Prefix> {
    any_prefix(text).filter(|prefix| is_usable(prefix.address) && prefix.length > 0)
}

pub(super) fn is_usable(address: IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    !address.is_unspecified() && !address.is_multicast() && !address.is_loopback() && !broadcast
}

pub(super) fn prefix_text(prefix: &Prefix) -> String {
    format!("{}/{}", prefix.address, prefix.length)
}

/// `192.168.0.0/16 via 10.0.0.1`, `10.1.0.0/16`.
pub(super) fn route(text: &str) -> Option<Route> {
    let (destination, gateway) = match text.split_once(" via ") {
        Some((destination, gateway)) => (destination, Some(gateway.parse().ok()?)),
        None => (text, None),
    };
    let destination = any_prefix(destination)?;
    (network(destination.address, destination.length) == destination.address).then_some(Route { destination, gateway })
}

pub(super) fn route_text(route: &Route) -> String {
    match route.gateway {
        Some(gateway) => format!("{} via {gateway}", prefix_text(&route.destination)),
        None => prefix_text(&route.destination),
    }
}

pub(super) fn pool(text: &str) -> Option<(IpAddr, IpAddr)> {
    let (first, last) = text.split_once('-')?;
    ordered(first.parse().ok()?, last.parse().ok()?)
}

pub(super) fn ordered(first: IpAddr, last: IpAddr) -> Option<(IpAddr, IpAddr)> {
    (first.is_ipv4() == last.is_ipv4() && first <= last).then_some((first, last))
}

/// VIC's own form: `8080:80/tcp`, `80`, `5000-5010/udp`. TCP where nothing is said, as docker has it.
pub(super) fn port(text: &str) -> Option<Port> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        _ => return None,
    };
    let (ports, to) = match ports.split_once(':') {
        Some((ports, to)) => (ports, Some(number(to)?)),
        None => (ports, None),
    };
    let ports = match ports.split_once('-') {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(ports)?, number(ports)?),
    };
    // a range that is redirected has no meaning: where would its second go?
    let sound = ports.0 > 0 && ports.0 <= ports.1 && to != Some(0) && (to.is_none() || ports.0 == ports.1);
    sound.then_some(Port { protocol, ports, to })
}

pub(super) fn port_text(port: &Port) -> String {
    let (first, last) = port.ports;
    let protocol = match port.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    match port.to {
        Some(to) => format!("{first}:{to}/{protocol}"),
        None if first == last => format!("{first}/{protocol}"),
        None => format!("{first}-{last}/{protocol}"),
    }
}

/// Digits and nothing else: Rust's own reader takes a `+`.
fn number<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok().filter(|_| !text.starts_with('+'))
}
