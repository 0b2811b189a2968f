//! A DHCP server that does what a test wants: gives, refuses, keeps silent, lies. It knows one client, and is 10.0.0.1 by ARP too.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use crate::wire::Wire;

/// Where the server is.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const SERVER_MAC: [u8; 6] = [0x52, 0x54, 0, 0xff, 0, 1];

pub const DISCOVER: u8 = 1;
pub const OFFER: u8 = 2;
pub const REQUEST: u8 = 3;
pub const ACK: u8 = 5;
pub const NAK: u8 = 6;
pub const RELEASE: u8 = 7;

/// What it gives at the moment.
#[derive(Clone, Debug)]
pub struct Server {
    pub address: Ipv4Addr,
    /// Beside its own address: RFC 2132.
    pub options: Vec<(u8, Vec<u8>)>,
    pub is_silent: bool,
}

/// A question of the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub kind: u8,
    xid: [u8; 4],
    mac: [u8; 6],
    pub own: Ipv4Addr,
    pub to_mac: [u8; 6],
    pub from: Ipv4Addr,
    pub to: Ipv4Addr,
    options: Vec<(u8, Vec<u8>)>,
}

impl Asked {
    /// None for a frame that is no question to a server.
    pub fn read(frame: &[u8]) -> Option<Asked> {
        let (ip, udp, message) = (frame.get(14..34)?, frame.get(34..42)?, frame.get(42..)?);
        if frame[12..14] != [8, 0] || ip[9] != 17 || udp[..4] != [0, 68, 0, 67] || message.len() < 240 {
            return None;
        }
        let address = |bytes: &[u8]| Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]);
        let mut options = Vec::new();
        let mut rest = &message[240..];
        while let [code @ 1..=254, length, tail @ ..] = rest {
            let (value, tail) = tail.split_at(usize::from(*length));
            options.push((*code, value.to_vec()));
            rest = tail;
        }
        let kind = options.iter().find(|(code, _)| *code == 53)?.1[0];
        let (xid, mac) = (message[4..8].try_into().ok()?, message[28..34].try_into().ok()?);
        let to_mac = frame[..6].try_into().ok()?;
        let (own, from, to) = (address(&message[12..]), address(&ip[12..]), address(&ip[16..]));
        Some(Asked { kind, xid, mac, own, to_mac, from, to, options })
    }

    /// An option's value.
    pub fn option(&self, code: u8) -> Option<&[u8]> {
        self.options.iter().find(|(found, _)| *found == code).map(|(_, value)| &value[..])
    }

    /// The address that it wants to have, or has.
    pub fn wanted(&self) -> Ipv4Addr {
        match self.option(50) {
            Some(&[a, b, c, d]) => Ipv4Addr::new(a, b, c, d),
            _ => self.own,
        }
    }
}

impl Server {
    /// Gives 10.0.0.50/24 for an hour, and itself as router.
    pub fn new() -> Server {
        let options =
            vec![(1, vec![255, 255, 255, 0]), (3, SERVER.octets().to_vec()), (51, 3600u32.to_be_bytes().to_vec())];
        Server { address: Ipv4Addr::new(10, 0, 0, 50), options, is_silent: false }
    }

    /// Sets an option in the place of its own.
    pub fn set(&mut self, code: u8, value: &[u8]) {
        self.options.retain(|(known, _)| *known != code);
        self.options.push((code, value.to_vec()));
    }

    /// Puts it at the end of a wire. What it gives can be changed while it serves.
    pub fn serve(self) -> (Wire, Arc<Mutex<Server>>) {
        let server = Arc::new(Mutex::new(self));
        let serving = server.clone();
        let wire = Wire::new(move |frame| serving.lock().expect("no panic").answer(frame).into_iter().collect());
        (wire, server)
    }

    fn answer(&self, frame: &[u8]) -> Option<Vec<u8>> {
        if frame.get(12..22)? == [8, 6, 0, 1, 8, 0, 6, 4, 0, 1] && frame.get(38..42)? == SERVER.octets() {
            let (asker, address) = (&frame[22..28], &frame[28..32]);
            let head = [8, 6, 0, 1, 8, 0, 6, 4, 0, 2];
            return Some([asker, &SERVER_MAC, &head, &SERVER_MAC, &SERVER.octets(), asker, address].concat());
        }
        let asked = Asked::read(frame).filter(|_| !self.is_silent)?;
        match asked.kind {
            DISCOVER => Some(self.say(&asked, OFFER)),
            REQUEST if asked.wanted() == self.address => Some(self.say(&asked, ACK)),
            REQUEST => Some(self.say(&asked, NAK)),
            _ => None,
        }
    }

    fn say(&self, asked: &Asked, kind: u8) -> Vec<u8> {
        let mut message = vec![2, 1, 6, 0];
        message.extend(asked.xid);
        message.resize(16, 0);
        message.extend(if kind == NAK { [0; 4] } else { self.address.octets() });
        message.resize(28, 0);
        message.extend(asked.mac);
        message.resize(236, 0);
        message.extend([99, 130, 83, 99, 53, 1, kind, 54, 4]);
        message.extend(SERVER.octets());
        for (code, value) in self.options.iter().filter(|_| kind != NAK) {
            message.push(*code);
            message.push(u8::try_from(value.len()).expect("a short option"));
            message.extend(value);
        }
        message.push(255);
        let length = |more: usize| u16::try_from(message.len() + more).expect("a short message").to_be_bytes();
        // to the address that it gives: nobody else has it
        let to = if kind == NAK { [255; 4] } else { self.address.octets() };
        let mut ip = [&[0x45, 0][..], &length(28), &[0, 0, 0, 0, 64, 17, 0, 0], &SERVER.octets(), &to].concat();
        let sum = checksum(&ip);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        // no sum of UDP's: it is optional
        let udp = [&[0, 67, 0, 68][..], &length(8), &[0, 0]].concat();
        let to_mac = if kind == NAK { [0xff; 6] } else { asked.mac };
        [&to_mac[..], &SERVER_MAC, &[8, 0], &ip, &udp, &message].concat()
    }
}

impl Default for Server {
    fn default() -> Server {
        Server::new()
    }
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let sum = (sum >> 16) + (sum & 0xffff);
    !u16::try_from((sum >> 16) + (sum & 0xffff)).expect("folded twice")
}
