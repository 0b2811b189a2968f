//! RPCI over vsock: a connection to VMX itself, from a port that only root can have, which is what VMX takes for privilege.
//!
//! It is made when it is needed, and once more for each exchange if VMX has closed it. Nothing waits longer than [`CONNECT`] and [`ANSWER`].
//! Source: open-vm-tools, lib/asyncsocket/vmci (ports), lib/rpcChannel/vsockChannel.c.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, VsockAddr, sockopt};

use super::{Exchange, MOST_RECEIVED, RpcError, datamap};
use crate::clock;

/// VMX's port for RPCI, at the hypervisor's CID.
const PORT: u32 = 976;
/// How long VMX may take to accept, and to answer.
const CONNECT: Duration = Duration::from_secs(2);
const ANSWER: Duration = Duration::from_secs(2);
/// The highest of the ports that need `CAP_NET_BIND_SERVICE`.
const PRIVILEGED: u32 = 1023;
/// So often VMX may reset a new connection: it remembers those of a moment ago.
const RESETS: usize = 8;

/// RPCI over vsock.
#[derive(Debug, Default)]
pub(super) struct Vsock(Option<Connection>);

impl Exchange for Vsock {
    fn connect(&mut self) -> Result<(), RpcError> {
        if self.0.is_none() {
            self.0 = Some(Connection(connect().map_err(lost)?));
        }
        Ok(())
    }

    fn exchange(&mut self, request: &[u8]) -> Result<Vec<u8>, RpcError> {
        let is_old = self.0.is_some();
        match self.attempt(request) {
            Err(RpcError::Lost(_)) if is_old => self.attempt(request),
            other => other,
        }
    }

    /// VMX answers here while the machine runs on, for as long as it pleases.
    fn exchange_once(&mut self, _request: &[u8]) -> Option<Result<Vec<u8>, RpcError>> {
        None
    }

    fn forget(&mut self) {
        self.0 = None;
    }
}

impl Vsock {
    fn attempt(&mut self, request: &[u8]) -> Result<Vec<u8>, RpcError> {
        self.connect()?;
        let Some(connection) = &mut self.0 else { return Err(RpcError::Open) };
        // a reply that comes late would be taken for the next one
        connection.exchange(request, ANSWER).inspect_err(|_| self.0 = None)
    }
}

#[cfg(test)]
impl Vsock {
    /// Over a connection that is there.
    pub(super) fn over(socket: File) -> Vsock {
        Vsock(Some(Connection(socket)))
    }
}

/// A socket that does not block.
#[derive(Debug)]
struct Connection(File);

impl Connection {
    fn exchange(&mut self, request: &[u8], bound: Duration) -> Result<Vec<u8>, RpcError> {
        let deadline = clock::now() + bound;
        let frame = datamap::encode(request);
        let mut left = &frame[..];
        while !left.is_empty() {
            let count = self.when(PollFlags::POLLOUT, deadline, |mut file| file.write(left))?;
            left = &left[count..];
        }
        let mut length = [0; 4];
        self.fill(&mut length, deadline)?;
        let length = u32::from_be_bytes(length) as usize;
        if length > MOST_RECEIVED + datamap::OVERHEAD {
            return Err(RpcError::TooLarge(length));
        }
        let mut frame = vec![0; length];
        self.fill(&mut frame, deadline)?;
        datamap::decode(&frame).map(<[u8]>::to_vec).map_err(RpcError::Protocol)
    }

    fn fill(&self, buffer: &mut [u8], deadline: Duration) -> Result<(), RpcError> {
        let mut filled = 0;
        while filled < buffer.len() {
            filled += self.when(PollFlags::POLLIN, deadline, |mut file| file.read(&mut buffer[filled..]))?;
        }
        Ok(())
    }

    /// Does something once it does not block. Nothing done is an end of file.
    fn when(
        &self,
        ready: PollFlags,
        deadline: Duration,
        mut act: impl FnMut(&File) -> io::Result<usize>,
    ) -> Result<usize, RpcError> {
        loop {
            match act(&self.0) {
                Ok(0) => return Err(RpcError::Lost(io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => return Ok(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    wait(&self.0, ready, deadline).map_err(lost)?;
                }
                Err(error) => return Err(RpcError::Lost(error)),
            }
        }
    }
}

fn lost(errno: Errno) -> RpcError {
    if errno == Errno::ETIMEDOUT { RpcError::Silent } else { RpcError::Lost(errno.into()) }
}

fn wait(file: &File, ready: PollFlags, deadline: Duration) -> nix::Result<()> {
    let left = deadline.saturating_sub(clock::now());
    match poll(&mut [PollFd::new(file.as_fd(), ready)], PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
        Ok(0) => Err(Errno::ETIMEDOUT),
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// A connection, privileged if this process may bind such a port.
fn connect() -> nix::Result<File> {
    let deadline = clock::now() + CONNECT;
    let (mut port, mut resets) = (PRIVILEGED, 0);
    loop {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = File::from(socket::socket(AddressFamily::Vsock, SockType::Stream, flags, None)?);
        let source = VsockAddr::new(libc::VMADDR_CID_ANY, port);
        match socket::bind(socket.as_raw_fd(), &source).and_then(|()| reach(&socket, deadline)) {
            Ok(()) => return Ok(socket),
            // not root's: any port will do
            Err(Errno::EACCES) if port <= PRIVILEGED => port = libc::VMADDR_PORT_ANY,
            Err(Errno::EADDRINUSE) if (2..=PRIVILEGED).contains(&port) => port -= 1,
            Err(Errno::ECONNRESET) if resets < RESETS => {
                resets += 1;
                port = if port <= PRIVILEGED { port - 1 } else { port };
            }
            Err(errno) => return Err(errno),
        }
    }
}

fn reach(socket: &File, deadline: Duration) -> nix::Result<()> {
    match socket::connect(socket.as_raw_fd(), &VsockAddr::new(libc::VMADDR_CID_HYPERVISOR, PORT)) {
        Err(Errno::EINPROGRESS) => {}
        done => return done,
    }
    wait(socket, PollFlags::POLLOUT, deadline)?;
    match socket::getsockopt(socket, sockopt::SocketError)? {
        0 => Ok(()),
        errno => Err(Errno::from_raw(errno)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    /// A VMX that has said something already, and hears whatever comes.
    fn connected(said: &[u8]) -> (Connection, UnixStream) {
        let (near, mut far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        far.write_all(said).unwrap();
        (Connection(OwnedFd::from(near).into()), far)
    }

    #[test]
    fn a_reply_is_the_frame_s_and_the_connection_stays() {
        let replies = [datamap::encode(b"1 one"), datamap::encode(b"0 two")].concat();
        let (mut connection, mut far) = connected(&replies);
        assert_eq!(connection.exchange(b"first", ANSWER).unwrap(), b"1 one");
        assert_eq!(connection.exchange(b"second", ANSWER).unwrap(), b"0 two");
        drop(connection);
        let mut heard = Vec::new();
        far.read_to_end(&mut heard).unwrap();
        assert_eq!(heard, [datamap::encode(b"first"), datamap::encode(b"second")].concat());
    }

    #[test]
    fn a_host_that_answers_nothing_is_waited_for_and_no_longer() {
        for said in [&b""[..], &[0, 0], &[0, 0, 0, 9, 1, 2]] {
            let (mut connection, _far) = connected(said);
            assert!(matches!(connection.exchange(b"ping", Duration::ZERO), Err(RpcError::Silent)));
        }
    }

    #[test]
    fn a_connection_that_ends_is_lost() {
        for said in [&b""[..], &[0, 0], &[0, 0, 0, 9, 1, 2]] {
            let (mut connection, far) = connected(said);
            far.shutdown(std::net::Shutdown::Write).unwrap();
            assert!(matches!(connection.exchange(b"ping", ANSWER), Err(RpcError::Lost(_))));
        }
    }

    #[test]
    fn a_frame_s_length_is_not_believed() {
        for length in [u32::MAX, u32::try_from(MOST_RECEIVED + datamap::OVERHEAD + 1).unwrap()] {
            let (mut connection, _far) = connected(&length.to_be_bytes());
            assert!(matches!(connection.exchange(b"ping", ANSWER), Err(RpcError::TooLarge(_))));
        }
        let (mut connection, _far) = connected(&[0, 0, 0, 4, 0, 0, 0, 7]);
        assert!(matches!(connection.exchange(b"ping", ANSWER), Err(RpcError::Protocol(_))));
    }
}
