//! The client on a card: packets out and in, randomness, and the time.

use std::fs::File;
use std::io::{self, Read as _};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use super::client::{Client, News};
use super::message::{CLIENT_PORT, ETH_P_IP, unwrap, wrap};
use crate::net::packet::{BROADCAST, PacketSocket};
use crate::sys::net::Instruction;

/// The largest frame that is read; servers were told 1,500 bytes.
const FRAME: usize = 2048;

/// A card that asks for its address. It sends past the kernel's IP: without an address there is none, and a firewall does not concern it.
#[derive(Debug)]
pub struct Asker {
    client: Client,
    socket: PacketSocket,
    mac: [u8; 6],
    /// Where the last answer that counted came from: the server, or the router on the way to it.
    server: [u8; 6],
    dice: u64,
}

impl Asker {
    /// Begins to ask.
    pub fn open(index: u32, mac: [u8; 6], host_name: &str, now: Duration) -> io::Result<Asker> {
        let socket = PacketSocket::receiver(index, ETH_P_IP, &filter(mac))?;
        let mut seed = [0; 8];
        File::open("/dev/urandom")?.read_exact(&mut seed)?;
        let mut dice = u64::from_ne_bytes(seed);
        let client = Client::new(mac, host_name, now, roll(&mut dice));
        let mut asker = Asker { client, socket, mac, server: BROADCAST, dice };
        asker.handle_time(now);
        Ok(asker)
    }

    /// When [`Asker::handle_time`] has something to do.
    pub fn deadline(&self) -> Option<Duration> {
        self.client.deadline()
    }

    /// Does what is due.
    pub fn handle_time(&mut self, now: Duration) {
        while self.client.deadline().is_some_and(|deadline| deadline <= now) {
            self.client.handle_time(now, roll(&mut self.dice));
            self.transmit();
        }
    }

    /// Reads what has come.
    pub fn handle_packets(&mut self, now: Duration) {
        let mut buffer = [0; FRAME];
        while let Some(frame) = self.socket.receive(&mut buffer) {
            let Some((from, message)) = unwrap(frame) else { continue };
            if self.client.handle_message(now, roll(&mut self.dice), message) {
                self.server = from;
            }
            self.transmit();
            // what an answer makes due: a refusal is followed by another question
            self.handle_time(now);
        }
    }

    /// What has become of the lease since the last call.
    pub fn poll_news(&mut self) -> Option<News> {
        self.client.poll_news()
    }

    /// What was heard last, for a person.
    pub fn heard(&self) -> &str {
        self.client.heard()
    }

    /// Asks at once: the cable has come.
    pub fn ask_again(&mut self, now: Duration) {
        self.client.ask_again(now, roll(&mut self.dice));
        self.transmit();
        self.handle_time(now);
    }

    /// Gives the address back.
    pub fn release(&mut self, now: Duration) {
        self.client.release(now, roll(&mut self.dice));
        self.transmit();
    }

    fn transmit(&mut self) {
        let Some(transmit) = self.client.poll_transmit() else { return };
        let (to_mac, (from, to)) = match transmit.between {
            Some(between) => (self.server, between),
            None => (BROADCAST, (Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST)),
        };
        // one that is lost is sent again
        let _lost = self.socket.send(&wrap(&transmit.message, self.mac, to_mac, from, to));
    }
}

impl AsFd for Asker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// splitmix64: good enough to keep many machines from asking in step.
fn roll(dice: &mut u64) -> u32 {
    *dice = dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*dice ^ (*dice >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    u32::try_from(mixed >> 32).unwrap_or_default()
}

/// Unfragmented UDP to port 68 that holds this hardware address as the client's: nothing else wakes PID 1. Linux, Documentation/networking/filter.rst.
fn filter(mac: [u8; 6]) -> [Instruction; 15] {
    // BPF_LD, BPF_LDX, BPF_JMP and BPF_RET with their widths and modes
    const HALF: u16 = 0x28;
    const BYTE: u16 = 0x30;
    const IP_HEADER: u16 = 0xb1;
    const HALF_BEHIND: u16 = 0x48;
    const WORD_BEHIND: u16 = 0x40;
    const EQUALS: u16 = 0x15;
    const HAS: u16 = 0x45;
    const RETURN: u16 = 0x06;
    let [a, b, c, d, e, f] = mac;
    let of = |code, k, jt, jf| Instruction { code, jt, jf, k };
    [
        of(HALF, 12, 0, 0),
        of(EQUALS, ETH_P_IP.into(), 0, 11),
        of(BYTE, 14 + 9, 0, 0),
        of(EQUALS, 17, 0, 9),
        of(HALF, 14 + 6, 0, 0),
        of(HAS, 0x1fff, 7, 0),
        of(IP_HEADER, 14, 0, 0),
        of(HALF_BEHIND, 14 + 2, 0, 0),
        of(EQUALS, CLIENT_PORT.into(), 0, 4),
        // `chaddr`, 28 bytes into the message
        of(WORD_BEHIND, 14 + 8 + 28, 0, 0),
        of(EQUALS, u32::from_be_bytes([a, b, c, d]), 0, 2),
        of(HALF_BEHIND, 14 + 8 + 32, 0, 0),
        of(EQUALS, u32::from(u16::from_be_bytes([e, f])), 1, 0),
        of(RETURN, 0, 0, 0),
        of(RETURN, u32::MAX, 0, 0),
    ]
}
