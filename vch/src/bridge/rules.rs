//! What the host's packet filter is told: one text for all networks, machines and ports, by which the rules of before are replaced at once.
//!
//! It decides what passes between networks, the host and elsewhere. Everything here is a function of its arguments. Only tables called `vch` are touched: rules of others stay, and hold as well.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};

use wire::spec::Protocol;

use crate::networks::{Subnet, mac_text};
use crate::switch::Mac;
use crate::vm::ports;

/// All that the rules follow from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Model {
    /// By the names of their bridges.
    pub(super) networks: BTreeMap<String, Network>,
    /// By the names of their taps.
    pub(super) cards: BTreeMap<String, Card>,
    pub(super) leads: Vec<Lead>,
    /// The host forwarded nothing before: it still forwards nothing for others.
    pub(super) closed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Network {
    pub(super) subnet: Subnet,
    pub(super) gateway: Ipv4Addr,
    pub(super) internal: bool,
}

/// What a machine may send: frames from its own addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Card {
    pub(super) mac: Mac,
    pub(super) addresses: Vec<Ipv4Addr>,
    /// The name of its network's bridge.
    pub(super) bridge: String,
}

/// A port of the host that leads to a machine's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lead {
    pub(super) protocol: Protocol,
    pub(super) at: SocketAddrV4,
    pub(super) to: SocketAddrV4,
}

impl Model {
    /// For `nft -f -`.
    pub(super) fn text(&self) -> String {
        if self.networks.is_empty() {
            // added first, as one that is not there cannot be deleted
            return "add table inet vch\ndelete table inet vch\nadd table bridge vch\ndelete table bridge vch\n".into();
        }
        let mut text = String::from(CHAINS);
        if self.closed {
            text.push_str(CLOSED);
        }
        // those that lead nowhere first: what others let in is not let out of them
        for internal in [true, false] {
            let those = self.networks.iter().filter(|(_, network)| network.internal == internal);
            those.for_each(|(bridge, network)| network.rules(bridge, &mut text));
        }
        for lead in &self.leads {
            lead.rules(&mut text);
        }
        for (tap, card) in &self.cards {
            card.rules(tap, &mut text);
        }
        text
    }
}

impl Network {
    fn rules(&self, bridge: &str, text: &mut String) {
        let Network { subnet, gateway, internal } = self;
        let mut rule = |chain: &str, rule: String| rule_of(text, "inet", chain, &rule);
        // connections from the host's loopback are let through, and so nothing else may have such an address
        rule("guard", format!("iifname {bridge} ip daddr 127.0.0.0/8 drop"));
        rule("guard", format!("iifname {bridge} meta nfproto ipv4 ip saddr != {subnet} drop"));
        if *internal {
            rule("forward", format!("iifname {bridge} oifname != {bridge} drop"));
            rule("forward", format!("oifname {bridge} iifname != {bridge} drop"));
            for protocol in ["udp", "tcp"] {
                rule("host", format!("iifname {bridge} ip daddr {gateway} {protocol} dport 53 accept"));
            }
            rule("host", format!("iifname {bridge} meta nfproto ipv4 drop"));
            return;
        }
        rule("forward", format!("oifname {bridge} iifname {bridge} accept"));
        rule("forward", format!("oifname {bridge} ct status dnat accept"));
        rule("forward", format!("oifname {bridge} ct state established,related accept"));
        rule("forward", format!("oifname {bridge} drop"));
        rule("out", format!("ip saddr {subnet} oifname != {bridge} masquerade"));
        // a machine that reaches itself or its neighbour by a port of the host hears the host answer, and so does the host's loopback
        rule("out", format!("ip saddr {subnet} oifname {bridge} ct status dnat masquerade"));
        rule("out", format!("ip saddr 127.0.0.0/8 oifname {bridge} masquerade"));
    }
}

impl Lead {
    fn rules(&self, text: &mut String) {
        let Lead { protocol, at, to } = self;
        let own = match at.ip() {
            address if address.is_unspecified() => "fib daddr type local".to_owned(),
            address => format!("ip daddr {address}"),
        };
        let lead = format!("meta nfproto ipv4 {own} {} dport {} dnat ip to {to}", ports::name(*protocol), at.port());
        rule_of(text, "inet", "own", &lead);
        // nobody else has a way to the host's loopback
        if !at.ip().is_loopback() {
            rule_of(text, "inet", "in", &lead);
        }
    }
}

impl Card {
    fn rules(&self, tap: &str, text: &mut String) {
        let mac = mac_text(self.mac);
        let addresses = self.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let mut rule = |rule: String| rule_of(text, "bridge", "guard", &format!("iifname {tap} {rule}"));
        rule(format!("ether saddr != {mac} drop"));
        rule("ether type != { arp, ip } drop".into());
        rule(format!("ether type arp arp saddr ether != {mac} drop"));
        rule(format!("ether type arp arp saddr ip != {{ 0.0.0.0, {addresses} }} drop"));
        rule(format!("ether type ip ip saddr != {{ {addresses} }} drop"));
        // what goes back where it came from is for the machine itself, and never what it says to all
        rule_of(
            text,
            "bridge",
            "back",
            &format!("iifname {tap} oifname {tap} meta pkttype {{ broadcast, multicast }} drop"),
        );
    }
}

fn rule_of(text: &mut String, family: &str, chain: &str, rule: &str) {
    writeln!(text, "add rule {family} vch {chain} {rule}").expect("memory");
}

/// An address where ports are taken: the kernel's rules are for IPv4.
pub(super) fn v4(address: SocketAddr) -> Option<SocketAddrV4> {
    match address {
        SocketAddr::V4(address) => Some(address),
        SocketAddr::V6(_) => None,
    }
}

pub(super) fn v4_only(addresses: &[IpAddr]) -> Vec<Ipv4Addr> {
    let v4 = |address: &IpAddr| match address {
        IpAddr::V4(address) => Some(*address),
        IpAddr::V6(_) => None,
    };
    addresses.iter().filter_map(v4).collect()
}

/// Chains stay and their rules go, in the same transaction in which they come again.
const CHAINS: &str = "\
add table inet vch
add chain inet vch guard { type filter hook prerouting priority -300; policy accept; }
add chain inet vch in { type nat hook prerouting priority -100; policy accept; }
add chain inet vch own { type nat hook output priority -100; policy accept; }
add chain inet vch out { type nat hook postrouting priority 100; policy accept; }
add chain inet vch forward { type filter hook forward priority 0; policy accept; }
add chain inet vch host { type filter hook input priority 0; policy accept; }
add table bridge vch
add chain bridge vch guard { type filter hook prerouting priority -300; policy accept; }
add chain bridge vch back { type filter hook forward priority -200; policy accept; }
flush table inet vch
flush table bridge vch
";
/// It is also how the next program knows.
const CLOSED: &str = "\
add chain inet vch others { type filter hook forward priority 0; policy accept; }
add rule inet vch others iifname != \"vchb-*\" oifname != \"vchb-*\" drop
";

#[cfg(test)]
mod tests {
    use super::*;

    fn model() -> Model {
        let network = |subnet: &str, internal| {
            let subnet: Subnet = subnet.parse().unwrap();
            Network { subnet, gateway: subnet.first(), internal }
        };
        let card =
            Card { mac: [2, 0x42, 10, 5, 0, 2], addresses: vec![Ipv4Addr::new(10, 5, 0, 2)], bridge: "a-out".into() };
        let lead =
            |at: &str| Lead { protocol: Protocol::Tcp, at: at.parse().unwrap(), to: "10.5.0.2:80".parse().unwrap() };
        Model {
            networks: [("b-in".into(), network("10.6.0.0/24", true)), ("a-out".into(), network("10.5.0.0/24", false))]
                .into(),
            cards: [("t-1".into(), card)].into(),
            leads: vec![lead("0.0.0.0:8080"), lead("127.0.0.1:8081")],
            closed: false,
        }
    }

    #[track_caller]
    fn has(text: &str, rule: &str, expected: bool) {
        assert_eq!(text.lines().any(|line| line == format!("add rule {rule}")), expected, "{rule}\n{text}");
    }

    #[test]
    fn an_internal_network_leads_to_names_alone() {
        let text = model().text();
        has(&text, "inet vch forward iifname b-in oifname != b-in drop", true);
        has(&text, "inet vch forward oifname b-in iifname != b-in drop", true);
        has(&text, "inet vch host iifname b-in ip daddr 10.6.0.1 udp dport 53 accept", true);
        has(&text, "inet vch host iifname b-in meta nfproto ipv4 drop", true);
        has(&text, "inet vch out ip saddr 10.6.0.0/24 oifname != b-in masquerade", false);
        has(&text, "inet vch out ip saddr 10.5.0.0/24 oifname != a-out masquerade", true);
        let at = |rule: &str| text.find(rule).unwrap();
        assert!(at("forward iifname b-in oifname != b-in drop") < at("forward oifname a-out ct status dnat accept"));
        // the last of its network: nobody else comes in
        has(&text, "inet vch forward oifname a-out drop", true);
    }

    #[test]
    fn a_port_of_the_loopback_is_the_hosts_own() {
        let text = model().text();
        let any = "meta nfproto ipv4 fib daddr type local tcp dport 8080 dnat ip to 10.5.0.2:80";
        let own = "meta nfproto ipv4 ip daddr 127.0.0.1 tcp dport 8081 dnat ip to 10.5.0.2:80";
        has(&text, &format!("inet vch in {any}"), true);
        has(&text, &format!("inet vch own {any}"), true);
        has(&text, &format!("inet vch own {own}"), true);
        has(&text, &format!("inet vch in {own}"), false);
    }

    #[test]
    fn a_machine_sends_from_its_own_addresses() {
        let text = model().text();
        has(&text, "bridge vch guard iifname t-1 ether saddr != 02:42:0a:05:00:02 drop", true);
        has(&text, "bridge vch guard iifname t-1 ether type ip ip saddr != { 10.5.0.2 } drop", true);
    }

    #[test]
    fn without_networks_nothing_is_left() {
        let text = Model::default().text();
        assert!(text.ends_with("delete table bridge vch\n") && !text.contains("chain"), "{text}");
        assert!(!Model { closed: true, ..Model::default() }.text().contains("chain"));
        assert!(Model { closed: true, ..model() }.text().contains("chain inet vch others"));
    }
}
