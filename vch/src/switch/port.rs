//! One port of a switch: the sockets between this program and a machine's card, and what waits for a machine that is slow.
//!
//! The machine sends to a socket that is bound here by path; it finds the next program there when this one is killed. What is for the machine goes through a second socket, that is connected to the
//! machine's own: a connection tells when there is room again. QEMU may come later, go, and come again: frames that nobody takes are dropped, as a cable does it.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use tokio::net::UnixDatagram;
use tokio::sync::Notify;

use super::guard::Guard;
use crate::lock::locked;
use crate::whole::if_there;

/// Frames that wait for one machine at most.
const WAITING: usize = 256;

#[derive(Debug)]
pub(super) struct Port {
    pub(super) guard: Guard,
    switch: PathBuf,
    machine: PathBuf,
    from: UnixDatagram,
    out: Mutex<Out>,
    /// Something waits.
    waits: Notify,
    /// Half of the room is free again.
    room: Notify,
}

/// The way to the machine.
#[derive(Debug, Default)]
struct Out {
    to: Option<Arc<UnixDatagram>>,
    waiting: VecDeque<Vec<u8>>,
}

/// What became of a frame.
#[derive(Debug, PartialEq, Eq)]
enum Sent {
    Gone,
    /// The machine is behind with what it has.
    Full,
}

impl Port {
    /// Binds the socket of `switch`, at which an earlier program may have listened.
    pub(super) fn open(guard: Guard, switch: PathBuf, machine: PathBuf) -> Result<Port> {
        if_there(std::fs::remove_file(&switch))
            .with_context(|| format!("cannot remove the old socket {}", switch.display()))?;
        let from =
            UnixDatagram::bind(&switch).with_context(|| format!("cannot bind the socket {}", switch.display()))?;
        Ok(Port { guard, switch, machine, from, out: Mutex::default(), waits: Notify::new(), room: Notify::new() })
    }

    /// The next frame of the machine; what does not fit into `buffer` is cut off.
    pub(super) async fn receive(&self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.from.recv(buffer).await
    }

    /// Sends a frame, now or when those before it are gone; `false` if it was dropped, because too many wait.
    pub(super) fn send(&self, frame: &[u8]) -> bool {
        let mut out = locked(&self.out);
        if out.waiting.is_empty() && out.try_send(frame, &self.machine) == Sent::Gone {
            return true;
        }
        if out.waiting.len() >= WAITING {
            return false;
        }
        out.waiting.push_back(frame.to_vec());
        self.waits.notify_one();
        true
    }

    /// Whether more should be sent to it.
    pub(super) fn has_room(&self) -> bool {
        locked(&self.out).waiting.len() < WAITING / 2
    }

    /// Waits until more should be sent to it.
    pub(super) async fn room(&self) {
        loop {
            let mut room = std::pin::pin!(self.room.notified());
            room.as_mut().enable();
            if self.has_room() {
                return;
            }
            room.await;
        }
    }

    /// Sends what waits, for ever.
    pub(super) async fn carry(&self) {
        loop {
            self.waits.notified().await;
            while let Some(to) = self.send_waiting() {
                // it is an error when the machine is gone: the next attempt finds out
                to.writable().await.ok();
            }
        }
    }

    /// Sends of what waits as much as goes, and tells by which socket more will go.
    fn send_waiting(&self) -> Option<Arc<UnixDatagram>> {
        let mut out = locked(&self.out);
        let full = loop {
            let Some(frame) = out.waiting.pop_front() else { break None };
            if out.try_send(&frame, &self.machine) == Sent::Full {
                out.waiting.push_front(frame);
                break out.to.clone();
            }
        };
        if out.waiting.len() < WAITING / 2 {
            self.room.notify_waiters();
        }
        full
    }

    /// Removes its sockets: the machine is gone for good.
    pub(super) fn remove(&self) {
        for path in [&self.switch, &self.machine] {
            // whoever cleared the directory was faster
            std::fs::remove_file(path).ok();
        }
    }
}

impl Out {
    fn try_send(&mut self, frame: &[u8], machine: &PathBuf) -> Sent {
        // a second time by a new connection, if the machine was started anew
        for _ in 0..2 {
            if self.to.is_none() {
                let connected = UnixDatagram::unbound().and_then(|to| to.connect(machine).map(|()| to));
                self.to = connected.ok().map(Into::into);
            }
            let Some(to) = &self.to else { return Sent::Gone };
            match to.try_send(frame) {
                Ok(_) => return Sent::Gone,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Sent::Full,
                Err(_) => self.to = None,
            }
        }
        Sent::Gone
    }
}
