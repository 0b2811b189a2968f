//! Connections out of a network and into it.

use std::net::{Ipv4Addr, SocketAddr};

use smoltcp::socket::tcp::State;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use wire::spec::Protocol;

use super::super::gateway::Gateway;
use super::guest::{Guest, through_gateway};
use super::{GATEWAY, Settings, Switch, settings, switch};

const ANY: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

/// Bytes that are not the same after a cut, a gap or a turn.
fn bytes(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        state.to_be_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

/// The host's end: sends all of it, then its end; answers what came.
async fn exchange(stream: TcpStream, bytes: &[u8]) -> Vec<u8> {
    let (mut from, mut to) = stream.into_split();
    let mut got = Vec::new();
    let send = async {
        to.write_all(bytes).await.unwrap();
        to.shutdown().await.unwrap();
    };
    let (_, received) = tokio::join!(send, from.read_to_end(&mut got));
    received.unwrap();
    got
}

#[tokio::test]
async fn ten_megabytes_go_both_ways_at_once() {
    let (switch, _dir) = switch();
    let listener = TcpListener::bind(ANY).await.unwrap();
    let (up, down) = (bytes(10 << 20, 1), bytes(10 << 20, 2));
    let mut guest = Guest::new(&switch, 2);
    let connection = guest.connect(through_gateway(listener.local_addr().unwrap()));
    let host = async { exchange(listener.accept().await.unwrap().0, &down).await };
    let (at_guest, at_host) = tokio::join!(guest.exchange(connection, &up), host);
    assert!(at_guest == down && at_host == up);
}

#[tokio::test]
async fn an_end_that_stops_sending_is_still_sent_to() {
    let (switch, _dir) = switch();
    let listener = TcpListener::bind(ANY).await.unwrap();
    let mut guest = Guest::new(&switch, 2);
    // the machine is done first
    let connection = guest.connect(through_gateway(listener.local_addr().unwrap()));
    let host = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut got = Vec::new();
        stream.read_to_end(&mut got).await.unwrap();
        stream.write_all(&bytes(100_000, got.len() as u64)).await.unwrap();
    };
    let (answer, ()) = tokio::join!(guest.exchange(connection, b"question"), host);
    assert!(answer == bytes(100_000, 8));
    // the host is
    let connection = guest.connect(through_gateway(listener.local_addr().unwrap()));
    let host = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.shutdown().await.unwrap();
        let mut got = Vec::new();
        stream.read_to_end(&mut got).await.unwrap();
        got
    };
    let up = bytes(300_000, 3);
    let machine = async {
        guest.until(connection, |socket| (socket.state() == State::CloseWait).then_some(())).await;
        guest.exchange(connection, &up).await;
        // all of it leaves the machine
        guest.until(connection, |socket| (socket.state() == State::Closed).then_some(())).await;
    };
    let ((), got) = tokio::join!(machine, host);
    assert!(got == up);
}

#[tokio::test]
async fn resets_and_refusals_are_passed_on() {
    let (switch, _dir) = switch();
    let mut guest = Guest::new(&switch, 2);
    let listener = TcpListener::bind(ANY).await.unwrap();
    let at = through_gateway(listener.local_addr().unwrap());
    // the host's end
    let connection = guest.connect(at);
    let machine = guest.until(connection, |socket| (socket.state() == State::Established).then_some(()));
    let (_, accepted) = tokio::join!(machine, listener.accept());
    let (stream, _) = accepted.unwrap();
    stream.set_zero_linger().unwrap();
    drop(stream);
    guest.until(connection, |socket| (socket.state() == State::Closed).then_some(())).await;
    // the machine's
    let connection = guest.connect(at);
    let machine = guest.until(connection, |socket| (socket.state() == State::Established).then(|| socket.abort()));
    let (_, accepted) = tokio::join!(machine, listener.accept());
    let error = accepted.unwrap().0.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    // nobody listens
    drop(listener);
    let connection = guest.connect(at);
    guest.until(connection, |socket| (socket.state() == State::Closed).then_some(())).await;
}

#[tokio::test]
async fn a_reader_that_is_slow_slows_its_writer() {
    let (switch, _dir) = switch();
    let listener = TcpListener::bind(ANY).await.unwrap();
    let mut guest = Guest::new(&switch, 2);
    let connection = guest.connect(through_gateway(listener.local_addr().unwrap()));
    let machine = guest.until(connection, |socket| (socket.state() == State::Established).then_some(()));
    let (_, accepted) = tokio::join!(machine, listener.accept());
    let (stream, _) = accepted.unwrap();
    // the machine reads nothing: at some time nothing more can be written, whatever the host's buffers are
    let mut written = 0;
    let stuck = async {
        loop {
            stream.writable().await.unwrap();
            match stream.try_write(&[7; 65536]) {
                Ok(length) => written += length,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    let stops = guest.until(connection, |socket| (socket.recv_queue() == 32 * 1024).then_some(()));
    tokio::select! {
        () = stuck => (),
        () = stops => (),
    }
    // and all of it arrives when it reads
    stream.set_nodelay(true).unwrap();
    drop(stream);
    let mut got = 0;
    guest
        .until(connection, |socket| {
            while socket.can_recv() {
                got += socket.recv(|bytes| (bytes.len(), bytes.len())).unwrap();
            }
            (!socket.may_recv()).then_some(())
        })
        .await;
    assert_eq!(got, written);
}

#[tokio::test]
async fn a_published_port_leads_to_its_machine() {
    let (switch, _dir) = switch();
    let mut guest = Guest::new(&switch, 2);
    let [here, up, down] = [SocketAddr::from(ANY).to_string(), "up".into(), "down".into()];
    let port =
        switch.publish(Protocol::Tcp, here.parse().unwrap(), (Ipv4Addr::new(10, 9, 0, 2).into(), 80)).await.unwrap();
    let connection = guest.listen(80);
    let host = async { exchange(TcpStream::connect(port.at()).await.unwrap(), up.as_bytes()).await };
    let (at_guest, at_host) = tokio::join!(guest.exchange(connection, down.as_bytes()), host);
    assert_eq!((&at_guest[..], &at_host[..]), (up.as_bytes(), down.as_bytes()));
    let taken = switch.publish(Protocol::Tcp, port.at(), (Ipv4Addr::new(10, 9, 0, 2).into(), 81)).await.unwrap_err();
    assert_eq!(taken.to_string(), format!("Bind for {} failed: port is already allocated", port.at()));
    // a machine that does not listen, and one that is not there
    let nobody = switch.publish(Protocol::Tcp, ANY.into(), (Ipv4Addr::new(10, 9, 0, 9).into(), 80)).await.unwrap();
    let mut stream = TcpStream::connect(nobody.at()).await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    let mut stream = TcpStream::connect(port.at()).await.unwrap();
    let closed = guest.until(connection, |_| None::<()>);
    tokio::select! {
        () = closed => (),
        end = stream.read_u8() => assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset),
    }
    let at = port.at();
    drop(port);
    // its task ends at its next turn
    while TcpStream::connect(at).await.is_ok() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_unplugged_machine_leaves_no_connection() {
    let (switch, _dir) = switch();
    let listener = TcpListener::bind(ANY).await.unwrap();
    let mut guest = Guest::new(&switch, 2);
    let connection = guest.connect(through_gateway(listener.local_addr().unwrap()));
    let machine = guest.until(connection, |socket| (socket.state() == State::Established).then_some(()));
    let (_, accepted) = tokio::join!(machine, listener.accept());
    switch.unplug("machine 2");
    let error = accepted.unwrap().0.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn nothing_leads_out_of_an_internal_network() {
    let dir = tempfile::tempdir().unwrap();
    let internal = Settings { internal: true, ..settings(&dir) };
    let switch = Switch::start_as(internal, Gateway::with_loopback).unwrap();
    let listener = TcpListener::bind(ANY).await.unwrap();
    let mut guest = Guest::new(&switch, 2);
    let connection = guest.connect((GATEWAY, listener.local_addr().unwrap().port()));
    guest.until(connection, |socket| (socket.state() == State::Closed).then_some(())).await;
}
