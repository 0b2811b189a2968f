//! Virtual serial ports of ESXi through telnet: the host's end is what VMware calls a proxy, or concentrator (vSPC).
//!
//! ```text
//! ESXi ══ telnet: options, VMware's extension ══> line ──> carrier ──> a pipe of clean bytes, the same one wherever the VM moves
//! telnet     which bytes are data                 extension   what hosts say of VMs       session     what is answered
//! ```
//!
//! It decides which connection is whose VM's at a move (vMotion). Whose VM it is otherwise, the link on the pipe proves.

mod carrier;
mod extension;
mod line;
mod moves;
mod session;
mod telnet;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::DuplexStream;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use self::line::Line;
use self::moves::Moves;
use self::session::Event;

pub use self::session::VmwareNames;

/// The port that VIC's appliance had, and that ours has.
pub(super) const PORT: u16 = 2377;

/// Connections at one address.
const PLACES: usize = 1024;
/// While a VM moves, a new connection has so long to say that it is this VM's.
const INTRODUCTION: Duration = Duration::from_secs(2);
/// Bytes on their way in each direction.
const ON_THE_WAY: usize = 64 * 1024;

/// Where hosts connect.
#[derive(Debug)]
pub(super) struct Concentrator {
    at: Option<SocketAddr>,
    pipes: mpsc::Receiver<io::Result<Port>>,
    accepting: JoinHandle<()>,
}

/// One VM's serial port.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) bytes: DuplexStream,
    pub(super) names: watch::Receiver<VmwareNames>,
}

impl Concentrator {
    pub(super) fn new(listener: TcpListener) -> Concentrator {
        let at = listener.local_addr().ok();
        let (sender, pipes) = mpsc::channel(1);
        // by itself: a VM that moves must not wait until somebody asks for the next pipe
        let accepting = tokio::spawn(accept(listener, sender));
        Concentrator { at, pipes, accepting }
    }

    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.at
    }

    /// The next VM's port. It may be dropped while it waits.
    pub(super) async fn accept(&mut self) -> io::Result<Port> {
        self.pipes.recv().await.unwrap_or_else(|| Err(io::Error::other("it accepts no more")))
    }
}

impl Drop for Concentrator {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, pipes: mpsc::Sender<io::Result<Port>>) {
    let (moves, places) = (Arc::new(Moves::default()), Arc::new(Semaphore::new(PLACES)));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let accepted = listener.accept().await.and_then(|(stream, _)| super::prepare(&stream).map(|()| stream));
        match accepted {
            Ok(stream) => drop(tokio::spawn(greet(stream, place, moves.clone(), pipes.clone()))),
            // who takes pipes knows how long to wait before the next one
            Err(error) => {
                if pipes.send(Err(error)).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// A VM that moves here goes on where it was; any other has a pipe of its own.
async fn greet(
    stream: TcpStream,
    place: OwnedSemaphorePermit,
    moves: Arc<Moves>,
    pipes: mpsc::Sender<io::Result<Port>>,
) {
    let mut line = Line::new(stream, place);
    let mut events = Vec::new();
    if moves.are_pending() {
        let introduction = async {
            // a VM that speaks was not moved: it does not run before the move is complete
            while line.data.is_empty() && !line.ended {
                for event in line.turn(true).await {
                    match event {
                        Event::Peer(key) => return Some(key),
                        event => events.push(event),
                    }
                }
            }
            None
        };
        if let Some(key) = timeout(INTRODUCTION, introduction).await.ok().flatten() {
            // who has a wrong key is closed
            moves.arrive(&key, line);
            return;
        }
    }
    let (near, far) = tokio::io::duplex(ON_THE_WAY);
    let (names, watched) = watch::channel(line.session.names.clone());
    if pipes.send(Ok(Port { bytes: near, names: watched })).await.is_ok() {
        carrier::carry(line, events, far, moves, names).await;
    }
}

#[cfg(test)]
mod tests;
