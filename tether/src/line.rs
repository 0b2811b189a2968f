//! The link and the device under it, together: bytes in, bytes out, never more than the device takes.
//!
//! A device that lost its other end says by itself when there is one again. A connection that is lost has to be made anew: see [`Pause`].

use std::time::Duration;

use guest::clock;
use guest::events::Happened;
use guest::pipe::{Pipe, Progress};
use wire::link::{CONTROL, Event, Link, Role, Security};
use wire::message::Message;
use wire::spec::Spec;

/// Tether's end of the link.
pub(crate) struct Line {
    pub(crate) link: Link,
    pipe: Pipe,
    contact: Contact,
    pause: Pause,
    /// A frame of which the device has taken the first `gone` bytes.
    outbox: Vec<u8>,
    gone: usize,
    inbox: Box<[u8]>,
}

/// Whether the other end is there.
enum Contact {
    Up,
    /// An event of the device will tell.
    Awaited,
    /// The connection is lost. A new one is tried at this time.
    Lost {
        retry_at: Duration,
    },
}

/// How long to wait before the next try to connect. A host that is restarted is found quickly, one that stays away costs little.
struct Pause(Duration);

impl Pause {
    const FIRST: Duration = Duration::from_millis(50);
    const LONGEST: Duration = Duration::from_secs(1);

    fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (2 * pause).min(Pause::LONGEST);
        pause
    }
}

/// As much as virtio-serial hands over at once.
const READ: usize = 32 * 1024;

/// The most bytes of messages that a host has not heard when it is told some that it can ask for as well.
const UNHEARD: u64 = 16 * 1024;

impl Line {
    pub(crate) fn new(spec: &Spec, pipe: Pipe, boot: [u8; 16], seed: [u8; 32]) -> Line {
        let security = Security { key: spec.link.key.clone(), sealed: spec.link.sealed, seed };
        let mut link = Link::new(Role::Guest { vm: spec.id.clone(), boot }, pipe.tuning, security);
        let contact = if pipe.is_connection() { Contact::Awaited } else { Contact::Up };
        if let Contact::Up = contact {
            link.pipe_up(clock::now());
        }
        let inbox = vec![0; READ].into();
        Line { link, pipe, contact, pause: Pause(Pause::FIRST), outbox: Vec::new(), gone: 0, inbox }
    }

    pub(crate) fn pipe(&self) -> &Pipe {
        &self.pipe
    }

    /// The host takes what it is told: what it can ask for later is told only then, and kept for nobody.
    pub(crate) fn has_room_for_news(&self) -> bool {
        self.link.written(CONTROL) - self.link.delivered(CONTROL) < UNHEARD
    }

    pub(crate) fn tell(&mut self, message: &Message) {
        self.link.send_message(&message.encode());
    }

    /// Something happened on the device, which is watched for changes: take all that there is.
    pub(crate) fn handle(&mut self, happened: Happened) {
        if happened.hangup {
            return self.disconnect();
        }
        match self.contact {
            Contact::Up => {}
            Contact::Awaited => {
                self.contact = Contact::Up;
                self.link.pipe_up(clock::now());
            }
            // late news of a connection that was given up
            Contact::Lost { .. } => return,
        }
        loop {
            match self.pipe.read(&mut self.inbox) {
                Progress::Bytes(count) => {
                    self.pause = Pause(Pause::FIRST);
                    self.link.handle_bytes(clock::now(), &self.inbox[..count]);
                }
                Progress::Wait => return,
                Progress::Gone => return self.disconnect(),
            }
        }
    }

    /// When [`Line::handle_time`] has something to do.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        let retry_at = match self.contact {
            Contact::Lost { retry_at } => Some(retry_at),
            Contact::Up | Contact::Awaited => None,
        };
        [retry_at, self.link.poll_timeout()].into_iter().flatten().min()
    }

    /// True if the pipe has a new descriptor, to be watched in place of the old one, which is closed.
    pub(crate) fn handle_time(&mut self, now: Duration) -> bool {
        self.link.handle_timeout(now);
        let Contact::Lost { retry_at } = self.contact else { return false };
        if now < retry_at {
            return false;
        }
        match self.pipe.reconnect() {
            Ok(()) => {
                self.contact = Contact::Awaited;
                true
            }
            Err(_) => {
                self.contact = Contact::Lost { retry_at: now + self.pause.next() };
                false
            }
        }
    }

    /// Sends until there is nothing to send, or the device takes no more: then an event will tell. True if it has stopped before that, after a
    /// frame's worth, to let others have their turn: there may be a key press to read.
    pub(crate) fn transmit(&mut self) -> bool {
        let mut turn = 0;
        while let Contact::Up = self.contact {
            let now = clock::now();
            if turn >= self.link.pace(now) {
                return true;
            }
            if self.gone == self.outbox.len() {
                self.outbox.clear();
                self.gone = 0;
                if !self.link.poll_transmit(now, &mut self.outbox) {
                    return false;
                }
            }
            match self.pipe.write(&self.outbox[self.gone..]) {
                Progress::Bytes(count) => {
                    self.gone += count;
                    turn += count;
                }
                Progress::Wait => return false,
                Progress::Gone => self.disconnect(),
            }
        }
        false
    }

    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.link.poll_event()
    }

    /// Draws other keys from here on, and agrees on new ones with the host: another machine has the old ones too.
    pub(crate) fn begin_anew(&mut self, seed: [u8; 32]) {
        self.link.reseed(seed);
        if let Contact::Up = self.contact {
            self.link.pipe_down();
            self.outbox.clear();
            self.gone = 0;
            self.link.pipe_up(clock::now());
        }
    }

    fn disconnect(&mut self) {
        if let Contact::Up = self.contact {
            self.link.pipe_down();
        }
        self.contact = match (&self.contact, self.pipe.is_connection()) {
            (_, false) => Contact::Awaited,
            (Contact::Lost { retry_at }, true) => Contact::Lost { retry_at: *retry_at },
            (_, true) => Contact::Lost { retry_at: clock::now() + self.pause.next() },
        };
        self.outbox.clear();
        self.gone = 0;
    }
}
