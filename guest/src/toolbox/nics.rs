//! Network cards as vCenter takes them: XDR (RFC 4506) of open-vm-tools' lib/guestRpc/nicinfo.x, version 3.
//!
//! Of the optional parts only what vCenter shows is told: addresses with the length of their prefix. Routes and name servers are left out.

use std::net::IpAddr;

use wire::status::EndpointStatus;

/// nicinfo.x: `NICINFO_MAX_NICS`. More are not told.
const MOST_NICS: usize = 16;
/// Of one card: so many of each fit into one message whatever they are (nicinfo.x would let 2048 be).
const MOST_ADDRESSES: usize = 64;
/// nicinfo.x: `IAS_PREFERRED`.
const PREFERRED: u32 = 1;

/// A card, and the addresses of all networks on it.
struct Nic<'a> {
    mac: &'a str,
    addresses: Vec<(IpAddr, u32)>,
}

/// `GuestNicInfo`.
pub(super) fn encode(networks: &[EndpointStatus]) -> Vec<u8> {
    let nics = nics(networks);
    let mut out = Vec::new();
    // its version, and that there is one
    put(&mut out, &[3, 1]);
    count(&mut out, nics.len());
    for Nic { mac, addresses } in &nics {
        opaque(&mut out, mac.as_bytes());
        count(&mut out, addresses.len());
        for (address, length) in addresses {
            match address {
                IpAddr::V4(address) => {
                    put(&mut out, &[1]);
                    opaque(&mut out, &address.octets());
                }
                IpAddr::V6(address) => {
                    put(&mut out, &[2]);
                    opaque(&mut out, &address.octets());
                }
            }
            // no origin; a status
            put(&mut out, &[*length, 0, 1, PREFERRED]);
        }
        // no DNS, WINS, DHCP for IPv4 nor for IPv6
        put(&mut out, &[0; 4]);
    }
    // no routes, and again none of the four
    put(&mut out, &[0; 5]);
    out
}

/// The address by which the machine is known: the first of IPv4's, else the first.
pub(super) fn primary(networks: &[EndpointStatus]) -> Option<IpAddr> {
    let all = || networks.iter().flat_map(addresses).map(|(address, _)| address);
    all().find(IpAddr::is_ipv4).or_else(|| all().next())
}

fn nics(networks: &[EndpointStatus]) -> Vec<Nic<'_>> {
    let mut nics: Vec<Nic<'_>> = Vec::new();
    for network in networks {
        let at = nics.iter().position(|nic| nic.mac == network.mac).unwrap_or(nics.len());
        if at == MOST_NICS {
            continue;
        }
        if at == nics.len() {
            nics.push(Nic { mac: &network.mac, addresses: Vec::new() });
        }
        nics[at].addresses.extend(addresses(network));
        nics[at].addresses.truncate(MOST_ADDRESSES);
    }
    nics
}

/// They are told as text, with the length of the prefix.
fn addresses(network: &EndpointStatus) -> impl Iterator<Item = (IpAddr, u32)> {
    network.addresses.iter().filter_map(|text| {
        let (address, length) = text.split_once('/')?;
        Some((address.parse().ok()?, length.parse().ok()?))
    })
}

fn put(out: &mut Vec<u8>, numbers: &[u32]) {
    numbers.iter().for_each(|number| out.extend_from_slice(&number.to_be_bytes()));
}

fn count(out: &mut Vec<u8>, count: usize) {
    put(out, &[u32::try_from(count).unwrap_or_default()]);
}

/// Its length, and then its bytes, filled up to a multiple of four.
fn opaque(out: &mut Vec<u8>, bytes: &[u8]) {
    count(out, bytes.len());
    out.extend_from_slice(bytes);
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(mac: &str, addresses: &[&str]) -> EndpointStatus {
        let addresses = addresses.iter().map(|&text| text.into()).collect();
        EndpointStatus { mac: mac.into(), addresses, ..EndpointStatus::default() }
    }

    fn hex(bytes: &[u8]) -> String {
        let word = |word: &[u8]| word.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        bytes.chunks(4).map(word).collect::<Vec<_>>().join(" ")
    }

    /// As nicinfo.x has it, by hand.
    #[test]
    fn golden_cards() {
        let networks = [
            network("52:54:00:00:00:01", &["10.0.2.15/24"]),
            network("52:54:00:00:00:02", &[]),
            network("52:54:00:00:00:01", &["fd00::2/64", "none", "1.2.3/8"]),
        ];
        let expected = "00000003 00000001 00000002 \
            00000011 35323a35 343a3030 3a30303a 30303a30 31000000 00000002 \
            00000001 00000004 0a00020f 00000018 00000000 00000001 00000001 \
            00000002 00000010 fd000000 00000000 00000000 00000002 00000040 00000000 00000001 00000001 \
            00000000 00000000 00000000 00000000 \
            00000011 35323a35 343a3030 3a30303a 30303a30 32000000 00000000 \
            00000000 00000000 00000000 00000000 \
            00000000 00000000 00000000 00000000 00000000";
        assert_eq!(hex(&encode(&networks)), expected);
        assert_eq!(hex(&encode(&[])), "00000003 00000001 00000000 00000000 00000000 00000000 00000000 00000000");
    }

    #[test]
    fn no_number_of_cards_and_addresses_is_too_many() {
        let many: Vec<String> = (0..300).map(|at| format!("fd00::{at:x}/64")).collect();
        let texts: Vec<&str> = many.iter().map(String::as_str).collect();
        let networks: Vec<EndpointStatus> =
            (0..40).map(|at| network(&format!("52:54:00:00:00:{at:02x}"), &texts)).collect();
        let bytes = encode(&networks);
        assert_eq!(bytes[8..12], [0, 0, 0, 16]);
        let card = 4 + 20 + 4 + 64 * (8 + 16 + 16) + 16;
        assert_eq!(bytes.len(), 12 + 16 * card + 20);
        assert!(bytes.len() < crate::vmware::MOST_SENT);
    }

    #[test]
    fn a_machine_is_known_by_an_address_of_version_4_if_it_has_one() {
        let primary = |addresses: &[&[&str]]| {
            let networks: Vec<EndpointStatus> = addresses.iter().map(|texts| network("m", texts)).collect();
            super::primary(&networks).map(|address| address.to_string())
        };
        assert_eq!(primary(&[&["fd00::2/64"], &["10.0.0.5/8", "10.0.0.6/8"]]).as_deref(), Some("10.0.0.5"));
        assert_eq!(primary(&[&[], &["fd00::2/64"]]).as_deref(), Some("fd00::2"));
        assert_eq!(primary(&[]), None);
    }
}
