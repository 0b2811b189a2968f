//! Networks of a host that makes its machines, as docker's own client has them: names, addresses, ports, isolation, and all of it after `kill -9` of serve.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use rig::engine::until;
use rig::host::PATIENCE;
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
const WEB: &str = "mkdir /w; echo $WORD > /w/word; httpd -p 80 -h /w; exec udpsvd -E 0 53 cat";

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
    let mut serve = Serve::with_qemu(&[]);
    docker(&serve, &["network", "create", "--subnet", "10.91.0.0/24", "--label", "tier=back", "back"]);
    docker(&serve, &["network", "create", "other"]);
    let web = ["run", "-d", "--name", "web", "--network", "back", "--network-alias", "store", "--ip", "10.91.0.7"];
    let ports = ["-p", "127.0.0.1::80", "-p", "127.0.0.1::53/udp", "-e", "WORD=here", "busybox", "sh", "-c", WEB];
    docker(&serve, &[&web[..], &ports].concat());
    docker(&serve, &["run", "-d", "--name", "cli", "--network", "back", "busybox", "sleep", "100000"]);
    docker(&serve, &["run", "-d", "--name", "far", "--network", "other", "busybox", "sleep", "100000"]);
    // by name, alias and address
    for name in ["web", "store", "web.back", "10.91.0.7"] {
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
    // all goes on without this serve, and with the next one
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
    refused(&["create", "--network", "nosuch", "busybox"], 1, "network nosuch not found");
    refused(&["create", "--network", "host", "busybox"], 1, "let ports of the host lead to it with -p");
    refused(&["create", "--network", "container:x", "busybox"], 1, "shares its network with no other");
    // nobody is asked for a port that somebody has
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let place = format!("{}:80", taken.local_addr().expect("it listens"));
    refused(
        &["run", "-d", "--name", "late", "-p", &place, "busybox", "sleep", "100000"],
        125,
        "address already in use",
    );
    assert_eq!(docker(&serve, &["inspect", "-f", "{{.State.Status}}", "late"]), "created");
    drop(taken);
    docker(&serve, &["start", "late"]);
    refused(&["run", "--name", "later", "-p", &place, "busybox", "true"], 125, "port is already allocated");
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
