//! Telling the neighbours whose an address is now, so that nobody sends to the card that had it before: RFC 5227, section 2.3, and RFC 4861, section 7.2.6.

use std::net::{IpAddr, Ipv6Addr};

use super::packet::{BROADCAST, PacketSocket, checksum, frame};

const ETH_P_ARP: u16 = 0x0806;
const ETH_P_IPV6: u16 = 0x86dd;
const ICMPV6: u8 = 58;

/// Announces an address on the interface with that number and hardware address. Whoever misses it asks.
pub fn announce(index: u32, mac: [u8; 6], address: IpAddr) -> nix::Result<()> {
    let frame = match address {
        IpAddr::V4(address) => arp(mac, address.octets()),
        IpAddr::V6(address) => advertisement(mac, address),
    };
    PacketSocket::sender(index)?.send(&frame)
}

/// A question for an address by its owner.
fn arp(mac: [u8; 6], address: [u8; 4]) -> Vec<u8> {
    // Ethernet, IPv4, lengths of their addresses, a question
    const HEAD: [u8; 8] = [0, 1, 8, 0, 6, 4, 0, 1];
    frame(BROADCAST, mac, ETH_P_ARP, &[&HEAD, &mac, &address, &[0; 6], &address])
}

/// An unsolicited neighbour advertisement to all nodes, which overrides what they know.
fn advertisement(mac: [u8; 6], address: Ipv6Addr) -> Vec<u8> {
    const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
    const OVERRIDE: u8 = 0x20;
    let mut message = vec![136, 0, 0, 0, OVERRIDE, 0, 0, 0];
    message.extend(address.octets());
    // the target's hardware address, in units of 8 bytes
    message.extend([2, 1]);
    message.extend(mac);
    let length = u8::try_from(message.len()).unwrap_or_default();
    let (from, to) = (address.octets(), ALL_NODES.octets());
    let sum = checksum(&[&from, &to, &[0, 0, 0, length, 0, 0, 0, ICMPV6], &message]);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    // it counts only with the highest hop limit: it has passed no router
    let head = [0x60, 0, 0, 0, 0, length, ICMPV6, 255];
    frame(ALL_NODES_MAC, mac, ETH_P_IPV6, &[&head, &from, &to, &message])
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

    #[test]
    fn an_arp_announcement_asks_for_its_own_address() {
        let frame = arp(MAC, [10, 0, 0, 2]);
        let expected: &[&[u8]] =
            &[&[0xff; 6], &MAC, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &MAC, &[10, 0, 0, 2, 0, 0, 0, 0, 0, 0, 10, 0, 0, 2]];
        assert_eq!(frame, expected.concat());
    }

    #[test]
    fn a_neighbour_advertisement_has_a_right_sum() {
        let address: Ipv6Addr = "fd00::2".parse().unwrap();
        let frame = advertisement(MAC, address);
        assert_eq!(frame.len(), 14 + 40 + 32);
        let (from, to, message) = (&frame[22..38], &frame[38..54], &frame[54..]);
        assert_eq!(checksum(&[from, to, &[0, 0, 0, 32, 0, 0, 0, 58], message]), 0);
        assert_eq!((frame[21], message[0], message[4], &message[8..24]), (255, 136, 0x20, &address.octets()[..]));
    }
}
