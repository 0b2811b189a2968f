//! What a machine lets in that serves several sides and passes packets on from one to another, as a list of rules: the appliance's.
//!
//! ```text
//! from outside    answers, pings, what DHCP gives, and the ports that the side is given: nothing else
//! from inside     everything leaves
//! bridge          goes out through the sides that lead to the world, in this machine's name (NAT), and their answers come back; to no other side, and no
//!                 bridge to another
//! ```
//!
//! Which ports and which sides: the caller's decision. Addresses are translated for IPv4 and IPv6 alike; the kernel passes on only those of which it is told to.

use wire::spec::Port;

use super::rules::{Chain, DHCP_CLIENT, DHCP_SERVER, Match, Rules, Verdict};

/// A network of a gateway. Several may share an interface, and then share what any of them lets through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Side<'a> {
    /// The name of its interface, which need not be there yet.
    pub interface: &'a str,
    /// Its address is asked for.
    pub dhcp: bool,
    /// What others may reach. Redirections are not followed.
    pub ports: Vec<Port>,
    pub leads: Leads,
}

/// Where a side leads, for packets that are passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leads {
    /// Nowhere that a bridge may go.
    Aside,
    /// To the world.
    Out,
    /// It is a bridge: the machines on it have no other way.
    Bridge,
}

/// The rules for a gateway's sides.
pub(super) fn rules<'a>(sides: &'a [Side<'a>]) -> Rules<'a> {
    let mut rules = Rules::default();
    rules.local();
    for side in sides {
        let from = Match::From(side.interface);
        rules.answers(from);
        rules.pings(from);
        if side.dhcp {
            rules.accept(Chain::Input, &[from, Match::Dhcp(DHCP_SERVER, DHCP_CLIENT)]);
        }
        for port in &side.ports {
            rules.accept(Chain::Input, &[from, Match::Port(port.protocol, port.ports.0, port.ports.1)]);
        }
        rules.accept(Chain::Output, &[Match::To(side.interface)]);
    }
    let of = |leads: Leads| sides.iter().filter(move |side| side.leads == leads).map(|side| side.interface);
    for bridge in of(Leads::Bridge) {
        // who shares a bridge's card with it is not told from it
        for world in of(Leads::Out).filter(|world| *world != bridge) {
            rules.accept(Chain::Forward, &[Match::From(bridge), Match::To(world)]);
            rules.accept(Chain::Forward, &[Match::From(world), Match::To(bridge), Match::Answer]);
            rules.add(Chain::Translations, &[Match::From(bridge), Match::To(world)], Verdict::Masquerade);
        }
    }
    rules
}
