//! A small app behind each kind of host: who is let in, who is told why he is not, what an end of one direction does, and how all of it ends.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use clap::Parser;
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    listen: ListenArgs,
}

const DEADLINE: Duration = Duration::from_secs(20);

fn args(line: &str) -> ListenArgs {
    Line::parse_from(format!("serve {line}").split_whitespace()).listen
}

/// Answers a ping, and takes a connection over: it says back what came once that has ended, however late.
fn app() -> Router {
    Router::new().route("/_ping", get(|| async { "OK" })).route("/echo", post(echo))
}

async fn echo(mut request: Request) -> Response {
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let mut stream = TokioIo::new(upgrade.await.unwrap());
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        stream.write_all(&all).await.unwrap();
        stream.shutdown().await.unwrap();
    });
    (StatusCode::SWITCHING_PROTOCOLS, [("Connection", "Upgrade"), ("Upgrade", "tcp")]).into_response()
}

fn open(line: &str, state: &Path) -> (Serving, SocketAddr) {
    let listeners = Listeners::open(&args(line), state).unwrap();
    let address = match &listeners.all[0].socket {
        Socket::Tcp(listener) => listener.local_addr().unwrap(),
        Socket::Unix { .. } => ([0, 0, 0, 0], 0).into(),
    };
    (listeners.serve(&app()), address)
}

/// Certificates of `vch certs`, in a state directory.
fn state() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    certify(&dir.path().join("certs"));
    dir
}

fn certify(dir: &Path) {
    let args = crate::cli::CertsArgs { dir: dir.into(), san: vec!["127.0.0.1".into()], days: 1, force: true };
    crate::certs::run(&args).unwrap();
}

/// A client that trusts the CA of one directory, and shows the certificate of another.
async fn tls(at: SocketAddr, ca: &Path, own: Option<&Path>) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca.join("certs/ca.pem")).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match own {
        Some(dir) => {
            let chain = vec![CertificateDer::from_pem_file(dir.join("certs/cert.pem")).unwrap()];
            let key = PrivateKeyDer::from_pem_file(dir.join("certs/key.pem")).unwrap();
            config.with_client_auth_cert(chain, key).unwrap()
        }
        None => config.with_no_client_auth(),
    };
    let stream = TcpStream::connect(at).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::from(at.ip()), stream).await
}

/// The whole answer to a request after which the client says no more.
async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> io::Result<String> {
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut answer = String::new();
    timeout(DEADLINE, stream.read_to_string(&mut answer)).await.expect("an answer in time")?;
    Ok(answer)
}

const PING: &str = "GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
const TAKE_OVER: &str = "POST /echo HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";

#[tokio::test]
async fn a_unix_socket_is_its_owners_and_goes_with_the_host() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("docker.sock");
    let (serving, _) = open(&format!("-H unix://{}", path.display()), dir.path());
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let answer = ask(UnixStream::connect(&path).await.unwrap(), PING).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("\r\n\r\nOK"), "{answer}");
    timeout(DEADLINE, serving.stop()).await.unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn who_ends_his_half_gets_the_other_half() {
    let state = state();
    let much: Vec<u8> = (0..=255).cycle().take(1_000_000).collect();
    let (plain, at) = open("-H tcp://127.0.0.1:0", state.path());
    let (sealed, tls_at) = open("-H tcp://127.0.0.1:0 --tlsverify", state.path());
    comes_back(TcpStream::connect(at).await.unwrap(), &much).await;
    comes_back(tls(tls_at, state.path(), Some(state.path())).await.unwrap(), &much).await;
    for serving in [plain, sealed] {
        timeout(DEADLINE, serving.stop()).await.unwrap();
    }
}

async fn comes_back(mut stream: impl AsyncRead + AsyncWrite + Unpin, much: &[u8]) {
    stream.write_all(TAKE_OVER.as_bytes()).await.unwrap();
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).await.unwrap();
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    stream.write_all(much).await.unwrap();
    // by TLS this is close_notify
    stream.shutdown().await.unwrap();
    let mut back = Vec::new();
    timeout(DEADLINE, stream.read_to_end(&mut back)).await.expect("the end in time").unwrap();
    assert!(back == much, "{} bytes came back", back.len());
}

#[tokio::test]
async fn tlsverify_lets_clients_of_its_ca_in_and_tls_everybody() {
    let (state, other) = (state(), state());
    let (verifying, at) = open("-H tcp://127.0.0.1:0 --tlsverify", state.path());
    let (open, open_at) = open("-H tcp://127.0.0.1:0 --tls", state.path());
    let stream = tls(at, state.path(), Some(state.path())).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), None);
    assert!(ask(stream, PING).await.unwrap().ends_with("OK"));
    for (own, part) in [(None, "CertificateRequired"), (Some(other.path()), "alert")] {
        // in TLS 1.3 a client learns it when he reads
        let error = match tls(at, state.path(), own).await {
            Ok(stream) => ask(stream, PING).await.unwrap_err(),
            Err(error) => error,
        };
        assert!(error.to_string().contains(part), "{error}");
    }
    assert!(ask(tls(open_at, state.path(), None).await.unwrap(), PING).await.unwrap().ends_with("OK"));
    let answer = ask(TcpStream::connect(at).await.unwrap(), PING).await.unwrap();
    assert!(answer.ends_with("Client sent an HTTP request to an HTTPS server.\n"), "{answer}");
    for serving in [verifying, open] {
        timeout(DEADLINE, serving.stop()).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_holds_nobody_up_and_is_closed() {
    let state = state();
    let (_serving, at) = open("-H tcp://127.0.0.1:0 --tls", state.path());
    let (_plain, plain_at) = open("-H tcp://127.0.0.1:0", state.path());
    let mut silent = Vec::new();
    for (at, said) in [(at, &b""[..]), (at, b"\x16\x03\x01"), (plain_at, b""), (plain_at, b"GET /_ping HT")] {
        let mut stream = TcpStream::connect(at).await.unwrap();
        stream.write_all(said).await.unwrap();
        silent.push(stream);
    }
    assert!(ask(TcpStream::connect(plain_at).await.unwrap(), PING).await.unwrap().ends_with("OK"));
    for mut stream in silent {
        let mut rest = Vec::new();
        // paused time goes on as soon as nothing else does
        timeout(connection::LONGEST, stream.read_to_end(&mut rest)).await.expect("it is closed").ok();
    }
}

#[tokio::test]
async fn certificates_are_read_again_and_bad_ones_are_not_taken() {
    let state = state();
    let (serving, at) = open("-H tcp://127.0.0.1:0 --tlsverify", state.path());
    let shown = async |path: &Path| {
        let stream = tls(at, path, Some(path)).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].clone()
    };
    let first = shown(state.path()).await;
    certify(&state.path().join("certs"));
    assert!(shown(state.path()).await == first);
    assert!(serving.reload().unwrap());
    let second = shown(state.path()).await;
    assert!(second != first);
    std::fs::write(state.path().join("certs/server-key.pem"), "nonsense").unwrap();
    let error = format!("{:#}", serving.reload().unwrap_err());
    assert!(error.contains("server-key.pem holds no private key"), "{error}");
    assert!(shown(state.path()).await == second);
}

#[tokio::test]
async fn the_end_closes_the_idle_at_once_and_lets_the_busy_end() {
    let state = state();
    let (serving, at) = open("-H tcp://127.0.0.1:0", state.path());
    let mut idle = TcpStream::connect(at).await.unwrap();
    idle.write_all(PING.replace("Connection: close\r\n", "").as_bytes()).await.unwrap();
    let mut answer = [0; 15];
    idle.read_exact(&mut answer).await.unwrap();
    let mut taken_over = TcpStream::connect(at).await.unwrap();
    taken_over.write_all(TAKE_OVER.as_bytes()).await.unwrap();
    taken_over.read_exact(&mut answer).await.unwrap();
    let stopping = tokio::spawn(serving.stop());
    let mut rest = Vec::new();
    timeout(DEADLINE, idle.read_to_end(&mut rest)).await.expect("it is closed").unwrap();
    assert!(rest.ends_with(b"OK"));
    // nobody is accepted any more, and who is there goes on
    while TcpStream::connect(at).await.is_ok() {
        tokio::task::yield_now().await;
    }
    taken_over.write_all(b"more").await.unwrap();
    taken_over.shutdown().await.unwrap();
    let mut back = Vec::new();
    timeout(DEADLINE, taken_over.read_to_end(&mut back)).await.expect("its end").unwrap();
    assert!(back.ends_with(b"more"));
    timeout(DEADLINE, stopping).await.expect("all are gone").unwrap();
}

#[tokio::test]
async fn who_opens_a_door_is_told_who_can_come_in() {
    let state = state();
    let lines = |line: &str| Listeners::open(&args(line), state.path()).map(|listeners| listeners.lines());
    let [line, warning] = &lines("-H tcp://127.0.0.1:0").unwrap()[..] else { panic!("two lines") };
    assert!(line.starts_with("docker clients connect at tcp://127.0.0.1:") && !line.ends_with(":0"), "{line}");
    assert!(warning.contains("no encryption") && warning.contains("every user and program of this host"), "{warning}");
    let warning = &lines("-H tcp://0.0.0.0:0 --tls").unwrap()[1];
    assert!(warning.contains("whoever reaches it is root in every container"), "{warning}");
    assert_eq!(lines("-H tcp://127.0.0.1:0 --tlsverify").unwrap().len(), 1);
    assert_eq!(lines("").unwrap(), [""; 0]);
    for (line, part) in [
        ("-H unix:///no/such/dir/s", "its directory does not exist"),
        ("-H tcp://192.0.2.1:0", "give an address of this host"),
        ("-H tcp://127.0.0.1:0 --tlsverify --tlscacert /no/ca", "cannot read the CA /no/ca"),
        ("-H tcp://127.0.0.1:0 --tls --tlscert /dev/null", "/dev/null holds no certificate"),
    ] {
        let error = format!("{:#}", lines(line).unwrap_err());
        assert!(error.contains(part), "{error}");
    }
}
