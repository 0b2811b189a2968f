//! One regular file of the container's, read or written by PID 1 itself, in steps that take no time.
//!
//! A path leads nowhere but into the container's root. Where something is mounted that somebody else serves, nothing that is mounted is reached: a server that does not
//! answer would hold PID 1 up. Pipes and devices are not opened. A file is written beside its place and takes it when it is complete.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, ResolveFlag, openat, renameat};
use nix::sys::stat::{Mode, SFlag, fchmod, fstat};
use nix::sys::statfs::fstatfs;
use nix::sys::uio::{pread, pwrite};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, ftruncate, linkat, unlinkat};

use crate::copy::is_kernels;
use crate::mounts::has_servers;
use crate::toolbox::hgfs::{Attributes, Changes};
use crate::within::{NAMED_DIR, look, open_below};

fn below(root: &Path, path: &str, flags: OFlag) -> nix::Result<OwnedFd> {
    let root = nix::fcntl::open(root, NAMED_DIR, Mode::empty())?;
    let mounts = if has_servers() { ResolveFlag::RESOLVE_NO_XDEV } else { ResolveFlag::empty() };
    open_below(root.as_fd(), path.as_bytes(), flags, ResolveFlag::RESOLVE_IN_ROOT | mounts)
}

/// A regular file, to be read: `EISDIR` for anything else, `EACCES` for what the kernel shows of itself.
pub fn open(root: &Path, path: &str) -> nix::Result<File> {
    let reading = OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    // named first: some devices do something when they are opened
    let mut file = below(root, path, OFlag::O_CLOEXEC | OFlag::O_PATH)?;
    check(&file)?;
    file = below(root, path, reading)?;
    check(&file).map(|()| file.into())
}

fn check(file: &OwnedFd) -> nix::Result<()> {
    if !is_regular(fstat(file)?.st_mode) {
        return Err(Errno::EISDIR);
    }
    match is_kernels(fstatfs(file)?.filesystem_type()) {
        true => Err(Errno::EACCES),
        false => Ok(()),
    }
}

fn is_regular(mode: u32) -> bool {
    SFlag::from_bits_truncate(mode & SFlag::S_IFMT.bits()) == SFlag::S_IFREG
}

/// What is known of it.
pub fn attributes(file: &File) -> nix::Result<Attributes> {
    fstat(file).map(|of| Attributes::from(&of))
}

/// A part of a file, as much as there is, or as the kernel reads at once.
pub fn read(file: &File, offset: u64, count: usize) -> nix::Result<Vec<u8>> {
    let mut bytes = vec![0; count];
    let filled = pread(file, &mut bytes, position(offset)?)?;
    bytes.truncate(filled);
    Ok(bytes)
}

/// Writes all of it, without an offset at the end.
pub fn write(file: &File, offset: Option<u64>, mut bytes: &[u8]) -> nix::Result<()> {
    let mut at = offset.map_or_else(|| fstat(file).map(|of| of.st_size), position)?;
    while !bytes.is_empty() {
        let count = pwrite(file, bytes, at)?;
        at += count.cast_signed() as i64;
        bytes = &bytes[count..];
    }
    Ok(())
}

fn position(offset: u64) -> nix::Result<i64> {
    i64::try_from(offset).map_err(|_| Errno::EINVAL)
}

/// Changes a file's owner, mode, and size.
pub fn change(file: &File, changes: &Changes) -> nix::Result<()> {
    let Changes { mode, mask, uid, gid, size } = changes;
    let before = fstat(file)?.st_mode;
    fchown(file, uid.map(Uid::from_raw), gid.map(Gid::from_raw))?;
    // afterwards, since this has taken special bits away
    set_mode(file, before & !mask | mode)?;
    size.map_or(Ok(()), |size| ftruncate(file, position(size)?))
}

fn set_mode(file: &File, mode: u32) -> nix::Result<()> {
    fchmod(file, Mode::from_bits_truncate(mode))
}

/// Where a file is to be: `EEXIST` if it may not take the place of the one there, `EISDIR` if it cannot.
#[derive(Debug)]
pub struct Spot {
    dir: OwnedFd,
    name: CString,
    fresh: bool,
}

impl Spot {
    /// The place of `path`, whose directory must be there. `fresh`: nothing may be there.
    pub fn find(root: &Path, path: &str, fresh: bool) -> nix::Result<Spot> {
        // with its `/`
        let end = path.bytes().rposition(|byte| byte == b'/').ok_or(Errno::EINVAL)? + 1;
        let name = CString::new(&path[end..]).map_err(|_| Errno::EINVAL)?;
        let dir = below(root, &path[..end], NAMED_DIR)?;
        match look(dir.as_fd(), &name)? {
            // a link too: where it leads is not looked at, and to put a file in its place would surprise
            Some(there) if !is_regular(there.st_mode) => Err(Errno::EISDIR),
            Some(_) if fresh => Err(Errno::EEXIST),
            _ => Ok(Spot { dir, name, fresh }),
        }
    }
}

/// The place of a file that is being written. The file is gone if it is not finished.
#[derive(Debug)]
pub struct Upload {
    spot: Spot,
    beside: CString,
}

impl Upload {
    /// Begins, with the file to be written. `number` tells it from others that are being written.
    pub fn begin(spot: Spot, mode: u32, number: u32) -> nix::Result<(Upload, File)> {
        let beside = CString::new(format!(".tether-upload-{number}")).map_err(|_| Errno::EINVAL)?;
        // of a machine that went off meanwhile
        let _none = unlinkat(&spot.dir, beside.as_c_str(), UnlinkatFlags::NoRemoveDir);
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let file = openat(&spot.dir, beside.as_c_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR)?.into();
        let upload = Upload { spot, beside };
        set_mode(&file, mode)?;
        Ok((upload, file))
    }

    /// Puts it in its place.
    pub fn finish(self) -> nix::Result<()> {
        let Spot { dir, name, fresh } = &self.spot;
        match fresh {
            // it fails where something has come meanwhile
            true => linkat(dir, self.beside.as_c_str(), dir, name.as_c_str(), AtFlags::empty()),
            false => renameat(dir, self.beside.as_c_str(), dir, name.as_c_str()),
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let _or_renamed = unlinkat(&self.spot.dir, self.beside.as_c_str(), UnlinkatFlags::NoRemoveDir);
    }
}

#[cfg(test)]
mod tests;
