//! VMware virtual disks. Monolithic sparse ones are written, which Workstation and QEMU run, and stream-optimized ones, which vSphere imports.
//!
//! Which bytes are on the disk is not decided here: a raw image comes in, and its holes stay holes.

mod dump;
mod format;
mod stream;
mod writer;

use std::io;

pub use self::dump::dump;
pub use self::stream::write_stream;
pub use self::writer::{Stats, write_sparse};

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
    #[error("no sparse VMDK: {why}")]
    Malformed { why: &'static str },
}
