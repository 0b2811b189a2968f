//! A guest: the real link, and sessions that do what their arguments say.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep_until};
use wire::handshake::LinkKey;
use wire::link::{self, Link, Role, Security};
use wire::message::{self, MAIN, Message, Reply, Request, SessionId, SessionInfo, SessionState, Work};
use wire::packet::ResetReason;
use wire::spec::Environment;
use wire::status::{Ending, Exit, Failure, FailureKind};

use super::super::Hub;
use super::{TUNING, VM};

/// A guest, seen by a test.
#[derive(Clone)]
pub(crate) struct Guest {
    shared: Arc<Shared>,
    pipes: mpsc::UnboundedSender<DuplexStream>,
}

struct Shared {
    state: Mutex<State>,
    /// The test has done something.
    touched: Notify,
    /// Something has happened.
    moved: Notify,
}

pub(crate) struct State {
    pub(crate) link: Link,
    pub(crate) sessions: BTreeMap<SessionId, Running>,
    pub(crate) requests: Vec<Request>,
    /// The main session, if it begins only when the link is open.
    pub(crate) late: Option<Running>,
    /// What it was asked to be, in its own words.
    pub(crate) spec: Option<String>,
    /// Requests are not answered.
    pub(crate) is_mute: bool,
    began: Instant,
}

/// One session.
#[derive(Default)]
pub(crate) struct Running {
    pub(crate) attached: bool,
    pub(crate) input: Vec<u8>,
    pub(crate) input_ended: bool,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) written: (usize, usize),
    /// Input is said back.
    pub(crate) echo: bool,
    /// Input is not read.
    pub(crate) is_deaf: bool,
    /// How it ends once all is written.
    pub(crate) code: Option<u8>,
    pub(crate) exit: Option<Exit>,
    pub(crate) resets: Vec<ResetReason>,
}

impl Guest {
    /// A guest with a main session whose output goes to the host.
    pub(crate) fn new() -> Guest {
        Guest::of(VM, 1)
    }

    pub(crate) fn of(vm: &str, boot: u8) -> Guest {
        let security = Security { key: LinkKey::new([1; 32]), sealed: true, seed: [100 + boot; 32] };
        let link = Link::new(Role::Guest { vm: vm.into(), boot: [boot; 16] }, TUNING, security);
        let mut state = State {
            link,
            sessions: BTreeMap::new(),
            requests: Vec::new(),
            late: None,
            spec: None,
            is_mute: false,
            began: Instant::now(),
        };
        state.add(MAIN, Running { attached: true, ..Running::default() });
        let shared = Arc::new(Shared { state: Mutex::new(state), touched: Notify::new(), moved: Notify::new() });
        let (pipes, inbox) = mpsc::unbounded_channel();
        tokio::spawn(serve(shared.clone(), inbox));
        Guest { shared, pipes }
    }

    /// A new pipe, in place of the one before.
    pub(crate) async fn connect(&self, hub: &Hub) {
        let (ours, theirs) = tokio::io::duplex(4096);
        let (reader, writer) = tokio::io::split(ours);
        hub.pipe(Box::new(reader), Box::new(writer), Vec::new()).await;
        self.plug(theirs);
    }

    pub(crate) fn plug(&self, pipe: DuplexStream) {
        self.pipes.send(pipe).unwrap();
    }

    /// Looks at it, or changes it.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        let result = look(&mut self.shared.lock());
        self.shared.touched.notify_one();
        result
    }

    pub(crate) fn main<T>(&self, look: impl FnOnce(&mut Running) -> T) -> T {
        self.with(|state| look(state.sessions.get_mut(&MAIN).unwrap()))
    }

    /// Waits until it is so.
    pub(crate) async fn until(&self, what: &str, mut is_so: impl FnMut(&mut State) -> bool) {
        super::soon(what, async {
            loop {
                let moved = self.shared.moved.notified();
                if is_so(&mut self.shared.lock()) {
                    return;
                }
                moved.await;
            }
        })
        .await;
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

/// An exec of this.
pub(crate) fn exec(argv: &[&str]) -> Work {
    Work::Exec(message::Exec {
        argv: argv.iter().map(|&arg| arg.to_owned()).collect(),
        env: Environment::default(),
        dir: String::new(),
        user: String::new(),
        terminal: None,
        stdin: true,
        attach: false,
    })
}

async fn serve(shared: Arc<Shared>, mut pipes: mpsc::UnboundedReceiver<DuplexStream>) {
    let mut pipe: Option<DuplexStream> = None;
    let mut inbox = vec![0; 4096];
    let mut outbox = Vec::new();
    loop {
        let wake_at = {
            let mut state = shared.lock();
            state.settle();
            let now = state.now();
            while pipe.is_some() && outbox.len() < 8192 && state.link.poll_transmit(now, &mut outbox) {}
            state.link.poll_timeout().map(|at| state.began + at)
        };
        shared.moved.notify_waiters();
        let wake_at = wake_at.unwrap_or_else(|| Instant::now() + Duration::from_secs(100_000));
        let io = async {
            match &mut pipe {
                None => std::future::pending().await,
                Some(pipe) if outbox.is_empty() => Some(pipe.read(&mut inbox).await.unwrap_or(0)),
                Some(pipe) => {
                    let (mut reader, mut writer) = tokio::io::split(pipe);
                    tokio::select! {
                        read = reader.read(&mut inbox) => Some(read.unwrap_or(0)),
                        written = writer.write(&outbox) => {
                            outbox.drain(..written.unwrap_or(outbox.len()));
                            None
                        }
                    }
                }
            }
        };
        tokio::select! {
            next = pipes.recv() => {
                let Some(next) = next else { return };
                pipe = Some(next);
                outbox.clear();
                let mut state = shared.lock();
                let now = state.now();
                state.link.pipe_down();
                state.link.pipe_up(now);
            }
            read = io => match read {
                None => {}
                Some(0) => {
                    pipe = None;
                    outbox.clear();
                    shared.lock().link.pipe_down();
                }
                Some(count) => {
                    let mut state = shared.lock();
                    let now = state.now();
                    state.link.handle_bytes(now, &inbox[..count]);
                }
            },
            () = shared.touched.notified() => {}
            () = sleep_until(wake_at) => {
                let mut state = shared.lock();
                let now = state.now();
                state.link.handle_timeout(now);
            }
        }
    }
}

impl State {
    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn add(&mut self, id: SessionId, running: Running) {
        let channels = id.streams();
        for channel in [channels.stdin, channels.stdout, channels.stderr] {
            self.link.open(channel);
        }
        self.sessions.insert(id, running);
    }

    pub(crate) fn tell(&mut self, event: message::Event) {
        self.link.send_message(&Message::Event(event).encode());
    }

    fn settle(&mut self) {
        while let Some(event) = self.link.poll_event() {
            match event {
                link::Event::Message(bytes) => {
                    let Message::Request { id, request } = Message::decode(&bytes).unwrap() else { panic!() };
                    self.requests.push(request.clone());
                    if !self.is_mute {
                        let reply = self.reply(request);
                        self.link.send_message(&Message::Reply { id, reply }.encode());
                    }
                }
                link::Event::Reset(channel, reason) => {
                    let id = SessionId((channel.0 - 1) / 3);
                    if let Some(session) = self.sessions.get_mut(&id) {
                        session.resets.push(reason);
                    }
                }
                link::Event::Opened { .. } => {
                    if let Some(main) = self.late.take() {
                        self.add(MAIN, main);
                    }
                }
                link::Event::Closed(why) => panic!("{why}"),
                _ => {}
            }
        }
        let mut ended = Vec::new();
        for (&id, session) in &mut self.sessions {
            let channels = id.streams();
            if !session.is_deaf {
                let input = self.link.readable(channels.stdin).to_vec();
                self.link.consume(channels.stdin, input.len());
                session.input.extend_from_slice(&input);
                if session.echo {
                    session.stdout.extend_from_slice(&input);
                }
                session.input_ended = self.link.is_ended(channels.stdin);
            }
            if session.echo && session.input_ended {
                session.code.get_or_insert(0);
            }
            let (out, err) = session.written;
            session.written = match session.attached {
                true => (
                    out + self.link.write(channels.stdout, &session.stdout[out..]),
                    err + self.link.write(channels.stderr, &session.stderr[err..]),
                ),
                false => (session.stdout.len(), session.stderr.len()),
            };
            if let Some(code) = session.code
                && session.exit.is_none()
                && session.written == (session.stdout.len(), session.stderr.len())
            {
                self.link.finish(channels.stdout);
                self.link.finish(channels.stderr);
                let exit = Exit { ending: Ending::Exited { code }, started_us: 1, ended_us: 2, oom: false };
                session.exit = Some(exit.clone());
                ended.push((id, exit));
            }
        }
        for (session, exit) in ended {
            self.tell(message::Event::Ended { session, exit });
        }
    }

    fn reply(&mut self, request: Request) -> Reply {
        let refused = |reason: &str| Reply::Refused { reason: reason.into() };
        match request {
            Request::List => Reply::Sessions(self.sessions.iter().map(|(&id, session)| info(id, session)).collect()),
            Request::Create { session, work: Work::Exec(exec) } => {
                let arguments: Vec<&str> = exec.argv.iter().map(String::as_str).collect();
                let running = Running { attached: exec.attach, ..Running::default() };
                let running = match arguments[..] {
                    ["cat"] => Running { echo: true, ..running },
                    ["print", text, code] => {
                        let (stdout, stderr) = (text.as_bytes().to_vec(), b"and an error".to_vec());
                        Running { stdout, stderr, code: Some(code.parse().unwrap()), ..running }
                    }
                    ["sleep"] => running,
                    ["busy"] => return refused("there are too many sessions"),
                    _ => {
                        let reason = format!("{} was not found", arguments[0]);
                        return Reply::Failed(Failure { kind: FailureKind::ProgramNotFound, reason });
                    }
                };
                self.add(session, running);
                Reply::Started { pid: 100 + session.0 }
            }
            Request::Attach { session } | Request::Detach { session } => {
                let attached = matches!(request, Request::Attach { .. });
                match self.sessions.get_mut(&session) {
                    Some(session) => session.attached = attached,
                    None => return refused("there is no such session"),
                }
                Reply::Done
            }
            Request::Forget { session } => match self.sessions.get(&session) {
                Some(Running { exit: Some(_), .. }) => {
                    self.sessions.remove(&session);
                    let channels = session.streams();
                    for channel in [channels.stdin, channels.stdout, channels.stderr] {
                        self.link.forget(channel);
                    }
                    Reply::Done
                }
                _ => refused("it has not ended"),
            },
            Request::Spec if self.spec.is_some() => Reply::Spec(self.spec.as_deref().unwrap_or_default().into()),
            Request::Signal { .. } | Request::Resize { .. } | Request::Start | Request::Restart { .. } => Reply::Done,
            _ => Reply::Unsupported,
        }
    }
}

fn info(id: SessionId, session: &Running) -> SessionInfo {
    let state = match &session.exit {
        Some(exit) => SessionState::Ended(exit.clone()),
        None => SessionState::Running { pid: 100 + id.0, started_us: 1 },
    };
    SessionInfo { session: id, state, terminal: false, attached: session.attached }
}
