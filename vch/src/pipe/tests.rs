//! Pipes of each kind: bytes both ways, a cut, and the next pipe.

use std::fs::File;
use std::io::{Read, Write};
use std::sync::mpsc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::*;

const DEADLINE: Duration = Duration::from_secs(20);

fn bytes() -> Vec<u8> {
    (0..=255).cycle().take(500_000).collect()
}

/// The other end sends back what it gets. It closes when what this returns is dropped: a terminal that closes takes back what is not read.
fn echo(mut peer: impl Read + Write + Send + 'static, count: usize) -> mpsc::Sender<()> {
    let (open, closed) = mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 4096];
        let mut left = count;
        while left > 0 {
            let Ok(read @ 1..) = peer.read(&mut buffer) else { return };
            peer.write_all(&buffer[..read]).unwrap();
            left -= read;
        }
        closed.recv().ok();
    });
    open
}

/// Sends everything, gets everything back, and sees the end of the pipe.
async fn comes_back(pipe: Pipe, sent: &[u8], peer: mpsc::Sender<()>) {
    let (mut reader, mut writer) = pipe.split();
    let mut received = vec![0; sent.len()];
    let both = async { tokio::join!(writer.write_all(sent), reader.read_exact(&mut received)) };
    let (written, read) = timeout(DEADLINE, both).await.expect("bytes flow");
    written.unwrap();
    read.unwrap();
    assert!(received == sent, "bytes differ");
    drop(peer);
    let mut more = [0];
    let end = timeout(DEADLINE, reader.read(&mut more)).await.expect("the pipe ends");
    // a serial line that is cut may say so by an error
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
}

async fn next(listener: &mut Listener) -> Pipe {
    timeout(DEADLINE, listener.accept()).await.expect("a pipe in time").unwrap()
}

#[tokio::test]
async fn a_unix_socket_is_cut_and_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("link");
    let address = Address::Unix(path.clone());
    let mut listener = Listener::bind(&address).unwrap();
    for _ in 0..2 {
        let peer = StdUnixStream::connect(&path).unwrap();
        let peer = echo(peer, bytes().len());
        comes_back(next(&mut listener).await, &bytes(), peer).await;
    }
    let error = Listener::bind(&address).unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot listen at unix://{}: ", path.display())), "{error}");
    assert!(error.contains("another program listens there"), "{error}");
    drop(listener);
    assert!(!path.exists());
}

#[tokio::test]
async fn the_socket_of_a_host_that_was_killed_is_in_nobodys_way() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("link");
    drop(StdUnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let mut listener = Listener::bind(&Address::Unix(path.clone())).unwrap();
    let _peer = StdUnixStream::connect(&path).unwrap();
    next(&mut listener).await;
    // what is no socket is not ours to remove
    let file = dir.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    Listener::bind(&Address::Unix(file.clone())).unwrap_err();
    assert_eq!(std::fs::read(&file).unwrap(), b"precious");
}

#[tokio::test]
async fn a_tcp_connection_is_cut_and_comes_back() {
    let mut listener = Listener::bind(&"tcp://127.0.0.1:0".parse().unwrap()).unwrap();
    let at = listener.tcp_address().unwrap();
    for _ in 0..2 {
        let peer = std::net::TcpStream::connect(at).unwrap();
        let peer = echo(peer, bytes().len());
        let pipe = next(&mut listener).await;
        let Stream::Tcp(stream) = &pipe.0 else { panic!("{pipe:?}") };
        assert!(stream.nodelay().unwrap() && sockopt::socket_keepalive(stream).unwrap());
        comes_back(pipe, &bytes(), peer).await;
    }
    let error = Listener::bind(&Address::Tcp(at.to_string())).unwrap_err().to_string();
    assert!(error.contains(&format!("cannot listen at tcp://{at}: ")) && error.contains("another port"), "{error}");
}

/// A pseudo-terminal at a path of ours, as a device that can be taken away and put back.
fn terminal(path: &std::path::Path) -> File {
    let pty = rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY).unwrap();
    rustix::pty::grantpt(&pty).unwrap();
    rustix::pty::unlockpt(&pty).unwrap();
    let name = rustix::pty::ptsname(&pty, Vec::new()).unwrap().into_string().unwrap();
    std::fs::remove_file(path).ok();
    std::os::unix::fs::symlink(name, path).unwrap();
    File::from(pty)
}

#[tokio::test]
async fn a_serial_line_is_there_at_once_and_is_opened_anew() {
    let dir = tempfile::tempdir().unwrap();
    let device = dir.path().join("ttyX");
    let mut master = terminal(&device);
    let address: Address = format!("serial://{}?speed=921600", device.display()).parse().unwrap();
    let mut listener = Listener::bind(&address).unwrap();
    // nobody else gets at it
    let error = Listener::bind(&address).unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot open {address}: ")) && error.contains("nobody else uses"), "{error}");
    for _ in 0..2 {
        let pipe = next(&mut listener).await;
        assert!(timeout(Duration::from_millis(100), listener.accept()).await.is_err(), "one pipe at a time");
        let peer = echo(master, bytes().len());
        comes_back(pipe, &bytes(), peer).await;
        master = terminal(&device);
    }
    // a pipe that is dropped makes room for the next
    drop(next(&mut listener).await);
    drop(next(&mut listener).await);
}

#[tokio::test]
async fn a_missing_device_or_address_is_named() {
    for (address, part) in [
        ("serial:///dev/no-such-line", "cannot open serial:///dev/no-such-line?speed=115200: No such file"),
        ("serial:///dev/null", "cannot open serial:///dev/null?speed=115200: "),
        ("unix:///no/such/dir/link", "its directory does not exist"),
        ("tcp://203.0.113.1:80", "give an address of this host"),
    ] {
        let error = Listener::bind(&address.parse().unwrap()).unwrap_err().to_string();
        assert!(error.contains(part), "{part:?} is not in {error}");
    }
}

/// Says that a test could not run here. `./dev test` counts these lines.
fn skip(name: &str, reason: &str) {
    // not eprintln: the harness would swallow it
    writeln!(std::io::stderr(), "SKIPPED {name}: {reason}").expect("stderr");
}

/// Guests need a machine; this host's own loopback does not, where the kernel has it.
#[tokio::test]
async fn a_vsock_connection_is_cut_and_comes_back() {
    let port = 1_000_000 + std::process::id();
    let mut listener = match Listener::bind(&Address::Vsock { cid: None, port }) {
        Ok(listener) => listener,
        Err(error) => {
            assert!(error.to_string().contains("modprobe vhost_vsock"), "{error}");
            return skip("a_vsock_connection_is_cut_and_comes_back", "this kernel has no vsock");
        }
    };
    for _ in 0..2 {
        let Ok(peer) = VsockStream::connect_with_cid_port(vsock::VMADDR_CID_LOCAL, port) else {
            return skip("a_vsock_connection_is_cut_and_comes_back", "this kernel has no vsock loopback");
        };
        let peer = echo(peer, bytes().len());
        let pipe = next(&mut listener).await;
        assert_eq!(pipe.peer_cid(), Some(vsock::VMADDR_CID_LOCAL));
        comes_back(pipe, &bytes(), peer).await;
    }
}

#[tokio::test]
async fn a_pipe_can_be_used_before_it_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("link");
    let mut listener = Listener::bind(&Address::Unix(path.clone())).unwrap();
    let (mut reader, mut writer) = awaited(async move { listener.accept().await.ok() });
    let peer = std::thread::spawn(move || {
        let mut peer = StdUnixStream::connect(&path).unwrap();
        peer.write_all(b"hello").unwrap();
        let mut answer = [0; 2];
        peer.read_exact(&mut answer).unwrap();
        answer
    });
    let mut hello = [0; 5];
    let both = async { tokio::join!(writer.write_all(b"hi"), reader.read_exact(&mut hello)) };
    let (written, read) = timeout(DEADLINE, both).await.unwrap();
    written.unwrap();
    read.unwrap();
    assert_eq!((&hello, &peer.join().unwrap()), (b"hello", b"hi"));

    let (mut reader, mut writer) = awaited(async { None });
    assert_eq!(reader.read(&mut hello).await.unwrap(), 0);
    assert_eq!(writer.write(b"hi").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}
