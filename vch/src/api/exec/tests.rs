//! docker exec over real HTTP: bodies, framing, ends and errors.

use tokio::io::AsyncWriteExt;

use super::super::double::{Host, frame, rest};

use super::*;

fn of(command: &[&str]) -> serde_json::Value {
    json!({ "AttachStdin": true, "AttachStdout": true, "AttachStderr": true, "Cmd": command })
}

async fn start(host: &Host, exec: &str, body: &str, more: &[u8]) -> (String, tokio::io::DuplexStream) {
    host.hijack(&format!("{exec}/start"), body, more).await
}

#[tokio::test(start_paused = true)]
async fn trap_10_the_starts_body_is_no_input() {
    let host = Host::new(false).await;
    let exec = host.exec(&of(&["cat"])).await;
    let (_, mut stream) = start(&host, &exec, r#"{"Detach":false,"Tty":false}"#, b"input").await;
    stream.shutdown().await.unwrap();
    assert_eq!(rest(&mut stream).await, frame(1, "input"));
    assert_eq!(host.inspect(&exec).await["ExitCode"], 0);
}

#[tokio::test(start_paused = true)]
async fn trap_11_an_execs_framing_is_what_its_start_says() {
    let host = Host::new(false).await;
    for (body, kind, expected) in [
        ("{}", "multiplexed", [frame(1, "hello"), frame(2, "and an error")].concat()),
        (r#"{"Tty":true}"#, "raw", b"helloand an error".to_vec()),
    ] {
        let exec = host.exec(&of(&["print", "hello", "7"])).await;
        let (head, mut stream) = start(&host, &exec, body, b"").await;
        assert!(head.contains(&format!("vnd.docker.{kind}-stream")), "{head}");
        let heard = rest(&mut stream).await;
        let other = [frame(2, "and an error"), frame(1, "hello")].concat();
        assert!(heard == expected || heard == other || heard == b"and an errorhello", "{heard:?}");
        assert_eq!(host.inspect(&exec).await["ExitCode"], 7);
    }
}

#[tokio::test(start_paused = true)]
async fn trap_14_what_cannot_be_run_is_said_in_the_stream() {
    let host = Host::new(false).await;
    let exec = host.exec(&of(&["nothing"])).await;
    let (_, mut events) = host.api.containers.events.listen();
    let (_, mut stream) = start(&host, &exec, "{}", b"").await;
    let text = "exec failed: unable to start the process: nothing was not found\r\n";
    assert_eq!(rest(&mut stream).await, frame(1, text));
    assert_eq!(host.inspect(&exec).await["ExitCode"], 127);
    assert_eq!(events.recv().await.unwrap().action, "exec_start: nothing ");
    // one that nobody hears is refused
    let exec = host.exec(&of(&["nothing"])).await;
    let (status, _, body) = host.ask("POST", &format!("{exec}/start"), r#"{"Detach":true}"#).await;
    assert!(status == 400 && body.contains("was not found"), "{status} {body}");
}

#[tokio::test(start_paused = true)]
async fn an_exec_is_told_as_docker_tells_it() {
    let host = Host::new(false).await;
    let (_, mut events) = host.api.containers.events.listen();
    let exec = host.exec(&of(&["print", "hello", "3"])).await;
    let before = host.inspect(&exec).await;
    assert_eq!((&before["Running"], &before["ExitCode"]), (&json!(false), &json!(null)));
    let (_, mut stream) = start(&host, &exec, "", b"").await;
    rest(&mut stream).await;
    let after = host.inspect(&exec).await;
    let expected = json!({
        "ID": exec.strip_prefix("/exec/"), "Running": false, "ExitCode": 3, "OpenStdin": true, "OpenStderr": true,
        "ProcessConfig": { "tty": false, "entrypoint": "print", "arguments": ["hello", "3"], "privileged": false },
        "OpenStdout": true, "CanRemove": false, "ContainerID": host.container.id, "DetachKeys": "", "Pid": 101,
    });
    assert_eq!(after, expected);
    for (action, more) in
        [("exec_create: print hello 3", None), ("exec_start: print hello 3", None), ("exec_die", Some("3"))]
    {
        let event = events.recv().await.unwrap();
        assert_eq!((event.action.as_str(), event.attributes.get("exitCode").map(String::as_str)), (action, more));
        assert_eq!(Some(event.attributes["execID"].as_str()), exec.strip_prefix("/exec/"));
    }
    // once is once
    let (status, _, body) = host.ask("POST", &format!("{exec}/start"), "{}").await;
    assert!(status == 409 && body.contains("has already run"), "{status} {body}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_leaves_it_running() {
    let host = Host::new(false).await;
    let exec = host.exec(&of(&["sleep"])).await;
    let (_, stream) = start(&host, &exec, "{}", b"").await;
    host.guest.until("it runs", |state| state.sessions.len() == 2).await;
    drop(stream);
    assert_eq!(host.ask("POST", &format!("{exec}/start"), "{}").await.0, 409);
    host.guest.with(|state| {
        let session = state.sessions.values_mut().nth(1).unwrap();
        session.stdout = vec![0; 500_000];
        session.code = Some(9);
    });
    host.guest.until("it is over and forgotten", |state| state.sessions.len() == 1).await;
    assert_eq!(host.inspect(&exec).await["ExitCode"], 9);
}

#[tokio::test(start_paused = true)]
async fn a_terminals_exec_outlives_its_clients_input() {
    let host = Host::new(false).await;
    let mut config = of(&["cat"]);
    config["Tty"] = json!(true);
    config["ConsoleSize"] = json!([40, 120]);
    let exec = host.exec(&config).await;
    let (_, mut stream) = start(&host, &exec, r#"{"Tty":true}"#, b"keys").await;
    stream.shutdown().await.unwrap();
    rest(&mut stream).await;
    let ended = host.guest.with(|state| state.sessions.values().nth(1).unwrap().input_ended);
    assert!(!ended);
    assert_eq!(host.inspect(&exec).await["Running"], true);
    let (_, _, body) = host.ask("GET", "/containers/c1/json", "").await;
    let container: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(container["ExecIDs"], json!([exec.strip_prefix("/exec/")]));
    assert_eq!(host.ask("POST", &format!("{exec}/resize?h=30&w=100"), "").await.0, 200);
    let sizes = host.guest.with(|state| {
        let size = |request: &message::Request| match request {
            message::Request::Create { work: Work::Exec(exec), .. } => exec.terminal,
            message::Request::Resize { size, .. } => Some(*size),
            _ => None,
        };
        state.requests.iter().filter_map(size).collect::<Vec<_>>()
    });
    assert_eq!(sizes, [TermSize { rows: 40, columns: 120 }, TermSize { rows: 30, columns: 100 }]);
}

#[tokio::test(start_paused = true)]
async fn what_makes_no_sense_is_refused_with_a_sentence() {
    let host = Host::new(false).await;
    let make = "/containers/c1/exec";
    let asked = async |body: serde_json::Value| host.ask("POST", make, &body.to_string()).await.0;
    assert_eq!(asked(json!({ "Cmd": [] })).await, 400);
    assert_eq!(asked(json!({ "Cmd": ["x"], "DetachKeys": "what" })).await, 400);
    assert_eq!(asked(json!({ "Cmd": ["x"], "ConsoleSize": [1] })).await, 400);
    assert_eq!(asked(json!({ "Cmd": ["x"], "Privileged": true })).await, 501);
    let nulls = json!({ "Cmd": ["x"], "AttachStdin": null, "Env": null, "Detach": false, "Later": {} });
    assert_eq!(asked(nulls).await, 201);
    let none = format!("/exec/{}", "0".repeat(64));
    assert_eq!(host.ask("GET", &format!("{none}/json"), "").await.0, 404);
    assert_eq!(host.ask("POST", &format!("{none}/start"), "{}").await.0, 404);
    let exec = host.exec(&of(&["sleep"])).await;
    host.guest.main(|main| main.code = Some(0));
    crate::hub::tests::soon("it has ended", host.container.watch().wait_for(|life| life.is_over())).await.unwrap();
    let (status, _, body) = host.ask("POST", &format!("{exec}/start"), "{}").await;
    assert!(status == 409 && body.contains("is not running"), "{status} {body}");
}
