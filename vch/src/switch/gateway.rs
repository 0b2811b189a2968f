//! The gateway of a network: what machines send to it and through it, and which of the host's sockets that becomes.
//!
//! It decides what may leave: on an internal network nothing, elsewhere what the host itself would reach, but never the host's loopback, as with docker's bridge. Its own address stands for the host: for its first address that others
//! reach, and for the service of names at port 53. The kinds of flows: [`super::tcp`], [`super::udp`], [`super::ping`].

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::io::{Error, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use smoltcp::wire::{
    EthernetFrame, EthernetProtocol, Icmpv4DstUnreachable, Icmpv4Message, Icmpv4Packet, IpProtocol, Ipv4Cidr,
    Ipv4Packet, TcpPacket, UdpPacket,
};
use tokio::sync::{Semaphore, mpsc};

use super::guard::Mac;
use super::packet::{self, Ipv4, Pair};
use super::port::Port;
use super::ports::{self, Ports};
use super::{Settings, ping, tcp, udp};
use crate::lock::locked;

/// Flows of one kind through one gateway at most: each is a socket of the host.
const FLOWS: usize = 1024;
/// Packets that wait for one flow at most; more than a window of segments.
const PACKETS: usize = 256;
/// Questions about names that are open at most.
const QUESTIONS: usize = 128;

pub(super) struct Gateway {
    pub(super) settings: Settings,
    pub(super) address: Ipv4Addr,
    pub(super) mac: Mac,
    pub(super) ports: Arc<Ports>,
    pub(super) tcp: Flows<Pair>,
    pub(super) udp: Flows<Pair>,
    pub(super) pings: Flows<ping::Echo>,
    pub(super) questions: Arc<Semaphore>,
    /// Where the next port of the gateway's own is looked for.
    next_port: AtomicU16,
    ident: AtomicU16,
    /// The host's own address, as it is at the moment.
    host: fn() -> Option<Ipv4Addr>,
}

/// Where packets of known flows go.
#[derive(Debug)]
pub(super) struct Flows<Key>(Arc<Mutex<Packets<Key>>>);

type Packets<Key> = HashMap<Key, mpsc::Sender<Vec<u8>>>;

/// A flow's place among the others. Dropped, it is free.
#[derive(Debug)]
pub(super) struct Place<Key: Eq + Hash> {
    flows: Arc<Mutex<Packets<Key>>>,
    key: Key,
    /// Of this flow, and not of one that came after it.
    own: mpsc::WeakSender<Vec<u8>>,
}

/// Where the host goes for an address that a machine named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leads {
    To(Ipv4Addr),
    /// The gateway says so.
    Nowhere(Icmpv4DstUnreachable),
}

impl Gateway {
    pub(super) fn new(settings: Settings, address: Ipv4Addr, ports: Arc<Ports>) -> Gateway {
        let [a, b, c, d] = address.octets();
        Gateway {
            settings,
            address,
            // the same after a restart: machines keep it in mind
            mac: [2, 0x42, a, b, c, d],
            ports,
            tcp: Flows::default(),
            udp: Flows::default(),
            pings: Flows::default(),
            questions: Arc::new(Semaphore::new(QUESTIONS)),
            next_port: AtomicU16::new(0),
            ident: AtomicU16::new(0),
            host: host_address,
        }
    }

    /// A gateway whose own address stands for the host's loopback: tests have no other.
    #[cfg(test)]
    pub(super) fn with_loopback(self) -> Gateway {
        Gateway { host: || Some(Ipv4Addr::LOCALHOST), ..self }
    }

    /// Sends a packet to the machine that has its address, if one has.
    pub(super) fn send(&self, packet: &Ipv4) {
        let Some(port) = self.ports.at(packet.to.into()) else { return };
        let ident = self.ident.fetch_add(1, Ordering::Relaxed);
        for frame in packet.frames(port.guard.mac, self.mac, self.settings.mtu, ident) {
            port.send(&frame);
        }
    }

    /// Ends the flows of machines that are gone, or all.
    pub(super) fn forget(&self, addresses: Option<&[IpAddr]>) {
        let stays = |machine: &Ipv4Addr| addresses.is_some_and(|gone| !gone.contains(&(*machine).into()));
        locked(&self.tcp.0).retain(|pair, _| stays(pair.machine.ip()));
        locked(&self.udp.0).retain(|pair, _| stays(pair.machine.ip()));
        locked(&self.pings.0).retain(|echo, _| stays(&echo.machine));
    }

    /// Where an address leads that is not this network's service of names.
    pub(super) fn leads(&self, to: Ipv4Addr) -> Leads {
        let subnet = Ipv4Cidr::new(self.address, self.settings.prefix);
        if self.settings.internal {
            Leads::Nowhere(Icmpv4DstUnreachable::NetUnreachable)
        } else if to == self.address {
            (self.host)().map_or(Leads::Nowhere(Icmpv4DstUnreachable::PortUnreachable), Leads::To)
        } else if subnet.contains_addr(&to) {
            Leads::Nowhere(Icmpv4DstUnreachable::HostUnreachable)
        } else {
            Leads::To(to)
        }
    }

    /// A port of the gateway's own towards this machine's port.
    pub(super) fn own_port(&self, flows: &Flows<Pair>, machine: SocketAddrV4) -> Option<Pair> {
        (0..EPHEMERAL).find_map(|_| {
            let port = u16::MAX - self.next_port.fetch_add(1, Ordering::Relaxed) % EPHEMERAL;
            let pair = Pair { machine, far: SocketAddrV4::new(self.address, port) };
            (!locked(&flows.0).contains_key(&pair)).then_some(pair)
        })
    }

    fn ipv4(self: &Arc<Self>, bytes: &[u8]) {
        let Ok(packet) = Ipv4Packet::new_checked(bytes) else { return };
        // what follows the packet pads its frame
        let bytes = &bytes[..usize::from(packet.total_len())];
        let to = packet.dst_addr();
        // pieces of packets are not put together: see docs/decisions/0015
        let in_pieces = packet.more_frags() || packet.frag_offset() != 0;
        let reserved = to.is_loopback() || to.octets()[0] == 0 || to.octets()[0] >= 224;
        if in_pieces || reserved || !packet.verify_checksum() {
            return;
        }
        let ends = |source, destination| Pair {
            machine: SocketAddrV4::new(packet.src_addr(), source),
            far: SocketAddrV4::new(to, destination),
        };
        let (from, far) = (packet.src_addr().into(), to.into());
        match packet.next_header() {
            IpProtocol::Tcp => {
                let Ok(segment) = TcpPacket::new_checked(packet.payload()) else { return };
                if segment.src_port() != 0 && segment.dst_port() != 0 && segment.verify_checksum(&from, &far) {
                    tcp::take(self, ends(segment.src_port(), segment.dst_port()), &segment, bytes);
                }
            }
            IpProtocol::Udp => {
                let Ok(datagram) = UdpPacket::new_checked(packet.payload()) else { return };
                if datagram.src_port() != 0 && datagram.dst_port() != 0 && datagram.verify_checksum(&from, &far) {
                    udp::take(self, ends(datagram.src_port(), datagram.dst_port()), bytes);
                }
            }
            IpProtocol::Icmp => {
                let Ok(message) = Icmpv4Packet::new_checked(packet.payload()) else { return };
                if message.msg_type() == Icmpv4Message::EchoRequest && message.verify_checksum() {
                    ping::take(self, packet.src_addr(), to, &message, bytes);
                }
            }
            _ => self.refuse(bytes, Icmpv4DstUnreachable::ProtoUnreachable),
        }
    }

    /// Tells the sender of a packet that it goes nowhere.
    pub(super) fn refuse(&self, packet: &[u8], reason: Icmpv4DstUnreachable) {
        if let Some(answer) = Ipv4::unreachable(self.address, packet, reason) {
            self.send(&answer);
        }
    }
}

impl ports::Gateway for Arc<Gateway> {
    fn mac(&self) -> Mac {
        self.mac
    }

    fn take(&self, from: &Arc<Port>, frame: &[u8]) {
        let Ok(ethernet) = EthernetFrame::new_checked(frame) else { return };
        match ethernet.ethertype() {
            EthernetProtocol::Arp => {
                if let Some(answer) = packet::arp_answer(ethernet.payload(), self.mac, self.address) {
                    from.send(&answer);
                }
            }
            // what is for all is for machines
            EthernetProtocol::Ipv4 if ethernet.dst_addr().is_unicast() => self.ipv4(ethernet.payload()),
            _ => (),
        }
    }
}

impl fmt::Debug for Gateway {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Gateway").field("address", &self.address).finish_non_exhaustive()
    }
}

impl<Key> Default for Flows<Key> {
    fn default() -> Self {
        Flows(Arc::default())
    }
}

impl<Key: Copy + Eq + Hash> Flows<Key> {
    /// Gives a packet to its flow; `false` if there is none. Too many packets for one flow are lost, as on any line.
    pub(super) fn pass(&self, key: &Key, packet: &[u8]) -> bool {
        let flows = locked(&self.0);
        let flow = flows.get(key);
        flow.inspect(|flow| drop(flow.try_send(packet.to_vec()))).is_some()
    }

    /// A place for a new flow, and its packets; `None` if there are too many flows.
    pub(super) fn open(&self, key: Key) -> Option<(Place<Key>, mpsc::Receiver<Vec<u8>>)> {
        let mut flows = locked(&self.0);
        let (packets, taken) = mpsc::channel(PACKETS);
        let is_free = flows.len() < FLOWS && !flows.contains_key(&key);
        is_free.then(|| {
            let own = packets.downgrade();
            flows.insert(key, packets);
            (Place { flows: self.0.clone(), key, own }, taken)
        })
    }
}

impl<Key: Eq + Hash> Drop for Place<Key> {
    fn drop(&mut self) {
        let mut flows = locked(&self.flows);
        let is_own = |packets| self.own.upgrade().is_some_and(|own| own.same_channel(packets));
        if flows.get(&self.key).is_some_and(is_own) {
            flows.remove(&self.key);
        }
    }
}

/// What an error of the host's means for a machine; `None` says that the other end refused.
pub(super) fn reason(error: &Error) -> Option<Icmpv4DstUnreachable> {
    match error.kind() {
        ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => None,
        ErrorKind::NetworkUnreachable => Some(Icmpv4DstUnreachable::NetUnreachable),
        ErrorKind::PermissionDenied => Some(Icmpv4DstUnreachable::CommProhibited),
        _ => Some(Icmpv4DstUnreachable::HostUnreachable),
    }
}

/// The host's address that others reach it by: what listens on its loopback alone stays out of reach.
fn host_address() -> Option<Ipv4Addr> {
    let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // sends nothing: it asks which address would be used
    socket.connect((ELSEWHERE, 9)).ok()?;
    match socket.local_addr().ok()?.ip() {
        IpAddr::V4(address) if !address.is_loopback() && !address.is_unspecified() => Some(address),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}

/// An address that nobody has (RFC 5737).
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// Ports that the gateway has for flows of its own: the uppermost.
const EPHEMERAL: u16 = 16384;
