//! One TCP connection of an ESXi host: its bytes, and the telnet session on them.

use std::future::pending;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::OwnedSemaphorePermit;

use super::extension::Say;
use super::session::{Event, Session};

/// A connection, with what came and has not gone on.
#[derive(Debug)]
pub(super) struct Line {
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
    pub(super) session: Session,
    /// Data of the VM's.
    pub(super) data: Vec<u8>,
    /// The host has closed it.
    pub(super) ended: bool,
    buffer: Box<[u8]>,
    _place: OwnedSemaphorePermit,
}

/// How much is kept in each direction before no more is taken.
pub(super) const MOST: usize = 64 * 1024;
const READ_AT_ONCE: usize = 16 * 1024;

impl Line {
    pub(super) fn new(stream: TcpStream, place: OwnedSemaphorePermit) -> Line {
        let (reader, writer) = stream.into_split();
        let buffer = vec![0; READ_AT_ONCE].into_boxed_slice();
        Line { reader, writer, session: Session::new(), data: Vec::new(), ended: false, buffer, _place: place }
    }

    /// Reads, if the caller takes more, or writes, once; it may be dropped while it waits. A peer that does not read what is said to it is not read either.
    pub(super) async fn turn(&mut self, takes: bool) -> Vec<Event> {
        let reads = takes && !self.ended && self.data.len() < MOST && self.session.out.len() < MOST;
        let writes = !self.ended && !self.session.out.is_empty();
        if !reads && !writes {
            return pending().await;
        }
        tokio::select! {
            read = self.reader.read(&mut self.buffer), if reads => match read {
                Ok(count @ 1..) => return self.session.feed(&self.buffer[..count], &mut self.data),
                Ok(_) | Err(_) => self.ended = true,
            },
            written = self.writer.write(&self.session.out), if writes => match written {
                Ok(count) => drop(self.session.out.drain(..count)),
                Err(_) => self.ended = true,
            },
        }
        Vec::new()
    }

    /// There is room for data to the VM.
    pub(super) fn has_room(&self) -> bool {
        self.session.out.len() < MOST
    }

    /// Says that the VM is known to come here.
    pub(super) fn welcome(&mut self, key: &[u8]) {
        self.session.say(Say::PeerOk(key));
    }
}
