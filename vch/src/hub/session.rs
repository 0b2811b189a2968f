//! One session of the guest, as the hub has it: its clients, its input, and how it ended.
//!
//! It decides who gets what next, and when the guest is told that somebody, or nobody, listens. It sends no message itself: [`super::actor`] does.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;
use wire::link::{Link, Tuning};
use wire::message::SessionId;
use wire::packet::ChannelId;
use wire::status::Exit;

use super::HubError;
use super::attachment::{AttachOptions, Offsets, Outlet, Output, Stream};
use super::output::{OutputStream, Reader, Unread};

/// A session and its clients.
#[derive(Debug)]
pub(super) struct Session {
    stdin: ChannelId,
    stdout: OutputStream,
    stderr: OutputStream,
    attached: Attached,
    clients: BTreeMap<u64, Listener>,
    input: Input,
    pub(super) exit: Option<Exit>,
    pub(super) waiting: Vec<oneshot::Sender<Result<Exit, HubError>>>,
}

/// Whether its output goes to the host: what the guest was told last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attached {
    No,
    Yes,
    /// It does, and nobody has asked for it since.
    Unclaimed(Instant),
}

/// What the guest has to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Attach,
    Detach,
}

#[derive(Debug)]
struct Listener {
    outlet: Outlet,
    stdout: Option<Reader>,
    stderr: Option<Reader>,
    /// It writes, and was told that the guest has received so much.
    stdin_told: Option<u64>,
    /// It has heard the last word.
    is_done: bool,
}

/// Standard input on its way to the link.
#[derive(Debug, Default)]
struct Input {
    waiting: VecDeque<Write>,
    /// Nothing more goes there.
    is_closed: bool,
}

#[derive(Debug)]
enum Write {
    Bytes { client: u64, bytes: Vec<u8>, written: usize, done: oneshot::Sender<Result<u64, HubError>> },
    End,
}

impl Session {
    /// A session whose channels are open from now on.
    pub(super) fn new(id: SessionId, attached: bool, link: &mut Link) -> Session {
        let channels = id.streams();
        for channel in [channels.stdin, channels.stdout, channels.stderr] {
            link.open(channel);
        }
        Session {
            stdin: channels.stdin,
            stdout: OutputStream::new(channels.stdout),
            stderr: OutputStream::new(channels.stderr),
            attached: if attached { Attached::Unclaimed(Instant::now()) } else { Attached::No },
            clients: BTreeMap::new(),
            input: Input::default(),
            exit: None,
            waiting: Vec::new(),
        }
    }

    pub(super) fn is_input(&self, channel: ChannelId) -> bool {
        self.stdin == channel
    }

    // -- clients

    /// Where a client with these options begins.
    pub(super) fn offsets(&self, options: AttachOptions, tuning: Tuning, link: &Link) -> Result<Offsets, HubError> {
        let alone = self.clients.is_empty();
        let start = |stream: &OutputStream, name, asked: Option<u64>| {
            let Some(asked) = asked else { return Ok(stream.start(link, alone)) };
            // a guest that goes on after a restart of the hub has at most a window under way
            let first = link.consumed(stream.channel);
            let last = first + u64::from(tuning.window);
            match (first..=last).contains(&asked) {
                true => Ok(asked),
                false => Err(HubError::Offset { stream: name, asked, first, last }),
            }
        };
        Ok(Offsets {
            stdin: link.written(self.stdin),
            stdout: start(
                &self.stdout,
                Stream::Stdout,
                options.from.filter(|_| options.stdout).map(|from| from.stdout),
            )?,
            stderr: start(
                &self.stderr,
                Stream::Stderr,
                options.from.filter(|_| options.stderr).map(|from| from.stderr),
            )?,
        })
    }

    /// A client comes. Tells what the guest has to hear of it.
    pub(super) fn join(&mut self, number: u64, outlet: Outlet, options: AttachOptions, at: Offsets) -> Option<Wish> {
        let listener = Listener {
            outlet,
            stdout: options.stdout.then(|| Reader::new(at.stdout)),
            stderr: options.stderr.then(|| Reader::new(at.stderr)),
            stdin_told: options.stdin.then_some(at.stdin),
            is_done: false,
        };
        self.clients.insert(number, listener);
        let was = std::mem::replace(&mut self.attached, Attached::Yes);
        (was == Attached::No && self.exit.is_none()).then_some(Wish::Attach)
    }

    /// A client goes, with what it has not yet written.
    pub(super) fn leave(&mut self, number: u64) -> Option<Wish> {
        self.clients.remove(&number)?;
        self.input.waiting.retain(|write| !matches!(write, Write::Bytes { client, .. } if *client == number));
        self.release()
    }

    /// The last client is gone: the process is not to be held up.
    fn release(&mut self) -> Option<Wish> {
        if !self.clients.is_empty() || self.attached == Attached::No {
            return None;
        }
        self.attached = Attached::No;
        self.exit.is_none().then_some(Wish::Detach)
    }

    /// Sends all clients away.
    pub(super) fn dismiss(&mut self, reason: &str) {
        for client in std::mem::take(&mut self.clients).into_values() {
            client.last(Output::Detached(reason.to_owned()));
        }
        self.attached = Attached::No;
        self.close_input(&HubError::InputClosed);
    }

    pub(super) fn reader(&mut self, client: u64, stream: Stream) -> Option<&mut Reader> {
        let client = self.clients.get_mut(&client)?;
        match stream {
            Stream::Stdout => client.stdout.as_mut(),
            Stream::Stderr => client.stderr.as_mut(),
        }
    }

    // -- input

    pub(super) fn write(&mut self, client: u64, bytes: Vec<u8>, done: oneshot::Sender<Result<u64, HubError>>) {
        let writes = self.clients.get(&client).is_some_and(|client| client.stdin_told.is_some());
        if self.input.is_closed || !writes {
            let _gone = done.send(Err(HubError::InputClosed));
        } else {
            self.input.waiting.push_back(Write::Bytes { client, bytes, written: 0, done });
        }
    }

    pub(super) fn end_input(&mut self, client: u64) {
        if self.clients.contains_key(&client) {
            self.input.waiting.push_back(Write::End);
        }
    }

    /// Nobody reads it any more.
    pub(super) fn close_input(&mut self, why: &HubError) {
        self.input.is_closed = true;
        for write in self.input.waiting.drain(..) {
            if let Write::Bytes { done, .. } = write {
                let _gone = done.send(Err(why.clone()));
            }
        }
    }

    fn move_input(&mut self, link: &mut Link) {
        // by the hub before this one, or by the guest
        if link.is_finished(self.stdin) && !self.input.is_closed {
            self.close_input(&HubError::InputClosed);
        }
        while let Some(write) = self.input.waiting.front_mut() {
            if let Write::Bytes { bytes, written, .. } = write {
                *written += link.write(self.stdin, &bytes[*written..]);
                if *written < bytes.len() {
                    return;
                }
            }
            match self.input.waiting.pop_front() {
                Some(Write::Bytes { done, .. }) => {
                    let _gone = done.send(Ok(link.written(self.stdin)));
                }
                Some(Write::End) => {
                    link.finish(self.stdin);
                    self.close_input(&HubError::InputClosed);
                }
                None => return,
            }
        }
    }

    // -- the end

    pub(super) fn ended(&mut self, exit: &Exit) {
        for waiting in self.waiting.drain(..) {
            let _gone = waiting.send(Ok(exit.clone()));
        }
        self.exit = Some(exit.clone());
        self.close_input(&HubError::InputClosed);
    }

    /// Nothing more comes from the guest: clients hear it behind what has come.
    pub(super) fn over(&mut self, why: &HubError) {
        for waiting in self.waiting.drain(..) {
            let _gone = waiting.send(Err(why.clone()));
        }
        self.close_input(why);
    }

    // -- at every turn

    /// Moves all that can be moved without waiting. `over` is why nothing more will come.
    pub(super) fn settle(&mut self, link: &mut Link, over: Option<&HubError>, now: Instant) {
        self.move_input(link);
        for client in self.clients.values_mut() {
            client.hear(&self.stdout, &self.stderr, link.delivered(self.stdin), link);
            client.conclude(&self.stdout, &self.stderr, self.exit.as_ref(), over, link);
        }
        let unread = match self.attached {
            Attached::Unclaimed(_) if over.is_none() => Unread::Hold,
            Attached::Unclaimed(_) | Attached::Yes | Attached::No => Unread::Drop,
        };
        self.stdout.consume(self.clients.values().filter_map(|client| client.stdout.as_ref()), unread, link);
        self.stderr.consume(self.clients.values().filter_map(|client| client.stderr.as_ref()), unread, link);
        self.stdout.watch(self.clients.values_mut().filter_map(|client| client.stdout.as_mut()), link, now);
        self.stderr.watch(self.clients.values_mut().filter_map(|client| client.stderr.as_mut()), link, now);
    }

    /// Sends away who holds others up, and gives up who does not come back.
    pub(super) fn handle_time(&mut self, link: &Link, now: Instant) -> Option<Wish> {
        let (stdout, stderr) = (&self.stdout, &self.stderr);
        let overdue = |client: &Listener| {
            let one = |stream: &OutputStream, reader: &Option<Reader>| stream.overdue(reader.as_ref()?, link, now);
            one(stdout, &client.stdout).or_else(|| one(stderr, &client.stderr))
        };
        let late: Vec<(u64, u64)> =
            self.clients.iter().filter_map(|(&number, client)| Some((number, overdue(client)?))).collect();
        for (number, behind) in late {
            if let Some(client) = self.clients.remove(&number) {
                client.last(Output::Detached(format!("it is {} KiB behind and others wait", behind / 1024)));
            }
        }
        match self.attached {
            Attached::Unclaimed(since) if since + RECLAIM <= now => self.release(),
            _ => None,
        }
    }

    /// When to call [`Session::handle_time`].
    pub(super) fn wake_at(&self) -> Option<Instant> {
        let unclaimed = match self.attached {
            Attached::Unclaimed(since) => Some(since + RECLAIM),
            Attached::No | Attached::Yes => None,
        };
        let readers = self.clients.values().flat_map(|client| [&client.stdout, &client.stderr]).flatten();
        readers.filter_map(Reader::awaited_until).chain(unclaimed).min()
    }
}

impl Listener {
    /// Gives it what has come, as far as it has room: a piece of each stream in turn.
    fn hear(&mut self, stdout: &OutputStream, stderr: &OutputStream, delivered: u64, link: &Link) {
        if self.is_done {
            return;
        }
        if self.stdin_told.is_some_and(|told| told < delivered) && self.outlet.has_room() {
            self.stdin_told = Some(delivered);
            self.outlet.send(Output::StdinTaken(delivered));
        }
        loop {
            let mut moved = false;
            if let Some(reader) = &mut self.stdout
                && self.outlet.has_room()
                && let Some((offset, bytes)) = stdout.next(reader, link)
            {
                self.outlet.send(Output::Stdout { offset, bytes });
                moved = true;
            }
            if let Some(reader) = &mut self.stderr
                && self.outlet.has_room()
                && let Some((offset, bytes)) = stderr.next(reader, link)
            {
                self.outlet.send(Output::Stderr { offset, bytes });
                moved = true;
            }
            if !moved {
                return;
            }
        }
    }

    /// Tells the end, behind the last byte.
    fn conclude(
        &mut self,
        stdout: &OutputStream,
        stderr: &OutputStream,
        exit: Option<&Exit>,
        over: Option<&HubError>,
        link: &Link,
    ) {
        if self.is_done {
            return;
        }
        let complete = |stream: &OutputStream, reader: &Option<Reader>| {
            reader.as_ref().is_none_or(|reader| stream.is_complete(reader, link))
        };
        let told = |stream: &OutputStream, reader: &Option<Reader>| {
            reader.as_ref().is_none_or(|reader| stream.is_told(reader, link))
        };
        let last = match (exit, over) {
            (Some(exit), _) if complete(stdout, &self.stdout) && complete(stderr, &self.stderr) => {
                Output::Ended(exit.clone())
            }
            (_, Some(why)) if told(stdout, &self.stdout) && told(stderr, &self.stderr) => {
                Output::Detached(why.to_string())
            }
            _ => return,
        };
        self.is_done = true;
        self.outlet.send(last);
    }

    fn last(self, output: Output) {
        if !self.is_done {
            self.outlet.send(output);
        }
    }
}

/// How long output is held for clients that have not come back since the hub, or the session, began.
pub(super) const RECLAIM: Duration = Duration::from_secs(30);
