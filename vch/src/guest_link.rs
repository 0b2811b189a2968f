//! The conversation with the guest of `vch run`: the one client of its [`Hub`], between vch's own streams and the guest's process.
//!
//! It decides when the container is over: when its end was told, its output is written out to the last byte, and the VM has closed the pipe. It does not know
//! what the pipe is made of, nor what happens to the VM afterwards.

use std::io;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use wire::link;
use wire::message::{MAIN, Ready, Request};
use wire::spec::TermSize;
use wire::status::{Exit, Failure};

use crate::hub::{
    AttachOptions, Attachment, Client, Events, GuestStatus, Hub, HubError, Identity, MainState, Output, PipeState,
    Stream,
};
use crate::pipe::{Reader, Writer as PipeWriter};
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
    /// What the guest's kernel had said when something failed.
    pub kernel_log: Option<String>,
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

/// Talks with a guest over one pipe until it is over. `start_by` is when it has to be ready.
pub async fn converse(
    (reader, writer): (Reader, PipeWriter),
    identity: Identity,
    ends: Ends,
    commands: &mut mpsc::UnboundedReceiver<Command>,
    start_by: Instant,
) -> Report {
    let hub = Hub::start(identity);
    hub.pipe(reader, writer, Vec::new()).await;
    let mut talk = Conversation::new(hub.clone(), ends, start_by);
    let options = AttachOptions { stdin: true, stdout: true, stderr: true, from: None };
    let attached = hub.attach(MAIN, options);
    tokio::pin!(attached);
    loop {
        talk.stdout.pump();
        talk.stderr.pump();
        if let Some(outcome) = talk.outcome() {
            return talk.report(outcome);
        }
        let wake_at = talk.wake_at();
        tokio::select! {
            result = &mut attached, if talk.hearing == Hearing::NotYet => talk.attached(result),
            output = next(&mut talk.events) => talk.hear(output),
            // the hub is there as long as we are
            _ = talk.status.changed() => talk.look(),
            result = talk.stdout.writer.done() => talk.stdout.written(result, talk.client.as_ref(), &mut talk.write_error),
            result = talk.stderr.writer.done() => talk.stderr.written(result, talk.client.as_ref(), &mut talk.write_error),
            Some(command) = commands.recv() => talk.command(command),
            () = sleep_until(wake_at) => {}
        }
    }
}

/// One of the guest's output streams on its way to ours.
struct Outlet {
    stream: Stream,
    writer: Writer,
    /// What has come and is not yet being written: at most what the hub holds for us.
    pending: Vec<u8>,
    /// The absolute offset up to which it is written.
    written: u64,
    /// Nobody reads it on our side: what the guest still says is not missed.
    given_up: bool,
}

impl Outlet {
    fn new(stream: Stream, sink: Sink) -> Outlet {
        Outlet { stream, writer: Writer::new(sink), pending: Vec::new(), written: 0, given_up: false }
    }

    fn hear(&mut self, bytes: &[u8]) {
        if !self.given_up {
            self.pending.extend_from_slice(bytes);
        }
    }

    fn pump(&mut self) {
        if !self.writer.is_busy() && !self.pending.is_empty() {
            self.writer.start(std::mem::take(&mut self.pending));
        }
    }

    /// Taking only what is written out is what makes a slow reader slow the container.
    fn written(&mut self, result: io::Result<usize>, client: Option<&Client>, failed: &mut Option<io::Error>) {
        match result {
            Ok(count) => {
                self.written += count as u64;
                client.inspect(|client| client.taken(self.stream, self.written));
            }
            Err(error) => {
                client.inspect(|client| client.give_up(self.stream));
                self.given_up = true;
                self.pending.clear();
                if error.kind() != io::ErrorKind::BrokenPipe {
                    failed.get_or_insert(error);
                }
            }
        }
    }

    fn is_written_out(&self) -> bool {
        !self.writer.is_busy() && self.pending.is_empty()
    }
}

/// How far we have heard the guest's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hearing {
    NotYet,
    Listening,
    /// All of its output has come.
    Complete,
    /// Nothing more will come.
    CutOff,
}

struct Conversation {
    hub: Hub,
    status: watch::Receiver<GuestStatus>,
    hearing: Hearing,
    events: Option<Events>,
    client: Option<Client>,
    open_stdin: Option<Box<dyn FnOnce() -> Source + Send>>,
    /// Passes our input on.
    stdin: Option<JoinHandle<()>>,
    stdout: Outlet,
    stderr: Outlet,
    start_by: Instant,
    started: bool,
    /// Commands that came before the process was there.
    early: Vec<Command>,
    /// When it was asked to end, of late.
    asked_to_end: Vec<Instant>,
    /// When the guest, which has said how it ended, must have closed the pipe.
    leave_by: Option<Instant>,
    write_error: Option<io::Error>,
}

impl Conversation {
    fn new(hub: Hub, ends: Ends, start_by: Instant) -> Conversation {
        Conversation {
            status: hub.watch(),
            hub,
            hearing: Hearing::NotYet,
            events: None,
            client: None,
            open_stdin: ends.stdin,
            stdin: None,
            stdout: Outlet::new(Stream::Stdout, ends.stdout),
            stderr: Outlet::new(Stream::Stderr, ends.stderr),
            start_by,
            started: false,
            early: Vec::new(),
            asked_to_end: Vec::new(),
            leave_by: None,
            write_error: None,
        }
    }

    fn attached(&mut self, result: Result<Attachment, HubError>) {
        let Ok(Attachment { events, client, offsets }) = result else {
            // the status says why
            self.hearing = Hearing::CutOff;
            return;
        };
        self.hearing = Hearing::Listening;
        (self.stdout.written, self.stderr.written) = (offsets.stdout, offsets.stderr);
        if self.open_stdin.is_none() {
            client.end_stdin();
        }
        self.events = Some(events);
        self.client = Some(client);
        self.look();
    }

    fn hear(&mut self, output: Option<Output>) {
        match output {
            Some(Output::Stdout { bytes, .. }) => self.stdout.hear(&bytes),
            Some(Output::Stderr { bytes, .. }) => self.stderr.hear(&bytes),
            Some(Output::StdinTaken(_)) => {}
            Some(Output::Ended(_)) => self.hearing = Hearing::Complete,
            Some(Output::Detached(_)) | None => {
                self.events = None;
                self.hearing = Hearing::CutOff;
            }
        }
    }

    /// The guest's state is another one.
    fn look(&mut self) {
        let GuestStatus { pipe, main, .. } = self.status.borrow_and_update().clone();
        if pipe == PipeState::Down {
            // it was the only one
            self.hub.machine_ended("the pipe ended");
        }
        match main {
            MainState::Running { .. } if !self.started => self.start(),
            MainState::Booting | MainState::Waiting | MainState::Running { .. } => {}
            _ => self.end_stdin(),
        }
    }

    fn start(&mut self) {
        let Some(client) = &self.client else { return };
        self.started = true;
        self.stdin = self.open_stdin.take().map(|open| tokio::spawn(pass_on(streams::read(open()), client.clone())));
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

    fn send(&self, command: Command) {
        self.hub.post(match command {
            Command::Signal(signal) => Request::Signal { session: MAIN, signal },
            Command::Resize(size) => Request::Resize { session: MAIN, size },
        });
    }

    fn end_stdin(&mut self) {
        self.open_stdin = None;
        if let Some(stdin) = self.stdin.take() {
            stdin.abort();
        }
    }

    /// What the guest told of its end.
    fn ending(&self) -> Option<Outcome> {
        match &self.status.borrow().main {
            MainState::Ended(exit) => Some(Outcome::Ended(exit.clone())),
            MainState::Failed(failure) => Some(Outcome::Failed(failure.clone())),
            MainState::Closed(why) => Some(Outcome::Closed(why.clone())),
            _ => None,
        }
    }

    /// The outcome, once it is all over.
    fn outcome(&mut self) -> Option<Outcome> {
        let ending = self.ending();
        let written_out = self.stdout.is_written_out() && self.stderr.is_written_out();
        let told = match &ending {
            Some(Outcome::Closed(_)) => return ending,
            Some(Outcome::Ended(_)) => self.hearing == Hearing::Complete,
            told => told.is_some(),
        };
        let now = Instant::now();
        if told && written_out && self.leave_by.is_none() {
            self.leave_by = Some(now + LEAVE_TIME);
        }
        let heard_all = matches!(self.hearing, Hearing::Complete | Hearing::CutOff) && written_out;
        let has_left = self.status.borrow().pipe == PipeState::Down;
        let is_late = self.leave_by.is_some_and(|by| by <= now);
        if (has_left && heard_all) || is_late {
            return Some(ending.unwrap_or(Outcome::Lost));
        }
        if self.asked_to_end.len() >= INSISTENCE {
            return Some(Outcome::GivenUp);
        }
        (self.is_starting() && self.start_by <= now).then_some(Outcome::NotReady)
    }

    fn is_starting(&self) -> bool {
        self.status.borrow().ready.is_none() && self.ending().is_none()
    }

    fn wake_at(&self) -> Instant {
        let start = self.is_starting().then_some(self.start_by);
        [start, self.leave_by].into_iter().flatten().min().unwrap_or_else(|| Instant::now() + FAR)
    }

    fn report(mut self, outcome: Outcome) -> Report {
        self.end_stdin();
        let status = self.status.borrow().clone();
        Report {
            outcome,
            output_is_complete: self.hearing == Hearing::Complete,
            ready: status.ready,
            kernel_log: status.kernel_log,
            pipe_is_up: matches!(status.pipe, PipeState::Unproved | PipeState::Open),
            write_error: self.write_error,
            complaint: None,
        }
    }
}

async fn next(events: &mut Option<Events>) -> Option<Output> {
    match events {
        Some(events) => events.next().await,
        None => std::future::pending().await,
    }
}

/// Our input to the guest, until its end or until nobody there wants it.
async fn pass_on(mut chunks: mpsc::Receiver<Vec<u8>>, client: Client) {
    while let Some(chunk) = chunks.recv().await {
        if client.write_stdin(chunk).await.is_err() {
            return;
        }
    }
    client.end_stdin();
}

/// From the end of the output to the end of the VM: it unmounts and powers off.
const LEAVE_TIME: Duration = Duration::from_secs(10);
/// Who asks a container to end so often in so short a time means it, whatever the container makes of signals. Docker counts three, too.
const INSISTENCE: usize = 3;
const INSISTENCE_TIME: Duration = Duration::from_secs(2);
/// A timer that never matters.
const FAR: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests;
