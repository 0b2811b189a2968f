//! IPv4 addresses of networks: which block a network gets, and which of its addresses a container.
//!
//! Everything here is a function of its arguments. Who has which address is decided in [`super::leases`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A block of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Subnet {
    pub(crate) address: Ipv4Addr,
    /// How many leading bits its addresses share.
    pub(crate) prefix: u8,
}

/// The addresses of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pool {
    pub(crate) subnet: Subnet,
    /// Containers that ask for no address of their own get one of these.
    pub(crate) range: Option<Subnet>,
    /// This host, as the network's members know it.
    pub(crate) gateway: Ipv4Addr,
    /// Others that nobody is given, by what the user calls them.
    pub(crate) aux: BTreeMap<String, Ipv4Addr>,
    /// A user chose it: containers may choose their addresses in it.
    pub(crate) is_chosen: bool,
}

impl Subnet {
    pub(crate) const fn new(address: Ipv4Addr, prefix: u8) -> Subnet {
        Subnet { address, prefix }
    }

    fn mask(self) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0)
    }

    /// First and last, those that no machine has included.
    fn ends(self) -> (u32, u32) {
        let first = self.address.to_bits() & self.mask();
        (first, first | !self.mask())
    }

    /// The same without what is not the block's.
    pub(crate) fn canonical(self) -> Subnet {
        Subnet { address: Ipv4Addr::from_bits(self.ends().0), ..self }
    }

    pub(crate) fn contains(self, address: Ipv4Addr) -> bool {
        let (first, last) = self.ends();
        (first..=last).contains(&address.to_bits())
    }

    pub(crate) fn overlaps(self, other: Subnet) -> bool {
        let ((first, last), (other_first, other_last)) = (self.ends(), other.ends());
        first <= other_last && other_first <= last
    }

    /// The address that docker gives the gateway.
    pub(crate) fn first(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.ends().0.saturating_add(1))
    }

    /// A machine of it can have this address.
    pub(crate) fn is_for_machines(self, address: Ipv4Addr) -> bool {
        let (first, last) = self.ends();
        let bits = address.to_bits();
        self.contains(address) && (self.prefix >= 31 || (bits != first && bits != last))
    }
}

impl FromStr for Subnet {
    type Err = String;

    fn from_str(text: &str) -> Result<Subnet, String> {
        let read = || {
            let (address, prefix) = text.split_once('/')?;
            let prefix = prefix.parse().ok().filter(|prefix| *prefix <= 32)?;
            Some(Subnet { address: address.parse().ok()?, prefix })
        };
        read().ok_or_else(|| format!("{text:?} is no block of IPv4 addresses: write it as 10.5.0.0/16"))
    }
}

impl TryFrom<String> for Subnet {
    type Error = String;

    fn try_from(text: String) -> Result<Subnet, String> {
        text.parse()
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> String {
        subnet.to_string()
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl Pool {
    /// The lowest address that nobody has.
    pub(super) fn free(&self, used: &BTreeSet<Ipv4Addr>) -> Option<Ipv4Addr> {
        let (first, last) = self.range.unwrap_or(self.subnet).ends();
        let mut all = (first..=last).map(Ipv4Addr::from_bits);
        all.find(|address| {
            self.subnet.is_for_machines(*address) && !self.is_reserved(*address) && !used.contains(address)
        })
    }

    /// Nobody is given it.
    pub(super) fn is_reserved(&self, address: Ipv4Addr) -> bool {
        address == self.gateway || self.aux.values().any(|aux| *aux == address)
    }
}

/// The block of a network for which nobody chose one: the first of docker's that overlaps with none of these.
pub(super) fn choose(taken: &[Subnet]) -> Option<Subnet> {
    let large = (17..=31).map(|second| Subnet::new(Ipv4Addr::new(172, second, 0, 0), 16));
    let small = (0..16).map(|third| Subnet::new(Ipv4Addr::new(192, 168, third * 16, 0), 20));
    large.chain(small).find(|subnet| !taken.iter().any(|other| other.overlaps(*subnet)))
}

/// Where the host has ways to: proc(5), `/proc/net/route`. The way to everywhere is none of them.
pub(super) fn routes(text: &str) -> Vec<Subnet> {
    let route = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| u32::from_str_radix(fields.get(at)?, 16).ok().map(u32::from_be);
        let (address, mask) = (number(1)?, number(7)?);
        let prefix = u8::try_from(mask.leading_ones()).ok().filter(|prefix| *prefix > 0)?;
        Some(Subnet { address: Ipv4Addr::from_bits(address), prefix })
    };
    text.lines().skip(1).filter_map(route).collect()
}

/// Docker's address of a card that has this address: nobody sells such cards, as the first byte says.
pub(crate) fn mac(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0x42, a, b, c, d]
}

/// As everybody writes it.
pub(crate) fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    fn pool(text: &str, range: Option<&str>) -> Pool {
        let subnet = subnet(text);
        let aux = [("router".to_owned(), subnet.first())].into();
        let gateway = Ipv4Addr::from_bits(subnet.first().to_bits() + 1);
        Pool { subnet, range: range.map(|range| range.parse().unwrap()), gateway, aux, is_chosen: true }
    }

    #[test]
    fn the_block_is_the_first_of_dockers_that_is_free() {
        assert_eq!(choose(&[]), Some(subnet("172.17.0.0/16")));
        assert_eq!(choose(&[subnet("172.16.0.0/14")]), Some(subnet("172.20.0.0/16")));
        assert_eq!(choose(&[subnet("172.16.0.0/12")]), Some(subnet("192.168.0.0/20")));
        assert_eq!(choose(&[subnet("172.17.5.1/32"), subnet("172.18.0.0/24")]), Some(subnet("172.19.0.0/16")));
        assert_eq!(choose(&[subnet("172.16.0.0/12"), subnet("192.168.0.0/16")]), None);
        assert_eq!(choose(&[subnet("0.0.0.0/0")]), None);
    }

    #[test]
    fn an_address_is_the_lowest_that_nobody_has() {
        let used = |all: &[&str]| all.iter().map(|text| text.parse().unwrap()).collect::<BTreeSet<Ipv4Addr>>();
        let check = |pool: &Pool, taken: &[&str], expected: Option<&str>| {
            assert_eq!(pool.free(&used(taken)), expected.map(|text| text.parse().unwrap()), "{taken:?}");
        };
        let small = pool("10.5.0.0/29", None);
        check(&small, &[], Some("10.5.0.3"));
        check(&small, &["10.5.0.3", "10.5.0.4"], Some("10.5.0.5"));
        // the last one is everybody's
        check(&small, &["10.5.0.3", "10.5.0.4", "10.5.0.5", "10.5.0.6"], None);
        let ranged = pool("10.5.0.0/16", Some("10.5.7.0/30"));
        check(&ranged, &[], Some("10.5.7.0"));
        check(&ranged, &["10.5.7.0", "10.5.7.1", "10.5.7.2", "10.5.7.3"], None);
        check(&pool("10.9.9.8/30", None), &[], None);
    }

    #[test]
    fn blocks_are_read_and_compared() {
        assert_eq!(subnet("10.5.3.1/16").canonical(), subnet("10.5.0.0/16"));
        assert!(
            subnet("10.0.0.0/8").overlaps(subnet("10.255.0.0/16"))
                && !subnet("10.0.0.0/9").overlaps(subnet("10.128.0.0/9"))
        );
        assert!(subnet("0.0.0.0/0").contains(Ipv4Addr::BROADCAST));
        for text in ["", "10.5.0.0", "10.5.0.0/33", "10.5.0/16", "fd00::/8", "10.5.0.0/x"] {
            assert!(text.parse::<Subnet>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_hosts_ways_are_read() {
        let text = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                    eth0\t00000000\t010011AC\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                    eth0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n";
        assert_eq!(routes(text), [subnet("172.17.0.0/16")]);
    }

    #[test]
    fn cards_follow_from_addresses() {
        assert_eq!(mac_text(mac(Ipv4Addr::new(172, 17, 0, 2))), "02:42:ac:11:00:02");
    }
}
