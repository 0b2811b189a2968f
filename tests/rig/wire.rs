//! The far end of a network card, in a test's own hands: it sees every frame that the machine sends, and answers as the test says.
//!
//! QEMU's `dgram` back end over unix sockets: a datagram is an Ethernet frame. Every wait has a deadline.

use std::net::Shutdown;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

use tempfile::TempDir;

use crate::vch::DEADLINE;

/// The longest frame: 64 KiB and a header, for cards that leave segmentation to the other end.
const LONGEST: usize = 65_550;

/// A wire with one card on it.
pub struct Wire {
    dir: TempDir,
    end: UnixDatagram,
    heard: Arc<Heard>,
    listener: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Heard {
    frames: Mutex<Vec<Vec<u8>>>,
    more: Condvar,
}

impl Wire {
    /// `answer` makes the frames that are sent for each that is heard.
    pub fn new(mut answer: impl FnMut(&[u8]) -> Vec<Vec<u8>> + Send + 'static) -> Wire {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let end = UnixDatagram::bind(dir.path().join("end")).expect("a socket");
        let heard = Arc::<Heard>::default();
        let (socket, keeper, card) = (end.try_clone().expect("a socket"), heard.clone(), dir.path().join("card"));
        let listener = std::thread::spawn(move || {
            let mut buffer = vec![0; LONGEST];
            while let Ok(length @ 1..) = socket.recv(&mut buffer) {
                for frame in answer(&buffer[..length]) {
                    // a card that is not there any more hears nothing
                    socket.send_to(&frame, &card).ok();
                }
                keeper.frames.lock().expect("no panic").push(buffer[..length].to_vec());
                keeper.more.notify_all();
            }
        });
        Wire { dir, end, heard, listener: Some(listener) }
    }

    /// Nobody is at the far end.
    pub fn silent() -> Wire {
        Wire::new(|_| Vec::new())
    }

    /// QEMU's arguments for this end of it.
    pub fn netdev(&self, id: &str) -> Vec<String> {
        vec!["-netdev".into(), format!("{},id={id}", self.backend())]
    }

    /// The same, with a card of the model.
    pub fn card(&self, id: &str, model: &str) -> Vec<String> {
        let mut arguments = self.netdev(id);
        arguments.extend(["-device".into(), format!("{model},netdev={id},romfile=")]);
        arguments
    }

    fn backend(&self) -> String {
        let [near, card] = self.paths().map(|path| path.display().to_string());
        format!("dgram,local.type=unix,local.path={card},remote.type=unix,remote.path={near}")
    }

    /// Its own socket, and the card's.
    pub fn paths(&self) -> [PathBuf; 2] {
        ["end", "card"].map(|name| self.dir.path().join(name))
    }

    /// How many frames have been heard.
    pub fn count(&self) -> usize {
        self.heard.frames.lock().expect("no panic").len()
    }

    /// Waits for a frame, behind the first `after`, in which `find` finds something.
    pub fn wait_for<T>(&self, what: &str, after: usize, mut find: impl FnMut(&[u8]) -> Option<T>) -> T {
        let began = std::time::Instant::now();
        let mut at = after;
        let mut frames = self.heard.frames.lock().expect("no panic");
        loop {
            while let Some(frame) = frames.get(at) {
                if let Some(found) = find(frame) {
                    return found;
                }
                at += 1;
            }
            let left = DEADLINE.checked_sub(began.elapsed());
            let left = left.unwrap_or_else(|| panic!("{what} did not come; {} frames did", frames.len()));
            frames = self.heard.more.wait_timeout(frames, left).expect("no panic").0;
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // an error says that nobody listens
        self.end.shutdown(Shutdown::Both).ok();
        self.listener.take().map(JoinHandle::join);
    }
}
