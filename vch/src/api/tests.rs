//! Docker's traps (each found by trial with docker's own client and others'), through HTTP on a real socket, as far as they need no guest. Those that do are
//! in tests/e2e.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::*;
use crate::cli::ListenArgs;
use crate::containers::{Container, Exited, Running, State};
use crate::listen::{Listeners, Serving};

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    listen: ListenArgs,
}

/// The API at a socket, with the container `web`.
struct Served {
    containers: Arc<Containers>,
    web: Arc<Container>,
    socket: PathBuf,
    _serving: Serving,
    _dir: TempDir,
}

impl Served {
    fn new() -> Served {
        let dir = tempfile::tempdir().unwrap();
        let containers = Containers::open(&dir.path().join("state"), 1 << 20).unwrap();
        let socket = dir.path().join("docker.sock");
        let host = format!("unix://{}", socket.display());
        let line = Line::parse_from(["serve", "--host", host.as_str()]);
        let listeners = Listeners::open(&line.listen, dir.path()).unwrap();
        let serving = listeners.serve(&router(Arc::new(Api {
            containers: containers.clone(),
            execs: crate::execs::Execs::default(),
            maker: None,
        })));
        let web = containers.add("web", None);
        Served { containers, web, socket, _serving: serving, _dir: dir }
    }

    async fn connect(&self, request: &str) -> UnixStream {
        let mut stream = UnixStream::connect(&self.socket).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    /// Head and body of an answer, whose end the server tells.
    async fn ask(&self, line: &str, body: &str) -> Answer {
        let length = body.len();
        let request =
            format!("{line} HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
        let mut stream = self.connect(&request).await;
        let mut bytes = Vec::new();
        timeout(DEADLINE, stream.read_to_end(&mut bytes)).await.unwrap().unwrap();
        Answer(String::from_utf8(bytes).unwrap())
    }

    fn runs(&self) {
        self.web.set_state(State::Running(Running { pid: 7, started_ns: 1, paused: false }));
    }

    fn ends(&self, code: u8, error: &str) {
        let error = error.to_owned();
        self.web.set_state(State::Exited(Exited { started_ns: 1, finished_ns: 2, code, oom: false, error }));
    }
}

#[derive(Debug)]
struct Answer(String);

impl Answer {
    fn status(&self) -> u16 {
        self.0.split(' ').nth(1).unwrap().parse().unwrap()
    }

    fn head(&self) -> &str {
        self.0.split_once("\r\n\r\n").unwrap().0
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head().lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    fn body(&self) -> &str {
        self.0.split_once("\r\n\r\n").unwrap().1
    }

    fn json(&self) -> Value {
        serde_json::from_str(self.body()).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    fn message(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        self.json()["message"].as_str().unwrap().to_owned()
    }
}

/// Reads up to what is looked for.
async fn read_until(stream: &mut UnixStream, text: &str) -> String {
    let (mut all, mut buffer) = (String::new(), [0; 1024]);
    while !all.contains(text) {
        let count = timeout(DEADLINE, stream.read(&mut buffer)).await.expect("in time").unwrap();
        assert!(count > 0, "it ended: {all}");
        all.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
    }
    all
}

const DEADLINE: Duration = Duration::from_secs(20);

fn wait(condition: &str) -> String {
    format!("POST /v1.50/containers/web/wait?condition={condition} HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n")
}

#[tokio::test]
async fn trap_01_the_head_of_wait_comes_at_once() {
    let served = Served::new();
    for condition in ["next-exit", "removed"] {
        let mut stream = served.connect(&wait(condition)).await;
        let head = read_until(&mut stream, "\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"), "{head}");
        served.runs();
        served.ends(3, "");
        if condition == "removed" {
            served.containers.remove(&served.web).await.unwrap();
        }
        assert!(read_until(&mut stream, "}").await.contains("{\"StatusCode\":3}"));
    }
}

#[tokio::test]
async fn trap_02_removed_completes_after_a_failed_start_once_the_name_is_free() {
    let served = Served::new();
    let mut stream = served.connect(&wait("removed")).await;
    read_until(&mut stream, "\r\n\r\n").await;
    served.ends(127, "exec: \"x\": executable file not found in $PATH");
    served.containers.remove(&served.web).await.unwrap();
    let body = read_until(&mut stream, "127}").await;
    assert!(body.contains("executable file not found"), "{body}");
    assert!(served.containers.find("web").is_err());
}

#[tokio::test]
async fn trap_03_next_exit_misses_no_process_however_short() {
    let served = Served::new();
    served.ends(9, "");
    let mut stream = served.connect(&wait("next-exit")).await;
    read_until(&mut stream, "\r\n\r\n").await;
    // it runs, ends and runs again before anybody looks
    served.runs();
    served.ends(4, "");
    served.runs();
    assert!(read_until(&mut stream, "}").await.contains("{\"StatusCode\":4}"));
    // who asks now waits for another end; who asks whether it runs does too
    let mut stream = served.connect(&wait("not-running")).await;
    read_until(&mut stream, "\r\n\r\n").await;
    served.ends(5, "");
    assert!(read_until(&mut stream, "}").await.contains("{\"StatusCode\":5}"));
    let mut stream = served.connect(&wait("not-running")).await;
    assert!(read_until(&mut stream, "}").await.contains("{\"StatusCode\":5}"));
    assert_eq!(served.ask("POST /containers/web/wait?condition=gone", "").await.status(), 400);
}

#[tokio::test]
async fn trap_13_every_refusal_is_json_under_the_plainest_content_type() {
    let served = Served::new();
    let check = async |line: &str, status: u16, part: &str| {
        let answer = served.ask(line, "").await;
        assert_eq!(answer.status(), status, "{line}: {answer:?}");
        let message = answer.message();
        assert!(message.contains(part) && !message.is_empty(), "{line}: {message}");
    };
    check("GET /v1.50/containers/nosuch/json", 404, "No such container: nosuch").await;
    check("POST /containers/nosuch/start", 404, "No such container: nosuch").await;
    check("GET /nosuch", 404, "page not found").await;
    check("PATCH /containers/json", 404, "page not found").await;
    check("GET /containers/json?filters=%7B", 400, "invalid filter").await;
    check("GET /containers/json?filters=%7B%22colour%22:%5B%22red%22%5D%7D", 400, "invalid filter 'colour'").await;
    check("GET /containers/json?limit=many", 400, "limit").await;
    check("GET /containers/%ff/json", 400, "").await;
    check("POST /containers/web/kill?signal=NOSUCH", 400, "invalid signal: NOSUCH").await;
    check("POST /containers/web/kill", 409, "cannot kill container: web: container").await;
    check("POST /containers/web/rename?name=a%20b", 400, "Invalid container name (a b)").await;
    check("POST /containers/web/rename", 400, "Neither old nor new names may be empty").await;
    check("GET /events?since=yesterday", 400, "yesterday").await;
    check("GET /networks/nosuch", 404, "network nosuch not found").await;
    check("GET /volumes/nosuch", 404, "get nosuch: no such volume").await;
    check("GET /v1.99/info", 400, "client version 1.99 is too new. Maximum supported API version is 1.50").await;
    check("GET /v1.23/info", 400, "client version 1.23 is too old. Minimum supported API version is 1.24").await;
    check("GET /nodes", 503, "This node is not a swarm manager").await;
}

#[tokio::test]
async fn what_is_not_done_says_so_in_a_sentence() {
    let served = Served::new();
    for refused::Refused { method, path, why } in refused::REFUSED {
        let path = path.replace("{id}", "web").replace("{*name}", "a/b").replace("{name}", "x");
        let answer = served.ask(&format!("{method} /v1.50{path}"), "").await;
        assert_eq!((answer.status(), answer.message().as_str()), (501, *why), "{path}");
        assert!(why.split(' ').count() > 3, "{why}");
    }
    served.ends(0, "");
    let answer = served.ask("POST /containers/web/start", "").await;
    assert_eq!(answer.status(), 501);
    assert!(answer.message().contains("power it on where it was made"), "{answer:?}");
}

#[test]
fn the_document_names_what_is_refused_and_why() {
    let document = include_str!("../../../docs/docker-api.md");
    for refused::Refused { method, path, why } in refused::REFUSED {
        let line = format!("| `{method} {path}` | {why} |");
        assert!(document.contains(&line), "docs/docker-api.md has no line {line}");
    }
    for (method, path) in refused::SWARM {
        assert!(document.contains(&format!("`{method} {path}`")), "docs/docker-api.md does not name {method} {path}");
    }
}

#[tokio::test]
async fn trap_20_no_body_where_there_is_none() {
    let served = Served::new();
    let head = served.ask("HEAD /_ping", "").await;
    assert_eq!((head.status(), head.body(), head.header("api-version")), (200, "", Some("1.50")));
    let get = served.ask("GET /_ping", "").await;
    assert_eq!((get.status(), get.body()), (200, "OK"));
    assert_eq!((get.header("ostype"), get.header("swarm")), (Some("linux"), Some("inactive")));
    let renamed = served.ask("POST /containers/web/rename?name=db", "").await;
    assert_eq!((renamed.status(), renamed.body()), (204, ""));
    let stopped = served.ask("POST /containers/db/stop", "").await;
    assert_eq!((stopped.status(), stopped.body()), (304, ""));
    let head = served.ask("HEAD /containers/nosuch/json", "").await;
    assert_eq!((head.status(), head.body()), (404, ""));
    // flushed line by line, and never compressed
    let request = "GET /events HTTP/1.1\r\nHost: d\r\nAccept-Encoding: gzip\r\n\r\n";
    let mut stream = served.connect(request).await;
    let head = read_until(&mut stream, "\r\n\r\n").await;
    assert!(!head.to_lowercase().contains("content-encoding"), "{head}");
    served.containers.events.container(&served.web, "first", &[]);
    assert!(read_until(&mut stream, "}\n").await.contains("\"Action\":\"first\""));
    served.containers.events.container(&served.web, "second", &[]);
    assert!(read_until(&mut stream, "}\n").await.contains("\"Action\":\"second\""));
}

#[tokio::test]
async fn trap_21_what_is_asked_again_answers_the_same() {
    let served = Served::new();
    // a connection that broke off without an answer is tried again by Go's client, for these
    for line in ["GET /containers/json?all=1", "GET /containers/web/json", "GET /networks", "HEAD /_ping"] {
        let request = format!("{line} HTTP/1.1\r\nHost: d\r\n\r\n");
        drop(served.connect(&request).await);
        let (first, second) = (served.ask(line, "").await, served.ask(line, "").await);
        assert_eq!((first.status(), first.body()), (200, second.body()), "{line}");
    }
    assert_eq!(served.ask("GET /containers/json?all=1", "").await.json().as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn trap_22_maps_and_lists_are_empty_and_never_null() {
    let served = Served::new();
    let listed = &served.ask("GET /containers/json?all=1", "").await.json()[0];
    assert_eq!((&listed["Labels"], &listed["Ports"], &listed["Mounts"]), (&json!({}), &json!([]), &json!([])));
    assert_eq!(listed["NetworkSettings"]["Networks"], json!({}));
    let whole = served.ask("GET /containers/web/json", "").await.json();
    for path in ["/NetworkSettings/Networks", "/NetworkSettings/Ports", "/Config/Labels", "/HostConfig/PortBindings"] {
        assert_eq!(whole.pointer(path), Some(&json!({})), "{path}");
    }
    for path in ["/Mounts", "/Args", "/Config/Env", "/HostConfig/Dns", "/HostConfig/Ulimits", "/HostConfig/Devices"] {
        assert_eq!(whole.pointer(path), Some(&json!([])), "{path}");
    }
    // the fields of the times when there was one network only
    for name in ["IPAddress", "Gateway", "MacAddress"] {
        assert_eq!(whole["NetworkSettings"][name], "", "{name}");
    }
}

#[tokio::test]
async fn trap_23_a_client_that_goes_leaves_nothing_behind() {
    let served = Served::new();
    let mut listening = served.connect("GET /events HTTP/1.1\r\nHost: d\r\n\r\n").await;
    read_until(&mut listening, "\r\n\r\n").await;
    let mut waiting = served.connect(&wait("next-exit")).await;
    read_until(&mut waiting, "\r\n\r\n").await;
    let count = || (served.containers.events.listeners(), served.web.watchers());
    assert_eq!(count(), (1, 1));
    drop((listening, waiting));
    let gone = async {
        while count() != (0, 0) {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, gone).await.expect("both are dropped");
}

#[tokio::test]
async fn events_are_told_from_the_past_and_up_to_an_end() {
    let served = Served::new();
    for action in ["create", "start", "die"] {
        served.containers.events.container(&served.web, action, &[]);
    }
    let lines = |answer: &Answer| -> Vec<String> {
        let told = answer.body().lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        told.filter_map(|event| event["Action"].as_str().map(str::to_owned)).collect()
    };
    let until = crate::timestamp::now_ns() / 1_000_000_000 + 1;
    let answer = served.ask(&format!("GET /events?since=1&until={until}"), "").await;
    assert_eq!(lines(&answer), ["create", "start", "die"]);
    let filters = "filters=%7B%22event%22:%5B%22die%22%5D%7D";
    let answer = served.ask(&format!("GET /events?since=1&until={until}&{filters}"), "").await;
    assert_eq!(lines(&answer), ["die"]);
    assert_eq!(served.ask("GET /events?since=5&until=4", "").await.status(), 400);
}

#[tokio::test]
async fn a_listener_that_does_not_read_holds_nobody_up() {
    let served = Served::new();
    let mut slow = served.connect("GET /events HTTP/1.1\r\nHost: d\r\n\r\n").await;
    read_until(&mut slow, "\r\n\r\n").await;
    let mut quick = served.connect("GET /events HTTP/1.1\r\nHost: d\r\n\r\n").await;
    read_until(&mut quick, "\r\n\r\n").await;
    let long = "x".repeat(10_000);
    for number in 0..2000 {
        served.containers.events.container(&served.web, format!("act-{number}-{long}"), &[]);
        read_until(&mut quick, &format!("\"Action\":\"act-{number}-")).await;
    }
    // it hears what there is room for, and that it has missed some
    read_until(&mut slow, "events were missed").await;
}

#[tokio::test]
async fn containers_are_listed_by_what_is_asked_for() {
    let served = Served::new();
    served.containers.add("db", None);
    let names = async |query: &str| -> Vec<String> {
        let listed = served.ask(&format!("GET /containers/json?{query}"), "").await.json();
        let names = listed.as_array().unwrap().iter().map(|one| one["Names"][0].as_str().unwrap()[1..].to_owned());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    };
    served.runs();
    assert_eq!(names("").await, ["web"]);
    assert_eq!(names("all=1").await, ["db", "web"]);
    assert_eq!(names("limit=1").await, ["db"]);
    let filter = |name: &str, value: &str| format!("all=1&filters=%7B%22{name}%22:%5B%22{value}%22%5D%7D");
    assert_eq!(names(&filter("name", "d")).await, ["db"]);
    assert_eq!(names(&filter("status", "running")).await, ["web"]);
    assert_eq!(names(&filter("id", &served.web.id[..12])).await, ["web"]);
    assert_eq!(names(&filter("since", "web")).await, ["db"]);
    assert_eq!(names(&filter("before", "db")).await, ["web"]);
    assert_eq!(names(&filter("health", "none")).await, ["db", "web"]);
    assert_eq!(names(&filter("network", "bridge")).await, [""; 0]);
    served.ends(3, "");
    assert_eq!(names(&filter("exited", "3")).await, ["web"]);
    assert_eq!(served.ask(&format!("GET /containers/json?{}", filter("exited", "x")), "").await.status(), 400);
    assert_eq!(served.ask(&format!("GET /containers/json?{}", filter("since", "nosuch")), "").await.status(), 404);
}
