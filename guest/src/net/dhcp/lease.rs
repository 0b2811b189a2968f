//! What an answer gives a client, and whether it can be true. A lie is refused with its name; what is only odd is left out.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use wire::spec::{Prefix, Route};

use super::message::{Answer, DNS, DOMAIN, LEASE_TIME, MASK, MTU, ROUTERS, ROUTES, SEARCH, SERVER, T1, T2};

/// What a server gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    pub server: Ipv4Addr,
    pub own: Prefix,
    /// The way to everywhere.
    pub gateway: Option<Ipv4Addr>,
    pub routes: Vec<Route>,
    pub dns: Vec<IpAddr>,
    pub search: Vec<String>,
    /// The largest packet, in bytes.
    pub mtu: Option<u32>,
}

/// When what must be done to keep a lease, counted from when it was asked for. None is never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Times {
    pub(super) renew: Duration,
    pub(super) rebind: Duration,
    pub(super) end: Duration,
}

/// How long a lease lasts that has no end: longer than any machine.
const FOR_EVER: Duration = Duration::from_secs(u32::MAX as u64 * 100);

impl Lease {
    /// What is wrong with an answer is a phrase behind "it has".
    pub(super) fn read(answer: &Answer) -> Result<Lease, &'static str> {
        let server = answer.address(SERVER).filter(|&server| is_host(server)).ok_or("no server's address")?;
        let address = answer.address;
        if !is_host(address) {
            return Err("an address that no machine can have");
        }
        let length = match answer.options.get(&MASK) {
            // as before there were masks: RFC 950
            None => [8, 8, 8, 8, 16, 16, 24, 24][usize::from(address.octets()[0] >> 5)],
            Some(_) => {
                let mask = answer.address(MASK).ok_or("a mask that is not 4 bytes long")?.to_bits();
                if mask == 0 || mask.leading_ones() != mask.count_ones() {
                    return Err("a mask that is none");
                }
                u8::try_from(mask.leading_ones()).unwrap_or(32)
            }
        };
        let host_bits = u32::MAX.checked_shr(length.into()).unwrap_or(0);
        if length < 31 && [0, host_bits].contains(&(address.to_bits() & host_bits)) {
            return Err("an address that is its network's own or its broadcast's");
        }
        if answer.number(LEASE_TIME).unwrap_or(0) == 0 {
            return Err("no time for which the address is given");
        }
        let mut routes = match answer.options.get(&ROUTES) {
            Some(value) => classless(value).ok_or("routes whose lengths lie")?,
            None => Vec::new(),
        };
        let usable = |gateway: &Ipv4Addr| is_host(*gateway) && *gateway != address;
        routes.retain(|route| match route.gateway {
            Some(IpAddr::V4(gateway)) => usable(&gateway),
            _ => true,
        });
        let everywhere = |route: &Route| route.destination.length == 0;
        let gateway = match answer.options.contains_key(&ROUTES) {
            // it takes the place of the routers: RFC 3442
            true => routes.iter().find(|route| everywhere(route)).and_then(|route| match route.gateway? {
                IpAddr::V4(gateway) => Some(gateway),
                IpAddr::V6(_) => None,
            }),
            false => answer.addresses(ROUTERS).into_iter().find(usable),
        };
        routes.retain(|route| !everywhere(route));
        let mtu = answer.options.get(&MTU).and_then(|value| <[u8; 2]>::try_from(&value[..]).ok());
        let domain = || answer.options.get(&DOMAIN).and_then(|text| name(text)).into_iter().collect();
        Ok(Lease {
            server,
            own: Prefix { address: address.into(), length },
            gateway,
            routes,
            dns: answer
                .addresses(DNS)
                .into_iter()
                .filter(|&server| is_host(server) || server.is_loopback())
                .map(IpAddr::V4)
                .collect(),
            search: answer.options.get(&SEARCH).and_then(|value| search(value)).unwrap_or_else(domain),
            // RFC 2132 allows less; a machine that hears it of a server has been lied to
            mtu: mtu.map(|mtu| u32::from(u16::from_be_bytes(mtu))).filter(|&mtu| mtu >= 576),
        })
    }
}

impl Times {
    /// RFC 2131, 4.4.5: half and seven eighths of the time, where the server says nothing that makes sense. Nobody renews twice in a second.
    pub(super) fn read(answer: &Answer) -> Times {
        let seconds = |code| answer.number(code).map(|seconds| Duration::from_secs(seconds.into()));
        if answer.number(LEASE_TIME) == Some(u32::MAX) {
            return Times { renew: FOR_EVER, rebind: FOR_EVER, end: FOR_EVER };
        }
        let end = seconds(LEASE_TIME).unwrap_or_default().max(Duration::from_secs(4));
        let rebind = seconds(T2).filter(|&rebind| rebind < end && !rebind.is_zero()).unwrap_or(end * 7 / 8);
        let renew = seconds(T1).filter(|&renew| renew < rebind && !renew.is_zero());
        Times { renew: renew.unwrap_or((end / 2).min(rebind)), rebind, end }
    }
}

/// An address of one machine.
fn is_host(address: Ipv4Addr) -> bool {
    let [first, ..] = address.octets();
    // network 0, loopback, multicast and what was never given out, the broadcast address among it
    first != 0 && first != 127 && first < 224
}

/// RFC 3442: the length of a prefix, as many of its bytes as it needs, and a router; 0.0.0.0 means that they are on the network itself.
fn classless(mut bytes: &[u8]) -> Option<Vec<Route>> {
    let mut routes = Vec::new();
    while let Some((&length, rest)) = bytes.split_first() {
        let significant = usize::from(length).div_ceil(8);
        let (prefix, rest) = rest.split_at_checked(significant).filter(|_| length <= 32)?;
        let (router, rest) = rest.split_first_chunk::<4>()?;
        let mut octets = [0; 4];
        octets[..significant].copy_from_slice(prefix);
        let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
        let address = IpAddr::V4((u32::from_be_bytes(octets) & mask).into());
        let gateway = Some(IpAddr::V4(Ipv4Addr::from(*router))).filter(|router| !router.is_unspecified());
        routes.push(Route { destination: Prefix { address, length }, gateway });
        bytes = rest;
    }
    Some(routes)
}

/// RFC 3397: names as DNS writes them, with pointers back into the option. None when it lies.
fn search(bytes: &[u8]) -> Option<Vec<String>> {
    let mut names = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let (mut labels, mut next, mut behind) = (Vec::new(), at, None);
        loop {
            match *bytes.get(next)? {
                0 => break at = behind.unwrap_or(next + 1),
                length @ 1..=63 => {
                    labels.push(bytes.get(next + 1..next + 1 + usize::from(length))?);
                    next += 1 + usize::from(length);
                }
                high @ 0xc0.. => {
                    let target = usize::from(high & 0x3f) << 8 | usize::from(*bytes.get(next + 1)?);
                    behind = behind.or(Some(next + 2));
                    // only back, so that it comes to an end
                    next = Some(target).filter(|&target| target < next)?;
                }
                _ => return None,
            }
            if labels.len() > 127 {
                return None;
            }
        }
        names.push(name(&labels.join(&b'.'))?);
    }
    Some(names)
}

/// A domain's name as one word of resolv.conf(5): nothing of a server's becomes a line of its own there.
fn name(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?.trim_end_matches(['\0', '.']);
    let sound = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    (sound && !text.is_empty() && text.len() <= 253).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::dhcp::message::ACK;

    /// A sound answer, with these options in place of its own; an empty value removes one.
    fn answer(address: [u8; 4], options: &[(u8, &[u8])]) -> Answer {
        let sound: [(u8, &[u8]); 3] =
            [(MASK, &[255, 255, 255, 0]), (LEASE_TIME, &[0, 0, 14, 16]), (SERVER, &[10, 0, 0, 1])];
        let mut all: std::collections::BTreeMap<u8, Vec<u8>> =
            sound.iter().chain(options).map(|(code, value)| (*code, value.to_vec())).collect();
        all.retain(|_, value| !value.is_empty());
        Answer { kind: ACK, xid: 1, address: address.into(), options: all }
    }

    fn read(options: &[(u8, &[u8])]) -> Lease {
        Lease::read(&answer([10, 0, 0, 5], options)).unwrap()
    }

    #[test]
    fn everything_that_a_server_can_say_is_heard() {
        let lease = read(&[
            (ROUTERS, &[10, 0, 0, 5, 10, 0, 0, 254]),
            (DNS, &[10, 0, 0, 3, 255, 255, 255, 255, 10, 0, 0, 4]),
            (DOMAIN, b"example.org\0"),
            (MTU, &[5, 120]),
        ]);
        assert_eq!(lease.own, Prefix { address: IpAddr::from([10, 0, 0, 5]), length: 24 });
        assert_eq!(lease.gateway, Some(Ipv4Addr::new(10, 0, 0, 254)), "not the client itself");
        assert_eq!(lease.dns, [IpAddr::from([10, 0, 0, 3]), IpAddr::from([10, 0, 0, 4])]);
        assert_eq!((lease.search, lease.mtu, lease.routes), (vec!["example.org".to_owned()], Some(1400), vec![]));
        assert_eq!(read(&[(MASK, &[])]).own.length, 8, "without a mask, that of its class");
        assert_eq!(read(&[(MTU, &[0, 68])]).mtu, None);
        assert_eq!(read(&[(DNS, &[10, 0, 0])]).dns, [] as [IpAddr; 0]);
        assert_eq!(read(&[(MASK, &[255; 4])]).own.length, 32);
    }

    #[test]
    fn routes_take_the_place_of_routers() {
        let route = |address: [u8; 4], length, gateway: Option<[u8; 4]>| Route {
            destination: Prefix { address: IpAddr::from(address), length },
            gateway: gateway.map(IpAddr::from),
        };
        // 192.168.0.0/17 with stray bits, everywhere, on the network, through the client itself
        let value = [17, 192, 168, 127, 10, 0, 0, 9, 0, 10, 0, 0, 2, 8, 11, 0, 0, 0, 0, 24, 12, 0, 0, 10, 0, 0, 5];
        let lease = read(&[(ROUTES, &value), (ROUTERS, &[10, 0, 0, 1])]);
        assert_eq!(lease.gateway, Some(Ipv4Addr::new(10, 0, 0, 2)));
        assert_eq!(lease.routes, [route([192, 168, 0, 0], 17, Some([10, 0, 0, 9])), route([11, 0, 0, 0], 8, None)]);
        assert_eq!(read(&[(ROUTES, &[8, 11, 10, 0, 0, 2]), (ROUTERS, &[10, 0, 0, 1])]).gateway, None);
    }

    #[test]
    fn a_search_list_is_unpacked() {
        let value =
            [3, b'e', b'n', b'g', 5, b'a', b'p', b'p', b'l', b'e', 3, b'c', b'o', b'm', 0, 2, b'm', b'k', 0xc0, 4];
        assert_eq!(read(&[(SEARCH, &value), (DOMAIN, b"x")]).search, ["eng.apple.com", "mk.apple.com"]);
        // pointers to themselves and ahead, lengths that lie, words that are none
        for lie in [
            &[0xc0, 0][..],
            &[1, b'a', 0xc0, 4, 0],
            &[5, b'a'],
            &[1, b'a'],
            &[0x80, 0],
            &[1, b'\n', 0],
            &[1, 0xff, 0],
            &[0],
        ] {
            assert_eq!(read(&[(SEARCH, lie)]).search, [] as [&str; 0], "{lie:?}");
        }
        assert_eq!(read(&[(DOMAIN, b"a\nnameserver 6.6.6.6")]).search, [] as [&str; 0]);
    }

    #[test]
    fn lies_are_refused_by_name() {
        let check = |address: [u8; 4], options: &[(u8, &[u8])], part: &str| {
            let reason = Lease::read(&answer(address, options)).expect_err(part);
            assert!(reason.contains(part), "{reason}");
        };
        for address in
            [[0, 0, 0, 0], [255, 255, 255, 255], [224, 0, 0, 1], [127, 0, 0, 1], [240, 0, 0, 1], [0, 1, 2, 3]]
        {
            check(address, &[], "no machine can have");
        }
        for mask in [[0, 0, 0, 0], [255, 0, 255, 0], [0, 255, 255, 255]] {
            check([10, 0, 0, 5], &[(MASK, &mask)], "a mask that is none");
        }
        check([10, 0, 0, 5], &[(MASK, &[255, 255])], "not 4 bytes");
        check([10, 0, 0, 0], &[], "its network's own");
        check([10, 0, 0, 255], &[], "broadcast");
        check([10, 0, 0, 5], &[(LEASE_TIME, &[0; 4])], "no time");
        check([10, 0, 0, 5], &[(LEASE_TIME, &[])], "no time");
        check([10, 0, 0, 5], &[(LEASE_TIME, &[1])], "no time");
        check([10, 0, 0, 5], &[(SERVER, &[])], "no server");
        check([10, 0, 0, 5], &[(SERVER, &[0; 4])], "no server");
        for routes in [&[33, 1, 2, 3, 4, 5, 10, 0, 0, 1][..], &[24, 10, 0], &[8, 10, 1, 2, 3], &[0]] {
            check([10, 0, 0, 5], &[(ROUTES, routes)], "routes whose lengths lie");
        }
    }

    #[test]
    fn times_make_sense_or_are_the_usual_ones() {
        let check = |options: &[(u8, u32)], expected: [u64; 3]| {
            let options: Vec<_> = options.iter().map(|&(code, value)| (code, value.to_be_bytes())).collect();
            let options: Vec<(u8, &[u8])> = options.iter().map(|(code, value)| (*code, &value[..])).collect();
            let times = Times::read(&answer([10, 0, 0, 5], &options));
            assert_eq!([times.renew, times.rebind, times.end].map(|time| time.as_millis()), expected.map(u128::from));
        };
        check(&[(LEASE_TIME, 3600)], [1_800_000, 3_150_000, 3_600_000]);
        check(&[(LEASE_TIME, 3600), (T1, 5), (T2, 10)], [5000, 10_000, 3_600_000]);
        check(&[(LEASE_TIME, 3600), (T1, 10), (T2, 10)], [10_000, 10_000, 3_600_000]);
        check(&[(LEASE_TIME, 3600), (T1, 0), (T2, 3600)], [1_800_000, 3_150_000, 3_600_000]);
        check(&[(LEASE_TIME, 3600), (T1, 9999)], [1_800_000, 3_150_000, 3_600_000]);
        check(&[(LEASE_TIME, 1)], [2000, 3500, 4000]);
        let for_ever = Times::read(&answer([10, 0, 0, 5], &[(LEASE_TIME, &[0xff; 4])]));
        assert!(for_ever.renew > Duration::from_secs(1 << 36));
    }
}
