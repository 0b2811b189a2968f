//! A hub that is gone, and the next one, which knows nothing: output and input go on, and every byte is compared.

use super::guest::exec;
use super::*;

/// A person, or a daemon, who remembers how far it is in both directions.
struct Patient {
    heard: Vec<u8>,
    input: Vec<u8>,
    exit: Option<Exit>,
}

impl Patient {
    /// Goes on with a session over this hub, for so many outputs. Then the hub is killed.
    async fn go_on(&mut self, hub: Hub, session: SessionId, outputs: usize) {
        let from = Offsets { stdin: 0, stdout: self.heard.len() as u64, stderr: 0 };
        let options = AttachOptions { from: Some(from), ..ALL };
        let Attachment { mut events, client, offsets } = hub.attach(session, options).await.unwrap();
        // what the guest has of the input, and nothing else, is not said again
        let rest = self.input[usize::try_from(offsets.stdin).unwrap()..].to_vec();
        let writer = client.clone();
        let writing = tokio::spawn(async move {
            for piece in rest.chunks(5000) {
                if writer.write_stdin(piece.to_vec()).await.is_err() {
                    return;
                }
            }
            writer.end_stdin();
        });
        for count in 0..outputs {
            match soon("output", events.next()).await.expect("the hub is there") {
                Output::Stdout { offset, bytes } => {
                    assert_eq!(offset, self.heard.len() as u64);
                    self.heard.extend_from_slice(&bytes);
                    // the hub hears of it now and then
                    if count % 3 == 0 {
                        client.taken(Stream::Stdout, self.heard.len() as u64);
                    }
                }
                Output::Stderr { .. } => panic!("there is none"),
                Output::StdinTaken(offset) => assert!(offset <= self.input.len() as u64),
                Output::Ended(exit) => {
                    self.exit = Some(exit);
                    client.taken(Stream::Stdout, self.heard.len() as u64);
                    break;
                }
                Output::Detached(why) => panic!("{why}"),
            }
            client.taken(Stream::Stdout, self.heard.len().saturating_sub(30_000) as u64);
        }
        writing.abort();
        // before its clients: these have not left
        drop(hub);
    }
}

/// An echo of a megabyte, with a hub that is killed after every few outputs, at any moment between two steps of its task.
#[tokio::test(start_paused = true)]
async fn a_hub_that_is_killed_again_and_again_loses_and_repeats_nothing() {
    for seed in 0..8 {
        let (first, guest) = connected().await;
        let session = first.create(exec(&["sleep"])).await.unwrap();
        drop(first);
        let session_is = |change: fn(&mut guest::Running)| {
            guest.with(|guest| change(guest.sessions.get_mut(&session).unwrap()));
        };
        session_is(|session| session.echo = true);
        session_is(|session| session.attached = true);
        let mut patient = Patient { heard: Vec::new(), input: pattern(1_000_000), exit: None };
        for round in 0usize.. {
            let hub = hub(round.to_le_bytes()[0]);
            guest.connect(&hub).await;
            patient.go_on(hub, session, 1 + (round * 13 + seed * 7) % 9).await;
            for _ in 0..(round * 5 + seed) % 30 {
                tokio::task::yield_now().await;
            }
            if patient.exit.is_some() {
                assert!(round > 3, "{round} restarts are too few");
                break;
            }
        }
        assert!(patient.heard == patient.input, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_hub_knows_how_sessions_ended_meanwhile() {
    let (first, guest) = connected().await;
    let session = first.create(exec(&["sleep"])).await.unwrap();
    drop(first);
    guest.with(|guest| guest.sessions.get_mut(&session).unwrap().code = Some(9));
    guest.main(|main| {
        main.stdout = b"while you were away".to_vec();
        main.code = Some(4);
    });
    let second = hub(2);
    guest.connect(&second).await;
    assert_eq!(soon("its exit", second.wait(session)).await.unwrap().ending.code(), 9);
    assert_eq!(soon("its exit", second.wait(MAIN)).await.unwrap().ending.code(), 4);
    let heard = soon("its output", listen(second.attach(MAIN, OUTPUT).await.unwrap())).await;
    assert_eq!(heard.stdout, b"while you were away");
    assert_eq!(heard.exit().ending.code(), 4);
    assert!(matches!(second.watch().borrow().main, MainState::Ended(_)));
    let next = second.create(exec(&["sleep"])).await.unwrap();
    assert_ne!(next, session, "a number is not used twice");
}

#[tokio::test(start_paused = true)]
async fn an_ended_session_whose_output_was_taken_has_still_its_end() {
    let (first, guest) = connected().await;
    let client = first.attach(MAIN, OUTPUT).await.unwrap();
    guest.main(|main| {
        main.stdout = b"all of it".to_vec();
        main.code = Some(4);
    });
    assert_eq!(soon("the end", listen(client)).await.stdout, b"all of it");
    guest.until("it is taken", |guest| guest.link.is_flushed()).await;
    drop(first);
    let second = hub(2);
    guest.connect(&second).await;
    let heard = soon("the end", listen(second.attach(MAIN, OUTPUT).await.unwrap())).await;
    assert_eq!((heard.stdout.len(), heard.exit().ending.code()), (0, 4));
}

#[tokio::test(start_paused = true)]
async fn input_that_has_ended_is_not_begun_again() {
    let (first, guest) = connected().await;
    let client = first.attach(MAIN, ALL).await.unwrap();
    client.write_stdin(b"all".to_vec()).await.unwrap();
    client.end_stdin();
    guest.until("the end of input", |guest| guest.sessions[&MAIN].input_ended).await;
    drop((first, client));
    let second = hub(2);
    guest.connect(&second).await;
    let client = second.attach(MAIN, ALL).await.unwrap();
    assert_eq!(client.offsets.stdin, 3);
    assert_eq!(client.write_stdin(b"more".to_vec()).await, Err(HubError::InputClosed));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_come_back_holds_nobody_up_for_ever() {
    let (first, guest) = connected().await;
    let client = first.attach(MAIN, OUTPUT).await.unwrap();
    guest.main(|main| main.stdout = pattern(9 * WINDOW));
    guest.until("it is held up", |guest| guest.sessions[&MAIN].written.0 >= WINDOW).await;
    drop(first);
    drop(client);
    let second = hub(2);
    guest.connect(&second).await;
    guest.until("it goes on", |guest| guest.sessions[&MAIN].written.0 == 9 * WINDOW).await;
    assert!(!guest.main(|main| main.attached));
}
