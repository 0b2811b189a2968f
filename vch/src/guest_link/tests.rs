//! The real link at both ends, over a socket pair, with a guest of a few lines.

use std::io::{self, Write};
use std::os::unix::net::UnixStream as StdStream;
use std::sync::mpsc as std_mpsc;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use wire::handshake::LinkKey;
use wire::link::{Link, Role, Security, Tuning};
use wire::message::{self, Message, Reply, SessionId};
use wire::packet::{ChannelId, ResetReason};
use wire::status::{Ending, FailureKind};

use super::*;

const VM: &str = "c1";
const TUNING: Tuning = Tuning { window: 64 * 1024, payload: 4096 };

/// The guest's end.
struct Guest {
    link: Link,
    pipe: UnixStream,
    began: Instant,
    messages: Vec<Message>,
    resets: Vec<(ChannelId, ResetReason)>,
}

fn security(seed: u8) -> Security {
    Security { key: LinkKey::new([1; 32]), sealed: true, seed: [seed; 32] }
}

impl Guest {
    fn new(pipe: UnixStream) -> Guest {
        let mut link = Link::new(Role::Guest { vm: VM.into(), boot: [1; 16] }, TUNING, security(2));
        let channels = MAIN.streams();
        for channel in [channels.stdin, channels.stdout, channels.stderr] {
            link.open(channel);
        }
        link.pipe_up(Duration::ZERO);
        Guest { link, pipe, began: Instant::now(), messages: Vec::new(), resets: Vec::new() }
    }

    fn tell(&mut self, event: message::Event) {
        self.link.send_message(&Message::Event(event).encode());
    }

    fn start(&mut self) {
        self.tell(message::Event::Ready(Ready {
            version: "1".into(),
            boot: [0; 16],
            init_us: 1,
            link_us: 2,
            ready_us: 3,
        }));
        self.tell(message::Event::Started { session: MAIN, pid: 9 });
    }

    fn end(&mut self, code: u8) {
        self.link.finish(MAIN.streams().stdout);
        self.link.finish(MAIN.streams().stderr);
        let exit = Exit { ending: Ending::Exited { code }, started_us: 1, ended_us: 2, oom: false };
        self.tell(message::Event::Ended { session: MAIN, exit });
    }

    /// Goes on until `done`.
    async fn until(&mut self, mut done: impl FnMut(&mut Guest) -> bool) {
        let mut inbox = vec![0; 4096];
        loop {
            while let Some(event) = self.link.poll_event() {
                match event {
                    link::Event::Message(bytes) => match Message::decode(&bytes).unwrap() {
                        // it knows no other session than the main one
                        Message::Request {
                            id,
                            request: Request::Status | Request::List | Request::SetClock { .. },
                        } => {
                            self.link.send_message(&Message::Reply { id, reply: Reply::Unsupported }.encode());
                        }
                        message => self.messages.push(message),
                    },
                    link::Event::Reset(channel, reason) => self.resets.push((channel, reason)),
                    link::Event::Closed(why) => panic!("{why}"),
                    _ => {}
                }
            }
            let finished = done(self);
            let mut out = Vec::new();
            while self.link.poll_transmit(self.began.elapsed(), &mut out) {}
            self.pipe.write_all(&out).await.unwrap();
            if finished {
                return;
            }
            let wake_at = self.link.poll_timeout().map_or(Instant::now() + FAR, |at| self.began + at);
            tokio::select! {
                count = self.pipe.read(&mut inbox) => {
                    let count = count.unwrap();
                    assert!(count > 0, "vch has gone");
                    self.link.handle_bytes(self.began.elapsed(), &inbox[..count]);
                }
                () = sleep_until(wake_at) => self.link.handle_timeout(self.began.elapsed()),
            }
        }
    }

    async fn flush(&mut self) {
        self.until(|guest| guest.link.is_open() && guest.link.is_flushed()).await;
    }

    /// Writes all of `bytes` to stdout.
    async fn say(&mut self, bytes: &[u8]) {
        let mut sent = 0;
        self.until(|guest| {
            sent += guest.link.write(MAIN.streams().stdout, &bytes[sent..]);
            sent == bytes.len()
        })
        .await;
    }
}

/// What is written lands here.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Shared {
    fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap().clone()
    }
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A sink that takes nothing until it is let go.
struct Stuck {
    gate: Option<std_mpsc::Receiver<()>>,
    then: Shared,
}

impl Write for Stuck {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(gate) = self.gate.take() {
            gate.recv().ok();
        }
        self.then.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Setup {
    ends: Ends,
    stdout: Shared,
    stderr: Shared,
    commands: mpsc::UnboundedSender<Command>,
    inbox: mpsc::UnboundedReceiver<Command>,
}

fn setup() -> Setup {
    let (stdout, stderr) = (Shared::default(), Shared::default());
    let ends = Ends { stdin: None, stdout: Box::new(stdout.clone()), stderr: Box::new(stderr.clone()) };
    let (commands, inbox) = mpsc::unbounded_channel();
    Setup { ends, stdout, stderr, commands, inbox }
}

/// Runs both ends; the guest's pipe closes when `guest` returns.
async fn talk<F: Future<Output = ()>>(
    ends: Ends,
    mut inbox: mpsc::UnboundedReceiver<Command>,
    start_time: Duration,
    guest: impl FnOnce(Guest) -> F,
) -> Report {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (reader, writer) = ours.into_split();
    let conversation = converse(
        (Box::new(reader), Box::new(writer)),
        Identity {
            vm: VM.into(),
            key: LinkKey::new([1; 32]),
            sealed: true,
            tuning: TUNING,
            seed: [3; 32],
            first_request: 1,
        },
        ends,
        &mut inbox,
        Instant::now() + start_time,
    );
    let both = async { tokio::join!(conversation, guest(Guest::new(theirs))).0 };
    tokio::time::timeout(Duration::from_secs(30), both).await.expect("both ends are stuck")
}

const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn output_is_complete_before_the_end() {
    let Setup { ends, stdout, stderr, commands: _commands, inbox } = setup();
    let bytes: Vec<u8> = (0..3_000_000u32).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
    let expected = bytes.clone();
    let report = talk(ends, inbox, LONG, async |mut guest| {
        guest.start();
        guest.link.write(MAIN.streams().stderr, b"careful");
        guest.say(&bytes).await;
        guest.end(3);
        guest.flush().await;
    })
    .await;
    let Outcome::Ended(exit) = report.outcome else { panic!("{report:?}") };
    assert_eq!(exit.ending.code(), 3);
    assert!(report.output_is_complete && !report.pipe_is_up && report.ready.is_some());
    assert!(stdout.bytes() == expected);
    assert_eq!(stderr.bytes(), b"careful");
}

#[tokio::test]
async fn a_slow_reader_slows_the_guest() {
    let Setup { mut ends, stdout, inbox, commands: _commands, .. } = setup();
    let (open, gate) = std_mpsc::channel();
    ends.stdout = Box::new(Stuck { gate: Some(gate), then: stdout.clone() });
    talk(ends, inbox, LONG, async |mut guest| {
        guest.start();
        let chunk = vec![5; 10_000];
        let mut taken = 0;
        // it ends when nothing has moved for a while: the windows are full
        while tokio::time::timeout(Duration::from_millis(300), guest.say(&chunk)).await.is_ok() {
            taken += chunk.len();
        }
        // it keeps what is not written out, and that is a window in all
        let window = TUNING.window as usize;
        assert!((window - chunk.len()..=window).contains(&taken), "{taken}");
        open.send(()).unwrap();
        guest.end(0);
        guest.flush().await;
    })
    .await;
    assert!(stdout.bytes().len() >= TUNING.window as usize);
}

#[tokio::test]
async fn when_nobody_reads_the_rest_is_dropped() {
    let Setup { mut ends, inbox, commands: _commands, .. } = setup();
    let (reader, writer) = StdStream::pair().unwrap();
    drop(reader);
    ends.stdout = Box::new(writer);
    let report = talk(ends, inbox, LONG, async |mut guest| {
        guest.start();
        guest.say(b"anyone?").await;
        guest.until(|guest| !guest.resets.is_empty()).await;
        assert_eq!(guest.resets, [(MAIN.streams().stdout, ResetReason::NotRead)]);
        guest.end(0);
        guest.flush().await;
    })
    .await;
    assert!(matches!(report.outcome, Outcome::Ended(_)), "{report:?}");
    assert!(report.write_error.is_none(), "nobody needs to hear of a broken pipe");
}

#[tokio::test]
async fn input_arrives_and_ends() {
    let Setup { mut ends, inbox, commands: _commands, .. } = setup();
    let text: Vec<u8> = vec![b'x'; 500_000];
    let source = text.clone();
    ends.stdin = Some(Box::new(move || Box::new(io::Cursor::new(source)) as Source));
    talk(ends, inbox, LONG, async |mut guest| {
        let stdin = MAIN.streams().stdin;
        guest.start();
        let mut got = Vec::new();
        guest
            .until(|guest| {
                got.extend_from_slice(guest.link.readable(stdin));
                guest.link.consume(stdin, guest.link.readable(stdin).len());
                guest.link.is_ended(stdin)
            })
            .await;
        assert!(got == text);
        guest.end(0);
        guest.flush().await;
    })
    .await;
}

#[tokio::test]
async fn input_that_nobody_wants_does_not_hold_up_the_end() {
    let Setup { mut ends, inbox, commands: _commands, .. } = setup();
    ends.stdin = Some(Box::new(|| Box::new(io::repeat(7)) as Source));
    let report = talk(ends, inbox, LONG, async |mut guest| {
        guest.start();
        guest.link.discard(MAIN.streams().stdin);
        guest.flush().await;
        guest.end(0);
        guest.flush().await;
    })
    .await;
    assert!(matches!(report.outcome, Outcome::Ended(_)), "{report:?}");
}

#[tokio::test]
async fn without_input_there_is_an_end_at_once() {
    let Setup { ends, inbox, commands: _commands, .. } = setup();
    talk(ends, inbox, LONG, async |mut guest| {
        guest.start();
        guest.until(|guest| guest.link.is_ended(MAIN.streams().stdin)).await;
        guest.end(0);
        guest.flush().await;
    })
    .await;
}

#[tokio::test]
async fn signals_wait_for_the_process_and_keep_their_order() {
    let Setup { ends, inbox, commands, .. } = setup();
    commands.send(Command::Signal(10)).unwrap();
    commands.send(Command::Resize(TermSize { rows: 5, columns: 6 })).unwrap();
    talk(ends, inbox, LONG, async |mut guest| {
        guest.flush().await;
        assert_eq!(guest.messages, []);
        guest.start();
        guest.until(|guest| guest.messages.len() == 2).await;
        commands.send(Command::Signal(12)).unwrap();
        guest.until(|guest| guest.messages.len() == 3).await;
        let requests: Vec<Request> = (guest.messages.iter())
            .map(|message| match message {
                Message::Request { request, .. } => request.clone(),
                other => panic!("{other:?}"),
            })
            .collect();
        let signal = |signal| Request::Signal { session: SessionId(0), signal };
        let resize = Request::Resize { session: MAIN, size: TermSize { rows: 5, columns: 6 } };
        assert_eq!(requests, [signal(10), resize, signal(12)]);
        guest.end(0);
        guest.flush().await;
    })
    .await;
}

#[tokio::test]
async fn a_third_request_to_end_is_the_last() {
    let Setup { ends, inbox, commands, .. } = setup();
    let report = talk(ends, inbox, LONG, async |mut guest| {
        guest.start();
        for round in 1..=2 {
            commands.send(Command::Signal(SIGINT)).unwrap();
            guest.until(|guest| guest.messages.len() == round).await;
            let Message::Request { id, .. } = guest.messages[round - 1] else { panic!() };
            guest.link.send_message(&Message::Reply { id, reply: Reply::Done }.encode());
        }
        guest.flush().await;
        commands.send(Command::Signal(SIGTERM)).unwrap();
        let mut rest = Vec::new();
        guest.pipe.read_to_end(&mut rest).await.unwrap();
    })
    .await;
    assert_eq!(report.outcome, Outcome::GivenUp);
    assert!(report.machine_stays());
}

#[tokio::test]
async fn a_failure_is_told() {
    let Setup { ends, inbox, commands: _commands, .. } = setup();
    let failure = Failure { kind: FailureKind::ProgramNotFound, reason: "no such program".into() };
    let told = failure.clone();
    let report = talk(ends, inbox, LONG, async |mut guest| {
        guest.tell(message::Event::Failed(told));
        guest.flush().await;
    })
    .await;
    assert_eq!(report.outcome, Outcome::Failed(failure));
}

#[tokio::test]
async fn a_machine_that_is_lost_loses_no_output_that_came() {
    let Setup { ends, stdout, inbox, commands: _commands, .. } = setup();
    let report = talk(ends, inbox, LONG, async |mut guest| {
        guest.start();
        guest.say(b"last words").await;
        guest.flush().await;
    })
    .await;
    assert_eq!(report.outcome, Outcome::Lost);
    assert_eq!(stdout.bytes(), b"last words");
}

#[tokio::test]
async fn a_guest_that_never_speaks_is_given_up() {
    let Setup { ends, inbox, commands: _commands, .. } = setup();
    let report = talk(ends, inbox, Duration::from_millis(50), async |mut guest| {
        let mut rest = Vec::new();
        guest.pipe.read_to_end(&mut rest).await.unwrap();
    })
    .await;
    assert_eq!(report.outcome, Outcome::NotReady);
}

#[tokio::test]
async fn a_stranger_is_not_talked_to() {
    let Setup { ends, inbox, commands: _commands, .. } = setup();
    let report = talk(ends, inbox, Duration::from_millis(300), async |mut guest| {
        guest.link = Link::new(Role::Guest { vm: "c2".into(), boot: [1; 16] }, TUNING, security(2));
        guest.link.pipe_up(Duration::ZERO);
        let mut out = Vec::new();
        while guest.link.poll_transmit(Duration::ZERO, &mut out) {}
        guest.pipe.write_all(&out).await.unwrap();
        let mut rest = Vec::new();
        guest.pipe.read_to_end(&mut rest).await.unwrap();
    })
    .await;
    assert_eq!(report.outcome, Outcome::NotReady);
}
