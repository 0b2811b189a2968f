//! DHCP messages: questions written, answers read. Whether an answer can be true is decided in [`super::lease`].

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::super::packet::{checksum, frame};

// RFC 2132, 9.6
pub(super) const DISCOVER: u8 = 1;
pub(super) const OFFER: u8 = 2;
pub(super) const REQUEST: u8 = 3;
pub(super) const ACK: u8 = 5;
pub(super) const NAK: u8 = 6;
pub(super) const RELEASE: u8 = 7;

// options: RFC 2132, 3397, 3442
pub(super) const MASK: u8 = 1;
pub(super) const ROUTERS: u8 = 3;
pub(super) const DNS: u8 = 6;
const HOST_NAME: u8 = 12;
pub(super) const DOMAIN: u8 = 15;
pub(super) const MTU: u8 = 26;
const REQUESTED: u8 = 50;
pub(super) const LEASE_TIME: u8 = 51;
const OVERLOAD: u8 = 52;
const KIND: u8 = 53;
pub(super) const SERVER: u8 = 54;
const WANTED: u8 = 55;
pub(super) const TEXT: u8 = 56;
const LARGEST: u8 = 57;
pub(super) const T1: u8 = 58;
pub(super) const T2: u8 = 59;
const CLIENT: u8 = 61;
pub(super) const SEARCH: u8 = 119;
pub(super) const ROUTES: u8 = 121;

/// The fixed fields, before the cookie.
const FIXED: usize = 236;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
const SERVER_PORT: u16 = 67;
pub(super) const CLIENT_PORT: u16 = 68;
const UDP: u8 = 17;
pub(super) const ETH_P_IP: u16 = 0x0800;

/// A question.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question<'a> {
    pub(super) kind: u8,
    pub(super) xid: u32,
    /// Since the client began to ask.
    pub(super) seconds: u16,
    pub(super) mac: [u8; 6],
    /// Its address, once it has one.
    pub(super) own: Ipv4Addr,
    pub(super) requested: Option<Ipv4Addr>,
    pub(super) server: Option<Ipv4Addr>,
    pub(super) host_name: &'a str,
}

impl Question<'_> {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![1, 1, 6, 0];
        bytes.extend(self.xid.to_be_bytes());
        bytes.extend(self.seconds.to_be_bytes());
        // no flags: what comes to this card's address is received before it has an IP address
        bytes.extend([0; 2]);
        bytes.extend(self.own.octets());
        bytes.resize(28, 0);
        bytes.extend(self.mac);
        bytes.resize(FIXED, 0);
        bytes.extend(COOKIE);
        let mut put = |code: u8, value: &[u8]| {
            bytes.extend([code, u8::try_from(value.len()).unwrap_or(u8::MAX)]);
            bytes.extend(value.iter().take(255));
        };
        put(KIND, &[self.kind]);
        let mut client = vec![1];
        client.extend(self.mac);
        put(CLIENT, &client);
        if let Some(address) = self.requested {
            put(REQUESTED, &address.octets());
        }
        if let Some(server) = self.server {
            put(SERVER, &server.octets());
        }
        if self.kind != RELEASE {
            put(LARGEST, &1500u16.to_be_bytes());
            // routes stand before routers, as RFC 3442 wants it
            put(WANTED, &[MASK, ROUTES, ROUTERS, DNS, DOMAIN, MTU, SEARCH, LEASE_TIME, SERVER, T1, T2]);
            if !self.host_name.is_empty() {
                put(HOST_NAME, self.host_name.as_bytes());
            }
        }
        bytes.push(255);
        // some servers take nothing shorter: BOOTP's length
        bytes.resize(bytes.len().max(300), 0);
        bytes
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) kind: u8,
    pub(super) xid: u32,
    /// The address that the client gets.
    pub(super) address: Ipv4Addr,
    pub(super) options: BTreeMap<u8, Vec<u8>>,
}

impl Answer {
    /// None for what is no answer to the client with that hardware address.
    pub(super) fn parse(bytes: &[u8], mac: [u8; 6]) -> Option<Answer> {
        let options = bytes.get(FIXED + 4..)?;
        if bytes[..3] != [2, 1, 6] || bytes[28..34] != mac || bytes[FIXED..FIXED + 4] != COOKIE {
            return None;
        }
        let mut all = BTreeMap::new();
        read_options(options, &mut all)?;
        // other fields may hold more options: RFC 2132, 9.3
        let overload = all.get(&OVERLOAD).and_then(|value| value.first().copied()).unwrap_or(0);
        if overload & 1 != 0 {
            read_options(&bytes[108..FIXED], &mut all)?;
        }
        if overload & 2 != 0 {
            read_options(&bytes[44..108], &mut all)?;
        }
        Some(Answer {
            kind: *all.get(&KIND)?.first()?,
            xid: u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
            address: Ipv4Addr::new(bytes[16], bytes[17], bytes[18], bytes[19]),
            options: all,
        })
    }

    /// An option of one address.
    pub(super) fn address(&self, code: u8) -> Option<Ipv4Addr> {
        <[u8; 4]>::try_from(&self.options.get(&code)?[..]).ok().map(Ipv4Addr::from)
    }

    /// An option of addresses; one of another length is none.
    pub(super) fn addresses(&self, code: u8) -> Vec<Ipv4Addr> {
        let value = self.options.get(&code).map_or(&[][..], |value| value);
        let (fours, rest) = value.as_chunks::<4>();
        if rest.is_empty() { fours.iter().map(|&four| Ipv4Addr::from(four)).collect() } else { Vec::new() }
    }

    /// An option of one number of 4 bytes.
    pub(super) fn number(&self, code: u8) -> Option<u32> {
        <[u8; 4]>::try_from(&self.options.get(&code)?[..]).ok().map(u32::from_be_bytes)
    }
}

/// One option that comes in several pieces is their values joined: RFC 3396. None when a length lies.
fn read_options(mut bytes: &[u8], all: &mut BTreeMap<u8, Vec<u8>>) -> Option<()> {
    loop {
        match *bytes {
            [] | [255, ..] => return Some(()),
            [0, ref rest @ ..] => bytes = rest,
            [code, length, ref rest @ ..] => {
                all.entry(code).or_default().extend(rest.get(..length.into())?);
                bytes = &rest[length.into()..];
            }
            [_] => return None,
        }
    }
}

/// A message in a frame.
pub(super) fn wrap(message: &[u8], mac: [u8; 6], to_mac: [u8; 6], from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
    let length = |more: usize| u16::try_from(message.len() + more).unwrap_or(u16::MAX).to_be_bytes();
    let (from, to, [high, low]) = (from.octets(), to.octets(), length(28));
    let mut ip = vec![0x45, 0, high, low, 0, 0, 0, 0, 64, UDP, 0, 0];
    ip.extend(from);
    ip.extend(to);
    let sum = checksum(&[&ip]);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut udp = [CLIENT_PORT.to_be_bytes(), SERVER_PORT.to_be_bytes(), length(8), [0; 2]].concat();
    // 0 would mean that there is none
    let sum = match checksum(&[&from, &to, &[0, UDP], &length(8), &udp, message]) {
        0 => u16::MAX,
        sum => sum,
    };
    udp[6..].copy_from_slice(&sum.to_be_bytes());
    frame(to_mac, mac, ETH_P_IP, &[&ip, &udp, message])
}

/// The message in a frame, and the hardware address that it came from. UDP's own sum is not looked at: between VMs of one host nobody has made it yet.
pub(super) fn unwrap(frame: &[u8]) -> Option<([u8; 6], &[u8])> {
    let from = frame.get(6..12)?.try_into().ok()?;
    let ip = frame.get(14..)?;
    let header = usize::from(ip.first()? & 0xf) * 4;
    let total = usize::from(u16::from_be_bytes([*ip.get(2)?, *ip.get(3)?]));
    // frames are padded to 60 bytes
    let ip = ip.get(..total)?;
    if header < 20 || ip.first()? >> 4 != 4 || checksum(&[ip.get(..header)?]) != 0 {
        return None;
    }
    let udp = ip.get(header..)?;
    let length = usize::from(u16::from_be_bytes([*udp.get(4)?, *udp.get(5)?]));
    Some((from, udp.get(8..length)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

    fn question() -> Question<'static> {
        Question {
            kind: DISCOVER,
            xid: 0x0102_0304,
            seconds: 5,
            mac: MAC,
            own: Ipv4Addr::UNSPECIFIED,
            requested: Some(Ipv4Addr::new(10, 0, 0, 5)),
            server: Some(Ipv4Addr::new(10, 0, 0, 1)),
            host_name: "web",
        }
    }

    #[test]
    fn a_question_is_what_rfc_2131_says() {
        let bytes = question().encode();
        assert_eq!(bytes.len(), 300);
        assert_eq!(bytes[..12], [1, 1, 6, 0, 1, 2, 3, 4, 0, 5, 0, 0]);
        assert_eq!(bytes[28..34], MAC);
        let options: &[&[u8]] = &[
            &[
                99, 130, 83, 99, 53, 1, 1, 61, 7, 1, 0x52, 0x54, 0, 0x12, 0x34, 0x56, 50, 4, 10, 0, 0, 5, 54, 4, 10, 0,
                0, 1,
            ],
            &[57, 2, 5, 220, 55, 11, 1, 121, 3, 6, 15, 26, 119, 51, 54, 58, 59, 12, 3, b'w', b'e', b'b', 255],
        ];
        let options = options.concat();
        assert_eq!(bytes[236..236 + options.len()], options);
    }

    /// The answer of a server with these options and overloaded fields.
    fn answer(options: &[u8], sname: &[u8], file: &[u8]) -> Vec<u8> {
        let mut bytes = question().encode();
        bytes.truncate(FIXED + 4);
        bytes[0] = 2;
        bytes[16..20].copy_from_slice(&[10, 0, 0, 5]);
        bytes[44..44 + sname.len()].copy_from_slice(sname);
        bytes[108..108 + file.len()].copy_from_slice(file);
        bytes.extend(options);
        bytes
    }

    #[test]
    fn options_are_read_from_wherever_they_are() {
        let bytes =
            answer(&[0, 53, 1, 2, 52, 1, 3, 6, 2, 10, 0, 255, 9, 9], &[6, 2, 0, 9, 255], &[6, 4, 0, 8, 10, 0, 3, 0]);
        let answer = Answer::parse(&bytes, MAC).unwrap();
        assert_eq!((answer.kind, answer.xid, answer.address), (OFFER, 0x0102_0304, Ipv4Addr::new(10, 0, 0, 5)));
        assert_eq!(answer.addresses(DNS), [Ipv4Addr::new(10, 0, 0, 8), Ipv4Addr::new(10, 0, 0, 9)]);
        assert_eq!((answer.addresses(ROUTERS), answer.addresses(MASK), answer.address(MASK)), (vec![], vec![], None));
    }

    #[test]
    fn what_is_no_answer_to_us_is_none() {
        let sound = answer(&[53, 1, 2, 255], &[], &[]);
        assert!(Answer::parse(&sound, MAC).is_some());
        assert_eq!(Answer::parse(&sound, [0; 6]), None);
        for length in 0..sound.len() - 4 {
            assert_eq!(Answer::parse(&sound[..length], MAC), None, "{length} bytes");
        }
        for at in [0, 1, 2, 236, 239] {
            let mut bytes = sound.clone();
            bytes[at] ^= 0x40;
            assert_eq!(Answer::parse(&bytes, MAC), None, "byte {at}");
        }
        for options in [&[53, 1][..], &[53, 2, 2], &[53], &[53, 0, 255], &[1, 255, 0], &[255]] {
            assert_eq!(Answer::parse(&answer(options, &[], &[]), MAC), None, "{options:?}");
        }
        // an overloaded field whose lengths lie
        assert_eq!(Answer::parse(&answer(&[53, 1, 2, 52, 1, 2, 255], &[6, 200], &[]), MAC), None);
    }

    #[test]
    fn a_frame_carries_its_message() {
        let message = question().encode();
        let (from, to) = (Ipv4Addr::new(10, 0, 0, 5), Ipv4Addr::new(10, 0, 0, 1));
        let mut frame = wrap(&message, MAC, [9; 6], from, to);
        let length = u16::try_from(message.len() + 8).unwrap().to_be_bytes();
        assert_eq!(checksum(&[&frame[26..34], &[0, UDP], &length, &frame[34..]]), 0);
        frame.extend([0; 20]);
        assert_eq!(unwrap(&frame), Some((MAC, &message[..])));
        for length in 0..14 + 28 + message.len() {
            assert_eq!(unwrap(&frame[..length]), None, "{length} bytes");
        }
        for at in [14, 16, 17, 24, 30, 38] {
            let mut bytes = frame.clone();
            bytes[at] ^= 0x80;
            assert_eq!(unwrap(&bytes), None, "byte {at}");
        }
        frame[38..40].fill(0);
        assert_eq!(unwrap(&frame), None, "a length that is shorter than its header");
    }
}
