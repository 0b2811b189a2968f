//! What each level promises, tried on its rules by a small interpreter: no kernel, every level, every port.

use std::net::{IpAddr, Ipv4Addr};

use wire::spec::{Endpoint, Protocol, Trust};

use super::super::rules::{Chain, Match, Rule, Verdict, rules};
use super::{LEVELS, network};

/// What the rules look at. The addresses of both ends are of one version.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet {
    pub(super) interface: &'static str,
    pub(super) sender: IpAddr,
    pub(super) what: What,
    /// A packet of a connection under way, or about one.
    pub(super) answer: bool,
    pub(super) redirected: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// Protocol, from and to.
    Ports(Protocol, u16, u16),
    Icmp(u8),
    Icmp6(u8),
}

pub(super) const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 11));
const CALLER: u16 = 40_000;

pub(super) fn tcp(port: u16) -> What {
    What::Ports(Protocol::Tcp, CALLER, port)
}

pub(super) fn udp(port: u16) -> What {
    What::Ports(Protocol::Udp, CALLER, port)
}

pub(super) fn from(sender: IpAddr, what: What) -> Packet {
    Packet { interface: "eth0", sender, what, answer: false, redirected: false }
}

fn holds(each: &Match<'_>, packet: &Packet, chain: Chain) -> bool {
    let (came, goes) = (chain != Chain::Output, chain != Chain::Input);
    match (*each, packet.what, packet.sender) {
        (Match::From(name), ..) => came && name == packet.interface,
        (Match::To(name), ..) => goes && name == packet.interface,
        (Match::Answer, ..) => packet.answer,
        (Match::Redirected, ..) => packet.redirected,
        (Match::Sender4(first, last), _, IpAddr::V4(sender)) => first <= sender && sender <= last,
        (Match::Sender6(first, last), _, IpAddr::V6(sender)) => first <= sender && sender <= last,
        (Match::Icmp(kind), What::Icmp(of), _) => kind == of,
        (Match::Icmp6(first, last), What::Icmp6(of), _) => first <= of && of <= last,
        (Match::Port(protocol, first, last), What::Ports(of, _, port), _) => {
            protocol == of && first <= port && port <= last
        }
        (Match::Dhcp(from, to), what, _) => what == What::Ports(Protocol::Udp, from, to),
        _ => false,
    }
}

pub(super) fn decide(rules: &[Rule<'_>], chain: Chain, packet: &Packet) -> Option<Verdict> {
    let mut of_chain = rules.iter().filter(|rule| rule.chain == chain);
    of_chain.find(|rule| rule.matches.iter().all(|each| holds(each, packet, chain))).map(|rule| rule.verdict)
}

/// Where a packet from outside arrives, if it does: at which port, or 0.
pub(super) fn arrives(rules: &[Rule<'_>], mut packet: Packet) -> Option<u16> {
    if let (What::Ports(protocol, from, _), Some(Verdict::Redirect(to))) =
        (packet.what, decide(rules, Chain::Redirects, &packet))
    {
        packet.what = What::Ports(protocol, from, to);
        packet.redirected = true;
    }
    let port = if let What::Ports(_, _, port) = packet.what { port } else { 0 };
    (decide(rules, Chain::Input, &packet) == Some(Verdict::Accept)).then_some(port)
}

pub(super) fn leaves(rules: &[Rule<'_>], packet: Packet) -> bool {
    decide(rules, Chain::Output, &packet) == Some(Verdict::Accept)
}

/// The table of docs/firewall.md.
#[test]
fn each_level_lets_through_what_it_promises() {
    let [peer, last] = ["10.0.0.1", "10.0.0.10"].map(|text| text.parse().unwrap());
    let [peer6, stranger6] = ["fd00::a", "fd00::b"].map(|text| text.parse().unwrap());
    let before: IpAddr = "10.0.0.0".parse().unwrap();
    let answer = |packet| Packet { answer: true, ..packet };
    let offer = What::Ports(Protocol::Udp, 67, 68);
    // from outside:                                     closed outbound peers published open
    #[rustfmt::skip]
    let promises = [
        ("an answer",                 answer(from(STRANGER, tcp(CALLER))),      "-xxxx"),
        ("an answer by v6",           answer(from(stranger6, udp(CALLER))),     "-xxxx"),
        ("an error on the way",       answer(from(STRANGER, What::Icmp(3))),    "-xxxx"),
        ("an error nobody waits for", from(STRANGER, What::Icmp(3)),            "----x"),
        ("a ping",                    from(STRANGER, What::Icmp(8)),            "---xx"),
        ("a ping by v6",              from(stranger6, What::Icmp6(128)),        "---xx"),
        ("a peer's ping",             from(peer, What::Icmp(8)),                "--xxx"),
        ("a peer's ping by v6",       from(peer6, What::Icmp6(128)),            "--xxx"),
        ("a published port",          from(STRANGER, tcp(443)),                 "---xx"),
        ("a published port by v6",    from(stranger6, tcp(443)),                "---xx"),
        ("its number in UDP",         from(STRANGER, udp(443)),                 "----x"),
        ("first of a range",          from(STRANGER, udp(6000)),                "---xx"),
        ("last of a range",           from(STRANGER, udp(6010)),                "---xx"),
        ("behind a range",            from(STRANGER, udp(6011)),                "----x"),
        ("a redirected port",         from(STRANGER, tcp(8080)),                "---xx"),
        ("a redirected port by v6",   from(stranger6, udp(53)),                 "---xx"),
        ("a peer's redirected port",  from(peer, tcp(8080)),                    "--xxx"),
        ("the port behind it",        from(STRANGER, tcp(80)),                  "----x"),
        ("another port",              from(STRANGER, tcp(22)),                  "----x"),
        ("the first peer",            from(peer, tcp(22)),                      "--x-x"),
        ("the last peer",             from(last, udp(22)),                      "--x-x"),
        ("before the first peer",     from(before, tcp(22)),                    "----x"),
        ("a peer by v6",              from(peer6, tcp(22)),                     "--x-x"),
        ("a neighbour is asked for",  from(stranger6, What::Icmp6(135)),        "-xxxx"),
        ("a router tells",            from(stranger6, What::Icmp6(134)),        "-xxxx"),
        ("who listens to a group",    from(stranger6, What::Icmp6(130)),        "-xxxx"),
        ("other words of neighbours", from(stranger6, What::Icmp6(139)),        "----x"),
        ("an address by DHCP",        from(STRANGER, offer),                    "xxxxx"),
        ("what only looks like it",   from(STRANGER, udp(68)),                  "----x"),
    ];
    for (n, trust) in LEVELS.into_iter().enumerate() {
        let endpoint = network(trust, true);
        let rules = rules(&[("eth0", &endpoint)]);
        for (name, packet, passes) in &promises {
            let passes = passes.as_bytes()[n] == b'x';
            assert_eq!(arrives(&rules, *packet).is_some(), passes, "{trust:?}: {name}");
            // the same through a card that is in no spec, and through the loopback
            assert_eq!(arrives(&rules, Packet { interface: "eth1", ..*packet }), None, "{trust:?}: {name}");
            assert!(arrives(&rules, Packet { interface: "lo", ..*packet }).is_some(), "{trust:?}: {name}");
        }
        for what in [tcp(443), udp(53), What::Icmp(8), What::Icmp6(135), What::Ports(Protocol::Udp, 68, 67)] {
            let dhcp = what == What::Ports(Protocol::Udp, 68, 67);
            assert_eq!(leaves(&rules, from(STRANGER, what)), trust != Trust::Closed || dhcp, "{trust:?}: {what:?}");
            assert!(!leaves(&rules, Packet { interface: "eth1", ..from(STRANGER, what) }), "{trust:?}: {what:?}");
            assert!(leaves(&rules, Packet { interface: "lo", ..from(STRANGER, what) }), "{trust:?}: {what:?}");
        }
    }
}

#[test]
fn what_nobody_asked_dhcp_for_is_not_let_in() {
    for trust in [Trust::Closed, Trust::Outbound, Trust::Peers, Trust::Published] {
        let endpoint = network(trust, false);
        let rules = rules(&[("eth0", &endpoint)]);
        assert_eq!(arrives(&rules, from(STRANGER, What::Ports(Protocol::Udp, 67, 68))), None, "{trust:?}");
        let asks = from(STRANGER, What::Ports(Protocol::Udp, 68, 67));
        assert_eq!(leaves(&rules, asks), trust != Trust::Closed, "{trust:?}");
    }
}

#[test]
fn every_port_of_every_level_is_where_it_belongs() {
    for trust in LEVELS {
        let endpoint = network(trust, false);
        let rules = rules(&[("eth0", &endpoint)]);
        let peer = "fd00::5".parse().unwrap();
        for port in 0..=u16::MAX {
            for (protocol, what) in [(Protocol::Tcp, tcp(port)), (Protocol::Udp, udp(port))] {
                let (published, behind) = match (protocol, port) {
                    (Protocol::Tcp, 443) | (Protocol::Udp, 6000..=6010) => (true, port),
                    (Protocol::Tcp, 8080) => (true, 80),
                    (Protocol::Udp, 53) => (true, 5353),
                    _ => (false, port),
                };
                let expected = |reached: bool| reached.then_some(behind);
                let strangers = trust == Trust::Open || (trust == Trust::Published && published);
                assert_eq!(arrives(&rules, from(STRANGER, what)), expected(strangers), "{trust:?} {protocol:?} {port}");
                let peers = strangers || trust == Trust::Peers;
                assert_eq!(arrives(&rules, from(peer, what)), expected(peers), "{trust:?} {protocol:?} {port}, a peer");
            }
        }
    }
}

/// Every pair of levels on two cards.
#[test]
fn one_network_is_no_way_into_another() {
    for (one, other) in LEVELS.into_iter().flat_map(|one| LEVELS.map(|other| (one, other))) {
        let (first, second) = (network(one, false), network(other, false));
        let rules = rules(&[("eth0", &first), ("eth1", &second)]);
        let passed_on = |from: &'static str, to: &'static str| {
            let mut of_chain = rules.iter().filter(|rule| rule.chain == Chain::Forward);
            let decided = of_chain.find(|rule| match rule.matches[..] {
                [Match::From(name)] => name == from,
                [Match::To(name)] => name == to,
                ref other => panic!("{other:?}"),
            });
            decided.is_some_and(|rule| rule.verdict == Verdict::Accept)
        };
        let both = one == Trust::Open && other == Trust::Open;
        assert_eq!((passed_on("eth0", "eth1"), passed_on("eth1", "eth0")), (both, both), "{one:?} {other:?}");
        // a tunnel that the container has made
        assert_eq!(passed_on("eth0", "tun0"), one == Trust::Open, "{one:?} {other:?}");
        assert!(!passed_on("tun0", "eth2"), "{one:?} {other:?}");
        // and each card has its own level
        for (interface, trust) in [("eth0", one), ("eth1", other)] {
            let packet = Packet { interface, ..from(STRANGER, tcp(22)) };
            assert_eq!(arrives(&rules, packet).is_some(), trust == Trust::Open, "{one:?} {other:?} {interface}");
        }
    }
}

#[test]
fn networks_of_one_card_share_what_they_let_through() {
    let (mut first, mut second) = (network(Trust::Peers, false), network(Trust::Peers, false));
    first.pools.truncate(1);
    second.pools.remove(0);
    let rules = rules(&[("eth0", &first), ("eth0", &second)]);
    for (sender, arrived) in [("10.0.0.5", true), ("fd00::5", true), ("10.0.0.11", false), ("fd00::b", false)] {
        assert_eq!(arrives(&rules, from(sender.parse().unwrap(), tcp(22))).is_some(), arrived, "{sender}");
    }
}

/// What a reader of the spec refuses must not open anything should it come here all the same.
#[test]
fn nonsense_opens_nothing_and_closes_nothing() {
    let mut endpoint: Endpoint = network(Trust::Peers, false);
    endpoint.pools =
        [("10.0.0.1", "fd00::1"), ("fd00::1", "10.0.0.1"), ("10.0.0.9", "10.0.0.1"), ("10.0.1.1", "10.0.1.1")]
            .map(|(first, last)| (first.parse().unwrap(), last.parse().unwrap()))
            .into();
    let of_pools = rules(&[("eth0", &endpoint)]);
    for sender in ["10.0.0.5", "fd00::5", "::ffff:10.0.0.5", "0.0.0.0"] {
        assert_eq!(arrives(&of_pools, from(sender.parse().unwrap(), tcp(22))), None, "{sender}");
    }
    assert_eq!(arrives(&of_pools, from("10.0.1.1".parse().unwrap(), tcp(22))), Some(22), "what makes sense counts");
    let mut endpoint = network(Trust::Published, false);
    for port in &mut endpoint.ports {
        port.ports.1 = u16::MAX;
        port.to = Some(9);
    }
    let of_ports = rules(&[("eth0", &endpoint)]);
    let reached: Vec<u16> =
        (0..=u16::MAX).filter(|&port| arrives(&of_ports, from(STRANGER, tcp(port))).is_some()).collect();
    assert_eq!(reached, [443, 8080]);
}

#[test]
fn a_port_redirected_to_itself_is_a_published_port() {
    let mut endpoint = network(Trust::Published, false);
    endpoint.ports.truncate(1);
    endpoint.ports[0].to = Some(443);
    let rules = rules(&[("eth0", &endpoint)]);
    assert_eq!(arrives(&rules, from(STRANGER, tcp(443))), Some(443));
    assert!(rules.iter().all(|rule| rule.chain != Chain::Redirects));
}
