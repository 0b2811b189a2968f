//! One output stream of a session on its way to ours: what has come, and what is written out.
//!
//! It decides what serve is told to be taken: only what is written.

use std::io;

use crate::control::{Frame, Stream};
use crate::streams::{Sink, Writer};

pub(super) struct Output {
    stream: Stream,
    writer: Writer,
    /// What has come and is not yet with the writer. The link's window bounds it.
    pending: Vec<u8>,
    /// Bytes that the writer has and has not written out.
    under_way: usize,
    /// The offset of the first byte that is not written out.
    written: u64,
    /// Nobody reads it on our side.
    given_up: bool,
}

impl Output {
    pub(super) fn new(stream: Stream, sink: Sink) -> Output {
        Output { stream, writer: Writer::new(sink), pending: Vec::new(), under_way: 0, written: 0, given_up: false }
    }

    /// The stream begins here.
    pub(super) fn begin(&mut self, offset: u64) {
        self.written = offset;
    }

    /// The offset of the next byte that is to come.
    pub(super) fn next(&self) -> u64 {
        self.written + (self.under_way + self.pending.len()) as u64
    }

    pub(super) fn stream(&self) -> Stream {
        self.stream
    }

    pub(super) fn is_given_up(&self) -> bool {
        self.given_up
    }

    /// Takes a piece. What is here already is not taken twice; when something is missing before it, it tells how much.
    pub(super) fn receive(&mut self, offset: u64, bytes: &[u8]) -> Result<(), u64> {
        let next = self.next();
        if offset > next {
            return Err(offset - next);
        }
        // a piece is in memory
        let known = usize::try_from(next - offset).unwrap_or(usize::MAX).min(bytes.len());
        if self.given_up {
            self.written += (bytes.len() - known) as u64;
        } else {
            self.pending.extend_from_slice(&bytes[known..]);
            self.pump();
        }
        Ok(())
    }

    /// Waits until a piece is written out, or cannot be; tells what serve has to hear.
    pub(super) async fn written(&mut self) -> io::Result<Frame> {
        match self.writer.done().await {
            Ok(count) => {
                self.under_way = 0;
                self.written += count as u64;
                self.pump();
                Ok(Frame::Taken { stream: self.stream, offset: self.written })
            }
            Err(error) => {
                self.written = self.next();
                self.under_way = 0;
                self.pending.clear();
                self.given_up = true;
                match error.kind() {
                    io::ErrorKind::BrokenPipe => Ok(Frame::GiveUp(self.stream)),
                    _ => Err(error),
                }
            }
        }
    }

    pub(super) fn is_written_out(&self) -> bool {
        self.under_way == 0 && self.pending.is_empty()
    }

    fn pump(&mut self) {
        if !self.writer.is_busy() && !self.pending.is_empty() {
            self.under_way = self.pending.len();
            self.writer.start(std::mem::take(&mut self.pending));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    /// A file in memory.
    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn nothing_is_written_twice_and_only_what_is_written_is_taken() {
        let memory = Memory::default();
        let mut output = Output::new(Stream::Stdout, Box::new(memory.clone()));
        output.begin(100);
        assert_eq!(output.receive(100, b"abc"), Ok(()));
        // as after a serve that has died
        assert_eq!(output.receive(101, b"bcde"), Ok(()));
        assert_eq!(output.receive(100, b"ab"), Ok(()));
        assert_eq!(output.receive(107, b"x"), Err(2));
        let mut taken = Vec::new();
        while !output.is_written_out() {
            taken.push(output.written().await.unwrap());
        }
        assert_eq!(taken.last(), Some(&Frame::Taken { stream: Stream::Stdout, offset: 105 }));
        assert_eq!((memory.0.lock().unwrap().as_slice(), output.next()), (&b"abcde"[..], 105));
    }

    #[tokio::test]
    async fn what_nobody_reads_is_given_up_once() {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut output = Output::new(Stream::Stderr, Box::new(writer));
        output.receive(0, b"abc").unwrap();
        assert_eq!(output.written().await.unwrap(), Frame::GiveUp(Stream::Stderr));
        output.receive(3, b"def").unwrap();
        assert!(output.is_written_out() && output.is_given_up());
        assert_eq!(output.next(), 6);
    }
}
