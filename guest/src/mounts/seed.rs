//! A volume's first content: what the image has at its destination, once.
//!
//! Where extended attributes can be had, one on the volume's top directory says how far it is: whoever empties a volume later keeps it empty, and what
//! a power cut left half done is done again. Elsewhere, on a file server, a directory is there while it is being done.

use std::ffi::CStr;
use std::os::fd::{AsFd as _, OwnedFd};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, SFlag, fchmod, fstat, mkdirat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, syncfs, unlinkat};

use crate::copy::{self, CopyError};
use crate::sys::xattr::{self, Subject};
use crate::within::look;

/// Only root of the machine sees it.
const MARK: &CStr = c"trusted.tether.seed";
const BEGUN: &[u8] = b"begun";
const DONE: &[u8] = b"done";
/// The mark where there are no attributes.
const DIRECTORY: &CStr = c".tether-seed";
/// What every ext4 file system has.
const LOST_AND_FOUND: &CStr = c"lost+found";

/// Whether the volume is to be filled: it is empty and never was filled, or was not filled to the end.
pub(super) fn is_due(top: &OwnedFd) -> nix::Result<bool> {
    let marks = xattr::all(Subject::Open(top.as_fd()))?;
    if let Some((_, mark)) = marks.iter().find(|(name, _)| name.as_c_str() == MARK) {
        return Ok(mark == BEGUN);
    }
    Ok(look(top.as_fd(), DIRECTORY)?.is_some() || names(top)?.is_empty())
}

/// Fills it. A volume takes the owner and the mode of the image's directory too, as with docker.
pub(super) fn fill(from: OwnedFd, top: OwnedFd) -> Result<(), CopyError> {
    let at_top = |errno| copy::failed("fill", b"/", errno);
    let like = fstat(&from).map_err(at_top)?;
    let begin = || {
        match xattr::set(Subject::Open(top.as_fd()), MARK, BEGUN) {
            Err(Errno::EOPNOTSUPP) => match mkdirat(&top, DIRECTORY, Mode::S_IRWXU) {
                Err(Errno::EEXIST) => {}
                other => other?,
            },
            other => other?,
        }
        // on the disk before anything else is
        syncfs(&top)?;
        names(&top)?.iter().try_for_each(|(name, is_dir)| match is_dir {
            true => copy::remove_tree(top.as_fd(), name),
            false => unlinkat(&top, name.as_c_str(), UnlinkatFlags::NoRemoveDir),
        })
    };
    begin().map_err(at_top)?;
    copy::copy_tree(from, top.try_clone().map_err(|_| at_top(Errno::EMFILE))?)?;
    let end = || {
        fchown(&top, Some(Uid::from_raw(like.st_uid)), Some(Gid::from_raw(like.st_gid)))?;
        fchmod(&top, Mode::from_bits_truncate(like.st_mode))?;
        syncfs(&top)?;
        match xattr::set(Subject::Open(top.as_fd()), MARK, DONE) {
            Err(Errno::EOPNOTSUPP) => unlinkat(&top, DIRECTORY, UnlinkatFlags::RemoveDir)?,
            other => other?,
        }
        syncfs(&top)
    };
    end().map_err(at_top)
}

/// What is in a volume, and whether it is a directory, but for what is there without anybody's doing.
fn names(top: &OwnedFd) -> nix::Result<Vec<(std::ffi::CString, bool)>> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut names = Vec::new();
    for entry in Dir::openat(top, c".", flags, Mode::empty())?.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." || name == DIRECTORY || name == LOST_AND_FOUND {
            continue;
        }
        let Some(stat) = look(top.as_fd(), name)? else { continue };
        let is_dir = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFDIR;
        names.push((name.to_owned(), is_dir));
    }
    Ok(names)
}
