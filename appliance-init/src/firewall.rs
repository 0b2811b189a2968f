//! What each of the appliance's networks lets in, and where it leads: the roles' ports as the sides of a gateway. The rules that come of it: [`guest::net::firewall`].

use guest::net::firewall::{Leads, Side};
use wire::appliance::{ApplianceSpec, Role};
use wire::spec::{Endpoint, Port, Protocol};

/// Those of the only network of an appliance that was told of none.
pub(crate) const USUAL: [Role; 3] = [Role::Client, Role::Management, Role::Public];

/// The sides for networks whose interfaces have names.
pub(crate) fn sides<'a>(spec: &ApplianceSpec, named: &[(&'a str, &Endpoint)]) -> Vec<Side<'a>> {
    let side = |&(interface, endpoint): &(&'a str, &Endpoint)| {
        let roles = roles(spec, endpoint);
        let of_roles = roles.iter().flat_map(|role| spec.ports(*role));
        let mut ports: Vec<Port> =
            of_roles.map(|port| Port { protocol: Protocol::Tcp, ports: (port, port), to: None }).collect();
        // those of programs that run beside vch
        ports.extend(&endpoint.ports);
        ports.sort_by_key(|port| (port.ports, port.protocol == Protocol::Udp));
        ports.dedup();
        Side { interface, dhcp: endpoint.dhcp, ports, leads: leads(roles) }
    };
    named.iter().map(side).collect()
}

/// None for a network that is in no configuration.
fn roles<'a>(spec: &'a ApplianceSpec, endpoint: &Endpoint) -> &'a [Role] {
    let network = spec.networks.iter().find(|network| network.endpoint.name == endpoint.name);
    match network {
        Some(network) => &network.roles,
        None if spec.networks.is_empty() => &USUAL,
        None => &[],
    }
}

fn leads(roles: &[Role]) -> Leads {
    if roles.contains(&Role::Bridge) {
        Leads::Bridge
    } else if roles.contains(&Role::Public) {
        Leads::Out
    } else {
        Leads::Aside
    }
}

#[cfg(test)]
mod tests {
    use wire::appliance;
    use wire::vmx::Dictionary;

    use super::*;

    fn spec(keys: &[(&str, &str)]) -> ApplianceSpec {
        let mut dictionary = Dictionary::default();
        for (key, value) in keys {
            dictionary.set(&format!("guestinfo.vice./init/{key}"), *value);
        }
        appliance::read(&dictionary).unwrap()
    }

    /// Name, ports, where it leads; by name, with the network's name as that of its interface.
    fn open(spec: &ApplianceSpec) -> Vec<(String, Vec<u16>, Leads)> {
        let named: Vec<(&str, &Endpoint)> =
            spec.networks.iter().map(|network| (network.endpoint.name.as_str(), &network.endpoint)).collect();
        let ports = |side: &Side<'_>| side.ports.iter().map(|port| port.ports.0).collect();
        let mut sides: Vec<_> =
            sides(spec, &named).iter().map(|side| (side.interface.to_owned(), ports(side), side.leads)).collect();
        sides.sort_by(|one, other| one.0.cmp(&other.0));
        sides
    }

    const CARDS: [(&str, &str); 6] = [
        ("networks", "client|management|public|bridge"),
        ("networks|client/mac", "52:54:00:00:00:01"),
        ("networks|management/mac", "52:54:00:00:00:02"),
        ("networks|public/mac", "52:54:00:00:00:03"),
        ("networks|bridge/mac", "52:54:00:00:00:04"),
        ("networks|bridge/ip", "172.16.0.1/16"),
    ];

    #[test]
    fn each_role_has_its_ports() {
        let closed = open(&spec(&CARDS));
        let client = |ports: &[u16]| ("client".to_owned(), ports.to_vec(), Leads::Aside);
        let rest = [
            ("management".to_owned(), vec![2377, 2378, 8080], Leads::Aside),
            ("public".to_owned(), vec![], Leads::Out),
        ];
        assert_eq!(closed[1..], [&[client(&[2378])][..], &rest].concat());
        assert_eq!(closed[0], ("bridge".to_owned(), vec![], Leads::Bridge));
        let insecure = open(&spec(&[&CARDS[..], &[("docker/insecure", "true")]].concat()));
        assert_eq!(insecure[1..], [&[client(&[2375, 2378])][..], &rest].concat());
        let little = [("docker/insecure", "true"), ("link/port", "0"), ("vspc/port", "0"), ("status/port", "0")];
        let little = open(&spec(&[&CARDS[..], &little].concat()));
        assert_eq!(little.iter().flat_map(|side| side.1.clone()).collect::<Vec<_>>(), [2375]);
    }

    #[test]
    fn an_appliance_that_was_told_of_no_network_has_all_on_its_first_card() {
        let spec = ApplianceSpec::default();
        let endpoint = Endpoint::new("client", wire::spec::Nic::Mac([0; 6]));
        let all = sides(&spec, &[("eth0", &endpoint)]);
        let ports: Vec<u16> = all[0].ports.iter().map(|port| port.ports.0).collect();
        assert_eq!((all.len(), ports, all[0].leads), (1, vec![2377, 2378, 8080], Leads::Out));
    }

    #[test]
    fn what_is_published_besides_is_open_too_and_what_is_in_no_configuration_is_not() {
        let mut spec = spec(&CARDS);
        let port = Port { protocol: Protocol::Udp, ports: (514, 520), to: None };
        let client = spec.networks.iter_mut().find(|network| network.endpoint.name == "client").unwrap();
        client.endpoint.ports = vec![port];
        let endpoint = client.endpoint.clone();
        let stranger = Endpoint::new("stranger", wire::spec::Nic::Mac([9; 6]));
        let sides = sides(&spec, &[("eth0", &endpoint), ("eth1", &stranger)]);
        assert_eq!(sides[0].ports.len(), 2);
        assert!(sides[0].ports.contains(&port));
        assert_eq!((sides[1].ports.len(), sides[1].leads), (0, Leads::Aside));
    }
}
