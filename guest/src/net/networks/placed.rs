//! One network of the machine's, set up: its card, its addresses, and what DHCP gave.

use std::net::{IpAddr, Ipv4Addr};

use wire::spec::{Endpoint, Prefix, Route};
use wire::status::EndpointStatus;

use super::{NetworksError, machine};
use crate::net::card;
use crate::net::dhcp::{Asker, Lease};
use crate::net::netlink::NetlinkError;
use crate::net::stack::{Link, Stack};

/// A network whose card is there.
pub(super) struct Placed {
    pub(super) endpoint: Endpoint,
    pub(super) link: Link,
    pub(super) asker: Option<Asker>,
    pub(super) lease: Option<Lease>,
}

impl Placed {
    pub(super) fn new(endpoint: Endpoint, link: Link) -> Placed {
        Placed { endpoint, link, asker: None, lease: None }
    }

    /// Takes the interface up with what is set. Nothing here waits.
    pub(super) fn set_up(&self, stack: &mut Stack) -> Result<(), NetworksError> {
        let (endpoint, index) = (&self.endpoint, self.link.index);
        if let Some(mtu) = endpoint.mtu {
            self.told(&format!("set an MTU of {mtu} bytes"), stack.set_mtu(index, mtu))?;
        }
        self.told("take it up", stack.up(index))?;
        for own in &endpoint.addresses {
            self.told(&format!("set the address {}/{}", own.address, own.length), stack.add_address(index, own))?;
        }
        self.add_routes(stack)
    }

    /// Takes what DHCP gave in place of what it gave before.
    pub(super) fn bind(&mut self, stack: &mut Stack, lease: Lease) -> Result<(), NetworksError> {
        let index = self.link.index;
        let (own, mtu) = (lease.own, lease.mtu.filter(|_| self.endpoint.mtu.is_none()));
        let before = self.lease.replace(lease);
        if let Some(mtu) = mtu {
            self.told(&format!("set an MTU of {mtu} bytes, as DHCP says"), stack.set_mtu(index, mtu))?;
        }
        // the new one first: with the last address of an interface its routes go
        self.told(&format!("set the address {}/{}", own.address, own.length), stack.add_address(index, &own))?;
        if let Some(before) = before {
            self.forget(stack, &before)?;
            // with the first address of a prefix the kernel removes all that were added behind it (ip-sysctl.rst, promote_secondaries)
            self.told(&format!("keep the address {}/{}", own.address, own.length), stack.add_address(index, &own))?;
        }
        self.add_routes(stack)
    }

    /// Goes on without what DHCP gave.
    pub(super) fn lose(&mut self, stack: &mut Stack) -> Result<(), NetworksError> {
        let Some(before) = self.lease.take() else { return Ok(()) };
        self.forget(stack, &before)?;
        self.add_routes(stack)
    }

    /// Removes what was given before and is not any more.
    fn forget(&self, stack: &mut Stack, before: &Lease) -> Result<(), NetworksError> {
        let now = routes(&self.endpoint, self.lease.as_ref());
        for route in routes(&self.endpoint, Some(before)).iter().filter(|route| !now.contains(route)) {
            self.told("remove a route", stack.remove_route(self.link.index, route))?;
        }
        let kept = self.lease.as_ref().is_some_and(|lease| lease.own == before.own);
        if kept || self.endpoint.addresses.contains(&before.own) {
            return Ok(());
        }
        self.told("remove an address", stack.remove_address(self.link.index, &before.own))
    }

    fn add_routes(&self, stack: &mut Stack) -> Result<(), NetworksError> {
        // what is on the network itself first: a gateway may lie in it
        let mut routes = routes(&self.endpoint, self.lease.as_ref());
        routes.sort_by_key(|route| route.gateway.is_some());
        routes.iter().try_for_each(|route| {
            let what = || format!("set the route to {}/{}", route.destination.address, route.destination.length);
            self.told(&what(), stack.add_route(self.link.index, route))
        })
    }

    /// Every address that the machine has through this network.
    pub(super) fn addresses(&self) -> impl Iterator<Item = Prefix> {
        let given = self.lease.as_ref().map(|lease| lease.own).filter(|own| !self.endpoint.addresses.contains(own));
        self.endpoint.addresses.iter().copied().chain(given)
    }

    pub(super) fn status(&self) -> EndpointStatus {
        let given = self.lease.as_ref();
        let texts = |all: &[IpAddr]| all.iter().map(IpAddr::to_string).collect();
        EndpointStatus {
            interface: self.link.name.clone(),
            mac: card::text(self.link.mac),
            addresses: self.addresses().map(|own| format!("{}/{}", own.address, own.length)).collect(),
            gateways: texts(&gateways(&self.endpoint, given)),
            dns: texts(&[&self.endpoint.dns[..], given.map_or(&[], |lease| &lease.dns)].concat()),
        }
    }

    fn told(&self, what: &str, result: Result<(), NetlinkError>) -> Result<(), NetworksError> {
        let name = format!("network {}: cannot {what} on {}", self.endpoint.name, self.link.name);
        result.map_err(|error| machine(&name, &error))
    }
}

/// The first gateway of each version. One that is set counts before one that DHCP names.
fn gateways(endpoint: &Endpoint, lease: Option<&Lease>) -> Vec<IpAddr> {
    let given = lease.and_then(|lease| lease.gateway).map(IpAddr::V4);
    let mut first: Vec<IpAddr> = Vec::new();
    for gateway in endpoint.gateways.iter().copied().chain(given) {
        if first.iter().all(|known| known.is_ipv4() != gateway.is_ipv4()) {
            first.push(gateway);
        }
    }
    first
}

/// Every route through a network: what its spec says, what DHCP says, and the way to everywhere.
fn routes(endpoint: &Endpoint, lease: Option<&Lease>) -> Vec<Route> {
    let gateways = gateways(endpoint, lease);
    let mut all = Vec::new();
    for route in &endpoint.routes {
        let gateway = match route.gateway {
            // the one that DHCP names: there may be none yet
            Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED)) => gateways.iter().copied().find(IpAddr::is_ipv4),
            other => other,
        };
        if gateway.is_some() || route.gateway.is_none() {
            all.push(Route { gateway, ..*route });
        }
    }
    // what is set counts
    let given = lease.map_or(&[][..], |lease| &lease.routes);
    let is_new = |route: &&Route| endpoint.routes.iter().all(|known| known.destination != route.destination);
    all.extend(given.iter().filter(is_new));
    if endpoint.default {
        all.extend(gateways.into_iter().map(|gateway| {
            let any = if gateway.is_ipv4() { [0; 4].into() } else { [0u8; 16].into() };
            Route { destination: Prefix { address: any, length: 0 }, gateway: Some(gateway) }
        }));
    }
    all
}

#[cfg(test)]
mod tests {
    use wire::spec::Nic;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn route(text: &str, length: u8, gateway: Option<&str>) -> Route {
        Route { destination: Prefix { address: ip(text), length }, gateway: gateway.map(ip) }
    }

    fn endpoint() -> Endpoint {
        Endpoint {
            dhcp: true,
            default: true,
            routes: vec![route("192.168.0.0", 16, Some("0.0.0.0")), route("10.9.0.0", 16, None)],
            dns: vec![ip("10.0.0.3")],
            ..Endpoint::new("a", Nic::Slot(5))
        }
    }

    fn lease() -> Lease {
        Lease {
            server: Ipv4Addr::new(10, 0, 0, 1),
            own: Prefix { address: ip("10.0.0.5"), length: 24 },
            gateway: Some(Ipv4Addr::new(10, 0, 0, 1)),
            routes: vec![route("10.9.0.0", 16, Some("10.0.0.7")), route("10.8.0.0", 16, Some("10.0.0.7"))],
            dns: vec![ip("10.0.0.4")],
            search: Vec::new(),
            mtu: None,
        }
    }

    #[test]
    fn the_way_to_everywhere_comes_with_the_lease() {
        assert_eq!(routes(&endpoint(), None), [route("10.9.0.0", 16, None)]);
        let expected = [
            route("192.168.0.0", 16, Some("10.0.0.1")),
            route("10.9.0.0", 16, None),
            route("10.8.0.0", 16, Some("10.0.0.7")),
            route("0.0.0.0", 0, Some("10.0.0.1")),
        ];
        assert_eq!(routes(&endpoint(), Some(&lease())), expected);
        let away = Endpoint { default: false, ..endpoint() };
        assert_eq!(routes(&away, Some(&lease())), expected[..3]);
    }

    /// In a network namespace of this thread's own, whose one interface is the loopback.
    #[test]
    fn an_address_in_the_network_of_the_one_before_outlives_it() {
        let apart = || {
            if nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).is_err() {
                eprintln!("SKIPPED an_address_in_the_network_of_the_one_before_outlives_it: needs root");
                return;
            }
            let mut stack = Stack::open().unwrap();
            stack.loopback_up().unwrap();
            let link = Link { index: 1, name: "lo".into(), mac: [0; 6], is_up: true, is_running: true };
            let mut placed = Placed::new(Endpoint { routes: Vec::new(), ..endpoint() }, link);
            for address in ["10.0.0.5", "10.0.0.6"] {
                let own = Prefix { address: ip(address), length: 24 };
                placed.bind(&mut stack, Lease { own, routes: Vec::new(), gateway: None, ..lease() }).unwrap();
            }
            // who may send from it has it
            assert!(std::net::UdpSocket::bind("10.0.0.6:0").is_ok());
        };
        std::thread::spawn(apart).join().unwrap();
    }

    #[test]
    fn a_gateway_that_is_set_counts_before_dhcps() {
        let set = Endpoint { gateways: vec![ip("10.0.0.254"), ip("fe80::1"), ip("10.0.0.253")], ..endpoint() };
        assert_eq!(gateways(&set, Some(&lease())), [ip("10.0.0.254"), ip("fe80::1")]);
        let set = Endpoint { gateways: vec![ip("fe80::1")], ..endpoint() };
        assert_eq!(gateways(&set, Some(&lease())), [ip("fe80::1"), ip("10.0.0.1")]);
        let all = routes(&set, None);
        assert_eq!(all.last(), Some(&route("::", 0, Some("fe80::1"))));
    }

    #[test]
    fn a_status_tells_what_is_set_and_what_was_given() {
        let link = Link { index: 2, name: "eth0".into(), mac: [0x52, 0x54, 0, 0, 0, 1], is_up: true, is_running: true };
        let addresses = vec![Prefix { address: ip("fd00::2"), length: 64 }];
        let mut placed = Placed::new(Endpoint { addresses, ..endpoint() }, link);
        placed.lease = Some(lease());
        let status = placed.status();
        assert_eq!((status.interface, status.mac), ("eth0".into(), "52:54:00:00:00:01".into()));
        assert_eq!(status.addresses, ["fd00::2/64", "10.0.0.5/24"]);
        assert_eq!(
            (status.gateways, status.dns),
            (vec!["10.0.0.1".into()], vec!["10.0.0.3".into(), "10.0.0.4".into()])
        );
    }
}
