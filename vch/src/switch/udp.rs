//! Datagrams of machines: a socket of the host for each pair of ends, for as long as something goes through it.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use smoltcp::wire::{Icmpv4DstUnreachable, Ipv4Packet, UdpPacket};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::dns;
use super::gateway::{Gateway, Leads, reason};
use super::packet::{Ipv4, Pair};
use crate::lock::locked;

/// How long a pair of ends is remembered: one that was answered longer, as the kernel's own address translation does.
const UNANSWERED: Duration = Duration::from_secs(30);
const ANSWERED: Duration = Duration::from_secs(120);
const LARGEST: usize = 65535;

/// A datagram of a machine's, with its header of IPv4.
pub(super) fn take(gateway: &Arc<Gateway>, pair: Pair, packet: &[u8]) {
    if gateway.udp.pass(&pair, packet) {
        return;
    }
    if pair.far == SocketAddrV4::new(gateway.address, dns::PORT) {
        return dns::take(gateway, pair, data(packet));
    }
    let to = match gateway.leads(*pair.far.ip()) {
        Leads::To(address) => SocketAddrV4::new(address, pair.far.port()),
        Leads::Nowhere(reason) => return gateway.refuse(packet, reason),
    };
    // at once: more may come before the task has its turn
    let Some((place, packets)) = gateway.udp.open(pair) else { return };
    let (gateway, first) = (gateway.clone(), packet.to_vec());
    tokio::spawn(async move {
        let socket = async {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
            socket.connect(SocketAddr::from(to)).await?;
            std::io::Result::Ok(socket)
        };
        match socket.await {
            Ok(socket) => outward(&gateway, pair, &socket, packets, first).await,
            Err(error) => refuse(&gateway, &first, &error),
        }
        drop(place);
    });
}

/// Carries datagrams both ways, until nothing has come for long enough.
async fn outward(
    gateway: &Gateway,
    pair: Pair,
    socket: &UdpSocket,
    mut packets: mpsc::Receiver<Vec<u8>>,
    first: Vec<u8>,
) {
    let mut buffer = vec![0; LARGEST];
    let mut last = first;
    let mut patience = UNANSWERED;
    let mut sent = socket.send(data(&last)).await.map(drop);
    loop {
        if let Err(error) = sent {
            refuse(gateway, &last, &error);
        }
        tokio::select! {
            packet = packets.recv() => {
                let Some(packet) = packet else { return };
                last = packet;
                sent = socket.send(data(&last)).await.map(drop);
            }
            received = socket.recv(&mut buffer) => {
                sent = received.map(|length| gateway.send(&Ipv4::udp(pair, &buffer[..length])));
                if sent.is_ok() {
                    patience = ANSWERED;
                }
            }
            () = sleep_until(Instant::now() + patience) => return,
        }
    }
}

/// Takes datagrams at a port of the host, and leads them to a machine, for ever. Each sender is a port of the gateway's to it.
pub(super) async fn publish(gateway: Arc<Gateway>, socket: UdpSocket, to: SocketAddrV4) {
    let socket = Arc::new(socket);
    let clients: Arc<Mutex<HashMap<SocketAddr, Pair>>> = Arc::default();
    let mut buffer = vec![0; LARGEST];
    loop {
        // an error is what became of an earlier answer
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else { continue };
        let known = locked(&clients).get(&client).copied();
        let pair = match known {
            Some(pair) => pair,
            None => {
                let opened = gateway.own_port(&gateway.udp, to).and_then(|pair| Some((pair, gateway.udp.open(pair)?)));
                let Some((pair, (place, packets))) = opened else { continue };
                locked(&clients).insert(client, pair);
                let (socket, clients) = (socket.clone(), clients.clone());
                tokio::spawn(async move {
                    answers(packets, &socket, client).await;
                    locked(&clients).remove(&client);
                    drop(place);
                });
                pair
            }
        };
        gateway.send(&Ipv4::udp(pair, &buffer[..length]));
    }
}

/// Gives a client what the machine answers, until it has not for long enough.
async fn answers(mut packets: mpsc::Receiver<Vec<u8>>, socket: &UdpSocket, client: SocketAddr) {
    while let Ok(Some(packet)) = tokio::time::timeout(ANSWERED, packets.recv()).await {
        // a client that is gone is none that misses it
        socket.send_to(data(&packet), client).await.ok();
    }
}

/// What a packet carries, whose headers were checked when it came.
fn data(packet: &[u8]) -> &[u8] {
    let payload = Ipv4Packet::new_checked(packet).map_or(&[][..], |packet| packet.payload());
    UdpPacket::new_checked(payload).map_or(&[], |datagram| datagram.payload())
}

fn refuse(gateway: &Gateway, packet: &[u8], error: &std::io::Error) {
    gateway.refuse(packet, reason(error).unwrap_or(Icmpv4DstUnreachable::PortUnreachable));
}
