//! The container's network: one card on QEMU's user network, with the address that QEMU's DHCP would give it, or none.
//!
//! The address is set as it is: an exchange with DHCP takes time at each start, and says the same each time.

use std::net::{IpAddr, Ipv4Addr};

use wire::spec::{Endpoint, Names, Nic, Port, Prefix};

use super::PlanError;
use crate::cli::run::network::{HostAddress, Network, NetworkArgs, PublishArg};

/// A network card, and what of the host leads to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    pub mac: [u8; 6],
    pub publish: Vec<PublishArg>,
}

/// The network, if there is one.
pub(super) fn network(id: &str, args: &NetworkArgs) -> Result<Option<(Endpoint, Card)>, PlanError> {
    match args.network {
        Network::None if args.publish.is_empty() => return Ok(None),
        Network::None => return Err(PlanError::NoNetwork),
        Network::User => {}
    }
    let mac = args.mac_address.unwrap_or_else(|| mac(id));
    let mut ports: Vec<Port> = Vec::new();
    for PublishArg { protocol, container, .. } in &args.publish {
        let port = Port { protocol: *protocol, ports: *container, to: None };
        if !ports.contains(&port) {
            ports.push(port);
        }
    }
    let endpoint = Endpoint {
        addresses: vec![Prefix { address: IpAddr::V4(GUEST), length: 24 }],
        gateways: vec![IpAddr::V4(HOST)],
        default: true,
        dns: if args.dns.is_empty() { vec![IpAddr::V4(NAME_SERVER)] } else { args.dns.clone() },
        ports,
        ..Endpoint::new("user", Nic::Mac(mac))
    };
    Ok(Some((endpoint, Card { mac, publish: args.publish.clone() })))
}

pub(super) fn names(args: &NetworkArgs) -> Names {
    let address = |address: HostAddress| match address {
        HostAddress::Ip(address) => address,
        HostAddress::Gateway => IpAddr::V4(HOST),
    };
    Names {
        hosts: args.add_host.iter().map(|(name, host)| (address(*host), name.clone())).collect(),
        search: args.dns_search.clone(),
        options: args.dns_option.clone(),
    }
}

/// A card's address that follows from an id of hexadecimal digits: one that nobody sells, as its first byte says.
fn mac(id: &str) -> [u8; 6] {
    let mut digits = id.chars().filter_map(|char| char.to_digit(16));
    let mut digit = || digits.next().and_then(|digit| u8::try_from(digit).ok()).unwrap_or(0);
    let mut byte = || digit() << 4 | digit();
    [0x02, byte(), byte(), byte(), byte(), byte()]
}

// QEMU's user network, as its documentation has it (`-netdev user`).
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
pub(crate) const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
const NAME_SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);

#[cfg(test)]
mod tests {
    use wire::spec::Protocol;

    use super::super::tests::{image, plan};
    use super::*;

    #[test]
    fn a_card_with_ports() {
        let line = "vch run -p 8080:80 -p 9090:80 -p 53:53/udp --dns 9.9.9.9 --dns-search a.org --dns-option ndots:2 \
                    --add-host db:10.0.0.5 --add-host me:host-gateway img";
        let plan = plan(line, &image()).unwrap();
        let [endpoint] = &plan.spec.networks[..] else { panic!("{:?}", plan.spec.networks) };
        let port = |protocol, port| Port { protocol, ports: (port, port), to: None };
        assert_eq!(endpoint.ports, [port(Protocol::Tcp, 80), port(Protocol::Udp, 53)]);
        assert_eq!((endpoint.dns.len(), endpoint.dns[0].to_string()), (1, "9.9.9.9".into()));
        let card = plan.card.unwrap();
        assert_eq!(endpoint.nic, Nic::Mac(card.mac));
        assert_eq!((card.mac, card.publish.len()), ([2, 0x01, 0x23, 0x45, 0x67, 0x89], 3));
        let names = plan.spec.names;
        assert_eq!((names.search.join(" "), names.options.join(" ")), ("a.org".into(), "ndots:2".into()));
        let hosts: Vec<_> = names.hosts.iter().map(|(address, name)| format!("{address} {name}")).collect();
        assert_eq!(hosts, ["10.0.0.5 db", "10.0.2.2 me"]);
    }

    #[test]
    fn a_machine_without_a_network() {
        let plan = plan("vch run --network none img", &image()).unwrap();
        assert!(plan.card.is_none() && plan.spec.networks.is_empty());
    }
}
