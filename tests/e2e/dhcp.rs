//! A container that asks for its address gets one, keeps it, gives it back; and a server that is silent or lies is named.

use std::net::Ipv4Addr;

use rig::dhcp::{Asked, DISCOVER, RELEASE, REQUEST, SERVER, Server};
use rig::host::Host;
use rig::images::busybox_disk;
use rig::machine::{Machine, script};
use rig::qmp::Qmp;
use wire::link::Tuning;
use wire::message::{Event, Request};
use wire::spec::{Endpoint, LinkDevice, Spec};
use wire::status::{Failure, FailureKind};

use crate::network::{endpoint, ip, is_announcement, mac, on, prefix};

const CARD: &str = "virtio-net-pci,mac=52:54:00:00:00:01";
const HARDWARE: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];

/// A network that asks.
fn asking() -> Endpoint {
    Endpoint { dhcp: true, default: true, ..endpoint("front", mac(1)) }
}

/// Asks a script until what it prints holds all parts.
fn wait_for(host: &mut Host, script: &str, parts: &[&str]) {
    let began = std::time::Instant::now();
    loop {
        let printed = host.shell(script);
        if parts.iter().all(|part| printed.contains(part)) {
            return;
        }
        assert!(began.elapsed() < rig::vch::DEADLINE, "{parts:?} are not in:\n{printed}");
    }
}

/// Of a kind, behind the first `after` frames.
fn asked(wire: &rig::wire::Wire, after: usize, kind: u8) -> Asked {
    let what = format!("a question of kind {kind}");
    wire.wait_for(&what, after, |frame| Asked::read(frame).filter(|asked| asked.kind == kind))
}

#[test]
fn qemus_own_network_works() {
    let (_dir, disk) = busybox_disk();
    let spec = on(vec![asking()]);
    let mut machine = Machine::new(&spec, Some(disk));
    let user =
        ["-netdev", "user,id=user,ipv6=off", "-device", "virtio-net-pci,netdev=user,mac=52:54:00:00:00:01,romfile="];
    machine.extra.extend(user.map(String::from));
    let mut host = Host::boot(machine, &spec);
    let text = host.shell("ip addr show eth0; ip route; cat /etc/resolv.conf; ping -c 1 -W 60 10.0.2.2");
    for part in ["inet 10.0.2.15/24", "default via 10.0.2.2 dev eth0", "nameserver 10.0.2.3\n", "1 packets received"] {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}

#[test]
fn all_that_a_server_says_is_taken_over() {
    let (_dir, disk) = busybox_disk();
    let spec = on(vec![Endpoint { dns: vec![ip("10.0.0.8")], ..asking() }]);
    let mut server = Server::new();
    server.set(6, &[10, 0, 0, 3, 10, 0, 0, 4, 10, 0, 0, 5]);
    server.set(26, &[5, 120]);
    server.set(119, b"\x03eng\x07example\x03org\x00\x05sales\xc0\x04");
    server.set(121, &[16, 192, 168, 10, 0, 0, 9, 0, 10, 0, 0, 2]);
    let (wire, _server) = server.serve();
    let mut machine = Machine::new(&spec, Some(disk));
    machine.extra.extend(wire.card("front", CARD));
    let mut host = Host::boot(machine, &spec);
    let text = host.shell("ip addr show eth0; ip route; cat /etc/resolv.conf /etc/hosts");
    for part in [
        "mtu 1400",
        "inet 10.0.0.50/24 brd 10.0.0.255",
        // its classless routes, and not its router
        "default via 10.0.0.2 dev eth0",
        "192.168.0.0/16 via 10.0.0.9 dev eth0",
        "nameserver 10.0.0.8\nnameserver 10.0.0.3\nnameserver 10.0.0.4\nsearch eng.example.org sales.example.org\n",
        "10.0.0.50\tweb\n10.0.0.50\tfront.localhost\n",
    ] {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
    let question = asked(&wire, 0, DISCOVER);
    assert_eq!((question.from, question.to), (Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST));
    assert_eq!(question.option(12), Some(&b"web"[..]), "the host name");
    assert_eq!(question.option(61), Some(&[&[1][..], &HARDWARE].concat()[..]));
    wire.wait_for("an announcement", 0, |frame| is_announcement(frame, HARDWARE, [10, 0, 0, 50]).then_some(()));
}

#[test]
fn a_lease_is_renewed_changed_taken_back_and_given_back() {
    let (_dir, disk) = busybox_disk();
    let spec = on(vec![asking()]);
    let mut first = Server::new();
    first.set(6, &[10, 0, 0, 3]);
    first.set(58, &3u32.to_be_bytes());
    first.set(59, &3000u32.to_be_bytes());
    let (wire, server) = first.serve();
    let mut machine = Machine::new(&spec, Some(disk));
    machine.extra.extend(wire.card("front", CARD));
    let mut host = Host::boot(machine, &spec);
    host.shell("grep -q 'nameserver 10.0.0.3' /etc/resolv.conf && ip addr show eth0 | grep -q 10.0.0.50/24");
    // it is renewed with its server alone, at the server's own hardware address
    let renewal = wire.wait_for("a renewal", 0, |frame| {
        Asked::read(frame).filter(|asked| asked.kind == REQUEST && !asked.own.is_unspecified())
    });
    assert_eq!(
        (renewal.own, renewal.from, renewal.to),
        (Ipv4Addr::new(10, 0, 0, 50), Ipv4Addr::new(10, 0, 0, 50), SERVER)
    );
    assert_ne!(renewal.to_mac, [0xff; 6]);
    assert_eq!((renewal.option(50), renewal.option(54)), (None, None));
    // what the server says then counts from then on
    {
        let mut server = server.lock().unwrap();
        server.set(6, &[10, 0, 0, 4]);
        server.set(3, &[10, 0, 0, 254]);
    }
    wait_for(&mut host, "ip route; cat /etc/resolv.conf", &["default via 10.0.0.254", "nameserver 10.0.0.4\n"]);
    let routes = host.shell("ip route; cat /etc/resolv.conf");
    assert!(!routes.contains("10.0.0.1 ") && !routes.contains("10.0.0.3\n"), "{routes}");
    // the server gives another address: it refuses the old one
    server.lock().unwrap().address = Ipv4Addr::new(10, 0, 0, 77);
    let before = wire.count();
    wait_for(
        &mut host,
        "ip addr show eth0; ip route; cat /etc/hosts",
        &["10.0.0.77/24", "default via", "10.0.0.77\tweb\n"],
    );
    let all = host.shell("ip addr show eth0; ip route; cat /etc/hosts");
    assert!(!all.contains("10.0.0.50"), "{all}");
    wire.wait_for("an announcement", before, |frame| is_announcement(frame, HARDWARE, [10, 0, 0, 77]).then_some(()));
    // at the end it is free again
    assert_eq!(host.request(Request::PowerOff), wire::message::Reply::Done);
    let release =
        host.wait("a release", |_| wire.find(before, |frame| Asked::read(frame).filter(|asked| asked.kind == RELEASE)));
    assert_eq!((release.own, release.to, release.to_mac), (Ipv4Addr::new(10, 0, 0, 77), SERVER, renewal.to_mac));
    assert_eq!(release.option(54), Some(&SERVER.octets()[..]));
}

#[test]
fn a_cable_that_comes_again_has_addresses_announced_and_a_lease_asked_for() {
    let (_dir, disk) = busybox_disk();
    let (wire, _server) = Server::new().serve();
    let spec = on(vec![Endpoint { addresses: vec![prefix("10.9.0.2/24")], ..asking() }]);
    let mut machine = Machine::new(&spec, Some(disk));
    machine.extra.extend(wire.card("front", CARD));
    let mut host = Host::boot(machine, &spec);
    wait_for(&mut host, "ip addr show eth0", &["inet 10.9.0.2/24", "inet 10.0.0.50/24"]);
    let set = |is_up| format!("{{\"name\":\"front\",\"up\":{is_up}}}");
    let mut qmp = Qmp::connect(&host.machine.path("qmp"));
    qmp.execute("set_link", &set(false));
    wait_for(&mut host, "cat /sys/class/net/eth0/carrier", &["0\n"]);
    let before = wire.count();
    qmp.execute("set_link", &set(true));
    let asked = asked(&wire, before, REQUEST);
    assert_eq!(asked.own.octets(), [10, 0, 0, 50], "it says which address it has");
    for address in [[10, 9, 0, 2], [10, 0, 0, 50]] {
        wire.wait_for("an announcement", before, |frame| is_announcement(frame, HARDWARE, address).then_some(()));
    }
    wait_for(&mut host, "ip addr show eth0", &["inet 10.9.0.2/24", "inet 10.0.0.50/24"]);
}

/// Why a machine has not started that asks this server.
fn failure(server: Server) -> (Failure, rig::wire::Wire) {
    let (_dir, disk) = busybox_disk();
    let spec = Spec { networks: vec![asking()], ..script(LinkDevice::Virtio, "true") };
    let (wire, _server) = server.serve();
    let mut machine = Machine::new(&spec, Some(disk));
    machine.extra.extend(wire.card("front", CARD));
    let seen = machine.power_on().serve(Tuning::FAST);
    let failed = seen.messages.iter().find_map(|told| match told {
        Event::Failed(failure) => Some(failure.clone()),
        _ => None,
    });
    (failed.unwrap_or_else(|| panic!("{:?}", seen.messages)), wire)
}

#[test]
fn a_silent_server_is_asked_again_and_then_the_start_has_failed() {
    let (failure, wire) = failure(Server { is_silent: true, ..Server::new() });
    assert_eq!(failure.kind, FailureKind::Machine);
    let expected = "network front: no address by DHCP on eth0 within 15 s: nobody has answered";
    assert_eq!(failure.reason, expected);
    let mut questions = 0;
    wire.wait_for("three questions", 0, |frame| {
        questions += usize::from(Asked::read(frame).is_some_and(|asked| asked.kind == DISCOVER));
        (questions == 3).then_some(())
    });
}

#[test]
fn a_server_that_lies_is_named_with_its_lie() {
    let mut server = Server::new();
    server.set(1, &[0, 0, 0, 0]);
    let (failure, _wire) = failure(server);
    let expected = "network front: no address by DHCP on eth0 within 15 s: an answer of 10.0.0.1 cannot be used: it has a mask that is none";
    assert_eq!(failure.reason, expected);
}
