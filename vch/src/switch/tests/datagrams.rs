//! Datagrams, echo requests and names.

use std::net::{Ipv4Addr, SocketAddrV4};

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, Question, RCODE, TYPE};
use smoltcp::wire::{Icmpv4DstUnreachable, Icmpv4Packet, Icmpv4Repr, IpProtocol, Ipv4Packet, UdpPacket};
use tokio::net::UdpSocket;
use wire::spec::Protocol;

use super::super::gateway::Gateway;
use super::super::packet::{Ipv4, Pair};
use super::guest::Guest;
use super::{GATEWAY, Machine, Settings, Switch, settings, switch};

const GATEWAY_MAC: [u8; 6] = [2, 0x42, 10, 9, 0, 1];

async fn send(machine: &Machine, packet: &Ipv4) {
    for frame in packet.frames(GATEWAY_MAC, machine.mac, 1500, 0) {
        machine.send(&frame).await;
    }
}

/// A datagram from the machine: seen from there, it is the far end.
async fn send_udp(machine: &Machine, from: u16, to: (Ipv4Addr, u16), data: &[u8]) {
    let ends = Pair { far: SocketAddrV4::new(machine.address, from), machine: SocketAddrV4::new(to.0, to.1) };
    send(machine, &Ipv4::udp(ends, data)).await;
}

/// The next packet: who sent it, which protocol, and what is in it.
async fn receive(machine: &Machine) -> (Ipv4Addr, IpProtocol, Vec<u8>) {
    let frame = machine.receive().await;
    let packet = Ipv4Packet::new_checked(&frame[14..]).unwrap();
    assert!(packet.verify_checksum() && packet.dst_addr() == machine.address);
    (packet.src_addr(), packet.next_header(), packet.payload().to_vec())
}

async fn receive_udp(machine: &Machine) -> (SocketAddrV4, u16, Vec<u8>) {
    let (from, protocol, payload) = receive(machine).await;
    assert_eq!(protocol, IpProtocol::Udp);
    let datagram = UdpPacket::new_checked(&payload[..]).unwrap();
    assert!(datagram.verify_checksum(&from.into(), &machine.address.into()));
    (SocketAddrV4::new(from, datagram.src_port()), datagram.dst_port(), datagram.payload().to_vec())
}

#[tokio::test]
async fn the_gateway_answers_for_itself() {
    let (switch, _dir) = switch();
    let two = Machine::plug(&switch, 2);
    let question =
        [&[0xff; 6], &two.mac[..], &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &two.mac, &[10, 9, 0, 2], &[0; 6], &[10, 9, 0, 1]];
    two.send(&question.concat()).await;
    let answer = [
        &two.mac[..],
        &GATEWAY_MAC,
        &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2],
        &GATEWAY_MAC,
        &[10, 9, 0, 1],
        &two.mac,
        &[10, 9, 0, 2],
    ];
    assert_eq!(two.receive().await, answer.concat());
    let request = Icmpv4Repr::EchoRequest { ident: 7, seq_no: 1, data: b"echo" };
    send(&two, &Ipv4::icmp(two.address, GATEWAY, &request)).await;
    let (from, _, reply) = receive(&two).await;
    let reply = Icmpv4Packet::new_checked(&reply[..]).unwrap();
    let parsed = Icmpv4Repr::parse(&reply, &Default::default()).unwrap();
    assert_eq!((from, parsed), (GATEWAY, Icmpv4Repr::EchoReply { ident: 7, seq_no: 1, data: b"echo" }));
    // an address of the network that nobody has
    send(&two, &Ipv4::icmp(two.address, Ipv4Addr::new(10, 9, 0, 99), &request)).await;
    let (_, _, reply) = receive(&two).await;
    let reply = Icmpv4Packet::new_checked(&reply[..]).unwrap();
    assert_eq!(Icmpv4DstUnreachable::from(reply.msg_code()), Icmpv4DstUnreachable::HostUnreachable);
}

#[tokio::test]
async fn datagrams_go_out_and_come_back() {
    let (switch, _dir) = switch();
    let two = Machine::plug(&switch, 2);
    let host = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = host.local_addr().unwrap().port();
    let mut buffer = [0; 65536];
    for data in [&b"one"[..], b"", &[3; 1400]] {
        send_udp(&two, 5000, (GATEWAY, port), data).await;
        let (length, from) = host.recv_from(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..length], data);
        host.send_to(data, from).await.unwrap();
        assert_eq!(receive_udp(&two).await, (SocketAddrV4::new(GATEWAY, port), 5000, data.to_vec()));
    }
    // a large one comes in pieces, that make the whole
    send_udp(&two, 5000, (GATEWAY, port), b"large").await;
    let (_, from) = host.recv_from(&mut buffer).await.unwrap();
    host.send_to(&[9; 3000], from).await.unwrap();
    let mut whole = Vec::new();
    for more in [true, true, false] {
        let frame = two.receive().await;
        let packet = Ipv4Packet::new_checked(&frame[14..]).unwrap();
        assert_eq!((packet.more_frags(), usize::from(packet.frag_offset())), (more, whole.len()));
        assert!(packet.verify_checksum() && packet.total_len() <= 1500);
        whole.extend_from_slice(packet.payload());
    }
    let datagram = UdpPacket::new_checked(&whole[..]).unwrap();
    assert!(datagram.verify_checksum(&GATEWAY.into(), &two.address.into()) && datagram.payload() == [9; 3000]);
    // nobody is there any more
    drop(host);
    send_udp(&two, 5000, (GATEWAY, port), b"gone").await;
    let (_, protocol, payload) = receive(&two).await;
    let message = Icmpv4Packet::new_checked(&payload[..]).unwrap();
    assert_eq!(
        (protocol, Icmpv4DstUnreachable::from(message.msg_code())),
        (IpProtocol::Icmp, Icmpv4DstUnreachable::PortUnreachable)
    );
}

#[tokio::test]
async fn a_published_port_tells_its_clients_apart() {
    let (switch, _dir) = switch();
    let two = Machine::plug(&switch, 2);
    let here = (Ipv4Addr::LOCALHOST, 0).into();
    let port = switch.publish(Protocol::Udp, here, (two.address.into(), 53)).await.unwrap();
    let mut clients = Vec::new();
    for name in ["a", "b"] {
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        client.send_to(name.as_bytes(), port.at()).await.unwrap();
        let (from, to, data) = receive_udp(&two).await;
        assert_eq!((*from.ip(), to, &data[..]), (GATEWAY, 53, name.as_bytes()));
        clients.push((client, from));
    }
    for (client, from) in clients.iter().rev() {
        let answer = from.port().to_string();
        send_udp(&two, 53, (*from.ip(), from.port()), answer.as_bytes()).await;
        let mut buffer = [0; 100];
        let (length, sender) = client.recv_from(&mut buffer).await.unwrap();
        assert_eq!((&buffer[..length], sender), (answer.as_bytes(), port.at()));
    }
}

fn question(name: &str, kind: TYPE) -> Vec<u8> {
    let mut query = Packet::new_query(0x1234);
    query.questions.push(Question::new(Name::new(name).unwrap(), kind.into(), CLASS::IN.into(), false));
    query.build_bytes_vec().unwrap()
}

/// The code and the records of the answer.
async fn ask(machine: &Machine, name: &str, kind: TYPE) -> (RCODE, Vec<RData<'static>>) {
    send_udp(machine, 4000, (GATEWAY, 53), &question(name, kind)).await;
    let (from, _, answer) = receive_udp(machine).await;
    assert_eq!(from, SocketAddrV4::new(GATEWAY, 53));
    read(&answer)
}

fn read(answer: &[u8]) -> (RCODE, Vec<RData<'static>>) {
    let answer = Packet::parse(answer).unwrap();
    assert_eq!((answer.id(), answer.questions.len()), (0x1234, 1));
    let code = answer.rcode();
    (code, answer.answers.into_iter().map(|record| record.rdata.into_owned()).collect())
}

fn internal() -> (std::sync::Arc<Switch>, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (Switch::start_as(Settings { internal: true, ..settings(&dir) }, Gateway::with_loopback).unwrap(), dir)
}

#[tokio::test]
async fn names_of_the_network_are_known() {
    let (switch, _dir) = internal();
    let two = Machine::plug(&switch, 2);
    let address = RData::A(simple_dns::rdata::A { address: u32::from_be_bytes([10, 9, 0, 3]) });
    assert_eq!(ask(&two, "DB", TYPE::A).await, (RCODE::NoError, vec![address]));
    assert_eq!(ask(&two, "db", TYPE::AAAA).await, (RCODE::NoError, vec![]));
    assert_eq!(ask(&two, "db", TYPE::MX).await, (RCODE::NoError, vec![]));
    let name = RData::PTR(simple_dns::rdata::PTR(Name::new("db.net").unwrap().into_owned()));
    assert_eq!(ask(&two, "3.0.9.10.in-addr.arpa", TYPE::PTR).await, (RCODE::NoError, vec![name]));
    assert_eq!(ask(&two, "4.0.9.10.in-addr.arpa", TYPE::PTR).await, (RCODE::NameError, vec![]));
    // others are nothing that an internal network's machines hear of
    assert_eq!(ask(&two, "example.com", TYPE::A).await, (RCODE::ServerFailure, vec![]));
    // nonsense has no answer, and does no harm
    send_udp(&two, 4000, (GATEWAY, 53), &[0xff; 5]).await;
    assert_eq!(ask(&two, "db", TYPE::AAAA).await, (RCODE::NoError, vec![]));
}

#[tokio::test]
async fn names_are_known_over_connections() {
    let (switch, _dir) = internal();
    let mut guest = Guest::new(&switch, 2);
    let connection = guest.connect((GATEWAY, 53));
    let query = question("db", TYPE::A);
    let twice = [&u16::try_from(query.len()).unwrap().to_be_bytes(), &query[..]].concat().repeat(2);
    let answers = guest.exchange(connection, &twice).await;
    let (length, rest) = answers.split_first_chunk().unwrap();
    let (first, rest) = rest.split_at(u16::from_be_bytes(*length).into());
    assert_eq!((read(first).1.len(), &rest[..2], &rest[2..]), (1, &length[..], first));
}
