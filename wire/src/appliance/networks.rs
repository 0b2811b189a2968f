//! The keys of the appliance's networks. What a network is, [`crate::guestinfo`] reads as it does a container's; what the appliance uses it for is read here.
//!
//! A network is named for its role, as VIC's were. Roles may share a card: networks on one card that do not have addresses of their own are one network.

use crate::guestinfo::SpecError;
use crate::guestinfo::network::{check_pair, read_endpoint, vic};
use crate::guestinfo::node::Node;
use crate::spec::Endpoint;

/// A network of the appliance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Its card, addresses, routes and name servers. Its `default` is that of the network of [`Role::Public`], unless something else is said.
    pub endpoint: Endpoint,
    /// What it is used for: at least one.
    pub roles: Vec<Role>,
}

/// What the appliance uses a network for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Docker's clients reach the API through it.
    Client,
    /// The hosts of containerVMs, and those who look after the appliance, reach it through it.
    Management,
    /// The appliance reaches registries and the rest of the world through it, and containers of the bridge do.
    Public,
    /// Containers are on it, and on nothing else.
    Bridge,
}

/// VIC's names for them.
const ROLES: [(&str, Role); 4] =
    [("client", Role::Client), ("management", Role::Management), ("public", Role::Public), ("bridge", Role::Bridge)];
/// Those that somebody must have, and whose network leads to the world if nobody says which: the first of them that is there.
const NEEDED: [Role; 3] = [Role::Public, Role::Client, Role::Management];

pub(super) fn read(root: &Node<'_>) -> Result<Vec<Network>, SpecError> {
    let names = root.names("networks")?;
    let mut roles = Vec::new();
    for name in &names {
        roles.push(read_roles(&root.below(&vic::path(name)), name)?);
    }
    let leads = NEEDED.iter().find_map(|role| roles.iter().position(|roles| roles.contains(role)));
    let Some(leads) = leads else {
        return match names.is_empty() {
            true => Ok(Vec::new()),
            false => {
                Err(root.invalid("networks", &names.join("|"), "enough: all are bridges, and clients are on none"))
            }
        };
    };
    let mut networks: Vec<Network> = Vec::new();
    for (at, (name, roles)) in names.into_iter().zip(roles).enumerate() {
        let node = root.below(&vic::path(&name));
        let network = Network { endpoint: read_endpoint(root, &node, name, at == leads)?, roles };
        match networks.iter_mut().find(|other| other.is_same(&network)) {
            Some(other) => other.take(network),
            None => networks.push(network),
        }
    }
    for (at, network) in networks.iter().enumerate() {
        let node = root.below(&vic::path(&network.endpoint.name));
        networks[..at].iter().try_for_each(|other| check_pair(&node, &network.endpoint, &other.endpoint))?;
    }
    // what nobody has is that network's that leads to the world
    let missing: Vec<Role> =
        NEEDED.into_iter().filter(|role| networks.iter().all(|network| !network.roles.contains(role))).collect();
    for role in NEEDED {
        if let Some(network) = networks.iter_mut().find(|network| network.roles.contains(&role)) {
            network.roles.extend(missing);
            break;
        }
    }
    Ok(networks)
}

/// A network whose name is a role has that one; another has all but the bridge's.
fn read_roles(node: &Node<'_>, name: &str) -> Result<Vec<Role>, SpecError> {
    let role = |text: &str| ROLES.iter().find(|(name, _)| *name == text).map(|(_, role)| *role);
    let given = node.list("roles")?;
    let roles = given.iter().map(|text| {
        role(text).ok_or_else(|| node.invalid("roles", text, "`client`, `management`, `public` or `bridge`"))
    });
    let roles: Vec<Role> = roles.collect::<Result<_, _>>()?;
    match (roles.is_empty(), role(name)) {
        (false, _) if roles.contains(&Role::Bridge) && roles.len() > 1 => {
            Err(node.invalid("roles", &given.join(", "), "possible: containers on a bridge share it with nobody else"))
        }
        (false, _) => Ok(roles),
        (true, Some(role)) => Ok(vec![role]),
        (true, None) => Ok(NEEDED.to_vec()),
    }
}

impl Network {
    /// On the same card, and without addresses that the other has not.
    fn is_same(&self, other: &Network) -> bool {
        let (ours, theirs) = (&self.endpoint.addresses, &other.endpoint.addresses);
        let bridge = |network: &Network| network.roles.contains(&Role::Bridge);
        self.endpoint.nic == other.endpoint.nic
            && bridge(self) == bridge(other)
            && (ours == theirs || ours.is_empty() || theirs.is_empty())
    }

    /// The name stays the first one's, and addresses are those of who has some.
    fn take(&mut self, other: Network) {
        let (ours, theirs) = (&mut self.endpoint, other.endpoint);
        if ours.addresses.is_empty() && !theirs.addresses.is_empty() {
            (ours.addresses, ours.dhcp) = (theirs.addresses, theirs.dhcp);
        }
        if ours.interface.is_none() {
            ours.interface = theirs.interface;
        }
        if ours.gateways.is_empty() {
            ours.gateways = theirs.gateways;
        }
        ours.default |= theirs.default;
        ours.mtu = ours.mtu.or(theirs.mtu);
        append(&mut ours.routes, theirs.routes);
        append(&mut ours.dns, theirs.dns);
        append(&mut ours.pools, theirs.pools);
        append(&mut ours.ports, theirs.ports);
        append(&mut self.roles, other.roles);
    }
}

/// What is not in it yet.
fn append<T: PartialEq>(list: &mut Vec<T>, more: Vec<T>) {
    for element in more {
        if !list.contains(&element) {
            list.push(element);
        }
    }
}
