//! Bytes on their way from a thread that makes them to one that takes them: in chunks, of which a few may wait, and which are used again.
//!
//! It decides how much waits. What the bytes are, and why they end, is between the two threads.

use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

/// The end of the thread that makes bytes.
#[derive(Debug)]
pub(crate) struct Feed {
    chunks: SyncSender<Vec<u8>>,
    used: Receiver<Vec<u8>>,
}

/// The end of the thread that takes them.
#[derive(Debug)]
pub(crate) struct Ahead {
    chunks: Receiver<Vec<u8>>,
    used: Sender<Vec<u8>>,
    chunk: Vec<u8>,
    at: usize,
}

/// Both ends. Dropping the feed ends the bytes.
pub(crate) fn ahead() -> (Feed, Ahead) {
    let (feed, chunks) = sync_channel(CHUNKS);
    let (give_back, used) = channel();
    (Feed { chunks: feed, used }, Ahead { chunks, used: give_back, chunk: Vec::new(), at: 0 })
}

impl Feed {
    /// A buffer to fill.
    pub(crate) fn buffer(&self) -> Vec<u8> {
        let mut chunk = self.used.try_recv().unwrap_or_default();
        chunk.resize(CHUNK, 0);
        chunk
    }

    /// Hands bytes over, and waits while too many are there already; whether somebody takes them.
    pub(crate) fn send(&self, chunk: Vec<u8>) -> bool {
        self.chunks.send(chunk).is_ok()
    }
}

impl Ahead {
    /// What comes next: some bytes, or none at the end.
    pub(crate) fn peek(&mut self) -> &[u8] {
        self.peek_at(|_| {})
    }

    /// As `peek`; `arrived` is shown each chunk once.
    pub(crate) fn peek_at(&mut self, arrived: impl FnOnce(&[u8])) -> &[u8] {
        if self.at == self.chunk.len() {
            self.at = 0;
            let next = self.chunks.recv().unwrap_or_default();
            arrived(&next);
            // at the end, nobody takes it
            self.used.send(std::mem::replace(&mut self.chunk, next)).ok();
        }
        &self.chunk[self.at..]
    }

    /// Passes over bytes that were peeked at.
    pub(crate) fn take(&mut self, len: usize) {
        self.at += len;
    }
}

/// Bytes handed over at once, and how many such may wait: enough to even out what takes longer at one end.
const CHUNK: usize = 256 << 10;
const CHUNKS: usize = 8;
