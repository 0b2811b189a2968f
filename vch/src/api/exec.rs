//! Docker exec: programs beside a container's own.
//!
//! It decides what a request for one means, and what becomes of one whose client goes: it runs on, and nobody hears it. How far each is: [`crate::execs`].

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bollard_stubs::models::{ExecConfig, ExecStartConfig};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use wire::message::{self, Work};
use wire::spec::{ALL_CAPABILITIES, Environment, TermSize};

use super::Api;
use super::attach::{keys, size};
use super::error::ApiError;
use super::hijack::{self, Connection, Hijack, Writer};
use super::input::{Mouth, Said};
use super::json;
use super::query::Params;
use super::stdcopy::{Framing, Source};
use crate::containers::Container;
use crate::execs::{Asked, Exec, Life};
use crate::hub::{AttachOptions, Attachment, Client, Created, Events, Hub, HubError, Output, Stream};

/// Its paths.
pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/containers/{id}/exec", post(create))
        .route("/exec/{id}/start", post(start))
        .route("/exec/{id}/resize", post(resize))
        .route("/exec/{id}/json", get(inspect))
}

async fn create(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let container = api.containers.find(&name)?;
    let body = body.map_err(|rejection| ApiError::bad_parameter(rejection.body_text()))?;
    let config: ExecConfig = json::read(&body)?;
    container.reach().await?;
    container.running()?;
    is_awake(&container)?;
    let asked = asked(config)?;
    if asked.privileged && !has_all_rights(&container) {
        return Err(ApiError::not_implemented(
            "an exec has the rights of its container's own process, and no more: make the container with --privileged, or leave it out here",
        ));
    }
    let exec = api.execs.create(container, asked).map_err(|error| ApiError::internal(format!("{error:#}")))?;
    api.tell(&exec, &format!("exec_create: {}", command(&exec)), &[]);
    Ok(json::with_status(StatusCode::CREATED, &json!({ "Id": exec.id })))
}

async fn start(State(api): State<Arc<Api>>, Path(id): Path<String>, request: Request) -> Result<Response, ApiError> {
    let exec = api.execs.find(&id)?;
    let (_, mut hijack) = Hijack::of(request);
    let config = start_config(&hijack.body().await?)?;
    exec.container.reach().await?;
    let hub = exec.container.running()?;
    is_awake(&exec.container)?;
    exec.begin()?;
    api.tell(&exec, &format!("exec_start: {}", command(&exec)), &[]);
    let mut program = exec.asked.program.clone();
    if let (Some(size), Some(asked)) = (&mut program.terminal, console(config.console_size)?) {
        *size = asked;
    }
    if config.detach.unwrap_or_default() {
        // it goes on if the client does not wait for it to begin
        let begun = tokio::spawn(run_detached(api, exec, hub, program)).await;
        return match begun {
            Ok(result) => result.map(|()| StatusCode::OK.into_response()),
            Err(error) => Err(ApiError::internal(format!("cannot start it: {error}"))),
        };
    }
    let framing = Framing::of(config.tty.unwrap_or_default());
    Ok(hijack.answer(framing, move |connection| Run { api, exec, hub, framing }.attached(program, connection)))
}

/// What stands still runs nothing.
fn is_awake(container: &Container) -> Result<(), ApiError> {
    match container.state().is_paused() {
        true => {
            let name = container.name();
            Err(ApiError::conflict(format!("Container {name} is paused, unpause the container before exec")))
        }
        false => Ok(()),
    }
}

async fn resize(State(api): State<Arc<Api>>, Path(id): Path<String>, asked: Params) -> Result<(), ApiError> {
    let exec = api.execs.find(&id)?;
    let size = size(&asked)?;
    let session = exec.session().await?;
    if exec.asked.program.terminal.is_some() {
        exec.container.running()?.request(message::Request::Resize { session, size }).await?;
    }
    Ok(())
}

async fn inspect(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Result<Response, ApiError> {
    let exec = api.execs.find(&id)?;
    let Asked { program, stdout, stderr, keys, privileged } = &exec.asked;
    let (entrypoint, arguments) = program.argv.split_first().map_or(("", &[][..]), |(first, rest)| (first, rest));
    let (code, pid) = match exec.life() {
        Life::Created | Life::Starting => (None, 0),
        Life::Running { pid, .. } => (None, pid),
        Life::Ended { code, pid, .. } => (Some(code), pid),
    };
    let mut process = json!({
        "tty": program.terminal.is_some(),
        "entrypoint": entrypoint,
        "arguments": arguments,
        "privileged": privileged,
    });
    if !program.user.is_empty() {
        process["user"] = json!(program.user);
    }
    let body = json!({
        "ID": exec.id,
        "Running": matches!(exec.life(), Life::Starting | Life::Running { .. }),
        "ExitCode": code,
        "ProcessConfig": process,
        "OpenStdin": program.stdin,
        "OpenStderr": stderr,
        "OpenStdout": stdout,
        "CanRemove": false,
        "ContainerID": exec.container.id,
        // bytes, as docker has it
        "DetachKeys": keys.as_ref().map(|keys| STANDARD.encode(keys.bytes())).unwrap_or_default(),
        "Pid": pid,
    });
    Ok(json::json(&body))
}

// -- what is asked for

/// Reads how an exec is to be started; an empty body asks for nothing particular.
fn start_config(body: &Bytes) -> Result<ExecStartConfig, ApiError> {
    if body.is_empty() { Ok(ExecStartConfig::default()) } else { json::read(body) }
}

fn asked(config: ExecConfig) -> Result<Asked, ApiError> {
    let argv = config.cmd.unwrap_or_default();
    if argv.is_empty() {
        return Err(ApiError::bad_parameter("No exec command specified"));
    }
    let named = config.detach_keys.filter(|keys| !keys.is_empty());
    let size = console(config.console_size)?.unwrap_or(TermSize { rows: 24, columns: 80 });
    let program = message::Exec {
        argv,
        // a name alone means that a variable is not to be set, and others are not
        env: Environment(config.env.unwrap_or_default().into_iter().filter(|entry| entry.contains('=')).collect()),
        dir: config.working_dir.unwrap_or_default(),
        user: config.user.unwrap_or_default(),
        terminal: config.tty.unwrap_or_default().then_some(size),
        stdin: config.attach_stdin.unwrap_or_default(),
        // the hub knows
        attach: false,
    };
    Ok(Asked {
        program,
        stdout: config.attach_stdout.unwrap_or_default(),
        stderr: config.attach_stderr.unwrap_or_default(),
        keys: named.map(|text| keys(&text)).transpose()?,
        privileged: config.privileged.unwrap_or_default(),
    })
}

/// Rows and columns; a size of nothing is none.
fn console(size: Option<Vec<usize>>) -> Result<Option<TermSize>, ApiError> {
    let sizes: Option<Vec<u16>> =
        size.unwrap_or_default().into_iter().map(|number| u16::try_from(number).ok()).collect();
    match sizes.as_deref() {
        Some([] | [0, 0]) => Ok(None),
        Some(&[rows, columns]) => Ok(Some(TermSize { rows, columns })),
        _ => Err(ApiError::bad_parameter("ConsoleSize is two numbers, rows and columns, of at most 65535")),
    }
}

fn has_all_rights(container: &Container) -> bool {
    container.told().is_some_and(|told| told.spec.main.rights.capabilities.bounding == ALL_CAPABILITIES)
}

// -- what becomes of it

/// An exec that is being run.
struct Run {
    api: Arc<Api>,
    exec: Arc<Exec>,
    hub: Hub,
    framing: Framing,
}

/// Where its output goes, as long as somebody hears it.
struct Outlet {
    writer: Option<Writer>,
    framing: Framing,
    stdout: bool,
    stderr: bool,
}

impl Run {
    /// Runs it with a client. When the client goes, it runs on.
    async fn attached(self, program: message::Exec, Connection { mut reader, writer }: Connection) {
        let Run { api, exec, hub, framing } = self;
        let Asked { stdout, stderr, .. } = exec.asked;
        let mut outlet = Outlet { writer: Some(writer), framing, stdout, stderr };
        let (stdin, terminal) = (program.stdin, program.terminal.is_some());
        let options = AttachOptions { stdin, stdout: true, stderr: true, from: None };
        let created = match hub.begin(Work::Exec(program), Some(options)).await {
            Ok(created) => created,
            Err(error) => {
                exec.ended(code(&error));
                // standard error has no place in the reply of a daemon that says why there is none
                outlet.put(Source::Stdout, format!("{}\r\n", reason(&error)).as_bytes(), true).await;
                return outlet.close(reader).await;
            }
        };
        let Created { session, pid, attachment } = created;
        exec.running(session, pid);
        // it is there, since it was asked for
        let Some(Attachment { mut events, client, .. }) = attachment else { return };
        let keys = terminal.then(|| exec.asked.keys.clone().unwrap_or_default());
        let mouth = stdin.then(|| Mouth { client: client.clone(), ends_with_client: !terminal, keys });
        let speaking = async {
            let said = match mouth {
                Some(mouth) => mouth.speak(&mut reader).await,
                None => Said::All,
            };
            match said {
                Said::All => std::future::pending().await,
                Said::Left | Said::Detached => said,
            }
        };
        let code = tokio::select! {
            code = hear(&mut events, &client, &mut outlet) => Ok(code),
            said = speaking => Err(said),
        };
        match code {
            Ok(code) => {
                api.ended(&exec, code);
                outlet.close(reader).await;
            }
            Err(said) => {
                if said == Said::Detached {
                    api.tell(&exec, "exec_detach", &[]);
                }
                let left = std::mem::replace(&mut outlet, Outlet::nobodys());
                tokio::spawn(left.close(reader));
                let code = hear(&mut events, &client, &mut outlet).await;
                api.ended(&exec, code);
            }
        }
        // one whose machine is gone has forgotten it already
        let _gone = hub.forget(session).await;
    }
}

/// Runs it without a client; returns when it runs.
async fn run_detached(api: Arc<Api>, exec: Arc<Exec>, hub: Hub, program: message::Exec) -> Result<(), ApiError> {
    let created = match hub.begin(Work::Exec(message::Exec { stdin: false, ..program }), None).await {
        Ok(created) => created,
        Err(error) => {
            exec.ended(code(&error));
            return Err(ApiError::bad_parameter(reason(&error)));
        }
    };
    exec.running(created.session, created.pid);
    tokio::spawn(async move {
        let code = hub.wait(created.session).await.map_or(KILLED, |exit| exit.ending.code());
        api.ended(&exec, code);
        let _gone = hub.forget(created.session).await;
    });
    Ok(())
}

/// Hears it to its end: the exit code.
async fn hear(events: &mut Events, client: &Client, outlet: &mut Outlet) -> u8 {
    loop {
        match events.next().await {
            Some(Output::Stdout { offset, bytes }) => {
                outlet.put(Source::Stdout, &bytes, outlet.stdout).await;
                client.taken(Stream::Stdout, offset + bytes.len() as u64);
            }
            Some(Output::Stderr { offset, bytes }) => {
                outlet.put(Source::Stderr, &bytes, outlet.stderr).await;
                client.taken(Stream::Stderr, offset + bytes.len() as u64);
            }
            Some(Output::StdinTaken(_)) => {}
            Some(Output::Ended(exit)) => return exit.ending.code(),
            // with its machine, or its container's process
            Some(Output::Detached(_)) | None => return KILLED,
        }
    }
}

impl Outlet {
    fn nobodys() -> Outlet {
        Outlet { writer: None, framing: Framing::Raw, stdout: false, stderr: false }
    }

    /// Waits until the client's connection has taken a piece. From the first that it does not take on, there is no client.
    async fn put(&mut self, source: Source, bytes: &[u8], is_wanted: bool) {
        let Some(writer) = self.writer.as_mut().filter(|_| is_wanted) else { return };
        let mut frame = Vec::new();
        self.framing.encode(source, bytes, &mut frame);
        let written = async {
            writer.write_all(&frame).await?;
            writer.flush().await
        };
        if written.await.is_err() {
            self.writer = None;
        }
    }

    async fn close(self, reader: hijack::Reader) {
        if let Some(writer) = self.writer {
            hijack::close(reader, writer).await;
        }
    }
}

impl Api {
    fn tell(&self, exec: &Exec, action: &str, more: &[(&str, String)]) {
        let more: Vec<_> = [("execID", exec.id.clone())].into_iter().chain(more.iter().cloned()).collect();
        self.containers.events.container(&exec.container, action, &more);
    }

    fn ended(&self, exec: &Exec, code: u8) {
        exec.ended(code);
        self.tell(exec, "exec_die", &[("exitCode", code.to_string())]);
    }
}

/// As docker has it in its events.
fn command(exec: &Exec) -> String {
    let argv = &exec.asked.program.argv;
    let (first, rest) = argv.split_first().map_or(("", &[][..]), |(first, rest)| (first, rest));
    format!("{first} {}", rest.join(" "))
}

/// Why it cannot be run. Docker's client looks for the guest's words in it.
fn reason(error: &HubError) -> String {
    format!("exec failed: unable to start the process: {error}")
}

/// Docker's exit code for an exec that cannot be run: 127 where there is no program, else 126.
fn code(error: &HubError) -> u8 {
    match error.code() {
        127 => 127,
        _ => 126,
    }
}

/// What ends with its container is killed.
const KILLED: u8 = 137;

#[cfg(test)]
mod tests;
