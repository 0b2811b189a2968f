//! Who is who on a network: containers' names, ids, aliases and links, each told only to those that share a network with them.

use std::net::IpAddr;
use std::sync::{Arc, Weak};

use super::{Joined, Networks};
use crate::containers::Container;
use crate::ids;
use crate::switch::Names;

/// The members of one network, as its switch asks for them.
#[derive(Debug)]
pub(super) struct Members {
    networks: Weak<Networks>,
    name: String,
}

impl Members {
    pub(super) fn new(networks: &Arc<Networks>, name: &str) -> Members {
        Members { networks: Arc::downgrade(networks), name: name.into() }
    }

    /// The networks of the container that has this address here: whichever of them it asks, it is told of all.
    fn asking(&self, asking: IpAddr) -> Option<(Arc<Networks>, Arc<Vec<Joined>>)> {
        let networks = self.networks.upgrade()?;
        let members = networks.members(&self.name);
        let (container, _) = members.into_iter().find(|(_, lease)| IpAddr::V4(lease.address) == asking)?;
        Some((networks, container.joined()?))
    }
}

impl Names for Members {
    fn addresses(&self, asking: IpAddr, name: &str) -> Option<Vec<IpAddr>> {
        let (networks, own) = self.asking(asking)?;
        let found: Vec<IpAddr> = own.iter().flat_map(|joined| on(&networks, joined, name)).collect();
        (!found.is_empty()).then_some(found)
    }

    fn name(&self, asking: IpAddr, address: IpAddr) -> Option<String> {
        let (networks, own) = self.asking(asking)?;
        own.iter().find_map(|joined| {
            let members = networks.members(&joined.network);
            let (container, _) = members.into_iter().find(|(_, lease)| IpAddr::V4(lease.address) == address)?;
            Some(format!("{}.{}", container.name(), joined.network))
        })
    }
}

/// The addresses of a name on one network, for a member of it.
fn on(networks: &Networks, own: &Joined, name: &str) -> Vec<IpAddr> {
    let bare = without(name, &own.network);
    // a link is a name of one's own for another
    let linked = own.wish.links.iter().find_map(|link| {
        let (container, alias) = link.split_once(':').unwrap_or((link, link));
        alias.eq_ignore_ascii_case(bare).then_some(container.trim_start_matches('/'))
    });
    let wanted = linked.unwrap_or(bare);
    let members = networks.members(&own.network).into_iter();
    members
        .filter(|(member, _)| is_called(member, &own.network, wanted))
        .map(|(_, lease)| lease.address.into())
        .collect()
}

/// A name without its network's behind it: `web.mynet` is `web`.
fn without<'a>(name: &'a str, network: &str) -> &'a str {
    let split = name.len().checked_sub(network.len()).filter(|at| *at > 1 && name.is_char_boundary(*at));
    match split.map(|at| name.split_at(at)) {
        Some((front, back)) if back.eq_ignore_ascii_case(network) => front.strip_suffix('.').unwrap_or(name),
        _ => name,
    }
}

fn is_called(container: &Container, network: &str, name: &str) -> bool {
    let joined = container.joined().unwrap_or_default();
    let mut aliases = joined.iter().filter(|one| one.network == network).flat_map(|one| &one.wish.aliases);
    let hostname = container.told().and_then(|told| told.spec.hostname.clone());
    container.name().eq_ignore_ascii_case(name)
        || ids::short(&container.id).eq_ignore_ascii_case(name)
        || container.id.eq_ignore_ascii_case(name)
        || hostname.is_some_and(|hostname| hostname.eq_ignore_ascii_case(name))
        || aliases.any(|alias| alias.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_networks_name_behind_a_name_is_left_out() {
        let check = |name: &str, expected: &str| assert_eq!(without(name, "net"), expected, "{name}");
        check("web.net", "web");
        check("web.NET", "web");
        check("web", "web");
        check("webnet", "webnet");
        check("net", "net");
        check(".net", ".net");
        check("a.b.net", "a.b");
    }
}
