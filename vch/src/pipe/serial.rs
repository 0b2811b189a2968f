//! A serial line or pseudo-terminal as a pipe. Nobody connects to it: it is opened, and opened anew when it was lost.
//!
//! The crate `serialport` makes the settings and keeps others out. It reads and writes with a descriptor that blocks, so bytes go through one of our own.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::OFlags;
use serialport::{FlowControl, SerialPort as _, TTYPort};
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::descriptor::watch;

/// A device that gives one line after the other.
#[derive(Debug)]
pub(super) struct Serial {
    device: PathBuf,
    speed: u32,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Opened, and not yet given away.
    Ready(Arc<AsyncFd<Line>>),
    /// Given away; told when it is lost or dropped.
    Given(oneshot::Receiver<()>),
    /// To be opened after this pause.
    Lost(Duration),
}

/// The device, open. Non-blocking.
#[derive(Debug)]
pub(super) struct Line {
    bytes: File,
    /// Holds the device for us alone.
    _settings: Mutex<TTYPort>,
    /// Dropped when the line is lost.
    lost: Mutex<Option<oneshot::Sender<()>>>,
}

impl Serial {
    pub(super) fn open(device: &Path, speed: u32) -> io::Result<Serial> {
        let line = Line::open(device, speed)?;
        Ok(Serial { device: device.to_owned(), speed, state: State::Ready(Arc::new(watch(line)?)) })
    }

    /// The line, once it is there and nobody else has it. Dropping this forgets nothing.
    pub(super) async fn next(&mut self) -> Arc<AsyncFd<Line>> {
        loop {
            match &mut self.state {
                State::Given(lost) => {
                    // either way it is over
                    lost.await.ok();
                    self.state = State::Lost(FIRST_PAUSE);
                }
                State::Lost(pause) => {
                    sleep(*pause).await;
                    let next = (2 * *pause).min(LONGEST_PAUSE);
                    let opened = Line::open(&self.device, self.speed).and_then(watch);
                    self.state = opened.map_or(State::Lost(next), |line| State::Ready(Arc::new(line)));
                }
                State::Ready(line) => {
                    let line = line.clone();
                    let (sender, receiver) = oneshot::channel();
                    *line.get_ref().lost.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
                    self.state = State::Given(receiver);
                    return line;
                }
            }
        }
    }
}

impl Line {
    fn open(device: &Path, speed: u32) -> io::Result<Line> {
        // Ours comes first: the other forbids every further one.
        let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
        let bytes = OpenOptions::new().read(true).write(true).custom_flags(flags).open(device)?;
        let path =
            device.to_str().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "its path is no UTF-8"))?;
        // the device is there, whatever the kind of the error says
        let opened = TTYPort::open(&serialport::new(path, speed));
        let mut settings = opened.map_err(|error| io::Error::other(error.description))?;
        // As tether does: heed the other end where it says that it is ready. A pseudo-terminal has no such line.
        if settings.read_clear_to_send().unwrap_or(false) {
            settings.set_flow_control(FlowControl::Hardware)?;
        }
        Ok(Line { bytes, _settings: Mutex::new(settings), lost: Mutex::new(None) })
    }

    /// Passes a result on; an end or error of the line is told to who waits for it.
    fn watched(&self, result: io::Result<usize>, wanted: usize) -> io::Result<usize> {
        let over = match &result {
            Ok(count) => *count == 0 && wanted > 0,
            Err(error) => !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted),
        };
        if over {
            drop(self.lost.lock().unwrap_or_else(PoisonError::into_inner).take());
        }
        result
    }
}

impl AsRawFd for Line {
    fn as_raw_fd(&self) -> RawFd {
        self.bytes.as_raw_fd()
    }
}

impl Read for &Line {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.watched((&self.bytes).read(buffer), buffer.len())
    }
}

impl Write for &Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.watched((&self.bytes).write(bytes), bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// As long as tether takes.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
