//! Clients of the main session: each at its own pace, and what happens when one comes or goes.

use wire::packet::ResetReason;

use super::*;

#[tokio::test(start_paused = true)]
async fn clients_at_different_paces_hear_every_byte() {
    let (hub, guest) = connected().await;
    let bytes = pattern(1_000_000);
    let fast = hub.attach(MAIN, OUTPUT).await.unwrap();
    let mut slow = hub.attach(MAIN, OUTPUT).await.unwrap();
    guest.main(|main| {
        main.stdout = bytes.clone();
        main.stderr = b"careful".to_vec();
        main.code = Some(3);
    });
    let slowly = async {
        let mut heard = Heard::default();
        while heard.last.is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let output = slow.next().await.unwrap();
            heard.take(output, &slow);
        }
        heard
    };
    let (fast, slow) = soon("two clients", async { tokio::join!(listen(fast), slowly) }).await;
    for heard in [fast, slow] {
        assert!(heard.stdout == bytes);
        assert_eq!(heard.stderr, b"careful");
        assert_eq!(heard.exit().ending.code(), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stuck_client_is_sent_away_with_a_reason_and_the_others_go_on() {
    let (hub, guest) = connected().await;
    let bytes = pattern(1_000_000);
    let mut stuck = hub.attach(MAIN, OUTPUT).await.unwrap();
    let others = [hub.attach(MAIN, OUTPUT).await.unwrap(), hub.attach(MAIN, OUTPUT).await.unwrap()];
    guest.main(|main| {
        main.stdout = bytes.clone();
        main.code = Some(0);
    });
    let [one, two] = others;
    let (one, two) = soon("the others", async { tokio::join!(listen(one), listen(two)) }).await;
    assert!(one.stdout == bytes && two.stdout == bytes);
    assert_eq!(one.exit().ending.code(), 0);
    let mut last = None;
    while let Some(output) = stuck.next().await {
        last = Some(output);
    }
    assert_eq!(last, Some(Output::Detached("it is 64 KiB behind and others wait".into())));
}

#[tokio::test(start_paused = true)]
async fn a_slow_client_alone_holds_the_process_up_and_loses_nothing() {
    let (hub, guest) = connected().await;
    let bytes = pattern(1_000_000);
    let slow = hub.attach(MAIN, OUTPUT).await.unwrap();
    guest.main(|main| {
        main.stdout = bytes.clone();
        main.code = Some(0);
    });
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let written = guest.main(|main| main.written.0);
    assert_eq!(written, WINDOW, "what is not taken is a window in all");
    let heard = soon("it goes on", listen(slow)).await;
    assert!(heard.stdout == bytes);
    assert_eq!(heard.exit().ending.code(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_was_sent_and_not_taken_is_held() {
    let (hub, guest) = connected().await;
    let mut client = hub.attach(MAIN, OUTPUT).await.unwrap();
    guest.main(|main| main.stdout = pattern(4 * WINDOW));
    let mut heard = 0;
    while heard < WINDOW {
        let Some(Output::Stdout { bytes, .. }) = client.next().await else { panic!() };
        heard += bytes.len();
    }
    // it has everything that came, and took nothing of it
    let more = tokio::time::timeout(Duration::from_secs(60), client.next()).await;
    assert!(more.is_err(), "{more:?}");
    client.taken(Stream::Stdout, WINDOW as u64);
    assert!(
        matches!(soon("more", client.next()).await, Some(Output::Stdout { offset, .. }) if offset == WINDOW as u64)
    );
}

#[tokio::test(start_paused = true)]
async fn the_guest_is_told_when_somebody_listens() {
    let (hub, guest) = connected().await;
    let first = hub.attach(MAIN, OUTPUT).await.unwrap();
    let second = hub.attach(MAIN, OUTPUT).await.unwrap();
    drop(first);
    assert!(hub.request(Request::Start).await.is_ok());
    assert!(guest.main(|main| main.attached));
    drop(second);
    guest.until("it is detached", |guest| !guest.sessions[&MAIN].attached).await;
    // nobody listens: it runs free
    guest.main(|main| main.stdout = pattern(5 * WINDOW));
    guest.until("it writes", |guest| guest.sessions[&MAIN].written.0 == 5 * WINDOW).await;
    let mut third = hub.attach(MAIN, OUTPUT).await.unwrap();
    guest.until("it is attached", |guest| guest.sessions[&MAIN].attached).await;
    guest.main(|main| main.stdout.extend_from_slice(b"hello again"));
    let mut heard = Heard::default();
    listen_until(&mut third, &mut heard, |heard| heard.stdout.len() == 11).await;
    assert_eq!(heard.stdout, b"hello again");
}

#[tokio::test(start_paused = true)]
async fn the_last_client_leaves_a_full_window_behind_and_the_process_goes_on() {
    let (hub, guest) = connected().await;
    let client = hub.attach(MAIN, OUTPUT).await.unwrap();
    guest.main(|main| main.stdout = pattern(9 * WINDOW));
    guest.until("it is held up", |guest| guest.sessions[&MAIN].written.0 >= WINDOW).await;
    drop(client);
    guest.until("it goes on", |guest| guest.sessions[&MAIN].written.0 == 9 * WINDOW).await;
}

#[tokio::test(start_paused = true)]
async fn output_is_held_for_who_comes_within_half_a_minute() {
    let (hub, guest) = connected().await;
    guest.main(|main| main.stdout = pattern(9 * WINDOW));
    tokio::time::sleep(Duration::from_secs(29)).await;
    let mut client = hub.attach(MAIN, OUTPUT).await.unwrap();
    let mut heard = Heard::default();
    listen_until(&mut client, &mut heard, |heard| heard.stdout.len() == 9 * WINDOW).await;
    assert!(heard.stdout == pattern(9 * WINDOW));
}

#[tokio::test(start_paused = true)]
async fn what_nobody_claims_holds_nobody_up() {
    let (_hub, guest) = connected().await;
    guest.main(|main| main.stdout = pattern(9 * WINDOW));
    tokio::time::sleep(Duration::from_secs(29)).await;
    assert!(guest.main(|main| main.attached && main.written.0 < 9 * WINDOW));
    tokio::time::sleep(Duration::from_secs(2)).await;
    guest.until("it goes on", |guest| guest.sessions[&MAIN].written.0 == 9 * WINDOW).await;
    assert!(!guest.main(|main| main.attached));
}

#[tokio::test(start_paused = true)]
async fn a_client_goes_on_where_it_was_and_nowhere_else() {
    let (hub, guest) = connected().await;
    let mut witness = hub.attach(MAIN, OUTPUT).await.unwrap();
    guest.main(|main| main.stdout = pattern(1000));
    let mut heard = Heard::default();
    while heard.stdout.len() < 1000 {
        let Some(Output::Stdout { bytes, .. }) = soon("output", witness.next()).await else { panic!() };
        heard.stdout.extend_from_slice(&bytes);
    }
    witness.taken(Stream::Stdout, 300);
    let from = |stdout| AttachOptions { from: Some(Offsets { stdin: 0, stdout, stderr: 0 }), ..OUTPUT };
    let mut client = hub.attach(MAIN, from(400)).await.unwrap();
    let Some(Output::Stdout { offset: 400, bytes }) = soon("the rest", client.next()).await else { panic!() };
    assert!(bytes == heard.stdout[400..]);
    let last = 300 + WINDOW as u64;
    for asked in [299, last + 1] {
        let error = hub.attach(MAIN, from(asked)).await.map(|_| ()).unwrap_err();
        assert_eq!(error, HubError::Offset { stream: Stream::Stdout, asked, first: 300, last });
    }
}

#[tokio::test(start_paused = true)]
async fn who_comes_later_hears_what_comes_later() {
    let (hub, guest) = connected().await;
    let mut first = hub.attach(MAIN, OUTPUT).await.unwrap();
    guest.main(|main| main.stdout = b"before ".to_vec());
    assert!(matches!(soon("output", first.next()).await, Some(Output::Stdout { .. })));
    let mut second = hub.attach(MAIN, OUTPUT).await.unwrap();
    guest.main(|main| main.stdout.extend_from_slice(b"after"));
    let expected = Output::Stdout { offset: 7, bytes: b"after".to_vec() };
    assert_eq!(soon("output", second.next()).await, Some(expected));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_no_client_wants_holds_nobody_up() {
    let (hub, guest) = connected().await;
    let only_stderr = AttachOptions { stdout: false, ..OUTPUT };
    let client = hub.attach(MAIN, only_stderr).await.unwrap();
    guest.main(|main| {
        main.stdout = pattern(9 * WINDOW);
        main.stderr = b"this one".to_vec();
        main.code = Some(0);
    });
    let heard = soon("the end", listen(client)).await;
    assert_eq!((heard.stdout, &heard.stderr[..]), (Vec::new(), &b"this one"[..]));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_all_clients_gave_up_breaks_like_a_pipe() {
    let (hub, guest) = connected().await;
    let [one, two] = [hub.attach(MAIN, OUTPUT).await.unwrap(), hub.attach(MAIN, OUTPUT).await.unwrap()];
    one.client.give_up(Stream::Stdout);
    guest.main(|main| main.stdout = b"anyone?".to_vec());
    guest.until("it is written", |guest| guest.sessions[&MAIN].written.0 == 7).await;
    assert!(guest.main(|main| main.resets.is_empty()));
    two.client.give_up(Stream::Stdout);
    guest.until("it breaks", |guest| guest.sessions[&MAIN].resets == [ResetReason::NotRead]).await;
    guest.main(|main| main.code = Some(1));
    assert_eq!(soon("the end", listen(one)).await.exit().ending.code(), 1);
}

#[tokio::test(start_paused = true)]
async fn input_of_several_clients_arrives_in_order_and_ends() {
    let (hub, guest) = connected().await;
    let [mut one, two] = [hub.attach(MAIN, ALL).await.unwrap(), hub.attach(MAIN, ALL).await.unwrap()];
    assert_eq!(one.write_stdin(b"first ".to_vec()).await, Ok(6));
    assert_eq!(two.write_stdin(b"second".to_vec()).await, Ok(12));
    two.end_stdin();
    guest.until("the end of input", |guest| guest.sessions[&MAIN].input_ended).await;
    assert_eq!(guest.main(|main| main.input.clone()), b"first second");
    assert_eq!(one.write_stdin(b"late".to_vec()).await, Err(HubError::InputClosed));
    loop {
        match soon("what was taken", one.next()).await {
            Some(Output::StdinTaken(12)) => break,
            Some(Output::StdinTaken(less)) => assert!(less < 12),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn input_waits_for_a_process_that_does_not_read() {
    let (hub, guest) = connected().await;
    guest.main(|main| main.is_deaf = true);
    let client = hub.attach(MAIN, ALL).await.unwrap();
    let text = pattern(9 * WINDOW);
    let writing = client.write_stdin(text.clone());
    tokio::pin!(writing);
    assert!(tokio::time::timeout(Duration::from_secs(60), &mut writing).await.is_err());
    guest.main(|main| main.is_deaf = false);
    assert_eq!(soon("the rest", writing).await, Ok(9 * WINDOW as u64));
    guest.until("all of it", |guest| guest.sessions[&MAIN].input.len() == 9 * WINDOW).await;
    assert!(guest.main(|main| main.input == text));
}

#[tokio::test(start_paused = true)]
async fn input_that_nobody_reads_is_told() {
    let (hub, guest) = connected().await;
    guest.main(|main| main.is_deaf = true);
    let client = hub.attach(MAIN, ALL).await.unwrap();
    guest.with(|guest| guest.link.discard(MAIN.streams().stdin));
    let told = soon("an error", async {
        loop {
            if let Err(error) = client.write_stdin(pattern(WINDOW)).await {
                return error;
            }
        }
    });
    assert_eq!(told.await, HubError::InputClosed);
}
