//! vch's own standard streams, each on a thread of its own: they may be anything (a file, a pipe, a terminal), and may block for ever.
//!
//! A thread holds one chunk at a time. That is the whole of the buffering here: the rest of what is under way is bounded by the link's windows.

use std::io::{self, ErrorKind, Read, Write};
use std::thread;
use std::time::Duration;

use tokio::sync::mpsc;

/// Where the guest's input comes from.
pub type Source = Box<dyn Read + Send>;
/// Where the guest's output goes.
pub type Sink = Box<dyn Write + Send>;

/// Reads a source; a chunk follows when the one before was taken. The channel's end is the end of the source.
pub fn read(mut source: Source) -> mpsc::Receiver<Vec<u8>> {
    let (sender, chunks) = mpsc::channel(1);
    thread::spawn(move || {
        let mut buffer = vec![0; CHUNK];
        loop {
            match source.read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => {
                    if sender.blocking_send(buffer[..count].to_vec()).is_err() {
                        return;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(RECHECK),
                // as a terminal that hangs up
                Err(_) => return,
            }
        }
    });
    chunks
}

/// One output stream.
#[derive(Debug)]
pub struct Writer {
    chunks: mpsc::Sender<Vec<u8>>,
    results: mpsc::Receiver<io::Result<usize>>,
    busy: bool,
}

impl Writer {
    pub fn new(mut sink: Sink) -> Writer {
        let (chunks, mut todo) = mpsc::channel::<Vec<u8>>(1);
        let (sender, results) = mpsc::channel(1);
        thread::spawn(move || {
            while let Some(chunk) = todo.blocking_recv() {
                let result = write(&mut sink, &chunk).map(|()| chunk.len());
                let failed = result.is_err();
                if sender.blocking_send(result).is_err() || failed {
                    return;
                }
            }
        });
        Writer { chunks, results, busy: false }
    }

    /// A chunk is being written.
    pub fn is_busy(&self) -> bool {
        self.busy
    }

    /// Writes `chunk`; only while not busy.
    pub fn start(&mut self, chunk: Vec<u8>) {
        self.busy = self.chunks.try_send(chunk).is_ok();
    }

    /// Waits until the chunk under way is written, and tells its length; for ever when there is none.
    pub async fn done(&mut self) -> io::Result<usize> {
        if !self.busy {
            return std::future::pending().await;
        }
        let result = self.results.recv().await;
        self.busy = false;
        result.unwrap_or_else(|| Err(ErrorKind::BrokenPipe.into()))
    }
}

/// All of it, also when another process has made the stream non-blocking.
fn write(sink: &mut Sink, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match sink.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(RECHECK),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// When to look again at a stream that somebody else has made non-blocking.
const RECHECK: Duration = Duration::from_millis(5);
/// Large enough to make the cost of a system call small, small enough to show progress.
pub const CHUNK: usize = 256 * 1024;
