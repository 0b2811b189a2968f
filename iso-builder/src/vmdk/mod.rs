//! VMware virtual disks: monolithic sparse ones, which Workstation and QEMU run, what differs from a parent in one, flat ones, and stream-optimized ones, which
//! vSphere imports.
//!
//! Which bytes are on the disk is not decided here: a raw image comes in, and its holes stay holes. [`open`] reads the disk back, whatever wrote it.

mod cache;
mod descriptor;
mod disk;
mod dump;
mod flat;
mod format;
mod pack;
mod raw;
mod sparse;
mod stream;
mod writer;

use std::io;
use std::path::PathBuf;

pub use self::disk::{is_vmdk, open};
pub use self::dump::dump;
pub use self::flat::{describe_flat, flat_descriptor, write_raw};
pub use self::raw::{Raw, Stored};
pub use self::stream::write_stream;
pub use self::writer::{Stats, write_delta, write_sparse};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the raw image cannot be read")]
    Read(#[source] io::Error),
    #[error("the virtual disk cannot be written")]
    Write(#[source] io::Error),
    #[error("a disk of {size} bytes does not fit in a sparse VMDK: 2 TiB less its tables is the most")]
    TooLarge { size: u64 },
    #[error("{name:?} cannot be the name of an extent: it is empty, or holds quotes or control characters")]
    Name { name: String },
    #[error("a disk of {size} bytes is no delta of one of {parent}: give it the parent's size")]
    Resized { size: u64, parent: u64 },
    /// What a file holds is no virtual disk, or not a whole one.
    #[error("malformed VMDK, at byte {at}: {why}")]
    Malformed { why: &'static str, at: u64 },
    /// Which of the files of a disk it was.
    #[error("{}", path.display())]
    In { path: PathBuf, source: Box<Error> },
    #[error("it cannot be read")]
    Open(#[source] io::Error),
    #[error("it names {}, which is not in its directory, and other files are not read for a disk: put it there", file.display())]
    Outside { file: PathBuf },
    #[error("its parent {} has the content id {found:08x}, not {expected:08x}: it was written to since, or is another disk", parent.display())]
    Parent { parent: PathBuf, expected: u32, found: u32 },
    #[error("it is one of its own parents")]
    Loop,
    #[error("it has more than {} parents", disk::CHAIN_LIMIT)]
    Chain,
}

impl Error {
    fn into_io(self) -> io::Error {
        match self {
            Error::Open(error) => error,
            error => io::Error::new(io::ErrorKind::InvalidData, error),
        }
    }
}
