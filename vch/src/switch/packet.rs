//! IPv4 packets in Ethernet frames, as the gateway sends them: it writes headers and cuts what is larger than the network takes.

use std::net::{Ipv4Addr, SocketAddrV4};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    IPV4_HEADER_LEN, Icmpv4DstUnreachable, Icmpv4Packet, Icmpv4Repr, IpProtocol, Ipv4Packet, Ipv4Repr, TcpControl,
    TcpPacket, TcpRepr, UDP_HEADER_LEN, UdpPacket, UdpRepr,
};

use super::guard::Mac;

pub(super) const ETHERNET_HEADER: usize = 14;
const IPV4: [u8; 2] = [0x08, 0];
const ARP: [u8; 2] = [0x08, 0x06];
const TTL: u8 = 64;

/// A packet without its Ethernet header.
#[derive(Debug)]
pub(super) struct Ipv4 {
    pub(super) from: Ipv4Addr,
    pub(super) to: Ipv4Addr,
    pub(super) protocol: IpProtocol,
    pub(super) payload: Vec<u8>,
}

/// The two ends of a flow: a machine's, and one that the gateway stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Pair {
    pub(super) machine: SocketAddrV4,
    pub(super) far: SocketAddrV4,
}

/// Writes the header of a frame that carries IPv4.
pub(super) fn head(frame: &mut Vec<u8>, to: Mac, from: Mac) {
    frame.clear();
    frame.extend_from_slice(&to);
    frame.extend_from_slice(&from);
    frame.extend_from_slice(&IPV4);
}

impl Ipv4 {
    /// A datagram from the far end to the machine.
    pub(super) fn udp(pair: Pair, data: &[u8]) -> Ipv4 {
        let mut payload = vec![0; UDP_HEADER_LEN + data.len()];
        let repr = UdpRepr { src_port: pair.far.port(), dst_port: pair.machine.port() };
        let (from, to) = (*pair.far.ip(), *pair.machine.ip());
        let mut packet = UdpPacket::new_unchecked(&mut payload[..]);
        let fill = |room: &mut [u8]| room.copy_from_slice(data);
        repr.emit(&mut packet, &from.into(), &to.into(), data.len(), fill, &ChecksumCapabilities::default());
        Ipv4 { from, to, protocol: IpProtocol::Udp, payload }
    }

    /// What a gateway says to `original`, which goes nowhere.
    pub(super) fn unreachable(from: Ipv4Addr, original: &[u8], reason: Icmpv4DstUnreachable) -> Option<Ipv4> {
        let packet = Ipv4Packet::new_checked(original).ok()?;
        let header = Ipv4Repr {
            src_addr: packet.src_addr(),
            dst_addr: packet.dst_addr(),
            next_header: packet.next_header(),
            payload_len: packet.payload().len(),
            hop_limit: packet.hop_limit(),
        };
        let data = &packet.payload()[..packet.payload().len().min(8)];
        Some(Ipv4::icmp(from, packet.src_addr(), &Icmpv4Repr::DstUnreachable { reason, header, data }))
    }

    pub(super) fn icmp(from: Ipv4Addr, to: Ipv4Addr, message: &Icmpv4Repr<'_>) -> Ipv4 {
        let mut payload = vec![0; message.buffer_len()];
        message.emit(&mut Icmpv4Packet::new_unchecked(&mut payload[..]), &ChecksumCapabilities::default());
        Ipv4 { from, to, protocol: IpProtocol::Icmp, payload }
    }

    /// The answer to a segment that belongs to no connection (RFC 9293, 3.10.7.1); none to a reset.
    pub(super) fn reset(pair: Pair, segment: &TcpPacket<&[u8]>) -> Option<Ipv4> {
        if segment.rst() {
            return None;
        }
        let next = segment.seq_number() + segment.segment_len();
        let (seq_number, ack_number) = match segment.ack() {
            true => (segment.ack_number(), None),
            false => (Default::default(), Some(next)),
        };
        let repr = TcpRepr {
            src_port: pair.far.port(),
            dst_port: pair.machine.port(),
            control: TcpControl::Rst,
            seq_number,
            ack_number,
            window_len: 0,
            window_scale: None,
            max_seg_size: None,
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: None,
            payload: &[],
        };
        let (from, to) = (*pair.far.ip(), *pair.machine.ip());
        let mut payload = vec![0; repr.buffer_len()];
        let mut packet = TcpPacket::new_unchecked(&mut payload[..]);
        repr.emit(&mut packet, &from.into(), &to.into(), &ChecksumCapabilities::default());
        Some(Ipv4 { from, to, protocol: IpProtocol::Tcp, payload })
    }

    /// The frames that carry it, none with more than `mtu` bytes of IPv4. `ident` tells its pieces from those of others.
    pub(super) fn frames(&self, to: Mac, from: Mac, mtu: u16, ident: u16) -> Vec<Vec<u8>> {
        // pieces begin at multiples of 8
        let room = (usize::from(mtu).saturating_sub(IPV4_HEADER_LEN) / 8 * 8).max(8);
        let whole = self.payload.len() + IPV4_HEADER_LEN <= usize::from(mtu);
        let size = if whole { self.payload.len().max(1) } else { room };
        let mut offset = 0;
        let mut frames = Vec::new();
        loop {
            let piece = &self.payload[offset..self.payload.len().min(offset + size)];
            let mut frame = Vec::with_capacity(ETHERNET_HEADER + IPV4_HEADER_LEN + piece.len());
            head(&mut frame, to, from);
            frame.resize(ETHERNET_HEADER + IPV4_HEADER_LEN, 0);
            frame.extend_from_slice(piece);
            let header = Ipv4Repr {
                src_addr: self.from,
                dst_addr: self.to,
                next_header: self.protocol,
                payload_len: piece.len(),
                hop_limit: TTL,
            };
            let mut packet = Ipv4Packet::new_unchecked(&mut frame[ETHERNET_HEADER..]);
            header.emit(&mut packet, &ChecksumCapabilities::ignored());
            let end = offset + piece.len();
            packet.set_ident(ident);
            packet.set_dont_frag(whole);
            packet.set_more_frags(end < self.payload.len());
            // a packet is 64 KiB at most, and so is an offset in it
            packet.set_frag_offset(u16::try_from(offset).unwrap_or(u16::MAX));
            packet.fill_checksum();
            frames.push(frame);
            offset = end;
            if offset >= self.payload.len() {
                return frames;
            }
        }
    }
}

/// The frame that answers a question by ARP for `address`, which has `mac`; `None` if `question` is another.
pub(super) fn arp_answer(question: &[u8], mac: Mac, address: Ipv4Addr) -> Option<Vec<u8>> {
    let (&[0, 1, 8, 0, 6, 4, 0, 1], rest) = question.split_first_chunk()? else { return None };
    let (asking, rest) = rest.split_first_chunk::<10>()?;
    let target = rest.get(6..10)?;
    let to = &asking[..6];
    let reply = || [to, &mac, &ARP, &[0, 1, 8, 0, 6, 4, 0, 2], &mac, &address.octets(), asking].concat();
    (target == address.octets()).then(reply)
}
