//! One directory's content into another: a child of ours packs, and this process unpacks.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::pipe2;

use super::{CopyError, pack, unpack};
use crate::sys::spawn::{Stdio, run_in_child};

/// Copies everything below `from`, with owners, modes, times, attributes, links and devices, and what it names stays within each of the two.
pub(crate) fn copy_tree(from: OwnedFd, to: OwnedFd) -> Result<(), CopyError> {
    let (archive, out) = pipe2(OFlag::O_CLOEXEC).map_err(|errno| CopyError::Read(errno.into()))?;
    let (stderr, errors) = (io::stderr(), |error: io::Error| CopyError::Read(error));
    let stdio = Stdio::Streams { stdin: from.as_fd(), stdout: out.as_fd(), stderr: stderr.as_fd() };
    let packer = run_in_child(&stdio, &[], || {
        let packed = io::stdin().as_fd().try_clone_to_owned().and_then(|from| {
            let mut out = File::from(io::stdout().as_fd().try_clone_to_owned()?);
            pack::pack(from, "/", &mut out).map_err(io::Error::other)
        });
        match packed {
            Ok(()) => 0,
            Err(error) => {
                eprintln!("tether: {error}");
                1
            }
        }
    })
    .map_err(|failed| errors(failed.error))?;
    drop(out);
    let mut archive = File::from(archive);
    let unpacked = unpack::unpack(to, "/", true, true, &mut archive);
    // a packer that nobody listens to ends
    drop(archive);
    let ended = waitpid(packer, None);
    unpacked?;
    match ended {
        Ok(WaitStatus::Exited(_, 0)) => Ok(()),
        _ => Err(errors(Errno::EIO.into())),
    }
}
