//! Echo requests of machines: the gateway answers for itself, and asks others by the host's sockets for that, where its kernel lets everybody have them.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket as StdSocket};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{Icmpv4DstUnreachable, Icmpv4Packet, Icmpv4Repr, Ipv4Packet};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::gateway::{Gateway, Leads, reason};
use super::packet::Ipv4;

/// One program's requests to one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Echo {
    pub(super) machine: Ipv4Addr,
    far: Ipv4Addr,
    ident: u16,
}

/// How long an answer is waited for, after the last request.
const PATIENCE: Duration = Duration::from_secs(30);

/// A request of a machine's. `packet` is all of it, with the header of IPv4.
pub(super) fn take(
    gateway: &Arc<Gateway>,
    machine: Ipv4Addr,
    far: Ipv4Addr,
    request: &Icmpv4Packet<&[u8]>,
    packet: &[u8],
) {
    let (ident, seq_no) = (request.echo_ident(), request.echo_seq_no());
    if far == gateway.address {
        let reply = Icmpv4Repr::EchoReply { ident, seq_no, data: request.data() };
        return gateway.send(&Ipv4::icmp(far, machine, &reply));
    }
    let echo = Echo { machine, far, ident };
    if gateway.pings.pass(&echo, packet) {
        return;
    }
    let to = match gateway.leads(far) {
        Leads::To(address) => address,
        Leads::Nowhere(reason) => return gateway.refuse(packet, reason),
    };
    match open(to) {
        Ok(socket) => {
            let Some((place, packets)) = gateway.pings.open(echo) else { return };
            let (gateway, first) = (gateway.clone(), packet.to_vec());
            tokio::spawn(async move {
                outward(&gateway, echo, &socket, packets, first).await;
                drop(place);
            });
        }
        // net.ipv4.ping_group_range leaves this user out
        Err(error) => gateway.refuse(packet, reason(&error).unwrap_or(Icmpv4DstUnreachable::HostUnreachable)),
    }
}

async fn outward(
    gateway: &Gateway,
    echo: Echo,
    socket: &UdpSocket,
    mut packets: mpsc::Receiver<Vec<u8>>,
    first: Vec<u8>,
) {
    let mut buffer = vec![0; 65535];
    let mut last = first;
    let mut sent = send(socket, &last).await;
    loop {
        if let Err(error) = sent {
            gateway.refuse(&last, reason(&error).unwrap_or(Icmpv4DstUnreachable::HostUnreachable));
        }
        tokio::select! {
            packet = packets.recv() => {
                let Some(packet) = packet else { return };
                last = packet;
                sent = send(socket, &last).await;
            }
            received = socket.recv(&mut buffer) => sent = received.map(|length| answer(gateway, echo, &buffer[..length])),
            () = sleep_until(Instant::now() + PATIENCE) => return,
        }
    }
}

/// Sends the request that a packet carries. The kernel has an identifier of its own for it.
async fn send(socket: &UdpSocket, packet: &[u8]) -> std::io::Result<()> {
    let payload = Ipv4Packet::new_checked(packet).map_or(&[][..], |packet| packet.payload());
    socket.send(payload).await.map(drop)
}

/// Gives the machine an answer, with its own identifier.
fn answer(gateway: &Gateway, Echo { machine, far, ident }: Echo, message: &[u8]) {
    let Ok(message) = Icmpv4Packet::new_checked(message) else { return };
    if let Ok(Icmpv4Repr::EchoReply { seq_no, data, .. }) =
        Icmpv4Repr::parse(&message, &ChecksumCapabilities::ignored())
    {
        gateway.send(&Ipv4::icmp(far, machine, &Icmpv4Repr::EchoReply { ident, seq_no, data }));
    }
}

fn open(to: Ipv4Addr) -> std::io::Result<UdpSocket> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, flags, Some(ipproto::ICMP))?;
    let socket = StdSocket::from(socket);
    socket.connect(SocketAddrV4::new(to, 0))?;
    UdpSocket::from_std(socket)
}
