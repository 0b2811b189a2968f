//! Every field of a spec, changed alone: what becomes of it. A field that is not here is found by `compare` itself, which does not compile without it.

use wire::handshake::LinkKey;
use wire::spec::{
    DiskId, HealthCheck, Limit, LinkDevice, LogDevice, Nic, Restart, SPEED, Source, Syslog, TermSize, Top, Transport,
    Trust,
};

use super::*;

fn spec() -> Spec {
    let link = LinkSpec { device: LinkDevice::Virtio, key: LinkKey::new([1; 32]), sealed: false, speed: SPEED };
    let process = |name: &str| Process::new(vec![name.into()]);
    let mut spec = Spec::new("c", link, process("main"));
    spec.others.insert("other".into(), process("other"));
    spec.machine.sysctls.push(("a.b".into(), "1".into()));
    spec.mounts.push(mount("m"));
    spec.networks.push(network("n"));
    spec
}

fn mount(name: &str) -> Mount {
    let source = Source::Memory { size: 0, mode: 0o1777, exec: false };
    Mount { name: name.into(), source, destination: format!("/{name}"), read_only: false, seed: false }
}

fn network(name: &str) -> Endpoint {
    Endpoint { dhcp: true, default: true, trust: Trust::Open, ..Endpoint::new(name, Nic::Slot(192)) }
}

fn outcome(change: impl FnOnce(&mut Spec)) -> Result<Vec<String>, String> {
    let mut new = spec();
    change(&mut new);
    compare(&spec(), &new).map(|changes| changes.iter().map(ToString::to_string).collect())
}

#[track_caller]
fn refused(key: &str, change: impl FnOnce(&mut Spec)) {
    let reason = format!("{key} cannot be changed while the machine runs: power it off first");
    assert_eq!(outcome(change), Err(reason));
}

#[track_caller]
fn accepted(what: &str, change: impl FnOnce(&mut Spec)) {
    assert_eq!(outcome(change), Ok(vec![what.to_owned()]));
}

#[test]
fn the_same_spec_is_no_change() {
    assert_eq!(outcome(|_| ()), Ok(Vec::new()));
}

#[test]
fn what_a_machine_is_made_of_stays() {
    refused("common/id", |spec| spec.id = "d".into());
    refused("hostname", |spec| spec.hostname = Some("h".into()));
    refused("domainname", |spec| spec.domain = Some("d".into()));
    refused("link/device", |spec| spec.link.device = LinkDevice::Serial);
    refused("link/key", |spec| spec.link.key = LinkKey::new([2; 32]));
    refused("link/sealed", |spec| spec.link.sealed = true);
    refused("link/speed", |spec| spec.link.speed = 9600);
    refused("log/device", |spec| spec.log = Some(LogDevice::Serial));
    refused("sessions|c/runblock", |spec| spec.hold = true);
    refused("root/layers", |spec| spec.root.layers.push(DiskId::Label("l".into())));
    refused("root/top", |spec| spec.root.top = Top::Memory(1));
    refused("root/readonly", |spec| spec.root.read_only = true);
    refused("names/hosts", |spec| spec.names.hosts.push(([1, 2, 3, 4].into(), "h".into())));
    refused("names/search", |spec| spec.names.search.push("s".into()));
    refused("names/options", |spec| spec.names.options.push("o".into()));
    refused("machine/sysctls", |spec| spec.machine.sysctls.clear());
    refused("machine/reclaim", |spec| spec.machine.reclaim = false);
    let server = ([1, 2, 3, 4], 514).into();
    refused("diagnostics/syslog", |spec| {
        spec.diagnostics.syslog = Some(Syslog { transport: Transport::Udp, server });
    });
}

#[test]
fn what_a_process_is_stays() {
    type Edit = fn(&mut Process);
    let edits: [(&str, Edit); 15] = [
        ("cmd/Path", |process| process.argv[0] = "x".into()),
        ("cmd/Args", |process| process.argv.push("x".into())),
        ("cmd/Env", |process| process.env.set("A=1".into())),
        ("cmd/Dir", |process| process.dir = "/x".into()),
        ("User", |process| process.user = "x".into()),
        ("groups", |process| process.groups.push("x".into())),
        ("tty", |process| process.terminal = Some(TermSize { rows: 1, columns: 1 })),
        ("openstdin", |process| process.stdin = true),
        ("attach", |process| process.attach = false),
        ("capabilities/bounding", |process| process.rights.capabilities.bounding = 0),
        ("capabilities/ambient", |process| process.rights.capabilities.ambient = 1),
        ("nonewprivileges", |process| process.rights.no_new_privileges = true),
        ("seccomp", |process| process.rights.seccomp = Some(vec![0; 8])),
        ("limits", |process| process.rights.limits.push(Limit { resource: 0, soft: 1, hard: 1 })),
        ("oomscore", |process| process.rights.oom_score = 1),
    ];
    for (key, edit) in edits {
        refused(&format!("sessions|c/{key}"), |spec| edit(&mut spec.main));
        refused(&format!("sessions|other/{key}"), |spec| edit(spec.others.get_mut("other").unwrap()));
    }
}

#[test]
fn when_a_process_stops_starts_and_is_well_can_change() {
    let check = HealthCheck::new(vec!["true".into()]);
    accepted("sessions|c", |spec| spec.main.stop_signal = 9);
    accepted("sessions|c", |spec| spec.main.stop_timeout = None);
    accepted("sessions|c", |spec| spec.main.restart = Restart::Always);
    accepted("sessions|other", |spec| spec.others.get_mut("other").unwrap().health = Some(check));
}

#[test]
fn sessions_come_and_go() {
    accepted("sessions|new", |spec| drop(spec.others.insert("new".into(), Process::new(vec!["new".into()]))));
    accepted("sessions|other", |spec| spec.others.clear());
}

#[test]
fn mounts_and_networks_are_added_and_neither_taken_away_nor_changed() {
    accepted("mounts|new", |spec| spec.mounts.insert(0, mount("new")));
    refused("mounts|m", |spec| spec.mounts[0].read_only = true);
    refused("mounts|m", |spec| spec.mounts[0].name = "new".into());
    accepted("networks|new", |spec| spec.networks.push(network("new")));
    refused("networks|n", |spec| spec.networks[0].dhcp = false);
    refused("networks|n", |spec| spec.networks.clear());
}

#[test]
fn networks_that_ask_nobody_go_and_change() {
    let mut old = spec();
    old.networks[0].dhcp = false;
    let changes = |change: fn(&mut Spec)| {
        let mut new = old.clone();
        change(&mut new);
        compare(&old, &new).unwrap().iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(changes(|spec| spec.networks.clear()), ["networks|n"]);
    assert_eq!(changes(|spec| spec.networks[0].default = false), ["networks|n", "networks|n"]);
    assert_eq!(changes(|_| ()), [] as [&str; 0]);
}

#[test]
fn limits_and_words_change() {
    accepted("diagnostics/debug", |spec| spec.diagnostics.level = Level::Trace);
    accepted("machine", |spec| spec.machine.memory = Some(1));
    accepted("machine", |spec| spec.machine.cpus = Some(1));
    accepted("machine", |spec| spec.machine.pids = Some(1));
    accepted("machine", |spec| spec.machine.shm_size = 1);
    accepted("machine", |spec| spec.machine.sysctls[0].1 = "2".into());
    accepted("machine", |spec| spec.machine.sysctls.push(("c.d".into(), "1".into())));
}

#[test]
fn one_thing_that_cannot_be_refuses_all() {
    refused("hostname", |spec| {
        spec.machine.memory = Some(1);
        spec.hostname = Some("h".into());
    });
}
