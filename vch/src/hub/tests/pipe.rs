//! Pipes that are cut, replaced and forged, and machines that are gone.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wire::message::Event;
use wire::status::{Failure, FailureKind};

use super::*;

#[tokio::test(start_paused = true)]
async fn what_is_asked_before_the_first_pipe_is_answered_after_it() {
    let (hub, guest) = (hub(1), Guest::new());
    let asked = {
        let hub = hub.clone();
        tokio::spawn(async move { hub.attach(MAIN, OUTPUT).await })
    };
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(hub.watch().borrow().pipe, PipeState::Awaited);
    guest.connect(&hub).await;
    soon("an attachment", asked).await.unwrap().unwrap();
    let status = hub.watch().borrow().clone();
    assert_eq!((status.pipe, status.boot, status.opened), (PipeState::Open, Some([1; 16]), 1));
    assert_eq!(status.main, MainState::Running { pid: 100 });
}

#[tokio::test(start_paused = true)]
async fn a_process_that_ends_before_the_hub_has_asked_for_it_is_heard() {
    let (hub, guest) = (hub(1), Guest::new());
    guest.with(|guest| {
        let channels = MAIN.streams();
        for channel in [channels.stdin, channels.stdout, channels.stderr] {
            guest.link.forget(channel);
        }
        let mut main = guest.sessions.remove(&MAIN).unwrap();
        main.stdout = b"in a hurry".to_vec();
        main.code = Some(0);
        guest.late = Some(main);
    });
    guest.connect(&hub).await;
    let heard = soon("the end", listen(hub.attach(MAIN, OUTPUT).await.unwrap())).await;
    assert_eq!((&heard.stdout[..], heard.exit().ending.code()), (&b"in a hurry"[..], 0));
}

#[tokio::test(start_paused = true)]
async fn a_request_is_answered_across_a_cut() {
    let (hub, guest) = connected().await;
    assert_eq!(hub.request(Request::Start).await, Ok(Reply::Done));
    for round in 1..20 {
        let asked = {
            let hub = hub.clone();
            tokio::spawn(async move { hub.request(Request::Start).await })
        };
        for _ in 0..round {
            tokio::task::yield_now().await;
        }
        guest.connect(&hub).await;
        assert_eq!(soon("an answer", asked).await.unwrap(), Ok(Reply::Done));
    }
    assert_eq!(guest.with(|guest| guest.requests.iter().filter(|&request| *request == Request::Start).count()), 20);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_over_a_pipe_that_is_cut_all_the_time() {
    let (hub, guest) = connected().await;
    let bytes = pattern(2_000_000);
    let client = hub.attach(MAIN, ALL).await.unwrap();
    let input = client.client.clone();
    let sent = bytes.clone();
    tokio::spawn(async move {
        for piece in sent.chunks(10_000) {
            input.write_stdin(piece.to_vec()).await.unwrap();
        }
    });
    guest.main(|main| main.stdout = bytes.clone());
    let cutting = async {
        for round in 0.. {
            for _ in 0..(round % 12) {
                tokio::task::yield_now().await;
            }
            guest.connect(&hub).await;
            if guest.main(|main| main.input.len() == bytes.len() && main.written.0 == bytes.len()) {
                break;
            }
        }
        guest.main(|main| main.code = Some(0));
    };
    let (heard, ()) = soon("all of it", async { tokio::join!(listen(client), cutting) }).await;
    assert!(heard.stdout == bytes);
    assert!(guest.main(|main| main.input == bytes));
    let opened = hub.watch().borrow().opened;
    assert!(opened > 10, "{opened} times is not all the time");
}

#[tokio::test(start_paused = true)]
async fn a_stranger_beside_a_live_pipe_disturbs_nobody() {
    let (hub, guest) = connected().await;
    let client = hub.attach(MAIN, OUTPUT).await.unwrap();
    let mut strangers = Vec::new();
    for round in 0..20u8 {
        let (ours, mut theirs) = tokio::io::duplex(16 * 1024);
        let (reader, writer) = tokio::io::split(ours);
        hub.pipe(Box::new(reader), Box::new(writer), vec![round; 100]).await;
        theirs.write_all(&pattern(10_000)).await.unwrap();
        strangers.push(theirs);
    }
    // one who even speaks the protocol, for another VM
    let other = Guest::of("c2", 9);
    other.connect(&hub).await;
    let bytes = pattern(1_000_000);
    guest.main(|main| {
        main.stdout = bytes.clone();
        main.code = Some(0);
    });
    let heard = soon("all of it", listen(client)).await;
    assert!(heard.stdout == bytes);
    assert_eq!(hub.watch().borrow().opened, 1);
    // those who came first were sent away for those who came last
    let mut rest = Vec::new();
    soon("the first is gone", strangers[0].read_to_end(&mut rest)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stranger_who_talks_on_and_on_is_sent_away() {
    let (hub, _guest) = connected().await;
    let (ours, mut theirs) = tokio::io::duplex(16 * 1024);
    let (reader, writer) = tokio::io::split(ours);
    hub.pipe(Box::new(reader), Box::new(writer), Vec::new()).await;
    let talk = async {
        while theirs.write_all(b"\0let me in\0").await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
    };
    soon("the door closes", talk).await;
    assert_eq!(hub.watch().borrow().opened, 1);
}

#[tokio::test(start_paused = true)]
async fn a_pipe_behind_a_stranger_takes_over() {
    let (hub, guest) = (hub(1), Guest::new());
    let (ours, mut stranger) = tokio::io::duplex(16 * 1024);
    let (reader, writer) = tokio::io::split(ours);
    hub.pipe(Box::new(reader), Box::new(writer), Vec::new()).await;
    stranger.write_all(b"\0GET / HTTP/1.0\r\n\r\n\0").await.unwrap();
    guest.connect(&hub).await;
    assert_eq!(soon("an answer", hub.request(Request::Start)).await, Ok(Reply::Done));
    let mut rest = Vec::new();
    soon("the stranger is sent away", stranger.read_to_end(&mut rest)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_last_words_of_a_machine_come_before_its_end() {
    let (hub, guest) = connected().await;
    let client = hub.attach(MAIN, OUTPUT).await.unwrap();
    guest.main(|main| main.stdout = b"last words".to_vec());
    guest.until("they are written", |guest| guest.link.delivered(MAIN.streams().stdout) == 10).await;
    let (waiting, asking) = (hub.wait(MAIN), hub.request(Request::Start));
    guest.with(|guest| guest.is_mute = true);
    let told = async {
        tokio::task::yield_now().await;
        hub.machine_ended("it was unplugged");
        guest.plug(tokio::io::duplex(1).0);
    };
    let (exit, reply, ()) = soon("the end", async { tokio::join!(waiting, asking, told) }).await;
    let lost = HubError::Lost("it was unplugged".into());
    assert_eq!((exit, reply), (Err(lost.clone()), Err(lost.clone())));
    let heard = soon("the end", listen(client)).await;
    assert_eq!(heard.stdout, b"last words");
    assert_eq!(heard.last, Some(Output::Detached("it was unplugged".into())));
    assert_eq!(hub.watch().borrow().main, MainState::Lost("it was unplugged".into()));
    assert_eq!(hub.request(Request::Start).await, Err(lost));
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_cannot_run_its_process_is_told_to_all() {
    let (hub, guest) = connected().await;
    let client = hub.attach(MAIN, OUTPUT).await.unwrap();
    let failure = Failure { kind: FailureKind::UnknownUser, reason: "there is no user x".into() };
    guest.with(|guest| guest.tell(Event::Failed(failure.clone())));
    let heard = soon("the end", listen(client)).await;
    assert_eq!(heard.last, Some(Output::Detached("there is no user x".into())));
    assert_eq!(hub.wait(MAIN).await, Err(HubError::Failed(failure.clone())));
    assert_eq!(hub.watch().borrow().main, MainState::Failed(failure));
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_restarted_is_another_one() {
    let (hub, guest) = connected().await;
    let mut client = hub.attach(MAIN, OUTPUT).await.unwrap();
    guest.main(|main| main.stdout = b"before".to_vec());
    let mut heard = Heard::default();
    listen_until(&mut client, &mut heard, |heard| heard.stdout.len() == 6).await;
    drop(guest);
    let guest = Guest::of(VM, 2);
    guest.connect(&hub).await;
    listen_until(&mut client, &mut heard, |heard| heard.last.is_some()).await;
    assert_eq!(heard.stdout, b"before");
    let why = "cannot talk with the guest: the virtual machine restarted";
    assert_eq!(heard.last, Some(Output::Detached(why.into())));
    assert_eq!(hub.watch().borrow().main, MainState::Closed(Closed::Restarted));
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_restarts_on_an_unbroken_pipe_is_let_go() {
    let hub = hub(1);
    // a serial port is connected once, whatever boots behind it
    let (ours, mut port) = tokio::io::duplex(4096);
    let (reader, writer) = tokio::io::split(ours);
    hub.pipe(Box::new(reader), Box::new(writer), Vec::new()).await;
    let behind = |boot: u8| {
        let guest = Guest::of(VM, boot);
        let (line, theirs) = tokio::io::duplex(4096);
        guest.plug(theirs);
        (guest, line)
    };
    let (first, mut line) = behind(1);
    let answer = async {
        tokio::select! {
            answer = hub.request(Request::Start) => answer,
            _ = tokio::io::copy_bidirectional(&mut port, &mut line) => panic!("the line ended"),
        }
    };
    assert_eq!(soon("an answer", answer).await, Ok(Reply::Done));
    drop((first, line));
    let (_second, mut line) = behind(2);
    // the hub is still held, and its client waits for something
    let waiting = hub.wait(MAIN);
    let ended = tokio::io::copy_bidirectional(&mut port, &mut line);
    let (exit, ended) = soon("the line ends", async { tokio::join!(waiting, ended) }).await;
    assert!(ended.is_ok());
    assert_eq!(exit, Err(HubError::Closed(Closed::Restarted)));
    let status = hub.watch().borrow().clone();
    assert_eq!((status.pipe, status.closed), (PipeState::Down, Some(Closed::Restarted)));
    // it takes no other pipe either
    let (ours, mut port) = tokio::io::duplex(4096);
    let (reader, writer) = tokio::io::split(ours);
    hub.pipe(Box::new(reader), Box::new(writer), Vec::new()).await;
    soon("it is closed", port.read_to_end(&mut Vec::new())).await.unwrap();
    assert_eq!(hub.watch().borrow().pipe, PipeState::Down);
}
