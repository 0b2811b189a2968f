//! A host with one container, whose machine is the hub's guest of a few lines, and clients that say each byte themselves: for the tests of what is hijacked.

use std::sync::Arc;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use wire::handshake::LinkKey;
use wire::spec::{LinkDevice, LinkSpec, Process, Spec, TermSize};

use super::{Api, router};
use crate::containers::{Container, Containers};
use crate::execs::Execs;
use crate::hub::tests::guest::Guest;
use crate::hub::tests::{VM, hub, soon};

pub(super) struct Host {
    pub(super) api: Arc<Api>,
    pub(super) guest: Guest,
    pub(super) container: Arc<Container>,
    _dir: TempDir,
}

impl Host {
    /// Its container runs, and reads standard input.
    pub(super) async fn new(terminal: bool) -> Host {
        let dir = tempfile::tempdir().unwrap();
        let containers = Containers::open(dir.path(), 1 << 20).unwrap();
        let (hub, guest) = (hub(1), Guest::new());
        let link = LinkSpec { device: LinkDevice::Virtio, key: LinkKey::new([1; 32]), sealed: true, speed: 115_200 };
        let terminal = terminal.then_some(TermSize { rows: 24, columns: 80 });
        let process = Process { stdin: true, terminal, ..Process::new(vec!["top".into()]) };
        let spec = wire::guestinfo::write(&Spec::new(VM, link, process)).to_string();
        guest.with(|state| state.spec = Some(spec));
        guest.connect(&hub).await;
        let container = containers.arrived(VM, hub).unwrap();
        let api = Arc::new(Api { containers, execs: Execs::default(), maker: None });
        soon("it runs", container.watch().wait_for(|life| life.state.is_running())).await.unwrap();
        Host { api, guest, container, _dir: dir }
    }

    fn router(&self) -> Router {
        router(self.api.clone())
    }

    /// A connection. `room` is how many bytes it holds.
    fn connect(&self, room: usize) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(room);
        let service = TowerToHyperService::new(self.router());
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(theirs), service).with_upgrades());
        ours
    }

    /// Asks: status, head and body.
    pub(super) async fn ask(&self, method: &str, path: &str, body: &str) -> (u16, String, String) {
        let mut stream = self.connect(1 << 16);
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut all = String::new();
        soon("the answer", stream.read_to_string(&mut all)).await.unwrap();
        let (head, body) = all.split_once("\r\n\r\n").unwrap();
        (all[9..12].parse().unwrap(), head.to_ascii_lowercase(), body.to_owned())
    }

    /// Asks for the connection: its head, and what follows. `more` comes in one piece with the request.
    pub(super) async fn hijack(&self, path: &str, body: &str, more: &[u8]) -> (String, DuplexStream) {
        let mut stream = self.connect(1 << 16);
        let length = body.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(&[head.as_bytes(), more].concat()).await.unwrap();
        (self::head(&mut stream).await, stream)
    }

    /// A websocket, from behind its answer's head on (RFC 6455, 4.1).
    pub(super) async fn websocket(&self, path: &str) -> DuplexStream {
        let mut stream = self.connect(1 << 16);
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let head = head(&mut stream).await;
        assert!(head.starts_with("http/1.1 101 "), "{head}");
        stream
    }

    /// Makes an exec: its path.
    pub(super) async fn exec(&self, config: &serde_json::Value) -> String {
        let (status, _, body) = self.ask("POST", &format!("/containers/{VM}/exec"), &config.to_string()).await;
        assert_eq!(status, 201, "{body}");
        let made: serde_json::Value = serde_json::from_str(&body).unwrap();
        format!("/exec/{}", made["Id"].as_str().unwrap())
    }

    pub(super) async fn inspect(&self, exec: &str) -> serde_json::Value {
        let (_, _, body) = self.ask("GET", &format!("{exec}/json"), "").await;
        serde_json::from_str(&body).unwrap()
    }
}

/// An answer's head, in small letters.
async fn head(stream: &mut DuplexStream) -> String {
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(soon("the answer", stream.read_u8()).await.unwrap());
    }
    String::from_utf8(answer).unwrap().to_ascii_lowercase()
}

/// Everything up to the end.
pub(super) async fn rest(stream: &mut DuplexStream) -> Vec<u8> {
    let mut all = Vec::new();
    soon("the end of the stream", stream.read_to_end(&mut all)).await.unwrap();
    all
}

/// A frame.
pub(super) fn frame(source: u8, text: &str) -> Vec<u8> {
    let length = u32::try_from(text.len()).unwrap();
    [&[source, 0, 0, 0][..], &length.to_be_bytes(), text.as_bytes()].concat()
}
