//! What a gateway lets in and passes on, tried on its rules; and whether the kernel and `nft` understand the same.

use std::io::Write as _;
use std::process::Command;

use wire::spec::{Port, Protocol};

use super::super::gateway::{Leads, Side, rules};
use super::super::rules::{Chain, Verdict};
use super::super::{message, set_gateway};
use super::dump;
use super::kernel::{apart_in, listed};
use super::promises::{Packet, STRANGER, What, arrives, decide, from, leaves, tcp, udp};

fn side(interface: &'static str, leads: Leads, dhcp: bool, ports: &[u16]) -> Side<'static> {
    let port = |&port: &u16| Port { protocol: Protocol::Tcp, ports: (port, port), to: None };
    Side { interface, dhcp, ports: ports.iter().map(port).collect(), leads }
}

/// Each role on a card of its own.
fn four() -> [Side<'static>; 4] {
    [
        side("client", Leads::Aside, false, &[2376, 2378]),
        side("management", Leads::Aside, false, &[8080, 2377, 2378]),
        side("public", Leads::Out, true, &[]),
        side("bridge", Leads::Bridge, false, &[]),
    ]
}

#[test]
fn each_side_is_open_where_it_was_said_and_nowhere_else() {
    let sides = four();
    let rules = rules(&sides).0;
    for side in &sides {
        let at = |what| Packet { interface: side.interface, ..from(STRANGER, what) };
        for port in 0..=u16::MAX {
            let open = side.ports.iter().any(|of| of.ports.0 == port);
            assert_eq!(arrives(&rules, at(tcp(port))), open.then_some(port), "{} {port}", side.interface);
            assert_eq!(arrives(&rules, at(udp(port))), None, "{} {port}", side.interface);
        }
        for what in [What::Icmp(8), What::Icmp6(128), What::Icmp6(135)] {
            assert!(arrives(&rules, at(what)).is_some(), "{} {what:?}", side.interface);
        }
        assert!(arrives(&rules, Packet { answer: true, ..at(tcp(40_000)) }).is_some());
        assert_eq!(arrives(&rules, at(What::Icmp(13))), None);
        assert_eq!(arrives(&rules, at(What::Ports(Protocol::Udp, 67, 68))).is_some(), side.dhcp, "{}", side.interface);
        assert!(leaves(&rules, at(tcp(443))));
    }
    let nobodys = Packet { interface: "eth9", ..from(STRANGER, tcp(2376)) };
    assert!(arrives(&rules, nobodys).is_none() && !leaves(&rules, nobodys));
    assert!(arrives(&rules, Packet { interface: "lo", ..nobodys }).is_some());
}

/// The example of the documentation.
#[test]
fn a_bridge_is_three_rules() {
    let sides = [
        side("eth0", Leads::Aside, false, &[2375, 2378]),
        side("eth1", Leads::Out, true, &[]),
        side("eth2", Leads::Bridge, false, &[]),
    ];
    let text = dump(&rules(&sides).0);
    let shown = include_str!("../../../../../docs/firewall.md");
    let block: String = text.lines().map(|line| format!("    {}\n", line.replace('\t', "  "))).collect();
    let block = block.replace("    \n", "\n");
    assert!(shown.contains(&block), "docs/firewall.md shows other rules than\n{block}");
}

/// What is passed on from one interface to another, and whether its sender is translated.
fn passes(sides: &[Side<'_>], came: &str, goes: &str, answer: bool) -> (bool, bool) {
    use super::super::rules::{Match, Rule};
    let holds = |rule: &&Rule<'_>| {
        rule.matches.iter().all(|each| match *each {
            Match::From(name) => name == came,
            Match::To(name) => name == goes,
            Match::Answer => answer,
            _ => false,
        })
    };
    let all = rules(sides).0;
    let of = |chain| all.iter().filter(move |rule| rule.chain == chain).find(holds).map(|rule| rule.verdict);
    (of(Chain::Forward) == Some(Verdict::Accept), of(Chain::Translations) == Some(Verdict::Masquerade))
}

#[test]
fn a_bridge_goes_to_the_world_and_nowhere_else() {
    let mut sides = four().to_vec();
    sides.push(side("other", Leads::Bridge, false, &[]));
    let names: Vec<&str> = sides.iter().map(|side| side.interface).collect();
    for &came in &names {
        for &goes in &names {
            let bridge = |name| ["bridge", "other"].contains(&name);
            let out = bridge(came) && goes == "public";
            let back = came == "public" && bridge(goes);
            assert_eq!(passes(&sides, came, goes, false), (out, out), "{came} to {goes}");
            assert_eq!(passes(&sides, came, goes, true).0, out || back, "an answer, {came} to {goes}");
        }
    }
    // on one card with the world nobody could tell whose packets they are
    let one = [side("eth0", Leads::Out, true, &[]), side("eth0", Leads::Bridge, false, &[])];
    assert_eq!(passes(&one, "eth0", "eth0", true), (false, false));
}

#[test]
fn without_a_bridge_nothing_is_passed_on_or_translated() {
    let sides = &four()[..3];
    let rules = rules(sides).0;
    assert!(rules.iter().all(|rule| matches!(rule.chain, Chain::Input | Chain::Output)), "{rules:?}");
    assert!(decide(&rules, Chain::Forward, &from(STRANGER, tcp(80))).is_none());
    // looking connections up for a translation that there is not would cost every packet
    assert_eq!(message::replacement(&rules).len(), 1 + 3 + 1 + rules.len());
}

#[test]
fn nft_reads_a_gateway_as_it_was_meant() {
    apart_in(module_path!(), "nft_reads_a_gateway_as_it_was_meant");
}

#[test]
#[ignore = "apart_in() runs it"]
fn nft_reads_a_gateway_as_it_was_meant_apart() {
    for sides in [&four()[..], &four()[..3], &[]] {
        // an error says that there is none
        Command::new("nft").args(["delete", "table", "inet", "tether"]).output().unwrap();
        set_gateway(sides).unwrap();
        assert_eq!(listed(), dump(&rules(sides).0), "as nft reads it, and as it was meant");
    }
}

/// Three machines as namespaces: one on a bridge, the gateway, which is where this runs, and the world, whose server tells clients their address.
const NAMESPACES: &str = r#"
set -eu
inner=inner-$$ world=world-$$ said=$(mktemp)
ip netns add $inner && ip netns add $world || { echo SKIPPED; exit; }
trap 'kill $!; rm -f $said; ip netns del $inner; ip netns del $world' EXIT
ip link add bridge type veth peer name eth0 netns $inner
ip link add public type veth peer name eth0 netns $world
ip addr add 172.16.0.1/24 dev bridge; ip link set bridge up
ip addr add 192.0.2.1/24 dev public; ip link set public up
ip -n $inner addr add 172.16.0.2/24 dev eth0; ip -n $inner link set eth0 up
ip -n $inner route add default via 172.16.0.1
ip -n $world addr add 192.0.2.2/24 dev eth0; ip -n $world link set eth0 up
ip -n $world route add 172.16.0.0/24 via 192.0.2.1
echo 1 > /proc/sys/net/ipv4/ip_forward
ip netns exec $world python3 -c '
import socket
at = socket.create_server(("", 80))
print("listens", flush=True)
to, sender = at.accept()
to.sendall(sender[0].encode())
' > $said &
until [ -s $said ]; do sleep 0.05; done
ip netns exec $inner python3 -c '
import socket
print(socket.create_connection(("192.0.2.2", 80), 10).recv(99).decode())
'
"#;

#[test]
fn who_is_on_a_bridge_is_seen_as_the_gateway() {
    apart_in(module_path!(), "who_is_on_a_bridge_is_seen_as_the_gateway");
}

#[test]
#[ignore = "apart_in() runs it"]
fn who_is_on_a_bridge_is_seen_as_the_gateway_apart() {
    let sides = [side("public", Leads::Out, false, &[]), side("bridge", Leads::Bridge, false, &[])];
    set_gateway(&sides).unwrap();
    let output = Command::new("sh").args(["-c", NAMESPACES]).output().unwrap();
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if said == "SKIPPED\n" {
        // a namespace of users can hold no named ones of networks
        return writeln!(std::io::stderr(), "SKIPPED who_is_on_a_bridge_is_seen_as_the_gateway: {errors}").unwrap();
    }
    assert_eq!(said, "192.0.2.1\n", "{errors}");
}
