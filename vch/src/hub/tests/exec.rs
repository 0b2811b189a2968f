//! Sessions beside the main one: made, heard, waited for, forgotten.

use super::guest::exec;
use super::*;

#[tokio::test(start_paused = true)]
async fn nothing_of_a_short_program_is_missed() {
    let (hub, guest) = connected().await;
    let (session, client) = hub.create_attached(exec(&["print", "hello", "7"]), OUTPUT).await.unwrap();
    assert_ne!(session, MAIN);
    let heard = soon("the end", listen(client)).await;
    assert_eq!((&heard.stdout[..], &heard.stderr[..]), (&b"hello"[..], &b"and an error"[..]));
    assert_eq!(heard.exit().ending.code(), 7);
    assert_eq!(hub.wait(session).await.unwrap().ending.code(), 7);
    hub.forget(session).await.unwrap();
    assert!(guest.with(|guest| !guest.sessions.contains_key(&session)));
    assert_eq!(hub.wait(session).await.unwrap().ending.code(), 7, "the hub still knows");
    assert_eq!(hub.attach(session, OUTPUT).await.map(|_| ()), Err(HubError::NoSession(session)));
}

#[tokio::test(start_paused = true)]
async fn a_program_without_clients_can_be_waited_for() {
    let (hub, guest) = connected().await;
    let session = hub.create(exec(&["sleep"])).await.unwrap();
    let waiting = hub.wait(session);
    tokio::pin!(waiting);
    assert!(tokio::time::timeout(Duration::from_secs(60), &mut waiting).await.is_err());
    assert_eq!(hub.forget(session).await, Err(HubError::Refused("it has not ended".into())));
    guest.with(|guest| guest.sessions.get_mut(&session).unwrap().code = Some(5));
    assert_eq!(soon("the end", waiting).await.unwrap().ending.code(), 5);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_run_is_told_with_dockers_code() {
    let (hub, _guest) = connected().await;
    let missing = hub.create_attached(exec(&["nothing"]), ALL).await.map(|_| ()).unwrap_err();
    assert_eq!((missing.to_string().as_str(), missing.code()), ("nothing was not found", 127));
    let refused = hub.create(exec(&["busy"])).await.unwrap_err();
    assert_eq!((refused.to_string().as_str(), refused.code()), ("there are too many sessions", 125));
    let unknown = hub.create(Work::CopyOut { path: "/".into() }).await.unwrap_err();
    assert_eq!(unknown.to_string(), "the guest's version does not know this request");
    assert_eq!(hub.wait(SessionId(9)).await, Err(HubError::NoSession(SessionId(9))));
}

#[tokio::test(start_paused = true)]
async fn fifty_at_once_do_not_mix() {
    let (hub, guest) = connected().await;
    let all = (0..50u8).map(|number| {
        let hub = hub.clone();
        tokio::spawn(async move {
            let text: Vec<u8> = pattern(100_000).iter().map(|byte| byte ^ number).collect();
            let (session, client) = hub.create_attached(exec(&["cat"]), ALL).await.unwrap();
            let input = client.client.clone();
            let sent = text.clone();
            tokio::spawn(async move {
                for piece in sent.chunks(7777) {
                    input.write_stdin(piece.to_vec()).await.unwrap();
                }
                input.end_stdin();
            });
            let heard = listen(client).await;
            assert!(heard.stdout == text, "session {session:?}");
            assert_eq!(heard.exit().ending.code(), 0);
            hub.forget(session).await.unwrap();
        })
    });
    for one in all.collect::<Vec<_>>() {
        soon("an exec", one).await.unwrap();
    }
    assert_eq!(guest.with(|guest| guest.sessions.keys().copied().collect::<Vec<_>>()), [MAIN]);
}

#[tokio::test(start_paused = true)]
async fn a_hundred_clients_come_and_go() {
    let (hub, guest) = connected().await;
    guest.main(|main| main.is_deaf = true);
    for round in 0..100 {
        let mut client = hub.attach(MAIN, ALL).await.unwrap();
        assert!(hub.request(Request::Start).await.is_ok());
        guest.main(|main| main.stdout.extend_from_slice(&[round; 1000]));
        // one that never reads, one that reads, and one that leaves in the middle of writing
        if round % 3 == 1 {
            assert!(matches!(soon("output", client.next()).await, Some(Output::Stdout { .. })));
        } else if round % 3 == 2 {
            let writing = client.write_stdin(pattern(3 * WINDOW));
            assert!(tokio::time::timeout(Duration::from_millis(10), writing).await.is_err());
        }
    }
    guest.until("the last is gone", |guest| !guest.sessions[&MAIN].attached).await;
    assert_eq!(guest.main(|main| main.written.0), 100_000);
}

#[tokio::test(start_paused = true)]
async fn there_are_no_more_sessions_than_channels() {
    let (hub, _guest) = connected().await;
    let refused = soon("a refusal", async {
        loop {
            if let Err(error) = hub.create(exec(&["print", "hello", "0"])).await {
                return error;
            }
        }
    });
    let reason = "there are as many sessions as the link has channels for: forget those that have ended";
    assert_eq!(refused.await, HubError::Refused(reason.into()));
    // the first one makes room
    let first = SessionId(1);
    soon("its end", hub.wait(first)).await.unwrap();
    hub.forget(first).await.unwrap();
    hub.create(exec(&["sleep"])).await.unwrap();
}
