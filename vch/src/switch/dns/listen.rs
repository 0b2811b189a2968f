//! The service of names at an address of the host's own: where the host's kernel carries the network.
//!
//! It decides who is heard: machines of the network. Somebody else who has a way to the address is not answered, or this host would ask the world's servers for everybody.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use super::servers::Over;
use super::{PORT, Settings, answer, serve_stream};

/// Dropped, nobody answers any more.
#[derive(Debug)]
pub(crate) struct Listening([AbortHandle; 2]);

impl Listening {
    /// Answers the machines of this network at its gateway's address, which the host must have by now.
    pub(crate) async fn start(settings: &Arc<Settings>, gateway: Ipv4Addr) -> Result<Listening> {
        let at = SocketAddr::new(gateway.into(), PORT);
        let taken = || {
            format!(
                "cannot answer about names at {at}: is there a server of names on this host that listens at all addresses? Have it \
                 listen at some, or use --network user"
            )
        };
        let socket = UdpSocket::bind(at).await.with_context(taken)?;
        let listener = TcpListener::bind(at).await.with_context(taken)?;
        let datagrams = tokio::spawn(datagrams(settings.clone(), socket));
        let streams = tokio::spawn(streams(settings.clone(), listener));
        Ok(Listening([datagrams.abort_handle(), streams.abort_handle()]))
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

async fn datagrams(settings: Arc<Settings>, socket: UdpSocket) {
    let (socket, places) = (Arc::new(socket), Arc::new(Semaphore::new(QUESTIONS)));
    let mut buffer = vec![0; 65535];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else {
            // of an answer that could not be brought, say
            sleep(RECOVER).await;
            continue;
        };
        let Some(asking) = machine(&settings, from) else { continue };
        // too many at once are lost: they are asked again
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let (settings, socket, query) = (settings.clone(), socket.clone(), buffer[..length].to_vec());
        tokio::spawn(async move {
            if let Some(answer) = answer(&settings, asking, &query, Over::Udp).await {
                // who asked may have gone
                let _sent = socket.send_to(&answer, from).await;
            }
            drop(place);
        });
    }
}

async fn streams(settings: Arc<Settings>, listener: TcpListener) {
    let places = Arc::new(Semaphore::new(STREAMS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let Ok((stream, from)) = listener.accept().await else {
            sleep(RECOVER).await;
            continue;
        };
        if machine(&settings, from).is_some() {
            let settings = settings.clone();
            tokio::spawn(async move {
                // whoever asks nothing more makes place for others
                let _over = timeout(STREAM_TIME, serve(&settings, stream, from)).await;
                drop(place);
            });
        }
    }
}

async fn serve(settings: &Settings, stream: TcpStream, from: SocketAddr) {
    if let SocketAddr::V4(machine) = from {
        serve_stream(settings, machine, stream).await;
    }
}

/// The machine that asks; none if it is none of this network's.
fn machine(settings: &Settings, from: SocketAddr) -> Option<Ipv4Addr> {
    match from {
        SocketAddr::V4(from) => Some(*from.ip()).filter(|address| settings.contains(*address)),
        SocketAddr::V6(_) => None,
    }
}

/// Questions that are open at most.
const QUESTIONS: usize = 128;
/// Connections at most, and how long each.
const STREAMS: usize = 64;
const STREAM_TIME: Duration = Duration::from_secs(30);
/// After a failure such as too many open files.
const RECOVER: Duration = Duration::from_millis(100);
