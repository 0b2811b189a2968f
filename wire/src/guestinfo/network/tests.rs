//! Networks as keys: both grammars, and every contradiction.

use core::net::IpAddr;

use crate::guestinfo::{SpecError, read, write};
use crate::handshake::LinkKey;
use crate::spec::{
    Endpoint, LinkDevice, LinkSpec, Names, Nic, Port, Prefix, Process, Protocol, Route, SPEED, Spec, Trust,
};
use crate::vmx::Dictionary;

const BASE: &str = "guestinfo.vice./";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn spec(networks: Vec<Endpoint>) -> Spec {
    let link = LinkSpec { device: LinkDevice::Serial, key: LinkKey::new([1; 32]), sealed: true, speed: SPEED };
    Spec { networks, ..Spec::new("3f0c", link, Process::new(vec!["true".into()])) }
}

fn plain(name: &str, last: u8) -> Endpoint {
    Endpoint {
        addresses: vec![Prefix { address: IpAddr::from([10, 0, last, 2]), length: 24 }],
        ..Endpoint::new(name, Nic::Mac([0x52, 0x54, 0, 0, 0, last]))
    }
}

fn rich() -> Endpoint {
    Endpoint {
        interface: Some("front0".into()),
        addresses: vec![
            Prefix { address: ip("10.0.0.2"), length: 24 },
            Prefix { address: ip("fd00::2"), length: 64 },
            Prefix { address: ip("192.0.2.7"), length: 32 },
        ],
        dhcp: true,
        gateways: vec![ip("10.0.0.1"), ip("fe80::1")],
        default: true,
        routes: vec![
            Route { destination: Prefix { address: ip("192.168.0.0"), length: 16 }, gateway: Some(ip("10.0.0.1")) },
            Route { destination: Prefix { address: ip("10.7.0.0"), length: 16 }, gateway: None },
            Route { destination: Prefix { address: ip("fd01::"), length: 48 }, gateway: Some(ip("fd00::1")) },
            Route { destination: Prefix { address: ip("10.9.0.0"), length: 16 }, gateway: Some(ip("0.0.0.0")) },
        ],
        mtu: Some(1400),
        dns: vec![ip("10.0.0.3"), ip("fd00::3")],
        trust: Trust::Peers,
        pools: vec![(ip("10.0.0.1"), ip("10.0.0.9")), (ip("fd00::1"), ip("fd00::ff"))],
        ports: vec![
            Port { protocol: Protocol::Tcp, ports: (8080, 8080), to: Some(80) },
            Port { protocol: Protocol::Udp, ports: (5000, 5010), to: None },
            Port { protocol: Protocol::Tcp, ports: (443, 443), to: None },
        ],
        ..Endpoint::new("front.net", Nic::Slot(1184))
    }
}

#[test]
fn networks_and_names_survive_the_keys_and_their_text() {
    let names = Names {
        hosts: vec![(ip("10.0.0.7"), "db".into()), (ip("fd00::7"), "db.example.org".into())],
        search: vec!["example.org".into(), "local".into()],
        options: vec!["ndots:2".into(), "rotate".into()],
    };
    let spec = Spec { names, ..spec(vec![rich(), plain("back", 1)]) };
    assert_eq!(read(&Dictionary::parse(&write(&spec).to_string()).unwrap()), Ok(spec));
}

/// Reads the keys of one network beside what every spec needs.
fn read_one(keys: &[(&str, &str)]) -> Result<Endpoint, SpecError> {
    let mut all = write(&spec(Vec::new()));
    all.set(&format!("{BASE}networks"), "a");
    for (key, value) in keys {
        match key.strip_prefix("..") {
            Some(key) => all.set(&format!("guestinfo.vice..{key}"), *value),
            None => all.set(&format!("{BASE}networks|a/{key}"), *value),
        }
    }
    read(&all).map(|mut spec| spec.networks.remove(0))
}

/// What VIC itself wrote for a container on a bridge.
#[test]
fn the_original_grammar_is_read() {
    let endpoint = read_one(&[
        ("Common/id", "1184"),
        ("Common/name", "bridge"),
        ("ip/IP", "AAAAAAAAAAAAAP//rBAAAg=="),
        ("ip/Mask", "//8AAA=="),
        ("network/gateway/IP", "rBAAAQ=="),
        ("network/gateway/Mask", "//8AAA=="),
        ("network/default", "true"),
        ("network/destinations", "0"),
        ("network/destinations|0/IP", "wKgAAA=="),
        ("network/destinations|0/Mask", "//8AAA=="),
        ("network/pools", "0"),
        ("network/pools|0/first", "rBAAAA=="),
        ("network/pools|0/last", "rBD//w=="),
        ("network/TrustLevel", "3"),
        ("..networks|a.network.type", "bridge"),
        ("ports", "0"),
        ("ports~", "8080:80/tcp"),
    ]);
    let expected = Endpoint {
        name: "a".into(),
        nic: Nic::Slot(1184),
        interface: Some("bridge".into()),
        addresses: vec![Prefix { address: ip("172.16.0.2"), length: 16 }],
        gateways: vec![ip("172.16.0.1")],
        default: true,
        routes: vec![Route {
            destination: Prefix { address: ip("192.168.0.0"), length: 16 },
            gateway: Some(ip("172.16.0.1")),
        }],
        // the appliance answers for names there
        dns: vec![ip("172.16.0.1")],
        trust: Trust::Peers,
        pools: vec![(ip("172.16.0.0"), ip("172.16.255.255"))],
        ports: vec![Port { protocol: Protocol::Tcp, ports: (8080, 8080), to: Some(80) }],
        ..plain("a", 0)
    };
    assert_eq!(endpoint, Ok(expected));
}

#[test]
fn every_trust_level_of_the_original() {
    let levels = [
        ("0", Trust::Published),
        ("1", Trust::Published),
        ("2", Trust::Open),
        ("3", Trust::Closed),
        ("4", Trust::Outbound),
        ("5", Trust::Peers),
    ];
    for (level, trust) in levels {
        let kind = ("..networks|a.network.type", "external");
        assert_eq!(read_one(&[("Common/id", "160"), ("network/TrustLevel", level), kind]).unwrap().trust, trust);
        let name = super::text::trust_name(trust);
        assert_eq!(read_one(&[("Common/id", "160"), ("trust", name)]).unwrap().trust, trust);
    }
}

#[test]
fn who_is_asked_for_an_address() {
    let nic = ("mac", "52:54:00:00:00:01");
    let dhcp = |keys: &[(&str, &str)]| read_one(&[&[nic], keys].concat()).unwrap().dhcp;
    assert!(dhcp(&[]), "nothing is said");
    assert!(dhcp(&[("ip/IP", "AAAAAAAAAAAAAP//AAAAAA=="), ("static", "false")]), "0.0.0.0 is none");
    assert!(!dhcp(&[("static", "true")]), "somebody else does it");
    assert!(!dhcp(&[("ip/IP", "CgAAAg=="), ("ip/Mask", "////AA==")]));
    assert!(dhcp(&[("ip/IP", "CgAAAg=="), ("ip/Mask", "////AA=="), ("dhcp", "true")]), "both");
    assert!(!dhcp(&[("dhcp", "false")]), "a card without an address");
}

#[test]
fn the_only_network_leads_everywhere_unless_it_says_otherwise() {
    let nic = ("mac", "52:54:00:00:00:01");
    assert!(read_one(&[nic]).unwrap().default);
    assert!(!read_one(&[nic, ("network/default", "false")]).unwrap().default);
    assert!(!read_one(&[nic, ("internal", "true")]).unwrap().default);
}

/// Each must be refused with the key, and the words.
#[test]
fn what_is_wrong_or_contradicts_itself_is_refused_with_its_key() {
    let check = |keys: &[(&str, &str)], parts: &[&str]| {
        let nic: &[_] =
            if keys.iter().any(|(key, _)| ["mac", "Common/id"].contains(key)) || parts == ["mac", "Common/id"] {
                &[]
            } else {
                &[("mac", "52:54:00:00:00:01")]
            };
        let error = read_one(&[nic, keys].concat()).expect_err(&format!("{keys:?}")).to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{keys:?}: {error}");
    };
    let own = ("addresses~json", r#"["10.0.0.2/24"]"#);
    check(&[("dhcp", "true")], &["mac", "Common/id"]);
    check(&[("mac", "52:54:00:00:00:01"), ("Common/id", "160")], &["Common/id", "only one"]);
    for mac in ["52:54:00:00:00", "01:54:00:00:00:01", "00:00:00:00:00:00", "52:54:00:00:00:01:02", "5:54:00:00:00:0g"]
    {
        check(&[("mac", mac)], &["networks|a/mac", mac]);
    }
    for slot in ["8192", "-1", "eth0", "512"] {
        check(&[("Common/id", slot)], &["Common/id", slot]);
    }
    for name in ["lo", "sixteen-letters-", "a/b", "a b", ".."] {
        check(&[("interface", name)], &["networks|a/interface", name]);
    }
    check(&[("interface", "eth5"), ("Common/name", "eth6")], &["interface", "Common/name"]);
    for address in [
        "10.0.0.2",
        "10.0.0.2/33",
        "10.0.0.2/0",
        "0.0.0.0/8",
        "255.255.255.255/8",
        "224.0.0.1/4",
        "127.0.0.1/8",
        "fd00::2",
        "fd00::2/129",
        "::/64",
        "::1/128",
        "ff02::1/16",
        "10.0.0.2/+8",
        "10.0.0/8",
    ] {
        check(&[("addresses~json", &format!("[{address:?}]"))], &["networks|a/addresses", address]);
    }
    check(&[("ip/IP", "CgAAAg==")], &["guestinfo has no", "ip/Mask"]);
    check(&[("ip/IP", "CgAAAg=="), ("ip/Mask", "AAAAAA==")], &["ip/Mask"]);
    check(&[("ip/IP", "CgAAAg=="), ("ip/Mask", "/wD/AA==")], &["ip/Mask", "zeros"]);
    check(&[("ip/IP", "CgAAAg=="), ("ip/Mask", "//////////8=")], &["ip/Mask"]);
    check(&[("ip/IP", "CgAA")], &["ip/IP", "base64"]);
    check(&[("ip/IP", "Cg!AAg==")], &["ip/IP", "base64"]);
    check(&[("ip/IP", "CgAACQ=="), ("ip/Mask", "////AA=="), own], &["ip/IP", "10.0.0.9", "addresses"]);
    check(&[("static", "true"), ("dhcp", "true")], &["dhcp", "static"]);
    check(&[("internal", "true"), ("network/default", "true")], &["network/default", "internal"]);
    check(&[own, ("gateways~json", r#"["10.0.1.1"]"#)], &["gateways", "10.0.1.1", "reached"]);
    check(&[own, ("gateways~json", r#"["fd00::1"]"#)], &["gateways", "fd00::1", "reached"]);
    check(&[("gateways~json", r#"["0.0.0.0"]"#)], &["gateways", "reached"]);
    check(&[own, ("gateways~json", r#"["10.0.0.1"]"#), ("network/gateway/IP", "CgAA/g==")], &["gateways", "10.0.0.1"]);
    for route in ["10.0.0.1/8", "10.0.0.0/8 via", "10.0.0.0/8 via x", "10.0.0.0", "10.0.0.0/8 over 10.0.0.1"] {
        check(&[("routes~json", &format!("[{route:?}]"))], &["networks|a/routes", route]);
    }
    check(&[own, ("routes~json", r#"["192.168.0.0/16 via 10.0.1.1"]"#)], &["routes", "10.0.1.1", "reached"]);
    check(&[own, ("routes~json", r#"["192.168.0.0/16 via fe80::1"]"#)], &["routes", "one version"]);
    check(&[own, ("routes~json", r#"["192.168.0.0/16 via 0.0.0.0"]"#)], &["routes", "0.0.0.0"]);
    for mtu in ["67", "65536", "jumbo"] {
        check(&[("mtu", mtu)], &["networks|a/mtu", mtu]);
    }
    check(&[("addresses~json", r#"["fd00::2/64"]"#), ("mtu", "1200")], &["mtu", "1280"]);
    check(&[("dns~json", r#"["ns1"]"#)], &["dns", "ns1"]);
    check(&[("network/dns", "1"), ("network/dns|0", "CgAAAw==")], &["guestinfo has no", "network/dns|1"]);
    check(&[("network/TrustLevel", "6")], &["TrustLevel", "6"]);
    check(&[("trust", "blind")], &["trust", "blind", "outbound"]);
    check(&[("trust", "open"), ("network/TrustLevel", "3")], &["trust", "open", "TrustLevel"]);
    check(&[("trust", "open"), ("..networks|a.network.type", "bridge")], &["trust", "open", "type"]);
    check(&[("..networks|a.network.type", "ring")], &["network.type", "ring", "bridge"]);
    for pool in ["10.0.0.9-10.0.0.1", "10.0.0.1", "10.0.0.1-fd00::1"] {
        check(&[("pools~json", &format!("[{pool:?}]"))], &["networks|a/pools", pool]);
    }
    for port in ["0/tcp", "65536", "80/sctp", "8080:0", "5000-4000", "5000-5010:80", "http", "80:81:82", "+80"] {
        check(&[("ports~json", &format!("[{port:?}]"))], &["networks|a/ports", port]);
    }
}

#[test]
fn networks_that_contradict_each_other_are_refused() {
    let check = |mut second: Endpoint, change: fn(&mut Endpoint, &mut Endpoint), part: &str| {
        let mut first = plain("a", 1);
        change(&mut first, &mut second);
        let error = read(&write(&spec(vec![first, second]))).expect_err(part).to_string();
        assert!(error.contains(part), "{error}");
    };
    let second = || plain("b", 2);
    check(plain("a", 2), |_, _| (), "one network only");
    check(second(), |a, b| (a.default, a.dhcp, b.default, b.dhcp) = (true, true, true, true), "network/default");
    check(
        second(),
        |a, b| {
            (a.default, b.default, a.dhcp) = (true, true, true);
            b.gateways = vec![ip("10.0.2.1")];
        },
        "network/default",
    );
    check(second(), |a, b| b.addresses.clone_from(&a.addresses), "another network has it");
    check(second(), |a, b| (a.interface, b.interface) = (Some("web".into()), Some("web".into())), "is called so");
    check(second(), |a, b| (a.dhcp, b.dhcp, b.nic) = (true, true, a.nic), "on the same card");
    // what looks like it and is none: a default network for each version, two networks on one card
    let mut four = plain("a", 1);
    (four.default, four.gateways) = (true, vec![ip("10.0.1.1")]);
    let mut six = plain("b", 2);
    (six.default, six.nic, six.gateways) = (true, four.nic, vec![ip("fe80::1")]);
    assert!(read(&write(&spec(vec![four, six]))).is_ok());
}

#[test]
fn names_that_would_become_lines_of_their_own_are_refused() {
    for (key, value) in [
        ("hostname", "a b"),
        ("hostname", "sixty-five-letters-sixty-five-letters-sixty-five-letters-sixty-fi"),
        ("domainname", "a\nb"),
        ("names/hosts~json", r#"["db"]"#),
        ("names/hosts~json", r#"["10.0.0.7 db\nnameserver"]"#),
        ("names/hosts~json", r#"["10.0.0 db"]"#),
        ("names/search~json", r#"["a b"]"#),
        ("names/search~json", r#"[""]"#),
        ("names/options~json", r#"["x\ny"]"#),
    ] {
        let mut keys = write(&spec(Vec::new()));
        keys.set(&format!("{BASE}{key}"), value);
        let error = read(&keys).expect_err(value).to_string();
        assert!(error.contains(key.trim_end_matches("~json")), "{error}");
    }
}
