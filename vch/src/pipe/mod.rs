//! The host's end of the pipe under a link: it listens at an [`Address`], and gives one [`Pipe`] after the other.
//!
//! ```text
//! unix://PATH                    QEMU, or vhost-device-vsock, connects
//! tcp://ADDRESS:PORT             ESXi connects its VMs' serial ports
//! vspc://ADDRESS[:PORT]          the same by telnet with VMware's extension: the pipe stays when the VM moves to another host
//! serial://DEVICE[?speed=BAUD]   a line or pseudo-terminal: nobody connects, it is there, and is opened anew when it was lost
//! vsock://[CID:]PORT             guests of this host's kernel connect
//! ```
//!
//! Which VM speaks on a pipe, and what, is the link's business: see [`wire::link`].

use std::fs;
use std::io;
use std::net::TcpListener as StdTcpListener;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;
use vsock::{VMADDR_CID_ANY, VsockListener, VsockStream};

pub use self::address::{Address, AddressError};
use self::descriptor::Half;
use self::serial::{Line, Serial};
use self::vspc::Concentrator;

mod address;
mod awaited;
mod descriptor;
mod serial;
mod vspc;

pub use self::awaited::awaited;
pub use self::vspc::VmwareNames;

/// The half of a pipe that is read.
pub type Reader = Box<dyn AsyncRead + Send + Unpin>;
/// The half of a pipe that is written.
pub type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// Why an address cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PipeError {
    #[error("cannot listen at {address}: {source}; {way_out}")]
    Listen { address: Address, source: io::Error, way_out: &'static str },
    #[error("cannot open {address}: {source}; {way_out}")]
    Open { address: Address, source: io::Error, way_out: &'static str },
}

/// Where pipes come from. It has to be made, and used, within tokio.
#[derive(Debug)]
pub struct Listener(Kind);

#[derive(Debug)]
enum Kind {
    Unix { listener: UnixListener, _path: SocketPath },
    Tcp(TcpListener),
    Serial(Serial),
    Vsock(AsyncFd<VsockListener>),
    Vspc(Concentrator),
}

/// One connection, or one opening of a device.
#[derive(Debug)]
pub struct Pipe(Stream);

#[derive(Debug)]
enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
    Serial(Arc<AsyncFd<Line>>),
    Vsock(Arc<AsyncFd<VsockStream>>),
    Vspc(vspc::Port),
}

impl Listener {
    /// Listens there, or opens the device that is there.
    pub fn bind(address: &Address) -> Result<Listener, PipeError> {
        let kind = match address {
            Address::Unix(path) => unix_listener(path).map(|(listener, path)| Kind::Unix { listener, _path: path }),
            Address::Tcp(at) => listen_tcp(at).map(Kind::Tcp),
            Address::Vspc(at) => listen_tcp(at).map(|listener| Kind::Vspc(Concentrator::new(listener))),
            Address::Serial { device, speed } => Serial::open(device, *speed).map(Kind::Serial),
            Address::Vsock { cid, port } => listen_vsock(cid.unwrap_or(VMADDR_CID_ANY), *port).map(Kind::Vsock),
        };
        kind.map(Listener).map_err(|source| {
            let (address, way_out) = (address.clone(), way_out(address, &source));
            match address {
                Address::Serial { .. } => PipeError::Open { address, source, way_out },
                _ => PipeError::Listen { address, source, way_out },
            }
        })
    }

    /// The next pipe. It may be dropped while it waits. A device gives its next pipe when the one before is lost or dropped.
    pub async fn accept(&mut self) -> io::Result<Pipe> {
        let stream = match &mut self.0 {
            Kind::Unix { listener, .. } => Stream::Unix(listener.accept().await?.0),
            Kind::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                prepare(&stream)?;
                Stream::Tcp(stream)
            }
            Kind::Serial(serial) => Stream::Serial(serial.next().await),
            Kind::Vspc(concentrator) => Stream::Vspc(concentrator.accept().await?),
            Kind::Vsock(listener) => {
                let (stream, _) = loop {
                    let mut ready = listener.readable().await?;
                    if let Ok(accepted) = ready.try_io(|listener| listener.get_ref().accept()) {
                        break accepted?;
                    }
                };
                stream.set_nonblocking(true)?;
                Stream::Vsock(Arc::new(descriptor::watch(stream)?))
            }
        };
        Ok(Pipe(stream))
    }

    /// The address that it was bound at, with the port that it was given.
    pub fn shown(&self, address: &Address) -> Address {
        match (address, self.tcp_address()) {
            (Address::Tcp(_), Some(at)) => Address::Tcp(at.to_string()),
            (Address::Vspc(_), Some(at)) => Address::Vspc(at.to_string()),
            (address, _) => address.clone(),
        }
    }

    /// Where it listens by TCP: the port that it was given if it asked for port 0.
    pub fn tcp_address(&self) -> Option<std::net::SocketAddr> {
        match &self.0 {
            Kind::Tcp(listener) => listener.local_addr().ok(),
            Kind::Vspc(concentrator) => concentrator.address(),
            Kind::Unix { .. } | Kind::Serial(_) | Kind::Vsock(_) => None,
        }
    }
}

impl Pipe {
    /// The two halves. The pipe is closed when both are dropped.
    pub fn split(self) -> (Reader, Writer) {
        match self.0 {
            Stream::Unix(stream) => halves(stream.into_split()),
            Stream::Tcp(stream) => halves(stream.into_split()),
            Stream::Serial(line) => halves((Half(line.clone()), Half(line))),
            Stream::Vsock(stream) => halves((Half(stream.clone()), Half(stream))),
            Stream::Vspc(port) => halves(tokio::io::split(port.bytes)),
        }
    }

    /// What vSphere calls the VM at the other end, as it is told, where its host speaks of it.
    pub fn vmware_names(&self) -> Option<watch::Receiver<VmwareNames>> {
        match &self.0 {
            Stream::Vspc(port) => Some(port.names.clone()),
            _ => None,
        }
    }

    /// The vsock address of the VM at the other end, where there is one.
    pub fn peer_cid(&self) -> Option<u32> {
        match &self.0 {
            Stream::Vsock(stream) => stream.get_ref().peer_addr().ok().map(|address| address.cid()),
            _ => None,
        }
    }
}

fn halves<R, W>((reader, writer): (R, W)) -> (Reader, Writer)
where
    R: AsyncRead + Send + Unpin + 'static,
    W: AsyncWrite + Send + Unpin + 'static,
{
    (Box::new(reader), Box::new(writer))
}

/// The file of a socket; it goes with its listener.
#[derive(Debug)]
pub(crate) struct SocketPath(std::path::PathBuf);

impl Drop for SocketPath {
    fn drop(&mut self) {
        // one that is gone already is no loss
        fs::remove_file(&self.0).ok();
    }
}

/// Listens at a path that only its owner may connect to.
pub(crate) fn unix_listener(path: &Path) -> io::Result<(UnixListener, SocketPath)> {
    let listener = StdUnixListener::bind(path).or_else(|error| match error.kind() {
        // what a host that was killed has left is in nobody's way; a socket that somebody answers at is
        io::ErrorKind::AddrInUse if is_left_over(path) => {
            fs::remove_file(path)?;
            StdUnixListener::bind(path)
        }
        _ => Err(error),
    })?;
    let own = SocketPath(path.to_owned());
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok((UnixListener::from_std(listener)?, own))
}

fn is_left_over(path: &Path) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    is_socket && StdUnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

fn listen_tcp(at: &str) -> io::Result<TcpListener> {
    let listener = StdTcpListener::bind(at)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Keys are small and wanted at once. A host that lost its power says nothing: it is asked from time to time.
pub(crate) fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(stream, KEEPALIVE_COUNT)?;
    Ok(())
}

fn listen_vsock(cid: u32, port: u32) -> io::Result<AsyncFd<VsockListener>> {
    let listener = VsockListener::bind_with_cid_port(cid, port)?;
    listener.set_nonblocking(true)?;
    descriptor::watch(listener)
}

/// What the user can do about it.
fn way_out(address: &Address, error: &io::Error) -> &'static str {
    use io::ErrorKind::{AddrInUse, AddrNotAvailable, NotFound, PermissionDenied};
    match (address, error.kind()) {
        (Address::Unix(_), AddrInUse) => "another program listens there: stop it, or give another path",
        (Address::Unix(_), NotFound) => "its directory does not exist: make it",
        (Address::Unix(_), PermissionDenied) => "give a path in a directory that you may write to",
        (Address::Unix(_), _) => "give a path of at most 107 bytes on a file system that has sockets",
        (Address::Tcp(_) | Address::Vspc(_), AddrInUse) => {
            "another program listens there: stop it, or give another port"
        }
        (Address::Tcp(_) | Address::Vspc(_), PermissionDenied) => "give a port from 1024 up, or run as root",
        (Address::Tcp(_) | Address::Vspc(_), AddrNotAvailable) => {
            "give an address of this host, or 0.0.0.0 for all of them"
        }
        (Address::Tcp(_), _) => "give an address of this host and a port, as in tcp://0.0.0.0:8080",
        (Address::Vspc(_), _) => "give an address of this host and a port, as in vspc://0.0.0.0:2377",
        (Address::Serial { .. }, NotFound) => "give the device as in serial:///dev/ttyUSB0",
        (Address::Serial { .. }, PermissionDenied) => "you may not use it: join the group that owns it, often dialout",
        (Address::Serial { .. }, _) => "give a serial device that nobody else uses, and a speed that it can do",
        (Address::Vsock { .. }, AddrInUse) => "another program listens there: stop it, or give another port",
        (Address::Vsock { .. }, AddrNotAvailable) => "leave the CID out to listen at all that this host has",
        (Address::Vsock { .. }, _) => "load the kernel's module vhost_vsock (modprobe vhost_vsock)",
    }
}

const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_COUNT: u32 = 3;

#[cfg(test)]
mod tests;
