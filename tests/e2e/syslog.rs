//! What a container writes, at a syslog server: whole lines in order, and a server that is away or slow is nobody's trouble but its own.
//!
//! QEMU's user networking shows the host's own loopback to the guest as 10.0.2.2.

use std::io::{ErrorKind, Read as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use rig::host::{Host, PATIENCE};
use rig::images::busybox_disk;
use rig::machine::{Machine, script};
use wire::message::{MAIN, Work};
use wire::spec::{Endpoint, LinkDevice, Nic, Prefix, Process, Spec, Syslog, Transport};

const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
/// The host, as the guest sees it.
const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);

/// A machine on QEMU's network, whose processes' output goes to a port of the host.
fn boot(spec: &mut Spec, transport: Transport, port: u16) -> (tempfile::TempDir, Host) {
    let (dir, disk) = busybox_disk();
    spec.diagnostics.syslog = Some(Syslog { transport, server: SocketAddr::new(HOST.into(), port) });
    spec.hostname = Some("web".into());
    spec.networks = vec![Endpoint {
        addresses: vec![Prefix { address: Ipv4Addr::new(10, 0, 2, 15).into(), length: 24 }],
        gateways: vec![HOST.into()],
        default: true,
        ..Endpoint::new("bridge", Nic::Mac(MAC))
    }];
    let mut machine = Machine::new(spec, Some(disk));
    machine.extra.extend(
        ["-netdev", "user,id=net0", "-device", "virtio-net-pci,netdev=net0,mac=52:54:00:12:34:56"].map(String::from),
    );
    (dir, Host::boot(machine, spec))
}

/// A message, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Message {
    priority: String,
    host: String,
    app: String,
    pid: String,
    text: String,
}

fn parse(message: &str) -> Message {
    let fields: Vec<&str> = message.splitn(8, ' ').collect();
    assert_eq!(fields.len(), 8, "{message:?}");
    let priority = fields[0].strip_suffix('1').unwrap_or_else(|| panic!("{message:?} is not of version 1"));
    assert!(fields[1].len() == 27 && fields[1].ends_with('Z'), "{message:?}");
    assert_eq!((fields[5], fields[6]), ("-", "-"), "{message:?}");
    let [host, app, pid, text] = [fields[2], fields[3], fields[4], fields[7]].map(String::from);
    Message { priority: priority.into(), host, app, pid, text }
}

/// The messages in a stream with counted octets; what is no whole message is left.
fn take(bytes: &mut Vec<u8>) -> Vec<Message> {
    let mut messages = Vec::new();
    while let Some(space) = bytes.iter().position(|byte| *byte == b' ') {
        let count: usize = String::from_utf8_lossy(&bytes[..space]).parse().expect("a count");
        if bytes.len() < space + 1 + count {
            break;
        }
        messages.push(parse(&String::from_utf8_lossy(&bytes[space + 1..space + 1 + count])));
        bytes.drain(..space + 1 + count);
    }
    messages
}

/// Waits for a connection while the link is served.
fn accept(host: &mut Host, listener: &TcpListener) -> TcpStream {
    listener.set_nonblocking(true).expect("a socket");
    host.wait("a connection", |_| match listener.accept() {
        Ok((stream, _)) => Some(stream),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) => panic!("{error}"),
    })
}

/// Reads the rest of a stream to its end.
fn rest(stream: &mut TcpStream) -> Vec<u8> {
    stream.set_nonblocking(false).expect("a socket");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let mut bytes = Vec::new();
    // an end by reset is one
    stream.read_to_end(&mut bytes).ok();
    bytes
}

#[test]
fn each_line_is_a_message_over_tcp_with_its_stream_and_its_process() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let text = "echo one; echo two >&2; printf 'thr'; sleep 0.1; echo ee; head -c 5000 /dev/zero | tr '\\0' x; echo; printf 'last words'";
    let mut spec = script(LinkDevice::Virtio, text);
    spec.id = "3f0c9a1be27799".into();
    spec.hold = true;
    let (_dir, mut host) = boot(&mut spec, Transport::Tcp, port);
    host.order(wire::message::Request::Start);
    // an exec is logged nowhere
    host.run(Work::Exec(rig::host::sh("echo not in any log")));
    let mut stream = accept(&mut host, &listener);
    host.exit(MAIN);
    host.wait_off();
    let mut bytes = rest(&mut stream);
    let messages = take(&mut bytes);
    assert!(bytes.is_empty(), "{bytes:?}");
    let pid = messages[0].pid.clone();
    assert!(pid.parse::<u32>().is_ok_and(|pid| pid > 1), "{messages:?}");
    for message in &messages {
        assert_eq!((message.host.as_str(), message.app.as_str(), &message.pid), ("web", "3f0c9a1be277", &pid));
    }
    let of = |priority: &str| -> Vec<&str> {
        messages.iter().filter(|message| message.priority == priority).map(|message| message.text.as_str()).collect()
    };
    let out = of("<30>");
    assert_eq!((out[0], out[1], out[out.len() - 1]), ("one", "three", "last words"));
    let long = &out[2..out.len() - 1];
    assert!(long.concat() == "x".repeat(5000) && long.len() == 3, "{long:?}");
    assert_eq!(of("<27>"), ["two"]);
    assert_eq!(messages.len(), out.len() + 1, "{messages:?}");
}

#[test]
fn each_line_is_a_datagram_over_udp_from_every_session_of_the_spec() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let port = server.local_addr().unwrap().port();
    let mut spec = script(LinkDevice::Virtio, "echo main; read x");
    spec.main.stdin = true;
    let side = Process {
        argv: ["/bin/sh", "-c", "echo side; exec sleep 100000"].map(String::from).to_vec(),
        ..spec.main.clone()
    };
    spec.others.insert("side".into(), side);
    let (_dir, mut host) = boot(&mut spec, Transport::Udp, port);
    host.expect(MAIN, "main\n");
    let mut texts = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while texts.len() < 2 {
        assert!(Instant::now() < deadline, "{texts:?}; console: {}", host.machine.console());
        host.step(Duration::from_millis(10));
        let mut buffer = [0; 4096];
        if let Ok(count) = server.recv(&mut buffer) {
            let message = parse(&String::from_utf8_lossy(&buffer[..count]));
            assert_eq!((message.priority.as_str(), message.app.as_str()), ("<30>", "rig"));
            texts.push(message.text);
        }
    }
    texts.sort();
    assert_eq!(texts, ["main", "side"]);
    host.feed(MAIN, b"\n");
    host.exit(MAIN);
    host.wait_off();
}

#[test]
fn a_server_that_is_away_holds_nothing_up_and_gets_the_lines_when_it_comes() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let mut spec = script(LinkDevice::Virtio, "echo early; read x; echo late; read x");
    spec.main.stdin = true;
    let (_dir, mut host) = boot(&mut spec, Transport::Tcp, address.port());
    host.expect(MAIN, "early\n");
    host.wait("tether's notice of it", |host| {
        host.machine.console().contains("tether: warn syslog: the syslog server is away: ").then_some(())
    });
    let listener = TcpListener::bind(address).unwrap();
    let mut first = accept(&mut host, &listener);
    host.stdin(MAIN).add(b"\n");
    host.expect(MAIN, "late\n");
    let mut bytes = Vec::new();
    first.set_nonblocking(true).unwrap();
    let mut messages = Vec::new();
    host.wait("two lines", |_| {
        let mut buffer = [0; 4096];
        if let Ok(count) = first.read(&mut buffer) {
            bytes.extend_from_slice(&buffer[..count]);
        }
        messages.extend(take(&mut bytes));
        (messages.len() >= 2).then_some(())
    });
    assert_eq!(messages.iter().map(|message| message.text.as_str()).collect::<Vec<_>>(), ["early", "late"]);
    assert!(host.machine.console().contains("the syslog server takes lines again"));
    host.feed(MAIN, b"\n");
    host.exit(MAIN);
    host.wait_off();
}
