//! The firewall with real packets: two machines on five wires, a wire for each trust level, and what passes in each direction, by IPv4 and IPv6.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;

use rig::artifacts;
use rig::cable::{Cable, Frame};
use rig::host::Host;
use rig::images::{self, busybox_disk};
use rig::machine::{COMMAND_LINE, Machine, script};
use tempfile::TempDir;
use wire::link::Tuning;
use wire::message::{Event, Exec, MAIN, Work};
use wire::spec::{Endpoint, Environment, LinkDevice, Nic, Port, Prefix, Process, Protocol, Spec, Trust};
use wire::status::FailureKind;

/// The order of the columns below.
const LEVELS: [Trust; 5] = [Trust::Closed, Trust::Outbound, Trust::Peers, Trust::Published, Trust::Open];

/// Where the network's members are, and where strangers: both on the same wire.
const PEER: u8 = 0;
const STRANGER: u8 = 100;

/// What is tried from outside: protocol, port, what a program says there; whether strangers get through to it, and peers.
///
/// Of TCP, 443 and 444 are published, and 8080, which leads to 80; of UDP 6000 to 6010, and 53, which leads to 5353. Programs listen at all ports that
/// answer with a number; that one says which it is. Nobody listens at 444 and 6010: that is said when the question gets through.
#[rustfmt::skip]
const FROM_OUTSIDE: [(&str, u16, &str, &str, &str); 11] = [
    //                        strangers  peers: closed outbound peers published open
    ("tcp",   443, "443",     "---xx",   "--xxx"),
    ("tcp",  8080, "80",      "---xx",   "--xxx"),
    ("tcp",    80, "80",      "----x",   "--x-x"),
    ("tcp",    22, "22",      "----x",   "--x-x"),
    ("tcp",   444, "refused", "---xx",   "--xxx"),
    ("udp",  6001, "6001",    "---xx",   "--xxx"),
    ("udp",  6010, "refused", "---xx",   "--xxx"),
    ("udp",    53, "5353",    "---xx",   "--xxx"),
    ("udp",  5353, "5353",    "----x",   "--x-x"),
    ("udp",     9, "9",       "----x",   "--x-x"),
    ("ping",    0, "pong",    "---xx",   "--xxx"),
];

/// What the container tries, and needs an answer to; a refusal of UDP is an ICMP error, which belongs to what it is about.
const FROM_INSIDE: [(&str, u16, &str); 4] =
    [("tcp", 22, "22"), ("udp", 9, "9"), ("udp", 444, "refused"), ("ping", 0, "pong")];
const ANSWERED: &str = "-xxxx";

/// Ports at which a program listens.
const LISTENED: &str = "tcp 443 80 22 udp 6001 5353 9";

/// EtherTypes.
const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;

fn mac(machine: u8, wire: usize) -> [u8; 6] {
    [0x52, 0x54, 0, machine, 0, u8::try_from(wire).unwrap()]
}

/// The addresses of a machine on a wire, as a peer or as a stranger.
fn addresses(machine: u8, wire: usize, who: u8) -> [IpAddr; 2] {
    [format!("10.{}.0.{machine}", wire + usize::from(who)), format!("fd00:{wire}:{who}::{machine}")]
        .map(|text| text.parse().unwrap())
}

fn endpoint(machine: u8, wire: usize, trust: Trust) -> Endpoint {
    let both = [PEER, STRANGER].into_iter().flat_map(|who| addresses(machine, wire, who));
    let prefix = |address: IpAddr| Prefix { address, length: if address.is_ipv4() { 24 } else { 64 } };
    Endpoint {
        addresses: both.map(prefix).collect(),
        trust,
        ..Endpoint::new(format!("net{wire}"), Nic::Mac(mac(machine, wire)))
    }
}

/// The network of a level, with all that any level looks at.
fn guarded(wire: usize, trust: Trust) -> Endpoint {
    let pool = |first: String, last: String| (first.parse().unwrap(), last.parse().unwrap());
    let port = |protocol, first, last, to| Port { protocol, ports: (first, last), to };
    Endpoint {
        pools: vec![
            pool(format!("10.{wire}.0.0"), format!("10.{wire}.0.255")),
            pool(format!("fd00:{wire}::"), format!("fd00:{wire}::ffff")),
        ],
        ports: vec![
            port(Protocol::Tcp, 443, 444, None),
            port(Protocol::Tcp, 8080, 8080, Some(80)),
            port(Protocol::Udp, 6000, 6010, None),
            port(Protocol::Udp, 53, 53, Some(5353)),
        ],
        ..endpoint(1, wire, trust)
    }
}

fn python(program: &str, arguments: Vec<String>) -> Vec<String> {
    let mut words = ["/usr/bin/python3", "-c", program].map(String::from).to_vec();
    words.extend(arguments);
    words
}

fn exec(argv: Vec<String>) -> Exec {
    Exec { argv, ..rig::host::sh("") }
}

/// A machine whose programs listen, and say so.
fn listening(machine: u8, networks: Vec<Endpoint>) -> Spec {
    let mut arguments: Vec<String> = LISTENED.split(' ').map(String::from).collect();
    arguments.push("at".into());
    let own = networks.iter().flat_map(|endpoint| endpoint.addresses.iter().map(|prefix| prefix.address.to_string()));
    arguments.extend(own);
    let argv = python(include_str!("firewall/listen.py"), arguments);
    let shell = script(LinkDevice::Virtio, "");
    let env = Environment(vec!["PATH=/bin:/usr/bin".into()]);
    Spec { networks, hostname: Some(format!("m{machine}")), main: Process { env, ..Process::new(argv) }, ..shell }
}

fn debian_disk() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk.raw");
    let mut command = std::process::Command::new(artifacts::program("iso-builder"));
    images::run(command.arg("disk").arg(artifacts::debian()).arg("-o").arg(&disk));
    (dir, disk)
}

/// Something that is tried, and what must come of it: nothing at all, or this.
struct Probe {
    name: String,
    words: [String; 4],
    expected: Option<&'static str>,
}

fn probe(name: &str, what: (&str, u16, &'static str), from: IpAddr, to: IpAddr, passes: bool) -> Probe {
    let (kind, port, answer) = what;
    let version = if to.is_ipv4() { 4 } else { 6 };
    Probe {
        name: format!("{name}: {kind}{version} {port}"),
        words: [kind.into(), from.to_string(), to.to_string(), port.to_string()],
        expected: passes.then_some(answer),
    }
}

/// Tries everything at once: those that are to be answered until they are, and the others as long, and a little longer.
fn try_all(host: &mut Host, probes: &[Probe]) {
    let argument = |probe: &Probe| {
        let expected = if probe.expected.is_some() { "answered" } else { "silent" };
        [&probe.words[..], &[expected.into()]].concat().join(" ")
    };
    let arguments = probes.iter().map(argument).collect();
    let ran = host.run(Work::Exec(exec(python(include_str!("firewall/probe.py"), arguments))));
    assert_eq!((ran.exit.ending.code(), ran.stderr.as_str()), (0, ""), "{ran:?}");
    let mut wrong = String::new();
    let mut answers = ran.stdout.lines();
    for probe in probes {
        let (got, expected) = (answers.next().unwrap_or("missing"), probe.expected.unwrap_or("-"));
        if got != expected {
            writeln!(wrong, "{}: {got}, not {expected}", probe.name).unwrap();
        }
    }
    assert!(wrong.is_empty(), "of {} tries, other came of:\n{wrong}", probes.len());
}

#[test]
fn all_trust_levels_against_real_packets_between_two_machines() {
    let (_dir, disk) = debian_disk();
    let mut cables: Vec<Cable> = (0..LEVELS.len()).map(|wire| Cable::new(&format!("wire{wire}x"))).collect();
    let mut boot = |number: u8, networks: Vec<Endpoint>, more: Vec<String>| {
        let spec = listening(number, networks);
        let mut machine = Machine::new(&spec, Some(disk.clone()));
        for (wire, cable) in cables.iter_mut().enumerate() {
            machine.extra.extend(cable.plug(mac(number, wire)));
        }
        machine.extra.extend(more);
        Host::boot(machine, &spec)
    };
    let numbered = || LEVELS.into_iter().enumerate();
    // a card that no network is for
    let mut nowhere = Cable::new("nowhere");
    let mut guest = boot(1, numbered().map(|(wire, trust)| guarded(wire, trust)).collect(), nowhere.plug(mac(1, 9)));
    let mut other = boot(2, numbered().map(|(wire, _)| endpoint(2, wire, Trust::Open)).collect(), Vec::new());
    for host in [&mut guest, &mut other] {
        host.expect(MAIN, "listening");
    }

    let passes = |table: &str, wire: usize| table.as_bytes()[wire] == b'x';
    let mut from_outside = Vec::new();
    let mut from_inside = Vec::new();
    for (wire, trust) in numbered() {
        for (who, name) in [(STRANGER, "a stranger"), (PEER, "a peer")] {
            let [ours, theirs] = [1, 2].map(|machine| addresses(machine, wire, who));
            for (ours, theirs) in ours.into_iter().zip(theirs) {
                for (kind, port, answer, strangers, peers) in FROM_OUTSIDE {
                    let passes = passes(if who == PEER { peers } else { strangers }, wire);
                    let name = format!("{trust:?}, from {name}");
                    from_outside.push(probe(&name, (kind, port, answer), theirs, ours, passes));
                }
                for what in FROM_INSIDE {
                    let name = format!("{trust:?}, to {name}");
                    from_inside.push(probe(&name, what, ours, theirs, passes(ANSWERED, wire)));
                }
            }
        }
    }
    try_all(&mut other, &from_outside);
    try_all(&mut guest, &from_inside);

    // a closed machine has sent nothing but who it is: ARP, and the same by IPv6, to all
    let all = [0x33, 0x33, 0, 0, 0, 1];
    let strange = |frame: &Frame| frame.kind != ARP && (frame.kind, frame.to) != (IPV6, all);
    let sent = cables[0].sent_by(mac(1, 0));
    assert!(!sent.is_empty() && !sent.iter().any(strange), "{sent:x?}");
    assert!(cables[1].sent_by(mac(1, 1)).iter().any(strange));
    // and by a card that is nobody's nothing at all: it is down
    assert_eq!(nowhere.sent_by(mac(1, 9)), []);
    let flags = guest.shell("cat $(dirname $(grep -l 52:54:00:01:00:09 /sys/class/net/*/address))/flags");
    let flags = u32::from_str_radix(flags.trim_end().trim_start_matches("0x"), 16).unwrap();
    assert_eq!(flags & 1, 0, "it is up: {flags:x}");
    // root in the container may not touch it
    let undo = exec(python(include_str!("firewall/undo.py"), Vec::new()));
    assert_eq!(guest.run(Work::Exec(undo)).stdout, "Operation not permitted\n");
    // a small machine remembers more connections than its kernel would by itself, which is one in 128 KiB
    let bound: u32 = guest.shell("cat /proc/sys/net/netfilter/nf_conntrack_max").trim_end().parse().unwrap();
    assert!(bound >= 8192, "{bound}");
}

/// A kernel that begins without nf_tables: Linux, admin-guide/kernel-parameters.txt.
fn without() -> [String; 2] {
    ["-append".into(), format!("{COMMAND_LINE} initcall_blacklist=nf_tables_module_init")]
}

#[test]
fn a_firewall_that_cannot_be_set_is_a_failed_start() {
    let (_dir, disk) = busybox_disk();
    let mut cable = Cable::new("wire");
    let shell = script(LinkDevice::Virtio, "echo started");
    let mut machine = Machine::new(&Spec { networks: vec![guarded(0, Trust::Open)], ..shell }, Some(disk));
    machine.extra = cable.plug(mac(1, 0));
    machine.extra.extend(without());
    let seen = machine.power_on().serve(Tuning::FAST);
    let Some(Event::Failed(failure)) = seen.messages.last() else { panic!("{:?}", seen.messages) };
    let reason = "cannot set the firewall: this kernel has no nf_tables (it needs CONFIG_NF_TABLES_INET)";
    assert_eq!((failure.kind, failure.reason.as_str()), (FailureKind::Machine, reason));
    assert_eq!(String::from_utf8_lossy(&seen.stdout), "");
    assert_eq!(cable.sent_by(mac(1, 0)), [], "and it has sent nothing before");
}

#[test]
fn a_machine_on_no_network_spends_nothing_on_a_firewall() {
    let (_dir, disk) = busybox_disk();
    let mut cable = Cable::new("wire");
    let mut machine = Machine::new(&script(LinkDevice::Virtio, "echo started"), Some(disk));
    machine.extra = cable.plug(mac(1, 0));
    machine.extra.extend(without());
    let seen = machine.power_on().serve(Tuning::FAST);
    assert_eq!(String::from_utf8_lossy(&seen.stdout), "started\n", "{:?}", seen.messages);
    assert_eq!(cable.sent_by(mac(1, 0)), [], "nobody has asked for this card");
}
