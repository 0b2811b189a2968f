//! A registry that does what real ones do on bad days: it cuts, refuses, redirects, damages, drips and never ends. It notes what it was asked.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::images::{run, sha256};

/// An image as a registry has it: documents and blobs by digest, and the digest that the tag `latest` leads to.
#[derive(Clone)]
pub struct Image {
    blobs: BTreeMap<String, Vec<u8>>,
    top: String,
    layers: Vec<String>,
}

/// What goes wrong.
#[derive(Clone, Default)]
pub struct Faults {
    /// So many answers with a layer end half way.
    pub cuts: usize,
    /// Layers are sent whole, whatever part is asked for.
    pub no_ranges: bool,
    /// So many requests are too many, each for so many seconds.
    pub busy: (usize, u64),
    /// Answers to all requests.
    pub status: Option<u16>,
    /// Layers have a wrong byte in the middle.
    pub damaged: bool,
    /// The manifest has a wrong byte, and a header that says so.
    pub forged: bool,
    /// The manifest does not end.
    pub endless: bool,
    /// A byte of each layer comes now and then.
    pub drip: bool,
    /// Tokens are wanted, and each is good for so many requests. Those who ask for one must be joe.
    pub tokens: Option<usize>,
    /// Layers are to be had elsewhere: `http://HOST:PORT`.
    pub elsewhere: Option<String>,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    pub target: String,
    pub authorization: Option<String>,
    pub range: Option<String>,
}

pub struct Faulty {
    pub port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    image: Image,
    faults: Faults,
    port: u16,
    cuts: AtomicUsize,
    busy: AtomicUsize,
    tokens: AtomicUsize,
    uses: AtomicUsize,
    seen: Mutex<Vec<Seen>>,
    over: AtomicBool,
}

impl Image {
    /// An image with so many layers, of some 300 KB each that do not compress.
    pub fn new(layers: usize) -> Image {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut blobs = BTreeMap::new();
        let mut add = |bytes: Vec<u8>| {
            let path = dir.path().join("blob");
            fs::write(&path, &bytes).expect("a file");
            let digest = format!("sha256:{}", sha256(&path));
            blobs.insert(digest.clone(), bytes);
            digest
        };
        let mut state = 1u64;
        let layers: Vec<(String, usize)> = (0..layers)
            .map(|number| {
                let mut noise = Vec::with_capacity(300_000);
                while noise.len() < 300_000 {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    noise.extend_from_slice(&state.to_le_bytes());
                }
                let tar = archive(dir.path(), &format!("file-{number}"), &noise);
                let size = tar.len();
                (add(tar), size)
            })
            .collect();
        let digests: Vec<&str> = layers.iter().map(|(digest, _)| digest.as_str()).collect();
        let config = serde_json::json!({ "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": digests } });
        let config = config.to_string().into_bytes();
        let size = config.len();
        let config = serde_json::json!({ "mediaType": "application/vnd.oci.image.config.v1+json", "digest": add(config), "size": size });
        let of = |(digest, size): &(String, usize)| serde_json::json!({ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": size });
        let all: Vec<_> = layers.iter().map(of).collect();
        let manifest =
            serde_json::json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": all });
        let top = add(manifest.to_string().into_bytes());
        Image { blobs, top, layers: layers.into_iter().map(|(digest, _)| digest).collect() }
    }

    pub fn digest(&self) -> &str {
        &self.top
    }
}

fn archive(dir: &Path, name: &str, content: &[u8]) -> Vec<u8> {
    fs::write(dir.join(name), content).expect("a file");
    let tar = dir.join("layer.tar");
    run(Command::new("tar").args(["--owner=0", "--group=0", "-cf"]).arg(&tar).arg("-C").arg(dir).arg(name));
    fs::read(tar).expect("a file")
}

impl Faulty {
    pub fn start(image: &Image, faults: Faults) -> Faulty {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("a port").port();
        let shared = Arc::new(Shared {
            image: image.clone(),
            port,
            cuts: AtomicUsize::new(faults.cuts),
            busy: AtomicUsize::new(faults.busy.0),
            tokens: AtomicUsize::new(0),
            uses: AtomicUsize::new(0),
            seen: Mutex::default(),
            over: AtomicBool::new(false),
            faults,
        });
        let serving = shared.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                if serving.over.load(Ordering::Relaxed) {
                    return;
                }
                let (shared, Ok(stream)) = (serving.clone(), stream) else { continue };
                // whoever hangs up has seen enough
                thread::spawn(move || shared.serve(stream).ok());
            }
        });
        Faulty { port, shared }
    }

    pub fn name(&self) -> String {
        format!("127.0.0.1:{}/faulty", self.port)
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What was asked, but for the first question, whether this is a registry.
    pub fn seen(&self) -> Vec<Seen> {
        let seen = self.shared.seen.lock().expect("no server has panicked");
        seen.iter().filter(|seen| seen.target != "/v2/").cloned().collect()
    }

    /// How many tokens were given out.
    pub fn tokens(&self) -> usize {
        self.shared.tokens.load(Ordering::Relaxed)
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        // wakes the listener
        TcpStream::connect(("127.0.0.1", self.port)).ok();
    }
}

impl Shared {
    /// One request a connection.
    fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        let first = lines.next().unwrap_or_else(|| Ok(String::new()))?;
        let mut seen =
            Seen { target: first.split(' ').nth(1).unwrap_or_default().to_owned(), authorization: None, range: None };
        for line in lines {
            let line = line?;
            let Some((name, value)) = line.split_once(": ") else { break };
            match name.to_ascii_lowercase().as_str() {
                "authorization" => seen.authorization = Some(value.to_owned()),
                "range" => seen.range = Some(value.to_owned()),
                _ => {}
            }
        }
        self.seen.lock().expect("no server has panicked").push(seen.clone());
        self.answer(&stream, &first, &seen)
    }

    fn answer(&self, mut to: &TcpStream, first: &str, seen: &Seen) -> std::io::Result<()> {
        if seen.target == "/v2/" {
            return head(to, "200 OK", &["content-length: 0".to_owned()]);
        }
        if seen.target.starts_with("/token?") {
            return self.token(to, seen);
        }
        if let Some(status) = self.faults.status {
            return head(to, &format!("{status} Bad Day"), &["content-length: 0".to_owned()]);
        }
        if take(&self.busy) {
            let after = format!("retry-after: {}", self.faults.busy.1);
            return head(to, "429 Too Many Requests", &[after, "content-length: 0".to_owned()]);
        }
        if self.faults.tokens.is_some_and(|uses| !self.is_good(seen, uses)) {
            let realm = format!("http://127.0.0.1:{}/token", self.port);
            let wanted =
                format!(r#"www-authenticate: Bearer realm="{realm}",service="test",scope="repository:faulty:pull""#);
            return head(to, "401 Unauthorized", &[wanted, "content-length: 0".to_owned()]);
        }
        let last = seen.target.rsplit('/').next().unwrap_or_default();
        let digest = if last == "latest" { &self.image.top } else { last };
        let Some(bytes) = self.image.blobs.get(digest) else {
            return head(to, "404 Not Found", &["content-length: 0".to_owned()]);
        };
        if self.image.layers.iter().any(|layer| layer == digest) {
            return self.layer(to, seen, digest, bytes);
        }
        let mut bytes = bytes.clone();
        let mut headers = vec![format!("content-type: {MANIFEST}"), format!("docker-content-digest: {digest}")];
        if digest == self.image.top && self.faults.endless {
            head(to, "200 OK", &headers)?;
            loop {
                to.write_all(&[b' '; 1 << 16])?;
            }
        }
        if digest == self.image.top && self.faults.forged {
            bytes.push(b' ');
        }
        headers.push(format!("content-length: {}", bytes.len()));
        head(to, "200 OK", &headers)?;
        if first.starts_with("HEAD") { Ok(()) } else { to.write_all(&bytes) }
    }

    fn layer(&self, mut to: &TcpStream, seen: &Seen, digest: &str, bytes: &[u8]) -> std::io::Result<()> {
        if let Some(elsewhere) = &self.faults.elsewhere {
            let location = format!("location: {elsewhere}/v2/faulty/blobs/{digest}");
            return head(to, "307 Temporary Redirect", &[location, "content-length: 0".to_owned()]);
        }
        let mut bytes = bytes.to_vec();
        if self.faults.damaged {
            bytes[1000] ^= 1;
        }
        let from =
            seen.range.as_deref().and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
        let from = from.filter(|_| !self.faults.no_ranges);
        let part = &bytes[from.unwrap_or(0)..];
        let mut headers = vec![format!("content-length: {}", part.len())];
        if let Some(from) = from {
            headers.push(format!("content-range: bytes {from}-{}/{}", bytes.len() - 1, bytes.len()));
        }
        head(to, if from.is_some() { "206 Partial Content" } else { "200 OK" }, &headers)?;
        if self.faults.drip {
            loop {
                to.write_all(&[0])?;
                thread::sleep(Duration::from_millis(50));
            }
        }
        to.write_all(if take(&self.cuts) { &part[..part.len() / 2] } else { part })
    }

    fn token(&self, mut to: &TcpStream, seen: &Seen) -> std::io::Result<()> {
        if seen.authorization.as_deref() != Some(JOE) {
            return head(to, "401 Unauthorized", &["content-length: 0".to_owned()]);
        }
        let number = self.tokens.fetch_add(1, Ordering::Relaxed) + 1;
        self.uses.store(0, Ordering::Relaxed);
        let body = format!(r#"{{"token":"token-{number}","expires_in":60}}"#);
        head(to, "200 OK", &[format!("content-length: {}", body.len())])?;
        to.write_all(body.as_bytes())
    }

    fn is_good(&self, seen: &Seen, uses: usize) -> bool {
        let current = format!("Bearer token-{}", self.tokens.load(Ordering::Relaxed));
        seen.authorization == Some(current) && self.uses.fetch_add(1, Ordering::Relaxed) < uses
    }
}

fn head(mut to: &TcpStream, status: &str, headers: &[String]) -> std::io::Result<()> {
    to.write_all(format!("HTTP/1.1 {status}\r\nconnection: close\r\n{}\r\n\r\n", headers.join("\r\n")).as_bytes())
}

/// Takes one of what is left.
fn take(left: &AtomicUsize) -> bool {
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
}

/// joe, by [`super::LOGIN`].
pub const JOE: &str = "Basic am9lOjVlY3JlNy1vZi1qb2U=";

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
