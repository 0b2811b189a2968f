//! The link and the device under it, together: bytes in, bytes out, never more than the device takes.

use guest::clock;
use guest::events::Happened;
use guest::pipe::{Pipe, Progress};
use wire::link::{Event, Link, Role, Security};
use wire::message::Message;
use wire::spec::Spec;

/// Tether's end of the link.
pub(crate) struct Line {
    pub(crate) link: Link,
    pipe: Pipe,
    connected: bool,
    /// A frame of which the device has taken the first `gone` bytes.
    outbox: Vec<u8>,
    gone: usize,
    inbox: Box<[u8]>,
}

/// As much as virtio-serial hands over at once.
const READ: usize = 32 * 1024;

impl Line {
    pub(crate) fn new(spec: &Spec, pipe: Pipe, boot: [u8; 16], seed: [u8; 32]) -> Line {
        let security = Security { key: spec.link.key.clone(), sealed: spec.link.sealed, seed };
        let mut link = Link::new(Role::Guest { vm: spec.id.clone(), boot }, pipe.tuning, security);
        link.pipe_up(clock::now());
        Line { link, pipe, connected: true, outbox: Vec::new(), gone: 0, inbox: vec![0; READ].into() }
    }

    pub(crate) fn pipe(&self) -> &Pipe {
        &self.pipe
    }

    pub(crate) fn tell(&mut self, message: &Message) {
        self.link.send_message(&message.encode());
    }

    /// Something happened on the device, which is watched for changes: take all that there is.
    pub(crate) fn handle(&mut self, happened: Happened) {
        if happened.hangup {
            return self.disconnect();
        }
        if !self.connected {
            self.connected = true;
            self.link.pipe_up(clock::now());
        }
        loop {
            match self.pipe.read(&mut self.inbox) {
                Progress::Bytes(count) => self.link.handle_bytes(clock::now(), &self.inbox[..count]),
                Progress::Wait => return,
                Progress::Gone => return self.disconnect(),
            }
        }
    }

    /// Sends until there is nothing to send, or the device takes no more: then an event will tell.
    pub(crate) fn transmit(&mut self) {
        while self.connected {
            if self.gone == self.outbox.len() {
                self.outbox.clear();
                self.gone = 0;
                if !self.link.poll_transmit(clock::now(), &mut self.outbox) {
                    return;
                }
            }
            match self.pipe.write(&self.outbox[self.gone..]) {
                Progress::Bytes(count) => self.gone += count,
                Progress::Wait => return,
                Progress::Gone => self.disconnect(),
            }
        }
    }

    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.link.poll_event()
    }

    fn disconnect(&mut self) {
        if std::mem::take(&mut self.connected) {
            self.link.pipe_down();
        }
        self.outbox.clear();
        self.gone = 0;
    }
}
