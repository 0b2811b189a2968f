//! Files out of the container and into it, as tar archives: what `docker cp` needs of a guest.
//!
//! ```text
//! pack     a tree -> entries          unpack   entries -> a tree
//! changes  what is not as the image has it
//! entry    one entry and what is known of it
//! header   entry -> bytes             reader   bytes -> entry
//! place    where a name of an archive may lead         tree   a directory's content into another
//! ```
//!
//! Both directions stream: an archive of any size and number of entries takes the same memory. They block, and so run in a process of their own
//! (`sys::spawn::run_in_child`). What an archive says is not trusted: it can write in the directory that it is unpacked in, and nowhere else.

mod changes;
mod entry;
mod header;
mod pack;
mod place;
mod reader;
#[cfg(test)]
mod tests;
mod tree;
mod unpack;

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;

use nix::errno::Errno;

pub use changes::changes;
pub(crate) use pack::is_kernels;
pub(crate) use tree::copy_tree;
pub(crate) use unpack::remove_tree;

/// How much is read and written at once.
const BUFFER: usize = 64 * 1024;

/// Why a copy ended early, or is not what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    #[error("cannot {doing} {name:?}")]
    File { doing: &'static str, name: String, source: io::Error },
    #[error("cannot unpack {name:?}: {reason}")]
    Refused { name: String, reason: String },
    #[error("cannot copy {name:?}…: {reason}")]
    Unnameable { name: String, reason: String },
    #[error("the archive is broken at {name:?}: {reason}")]
    Broken { name: String, reason: &'static str },
    #[error("cannot read the archive")]
    Read(#[source] io::Error),
    #[error("cannot write the archive")]
    Write(#[source] io::Error),
    #[error(
        "the container's root is one disk: nothing tells what of it was the image's (it does where layers are disks of their own: vch run --disk layers)"
    )]
    Unlayered,
    #[error("{name:?} became shorter while it was read: its copy ends in zeros")]
    Shrunk { name: String },
}

/// Writes what lies at `path` as an archive whose names begin with the path's last component; of `/` and of a path that ends in `/.`, with `./`.
/// A link at the end of the path is copied as a link, unless a `/` follows it. Kernel and memory file systems below the path are left out, as docker does.
pub fn copy_out(path: &str, out: &mut dyn Write) -> Result<(), CopyError> {
    pack::pack(open_root()?, path, out)
}

/// Unpacks an archive in the directory `dir`. Without `owners`, everything becomes root's. With `replace`, a file may take the place of a directory
/// with all that is in it, and a directory that of a file.
pub fn copy_in(dir: &str, owners: bool, replace: bool, input: &mut dyn Read) -> Result<(), CopyError> {
    unpack::unpack(open_root()?, dir, owners, replace, input)
}

fn open_root() -> Result<OwnedFd, CopyError> {
    std::fs::File::open("/").map(OwnedFd::from).map_err(|source| CopyError::File {
        doing: "open",
        name: "/".into(),
        source,
    })
}

pub(crate) fn failed(doing: &'static str, name: &[u8], errno: Errno) -> CopyError {
    CopyError::File { doing, name: text(name), source: errno.into() }
}

fn broken(name: &[u8], reason: &'static str) -> CopyError {
    CopyError::Broken { name: text(name), reason }
}

fn refused(name: &[u8], reason: impl Into<String>) -> CopyError {
    CopyError::Refused { name: text(name), reason: reason.into() }
}

/// A name as far as people can read it.
fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}
