//! What vSphere Integrated Containers wrote of a network: addresses as base64 of 4 or 16 bytes, lists as trees, and types in place of levels.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::super::{base64, node::Node};
use super::text::{is_usable, network, ordered};
use crate::guestinfo::SpecError;
use crate::spec::{Prefix, Route, Trust};

const BYTES: &str = "base64 of an address's 4 or 16 bytes";
const MASK: &str = "base64 of a mask for the address beside it: ones, then zeros";

/// What VIC's keys say of a network; what they do not say is empty.
#[derive(Default)]
pub(super) struct Old {
    pub(super) address: Option<Prefix>,
    /// Nobody is asked for an address.
    pub(super) fixed: bool,
    pub(super) gateways: Vec<IpAddr>,
    pub(super) internal: bool,
    pub(super) destinations: Vec<Prefix>,
    pub(super) dns: Vec<IpAddr>,
    pub(super) trust: Option<Trust>,
    pub(super) pools: Vec<(IpAddr, IpAddr)>,
}

/// Where a network's keys are: VIC turned each `.` of a path into its separator, in names too.
pub(crate) fn path(name: &str) -> String {
    format!("networks|{}", name.replace('.', "/"))
}

#[inline(never)]
pub(super) fn read(root: &Node<'_>, node: &Node<'_>, name: &str) -> Result<Old, SpecError> {
    let fixed = node.flag("static", false)?;
    let internal = node.flag("internal", false)?;
    // 0.0.0.0 stands for none
    let own = node.parsed("ip/IP", BYTES, address)?.filter(|own| !own.is_unspecified());
    let own = match own {
        None => None,
        Some(own) if !is_usable(own) => {
            return Err(node.invalid("ip/IP", &own.to_string(), "an address that a machine can have"));
        }
        Some(own) => match mask_below(node, "ip/", own)? {
            0 => return Err(node.invalid("ip/Mask", "0", MASK)),
            length => Some(Prefix { address: own, length }),
        },
    };
    let gateway = node.parsed("network/gateway/IP", BYTES, address)?.filter(|gateway| !gateway.is_unspecified());
    let mut dns = Vec::new();
    for index in 0..count(node, "network/dns")? {
        dns.push(required(node, &format!("network/dns|{index}"))?);
    }
    let (mut pools, mut destinations) = (Vec::new(), Vec::new());
    for index in 0..count(node, "network/pools")? {
        let key = format!("network/pools|{index}/first");
        let (first, last) = (required(node, &key)?, required(node, &format!("network/pools|{index}/last"))?);
        let pool = ordered(first, last);
        pools.push(pool.ok_or_else(|| node.invalid(&key, &first.to_string(), "before the pool's last address"))?);
    }
    for index in 0..count(node, "network/destinations")? {
        let path = format!("network/destinations|{index}/");
        let address = required(node, &format!("{path}IP"))?;
        let length = mask_below(node, &path, address)?;
        destinations.push(Prefix { address: network(address, length), length });
    }
    let level = node.parsed("network/TrustLevel", "a trust level from 0 to 5", level)?;
    let bridge = root.network_type(name)?;
    // the appliance answers for names at the gateway of a bridge
    if bridge && dns.is_empty() {
        dns.extend(gateway);
    }
    Ok(Old {
        address: own,
        fixed,
        gateways: gateway.into_iter().collect(),
        internal,
        destinations,
        dns,
        // the members of a bridge reach each other, whatever its level
        trust: if bridge { Some(Trust::Peers) } else { level },
        pools,
    })
}

impl Node<'_> {
    /// Whether it is a bridge; the key is one that a guest may write, and so holds dots.
    #[inline(never)]
    fn network_type(&self, name: &str) -> Result<bool, SpecError> {
        let dotted = Node { keys: self.keys, path: format!("{}.", self.path.trim_end_matches('/').replace('/', ".")) };
        let key = format!("networks|{}.network.type", name.replace('/', "."));
        let is_bridge = |text: &str| match text {
            "bridge" => Some(true),
            "external" => Some(false),
            _ => None,
        };
        Ok(dotted.parsed(&key, "`bridge` or `external`", is_bridge)?.unwrap_or(false))
    }
}

/// Networks that are reached through the first gateway of their version; where none is given, through the one that DHCP names.
pub(super) fn routes(destinations: &[Prefix], gateways: &[IpAddr]) -> Vec<Route> {
    let route = |&destination: &Prefix| {
        let version = |gateway: &&IpAddr| gateway.is_ipv4() == destination.address.is_ipv4();
        let asked = || destination.address.is_ipv4().then_some(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        Some(Route { destination, gateway: Some(gateways.iter().find(version).copied().or_else(asked)?) })
    };
    destinations.iter().filter_map(route).collect()
}

/// vSphere's slot number: device in bits 0-4, bus in bits 5-9, function in bits 10-12. Buses but the first lie behind bridges in the slots from 17 on.
pub(super) fn slot(text: &str) -> Option<u32> {
    text.parse().ok().filter(|&slot: &u32| slot < 1 << 13 && (slot >> 5) & 0x1f <= 15)
}

fn level(text: &str) -> Option<Trust> {
    Some(match text {
        "0" | "1" => Trust::Published,
        "2" => Trust::Open,
        "3" => Trust::Closed,
        "4" => Trust::Outbound,
        "5" => Trust::Peers,
        _ => return None,
    })
}

/// How many elements a list of VIC's has that is not one of texts: its key holds one less.
#[inline(never)]
fn count(node: &Node<'_>, key: &str) -> Result<usize, SpecError> {
    let count = |text: &str| text.parse().ok().filter(|&last: &usize| last < 1000).map(|last| last + 1);
    Ok(node.parsed(key, "a number", count)?.unwrap_or(0))
}

#[inline(never)]
fn required(node: &Node<'_>, key: &str) -> Result<IpAddr, SpecError> {
    let missing = || SpecError::Missing(format!("{}{key}", node.path));
    node.parsed(key, BYTES, address)?.ok_or_else(missing)
}

#[inline(never)]
fn mask_below(node: &Node<'_>, path: &str, address: IpAddr) -> Result<u8, SpecError> {
    let key = format!("{path}Mask");
    let missing = || SpecError::Missing(format!("{}{key}", node.path));
    node.parsed(&key, MASK, |text| mask(text, address))?.ok_or_else(missing)
}

/// An IPv4 address in 16 bytes is one in 4.
#[inline(never)]
fn address(text: &str) -> Option<IpAddr> {
    let bytes = base64::decode(text)?;
    if let Ok(bytes) = <[u8; 4]>::try_from(&bytes[..]) {
        return Some(IpAddr::V4(Ipv4Addr::from(bytes)));
    }
    Some(IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)).to_canonical())
}

#[inline(never)]
fn mask(text: &str, address: IpAddr) -> Option<u8> {
    let bytes = base64::decode(text)?;
    let mask = match (address, bytes.len()) {
        (IpAddr::V4(_), 4) => &bytes[..],
        // twelve bytes of ones stand before the four that count
        (IpAddr::V4(_), 16) => bytes.strip_prefix(&[0xff; 12])?,
        (IpAddr::V6(_), 16) => &bytes[..],
        _ => return None,
    };
    let ones: u32 = mask.iter().map(|byte| byte.leading_ones()).sum();
    let all: u32 = mask.iter().map(|byte| byte.count_ones()).sum();
    let leading = mask.iter().position(|&byte| byte != 0xff).unwrap_or(mask.len());
    let rest_is_zero = mask.iter().skip(leading + 1).all(|&byte| byte == 0);
    (ones == all && rest_is_zero).then(|| u8::try_from(ones).unwrap_or(128))
}
