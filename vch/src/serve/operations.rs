//! What one client asks, on its connection of the control socket.
//!
//! It decides what may be asked: nothing that would take a session away from the hub. Streams are [`super::streams`]' business.

use std::sync::Arc;

use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::task::spawn_local;
use tokio::time::timeout;
use wire::message::{self, MAIN, Reply, SessionId, Work};

use super::streams;
use super::vms::{Known, Vms};
use crate::control::{Frame, MAX_REQUEST, Problem, ProblemKind, Request, Started};
use crate::hub::{AttachOptions, Attachment, HubError};

/// How long a client may take to say what it wants.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

pub(super) async fn serve_client(stream: UnixStream, vms: Arc<Vms>) {
    let mut stream = BufReader::new(stream);
    let answer = match timeout(PATIENCE, request(&mut stream)).await {
        Err(_) | Ok(Ok(None)) => return,
        Ok(Err(problem)) => Err(problem),
        Ok(Ok(Some(request))) => {
            // who has gone wants no answer; frames that an attachment's client sends early stay where they are
            let attaches = matches!(request, Request::Attach { .. } | Request::Create { attach: true, .. });
            tokio::select! {
                answer = carry_out(request, &vms) => answer,
                () = gone(&mut stream), if !attaches => return,
            }
        }
    };
    let frame = match answer {
        Ok(Answer::Result(value)) => Frame::Result(value),
        Ok(Answer::Attached(attached)) => return streams::carry(stream, attached).await,
        Err(problem) => Frame::Error(problem),
    };
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    // a client that is gone wants no answer
    let _gone = stream.write_all(&bytes).await;
}

/// The first line; `None` when there is none.
async fn request(stream: &mut BufReader<UnixStream>) -> Result<Option<Request>, Problem> {
    let malformed = |reason: String| Problem::new(ProblemKind::Malformed, reason);
    let mut line = Vec::new();
    let most = MAX_REQUEST as u64;
    let read = stream.take(most).read_until(b'\n', &mut line).await;
    match (read, line.last()) {
        (Err(_), _) | (_, None) => Ok(None),
        (_, Some(b'\n')) => serde_json::from_slice(&line)
            .map(Some)
            .map_err(|error| malformed(format!("the request is not understood: {error}"))),
        _ => Err(malformed(format!("the request is no line of at most {most} bytes"))),
    }
}

/// Waits until the client closes its end. It has nothing more to say; what it says is passed over.
async fn gone(stream: &mut BufReader<UnixStream>) {
    let mut buffer = [0; 1024];
    while stream.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
}

enum Answer {
    Result(serde_json::Value),
    Attached(streams::Attached),
}

async fn carry_out(request: Request, vms: &Arc<Vms>) -> Result<Answer, Problem> {
    match request {
        Request::List => result(&vms.list()),
        Request::Ask { vm, ask } => {
            let known = vms.find(&vm).await?;
            may_ask(&ask)?;
            present(&known)?;
            result(&known.hub.request(ask).await.map_err(problem)?)
        }
        Request::Wait { vm, session } => {
            let known = vms.find(&vm).await?;
            let _used = known.use_session(session);
            result(&known.hub.wait(session).await.map_err(problem)?)
        }
        Request::Create { vm, work, attach, stdin } => {
            let known = vms.find(&vm).await?;
            present(&known)?;
            create(known, work, attach, stdin).await
        }
        Request::Attach { vm, session, stdin, from } => {
            let known = vms.find(&vm).await?;
            // whoever is gone cannot be asked, and needs no size
            let terminal = !known.is_gone() && has_terminal(&known, session).await?;
            let options = AttachOptions { stdin, stdout: true, stderr: true, from };
            let attachment = known.hub.attach(session, options).await.map_err(problem)?;
            Ok(attached(known, session, terminal, attachment))
        }
    }
}

async fn create(known: Arc<Known>, work: Work, attach: bool, stdin: bool) -> Result<Answer, Problem> {
    if !attach {
        let session = known.hub.create(work).await.map_err(problem)?;
        spawn_local(async move {
            if known.hub.wait(session).await.is_ok() {
                known.forget_session(session).await;
            }
        });
        return result(&session);
    }
    let terminal = matches!(&work, Work::Exec(exec) if exec.terminal.is_some());
    let options = AttachOptions { stdin, stdout: true, stderr: true, from: None };
    let (session, attachment) = known.hub.create_attached(work, options).await.map_err(problem)?;
    spawn_local(known.clone().tidy_up(session));
    Ok(attached(known, session, terminal, attachment))
}

fn attached(known: Arc<Known>, session: SessionId, terminal: bool, attachment: Attachment) -> Answer {
    let started = Started { session, terminal, offsets: attachment.offsets };
    let used = known.use_session(session);
    Answer::Attached(streams::Attached { known, started, attachment, _used: used })
}

async fn has_terminal(known: &Known, session: SessionId) -> Result<bool, Problem> {
    let Reply::Sessions(sessions) = known.hub.request(message::Request::List).await.map_err(problem)? else {
        return Ok(false);
    };
    match sessions.into_iter().find(|info| info.session == session) {
        Some(info) => Ok(info.terminal),
        // before it is listed, the main one is there
        None if session == MAIN => Ok(false),
        None => Err(problem(HubError::NoSession(session))),
    }
}

/// What concerns the hub's own sessions is asked for by the operations for it.
fn may_ask(ask: &message::Request) -> Result<(), Problem> {
    use message::Request as Ask;
    match ask {
        Ask::Resize { .. } | Ask::Signal { .. } | Ask::PowerOff | Ask::Start => Ok(()),
        Ask::List | Ask::Top | Ask::Stats | Ask::Inspect { .. } | Ask::Status | Ask::KernelLog => Ok(()),
        Ask::Reload { .. } | Ask::Trim | Ask::SetClock { .. } | Ask::Reboot => Ok(()),
        Ask::Spec | Ask::Stop { .. } | Ask::Restart { .. } => Ok(()),
        Ask::Create { .. } | Ask::Attach { .. } | Ask::Detach { .. } | Ask::Forget { .. } => {
            Err(Problem::new(ProblemKind::Malformed, "this is not asked of a guest directly".into()))
        }
    }
}

/// A guest that is gone would be waited for for ever.
fn present(known: &Known) -> Result<(), Problem> {
    match known.is_gone() {
        true => Err(Problem::new(ProblemKind::Gone, format!("{} is not running", known.vm))),
        false => Ok(()),
    }
}

fn result(value: &impl Serialize) -> Result<Answer, Problem> {
    match serde_json::to_value(value) {
        Ok(value) => Ok(Answer::Result(value)),
        Err(error) => Err(Problem::new(ProblemKind::Other, format!("cannot encode the answer: {error}"))),
    }
}

fn problem(error: HubError) -> Problem {
    let kind = match &error {
        HubError::NoSession(_) => ProblemKind::NoSession,
        HubError::Closed(_) | HubError::Lost(_) | HubError::Stopped => ProblemKind::Gone,
        HubError::Failed(_) | HubError::Refused(_) | HubError::Offset { .. } | HubError::InputClosed => {
            ProblemKind::Refused
        }
    };
    Problem { kind, message: error.to_string(), code: error.code() }
}
