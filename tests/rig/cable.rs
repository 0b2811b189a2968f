//! A network cable with any number of ends: what one card sends, every other one hears, and the test sees which frames went by.
//!
//! QEMU's `dgram` back end over unix sockets: a datagram is an Ethernet frame. A machine may come, go and come again.

use std::net::Shutdown;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use tempfile::TempDir;

/// The longest frame: 64 KiB and a header, for cards that leave segmentation to the other end.
const LONGEST: usize = 65_550;

/// A cable; its ends are pulled when it goes.
pub struct Cable {
    dir: TempDir,
    name: String,
    ends: Vec<UnixDatagram>,
    carriers: Vec<JoinHandle<()>>,
    seen: Arc<Mutex<Vec<Frame>>>,
    cards: Arc<Mutex<Vec<PathBuf>>>,
}

/// The header of a frame that went by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Frame {
    pub to: [u8; 6],
    pub from: [u8; 6],
    /// EtherType: 0x0800 IPv4, 0x0806 ARP, 0x86dd IPv6.
    pub kind: u16,
}

impl Cable {
    /// Of a name that is no other's in the same machine.
    pub fn new(name: &str) -> Cable {
        Cable {
            dir: tempfile::tempdir().expect("a temporary folder"),
            name: name.into(),
            ends: Vec::new(),
            carriers: Vec::new(),
            seen: Arc::default(),
            cards: Arc::default(),
        }
    }

    /// Another end: QEMU's arguments for a card with this hardware address, on which the end is plugged in.
    pub fn plug(&mut self, mac: [u8; 6]) -> Vec<String> {
        let number = self.ends.len();
        let path = |what: &str| self.dir.path().join(format!("{what}{number}"));
        let (near, card) = (path("end"), path("card"));
        let end = UnixDatagram::bind(&near).expect("a socket");
        self.ends.push(end.try_clone().expect("a socket"));
        self.cards.lock().expect("no panic").push(card.clone());
        let (cards, seen) = (self.cards.clone(), self.seen.clone());
        let own = card.clone();
        self.carriers.push(std::thread::spawn(move || carry(&end, &own, &cards, &seen)));
        let mac: Vec<String> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
        let id = format!("{}{number}", self.name);
        vec![
            "-netdev".into(),
            format!(
                "dgram,id={id},local.type=unix,local.path={},remote.type=unix,remote.path={}",
                card.display(),
                near.display()
            ),
            "-device".into(),
            format!("virtio-net-pci,netdev={id},mac={},romfile=", mac.join(":")),
        ]
    }

    /// The headers of the frames that a card has sent, each once.
    pub fn sent_by(&self, mac: [u8; 6]) -> Vec<Frame> {
        let mut frames = self.seen.lock().expect("no panic").clone();
        frames.retain(|frame| frame.from == mac);
        frames.sort_unstable();
        frames
    }
}

/// Takes frames from one end to all others, until it is pulled.
fn carry(end: &UnixDatagram, own: &Path, cards: &Mutex<Vec<PathBuf>>, seen: &Mutex<Vec<Frame>>) {
    let mut buffer = vec![0; LONGEST];
    while let Ok(length @ 1..) = end.recv(&mut buffer) {
        let bytes = &buffer[..length];
        if let Some(&[ref addresses @ .., high, low]) = bytes.first_chunk::<14>() {
            let [to, from] = [&addresses[..6], &addresses[6..12]].map(|part| part.try_into().expect("6 bytes"));
            let frame = Frame { to, from, kind: u16::from_be_bytes([high, low]) };
            let mut seen = seen.lock().expect("no panic");
            if !seen.contains(&frame) {
                seen.push(frame);
            }
        }
        for card in cards.lock().expect("no panic").iter().filter(|card| *card != own) {
            // a card whose machine is off, or that cannot take more, loses a frame, as cards do
            end.send_to(bytes, card).ok();
        }
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        for end in &self.ends {
            // an error says that it is pulled already
            end.shutdown(Shutdown::Both).ok();
        }
        for carrier in self.carriers.drain(..) {
            carrier.join().ok();
        }
    }
}
