//! The conversation with a guest: drives a [`Link`] over a byte stream, between vch's own streams and the guest's process.
//!
//! It decides when the container is over: when its end was told, its output is written out to the last byte, and the VM has closed the pipe. It does not know
//! what the pipe is made of, nor what happens to the VM afterwards.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use wire::link::{self, Link};
use wire::message::{self, MAIN, Message, Ready, Request};
use wire::packet::ChannelId;
use wire::spec::TermSize;
use wire::status::{Exit, Failure};

use crate::signals::{SIGINT, SIGTERM};
use crate::streams::{self, Sink, Source, Writer};

/// How the conversation ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The process ended, and all of its output is written.
    Ended(Exit),
    /// The guest could not run it.
    Failed(Failure),
    /// The guest did not become ready in time.
    NotReady,
    /// Somebody asked it to end again and again.
    GivenUp,
    /// The pipe ended before the guest told how its process did.
    Lost,
    /// The guest and vch do not understand each other.
    Closed(link::Closed),
}

/// What vch asks of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    Signal(u8),
    Resize(TermSize),
}

/// The ends of the guest's streams.
pub struct Ends {
    /// Called once, when the process has started: before that, keys are the host's.
    pub stdin: Option<Box<dyn FnOnce() -> Source + Send>>,
    pub stdout: Sink,
    pub stderr: Sink,
}

/// The outcome and what was learned on the way.
#[derive(Debug)]
pub struct Report {
    pub outcome: Outcome,
    /// What the guest said of its boot, if it came so far.
    pub ready: Option<Ready>,
    /// The pipe was still open at the end.
    pub pipe_is_up: bool,
    /// All that the guest wrote has come.
    pub output_is_complete: bool,
    /// A stream of ours that failed for another reason than that nobody reads it.
    pub write_error: Option<std::io::Error>,
    /// What the hypervisor said last.
    pub complaint: Option<String>,
}

impl Report {
    /// The machine does not end by itself.
    pub fn machine_stays(&self) -> bool {
        self.pipe_is_up
    }

    pub fn with_complaint(self, complaint: Option<String>) -> Report {
        Report { complaint, ..self }
    }
}

/// Talks with a guest over `link` until it is over. `start_by` is when it has to be ready.
pub async fn converse(
    (mut reader, mut writer): (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
    link: Link,
    ends: Ends,
    commands: &mut mpsc::UnboundedReceiver<Command>,
    start_by: Instant,
) -> Report {
    let mut talk = Conversation::new(link, ends);
    let mut inbox = vec![0; PIPE_CHUNK];
    let mut outbox = Vec::new();
    let mut sent = 0;
    loop {
        let over = talk.pump();
        if talk.pipe_is_up && sent == outbox.len() {
            outbox.clear();
            sent = 0;
            let now = talk.now();
            while outbox.len() < PIPE_CHUNK && talk.link.poll_transmit(now, &mut outbox) {}
        }
        if let Some(outcome) = over {
            return talk.report(outcome);
        }
        let wake_at = talk.wake_at(start_by);
        tokio::select! {
            result = reader.read(&mut inbox), if talk.pipe_is_up => match result {
                Ok(count) if count > 0 => {
                    let now = talk.now();
                    talk.link.handle_bytes(now, &inbox[..count]);
                }
                _ => talk.pipe_is_up = false,
            },
            result = writer.write(&outbox[sent..]), if talk.pipe_is_up && sent < outbox.len() => match result {
                Ok(count) => sent += count,
                // its last words may still be readable
                Err(_) => sent = outbox.len(),
            },
            result = talk.stdout.writer.done() => talk.stdout.written(result, &mut talk.link, &mut talk.write_error),
            result = talk.stderr.writer.done() => talk.stderr.written(result, &mut talk.link, &mut talk.write_error),
            chunk = next_chunk(&mut talk.stdin), if talk.pending.is_empty() => talk.input(chunk),
            Some(command) = commands.recv() => talk.command(command),
            () = sleep_until(wake_at) => {
                if talk.ready.is_none() && talk.ending.is_none() && Instant::now() >= start_by {
                    return talk.report(Outcome::NotReady);
                }
                let now = talk.now();
                talk.link.handle_timeout(now);
            }
        }
    }
}

/// One of the guest's output streams on its way to ours.
struct Output {
    channel: ChannelId,
    writer: Writer,
    /// Nobody reads it on our side: what the guest still says is not missed.
    given_up: bool,
}

impl Output {
    fn pump(&mut self, link: &Link) {
        let bytes = link.readable(self.channel);
        if !self.writer.is_busy() && !bytes.is_empty() {
            self.writer.start(bytes);
        }
    }

    /// Consuming only what is written out is what makes a slow reader slow the container.
    fn written(&mut self, result: std::io::Result<usize>, link: &mut Link, failed: &mut Option<std::io::Error>) {
        match result {
            Ok(count) => link.consume(self.channel, count),
            Err(error) => {
                link.discard(self.channel);
                self.given_up = true;
                if error.kind() != std::io::ErrorKind::BrokenPipe {
                    failed.get_or_insert(error);
                }
            }
        }
    }

    fn is_complete(&self, link: &Link) -> bool {
        self.given_up || link.is_ended(self.channel)
    }

    fn is_written_out(&self, link: &Link) -> bool {
        !self.writer.is_busy() && link.readable(self.channel).is_empty()
    }
}

struct Conversation {
    link: Link,
    began: Instant,
    pipe_is_up: bool,
    stdin_channel: ChannelId,
    open_stdin: Option<Box<dyn FnOnce() -> Source + Send>>,
    stdin: Option<mpsc::Receiver<Vec<u8>>>,
    /// Input that the link has no room for.
    pending: Vec<u8>,
    stdout: Output,
    stderr: Output,
    ready: Option<Ready>,
    started: bool,
    /// Commands that came before the process was there.
    early: Vec<Command>,
    next_request: u64,
    /// When it was asked to end, of late.
    asked_to_end: Vec<Instant>,
    ending: Option<Outcome>,
    /// When the guest, which has said how it ended, must have closed the pipe.
    leave_by: Option<Instant>,
    write_error: Option<std::io::Error>,
}

impl Conversation {
    fn new(mut link: Link, ends: Ends) -> Conversation {
        let channels = MAIN.streams();
        for channel in [channels.stdin, channels.stdout, channels.stderr] {
            link.open(channel);
        }
        if ends.stdin.is_none() {
            link.finish(channels.stdin);
        }
        link.pipe_up(Duration::ZERO);
        Conversation {
            link,
            began: Instant::now(),
            pipe_is_up: true,
            stdin_channel: channels.stdin,
            open_stdin: ends.stdin,
            stdin: None,
            pending: Vec::new(),
            stdout: Output { channel: channels.stdout, writer: Writer::new(ends.stdout), given_up: false },
            stderr: Output { channel: channels.stderr, writer: Writer::new(ends.stderr), given_up: false },
            ready: None,
            started: false,
            early: Vec::new(),
            next_request: 1,
            asked_to_end: Vec::new(),
            ending: None,
            leave_by: None,
            write_error: None,
        }
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Moves everything that can be moved without waiting; tells the outcome once it is all over.
    fn pump(&mut self) -> Option<Outcome> {
        while let Some(event) = self.link.poll_event() {
            match event {
                link::Event::Message(bytes) => self.message(&bytes),
                link::Event::Reset(channel, _) if channel == self.stdin_channel => self.end_stdin(),
                link::Event::Closed(why) => return Some(Outcome::Closed(why)),
                _ => {}
            }
        }
        if !self.pending.is_empty() {
            let taken = self.link.write(self.stdin_channel, &self.pending);
            self.pending.drain(..taken);
        }
        self.stdout.pump(&self.link);
        self.stderr.pump(&self.link);

        let written_out = self.stdout.is_written_out(&self.link) && self.stderr.is_written_out(&self.link);
        let told = match &self.ending {
            Some(Outcome::Ended(_)) => self.output_is_complete(),
            told => told.is_some(),
        };
        if told && written_out && self.leave_by.is_none() {
            self.leave_by = Some(Instant::now() + LEAVE_TIME);
        }
        let late = self.leave_by.is_some_and(|by| by <= Instant::now());
        if (!self.pipe_is_up && written_out) || late {
            return Some(self.ending.take().unwrap_or(Outcome::Lost));
        }
        (self.asked_to_end.len() >= INSISTENCE).then_some(Outcome::GivenUp)
    }

    fn output_is_complete(&self) -> bool {
        self.stdout.is_complete(&self.link) && self.stderr.is_complete(&self.link)
    }

    fn message(&mut self, bytes: &[u8]) {
        match Message::decode(bytes) {
            Ok(Message::Event(message::Event::Ready(ready))) => self.ready = Some(ready),
            Ok(Message::Event(message::Event::Started { session: MAIN, .. })) => self.start(),
            Ok(Message::Event(message::Event::Ended { session: MAIN, exit })) => {
                self.ending = Some(Outcome::Ended(exit));
                self.end_stdin();
            }
            Ok(Message::Event(message::Event::Failed(failure))) => {
                self.ending = Some(Outcome::Failed(failure));
                self.end_stdin();
            }
            // replies need no answer; a later guest says more than we know, and it is not our business
            _ => {}
        }
    }

    fn start(&mut self) {
        self.started = true;
        self.stdin = self.open_stdin.take().map(|open| streams::read(open()));
        for command in std::mem::take(&mut self.early) {
            self.send(command);
        }
    }

    fn command(&mut self, command: Command) {
        if matches!(command, Command::Signal(SIGINT | SIGTERM)) {
            let now = Instant::now();
            self.asked_to_end.retain(|&at| now - at < INSISTENCE_TIME);
            self.asked_to_end.push(now);
        }
        match self.started {
            true => self.send(command),
            false => self.early.push(command),
        }
    }

    fn send(&mut self, command: Command) {
        let request = match command {
            Command::Signal(signal) => Request::Signal { session: MAIN, signal },
            Command::Resize(size) => Request::Resize { session: MAIN, size },
        };
        self.link.send_message(&Message::Request { id: self.next_request, request }.encode());
        self.next_request += 1;
    }

    fn input(&mut self, chunk: Option<Vec<u8>>) {
        match chunk {
            Some(chunk) => self.pending = chunk,
            None => self.end_stdin(),
        }
    }

    fn end_stdin(&mut self) {
        self.open_stdin = None;
        self.stdin = None;
        self.pending.clear();
        self.link.finish(self.stdin_channel);
    }

    fn wake_at(&self, start_by: Instant) -> Instant {
        let link = self.link.poll_timeout().map(|at| self.began + at);
        let start = (self.ready.is_none() && self.ending.is_none()).then_some(start_by);
        let times = [link, start, self.leave_by];
        times.into_iter().flatten().min().unwrap_or_else(|| Instant::now() + FAR)
    }

    fn report(self, outcome: Outcome) -> Report {
        Report {
            outcome,
            output_is_complete: self.output_is_complete(),
            ready: self.ready,
            pipe_is_up: self.pipe_is_up,
            write_error: self.write_error,
            complaint: None,
        }
    }
}

async fn next_chunk(stdin: &mut Option<mpsc::Receiver<Vec<u8>>>) -> Option<Vec<u8>> {
    match stdin {
        Some(chunks) => chunks.recv().await,
        None => std::future::pending().await,
    }
}

const PIPE_CHUNK: usize = 128 * 1024;
/// From the end of the output to the end of the VM: it unmounts and powers off.
const LEAVE_TIME: Duration = Duration::from_secs(10);
/// Who asks a container to end so often in so short a time means it, whatever the container makes of signals. Docker counts three, too.
const INSISTENCE: usize = 3;
const INSISTENCE_TIME: Duration = Duration::from_secs(2);
/// A timer that never matters.
const FAR: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests;
