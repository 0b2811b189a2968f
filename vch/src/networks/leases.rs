//! What a container has on its networks: the wishes that last, and the addresses and ports of the machine that runs.
//!
//! ```text
//! STATE/serve/<id>/networks.json   its wishes, once they are others than those of docker create
//! STATE/serve/<id>/leases.json     what its machine has: a machine outlives this program, and no loss of power
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use wire::spec::{Endpoint, Nic, Prefix, Trust};

use super::addresses::{self, Pool};
use super::record::{self, Kind, Record};
use super::wishes::{Wish, Wishes};
use super::{NONE, NetworkError};
use crate::cli::run::network::mac as read_mac;
use crate::whole::Lasts;

/// A network that a container is on, or will be when its machine is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Joined {
    pub(crate) network: String,
    pub(crate) wish: Wish,
    pub(crate) lease: Option<Lease>,
}

/// What a machine has on a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lease {
    pub(crate) address: Ipv4Addr,
    pub(crate) prefix: u8,
    pub(crate) mac: [u8; 6],
    /// This host, as the container knows it. On a network that leads nowhere it answers about names only.
    pub(crate) gateway: Ipv4Addr,
    pub(crate) internal: bool,
    /// It is the way to everywhere, and in from the host's ports.
    pub(crate) is_main: bool,
    pub(crate) mtu: Option<u32>,
    pub(crate) ports: Vec<Bound>,
}

/// A port of the host that leads to a container's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bound {
    pub(crate) udp: bool,
    pub(crate) address: IpAddr,
    pub(crate) host: u16,
    pub(crate) port: u16,
}

impl Joined {
    pub(crate) fn new(network: &str, wish: Wish) -> Joined {
        Joined { network: network.into(), wish, lease: None }
    }

    /// Docker's word for what carries the network.
    pub(crate) fn driver(&self) -> &'static str {
        if self.network == NONE { "null" } else { "bridge" }
    }

    /// What its guest is told of the network.
    pub(crate) fn endpoint(&self, dns: &[IpAddr]) -> Option<Endpoint> {
        let Lease { address, prefix, mac, gateway, internal, is_main, mtu, .. } = *self.lease.as_ref()?;
        let gateway = IpAddr::V4(gateway);
        Some(Endpoint {
            addresses: vec![Prefix { address: IpAddr::V4(address), length: prefix }],
            gateways: if internal { Vec::new() } else { vec![gateway] },
            default: is_main && !internal,
            dns: if dns.is_empty() { vec![gateway] } else { dns.to_vec() },
            mtu,
            // who may send what is decided by the switch
            trust: Trust::Open,
            ..Endpoint::new(&self.network, Nic::Mac(mac))
        })
    }
}

impl Bound {
    pub(crate) fn protocol(self) -> wire::spec::Protocol {
        if self.udp { wire::spec::Protocol::Udp } else { wire::spec::Protocol::Tcp }
    }
}

/// Docker's order: of the networks that lead out, the one of the highest priority, and then of the first name, is the way to everywhere.
pub(super) fn in_order(joined: &mut [Joined], is_internal: impl Fn(&str) -> bool) {
    joined.sort_by_key(|one| (is_internal(&one.network), -one.wish.gw_priority, one.network.clone()));
}

/// An address and a card for a container on this network.
pub(super) fn lease(
    record: &Record,
    wish: &Wish,
    used: &BTreeSet<Ipv4Addr>,
    is_main: bool,
) -> Result<Option<Lease>, NetworkError> {
    let Kind::Bridge(pool) = &record.kind else { return Ok(None) };
    let address = match wish.address {
        Some(address) => chosen(pool, address, used)?,
        None => pool.free(used).ok_or_else(|| {
            NetworkError::Setup(format!("no available IPv4 addresses on this network's address pools: {}", record.name))
        })?,
    };
    // it was looked at when it was asked for
    let mac = wish.mac.as_deref().and_then(|text| read_mac(text).ok()).unwrap_or_else(|| addresses::mac(address));
    let (prefix, gateway, internal) = (pool.subnet.prefix, pool.gateway, record.internal);
    Ok(Some(Lease { address, prefix, mac, gateway, internal, is_main, mtu: mtu(record), ports: Vec::new() }))
}

/// The largest packet that the network's maker wants.
pub(super) fn mtu(record: &Record) -> Option<u32> {
    record.options.get(MTU)?.parse().ok().filter(|mtu| (68..=65535).contains(mtu))
}

/// An address that its user wants, in docker's words where it cannot be had.
fn chosen(pool: &Pool, address: Ipv4Addr, used: &BTreeSet<Ipv4Addr>) -> Result<Ipv4Addr, NetworkError> {
    if !pool.is_chosen {
        let why = "invalid endpoint settings:\nuser specified IP address is supported only when connecting to networks with user configured subnets";
        return Err(NetworkError::Invalid(why.into()));
    }
    if !pool.subnet.is_for_machines(address) {
        let why = format!("invalid endpoint settings:\nno configured subnet contains IP address {address}");
        return Err(NetworkError::Invalid(why));
    }
    if used.contains(&address) || pool.is_reserved(address) {
        return Err(NetworkError::Setup("Address already in use".into()));
    }
    Ok(address)
}

/// Those that its directory tells of; none where docker create's are still all.
pub(super) fn read_wishes(dir: &Path) -> Result<Option<Wishes>> {
    record::read(&dir.join(WISHES))
}

pub(super) fn write_wishes(dir: &Path, joined: &[Joined]) -> Result<()> {
    let wishes: Wishes = joined.iter().map(|one| (one.network.clone(), one.wish.clone())).collect();
    record::write(&dir.join(WISHES), &wishes, Lasts::Always)
}

/// What a machine of an earlier program has, by the networks' names. A file that a loss of power left half tells of a machine that is gone.
pub(super) fn read_leases(dir: &Path) -> BTreeMap<String, Lease> {
    record::read(&dir.join(LEASES)).ok().flatten().unwrap_or_default()
}

pub(super) fn write_leases(dir: &Path, joined: &[Joined]) -> Result<()> {
    let leases: BTreeMap<&str, &Lease> =
        joined.iter().filter_map(|one| Some((one.network.as_str(), one.lease.as_ref()?))).collect();
    match leases.is_empty() {
        true => record::remove(&dir.join(LEASES)),
        false => record::write(&dir.join(LEASES), &leases, Lasts::Boot),
    }
}

/// In a container's directory.
const WISHES: &str = "networks.json";
/// In a container's directory.
const LEASES: &str = "leases.json";
/// Docker's name of the option.
const MTU: &str = "com.docker.network.driver.mtu";

#[cfg(test)]
mod tests {
    use super::super::tests::record as network;
    use super::*;

    #[test]
    fn an_address_of_ones_own_is_free_inside_and_on_a_subnet_of_ones_own() {
        let wish = |text: &str| Wish { address: Some(text.parse().unwrap()), ..Wish::default() };
        let used = [Ipv4Addr::new(10, 5, 0, 9)].into();
        let check = |wish: &Wish, is_chosen, expected: Result<&str, &str>| {
            let record = network("n1", "10.5.0.0/24", is_chosen);
            let had = lease(&record, wish, &used, true).map(|lease| lease.unwrap().address.to_string());
            match (had, expected) {
                (Ok(had), Ok(expected)) => assert_eq!(had, expected),
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
                other => panic!("{other:?}"),
            }
        };
        check(&wish("10.5.0.7"), true, Ok("10.5.0.7"));
        check(&wish("10.5.0.9"), true, Err("Address already in use"));
        check(&wish("10.5.0.1"), true, Err("Address already in use"));
        check(&wish("10.6.0.7"), true, Err("no configured subnet contains IP address 10.6.0.7"));
        check(&wish("10.5.0.255"), true, Err("no configured subnet contains"));
        check(&wish("10.5.0.7"), false, Err("networks with user configured subnets"));
        check(&Wish::default(), false, Ok("10.5.0.2"));
    }

    #[test]
    fn the_way_to_everywhere_is_the_first_that_leads_there() {
        let joined = |network: &str, gw_priority| Joined::new(network, Wish { gw_priority, ..Wish::default() });
        let mut all = [joined("b", 0), joined("a", 0), joined("inner", 9), joined("z", 1)];
        in_order(&mut all, |name| name == "inner");
        assert_eq!(all.map(|one| one.network), ["z", "a", "b", "inner"]);
    }

    #[test]
    fn what_a_machine_has_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut one = Joined::new("n1", Wish::default());
        one.lease = lease(&network("n1", "10.5.0.0/24", true), &one.wish, &BTreeSet::new(), true).unwrap();
        write_leases(dir.path(), std::slice::from_ref(&one)).unwrap();
        assert_eq!(read_leases(dir.path()).remove("n1"), one.lease);
        std::fs::write(dir.path().join(LEASES), "{\"n1\":").unwrap();
        assert!(read_leases(dir.path()).is_empty());
        one.lease = None;
        write_leases(dir.path(), std::slice::from_ref(&one)).unwrap();
        assert!(!dir.path().join(LEASES).exists());
    }

    #[test]
    fn a_guest_is_told_what_it_has() {
        let mut one = Joined::new("n1", Wish::default());
        assert_eq!(one.endpoint(&[]), None);
        let mut record = network("n1", "10.5.0.0/24", true);
        one.lease = lease(&record, &one.wish, &BTreeSet::new(), true).unwrap();
        let endpoint = one.endpoint(&[]).unwrap();
        assert_eq!(endpoint.nic, Nic::Mac([2, 0x42, 10, 5, 0, 2]));
        assert_eq!((endpoint.default, endpoint.gateways.clone()), (true, endpoint.dns.clone()));
        record.internal = true;
        one.lease = lease(&record, &one.wish, &BTreeSet::new(), true).unwrap();
        let endpoint = one.endpoint(&["9.9.9.9".parse().unwrap()]).unwrap();
        assert!(!endpoint.default && endpoint.gateways.is_empty());
        assert_eq!(endpoint.dns[0].to_string(), "9.9.9.9");
    }
}
