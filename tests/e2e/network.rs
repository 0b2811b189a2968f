//! The networks that a spec asks for are the networks that the container has: on the right card, with their addresses and routes, and known to their neighbours.

use std::net::{IpAddr, Ipv6Addr};

use rig::cable::Cable;
use rig::host::Host;
use rig::images::busybox_disk;
use rig::machine::{Machine, script};
use rig::wire::Wire;
use wire::link::Tuning;
use wire::message::{Event, Request};
use wire::spec::{Endpoint, LinkDevice, Nic, Prefix, Route, Spec, Trust};
use wire::status::FailureKind;

/// A network without anything but its card.
pub(crate) fn endpoint(name: &str, nic: Nic) -> Endpoint {
    Endpoint { trust: Trust::Open, ..Endpoint::new(name, nic) }
}

pub(crate) fn mac(last: u8) -> Nic {
    Nic::Mac(hardware(last))
}

fn hardware(last: u8) -> [u8; 6] {
    [0x52, 0x54, 0, 0, 0, last]
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn prefix(text: &str) -> Prefix {
    let (address, length) = text.split_once('/').unwrap();
    Prefix { address: ip(address), length: length.parse().unwrap() }
}

/// A container that does nothing, on these networks.
pub(crate) fn on(networks: Vec<Endpoint>) -> Spec {
    Spec { networks, hostname: Some("web".into()), ..script(LinkDevice::Virtio, "exec sleep 100000") }
}

/// A frame is the ARP announcement of an address: RFC 5227.
pub(crate) fn is_announcement(frame: &[u8], mac: [u8; 6], address: [u8; 4]) -> bool {
    let expected = [&[0xff; 6][..], &mac, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &mac, &address, &[0; 6], &address].concat();
    frame.starts_with(&expected)
}

/// Each of the parts is in the text.
#[track_caller]
fn holds(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}

#[test]
fn two_cards_get_what_is_set_for_them() {
    let (_dir, disk) = busybox_disk();
    let front = Endpoint {
        interface: Some("front".into()),
        addresses: vec![prefix("10.1.0.2/24"), prefix("10.1.1.2/32"), prefix("fd00:1::2/64")],
        gateways: vec![ip("10.1.0.1"), ip("fd00:1::1")],
        default: true,
        mtu: Some(1400),
        ..endpoint("front", mac(1))
    };
    let back = Endpoint {
        // the kernel has named the other one so: the names change places
        interface: Some("eth0".into()),
        addresses: vec![prefix("10.2.0.2/16")],
        routes: vec![
            Route { destination: prefix("192.168.0.0/16"), gateway: Some(ip("10.2.0.9")) },
            Route { destination: prefix("172.16.0.0/12"), gateway: None },
        ],
        // a root port of vSphere's: slot 16 + 5 of the first bus, function 1
        ..endpoint("back", Nic::Slot(1184))
    };
    let spec = on(vec![back, front]);
    let (front, back) = (Wire::silent(), Wire::silent());
    let mut machine = Machine::new(&spec, Some(disk));
    machine.extra.extend(front.card("front", "virtio-net-pci,mac=52:54:00:00:00:01"));
    for port in
        ["pcie-root-port,id=p0,addr=15.0,multifunction=on,chassis=1", "pcie-root-port,id=p1,addr=15.1,chassis=2"]
    {
        machine.extra.extend(["-device".into(), port.into()]);
    }
    machine.extra.extend(back.card("back", "vmxnet3,bus=p1,mac=52:54:00:00:00:02"));
    let mut host = Host::boot(machine, &spec);
    // at once: a neighbour that does not know asks, and hears it twice in any case
    front.wait_for("an announcement", 0, |frame| is_announcement(frame, hardware(1), [10, 1, 0, 2]).then_some(()));
    front.wait_for("another address's", 0, |frame| is_announcement(frame, hardware(1), [10, 1, 1, 2]).then_some(()));
    let own: Ipv6Addr = "fd00:1::2".parse().unwrap();
    front.wait_for("a neighbour advertisement", 0, |frame| {
        let is_advertisement = frame.get(12..14)? == [0x86, 0xdd] && *frame.get(54)? == 136;
        (is_advertisement && frame.get(62..78)? == own.octets() && frame.get(80..86)? == hardware(1)).then_some(())
    });
    back.wait_for("an announcement", 0, |frame| is_announcement(frame, hardware(2), [10, 2, 0, 2]).then_some(()));
    let links = host.shell("ip addr");
    holds(
        &links,
        &["front: <BROADCAST,MULTICAST,UP", "mtu 1400", "inet 10.1.0.2/24 brd 10.1.0.255 scope global front"],
    );
    holds(&links, &["inet 10.1.1.2/32 scope global front", "inet6 fd00:1::2/64", "eth0: <BROADCAST,MULTICAST,UP"]);
    holds(&links, &["inet 10.2.0.2/16 brd 10.2.255.255 scope global eth0", "link/ether 52:54:00:00:00:02"]);
    assert!(
        !links.contains("tentative dadfailed") && !links.contains("fd00:1::2/64 scope global tentative"),
        "{links}"
    );
    let routes = host.shell("ip route");
    holds(&routes, &["default via 10.1.0.1 dev front", "10.2.0.0/16 dev eth0", "172.16.0.0/12 dev eth0"]);
    holds(&routes, &["192.168.0.0/16 via 10.2.0.9 dev eth0"]);
    holds(&host.shell("ip -6 route"), &["default via fd00:1::1 dev front"]);
}

#[test]
fn machines_on_one_cable_reach_each_other_by_both_versions_at_once() {
    let (_dir, disk) = busybox_disk();
    let mut cable = Cable::new("cable");
    let mut boot = |last: u8| {
        let addresses = vec![prefix(&format!("10.0.0.{last}/24")), prefix(&format!("fd00::{last}/64"))];
        let spec = on(vec![Endpoint { addresses, ..endpoint("net", mac(last)) }]);
        let mut machine = Machine::new(&spec, Some(disk.clone()));
        machine.extra.extend(cable.plug(hardware(last)));
        Host::boot(machine, &spec)
    };
    let (mut one, mut other) = (boot(1), boot(2));
    // the second is ready
    other.shell("true");
    for address in ["10.0.0.2", "fd00::2"] {
        holds(&one.shell(&format!("ping -c 1 -W 60 {address}")), &["1 packets received"]);
    }
    holds(&other.shell("ping -c 1 -W 60 10.0.0.1"), &["1 packets received"]);
}

#[test]
fn a_card_of_an_older_pc_is_found_behind_its_bridge() {
    let (_dir, disk) = busybox_disk();
    let first = Endpoint { addresses: vec![prefix("10.1.0.2/24")], ..endpoint("first", Nic::Slot(0x10)) };
    // the bridge in slot 16 + 1, and its device 4
    let second = Endpoint { addresses: vec![prefix("10.2.0.2/24")], ..endpoint("second", Nic::Slot(1 << 5 | 4)) };
    let spec = on(vec![first, second]);
    let (one, two) = (Wire::silent(), Wire::silent());
    let mut machine = Machine::new(&spec, Some(disk));
    machine.iso = Some(rig::artifacts::dist("bootstrap.iso"));
    machine.extra.extend(one.card("one", "vmxnet3,addr=0x10,mac=52:54:00:00:00:01"));
    machine.extra.extend(["-device".into(), "pci-bridge,id=b1,chassis_nr=1,addr=0x11".into()]);
    machine.extra.extend(two.card("two", "virtio-net-pci,bus=b1,addr=4,mac=52:54:00:00:00:02"));
    let mut host = Host::boot(machine, &spec);
    let addresses = host.shell("for card in /sys/class/net/eth*; do cat $card/address; ip addr show ${card##*/}; done");
    let at = |part: &str| addresses.find(part).unwrap_or_else(|| panic!("{part:?} is not in:\n{addresses}"));
    let mut order = [at("52:54:00:00:00:01"), at("10.1.0.2/24"), at("52:54:00:00:00:02"), at("10.2.0.2/24")];
    // whichever card is the kernel's first
    if order[0] > order[2] {
        order.rotate_left(2);
    }
    assert!(order.is_sorted(), "{addresses}");
}

#[test]
fn a_card_that_is_not_there_is_named_and_the_machine_is_off() {
    let (_dir, disk) = busybox_disk();
    let spec = on(vec![endpoint("front", mac(9))]);
    let wire = Wire::silent();
    let mut machine = Machine::new(&spec, Some(disk));
    machine.extra.extend(wire.card("one", "virtio-net-pci,addr=7,mac=52:54:00:00:00:01"));
    let seen = machine.power_on().serve(Tuning::FAST);
    let failed = seen.messages.iter().find_map(|told| match told {
        Event::Failed(failure) => Some(failure),
        _ => None,
    });
    let failure = failed.unwrap_or_else(|| panic!("{:?}", seen.messages));
    assert_eq!(failure.kind, FailureKind::Machine);
    let expected = "network front: no network card with the hardware address 52:54:00:00:00:09 after 10 s; the machine has \
                    eth0 (52:54:00:00:00:01 at 0000:00:07.0)";
    assert_eq!(failure.reason, expected);
}

#[test]
fn a_card_can_be_added_while_the_container_runs() {
    let (_dir, disk) = busybox_disk();
    let spec = on(Vec::new());
    let wire = Wire::silent();
    let mut machine = Machine::new(&spec, Some(disk));
    machine.extra.extend(["-device".into(), "pcie-root-port,id=root1,chassis=1".into()]);
    machine.extra.extend(wire.netdev("late"));
    let mut host = Host::boot(machine, &spec);
    assert!(!host.shell("ip addr").contains("eth0"));
    let late = Endpoint {
        interface: Some("late0".into()),
        addresses: vec![prefix("10.3.0.2/24")],
        dns: vec![ip("10.3.0.1")],
        ..endpoint("late", mac(3))
    };
    let wanted = Spec { networks: vec![late], ..spec.clone() };
    host.order(Request::Reload { keys: wire::guestinfo::write(&wanted).to_string().as_str().into() });
    let arguments =
        r#"{"driver": "virtio-net-pci", "id": "late", "netdev": "late", "bus": "root1", "mac": "52:54:00:00:00:03"}"#;
    rig::qmp::Qmp::connect(&host.machine.path("qmp")).execute("device_add", arguments);
    wire.wait_for("an announcement", 0, |frame| is_announcement(frame, hardware(3), [10, 3, 0, 2]).then_some(()));
    holds(&host.shell("ip addr"), &["late0: <BROADCAST,MULTICAST,UP", "inet 10.3.0.2/24"]);
    holds(&host.shell("cat /etc/resolv.conf /etc/hosts"), &["nameserver 10.3.0.1\n", "10.3.0.2\tweb\n"]);
}
