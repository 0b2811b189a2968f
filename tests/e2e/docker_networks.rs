//! Networks of a host that makes its machines, as docker's own client has them: names, addresses, ports, isolation, and all of it after `kill -9` of serve.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;
use std::time::Duration;

use rig::engine::until;
use rig::host::PATIENCE;
use rig::images::{self, ImageDir};
use rig::serve::Serve;

use crate::docker_life::fails;

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

/// What a container serves at a port of the host.
fn fetch(at: &str) -> Option<String> {
    let mut stream = TcpStream::connect(at).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(b"GET /word HTTP/1.0\r\n\r\n").ok()?;
    let mut all = String::new();
    stream.read_to_string(&mut all).ok()?;
    Some(all.rsplit("\r\n\r\n").next()?.to_owned())
}

/// Says its word by TCP at port 80, and says again what it is told at UDP port 53.
pub(crate) const WEB: &str = r#"mkdir /w; echo $WORD > /w/word; httpd -p 80 -h /w; exec perl -e '
socket(S, 2, 2, 17); bind(S, pack("Sna4x8", 2, 53, "\0" x 4));
while ($from = recv(S, $said, 65535, 0)) { send(S, $said, 0, $from) }'"#;

/// A serve with the image `test`: busybox, which has nothing for datagrams, and this host's perl. It exposes what [`WEB`] listens at.
fn with_perl() -> Serve {
    let serve = Serve::with_qemu(&[]);
    load_perl(&serve);
    serve
}

pub(crate) fn load_perl(serve: &Serve) {
    let image = ImageDir::with_busybox();
    let perl = "/usr/bin/perl".to_owned();
    let libraries = images::run(Command::new("ldd").arg(&perl));
    let libraries = libraries.split_whitespace().filter(|word| word.starts_with('/')).map(str::to_owned);
    for file in libraries.chain([perl]) {
        let copy = image.root().join(file.trim_start_matches('/'));
        fs::create_dir_all(copy.parent().expect("a folder")).expect("a folder");
        fs::copy(&file, copy).expect("a copy");
    }
    let archive = image.archive(&serde_json::json!({ "ExposedPorts": { "80/tcp": {}, "53/udp": {} } }));
    docker(serve, &["load", "-q", "-i", archive.to_str().expect("a path of ours")]);
}

/// Where docker port says that a container's port is reached.
fn port(serve: &Serve, name: &str, port: &str) -> String {
    let all = docker(serve, &["port", name, port]);
    all.lines().next().expect("it is published").to_owned()
}

fn echoes(at: &str) -> bool {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    socket.set_read_timeout(Some(Duration::from_secs(2))).expect("a socket");
    let mut answer = [0; 64];
    socket.send_to(b"hello", at).is_ok() && socket.recv(&mut answer).is_ok_and(|got| &answer[..got] == b"hello")
}

/// The address by which this host would go out; nothing is sent.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|address| !address.is_loopback() && !address.is_unspecified())
}

#[test]
fn machines_find_each_other_on_their_networks_and_nowhere_else() {
    let mut serve = with_perl();
    docker(&serve, &["network", "create", "--subnet", "10.91.0.0/24", "--label", "tier=back", "back"]);
    docker(&serve, &["network", "create", "other"]);
    let web = ["run", "-d", "--name", "web", "--network", "back", "--network-alias", "store", "--ip", "10.91.0.7"];
    let ports = ["-p", "127.0.0.1::80", "-p", "127.0.0.1::53/udp", "-e", "WORD=here", "test", "sh", "-c", WEB];
    docker(&serve, &[&web[..], &ports].concat());
    let cli = ["run", "-d", "--name", "cli", "--network", "back", "--link", "web:shop", "busybox", "sleep", "100000"];
    docker(&serve, &cli);
    docker(&serve, &["run", "-d", "--name", "far", "--network", "other", "busybox", "sleep", "100000"]);
    // by name, alias, link and address
    for name in ["web", "store", "web.back", "shop", "10.91.0.7"] {
        assert!(reaches(&serve, "cli", name), "{name}; {}", serve.log());
    }
    assert!(reaches(&serve, "web", "cli"));
    // who is on another network neither knows nor reaches it
    assert!(!reaches(&serve, "far", "web") && !reaches(&serve, "far", "10.91.0.7"));
    // what docker shows
    let shown = |template: &str| docker(&serve, &["inspect", "-f", template, "web"]);
    let settings =
        "{{with .NetworkSettings.Networks.back}}{{.IPAddress}} {{.Gateway}} {{.MacAddress}} {{.Aliases}}{{end}}";
    assert_eq!(shown(settings), "10.91.0.7 10.91.0.1 02:42:0a:5b:00:07 [store]");
    let members = docker(&serve, &["network", "inspect", "-f", "{{range .Containers}}{{.Name}} {{end}}", "back"]);
    let mut members: Vec<&str> = members.split_whitespace().collect();
    members.sort_unstable();
    assert_eq!(members, ["cli", "web"]);
    let (tcp, udp) = (port(&serve, "web", "80/tcp"), port(&serve, "web", "53/udp"));
    let column = docker(&serve, &["ps", "--filter", "name=web", "--format", "{{.Ports}}"]);
    assert!(column.contains(&format!("{tcp}->80/tcp")) && column.contains(&format!("{udp}->53/udp")), "{column}");
    // from the host
    until("the port leads to the machine", || fetch(&tcp).as_deref() == Some("here\n"));
    until("datagrams come back", || echoes(&udp));
    // to the host, by its address or, as the gateway stands for it, by the gateway's
    match own_address() {
        None => crate::skip("docker_networks", "this host has no address that others reach"),
        Some(own) => {
            let listener = TcpListener::bind((own, 0)).expect("a port");
            listener.set_nonblocking(true).expect("a socket");
            let at = listener.local_addr().expect("it listens").port();
            for host in [own.to_string(), "10.91.0.1".into()] {
                let script = format!("echo hello | nc -w 5 {host} {at}");
                let calls = serve.docker(&["exec", "-d", "cli", "sh", "-c", &script]).output();
                assert_eq!(calls.code, 0, "{calls:?}");
                let mut caller = None;
                until("the machine calls", || {
                    caller = listener.accept().ok();
                    caller.is_some()
                });
                let (mut stream, _) = caller.expect("it has called");
                stream.set_nonblocking(false).expect("a socket");
                stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
                let mut said = [0; 5];
                stream.read_exact(&mut said).expect("five bytes");
                assert_eq!(&said, b"hello", "{host}");
            }
        }
    }
    // another network while it runs, and away again
    docker(&serve, &["network", "connect", "back", "far"]);
    until("the new card is used", || reaches(&serve, "far", "store"));
    assert!(reaches(&serve, "cli", "far"));
    fails(serve.docker(&["network", "connect", "back", "far"]).output(), 1, &["already exists in network back"]);
    docker(&serve, &["network", "disconnect", "back", "far"]);
    until("it is away", || !reaches(&serve, "cli", "far"));
    assert!(!reaches(&serve, "far", "10.91.0.7"));
    docker(&serve, &["network", "connect", "back", "far"]);
    until("it is back", || reaches(&serve, "far", "web"));
    // all goes on without this serve, and with the next one, also where machines are other users
    if fs::metadata("/proc/self").expect("proc").uid() == 0 {
        let owner = |pid| fs::metadata(format!("/proc/{pid}")).expect("a machine").uid();
        assert!(serve.machines().into_iter().all(|pid| owner(pid) != 0), "machines are root's");
    }
    serve.kill();
    serve.start_again();
    serve.until_docker_answers();
    until("the port leads there again", || fetch(&tcp).as_deref() == Some("here\n"));
    until("datagrams come back again", || echoes(&udp));
    until("they find each other again", || reaches(&serve, "cli", "store") && reaches(&serve, "far", "web"));
    assert_eq!(port(&serve, "web", "80/tcp"), tcp);
    // its address and its ports are free when it has ended
    fails(serve.docker(&["network", "rm", "back"]).output(), 1, &["has active endpoints"]);
    docker(&serve, &["rm", "-f", "web"]);
    until("the port leads nowhere", || fetch(&tcp).is_none());
    docker(&serve, &["rm", "-f", "cli", "far"]);
    assert_eq!(docker(&serve, &["network", "prune", "-f", "--filter", "label=tier"]), "Deleted Networks:\nback");
    assert_eq!(docker(&serve, &["network", "rm", "other"]), "other");
}

#[test]
fn ports_datagrams_and_inner_networks_are_as_asked_for() {
    let serve = with_perl();
    docker(&serve, &["network", "create", "--internal", "--subnet", "10.94.0.0/24", "inner"]);
    // a range of the host's ports, of which somebody has the first, and all that the image exposes
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken_port = taken.local_addr().expect("it listens").port();
    let first = taken_port.min(u16::MAX - 20);
    let range = format!("127.0.0.1:{first}-{}:80", first + 20);
    docker(&serve, &["run", "-d", "--name", "web", "-P", "-p", &range, "-e", "WORD=here", "test", "sh", "-c", WEB]);
    let (tcp, udp) = (port(&serve, "web", "80/tcp"), port(&serve, "web", "53/udp").replace("0.0.0.0", "127.0.0.1"));
    let number: u16 = tcp.rsplit(':').next().and_then(|number| number.parse().ok()).expect("a port");
    assert!((first..=first + 20).contains(&number) && number != taken_port, "{tcp}");
    until("the port leads to the machine", || fetch(&tcp).as_deref() == Some("here\n"));
    until("datagrams come back", || echoes(&udp));
    // what docker shows of them
    let shown = |template: &str| docker(&serve, &["inspect", "-f", template, "web"]);
    let bound = shown("{{json (index .NetworkSettings.Ports \"80/tcp\")}}");
    assert_eq!(bound, format!("[{{\"HostIp\":\"127.0.0.1\",\"HostPort\":\"{number}\"}}]"));
    assert!(shown("{{json (index .NetworkSettings.Ports \"53/udp\")}}").contains("\"HostIp\":\"0.0.0.0\""));
    // datagrams to the host
    match own_address() {
        None => crate::skip("docker_networks", "this host has no address that others reach"),
        Some(own) => {
            let server = UdpSocket::bind((own, 0)).expect("a port");
            server.set_read_timeout(Some(PATIENCE)).expect("a socket");
            let at = server.local_addr().expect("it is bound");
            let ends = format!("{}, pack(\"C4\", split(/[.]/, \"{}\"))", at.port(), at.ip());
            let script = format!(
                "socket(S, 2, 2, 17); send(S, \"hello\", 0, pack(\"Sna4x8\", 2, {ends})); recv(S, $said, 9, 0); print $said"
            );
            let calls = serve.docker(&["exec", "web", "perl", "-e", &script]).start();
            let mut said = [0; 9];
            let (length, from) = server.recv_from(&mut said).expect("a datagram of the machine's");
            assert_eq!(&said[..length], b"hello");
            server.send_to(b"heard", from).expect("a socket");
            assert_eq!(calls.finish().success(), "heard");
        }
    }
    // one that stands still keeps its networks, and one that is off gets them at its next start
    docker(&serve, &["pause", "web"]);
    fails(serve.docker(&["network", "connect", "inner", "web"]).output(), 1, &["web is paused", "unpause it first"]);
    fails(serve.docker(&["network", "disconnect", "bridge", "web"]).output(), 1, &["web is paused"]);
    docker(&serve, &["unpause", "web"]);
    docker(&serve, &["stop", "-t", "0", "web"]);
    docker(&serve, &["network", "connect", "--ip", "10.94.0.7", "--alias", "store", "inner", "web"]);
    assert_eq!(shown("{{.NetworkSettings.Networks.inner.IPAddress}}{{json .NetworkSettings.Ports}}"), "{}");
    docker(&serve, &["start", "web"]);
    assert_eq!(shown("{{.NetworkSettings.Networks.inner.IPAddress}}"), "10.94.0.7");
    // nobody else has its address, and who is inside reaches it and nothing else
    let second = ["run", "--rm", "--network", "inner", "--ip", "10.94.0.7", "busybox", "true"];
    fails(serve.docker(&second).output(), 125, &["Address already in use"]);
    docker(&serve, &["run", "-d", "--name", "cli", "--network", "inner", "busybox", "sleep", "100000"]);
    until("it is reached there", || reaches(&serve, "cli", "store"));
    let out = serve.docker(&["exec", "cli", "ping", "-c", "1", "-w", "5", "192.0.2.1"]).output();
    assert!(out.code != 0 && out.stderr.contains("Network is unreachable"), "{out:?}");
    // the way out goes, and the ports with it
    docker(&serve, &["network", "disconnect", "bridge", "web"]);
    until("the port leads nowhere", || fetch(&tcp).is_none());
    assert!(reaches(&serve, "cli", "web"));
    assert_eq!(docker(&serve, &["network", "prune", "-f"]), "");
    // as with docker, one that is off keeps no network
    docker(&serve, &["stop", "-t", "0", "web", "cli"]);
    assert_eq!(docker(&serve, &["network", "prune", "-f"]), "Deleted Networks:\ninner");
    fails(serve.docker(&["start", "web"]).output(), 1, &["network inner not found"]);
}

#[test]
fn what_a_network_cannot_be_or_give_is_said_in_dockers_words() {
    let serve = Serve::with_qemu(&[]);
    let refused = |args: &[&str], code, part: &str| fails(serve.docker(args).output(), code, &[part]);
    docker(&serve, &["network", "create", "--subnet", "10.92.0.0/24", "--internal", "mine"]);
    refused(&["network", "create", "mine"], 1, "network with name mine already exists");
    refused(
        &["network", "create", "--subnet", "10.92.0.0/16", "next"],
        1,
        "Pool overlaps with other one on this address space",
    );
    refused(&["network", "create", "-d", "macvlan", "next"], 1, "leave out --driver macvlan");
    refused(&["network", "rm", "bridge"], 1, "bridge is a pre-defined network and cannot be removed");
    refused(&["network", "rm", "nosuch"], 1, "network nosuch not found");
    // as with docker, networks are looked for when a container starts
    let missing = "failed to set up container networking: network nosuch not found";
    refused(&["run", "--rm", "--network", "nosuch", "busybox", "true"], 125, missing);
    docker(&serve, &["create", "--name", "lost", "--network", "nosuch", "busybox", "true"]);
    refused(&["start", "lost"], 1, missing);
    let state = |name: &str| {
        let template = "{{.State.Status}} {{.State.ExitCode}} {{.State.Error}}";
        docker(&serve, &["inspect", "-f", template, name])
    };
    assert_eq!(state("lost"), format!("created 128 {missing}"));
    let column = docker(&serve, &["ps", "-a", "--filter", "status=created", "--format", "{{.Names}} {{.Status}}"]);
    assert_eq!(column, "lost Created");
    docker(&serve, &["network", "create", "nosuch"]);
    docker(&serve, &["start", "-a", "lost"]);
    assert_eq!(state("lost"), "exited 0");
    refused(&["create", "--network", "host", "busybox"], 1, "let ports of the host lead to it with -p");
    refused(&["create", "--network", "container:x", "busybox"], 1, "a virtual machine has a network of its own");
    // nobody is asked for a port that somebody has
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let place = format!("{}:80", taken.local_addr().expect("it listens"));
    refused(
        &["run", "-d", "--name", "late", "-p", &place, "busybox", "sleep", "100000"],
        125,
        "address already in use",
    );
    let late = state("late");
    assert!(late.starts_with("created 128 ") && late.contains("address already in use"), "{late}");
    drop(taken);
    docker(&serve, &["start", "late"]);
    refused(&["run", "--name", "later", "-p", &place, "busybox", "true"], 125, "port is already allocated");
    assert!(state("later").starts_with("created 128 "), "{}", state("later"));
    docker(&serve, &["rm", "-f", "late"]);
    docker(&serve, &["start", "-a", "later"]);
    assert_eq!(state("later"), "exited 0");
    refused(&["run", "--rm", "--network", "mine", "--ip", "10.93.0.5", "busybox", "true"], 125, "10.93.0.5");
    // a network that leads nowhere, to a container that was not yet started
    docker(&serve, &["create", "--name", "inner", "--network", "none", "busybox", "ip", "route"]);
    docker(&serve, &["network", "disconnect", "none", "inner"]);
    docker(&serve, &["network", "connect", "--ip", "10.92.0.9", "mine", "inner"]);
    let routes = docker(&serve, &["start", "-a", "inner"]);
    assert!(routes.contains("src 10.92.0.9") && !routes.contains("default"), "{routes}");
    let interfaces = docker(&serve, &["run", "--rm", "--network", "none", "busybox", "ip", "-o", "addr"]);
    assert!(interfaces.contains("127.0.0.1") && !interfaces.contains("eth0"), "{interfaces}");
}
