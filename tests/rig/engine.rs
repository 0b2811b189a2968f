//! Docker's API as plain bytes on its socket: a test decides what comes when, and sees what a client would hide.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use crate::host::PATIENCE;
use crate::serve::Serve;

/// What a daemon has answered.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    /// As they came, a line each.
    pub head: String,
    pub body: Vec<u8>,
}

/// A connection that was taken over.
pub struct Hijacked {
    stream: UnixStream,
    /// What was read behind the answer's head.
    early: Vec<u8>,
}

/// Standard output and standard error out of frames, and what the daemon itself has said.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Demultiplexed {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub daemon: Vec<u8>,
}

impl Serve {
    /// A connection to the API; waits until serve listens.
    pub fn engine(&self) -> UnixStream {
        let host = self.docker_host();
        let path = host.strip_prefix("unix://").expect("a socket");
        let deadline = Instant::now() + PATIENCE;
        loop {
            match UnixStream::connect(path) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
                    return stream;
                }
                Err(error) => assert!(Instant::now() < deadline, "nobody listens at {path}: {error}; {}", self.log()),
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    /// Asks, on a connection of its own.
    pub fn ask(&self, method: &str, path: &str, body: &str) -> Reply {
        let mut stream = self.engine();
        let length = body.len();
        write!(
            stream,
            "{method} /v1.50{path} HTTP/1.1\r\nHost: rig\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .expect("it reads");
        let mut all = Vec::new();
        stream.read_to_end(&mut all).expect("it answers");
        let (status, head, body) = parted(&all).unwrap_or_else(|| panic!("{:?}", String::from_utf8_lossy(&all)));
        let is_chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
        Reply { status, body: if is_chunked { dechunked(&body) } else { body }, head }
    }

    /// Asks for the connection, and gets it with 101; `more` are bytes that follow the request at once.
    pub fn hijack(&self, path: &str, body: &str, more: &[u8]) -> (String, Hijacked) {
        let mut stream = self.engine();
        let length = body.len();
        let mut request = format!(
            "POST /v1.50{path} HTTP/1.1\r\nHost: rig\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .into_bytes();
        request.extend_from_slice(more);
        stream.write_all(&request).expect("it reads");
        let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
        loop {
            if let Some((status, head, early)) = parted(&all) {
                assert_eq!(status, 101, "{head}{}", String::from_utf8_lossy(&early));
                return (head, Hijacked { stream, early });
            }
            let count = stream.read(&mut buffer).expect("it answers");
            assert!(count > 0, "it closed: {:?}", String::from_utf8_lossy(&all));
            all.extend_from_slice(&buffer[..count]);
        }
    }
}

impl Reply {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl Hijacked {
    /// Writes from here on from another thread, say.
    pub fn stream(&self) -> UnixStream {
        self.stream.try_clone().expect("a socket")
    }

    pub fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("it reads");
    }

    /// There is nothing more to say.
    pub fn half_close(&self) {
        self.stream.shutdown(Shutdown::Write).expect("a socket");
    }

    /// Everything up to the end.
    pub fn read_to_end(&mut self) -> Vec<u8> {
        let mut all = std::mem::take(&mut self.early);
        self.stream.read_to_end(&mut all).expect("it comes to its end");
        all
    }

    /// Reads until `text` has come; what follows it stays.
    pub fn expect(&mut self, text: &str) {
        let mut buffer = [0; 4096];
        loop {
            let found = self.early.windows(text.len()).position(|window| window == text.as_bytes());
            if let Some(at) = found {
                self.early.drain(..at + text.len());
                return;
            }
            let count = self.stream.read(&mut buffer).unwrap_or_default();
            assert!(count > 0, "{text:?} did not come: {:?}", String::from_utf8_lossy(&self.early));
            self.early.extend_from_slice(&buffer[..count]);
        }
    }
}

impl Demultiplexed {
    /// Takes frames apart, each of which must be whole.
    pub fn of(mut bytes: &[u8]) -> Demultiplexed {
        let mut all = Demultiplexed::default();
        while !bytes.is_empty() {
            let (&[source, 0, 0, 0, a, b, c, d], rest) = bytes.split_first_chunk().expect("a whole frame") else {
                panic!("no frame: {:?}", &bytes[..8])
            };
            let length = u32::from_be_bytes([a, b, c, d]) as usize;
            let (payload, rest) = rest.split_at(length);
            match source {
                1 => all.stdout.extend_from_slice(payload),
                2 => all.stderr.extend_from_slice(payload),
                3 => all.daemon.extend_from_slice(payload),
                other => panic!("stream {other}"),
            }
            bytes = rest;
        }
        all
    }
}

/// Status, head and what follows, once the head is there.
fn parted(all: &[u8]) -> Option<(u16, String, Vec<u8>)> {
    let at = all.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&all[..at]).into_owned();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, head, all[at..].to_vec()))
}

fn dechunked(mut body: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(at) = body.windows(2).position(|window| window == b"\r\n") {
        let length = std::str::from_utf8(&body[..at]).ok().and_then(|text| usize::from_str_radix(text, 16).ok());
        let length = length.expect("a chunk's length");
        if length == 0 {
            break;
        }
        all.extend_from_slice(&body[at + 2..][..length]);
        body = &body[at + 2 + length + 2..];
    }
    all
}

/// Waits until it is so.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}
