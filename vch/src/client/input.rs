//! Our standard input on its way to a session: what the guest has not yet said to have is kept, so that it can be sent again.

use tokio::sync::mpsc;

use crate::control::{Frame, MAX_STDIN};
use crate::detach::{self, Watch};
use crate::streams::{self, Source};

/// Opens the source when the session has begun: before that, keys are the shell's.
pub(super) type Open = Box<dyn FnOnce() -> Source + Send>;

#[derive(Default)]
pub(super) struct Input {
    open: Option<Open>,
    chunks: Option<mpsc::Receiver<Vec<u8>>>,
    watch: Option<Watch>,
    /// Sent, or to be sent, and not known to be there; at most [`MAX_STDIN`].
    kept: Vec<u8>,
    /// The offset of the first byte of `kept`.
    first: u64,
    ended: bool,
}

/// What a chunk of input came to.
pub(super) enum Progress {
    Goes,
    /// The detach keys were pressed.
    Detach,
}

impl Input {
    pub(super) fn new(open: Option<Open>) -> Input {
        Input { open, ..Input::default() }
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.open.is_some() || self.chunks.is_some()
    }

    /// The session has begun, and has input up to `offset`.
    pub(super) fn begin(&mut self, offset: u64, watch: Option<Watch>) {
        self.first = offset;
        self.watch = watch;
        self.chunks = self.open.take().map(|open| streams::read(open()));
    }

    /// A new connection: the guest has input up to `offset`; what it lacks is sent again.
    pub(super) fn resume(&mut self, offset: u64, out: &mut Vec<u8>) -> Result<(), u64> {
        if offset < self.first {
            return Err(self.first - offset);
        }
        self.taken(offset);
        send(&self.kept, out);
        if self.ended {
            Frame::StdinEnds.encode(out);
        }
        Ok(())
    }

    /// The guest has input up to `offset`.
    pub(super) fn taken(&mut self, offset: u64) {
        let there = offset.saturating_sub(self.first);
        // no more than is kept, which is in memory
        let count = usize::try_from(there).unwrap_or(usize::MAX).min(self.kept.len());
        self.kept.drain(..count);
        self.first = self.first.max(offset);
    }

    /// Nothing is under way.
    pub(super) fn is_delivered(&self) -> bool {
        self.kept.is_empty()
    }

    /// The next chunk; for ever while there is none, or no room for it.
    pub(super) async fn chunk(&mut self) -> Option<Vec<u8>> {
        match &mut self.chunks {
            Some(chunks) if self.kept.len() + streams::CHUNK <= MAX_STDIN => chunks.recv().await,
            _ => std::future::pending().await,
        }
    }

    /// Sends a chunk, or the end.
    pub(super) fn send(&mut self, chunk: Option<Vec<u8>>, out: &mut Vec<u8>) -> Progress {
        let (bytes, detach) = match (&mut self.watch, &chunk) {
            (Some(watch), Some(chunk)) => match watch.feed(chunk) {
                detach::Input::Pass(bytes) => (bytes, false),
                detach::Input::Detach(bytes) => (bytes, true),
            },
            (Some(watch), None) => (watch.end(), false),
            (None, chunk) => (chunk.clone().unwrap_or_default(), false),
        };
        send(&bytes, out);
        self.kept.extend_from_slice(&bytes);
        if chunk.is_none() {
            self.chunks = None;
            self.ended = true;
            Frame::StdinEnds.encode(out);
        }
        if detach { Progress::Detach } else { Progress::Goes }
    }
}

fn send(bytes: &[u8], out: &mut Vec<u8>) {
    for piece in bytes.chunks(PIECE) {
        Frame::Stdin(piece.to_vec()).encode(out);
    }
}

/// Small enough for acknowledgements to come in between.
const PIECE: usize = 32 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Decoder;

    fn frames(out: &mut Vec<u8>) -> Vec<Frame> {
        let mut decoder = Decoder::default();
        decoder.feed(out);
        out.clear();
        std::iter::from_fn(|| decoder.next_frame().unwrap()).collect()
    }

    #[tokio::test]
    async fn what_the_guest_lacks_is_sent_again() {
        let open: Open = Box::new(|| Box::new(&b"0123456789"[..]));
        let (mut input, mut out) = (Input::new(Some(open)), Vec::new());
        input.begin(1000, None);
        let chunk = input.chunk().await;
        input.send(chunk, &mut out);
        assert_eq!(frames(&mut out), [Frame::Stdin(b"0123456789".to_vec())]);
        input.taken(1003);
        assert_eq!(input.resume(1005, &mut out), Ok(()));
        assert_eq!(frames(&mut out), [Frame::Stdin(b"56789".to_vec())]);
        let end = input.chunk().await;
        assert_eq!(end, None);
        input.send(end, &mut out);
        assert_eq!(frames(&mut out), [Frame::StdinEnds]);
        assert_eq!(input.resume(1007, &mut out), Ok(()));
        assert_eq!(frames(&mut out), [Frame::Stdin(b"789".to_vec()), Frame::StdinEnds]);
        assert_eq!(input.resume(1006, &mut out), Err(1));
        input.taken(1010);
        assert!(input.is_delivered() && !input.is_wanted());
    }

    #[tokio::test]
    async fn no_more_is_kept_than_is_allowed() {
        let open: Open = Box::new(|| Box::new(std::io::repeat(b'x')));
        let (mut input, mut out) = (Input::new(Some(open)), Vec::new());
        input.begin(0, None);
        while input.kept.len() + streams::CHUNK <= MAX_STDIN {
            let chunk = input.chunk().await;
            input.send(chunk, &mut out);
        }
        assert!(input.kept.len() <= MAX_STDIN);
        tokio::select! {
            biased;
            _ = input.chunk() => panic!("there is no room for it"),
            () = std::future::ready(()) => {}
        }
        input.taken(MAX_STDIN as u64 / 2);
        assert!(input.chunk().await.is_some());
    }
}
