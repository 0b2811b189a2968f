//! docker attach over real HTTP: a hub, a guest of its own, and a client that closes its half.

use tokio::io::AsyncReadExt;

use super::super::double::{Host, frame, rest};
use super::*;

const ALL: &str = "/containers/c1/attach?stdin=1&stdout=1&stderr=1&stream=1";
const OUTPUT: &str = "/containers/c1/attach?stdout=1&stderr=1&stream=1";

async fn says(host: &Host, text: &str) {
    let end = host.container.journal.end();
    host.guest.main(|main| main.stdout.extend_from_slice(text.as_bytes()));
    let selection = Selection { from: end, to: None };
    crate::hub::tests::soon("it is recorded", host.container.journal.read(selection).next()).await.unwrap();
}

fn ends(host: &Host, code: u8) {
    host.guest.main(|main| main.code = Some(code));
}

#[tokio::test(start_paused = true)]
async fn trap_04_every_attach_half_closes() {
    let host = Host::new(false).await;
    let (_, mut stream) = host.hijack(OUTPUT, "", b"").await;
    stream.shutdown().await.unwrap();
    says(&host, "later").await;
    ends(&host, 0);
    assert_eq!(rest(&mut stream).await, frame(1, "later"));
}

#[tokio::test(start_paused = true)]
async fn trap_07_the_end_of_input_is_the_processs_unless_it_has_a_terminal() {
    let host = Host::new(false).await;
    let (_, mut stream) = host.hijack(ALL, "", b"early ").await;
    stream.write_all(b"bytes").await.unwrap();
    stream.shutdown().await.unwrap();
    let heard = |state: &mut crate::hub::tests::guest::State| {
        let main = &state.sessions[&MAIN];
        main.input == b"early bytes" && main.input_ended
    };
    host.guest.until("the process has it all", heard).await;
    says(&host, "on").await;
    ends(&host, 0);
    assert_eq!(rest(&mut stream).await, frame(1, "on"));

    let host = Host::new(true).await;
    let (_, mut stream) = host.hijack(ALL, "", b"keys").await;
    stream.shutdown().await.unwrap();
    assert_eq!(rest(&mut stream).await, b"");
    host.guest.until("the keys", |state| state.sessions[&MAIN].input == b"keys").await;
    assert!(!host.guest.main(|main| main.input_ended));
}

#[tokio::test(start_paused = true)]
async fn trap_08_the_stream_ends_behind_the_last_byte() {
    let host = Host::new(false).await;
    let (_, mut stream) = host.hijack(OUTPUT, "", b"").await;
    host.guest.main(|main| {
        main.stdout = b"last".to_vec();
        main.code = Some(1);
    });
    assert_eq!(rest(&mut stream).await, frame(1, "last"));
    // and what came before is there for who asks for it
    let (status, _, _) = host.ask("POST", OUTPUT, "").await;
    assert_eq!(status, 409);
    let (_, mut stream) = host.hijack(&format!("{OUTPUT}&logs=1"), "", b"").await;
    assert_eq!(rest(&mut stream).await, frame(1, "last"));
}

#[tokio::test(start_paused = true)]
async fn trap_09_the_answer_is_101_with_three_headers_or_200() {
    for (terminal, kind) in [(false, "multiplexed"), (true, "raw")] {
        let host = Host::new(terminal).await;
        let (head, _) = host.hijack(OUTPUT, "", b"").await;
        assert!(head.starts_with("http/1.1 101 "), "{head}");
        for line in
            ["connection: upgrade", "upgrade: tcp", &format!("content-type: application/vnd.docker.{kind}-stream")]
        {
            assert!(head.contains(&format!("{line}\r\n")), "{head}");
        }
        says(&host, "text").await;
        ends(&host, 0);
        let (status, head, body) = host.ask("POST", &format!("{OUTPUT}&logs=1"), "").await;
        assert_eq!(status, 200);
        assert!(head.contains(&format!("{kind}-stream")) && body.contains("text"), "{head} {body:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn trap_12_streams_are_told_apart_and_those_not_asked_for_are_left_out() {
    let host = Host::new(false).await;
    let (_, mut both) = host.hijack(OUTPUT, "", b"").await;
    let (_, mut errors) = host.hijack("/containers/c1/attach?stderr=1&stream=1", "", b"").await;
    says(&host, "o").await;
    host.guest.main(|main| {
        main.stderr = b"e".to_vec();
        main.code = Some(0);
    });
    assert_eq!(rest(&mut both).await, [frame(1, "o"), frame(2, "e")].concat());
    assert_eq!(rest(&mut errors).await, frame(2, "e"));
}

#[tokio::test(start_paused = true)]
async fn trap_15_the_server_knows_the_keys_too() {
    for (query, typed) in [("", &b"ab\x10\x11"[..]), ("&detachKeys=x,ctrl-y", b"abx\x19")] {
        let host = Host::new(true).await;
        let (_, mut events) = host.api.containers.events.listen();
        let (_, mut stream) = host.hijack(&format!("{ALL}{query}"), "", b"").await;
        assert_eq!(events.recv().await.unwrap().action, "attach");
        stream.write_all(typed).await.unwrap();
        assert_eq!(rest(&mut stream).await, b"");
        assert_eq!(events.recv().await.unwrap().action, "detach");
        host.guest.until("what was typed before", |state| state.sessions[&MAIN].input == b"ab").await;
        assert!(host.container.state().is_running());
    }
    // without a terminal they are bytes like any others
    let host = Host::new(false).await;
    let (_, _stream) = host.hijack(ALL, "", b"\x10\x11").await;
    host.guest.until("the bytes", |state| state.sessions[&MAIN].input == b"\x10\x11").await;
    assert_eq!(host.ask("POST", &format!("{ALL}&detachKeys=what"), "").await.0, 400);
}

#[tokio::test(start_paused = true)]
async fn trap_16_a_size_is_told_to_a_terminal_alone() {
    for terminal in [true, false] {
        let host = Host::new(terminal).await;
        assert_eq!(host.ask("POST", "/containers/c1/resize?h=40&w=120", "").await.0, 200);
        let size = TermSize { rows: 40, columns: 120 };
        let resize = message::Request::Resize { session: MAIN, size };
        assert_eq!(host.guest.with(|state| state.requests.contains(&resize)), terminal);
        for query in ["h=40", "h=x&w=1", "h=70000&w=1"] {
            assert_eq!(host.ask("POST", &format!("/containers/c1/resize?{query}"), "").await.0, 400, "{query}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_does_not_read_holds_up_nobody() {
    let host = Host::new(false).await;
    let (_, mut stuck) = host.hijack(OUTPUT, "", b"").await;
    let (_, mut reader) = host.hijack(OUTPUT, "", b"").await;
    host.guest.main(|main| {
        main.stdout = vec![b'x'; 300_000];
        main.code = Some(0);
    });
    let count = |bytes: &[u8]| bytes.iter().filter(|&&byte| byte == b'x').count();
    assert_eq!(count(&rest(&mut reader).await), 300_000);
    assert_eq!(count(&rest(&mut stuck).await), 300_000);
}

#[tokio::test(start_paused = true)]
async fn a_request_without_an_upgrade_has_its_body_as_input() {
    let host = Host::new(false).await;
    let asked = tokio::join!(host.ask("POST", ALL, "typed"), async {
        host.guest.until("the input", |state| state.sessions[&MAIN].input_ended).await;
        ends(&host, 0);
    });
    assert_eq!(asked.0.0, 200);
    assert_eq!(host.guest.main(|main| main.input.clone()), b"typed");
}

#[tokio::test(start_paused = true)]
async fn a_websocket_has_messages() {
    let host = Host::new(false).await;
    let (status, _, body) = host.ask("GET", "/containers/c1/attach/ws?stream=1", "").await;
    assert!(status == 400 && body.starts_with("{\"message\":"), "{status} {body}");
    let mut stream = host.websocket("/containers/c1/attach/ws?stream=1&stdin=1&stdout=1").await;
    // "hi", masked by zeros (RFC 6455, 5.2)
    stream.write_all(&[0x82, 0x82, 0, 0, 0, 0, b'h', b'i']).await.unwrap();
    host.guest.until("the input", |state| state.sessions[&MAIN].input == b"hi").await;
    says(&host, "you").await;
    let mut message = [0; 5];
    stream.read_exact(&mut message).await.unwrap();
    assert_eq!(message, [0x82, 3, b'y', b'o', b'u']);
    ends(&host, 0);
    let mut farewell = [0; 2];
    stream.read_exact(&mut farewell).await.unwrap();
    assert_eq!(farewell[0], 0x88);
}
