//! The device under the link: a virtio-serial port or a serial line, as one byte pipe that never blocks.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::libc;
use wire::link::Tuning;
use wire::spec::{LinkDevice, VIRTIO_PORT};

use crate::sys::terminal;

/// An open link device.
#[derive(Debug)]
pub struct Pipe {
    file: File,
    pub tuning: Tuning,
}

/// What became of a read or write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    Bytes(usize),
    /// Not now; an event will tell.
    Wait,
    /// The other end is not there.
    Gone,
}

/// Why the link's device cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PipeError {
    #[error("no virtio-serial port is named {VIRTIO_PORT} (QEMU: -device virtserialport,name={VIRTIO_PORT},...)")]
    NoPort,
    #[error("cannot open the link's device {path}")]
    Open { path: PathBuf, source: io::Error },
}

/// The first serial port: the only one that ESXi connects to a network.
const SERIAL: &str = "/dev/ttyS0";
const PORTS: &str = "/sys/class/virtio-ports";

impl Pipe {
    /// Opens the device that the spec names.
    pub fn open(device: LinkDevice) -> Result<Pipe, PipeError> {
        let (path, tuning) = match device {
            LinkDevice::Serial => (PathBuf::from(SERIAL), Tuning::SERIAL),
            LinkDevice::Virtio => (find_port()?, Tuning::FAST),
            LinkDevice::Vsock => return Err(PipeError::NoPort),
        };
        let open = || {
            let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
            let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(&path)?;
            if device == LinkDevice::Serial {
                terminal::make_raw(&file)?;
            }
            Ok(file)
        };
        match open() {
            Ok(file) => Ok(Pipe { file, tuning }),
            Err(source) => Err(PipeError::Open { path, source }),
        }
    }

    pub fn read(&self, buffer: &mut [u8]) -> Progress {
        // a virtio port without a host reads as an end of file, a serial line without a terminal at all as EIO
        match (&self.file).read(buffer) {
            Ok(0) => Progress::Gone,
            other => progress(other),
        }
    }

    pub fn write(&self, bytes: &[u8]) -> Progress {
        progress((&self.file).write(bytes))
    }
}

impl AsFd for Pipe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn progress(result: io::Result<usize>) -> Progress {
    match result {
        Ok(count) => Progress::Bytes(count),
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Progress::Wait,
        Err(_) => Progress::Gone,
    }
}

/// `/dev/vportNpM` by the name that the host gave the port.
fn find_port() -> Result<PathBuf, PipeError> {
    let ports = fs::read_dir(PORTS).map_err(|_| PipeError::NoPort)?;
    ports
        .flatten()
        .find(|port| fs::read_to_string(port.path().join("name")).is_ok_and(|name| name.trim_end() == VIRTIO_PORT))
        .map(|port| Path::new("/dev").join(port.file_name()))
        .ok_or(PipeError::NoPort)
}
