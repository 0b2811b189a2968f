//! The device under the link as one byte pipe that never blocks: a virtio-serial port, a serial line or a vsock connection.
//!
//! It opens and reopens; when to try again is decided by its owner.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, VsockAddr};
use wire::link::Tuning;
use wire::spec::{LinkDevice, VIRTIO_PORT, VSOCK_PORT};

use crate::sys::terminal;

/// An open link device.
#[derive(Debug)]
pub struct Pipe {
    file: File,
    device: LinkDevice,
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
    #[error("this machine has no serial port {SERIAL} (QEMU: -device isa-serial,index=0,chardev=...)")]
    NoSerial,
    #[error("{SERIAL} cannot do {speed} baud: give less as link/speed; most ports do 115200 and no more")]
    Speed { speed: u32 },
    #[error(
        "this machine has no vsock device (QEMU: -device vhost-vsock-pci,guest-cid=... or vhost-user-vsock-pci; ESXi: vmci0)"
    )]
    NoVsock,
    #[error("cannot connect to port {VSOCK_PORT} of the host by vsock")]
    Vsock { source: io::Error },
    #[error("cannot open the link's device {path}")]
    Open { path: PathBuf, source: io::Error },
}

/// The first serial port: the only one that ESXi connects to a network.
const SERIAL: &str = "/dev/ttyS0";
const PORTS: &str = "/sys/class/virtio-ports";

impl Pipe {
    /// Opens the device that the spec names. `speed` is a serial line's.
    pub fn open(device: LinkDevice, speed: u32) -> Result<Pipe, PipeError> {
        let (file, tuning) = match device {
            LinkDevice::Serial => (open_serial(speed)?, Tuning::SERIAL),
            LinkDevice::Virtio => (open_device(&find_port(VIRTIO_PORT).ok_or(PipeError::NoPort)?)?, Tuning::FAST),
            LinkDevice::Vsock => (connect()?, Tuning::FAST),
        };
        Ok(Pipe { file, device, tuning })
    }

    /// A connection is there only once an event has told so, and does not come back by itself. A device is and does.
    pub fn is_connection(&self) -> bool {
        self.device == LinkDevice::Vsock
    }

    /// Begins a new connection in place of one that was lost. The descriptor is another one then.
    pub fn reconnect(&mut self) -> Result<(), PipeError> {
        self.file = connect()?;
        Ok(())
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

fn open_device(path: &Path) -> Result<File, PipeError> {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let opened = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path);
    opened.map_err(|source| PipeError::Open { path: path.to_owned(), source })
}

fn open_serial(speed: u32) -> Result<File, PipeError> {
    let file = open_device(Path::new(SERIAL))?;
    match terminal::make_raw(&file, speed) {
        Ok(done) if done == speed => Ok(file),
        Ok(_) => Err(PipeError::Speed { speed }),
        // the kernel has a name for each of four ports, hardware or not
        Err(error) if error.raw_os_error() == Some(libc::EIO) => Err(PipeError::NoSerial),
        Err(source) => Err(PipeError::Open { path: SERIAL.into(), source }),
    }
}

/// `/dev/vportNpM` by the name that the host gave the port.
pub(crate) fn find_port(name: &str) -> Option<PathBuf> {
    let mut ports = fs::read_dir(PORTS).ok()?.flatten();
    let is_it =
        |port: &fs::DirEntry| fs::read_to_string(port.path().join("name")).is_ok_and(|text| text.trim_end() == name);
    ports.find(is_it).map(|port| Path::new("/dev").join(port.file_name()))
}

/// Begins to connect to the host. The kernel picks the transport: virtio or VMCI, whichever device is there.
fn connect() -> Result<File, PipeError> {
    let failed = |errno: Errno| match errno {
        Errno::ENODEV | Errno::EAFNOSUPPORT => PipeError::NoVsock,
        errno => PipeError::Vsock { source: errno.into() },
    };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd = socket::socket(AddressFamily::Vsock, SockType::Stream, flags, None).map_err(failed)?;
    match socket::connect(fd.as_raw_fd(), &VsockAddr::new(libc::VMADDR_CID_HOST, VSOCK_PORT)) {
        // an event tells how it went
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(File::from(fd)),
        Err(errno) => Err(failed(errno)),
    }
}
