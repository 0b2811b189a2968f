//! The hub's one task: owns the link, and serves pipes, clients and time in turn.
//!
//! ```text
//!   Unopened --- the guest proves the key ---> Listing --- it tells its sessions ---> Up
//! ```
//!
//! What clients ask before it is up waits in order. Whatever happens, [`Actor::settle`] then moves all that can be moved; nothing here waits for a client.

mod clients;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use wire::link::{self, Link, Role, Security, Tuning};
use wire::message::{self, FIRST_OTHER, MAIN, Message, Reply, Request, SessionId, SessionInfo, SessionState};
use wire::status::Exit;

use super::pipes::Pipes;
use super::requests::{Asked, Requests};
use super::session::Session;
use super::status::{GuestStatus, MainState, PipeState};
use super::{Command, Created, HubError, Identity};

pub(super) struct Actor {
    link: Link,
    tuning: Tuning,
    began: Instant,
    pipes: Pipes,
    stage: Stage,
    /// What was asked before it could be answered.
    early: VecDeque<Command>,
    requests: Requests,
    sessions: BTreeMap<SessionId, Session>,
    /// The next session's number: none is used twice.
    next_session: u32,
    next_client: u64,
    /// How sessions ended that the guest has forgotten; the latest are last.
    exits: VecDeque<(SessionId, Exit)>,
    /// Why nothing more will come of the guest.
    over: Option<HubError>,
    /// The machine is gone, and when its last words must have come.
    lost: Option<(String, Instant)>,
    status: watch::Sender<GuestStatus>,
    commands: mpsc::UnboundedReceiver<Command>,
    hub: mpsc::WeakUnboundedSender<Command>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Unopened,
    Listing,
    Up,
}

impl Actor {
    pub(super) fn new(
        identity: Identity,
        commands: mpsc::UnboundedReceiver<Command>,
        hub: mpsc::WeakUnboundedSender<Command>,
        status: watch::Sender<GuestStatus>,
    ) -> Actor {
        let Identity { vm, key, sealed, tuning, seed, first_request } = identity;
        let mut link = Link::new(Role::Host { vm }, tuning, Security { key, sealed, seed });
        // its process may speak, and end, before the guest is asked for its sessions
        let main = MAIN.streams();
        for channel in [main.stdin, main.stdout, main.stderr] {
            link.open(channel);
        }
        Actor {
            link,
            tuning,
            began: Instant::now(),
            pipes: Pipes::new(),
            stage: Stage::Unopened,
            early: VecDeque::new(),
            requests: Requests::new(first_request),
            sessions: BTreeMap::new(),
            next_session: MAIN.0 + 1,
            next_client: 0,
            exits: VecDeque::new(),
            over: None,
            lost: None,
            status,
            commands,
            hub,
        }
    }

    /// Serves until the last handle is dropped.
    pub(super) async fn run(mut self) {
        loop {
            self.settle();
            let wake_at = self.wake_at();
            tokio::select! {
                command = self.commands.recv() => {
                    let Some(command) = command else { return };
                    self.command(command);
                    // the more there are, the less each costs
                    for _ in 0..BATCH {
                        let Ok(command) = self.commands.try_recv() else { break };
                        self.command(command);
                    }
                }
                event = self.pipes.next() => {
                    let now = self.now();
                    self.pipes.handle(event, &mut self.link, now);
                }
                () = sleep_until(wake_at) => self.handle_time(),
            }
        }
    }

    /// The link's time.
    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn wake_at(&self) -> Instant {
        let link = self.link.poll_timeout().map(|at| self.began + at);
        let sessions = self.sessions.values().filter_map(Session::wake_at);
        let lost = self.lost.as_ref().filter(|_| self.over.is_none()).map(|(_, until)| *until);
        sessions.chain(link).chain(lost).min().unwrap_or_else(|| Instant::now() + FAR)
    }

    fn handle_time(&mut self) {
        let (now, instant) = (self.now(), Instant::now());
        self.link.handle_timeout(now);
        let mut wishes = Vec::new();
        for (&id, session) in &mut self.sessions {
            wishes.extend(session.handle_time(&self.link, instant).map(|wish| (id, wish)));
        }
        for (session, wish) in wishes {
            self.wish(session, wish);
        }
    }

    /// Moves all that can be moved without waiting.
    fn settle(&mut self) {
        while let Some(event) = self.link.poll_event() {
            self.event(event);
        }
        let now = Instant::now();
        if let Some((reason, until)) = &self.lost
            && (!self.pipes.is_up() || *until <= now)
        {
            let reason = reason.clone();
            self.end(HubError::Lost(reason.clone()), MainState::Lost(reason));
        }
        for session in self.sessions.values_mut() {
            session.settle(&mut self.link, self.over.as_ref(), now);
        }
        let now = self.now();
        self.pipes.fill(&mut self.link, now);
        self.tell_status();
    }

    // -- the guest

    fn event(&mut self, event: link::Event) {
        match event {
            link::Event::Opened { boot } => {
                self.status.send_if_modified(|status| {
                    status.opened += 1;
                    status.boot.replace(boot) != Some(boot)
                });
                // it may have slept, or be a copy of one that ran long ago
                let since_1970 = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
                let unix_ns = i64::try_from(since_1970.as_nanos()).unwrap_or(i64::MAX);
                self.requests.send(Request::SetClock { unix_ns }, Asked::Nobody, &mut self.link);
                if self.stage == Stage::Unopened {
                    self.stage = Stage::Listing;
                    // what a guest told of its machine before this hub began, it does not tell again
                    self.requests.send(Request::Status, Asked::Status, &mut self.link);
                    self.requests.send(Request::List, Asked::List, &mut self.link);
                }
            }
            link::Event::Message(bytes) => match Message::decode(&bytes) {
                Ok(Message::Reply { id, reply }) => {
                    if let Some(asked) = self.requests.answered(id) {
                        self.reply(asked, reply);
                    }
                }
                Ok(Message::Event(event)) => self.told(event),
                // a later guest says more than this host knows
                _ => {}
            },
            link::Event::Reset(channel, _) => {
                if let Some(session) = self.sessions.values_mut().find(|session| session.is_input(channel)) {
                    session.close_input(&HubError::InputClosed);
                }
            }
            link::Event::Closed(why) => {
                // its guest is another hub's from now on, also when a handle to this one is held for long
                self.pipes.let_go(&mut self.link);
                self.status.send_modify(|status| status.closed = Some(why.clone()));
                self.end(HubError::Closed(why.clone()), MainState::Closed(why));
            }
            // what can be read and written is looked at in any case; and anyone can send a refusal
            link::Event::Readable(_) | link::Event::Writable(_) | link::Event::Refused(_) => {}
        }
    }

    fn told(&mut self, event: message::Event) {
        match event {
            message::Event::Ready(ready) => {
                self.status.send_modify(|status| status.ready = Some(ready));
            }
            message::Event::Started { session: MAIN, pid } => self.main_is(MainState::Running { pid }),
            // one of the spec's others, which nobody here has asked for
            message::Event::Started { session, .. } if (FIRST_OTHER.0..=LAST_SESSION).contains(&session.0) => {
                let new = || Session::new(session, false, &mut self.link);
                self.sessions.entry(session).or_insert_with(new);
            }
            message::Event::Started { .. } => {}
            message::Event::Ended { session, exit } => self.ended(session, &exit),
            message::Event::Failed(failure) => {
                self.end(HubError::Failed(failure.clone()), MainState::Failed(failure));
            }
            message::Event::Status(text) => self.machine_is(&text),
            message::Event::KernelLog(text) => self.status.send_modify(|status| status.kernel_log = Some(text)),
        }
    }

    fn machine_is(&self, text: &str) {
        // a guest of another version may tell it in another way
        if let Ok(machine) = serde_json::from_str(text) {
            self.status.send_modify(|status| status.machine = Some(machine));
        }
    }

    fn ended(&mut self, session: SessionId, exit: &Exit) {
        if let Some(session) = self.sessions.get_mut(&session) {
            session.ended(exit);
        }
        if session == MAIN {
            self.main_is(MainState::Ended(exit.clone()));
        }
    }

    fn reply(&mut self, asked: Asked, reply: Reply) {
        match asked {
            Asked::Anyone(answer) => drop(answer.send(Ok(reply))),
            Asked::List => self.listed(reply),
            Asked::Status => {
                // an earlier guest tells it when it changes
                if let Reply::Text(text) = reply {
                    self.machine_is(&text);
                }
            }
            Asked::Create { session, attachment, answer } => match reply {
                Reply::Started { pid } => drop(answer.send(Ok(Created { session, pid, attachment }))),
                reply => {
                    self.remove(session, "it could not be made");
                    drop(answer.send(Err(refusal(reply))));
                }
            },
            Asked::Attach(id) => {
                if let Some(session) = self.sessions.get_mut(&id)
                    && !matches!(reply, Reply::Done)
                    && session.exit.is_none()
                {
                    session.dismiss(&refusal(reply).to_string());
                }
            }
            // when it fails the session is gone, and nothing comes of it either
            Asked::Detach | Asked::Nobody => {}
            Asked::Forget { session, answer } => {
                let result = match reply {
                    Reply::Done => Ok(()),
                    reply => Err(refusal(reply)),
                };
                if result.is_ok() {
                    self.remove(session, "the session was forgotten");
                }
                drop(answer.send(result));
            }
        }
    }

    /// The guest's sessions are known: what was asked meanwhile can be answered.
    fn listed(&mut self, reply: Reply) {
        let sessions = match reply {
            Reply::Sessions(sessions) => sessions,
            // a guest that runs nothing but its main process
            _ => Vec::new(),
        };
        for SessionInfo { session: id, state, attached, .. } in sessions {
            if id.0 > LAST_SESSION {
                continue;
            }
            let session = Session::new(id, attached, &mut self.link);
            self.sessions.entry(id).or_insert(session);
            if id < FIRST_OTHER {
                self.next_session = self.next_session.max(id.0 + 1);
            }
            match state {
                SessionState::Ended(exit) => self.ended(id, &exit),
                SessionState::Running { pid, .. } if id == MAIN => self.main_is(MainState::Running { pid }),
                SessionState::Waiting if id == MAIN => self.main_is(MainState::Waiting),
                SessionState::Running { .. } | SessionState::Waiting => {}
            }
        }
        self.sessions.entry(MAIN).or_insert_with(|| Session::new(MAIN, true, &mut self.link));
        self.up();
    }

    fn up(&mut self) {
        self.stage = Stage::Up;
        for command in std::mem::take(&mut self.early) {
            self.command(command);
        }
    }

    /// Nothing more will come. What has come still goes to the clients.
    fn end(&mut self, why: HubError, main: MainState) {
        if self.over.is_some() {
            return;
        }
        self.main_is(main);
        self.requests.fail(&why);
        for session in self.sessions.values_mut() {
            session.over(&why);
        }
        self.over = Some(why);
        self.up();
    }

    // -- whoever watches

    /// How it ended stays, whatever becomes of the link.
    fn main_is(&mut self, main: MainState) {
        self.status.send_if_modified(|status| {
            let news = !status.main.is_over() && status.main != main;
            if news {
                status.main = main;
            }
            news
        });
    }

    fn tell_status(&mut self) {
        let pipe = match (self.pipes.is_up(), self.link.is_open()) {
            (false, _) if !self.pipes.has_begun() => PipeState::Awaited,
            (false, _) => PipeState::Down,
            (true, false) => PipeState::Unproved,
            (true, true) => PipeState::Open,
        };
        let counters = self.link.counters();
        self.status.send_if_modified(|status| {
            let news = (status.pipe, status.counters) != (pipe, counters);
            (status.pipe, status.counters) = (pipe, counters);
            news
        });
    }
}

/// What a reply means that is not the one that was hoped for.
fn refusal(reply: Reply) -> HubError {
    match reply {
        Reply::Failed(failure) => HubError::Failed(failure),
        Reply::Refused { reason } => HubError::Refused(reason),
        Reply::Unsupported => HubError::Refused("the guest's version does not know this request".into()),
        _ => HubError::Refused("the guest gave an answer to another question".into()),
    }
}

/// Its channels have numbers, and there are more after it.
const LAST_SESSION: u32 = u32::MAX / 4;
/// Commands that are taken at once.
const BATCH: usize = 64;
/// A timer that never matters.
const FAR: Duration = Duration::from_secs(3600);
