//! The host's end of a link in a test's own hands: it runs sessions, takes their output, and can be killed, restarted, cut off, and made to read slowly.
//!
//! It does nothing by itself: bytes move while a test waits for something. Every wait has a deadline.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use wire::link::{Event, Link, Role, Security, Tuning};
use wire::message::{Event as Told, Exec, MAIN, Message, Reply, Request, SessionId, Work};
use wire::packet::ChannelId;
use wire::spec::{Environment, LinkDevice, Spec};
use wire::status::{Exit, SessionStatus, Status};

use crate::line::{Line, Tap};
use crate::machine::{Machine, Powered};
use crate::stream::{Appetite, Feed, Intake, Pattern};

/// The longest wait for one thing, and the longest silence while something bigger comes: emulated machines on a busy computer are slow.
pub const PATIENCE: Duration = Duration::from_secs(300);
/// The longest wait for something bigger: a guest that says the same for ever does not keep its test.
const MOST_PATIENCE: Duration = Duration::from_secs(1200);

/// The host's end of one machine's link.
pub struct Host {
    pub machine: Powered,
    pub link: Link,
    /// Everything that the guest told unasked, in order.
    pub told: Vec<Told>,
    /// How the machine was, as it told from time to time.
    pub statuses: Vec<Status>,
    spec: Spec,
    line: Option<Line>,
    intakes: BTreeMap<ChannelId, Intake>,
    feeds: BTreeMap<ChannelId, Feed>,
    replies: BTreeMap<u64, Reply>,
    requests: u64,
    sessions: u32,
    lives: u8,
    /// The link has taken a dead one's place and has not met the guest.
    newborn: bool,
    /// When the first byte of any session's output came since this was `None`: also one that came again.
    pub heard: Option<Instant>,
    /// The same, of new bytes.
    pub heard_new: Option<Instant>,
    /// When the last one came.
    pub last_heard: Option<Instant>,
    /// What crosses the line, for a test that repeats it; `None` while nobody listens.
    pub tap: Option<Tap>,
}

/// A session that has ended, and what it wrote.
#[derive(Debug)]
pub struct Ran {
    pub exit: Exit,
    pub stdout: String,
    pub stderr: String,
}

/// A shell script as an exec whose output is heard.
pub fn sh(script: &str) -> Exec {
    Exec {
        argv: ["/bin/sh", "-c", script].map(String::from).to_vec(),
        env: Environment::default(),
        dir: String::new(),
        user: String::new(),
        terminal: None,
        stdin: false,
        attach: true,
    }
}

impl Host {
    /// Powers a machine on and begins to serve its link.
    pub fn boot(machine: Machine, spec: &Spec) -> Host {
        Host::on(machine.power_on(), spec)
    }

    /// Begins to serve the link of a machine that is on and whose socket is connected. The spec says what this end holds true.
    pub fn on(powered: Powered, spec: &Spec) -> Host {
        let line = Line::new(powered.socket.try_clone().expect("a socket"));
        let mut host = Host {
            link: fresh(spec, 1),
            machine: powered,
            told: Vec::new(),
            statuses: Vec::new(),
            spec: spec.clone(),
            line: Some(line),
            intakes: BTreeMap::new(),
            feeds: BTreeMap::new(),
            replies: BTreeMap::new(),
            requests: 0,
            sessions: 0,
            lives: 1,
            newborn: false,
            heard: None,
            heard_new: None,
            last_heard: None,
            tap: None,
        };
        host.open(MAIN);
        host.link.pipe_up(host.machine.began.elapsed());
        host
    }

    /// Makes a session's channels known on this side.
    pub fn open(&mut self, session: SessionId) {
        let streams = session.streams();
        for channel in [streams.stdin, streams.stdout, streams.stderr] {
            self.link.open(channel);
        }
        self.feeds.insert(streams.stdin, Feed::default());
        self.intakes.insert(streams.stdout, Intake::default());
        self.intakes.insert(streams.stderr, Intake::default());
    }

    // -- requests

    /// Asks, and returns the number to ask [`Host::answer`] for.
    pub fn ask(&mut self, request: Request) -> u64 {
        self.requests += 1;
        let id = self.requests;
        self.link.send_message(&Message::Request { id, request }.encode());
        id
    }

    pub fn answer(&mut self, id: u64) -> Reply {
        self.wait("an answer", |host| host.replies.remove(&id))
    }

    pub fn request(&mut self, request: Request) -> Reply {
        let id = self.ask(request);
        self.answer(id)
    }

    /// Asks for something that must be done.
    pub fn order(&mut self, request: Request) {
        let shown = format!("{request:?}");
        assert_eq!(self.request(request), Reply::Done, "{shown}");
    }

    /// Asks for a session and does not wait: its number, and the request's.
    pub fn begin(&mut self, work: Work) -> (SessionId, u64) {
        self.sessions += 1;
        let session = SessionId(self.sessions);
        self.open(session);
        (session, self.ask(Request::Create { session, work }))
    }

    /// Makes a session that must start.
    pub fn create(&mut self, work: Work) -> SessionId {
        let (session, id) = self.begin(work);
        let reply = self.answer(id);
        assert!(
            matches!(reply, Reply::Started { .. }),
            "{reply:?}; told: {:?}; console: {}",
            self.told,
            self.machine.console()
        );
        session
    }

    pub fn exec(&mut self, exec: Exec) -> SessionId {
        self.create(Work::Exec(exec))
    }

    /// Waits for the end of a session and of all that it wrote.
    pub fn exit(&mut self, session: SessionId) -> Exit {
        let streams = session.streams();
        self.wait("a session's end", |host| {
            let complete = [streams.stdout, streams.stderr].iter().all(|id| host.intakes[id].ended);
            host.told.iter().find_map(|told| match told {
                Told::Ended { session: ended, exit } if *ended == session && complete => Some(exit.clone()),
                _ => None,
            })
        })
    }

    /// What a session has written, once it has ended; it is forgotten.
    pub fn finish(&mut self, session: SessionId) -> Ran {
        let exit = self.exit(session);
        let ran = Ran { exit, stdout: self.stdout(session).text(), stderr: self.stderr(session).text() };
        self.forget(session);
        ran
    }

    pub fn run(&mut self, work: Work) -> Ran {
        let session = self.create(work);
        self.finish(session)
    }

    /// What a script prints, which must exit with 0.
    pub fn shell(&mut self, script: &str) -> String {
        let ran = self.run(Work::Exec(sh(script)));
        assert_eq!((ran.exit.ending.code(), ran.stderr.as_str()), (0, ""), "{script}: {ran:?}");
        ran.stdout
    }

    pub fn forget(&mut self, session: SessionId) {
        self.order(Request::Forget { session });
        let streams = session.streams();
        for channel in [streams.stdin, streams.stdout, streams.stderr] {
            self.link.forget(channel);
            self.intakes.remove(&channel);
            self.feeds.remove(&channel);
        }
    }

    /// How the machine is now.
    pub fn status(&mut self) -> Status {
        match self.request(Request::Status) {
            Reply::Text(text) => status(&text),
            other => panic!("no status: {other:?}"),
        }
    }

    /// Waits until a session of the spec's was told to be so.
    pub fn wait_for(&mut self, name: &str, what: &str, is_so: impl Fn(&SessionStatus) -> bool) -> SessionStatus {
        self.wait(&format!("{name} {what}"), |host| {
            host.statuses.iter().filter_map(|status| status.sessions.get(name)).find(|session| is_so(session)).cloned()
        })
    }

    // -- streams

    pub fn stdout(&mut self, session: SessionId) -> &mut Intake {
        self.intakes.get_mut(&session.streams().stdout).expect("a session of ours")
    }

    pub fn stderr(&mut self, session: SessionId) -> &mut Intake {
        self.intakes.get_mut(&session.streams().stderr).expect("a session of ours")
    }

    pub fn stdin(&mut self, session: SessionId) -> &mut Feed {
        self.feeds.get_mut(&session.streams().stdin).expect("a session of ours")
    }

    /// Types all of `bytes`, and that is the end.
    pub fn feed(&mut self, session: SessionId, bytes: &[u8]) {
        self.stdin(session).add(bytes);
        self.stdin(session).finish();
    }

    /// Sends the first `length` bytes of a pattern and expects the same back.
    pub fn echo(&mut self, session: SessionId, pattern: Pattern, length: u64) {
        self.stdin(session).pour(pattern, length);
        self.stdin(session).finish();
        self.stdout(session).pattern = Some(pattern);
    }

    /// Waits until a session's standard output holds `text`.
    pub fn expect(&mut self, session: SessionId, text: &str) {
        self.wait(&format!("{text:?}"), |host| host.stdout(session).text().contains(text).then_some(()));
    }

    // -- failures

    /// The line is cut: this end knows, and keeps what it has.
    pub fn cut(&mut self) {
        self.line = None;
        self.machine.disconnect();
        self.link.pipe_down();
    }

    /// This end dies: its link is gone, and the connection with it. What it had taken is what a real host would have put away.
    pub fn kill(&mut self) {
        self.line = None;
        self.machine.disconnect();
        self.be_born();
    }

    /// Takes a new connection.
    pub fn connect(&mut self) {
        self.machine.connect();
        self.line = Some(Line::new(self.machine.socket.try_clone().expect("a socket")));
        self.link.pipe_up(self.machine.began.elapsed());
    }

    /// This end dies and another takes its place on the same connection, which stays: nothing tells the guest.
    pub fn replace(&mut self) {
        self.be_born();
        if let Some(line) = &mut self.line {
            line.drop_pending();
        }
        self.link.pipe_up(self.machine.began.elapsed());
    }

    fn be_born(&mut self) {
        self.lives += 1;
        self.link = fresh(&self.spec, self.lives);
        self.newborn = true;
    }

    /// The guest has told where every channel is: output goes on at most where we are, and is repeated where the guest has not heard that we took it;
    /// input goes on where the guest is.
    fn adopt(&mut self) {
        self.newborn = false;
        let channels: Vec<ChannelId> = self.link.channels().collect();
        for (id, intake) in &self.intakes {
            if channels.contains(id) {
                let (at, had) = (self.link.consumed(*id), intake.count);
                assert!(at <= had, "channel {} goes on at {at}, and {had} were taken", id.0);
            }
        }
        for (id, feed) in &mut self.feeds {
            if channels.contains(id) && !self.link.is_finished(*id) {
                feed.at = self.link.delivered(*id);
            }
        }
    }

    /// Puts bytes on the line that are none of the link's, between two of its frames.
    pub fn say(&mut self, bytes: &[u8]) {
        self.flush();
        let line = self.line.as_mut().expect("connected");
        line.push(bytes);
        self.flush();
    }

    /// Waits until the device has taken everything that was said.
    fn flush(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while self.line.as_ref().is_some_and(Line::is_pending) {
            assert!(Instant::now() < deadline, "the device takes nothing");
            self.step(Duration::from_millis(10));
        }
    }

    // -- driving

    /// Serves the link until `done` has something.
    pub fn wait<T>(&mut self, what: &str, mut done: impl FnMut(&mut Host) -> Option<T>) -> T {
        let began = Instant::now();
        loop {
            if let Some(value) = done(self) {
                return value;
            }
            let quiet_since = self.last_heard.map_or(began, |heard| heard.max(began));
            if quiet_since.elapsed() > PATIENCE || began.elapsed() > MOST_PATIENCE {
                panic!(
                    "{what} did not come in {:?}, {:?} of them silent; told: {:?}; last status: {:?}; channels: {:?}; {:?}, open {}; console: {}",
                    began.elapsed(),
                    quiet_since.elapsed(),
                    self.told,
                    self.statuses.last(),
                    self.intakes.iter().map(|(id, intake)| (id.0, intake.count, intake.ended)).collect::<Vec<_>>(),
                    self.link.counters(),
                    self.link.is_open(),
                    self.machine.console()
                );
            }
            self.step(Duration::from_millis(50));
        }
    }

    /// Serves the link for a while.
    pub fn serve_for(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            self.step(left.min(Duration::from_millis(50)));
        }
    }

    pub fn now(&self) -> Duration {
        self.machine.began.elapsed()
    }

    /// Serves until the machine has powered off.
    pub fn wait_off(&mut self) {
        self.wait("the end of the machine", |host| host.line.is_none().then_some(()));
        self.machine.wait();
    }

    /// Serves, whatever becomes of the link, until the machine has powered off.
    pub fn machine_ends_without_us(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while self.line.is_some() {
            assert!(Instant::now() < deadline, "still on; console: {}", self.machine.console());
            self.step(Duration::from_millis(50));
        }
        self.machine.wait();
    }

    /// Gives the machine back, still on.
    pub fn into_machine(self) -> Powered {
        self.machine
    }

    /// Moves what can be moved, once; waits for at most `limit` when there is nothing.
    pub fn step(&mut self, limit: Duration) {
        for (&id, feed) in &mut self.feeds {
            let bytes = feed.next(self.link.room(id).min(1 << 18));
            feed.at += self.link.write(id, &bytes) as u64;
            if feed.is_finished() {
                self.link.finish(id);
            }
        }
        let now = self.now();
        let Some(line) = &mut self.line else {
            std::thread::sleep(limit);
            return;
        };
        let alive = line.transmit(&mut self.link, &mut self.tap, now)
            && line.receive(&mut self.link, &mut self.tap, limit, now);
        if !alive {
            self.line = None;
            self.link.pipe_down();
        }
        self.link.handle_timeout(self.now());
        self.read_events();
        self.read_channels();
    }

    fn read_events(&mut self) {
        while let Some(event) = self.link.poll_event() {
            match event {
                Event::Message(bytes) => match Message::decode(&bytes) {
                    Ok(Message::Event(Told::Status(text))) => self.statuses.push(status(&text)),
                    Ok(Message::Event(told)) => self.told.push(told),
                    Ok(Message::Reply { id, reply }) => drop(self.replies.insert(id, reply)),
                    other => panic!("unexpected message {other:?}"),
                },
                Event::Opened { .. } if self.newborn => self.adopt(),
                Event::Closed(why) => panic!("the link is over: {why}; console: {}", self.machine.console()),
                _ => {}
            }
        }
    }

    fn read_channels(&mut self) {
        for (&id, intake) in &mut self.intakes {
            let bytes = self.link.readable(id);
            let count = match intake.appetite {
                Appetite::All => bytes.len(),
                Appetite::Sips(most) => bytes.len().min(most),
                Appetite::Nothing => 0,
            };
            if count > 0 {
                let before = intake.count;
                intake.take(self.link.consumed(id), &bytes[..count]);
                self.link.consume(id, count);
                self.last_heard = Some(Instant::now());
                self.heard = self.heard.or(self.last_heard);
                if intake.count > before {
                    self.heard_new = self.heard_new.or(self.last_heard);
                }
            }
            intake.ended |= self.link.is_ended(id);
        }
    }
}

/// A status is JSON.
pub fn status(text: &str) -> Status {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("no status: {error}: {text}"))
}

fn fresh(spec: &Spec, life: u8) -> Link {
    let tuning = match spec.link.device {
        LinkDevice::Serial => Tuning::SERIAL,
        LinkDevice::Virtio | LinkDevice::Vsock => Tuning::FAST,
    };
    let security = Security { key: spec.link.key.clone(), sealed: spec.link.sealed, seed: [life; 32] };
    Link::new(Role::Host { vm: spec.id.clone() }, tuning, security)
}
