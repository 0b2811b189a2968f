//! Which frames a machine may send: those from its own addresses, and of protocols that the network carries.
//!
//! A machine is a stranger: with another's address it would get what is meant for that one. What becomes of an admitted frame: [`super::ports`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smoltcp::wire::{EthernetFrame, EthernetProtocol, Ipv4Packet};

/// An Ethernet address.
pub(crate) type Mac = [u8; 6];

/// Whom a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum To {
    One(Mac),
    /// Broadcast and multicast.
    All,
}

/// Who may send, and as whom.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    pub(super) mac: Mac,
    pub(super) addresses: Vec<IpAddr>,
}

impl Guard {
    /// Whom the frame is for; `None` if this machine may not send it.
    pub(super) fn admit(&self, frame: &[u8]) -> Option<To> {
        let ethernet = EthernetFrame::new_checked(frame).ok()?;
        let payload = ethernet.payload();
        let own = match ethernet.ethertype() {
            EthernetProtocol::Arp => self.may_send_arp(payload),
            EthernetProtocol::Ipv4 => {
                Ipv4Packet::new_checked(payload).is_ok_and(|packet| self.has(packet.src_addr().into()))
            }
            EthernetProtocol::Ipv6 => self.may_send_ipv6(payload),
            EthernetProtocol::Unknown(_) => false,
        };
        if !own || ethernet.src_addr().0 != self.mac {
            return None;
        }
        let to = ethernet.dst_addr();
        Some(if to.is_unicast() { To::One(to.0) } else { To::All })
    }

    fn has(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address)
    }

    /// What it says about who it is; no address at all is a probe whether one is taken (RFC 5227).
    fn may_send_arp(&self, payload: &[u8]) -> bool {
        // Ethernet and IPv4, with the lengths of their addresses
        let Some((&[0, 1, 8, 0, 6, 4, _, _], rest)) = payload.split_first_chunk() else { return false };
        let Some((mac, rest)) = rest.split_first_chunk::<6>() else { return false };
        let Some((&address, rest)) = rest.split_first_chunk::<4>() else { return false };
        let address = Ipv4Addr::from(address);
        *mac == self.mac && (address.is_unspecified() || self.has(address.into())) && rest.len() >= 10
    }

    /// Its own addresses, the one that its kernel makes of the MAC address, or none while that is being tried.
    fn may_send_ipv6(&self, payload: &[u8]) -> bool {
        let Some((header, rest)) = payload.split_first_chunk::<40>() else { return false };
        let field = |from: usize| <[u8; 16]>::try_from(&header[from..from + 16]).map(Ipv6Addr::from);
        let Ok(source) = field(8) else { return false };
        let is_own = |address: Ipv6Addr| address == link_local(self.mac) || self.has(address.into());
        let advertised = match (header[6], rest) {
            // a neighbour's advertisement tells whose its target is, whoever sends it
            (ICMPV6, [NEIGHBOUR_ADVERTISEMENT, _, _, _, _, _, _, _, target @ ..]) => {
                target.first_chunk::<16>().map(|&target| Ipv6Addr::from(target))
            }
            // hidden behind extension headers, it cannot be judged; kernels send it plainly
            (HOP_BY_HOP, [ICMPV6, 0, _, _, _, _, _, _, kind, ..])
                if *kind >= ROUTER_SOLICITATION && *kind <= REDIRECT =>
            {
                return false;
            }
            // nobody here routes IPv6 but the host
            (ICMPV6, [ROUTER_ADVERTISEMENT | REDIRECT, ..]) => return false,
            (ROUTING | FRAGMENT | DESTINATION_OPTIONS, _) => return false,
            _ => None,
        };
        header[0] >> 4 == 6 && (is_own(source) || source.is_unspecified()) && advertised.is_none_or(is_own)
    }
}

/// The address that a kernel makes of a MAC address (RFC 4291, appendix A).
fn link_local([a, b, c, d, e, f]: Mac) -> Ipv6Addr {
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const ICMPV6: u8 = 58;
const DESTINATION_OPTIONS: u8 = 60;
const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;
