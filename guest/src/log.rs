//! The log's device: entries go in, and as many bytes go out as the device takes. It never blocks, and drops nothing.
//!
//! What an entry is: [`wire::log`]. What is logged, and what is done about a device that takes nothing: the caller's decision, by [`Log::room`].

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::libc;
use wire::log::{Entry, MAX_BYTES, Stream};
use wire::spec::{LOG_PORT, LogDevice, SPEED};

use crate::clock;
use crate::pipe::find_port;
use crate::sys::terminal;

/// An open log device.
#[derive(Debug)]
pub struct Log {
    file: File,
    /// Entries of which the device has taken the first `gone` bytes.
    outbox: Vec<u8>,
    gone: usize,
}

/// Why the log's device cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("no virtio-serial port for the log is named {LOG_PORT} (QEMU: -device virtserialport,name={LOG_PORT},...)")]
    NoPort,
    #[error("this machine has no serial port {SERIAL} for the log (QEMU: -device isa-serial,index=2,chardev=...)")]
    NoSerial,
    #[error("cannot open the log's device {path}")]
    Open { path: PathBuf, source: io::Error },
}

/// The third serial port.
const SERIAL: &str = "/dev/ttyS2";
/// The most bytes that wait for the device.
const OUTBOX: usize = 64 * 1024;
/// What an entry has besides its output, its frame's stuffing included: see [`wire::frame`].
const OVERHEAD: usize = 256;

impl Log {
    /// Opens the device that the spec names.
    pub fn open(device: LogDevice) -> Result<Log, LogError> {
        let file = match device {
            LogDevice::Serial => open_serial()?,
            LogDevice::Virtio => open_device(&find_port(LOG_PORT).ok_or(LogError::NoPort)?)?,
        };
        Ok(Log::on(file))
    }

    fn on(file: File) -> Log {
        Log { file, outbox: Vec::new(), gone: 0 }
    }

    /// How many bytes [`Log::write`] takes now. It is none while the device has much to take, so that entries do not become small.
    pub fn room(&self) -> usize {
        match OUTBOX - self.waiting() {
            free if free < OUTBOX / 2 => 0,
            free => (free - OVERHEAD).min(MAX_BYTES),
        }
    }

    /// Adds an entry of a member: see [`wire::log`]. It goes out with [`Log::transmit`].
    pub fn write(&mut self, member: u8, stream: Stream, bytes: &[u8]) {
        self.outbox.drain(..self.gone);
        self.gone = 0;
        Entry { stream, time_ns: clock::wall_nanos(), bytes }.encode_of(member, &mut self.outbox);
    }

    /// Sends until there is nothing to send, or the device takes no more: then an event will tell. An error is the device's end.
    pub fn transmit(&mut self) -> io::Result<()> {
        while self.waiting() > 0 {
            match self.file.write(&self.outbox[self.gone..]) {
                Ok(0) => break,
                Ok(count) => self.gone += count,
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Everything is on its way. A serial line takes bytes long before it sends them.
    pub fn is_flushed(&self) -> bool {
        self.waiting() == 0 && terminal::unsent(&self.file) == 0
    }

    fn waiting(&self) -> usize {
        self.outbox.len() - self.gone
    }
}

impl AsFd for Log {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn open_device(path: &Path) -> Result<File, LogError> {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let opened = OpenOptions::new().write(true).custom_flags(flags).open(path);
    opened.map_err(|source| LogError::Open { path: path.to_owned(), source })
}

fn open_serial() -> Result<File, LogError> {
    let path = Path::new(SERIAL);
    let failed = |source: io::Error| match source.raw_os_error() {
        // the kernel has a name for each of four ports, hardware or not
        Some(libc::EIO) => LogError::NoSerial,
        _ => LogError::Open { path: path.to_owned(), source },
    };
    let file = open_device(path)?;
    terminal::make_raw(&file, SPEED).map_err(failed)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    use nix::unistd::pipe2;
    use wire::log::Reader;

    use super::*;

    /// A log on a pipe that holds one page, and whoever reads it.
    fn slow() -> (Log, File) {
        let (device, ours) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).unwrap();
        fcntl(&ours, FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
        (Log::on(File::from(ours)), File::from(device))
    }

    #[test]
    fn a_slow_device_bounds_what_is_taken_and_loses_nothing() {
        let (mut log, mut device) = slow();
        let (mut written, mut read, mut times) = (Vec::new(), Vec::new(), Vec::new());
        let mut reader = Reader::default();
        let mut buffer = [0; 1000];
        while read.len() < 300_000 {
            let room = log.room();
            if room > 0 && written.len() < 300_000 {
                // zeros and others, of which the frames make more or less
                let bytes: Vec<u8> = (0..room).map(|at| [0, 7, 8][at % 3]).collect();
                let bytes = &bytes[..room.min(300_000 - written.len())];
                log.write(0, Stream::Stderr, bytes);
                written.extend_from_slice(bytes);
            }
            assert!(log.outbox.len() - log.gone <= OUTBOX, "{} bytes wait", log.outbox.len());
            log.transmit().unwrap();
            let count = device.read(&mut buffer).unwrap();
            reader.feed(&buffer[..count], |entry| {
                assert_eq!(entry.stream, Stream::Stderr);
                times.push(entry.time_ns);
                read.extend_from_slice(entry.bytes);
            });
        }
        assert!(log.is_flushed() && read == written);
        assert!(times.is_sorted() && times[0] > 1_600_000_000_000_000_000, "{times:?}");
        assert_eq!(reader.noise().runs, 0);
    }

    #[test]
    fn a_device_that_is_gone_says_so() {
        let (mut log, device) = slow();
        log.write(0, Stream::Stdout, b"one");
        drop(device);
        assert_eq!(log.transmit().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
