//! A session's streams, between serve and ours: attach, exec, and the archives of copy.
//!
//! ```text
//! connect --request--> started --frames--> ended, all written out --finished--> over
//!    ^                                |
//!    +--------- the connection breaks-+   attach again, from where we are
//! ```
//!
//! It decides what a signal, a key and a broken connection mean. What is kept for another try is decided in [`super::input`] and [`super::output`].

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep_until, timeout};
use wire::status::Exit;

use super::input::{Input, Open, Progress};
use super::output::Output;
use super::{Connection, Patience, connect, may_pass};
use crate::control::{Address, Frame, Offsets, Request, Started, Stream};
use crate::detach::{Keys, Watch};
use crate::signals::{self, Caught, SIGWINCH};
use crate::streams::{Sink, Source};
use crate::terminal;

/// The ends of a session's streams.
pub(super) struct Ends {
    pub(super) stdin: Option<Open>,
    pub(super) stdout: Sink,
    pub(super) stderr: Sink,
}

/// How the person at our streams is treated.
#[derive(Clone, Debug, Default)]
pub(super) struct Manners {
    /// Our terminal becomes the session's, and these keys leave it.
    pub(super) keys: Option<Keys>,
    /// Signals are for the session, if it has no terminal.
    pub(super) signals_pass: bool,
}

/// How it ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The session did, and its output is written out.
    Exited(Exit),
    /// The detach keys were pressed.
    Detached,
    /// A signal told us to end.
    Signaled(u8),
}

impl Ending {
    /// The exit code of the command.
    pub(super) fn code(self) -> u8 {
        match self {
            Ending::Exited(exit) => exit.ending.code(),
            Ending::Detached => {
                eprintln!("read escape sequence");
                0
            }
            Ending::Signaled(number) => 128 + number,
        }
    }
}

/// Our own streams, without std's buffers and locks.
pub(super) fn own_ends(stdin: bool) -> Result<Ends> {
    let own = |fd: &dyn AsFd| fd.as_fd().try_clone_to_owned().map(File::from).context("cannot use a standard stream");
    let input = own(&io::stdin())?;
    Ok(Ends {
        stdin: stdin.then(|| Box::new(move || Box::new(input) as Source) as Open),
        stdout: Box::new(own(&io::stdout())?),
        stderr: Box::new(own(&io::stderr())?),
    })
}

/// Takes part in a session, until it is over, across the ends of serve. `request` creates it or attaches to it.
pub(super) async fn take_part(address: &Address, request: Request, ends: Ends, manners: Manners) -> Result<Ending> {
    let mut caught = signals::catch().context("cannot catch signals")?;
    let mut talk = Talk::new(request, ends, manners);
    let _restore = terminal::Restore;
    let mut connection = connect(address).await?;
    let mut patience = None;
    loop {
        match talk.over(connection, &mut caught).await? {
            Pause::Over(ending) => return Ok(ending),
            Pause::Broken { progress } => {
                if talk.exit.is_some() {
                    return talk.write_out().await;
                }
                if talk.session.is_none() {
                    bail!("vch serve ended before it told whether this was begun");
                }
                if progress {
                    patience = None;
                }
            }
        }
        let patience = patience.get_or_insert_with(Patience::begin);
        connection = tokio::select! {
            connection = patience.reconnect(address) => connection?,
            signal = signals::ending(&mut caught) => return Ok(Ending::Signaled(signal)),
        };
    }
}

/// Why a connection is no longer used.
enum Pause {
    Over(Ending),
    /// It broke, or serve does not know the VM yet. There was progress if the attachment had begun.
    Broken {
        progress: bool,
    },
}

struct Talk {
    request: Request,
    manners: Manners,
    session: Option<Started>,
    input: Input,
    stdout: Output,
    stderr: Output,
    exit: Option<Exit>,
    /// The detach keys were pressed: what was typed before has so long to arrive.
    leave_by: Option<Instant>,
}

impl Talk {
    fn new(request: Request, ends: Ends, manners: Manners) -> Talk {
        Talk {
            request,
            manners,
            session: None,
            input: Input::new(ends.stdin),
            stdout: Output::new(Stream::Stdout, ends.stdout),
            stderr: Output::new(Stream::Stderr, ends.stderr),
            exit: None,
            leave_by: None,
        }
    }

    /// Uses one connection, from its request on, for as long as it goes.
    async fn over(&mut self, mut connection: Connection, caught: &mut Caught) -> Result<Pause> {
        let mut begun = false;
        if connection.request(&self.next_request()).await.is_err() {
            return Ok(Pause::Broken { progress: false });
        }
        let Connection { stream, mut decoder } = connection;
        let (mut reader, mut writer) = stream.into_split();
        let (mut inbox, mut outbox, mut sent) = (vec![0; 256 * 1024], Vec::new(), 0);
        loop {
            while let Some(frame) = decoder.next_frame()? {
                match frame {
                    Frame::Error(problem) if self.session.is_some() && !begun && may_pass(problem.kind) => {
                        return Ok(Pause::Broken { progress: false });
                    }
                    Frame::Started(started) => {
                        self.begin(started, &mut outbox)?;
                        begun = true;
                    }
                    frame => self.hear(frame)?,
                }
            }
            if let Some(exit) = &self.exit
                && self.is_written_out()
            {
                Frame::Finished.encode(&mut outbox);
                let exit = exit.clone();
                // the process has ended, whether serve hears of this or not
                let _told = timeout(GOODBYE, async {
                    writer.write_all(&outbox[sent..]).await?;
                    while reader.read(&mut inbox).await? > 0 {}
                    io::Result::Ok(())
                })
                .await;
                return Ok(Pause::Over(Ending::Exited(exit)));
            }
            if self.leave_by.is_some_and(|by| by <= Instant::now() || self.input.is_delivered()) {
                return Ok(Pause::Over(Ending::Detached));
            }
            if sent == outbox.len() {
                outbox.clear();
                sent = 0;
            }
            tokio::select! {
                result = reader.read(&mut inbox) => match result {
                    Ok(count) if count > 0 => decoder.feed(&inbox[..count]),
                    _ => return Ok(Pause::Broken { progress: begun }),
                },
                result = writer.write(&outbox[sent..]), if sent < outbox.len() => match result {
                    Ok(count) => sent += count,
                    Err(_) => return Ok(Pause::Broken { progress: begun }),
                },
                frame = self.stdout.written() => frame.context("cannot write the output")?.encode(&mut outbox),
                frame = self.stderr.written() => frame.context("cannot write the error output")?.encode(&mut outbox),
                chunk = self.input.chunk(), if begun && self.leave_by.is_none() => {
                    if let Progress::Detach = self.input.send(chunk, &mut outbox) {
                        self.leave_by = Some(Instant::now() + GOODBYE);
                    }
                }
                Some(signal) = caught.recv() => {
                    if let Some(ending) = self.signal(signal, begun, &mut outbox) {
                        return Ok(Pause::Over(ending));
                    }
                }
                () = at(self.leave_by) => {}
            }
        }
    }

    /// The first time what was asked for; then the same session, from where we are.
    fn next_request(&self) -> Request {
        let (vm, Some(started)) = (self.vm(), &self.session) else { return self.request.clone() };
        let from = Offsets { stdin: 0, stdout: self.stdout.next(), stderr: self.stderr.next() };
        Request::Attach { vm, session: started.session, stdin: self.wants_stdin(), from: Some(from) }
    }

    fn vm(&self) -> String {
        match &self.request {
            Request::Ask { vm, .. }
            | Request::Wait { vm, .. }
            | Request::Create { vm, .. }
            | Request::Attach { vm, .. } => vm.clone(),
            Request::List => String::new(),
        }
    }

    fn wants_stdin(&self) -> bool {
        matches!(self.request, Request::Create { stdin: true, .. } | Request::Attach { stdin: true, .. })
    }

    /// Serve has us in the session.
    fn begin(&mut self, started: Started, out: &mut Vec<u8>) -> Result<()> {
        if self.session.is_none() {
            self.stdout.begin(started.offsets.stdout);
            self.stderr.begin(started.offsets.stderr);
            let mut watch = None;
            if started.terminal
                && self.input.is_wanted()
                && let Some(keys) = self.manners.keys.clone()
            {
                terminal::make_raw().context("cannot make the terminal raw")?;
                watch = Some(Watch::new(keys));
            }
            self.input.begin(started.offsets.stdin, watch);
        } else if self.wants_stdin() {
            let lost = |count| anyhow!("{count} bytes of its input were lost on the way");
            self.input.resume(started.offsets.stdin, out).map_err(lost)?;
        }
        for output in [&self.stdout, &self.stderr] {
            if output.is_given_up() {
                Frame::GiveUp(output.stream()).encode(out);
            }
        }
        if started.terminal
            && let Some(size) = terminal::size()
        {
            Frame::Resize(size).encode(out);
        }
        self.session = Some(started);
        Ok(())
    }

    fn hear(&mut self, frame: Frame) -> Result<()> {
        match frame {
            Frame::Output { stream, offset, bytes } => {
                let output = match stream {
                    Stream::Stdout => &mut self.stdout,
                    Stream::Stderr => &mut self.stderr,
                };
                output.receive(offset, &bytes).map_err(|count| anyhow!("{count} bytes of its output were lost"))
            }
            Frame::StdinTaken(offset) => {
                self.input.taken(offset);
                Ok(())
            }
            Frame::Ended(exit) => {
                self.exit = Some(exit);
                Ok(())
            }
            Frame::Detached(reason) => bail!("detached: {reason}"),
            Frame::Error(problem) => Err(problem.into()),
            // what clients say, and what a later serve says
            _ => Ok(()),
        }
    }

    fn signal(&self, number: u8, begun: bool, out: &mut Vec<u8>) -> Option<Ending> {
        let terminal = self.session.as_ref().is_some_and(|started| started.terminal);
        match number {
            SIGWINCH => {
                if terminal && let Some(size) = terminal::size() {
                    Frame::Resize(size).encode(out);
                }
                None
            }
            number if self.manners.signals_pass && !terminal && begun => {
                Frame::Signal(number).encode(out);
                None
            }
            number => Some(Ending::Signaled(number)),
        }
    }

    fn is_written_out(&self) -> bool {
        self.stdout.is_written_out() && self.stderr.is_written_out()
    }

    /// Everything has come: serve is not needed for the rest.
    async fn write_out(&mut self) -> Result<Ending> {
        while !self.is_written_out() {
            tokio::select! {
                frame = self.stdout.written() => frame.context("cannot write the output")?,
                frame = self.stderr.written() => frame.context("cannot write the error output")?,
            };
        }
        self.exit.take().map(Ending::Exited).ok_or_else(|| anyhow!("the connection ended before the session did"))
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// How long serve may take to hear that we go.
const GOODBYE: Duration = Duration::from_secs(2);
