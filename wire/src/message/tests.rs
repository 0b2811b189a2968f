//! Every message has a golden vector, here and in `docs/protocol.md`.

use super::*;
use crate::status::{Ending, FailureKind};
use crate::vitals::{Cpu, DiskIo, Interface, Memory};

/// One of each variant, with the bytes that `docs/protocol.md` shows.
fn vectors() -> Vec<(Message, &'static str)> {
    let request = |request| Message::Request { id: 7, request };
    let reply = |reply| Message::Reply { id: 7, reply };
    let exit = |ending| Exit { ending, started_us: 1, ended_us: 2, oom: false };
    let ended = |ending| Message::Event(Event::Ended { session: MAIN, exit: exit(ending) });
    let create = |work| Request::Create { session: SessionId(1), work };
    let session = |number, state| SessionInfo { session: SessionId(number), state, terminal: false, attached: true };
    let sessions = vec![
        session(0, SessionState::Waiting),
        session(1, SessionState::Running { pid: 42, started_us: 3 }),
        session(2, SessionState::Ended(exit(Ending::Exited { code: 3 }))),
    ];
    vec![
        (request(Request::Resize { session: MAIN, size: TermSize { rows: 24, columns: 80 } }), "00 07 00 00 18 50"),
        (request(Request::Signal { session: SessionId(300), signal: 15 }), "00 07 01 fb 2c 01 0f"),
        (request(Request::PowerOff), "00 07 02"),
        (
            request(create(Work::Exec(exec(None)))),
            "00 07 03 01 00 02 02 6c 73 02 2d 6c 01 03 41 3d 62 01 2f 03 31 3a 32 00 01 01",
        ),
        (
            request(create(Work::Exec(exec(Some(TermSize { rows: 24, columns: 80 }))))),
            "00 07 03 01 00 02 02 6c 73 02 2d 6c 01 03 41 3d 62 01 2f 03 31 3a 32 01 18 50 01 01",
        ),
        (request(create(Work::CopyOut { path: "/a".into() })), "00 07 03 01 01 02 2f 61"),
        (
            request(create(Work::CopyIn { dir: "/a".into(), owners: true, replace: false })),
            "00 07 03 01 02 02 2f 61 01 00",
        ),
        (request(create(Work::Changes)), "00 07 03 01 03"),
        (request(Request::Start), "00 07 04"),
        (request(Request::Attach { session: MAIN }), "00 07 05 00"),
        (request(Request::Detach { session: MAIN }), "00 07 06 00"),
        (request(Request::List), "00 07 07"),
        (request(Request::Forget { session: SessionId(1) }), "00 07 08 01"),
        (request(Request::Top), "00 07 09"),
        (request(Request::Stats), "00 07 0a"),
        (request(Request::Inspect { path: "/a".into() }), "00 07 0b 02 2f 61"),
        (request(Request::Reload { keys: "a".into() }), "00 07 0c 01 61"),
        (request(Request::Trim), "00 07 0d"),
        (request(Request::SetClock { unix_ns: 1 }), "00 07 0e 02"),
        (request(Request::KernelLog), "00 07 0f"),
        (request(Request::Reboot), "00 07 10"),
        (request(Request::Status), "00 07 11"),
        (request(Request::Spec), "00 07 12"),
        (request(Request::Stop { signal: None, grace_ms: None }), "00 07 13 00 00"),
        (request(Request::Stop { signal: Some(2), grace_ms: Some(300) }), "00 07 13 01 02 01 fb 2c 01"),
        (request(Request::Restart { signal: Some(2), grace_ms: None }), "00 07 14 01 02 00"),
        (reply(Reply::Done), "01 07 00"),
        (reply(Reply::Unsupported), "01 07 01"),
        (reply(Reply::Refused { reason: "no".into() }), "01 07 02 02 6e 6f"),
        (reply(Reply::Started { pid: 42 }), "01 07 03 2a"),
        (reply(Reply::Failed(Failure { kind: FailureKind::ProgramNotFound, reason: "x".into() })), "01 07 04 03 01 78"),
        (reply(Reply::Sessions(sessions)), "01 07 05 03 00 00 00 01 01 01 2a 03 00 01 02 02 00 03 01 02 00 00 01"),
        (reply(Reply::Processes(vec![process()])), "01 07 06 01 01 02 03 53 05 06 07 08 01 02 73 68"),
        (
            reply(Reply::Stats(Box::new(stats()))),
            "01 07 07 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f 10 11 12 13 01 14 15 16 17 18 19 01 04 65 74 68 30 1a 1b 1c 1d 1e 1f 20 21",
        ),
        (
            reply(Reply::Path(PathInfo {
                name: "a".into(),
                size: 300,
                mode: 0o100_644,
                mtime_ns: -1,
                target: String::new(),
            })),
            "01 07 08 01 61 fb 2c 01 fb a4 81 01 00",
        ),
        (reply(Reply::Trimmed { bytes: 300 }), "01 07 09 fb 2c 01"),
        (reply(Reply::Text("hi".into())), "01 07 0a 02 68 69"),
        (reply(Reply::Spec("hi".into())), "01 07 0b 02 68 69"),
        (
            Message::Event(Event::Ready(Ready {
                version: "0.1.0".into(),
                boot: *b"0123456789abcdef",
                init_us: 250,
                link_us: 251,
                ready_us: 65536,
            })),
            "02 00 05 30 2e 31 2e 30 30 31 32 33 34 35 36 37 38 39 61 62 63 64 65 66 fa fb fb 00 fc 00 00 01 00",
        ),
        (Message::Event(Event::Started { session: MAIN, pid: 42 }), "02 01 00 2a"),
        (ended(Ending::Exited { code: 3 }), "02 02 00 00 03 01 02 00"),
        (ended(Ending::Signaled { signal: 9, core: false }), "02 02 00 01 09 00 01 02 00"),
        (
            Message::Event(Event::Failed(Failure { kind: FailureKind::ProgramNotFound, reason: "x".into() })),
            "02 03 03 01 78",
        ),
        (Message::Event(Event::Status("{}".into())), "02 04 02 7b 7d"),
        (Message::Event(Event::KernelLog("hi".into())), "02 05 02 68 69"),
    ]
}

fn exec(terminal: Option<TermSize>) -> Exec {
    Exec {
        argv: vec!["ls".into(), "-l".into()],
        env: Environment(vec!["A=b".into()]),
        dir: "/".into(),
        user: "1:2".into(),
        terminal,
        stdin: true,
        attach: true,
    }
}

/// Its fields are 1, 2, 3 and so on, so that a reader of the vector can count them.
fn process() -> ProcessInfo {
    ProcessInfo {
        pid: 1,
        ppid: 2,
        uid: 3,
        state: 'S',
        cpu_us: 5,
        started_us: 6,
        resident: 7,
        terminal: 8,
        command: vec!["sh".into()],
    }
}

fn stats() -> Stats {
    let memory = Memory { current: 2, limit: 3, peak: 4, anon: 5, file: 6, inactive_file: 7, oom_kills: 8, total: 9 };
    let cpu = Cpu {
        usage_us: 10,
        user_us: 11,
        system_us: 12,
        periods: 13,
        throttled_periods: 14,
        throttled_us: 15,
        online: 16,
        machine_us: 17,
    };
    let io = DiskIo { major: 20, minor: 21, read_bytes: 22, write_bytes: 23, reads: 24, writes: 25 };
    let network = Interface {
        name: "eth0".into(),
        rx_bytes: 26,
        rx_packets: 27,
        rx_errors: 28,
        rx_dropped: 29,
        tx_bytes: 30,
        tx_packets: 31,
        tx_errors: 32,
        tx_dropped: 33,
    };
    Stats { at_us: 1, memory, cpu, pids: 18, pids_limit: 19, io: vec![io], networks: vec![network] }
}

#[test]
fn golden_messages() {
    for (message, golden) in vectors() {
        let bytes = message.encode();
        let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex.join(" "), golden, "{message:?}");
        assert_eq!(Message::decode(&bytes), Ok(message.clone()));
        let asked = Some(message).filter(|message| matches!(message, Message::Request { .. }));
        assert_eq!(Message::decode_request(&bytes), Ok(asked));
    }
}

#[test]
fn the_protocol_document_shows_every_vector() {
    let document = include_str!("../../../docs/protocol.md");
    for (message, golden) in vectors() {
        assert!(document.contains(golden), "docs/protocol.md lacks {message:?}: {golden}");
    }
}

/// Adding a variant breaks these matches: add its vector too.
#[test]
fn every_variant_has_a_vector() {
    let mut seen = [[false; 24]; 3];
    for (message, _) in vectors() {
        match message {
            Message::Request { request, .. } => seen[0][request_number(&request)] = true,
            Message::Reply { reply, .. } => seen[1][reply_number(&reply)] = true,
            Message::Event(event) => seen[2][event_number(&event)] = true,
            Message::UnknownRequest { .. } | Message::UnknownEvent => {}
        }
    }
    let counts = seen.map(|seen| seen.iter().take_while(|&&seen| seen).count());
    assert_eq!(counts, [24, 12, 6]);
}

fn request_number(request: &Request) -> usize {
    match request {
        Request::Resize { .. } => 0,
        Request::Signal { .. } => 1,
        Request::PowerOff => 2,
        Request::Create { work: Work::Exec(_), .. } => 3,
        Request::Create { work: Work::CopyOut { .. }, .. } => 4,
        Request::Create { work: Work::CopyIn { .. }, .. } => 5,
        Request::Start => 6,
        Request::Attach { .. } => 7,
        Request::Detach { .. } => 8,
        Request::List => 9,
        Request::Forget { .. } => 10,
        Request::Top => 11,
        Request::Stats => 12,
        Request::Inspect { .. } => 13,
        Request::Reload { .. } => 14,
        Request::Trim => 15,
        Request::SetClock { .. } => 16,
        Request::KernelLog => 17,
        Request::Reboot => 18,
        Request::Status => 19,
        Request::Create { work: Work::Changes, .. } => 20,
        Request::Spec => 21,
        Request::Stop { .. } => 22,
        Request::Restart { .. } => 23,
    }
}

fn reply_number(reply: &Reply) -> usize {
    match reply {
        Reply::Done => 0,
        Reply::Unsupported => 1,
        Reply::Refused { .. } => 2,
        Reply::Started { .. } => 3,
        Reply::Failed(_) => 4,
        Reply::Sessions(_) => 5,
        Reply::Processes(_) => 6,
        Reply::Stats(_) => 7,
        Reply::Path(_) => 8,
        Reply::Trimmed { .. } => 9,
        Reply::Text(_) => 10,
        Reply::Spec(_) => 11,
    }
}

fn event_number(event: &Event) -> usize {
    match event {
        Event::Ready(_) => 0,
        Event::Started { .. } => 1,
        Event::Ended { .. } => 2,
        Event::Failed(_) => 3,
        Event::Status(_) => 4,
        Event::KernelLog(_) => 5,
    }
}

#[test]
fn what_a_later_version_says_is_told_from_garbage() {
    assert_eq!(Message::decode(&[0, 7, 0x63]), Ok(Message::UnknownRequest { id: 7 }));
    assert_eq!(Message::decode_request(&[0, 7, 0x63]), Ok(Some(Message::UnknownRequest { id: 7 })));
    assert_eq!(Message::decode(&[2, 0x63]), Ok(Message::UnknownEvent));
    assert_eq!(Message::decode(&[9]), Err(DecodeError::UnknownKind));
    assert!(Message::decode(&[0, 7, 1, 0]).is_err());
    assert!(Message::decode(&[]).is_err());
}

#[test]
fn sessions_do_not_share_channels() {
    let (main, second) = (MAIN.streams(), SessionId(1).streams());
    assert_eq!([main.stdin.0, main.stdout.0, main.stderr.0], [1, 2, 3]);
    assert_eq!([second.stdin.0, second.stdout.0, second.stderr.0], [4, 5, 6]);
}
