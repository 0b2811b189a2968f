//! The firewall without packets: what it says, what it means, and whether the kernel and its own tool understand the same.

mod gateway;
mod kernel;
mod promises;

use std::fmt::Write as _;

use wire::spec::{Endpoint, Nic, Port, Protocol, Trust};

use super::message::{self, name};
use super::rules::{Chain, Match, Rule, Verdict, rules};
use crate::net::netlink::Request;

const LEVELS: [Trust; 5] = [Trust::Closed, Trust::Outbound, Trust::Peers, Trust::Published, Trust::Open];

/// A network of ten members that publishes a port, a port by another, and a range.
fn network(trust: Trust, dhcp: bool) -> Endpoint {
    let pool = |first: &str, last: &str| (first.parse().unwrap(), last.parse().unwrap());
    Endpoint {
        dhcp,
        trust,
        pools: vec![pool("10.0.0.1", "10.0.0.10"), pool("fd00::1", "fd00::a")],
        ports: vec![
            Port { protocol: Protocol::Tcp, ports: (443, 443), to: None },
            Port { protocol: Protocol::Tcp, ports: (8080, 8080), to: Some(80) },
            Port { protocol: Protocol::Udp, ports: (53, 53), to: Some(5353) },
            Port { protocol: Protocol::Udp, ports: (6000, 6010), to: None },
        ],
        ..Endpoint::new("example", Nic::Slot(1184))
    }
}

/// A rule set as `nft list table inet tether` of nftables 1.0.6 shows it.
fn dump(rules: &[Rule<'_>]) -> String {
    let mut text = String::from("table inet tether {\n");
    let chains = [
        (Chain::Redirects, "nat hook prerouting priority dstnat; policy accept"),
        (Chain::Input, "filter hook input priority filter; policy drop"),
        (Chain::Forward, "filter hook forward priority filter; policy drop"),
        (Chain::Output, "filter hook output priority filter; policy drop"),
        (Chain::Translations, "nat hook postrouting priority srcnat; policy accept"),
    ];
    let mut between = "";
    for (chain, kind) in chains {
        let mut lines = rules.iter().filter(|rule| rule.chain == chain).peekable();
        if matches!(chain, Chain::Redirects | Chain::Translations) && lines.peek().is_none() {
            continue;
        }
        write!(text, "{between}\tchain {} {{\n\t\ttype {kind};\n", name(chain)).unwrap();
        for rule in lines {
            let words: Vec<_> = rule.matches.iter().map(said).chain([decided(rule.verdict)]).collect();
            writeln!(text, "\t\t{}", words.join(" ")).unwrap();
        }
        text += "\t}\n";
        between = "\n";
    }
    text + "}\n"
}

fn said(each: &Match<'_>) -> String {
    let range = |first: u16, last: u16| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    match each {
        Match::From(interface) => format!("iifname \"{interface}\""),
        Match::To(interface) => format!("oifname \"{interface}\""),
        Match::Answer => "ct state established,related".into(),
        Match::Redirected => "ct status dnat".into(),
        Match::Sender4(first, last) => format!("ip saddr {first}-{last}"),
        Match::Sender6(first, last) => format!("ip6 saddr {first}-{last}"),
        Match::Icmp(8) => "icmp type echo-request".into(),
        Match::Icmp(kind) => format!("icmp type {kind}"),
        Match::Icmp6(128, 128) => "icmpv6 type echo-request".into(),
        Match::Icmp6(first, last) => format!("icmpv6 type {first}-{last}"),
        Match::Port(Protocol::Tcp, first, last) => format!("tcp dport {}", range(*first, *last)),
        Match::Port(Protocol::Udp, first, last) => format!("udp dport {}", range(*first, *last)),
        Match::Dhcp(from, to) => format!("udp sport {from} udp dport {to}"),
    }
}

fn decided(verdict: Verdict) -> String {
    match verdict {
        Verdict::Accept => "accept".into(),
        Verdict::Drop => "drop".into(),
        Verdict::Redirect(port) => format!("redirect to :{port}"),
        Verdict::Masquerade => "masquerade".into(),
    }
}

/// The example of the documentation.
#[test]
fn a_published_port_is_two_rules() {
    let mut published = network(Trust::Published, true);
    published.ports.truncate(2);
    let text = dump(&rules(&[("eth0", &published)]));
    let shown = include_str!("../../../../../docs/firewall.md");
    let block: String = text.lines().map(|line| format!("    {}\n", line.replace('\t', "  "))).collect();
    let block = block.replace("    \n", "\n");
    assert!(shown.contains(&block), "docs/firewall.md shows other rules than\n{block}");
}

/// What nft 1.0.6 itself sends for the same rule (seen with strace): the list of its expressions.
fn sent_by_nft(rule: &Rule<'_>, expressions: &[&str]) {
    let mut expected = Request::new(0x0a06, 0xc00, &[1, 0, 0, 0]);
    expected.put_text(1, "tether");
    expected.put_text(2, name(rule.chain));
    expected.nest(4, |list| {
        for text in expressions {
            let bytes: Vec<u8> =
                (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect();
            // an element of a list: what lies behind the length and kind of the attribute
            list.put(0x8001, &bytes[4..]);
        }
    });
    assert_eq!(message::replacement(std::slice::from_ref(rule)).last(), Some(&expected));
}

const FROM_ETH0: [&str; 2] = [
    "24000180090001006d657461000000001400028008000200000000060800010000000001",
    "3800018008000100636d70002c000280080001000000000108000200000000001800038014000100657468300000000000000000000000\
     00",
];
const IS_TCP: [&str; 2] = [
    "24000180090001006d657461000000001400028008000200000000100800010000000001",
    "2c00018008000100636d700020000280080001000000000108000200000000000c0003800500010006000000",
];
const DESTINATION_PORT: &str =
    "340001800c0001007061796c6f616400240002800800010000000001080002000000000208000300000000020800040000000002";

#[test]
fn a_redirect_has_the_bytes_that_nft_sends() {
    let matches = vec![Match::From("eth0"), Match::Port(Protocol::Tcp, 8080, 8080)];
    let own = [
        DESTINATION_PORT,
        "2c00018008000100636d700020000280080001000000000108000200000000000c000380060001001f900000",
        "2c0001800e000100696d6d6564696174650000001800028008000100000000010c0002800600010000500000",
        "240001800a00010072656469720000001400028008000100000000010800030000000002",
    ];
    let rule = Rule { chain: Chain::Redirects, matches, verdict: Verdict::Redirect(80) };
    sent_by_nft(&rule, &[&FROM_ETH0[..], &IS_TCP, &own].concat());
}

#[test]
fn a_rule_about_connections_and_ranges_has_the_bytes_that_nft_sends() {
    let matches = vec![Match::From("eth0"), Match::Redirected, Match::Port(Protocol::Tcp, 80, 90)];
    let redirected = [
        "2000018007000100637400001400028008000200000000020800010000000001",
        "440001800c0001006269747769736500340002800800010000000001080002000000000108000300000000040c0004800800010020000000\
         0c0005800800010000000000",
        "2c00018008000100636d700020000280080001000000000108000200000000010c0003800800010000000000",
    ];
    let own = [
        DESTINATION_PORT,
        "2c00018008000100636d700020000280080001000000000108000200000000050c0003800600010000500000",
        "2c00018008000100636d700020000280080001000000000108000200000000030c00038006000100005a0000",
        "300001800e000100696d6d6564696174650000001c0002800800010000000000100002800c0002800800010000000001",
    ];
    let rule = Rule { chain: Chain::Input, matches, verdict: Verdict::Accept };
    sent_by_nft(&rule, &[&FROM_ETH0[..], &redirected, &IS_TCP, &own].concat());
}
