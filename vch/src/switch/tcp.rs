//! Connections of machines: which of the host's connections they become, and what a machine is told where none is made.
//!
//! The host connects first: a machine gets its answer from the other end, not from here. How bytes are carried: [`flow`].

mod flow;
mod stack;

use std::net::{SocketAddr, SocketAddrV4};
use std::sync::Arc;

use smoltcp::wire::{Ipv4Packet, TcpPacket};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use self::flow::Flow;
use self::stack::Stack;
use super::dns;
use super::gateway::{Gateway, Leads, reason};
use super::packet::{Ipv4, Pair};

/// A segment of a machine's. `packet` is all of it, with the header of IPv4.
pub(super) fn take(gateway: &Arc<Gateway>, pair: Pair, segment: &TcpPacket<&[u8]>, packet: &[u8]) {
    if gateway.tcp.pass(&pair, packet) {
        return;
    }
    if !segment.syn() || segment.ack() || segment.rst() {
        // of a connection that an earlier program had
        return refuse(gateway, pair, segment);
    }
    let names = pair.far == SocketAddrV4::new(gateway.address, dns::PORT);
    let leads = if names { Leads::To(gateway.address) } else { gateway.leads(*pair.far.ip()) };
    let to = match leads {
        Leads::To(address) => SocketAddrV4::new(address, pair.far.port()),
        Leads::Nowhere(_) if *pair.far.ip() == gateway.address => return refuse(gateway, pair, segment),
        Leads::Nowhere(reason) => return gateway.refuse(packet, reason),
    };
    // at once: the machine may ask again before the task has its turn
    let Some((place, packets)) = gateway.tcp.open(pair) else { return refuse(gateway, pair, segment) };
    let (gateway, first) = (gateway.clone(), packet.to_vec());
    tokio::spawn(async move {
        if names {
            let (far, service) = tokio::io::duplex(DNS_BUFFER);
            let Some(stack) = Stack::accept(&gateway, pair, first) else { return };
            let serve = dns::serve_stream(&gateway.settings, pair.machine, service);
            tokio::join!(Flow::new(stack, packets, far).run(), serve);
        } else {
            outward(&gateway, pair, to, packets, first).await;
        }
        drop(place);
    });
}

/// Connects to where a machine wants to go, and carries the connection.
async fn outward(
    gateway: &Gateway,
    pair: Pair,
    to: SocketAddrV4,
    mut packets: mpsc::Receiver<Vec<u8>>,
    first: Vec<u8>,
) {
    let connect = TcpStream::connect(SocketAddr::from(to));
    tokio::pin!(connect);
    let connected = loop {
        tokio::select! {
            connected = &mut connect => break connected,
            packet = packets.recv() => match packet {
                // it asks again: it is being asked for
                Some(packet) if !is_reset(&packet) => (),
                // it has given up, or is gone
                Some(_) | None => return,
            },
        }
    };
    match connected {
        Ok(stream) => {
            // what comes in pieces goes on in pieces
            stream.set_nodelay(true).ok();
            let Some(stack) = Stack::accept(gateway, pair, first) else { return };
            Flow::new(stack, packets, stream).run().await;
        }
        Err(error) => match reason(&error) {
            None => refuse_packet(gateway, pair, &first),
            Some(reason) => gateway.refuse(&first, reason),
        },
    }
}

/// Takes connections to a port of the host, and leads them to a machine, for ever.
pub(super) async fn publish(gateway: Arc<Gateway>, listener: TcpListener, to: SocketAddrV4) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // no file descriptor is left: one will be closed
            tokio::time::sleep(AFTER_ERROR).await;
            continue;
        };
        stream.set_nodelay(true).ok();
        let gateway = gateway.clone();
        tokio::spawn(async move {
            let pair = gateway.own_port(&gateway.tcp, to);
            let opened = pair.and_then(|pair| Some((pair, gateway.tcp.open(pair)?)));
            let stack = opened.and_then(|(pair, place)| Some((Stack::connect(&gateway, pair)?, place)));
            match stack {
                Some((stack, (_place, packets))) => Flow::new(stack, packets, stream).run().await,
                // the machine is not there
                None => flow::Far::reset(&stream),
            }
        });
    }
}

fn is_reset(packet: &[u8]) -> bool {
    let packet = Ipv4Packet::new_checked(packet).ok();
    packet.is_some_and(|packet| TcpPacket::new_checked(packet.payload()).is_ok_and(|segment| segment.rst()))
}

fn refuse_packet(gateway: &Gateway, pair: Pair, packet: &[u8]) {
    if let Ok(packet) = Ipv4Packet::new_checked(packet)
        && let Ok(segment) = TcpPacket::new_checked(packet.payload())
    {
        refuse(gateway, pair, &segment);
    }
}

fn refuse(gateway: &Gateway, pair: Pair, segment: &TcpPacket<&[u8]>) {
    if let Some(answer) = Ipv4::reset(pair, segment) {
        gateway.send(&answer);
    }
}

/// Bytes on their way to and from the service of names.
const DNS_BUFFER: usize = 4096;
const AFTER_ERROR: std::time::Duration = std::time::Duration::from_millis(100);
