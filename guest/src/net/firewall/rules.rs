//! What each trust level means, as a list of rules. How they are told to the kernel is decided in [`super::message`].
//!
//! A packet goes through one chain; the first rule of which every match holds decides, and a packet that no rule decides is dropped. The levels are those of
//! vSphere Integrated Containers; what they lacked is IPv6, whose neighbours are found by ICMPv6, and a published port that only the redirected one reaches.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use wire::spec::{Endpoint, Port, Protocol, Trust};

/// Which packets a rule is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chain {
    /// First packets of connections from outside, before it is known where they go. What no rule redirects stays as it is.
    Redirects,
    /// Packets for this machine.
    Input,
    /// Packets that this machine passes on.
    Forward,
    /// Packets of this machine.
    Output,
    /// First packets of connections on their way out, when it is known through which interface. What no rule translates keeps its sender.
    Translations,
}

/// What a packet must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Match<'a> {
    /// It came through this interface.
    From(&'a str),
    /// It goes through this interface.
    To(&'a str),
    /// It belongs to a connection of which packets went both ways, or tells of an error in one: of a packet too big for its path, say.
    Answer,
    /// It belongs to a connection that a rule has redirected.
    Redirected,
    /// Its sender is one of these, first and last.
    Sender4(Ipv4Addr, Ipv4Addr),
    /// The same.
    Sender6(Ipv6Addr, Ipv6Addr),
    /// ICMP of one of these types: RFC 792.
    Icmp(u8),
    /// ICMPv6 of one of these types, first and last: RFC 4443, RFC 4861.
    Icmp6(u8, u8),
    /// One of these ports is its destination, first and last.
    Port(Protocol, u16, u16),
    /// UDP from this port to that.
    Dhcp(u16, u16),
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Accept,
    Drop,
    /// It goes to this port of this machine.
    Redirect(u16),
    /// Its sender is the machine itself, by the first address of the interface that it leaves through.
    Masquerade,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule<'a> {
    pub(super) chain: Chain,
    pub(super) matches: Vec<Match<'a>>,
    pub(super) verdict: Verdict,
}

const ECHO: u8 = 8;
const ECHO6: u8 = 128;
/// From a query for multicast listeners (RFC 2710) to a neighbour's redirect (RFC 4861): what a network asks of its members. The kernel takes it only from this
/// link. It belongs to no connection, so it is no answer.
const NEIGHBOUR: (u8, u8) = (130, 137);
pub(super) const DHCP_SERVER: u16 = 67;
pub(super) const DHCP_CLIENT: u16 = 68;

/// The rules for networks, each with its interface.
pub(super) fn rules<'a>(networks: &[(&'a str, &'a Endpoint)]) -> Vec<Rule<'a>> {
    let mut rules = Rules::default();
    rules.local();
    for &(interface, endpoint) in networks {
        rules.endpoint(interface, endpoint);
    }
    let level = |open: bool| networks.iter().filter(move |(_, endpoint)| (endpoint.trust == Trust::Open) == open);
    // what an open network passes on, and what is passed on to it, but not from or to one that is less
    if level(true).next().is_some() {
        for (verdict, of) in [(Verdict::Drop, level(false)), (Verdict::Accept, level(true))] {
            for &(interface, _) in of {
                rules.add(Chain::Forward, &[Match::From(interface)], verdict);
                rules.add(Chain::Forward, &[Match::To(interface)], verdict);
            }
        }
    }
    rules.0
}

/// A list in the making.
#[derive(Default)]
pub(super) struct Rules<'a>(pub(super) Vec<Rule<'a>>);

impl<'a> Rules<'a> {
    pub(super) fn add(&mut self, chain: Chain, matches: &[Match<'a>], verdict: Verdict) {
        self.0.push(Rule { chain, matches: matches.to_vec(), verdict });
    }

    pub(super) fn accept(&mut self, chain: Chain, matches: &[Match<'a>]) {
        self.add(chain, matches, Verdict::Accept);
    }

    /// The machine speaks to itself.
    pub(super) fn local(&mut self) {
        self.accept(Chain::Input, &[Match::From("lo")]);
        self.accept(Chain::Output, &[Match::To("lo")]);
    }

    /// What everybody hears who has asked, or is on a network.
    pub(super) fn answers(&mut self, from: Match<'a>) {
        self.accept(Chain::Input, &[from, Match::Answer]);
        self.accept(Chain::Input, &[from, Match::Icmp6(NEIGHBOUR.0, NEIGHBOUR.1)]);
    }

    pub(super) fn pings(&mut self, from: Match<'a>) {
        self.accept(Chain::Input, &[from, Match::Icmp(ECHO)]);
        self.accept(Chain::Input, &[from, Match::Icmp6(ECHO6, ECHO6)]);
    }

    fn endpoint(&mut self, interface: &'a str, endpoint: &'a Endpoint) {
        let from = Match::From(interface);
        match endpoint.trust {
            Trust::Open => self.accept(Chain::Input, &[from]),
            Trust::Closed => {}
            Trust::Outbound | Trust::Peers | Trust::Published => self.answers(from),
        }
        if endpoint.dhcp && endpoint.trust != Trust::Open {
            self.accept(Chain::Input, &[from, Match::Dhcp(DHCP_SERVER, DHCP_CLIENT)]);
        }
        match endpoint.trust {
            Trust::Peers => {
                for &pool in &endpoint.pools {
                    let sender = match pool {
                        (IpAddr::V4(first), IpAddr::V4(last)) => Match::Sender4(first, last),
                        (IpAddr::V6(first), IpAddr::V6(last)) => Match::Sender6(first, last),
                        // nobody is between two versions
                        _ => continue,
                    };
                    self.accept(Chain::Input, &[from, sender]);
                }
            }
            Trust::Published => {
                self.pings(from);
                for port in &endpoint.ports {
                    self.publish(from, port);
                }
            }
            Trust::Open | Trust::Closed | Trust::Outbound => {}
        }
        if matches!(endpoint.trust, Trust::Open | Trust::Peers | Trust::Published) {
            for (port, to) in endpoint.ports.iter().filter_map(|port| Some((port, redirection(port)?))) {
                let published = Match::Port(port.protocol, port.ports.0, port.ports.0);
                self.add(Chain::Redirects, &[from, published], Verdict::Redirect(to));
            }
        }
        let to = Match::To(interface);
        if endpoint.trust != Trust::Closed {
            self.accept(Chain::Output, &[to]);
        } else if endpoint.dhcp {
            self.accept(Chain::Output, &[to, Match::Dhcp(DHCP_CLIENT, DHCP_SERVER)]);
        }
    }

    fn publish(&mut self, from: Match<'a>, port: &Port) {
        match redirection(port) {
            // not whoever knocks there himself
            Some(to) => self.accept(Chain::Input, &[from, Match::Port(port.protocol, to, to), Match::Redirected]),
            None => self.accept(Chain::Input, &[from, Match::Port(port.protocol, port.ports.0, port.ports.1)]),
        }
    }
}

/// Where a port is redirected to. To itself is nowhere: the kernel would not call such a connection redirected.
fn redirection(port: &Port) -> Option<u16> {
    port.to.filter(|&to| to != port.ports.0)
}
