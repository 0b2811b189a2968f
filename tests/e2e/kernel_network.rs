//! Networks that the host's kernel carries, `vch serve --network kernel`, in a network namespace of the test's own: names, ports, isolation, all of it without serve, and nothing left behind.

use std::os::unix::fs::symlink;
use std::path::Path;

use rig::engine::until;
use rig::serve::{Network, Serve};

use crate::docker_life::fails;
use crate::docker_networks::{WEB, load_perl};

/// Docker's client, which succeeds: what it says.
#[track_caller]
fn docker(serve: &Serve, args: &[&str]) -> String {
    let output = serve.docker(args).output();
    assert_eq!(output.code, 0, "{args:?}: {output:?}; {}", serve.log());
    output.text().trim().to_owned()
}

/// A container reaches another: by its name, or an address.
fn reaches(serve: &Serve, from: &str, to: &str) -> bool {
    serve.docker(&["exec", from, "ping", "-c", "1", "-w", "5", to]).output().code == 0
}

/// What a program in serve's namespace says.
fn told(serve: &Serve, words: &[&str]) -> String {
    let output = serve.beside(words[0]).args(&words[1..]).output().expect("it is installed");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What is served at an address of the namespace; nothing where nobody answers.
fn fetch(serve: &Serve, at: &str) -> String {
    told(serve, &["curl", "-s", "-m", "5", "--noproxy", "*", &format!("http://{at}/word")])
}

/// Whether a datagram to an address of the namespace comes back.
fn echoes(serve: &Serve, address: &str, port: u16) -> bool {
    let script = format!(
        "alarm 5; socket(S, 2, 2, 17); send(S, 'hello', 0, pack('Sna4x8', 2, {port}, pack('C4', split(/[.]/, '{address}')))); \
         recv(S, $said, 9, 0); print $said"
    );
    told(serve, &["perl", "-e", &script]) == "hello"
}

/// What a container hears at an address, by the `nc` of busybox: there are those whose `wget -T` crashes.
fn hears(serve: &Serve, from: &str, address: &str, port: u16) -> bool {
    let script = format!("printf 'GET /word HTTP/1.0\\r\\n\\r\\n' | nc -w 5 {address} {port}");
    serve.docker(&["exec", from, "sh", "-c", &script]).output().text().ends_with("\nhere\n")
}

/// How many bridges and taps there are.
fn devices(serve: &Serve) -> (usize, usize) {
    let all = told(serve, &["ip", "-o", "link", "show"]);
    (all.matches(": vchb-").count(), all.matches(": vcht-").count())
}

fn forwards(serve: &Serve) -> String {
    told(serve, &["cat", "/proc/sys/net/ipv4/ip_forward"])
}

/// A network namespace with a device called `out`, which stands for the host's way to others; `None` where this host cannot have one, or no such networks in it.
fn namespace() -> Option<Network> {
    let skip = |reason: &str| {
        crate::skip("kernel_network", reason);
        None
    };
    if !nix::unistd::geteuid().is_root() {
        return skip("it needs root");
    }
    if !Path::new("/dev/net/tun").exists() {
        return skip("there is no /dev/net/tun");
    }
    let network = match Network::new() {
        Ok(network) => network,
        Err(reason) => return skip(&reason),
    };
    let works = |script: &str| network.command("sh").args(["-c", script]).status().is_ok_and(|done| done.success());
    if !works("ip link add out type bridge && ip address add 10.200.0.1/24 dev out && ip link set out up") {
        return skip("no device can be made in a network namespace");
    }
    if !works("nft add table inet probe && nft delete table inet probe") {
        return skip("there is no packet filter in a network namespace");
    }
    // as it is on a host that is no router, whatever this one is
    if !works("echo 0 > /proc/sys/net/ipv4/ip_forward") {
        return skip("a network namespace cannot be told whether it forwards");
    }
    Some(network)
}

#[test]
fn machines_meet_on_bridges_of_the_kernel_and_go_on_without_serve() {
    let Some(network) = namespace() else { return };
    let mut serve = Serve::with_qemu_in(network, &["--network", "kernel"]);
    load_perl(&serve);
    docker(&serve, &["network", "create", "--subnet", "10.91.0.0/24", "back"]);
    docker(&serve, &["network", "create", "--subnet", "10.92.0.0/24", "--internal", "inner"]);
    let web = ["run", "-d", "--name", "web", "--network", "back", "-e", "WORD=here"];
    let ports = ["-p", "8080:80", "-p", "127.0.0.1:8081:80", "-p", "10.200.0.1:5353:53/udp"];
    docker(&serve, &[&web[..], &ports, &["test", "sh", "-c", WEB]].concat());
    docker(&serve, &["run", "-d", "--name", "cli", "--network", "back", "busybox", "sleep", "100000"]);
    let far = ["run", "-d", "--name", "far", "--network", "inner", "--cap-add", "NET_ADMIN"];
    docker(&serve, &[&far[..], &["busybox", "sleep", "100000"]].concat());
    assert_eq!(devices(&serve), (2, 3));
    assert!(reaches(&serve, "cli", "web") && reaches(&serve, "web", "cli"), "{}", serve.log());
    // the host's own way out is a machine's, and the host answers at its gateway
    assert!(reaches(&serve, "cli", "10.200.0.1") && reaches(&serve, "cli", "10.91.0.1"));
    // an internal network leads nowhere, whatever its machines try, and nobody comes in
    docker(&serve, &["exec", "far", "ip", "route", "add", "default", "via", "10.92.0.1"]);
    assert!(!reaches(&serve, "far", "10.92.0.1"));
    assert!(!reaches(&serve, "far", "web") && !reaches(&serve, "far", "10.91.0.2"));
    assert!(!reaches(&serve, "far", "10.200.0.1") && !reaches(&serve, "cli", "10.92.0.2"));
    assert!(docker(&serve, &["exec", "far", "nslookup", "far"]).contains("10.92.0.2"));
    for at in ["127.0.0.1:8080", "10.200.0.1:8080", "10.91.0.1:8080", "127.0.0.1:8081", "10.91.0.2:80"] {
        until("the port leads to the machine", || fetch(&serve, at) == "here\n");
    }
    assert_eq!(fetch(&serve, "10.200.0.1:8081"), "");
    until("datagrams come back", || echoes(&serve, "10.200.0.1", 5353));
    assert!(!echoes(&serve, "10.91.0.1", 5353));
    // a port of the host, from a machine: from its neighbour's, too
    assert!(hears(&serve, "cli", "10.200.0.1", 8080) && hears(&serve, "web", "10.91.0.1", 8080));
    assert!(!hears(&serve, "far", "10.200.0.1", 8080) && !hears(&serve, "far", "10.92.0.1", 8080));
    docker(&serve, &["exec", "far", "ip", "route", "del", "default"]);
    // another network while it runs, and away again
    docker(&serve, &["network", "connect", "back", "far"]);
    until("the new card is used", || reaches(&serve, "far", "web"));
    assert!(reaches(&serve, "cli", "far"));
    docker(&serve, &["network", "disconnect", "back", "far"]);
    until("its tap is away", || devices(&serve) == (2, 3));
    assert!(!reaches(&serve, "far", "10.91.0.2") && !reaches(&serve, "cli", "far"));
    // what somebody has: a port, addresses
    let late = ["run", "--name", "late"];
    let takes_port = [&late[..], &["-p", "8080:80", "busybox", "true"]].concat();
    fails(serve.docker(&takes_port).output(), 125, &["port is already allocated"]);
    docker(&serve, &["rm", "late"]);
    docker(&serve, &["network", "create", "--subnet", "10.200.0.0/16", "hosts"]);
    let takes_addresses = [&late[..], &["--network", "hosts", "busybox", "true"]].concat();
    let why = ["10.200.0.0/16 overlap with 10.200.0.1/24 of this host's device out", "--subnet"];
    fails(serve.docker(&takes_addresses).output(), 125, &why);
    docker(&serve, &["rm", "late"]);
    until("nothing is left of what failed", || devices(&serve) == (2, 3));
    // the kernel goes on alone
    serve.kill();
    for at in ["127.0.0.1:8080", "10.200.0.1:8080"] {
        assert_eq!(fetch(&serve, at), "here\n", "{at}");
    }
    assert!(echoes(&serve, "10.200.0.1", 5353));
    let why = serve.refused(&[], &["--hypervisor", "qemu"]);
    assert!(why.contains("say --network kernel"), "{why}");
    serve.start_again();
    serve.until_docker_answers();
    assert_eq!(fetch(&serve, "127.0.0.1:8080"), "here\n");
    assert!(reaches(&serve, "cli", "web") && !reaches(&serve, "far", "10.91.0.2"));
    // whether bridges ask the packet filter of addresses (br_netfilter) or not
    for value in ["0", "1"] {
        told(&serve, &["sh", "-c", &format!("cd /proc/sys/net/bridge && echo {value} > bridge-nf-call-iptables")]);
        assert!(hears(&serve, "cli", "10.200.0.1", 8080) && hears(&serve, "web", "10.91.0.1", 8080), "{value}");
        assert!(reaches(&serve, "web", "cli") && !hears(&serve, "far", "10.92.0.1", 8080), "{value}");
    }
    // nothing is left of what is removed, by whichever serve it was made
    assert_eq!(forwards(&serve), "1\n");
    docker(&serve, &["rm", "-f", "web", "cli", "far"]);
    serve.end();
    assert_eq!(devices(&serve), (0, 0));
    assert_eq!(told(&serve, &["nft", "list", "ruleset"]), "");
    assert_eq!(forwards(&serve), "0\n");
}

/// Nothing is started: it is said before.
#[test]
fn what_the_kernels_networks_need_is_said() {
    let Some(network) = namespace() else { return };
    let mut serve = Serve::with_qemu_in(network, &["--network", "kernel"]);
    serve.kill();
    let kernel = ["--hypervisor", "qemu", "--network", "kernel"];
    let why = serve.refused(&["setpriv", "--bounding-set=-net_admin"], &kernel);
    assert!(why.contains("needs root (CAP_NET_ADMIN)") && why.contains("--network user"), "{why}");
    let why = serve.refused(&[], &["--hypervisor", "none", "--link-listen", "unix:///none", "--network", "kernel"]);
    assert!(why.contains("say --hypervisor qemu"), "{why}");
    let programs = tempfile::tempdir().expect("a temporary folder");
    let has = |name: &str| {
        let found = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(|folder| Path::new(folder).join(name));
        let found = found.into_iter().find(|path| path.exists()).expect("it is installed");
        symlink(found, programs.path().join(name)).expect("a link");
    };
    let path = format!("PATH={}", programs.path().display());
    has("qemu-system-x86_64");
    let why = serve.refused(&["env", &path], &kernel);
    assert!(why.contains("cannot run ip") && why.contains("install iproute2"), "{why}");
    has("ip");
    let why = serve.refused(&["env", &path], &kernel);
    assert!(why.contains("cannot run nft") && why.contains("install nftables"), "{why}");
}
