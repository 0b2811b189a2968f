//! The commands that use `vch serve`: how they reach it, and how they outlive it.
//!
//! ```text
//! one answer        commands, machine, tables        a stream      session: attach, exec, and copy's archives
//! ```
//!
//! It decides how long a client waits for a serve that went away, and what it says about it. What a command does is decided in the files below.

mod commands;
mod copy;
mod input;
mod machine;
mod output;
mod processes;
mod session;
mod tables;

use std::io;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep};

use crate::cli::Command;
use crate::control::{Address, Decoder, Frame, Problem, ProblemKind, Request};

/// Runs a command that uses serve; its exit code is the result. Problems keep the code that docker gives them: see [`code`].
pub fn run(command: &Command) -> Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    let result = runtime.block_on(async {
        match command {
            Command::Ps(args) => tables::ps(args).await,
            Command::Top(args) => tables::top(args).await,
            Command::Stats(args) => tables::stats(args).await,
            Command::Start(args) => commands::start(args).await,
            Command::Kill(args) => commands::kill(args).await,
            Command::Stop(args) => commands::stop(args).await,
            Command::Wait(args) => commands::wait(args).await,
            Command::Attach(args) => processes::attach(args).await,
            Command::Exec(args) => processes::exec(args).await,
            Command::Cp(args) => copy::copy(args).await,
            Command::Reload(args) => machine::reload(args).await,
            Command::Trim(args) => machine::trim(args).await,
            Command::KernelLog(args) => machine::kernel_log(args).await,
            Command::Reboot(args) => machine::reboot(args).await,
            Command::Status(args) => machine::status(args).await,
            Command::Run(_)
            | Command::Serve(_)
            | Command::Logs(_)
            | Command::Vmx(_)
            | Command::Ova(_)
            | Command::Certs(_)
            | Command::KeepTemplate(_) => {
                bail!("this command needs no serve")
            }
        }
    });
    // a read of standard input may never come back
    runtime.shutdown_background();
    result
}

/// The exit code of a failure.
pub fn code(error: &anyhow::Error) -> u8 {
    error.downcast_ref::<Problem>().map_or(125, |problem| problem.code)
}

/// Asks once, and waits for the answer. A serve that goes away before it answers is not asked again: who knows what it did.
async fn command<T: DeserializeOwned>(address: &Address, request: &Request) -> Result<T> {
    let mut connection = connect(address).await?;
    connection.request(request).await?;
    match connection.answer().await? {
        Answer::Value(value) => Ok(value),
        Answer::Problem(problem) => Err(problem.into()),
        Answer::Lost => bail!("vch serve ended before it told whether this was done: ask again"),
    }
}

/// Asks what changes nothing: of the next serve, if this one goes away.
async fn question<T: DeserializeOwned>(address: &Address, request: &Request) -> Result<T> {
    let mut connection = connect(address).await?;
    let mut patience: Option<Patience> = None;
    loop {
        let answer = match connection.request(request).await {
            Ok(()) => connection.answer().await?,
            Err(_) => Answer::Lost,
        };
        match answer {
            Answer::Value(value) => return Ok(value),
            Answer::Problem(problem) if patience.is_none() || !may_pass(problem.kind) => return Err(problem.into()),
            Answer::Problem(_) | Answer::Lost => {
                let patience = patience.get_or_insert_with(Patience::begin);
                connection = patience.reconnect(address).await?;
            }
        }
    }
}

/// A serve that has just begun does not know its VMs yet.
fn may_pass(kind: ProblemKind) -> bool {
    matches!(kind, ProblemKind::UnknownVm | ProblemKind::Ambiguous)
}

/// Connects to the serve that should be there.
async fn connect(address: &Address) -> Result<Connection> {
    match address.connect().await {
        Ok(stream) => Ok(Connection::new(stream)),
        Err(error) => Err(anyhow!(error)
            .context(format!("cannot reach vch serve at {address} (start it, or name its socket with --control)"))),
    }
}

enum Answer<T> {
    Value(T),
    Problem(Problem),
    /// The connection broke.
    Lost,
}

/// A connection to serve.
struct Connection {
    stream: UnixStream,
    decoder: Decoder,
}

impl Connection {
    fn new(stream: UnixStream) -> Connection {
        Connection { stream, decoder: Decoder::default() }
    }

    async fn request(&mut self, request: &Request) -> io::Result<()> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        self.stream.write_all(&line).await
    }

    async fn answer<T: DeserializeOwned>(&mut self) -> Result<Answer<T>> {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match self.decoder.next_frame()? {
                Some(Frame::Result(value)) => {
                    let value = serde_json::from_value(value).context("cannot understand what vch serve answers")?;
                    return Ok(Answer::Value(value));
                }
                Some(Frame::Error(problem)) => return Ok(Answer::Problem(problem)),
                Some(_) => {}
                None => match self.stream.read(&mut buffer).await {
                    Ok(count) if count > 0 => self.decoder.feed(&buffer[..count]),
                    _ => return Ok(Answer::Lost),
                },
            }
        }
    }
}

/// How long a client waits for a serve that went away.
struct Patience {
    since: Instant,
    told: bool,
}

/// Someone restarts it, or the system does.
const RETURN_TIME: Duration = Duration::from_secs(60);
/// Before this nobody needs to know.
const TELL_AFTER: Duration = Duration::from_secs(2);
/// How often to look whether it is back: a person does not notice.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

impl Patience {
    fn begin() -> Patience {
        Patience { since: Instant::now(), told: false }
    }

    /// Waits until there is a serve to talk with.
    async fn reconnect(&mut self, address: &Address) -> Result<Connection> {
        loop {
            sleep(LOOK_AGAIN).await;
            let waited = self.since.elapsed();
            if waited > RETURN_TIME {
                bail!("vch serve did not come back to {address} within {} s", RETURN_TIME.as_secs());
            }
            if waited > TELL_AFTER && !self.told {
                self.told = true;
                eprint!("vch: vch serve is away; waiting for it\r\n");
            }
            if let Ok(stream) = address.connect().await {
                return Ok(Connection::new(stream));
            }
        }
    }
}
