//! A pipe that is not the link's, or not yet: who is at its other end, and when does it take the place of the one in use.
//!
//! A host that listens does not know who connects. A [`Door`] reads the VM's id from the first hello, which proves nothing. A [`Side`] greets on such a
//! pipe while the link goes on with the one that it has: who does not have the key changes nothing there.

use std::time::Duration;

use super::Link;
use super::answering::Answers;
use super::greeting::clear_frame;
use super::state::State;
use crate::frame::{self, Decoder};
use crate::packet::{Hello, Packet};

/// A pipe beside the link's own. See [`Link::handle_beside`].
#[derive(Debug, Default)]
pub struct Side {
    decoder: Decoder,
    answers: Answers,
}

impl Link {
    /// A host hears bytes on another pipe than its own. Only hellos and the first sealed packet count there. What answers them is appended to `reply`, to
    /// go out on that pipe. True when the guest has proved itself: then the link is open on that pipe and has left its own, whose remaining bytes, in
    /// either direction, are void. Nothing of the live session is touched before.
    pub fn handle_beside(&mut self, side: &mut Side, now: Duration, bytes: &[u8], reply: &mut Vec<u8>) -> bool {
        let Side { decoder, answers } = side;
        let mut moved = false;
        decoder.feed(bytes, |body| match moved {
            true => self.handle_body(now, body),
            false => moved = self.hear_beside(answers, now, body, reply),
        });
        if moved {
            let own = std::mem::replace(&mut self.decoder, std::mem::take(decoder));
            self.counters.noise = self.counters.noise + own.noise();
            self.answers = std::mem::take(answers);
        }
        moved
    }

    fn hear_beside(&mut self, answers: &mut Answers, now: Duration, body: &[u8], reply: &mut Vec<u8>) -> bool {
        if self.is_closed() {
            return false;
        }
        match Packet::decode(body) {
            Ok(Packet::Hello { hello, message }) => {
                let frame = self.answer(now, &hello, message, answers);
                reply.extend(frame.into_iter().flatten());
                false
            }
            Ok(Packet::Sealed { number, packet }) => match self.confirm(now, number, packet, answers) {
                Some(packet) if matches!(self.state, State::Open { .. }) => {
                    self.handle_sealed(now, &packet);
                    true
                }
                Some(_) => false,
                None => {
                    self.counters.forged += 1;
                    false
                }
            },
            Ok(_) => {
                self.counters.misplaced += 1;
                false
            }
            Err(error) => {
                self.count_unreadable(&error);
                false
            }
        }
    }
}

/// A fresh pipe of which nobody knows whose it is.
#[derive(Debug, Default)]
pub struct Door {
    decoder: Decoder,
    /// What has come since the last delimiter before the hello.
    bytes: Vec<u8>,
}

impl Door {
    /// Takes bytes as they come. The first hello: it names a VM, and proves nothing.
    pub fn feed(&mut self, bytes: &[u8]) -> Option<Hello> {
        self.bytes.extend_from_slice(bytes);
        let mut found = None;
        self.decoder.feed(bytes, |body| {
            if let (None, Ok(Packet::Hello { hello, .. })) = (&found, Packet::decode(body)) {
                found = Some(hello);
            }
        });
        if found.is_none() {
            let whole = memchr::memrchr(frame::DELIMITER, &self.bytes).map_or(0, |at| at + 1);
            self.bytes.drain(..whole);
            if self.bytes.len() > frame::MAX_ENCODED {
                self.bytes = Vec::new();
            }
        }
        found
    }

    /// The bytes from the hello on, for [`Link::handle_bytes`] or [`Link::handle_beside`] of the link that it is for.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// The bytes with which a host asks for a hello on a pipe that is not yet a link's.
pub fn knock_frame() -> Vec<u8> {
    let mut bytes = vec![frame::DELIMITER];
    bytes.extend(clear_frame(&Packet::Knock));
    bytes
}
