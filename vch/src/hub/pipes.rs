//! The pipes of one VM: the live one, which carries the link, and those whose other end has yet to prove that it has the key.
//!
//! It decides when bytes are read and written. Whether a candidate has proved itself is decided in [`wire::link`].

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;
use wire::link::{self, Link, Side};

use crate::pipe::{Reader, Writer};

/// A pipe, and what was read from it before it came here.
pub(super) struct Pipe {
    pub(super) reader: Reader,
    pub(super) writer: Writer,
    pub(super) already_read: Vec<u8>,
}

impl fmt::Debug for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[a pipe, {} bytes read]", self.already_read.len())
    }
}

/// All pipes of one VM.
pub(super) struct Pipes {
    live: Option<Live>,
    inbox: Vec<u8>,
    candidates: BTreeMap<u64, Candidate>,
    /// One read of each candidate, after our answer is written.
    steps: JoinSet<Step>,
    next: u64,
    /// There has been a live one.
    has_begun: bool,
}

/// What a candidate has said so far, and the task that listens to it.
struct Candidate {
    side: Side,
    since: Duration,
    listening: Option<AbortHandle>,
}

struct Live {
    reader: Reader,
    writer: Writer,
    outbox: Vec<u8>,
    sent: usize,
}

/// What came of one read of a candidate: its bytes are in the pipe's `already_read`.
struct Step {
    candidate: u64,
    pipe: io::Result<Pipe>,
}

impl Pipes {
    pub(super) fn new() -> Pipes {
        Pipes {
            live: None,
            inbox: vec![0; CHUNK],
            candidates: BTreeMap::new(),
            steps: JoinSet::new(),
            next: 0,
            has_begun: false,
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.live.is_some()
    }

    pub(super) fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// A pipe that is new. The first one goes to the link at once: there is nobody whom it could disturb.
    pub(super) fn add(&mut self, pipe: Pipe, link: &mut Link, now: Duration) {
        if self.live.is_none() {
            self.has_begun = true;
            link.pipe_up(now);
            link.handle_bytes(now, &pipe.already_read);
            return self.live = Some(Live::new(pipe.reader, pipe.writer, Vec::new()));
        }
        // whoever opens pipes without end displaces his own
        while self.candidates.len() >= CANDIDATES {
            self.candidates.pop_first();
        }
        self.next += 1;
        self.candidates.insert(self.next, Candidate { side: Side::default(), since: now, listening: None });
        self.judge(self.next, pipe, link::knock_frame(), link, now);
    }

    /// Closes them all. Whoever is at their other ends connects again, and finds a hub that listens.
    pub(super) fn let_go(&mut self, link: &mut Link) {
        self.candidates.clear();
        if self.live.take().is_some() {
            link.pipe_down();
        }
    }

    /// Waits until a pipe has something, or takes something. May be dropped at any time.
    pub(super) async fn next(&mut self) -> Event {
        let Pipes { live, inbox, steps, .. } = self;
        let stepped = async {
            match steps.join_next().await {
                Some(step) => step.ok(),
                None => std::future::pending().await,
            }
        };
        let Some(Live { reader, writer, outbox, sent }) = live else { return Event(What::Stepped(stepped.await)) };
        Event(tokio::select! {
            result = reader.read(inbox) => match result {
                Ok(count) if count > 0 => What::Read(count),
                _ => What::Ended,
            },
            result = writer.write(&outbox[*sent..]), if *sent < outbox.len() => match result {
                Ok(count) if count > 0 => What::Written(count),
                // its last words may still be readable
                _ => What::Written(outbox.len() - *sent),
            },
            step = stepped => What::Stepped(step),
        })
    }

    /// Deals with what [`Pipes::next`] has found.
    pub(super) fn handle(&mut self, event: Event, link: &mut Link, now: Duration) {
        match event.0 {
            What::Read(count) => link.handle_bytes(now, &self.inbox[..count]),
            What::Written(count) => {
                if let Some(live) = &mut self.live {
                    live.sent += count;
                }
            }
            What::Ended => {
                self.live = None;
                link.pipe_down();
            }
            What::Stepped(Some(Step { candidate, pipe: Ok(pipe) })) if self.candidates.contains_key(&candidate) => {
                self.judge(candidate, pipe, Vec::new(), link, now);
            }
            What::Stepped(Some(step)) => {
                self.candidates.remove(&step.candidate);
            }
            What::Stepped(None) => {}
        }
    }

    /// Hears a candidate: it takes over, or is asked to go on.
    fn judge(&mut self, candidate: u64, pipe: Pipe, mut reply: Vec<u8>, link: &mut Link, now: Duration) {
        let Some(Candidate { side, since, listening }) = self.candidates.get_mut(&candidate) else { return };
        let late = now >= *since + PROOF_TIME;
        if link.handle_beside(side, now, &pipe.already_read, &mut reply) {
            *listening = None;
            self.candidates.remove(&candidate);
            self.live = Some(Live::new(pipe.reader, pipe.writer, reply));
        } else if late {
            // one that talks and talks without the key is in the way of others
            self.candidates.remove(&candidate);
        } else {
            *listening = Some(self.steps.spawn(step(candidate, pipe, reply)));
        }
    }

    /// Takes from the link what the live pipe has room for.
    pub(super) fn fill(&mut self, link: &mut Link, now: Duration) {
        let Some(live) = &mut self.live else { return };
        if live.sent == live.outbox.len() {
            live.outbox.clear();
            live.sent = 0;
            while live.outbox.len() < CHUNK && link.poll_transmit(now, &mut live.outbox) {}
        }
    }
}

impl Drop for Candidate {
    fn drop(&mut self) {
        if let Some(listening) = &self.listening {
            listening.abort();
        }
    }
}

impl Live {
    fn new(reader: Reader, writer: Writer, outbox: Vec<u8>) -> Live {
        Live { reader, writer, outbox, sent: 0 }
    }
}

/// What a pipe has or takes.
pub(super) struct Event(What);

enum What {
    Read(usize),
    Written(usize),
    Ended,
    Stepped(Option<Step>),
}

async fn step(candidate: u64, mut pipe: Pipe, mut reply: Vec<u8>) -> Step {
    let mut bytes = vec![0; CANDIDATE_CHUNK];
    let read = async {
        loop {
            pipe.writer.write_all(&reply).await?;
            pipe.writer.flush().await?;
            match timeout(SILENCE, pipe.reader.read(&mut bytes)).await {
                Ok(result) => return result,
                // a guest that has seen no cut does not greet by itself
                Err(_) => reply = link::knock_frame(),
            }
        }
    };
    let pipe = match read.await {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(count) => {
            bytes.truncate(count);
            pipe.already_read = bytes;
            Ok(pipe)
        }
        Err(error) => Err(error),
    };
    Step { candidate, pipe }
}

const CHUNK: usize = 128 * 1024;
const CANDIDATE_CHUNK: usize = 4096;
/// From one knock at a candidate that says nothing to the next.
const SILENCE: Duration = Duration::from_secs(1);
/// How long a candidate that talks may take to prove that it has the key.
const PROOF_TIME: Duration = Duration::from_secs(10);
/// Pipes that wait to be heard beside the live one: a machine has one, and another one while the host has not yet noticed that the first was cut.
const CANDIDATES: usize = 8;
