//! File systems that are mounted nowhere yet, and mounts by descriptor: fsopen(2) and its relations. Which, where, and in what order: the caller's decision.

use std::ffi::CStr;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::ptr;

use nix::errno::Errno;

/// The mount takes no writes; its file system may, elsewhere: mount_setattr(2).
pub const READ_ONLY: u32 = 1;
/// Set-user-ID bits mean nothing there.
pub const NO_SUID: u32 = 2;
/// Device nodes mean nothing there.
pub const NO_DEV: u32 = 4;
/// Programs there cannot be executed.
pub const NO_EXEC: u32 = 8;
/// Reading a file leaves its time of access as it is.
pub const NO_ATIME: u32 = 16;

/// A file system that is being described: fsconfig(2).
#[derive(Debug)]
pub struct Context(OwnedFd);

impl Context {
    /// Of a type that the kernel knows.
    pub fn open(kind: &CStr) -> nix::Result<Context> {
        // JUSTIFICATION: neither nix nor libc has these calls.
        // SAFETY: the name ends in NUL and outlives the call, which only reads it.
        descriptor(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), libc::FSOPEN_CLOEXEC) }).map(Context)
    }

    /// An option with a value.
    pub fn set(&self, key: &CStr, value: &CStr) -> nix::Result<()> {
        self.configure(libc::FSCONFIG_SET_STRING, Some(key), Some(value))
    }

    /// An option without one.
    pub fn flag(&self, key: &CStr) -> nix::Result<()> {
        self.configure(libc::FSCONFIG_SET_FLAG, Some(key), None)
    }

    /// Makes a mount of it, with attributes of this file. It is unmounted when the last descriptor to it is closed, unless it has been attached.
    pub fn create(&self, attributes: u32) -> nix::Result<OwnedFd> {
        self.configure(libc::FSCONFIG_CMD_CREATE, None, None)?;
        // JUSTIFICATION: as in `open`.
        // SAFETY: three numbers; no memory is touched.
        descriptor(unsafe { libc::syscall(libc::SYS_fsmount, self.0.as_raw_fd(), libc::FSMOUNT_CLOEXEC, attributes) })
    }

    /// What the kernel has to say about a failure; often nothing.
    pub fn said(&self) -> Option<String> {
        let mut text = [0; 512];
        let count = File::from(self.0.try_clone().ok()?).read(&mut text).ok()?;
        // a letter for its severity comes first
        let text = String::from_utf8_lossy(text[..count].get(2..)?).trim_end().to_owned();
        (!text.is_empty()).then_some(text)
    }

    fn configure(&self, command: libc::fsconfig_command, key: Option<&CStr>, value: Option<&CStr>) -> nix::Result<()> {
        let pointer = |text: Option<&CStr>| text.map_or(ptr::null(), CStr::as_ptr);
        // JUSTIFICATION: as in `open`.
        // SAFETY: each text ends in NUL, or is null where the command takes none, and outlives the call, which only reads it.
        let result =
            unsafe { libc::syscall(libc::SYS_fsconfig, self.0.as_raw_fd(), command, pointer(key), pointer(value), 0) };
        Errno::result(result).map(drop)
    }
}

/// Puts a mount that is nowhere on a directory.
pub fn attach(mount: BorrowedFd<'_>, on: BorrowedFd<'_>) -> nix::Result<()> {
    let flags = libc::MOVE_MOUNT_F_EMPTY_PATH | libc::MOVE_MOUNT_T_EMPTY_PATH;
    // JUSTIFICATION: as in `Context::open`.
    // SAFETY: the empty texts end in NUL and live for ever.
    let result = unsafe {
        let (from, to) = (mount.as_raw_fd(), on.as_raw_fd());
        libc::syscall(libc::SYS_move_mount, from, c"".as_ptr(), to, c"".as_ptr(), flags)
    };
    Errno::result(result).map(drop)
}

/// The tree of directories at `dir`, as a mount of its own that is nowhere. What is mounted below `dir` is not in it.
pub fn copy_of(dir: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    #[allow(clippy::cast_sign_loss)] // flags
    let flags = libc::OPEN_TREE_CLONE | (libc::O_CLOEXEC | libc::AT_EMPTY_PATH) as u32;
    // JUSTIFICATION: as in `Context::open`.
    // SAFETY: the empty text ends in NUL and lives for ever.
    descriptor(unsafe { libc::syscall(libc::SYS_open_tree, dir.as_raw_fd(), c"".as_ptr(), flags) })
}

/// Takes no more writes through the mount whose top directory that is; `EINVAL` where nothing is mounted.
pub fn forbid_writes(top: BorrowedFd<'_>) -> nix::Result<()> {
    let attributes = libc::mount_attr { attr_set: READ_ONLY.into(), attr_clr: 0, propagation: 0, userns_fd: 0 };
    // JUSTIFICATION: as in `Context::open`.
    // SAFETY: the empty text ends in NUL; the structure is as long as is said and outlives the call, which only reads it.
    let result = unsafe {
        let (attributes, length) = (&raw const attributes, size_of::<libc::mount_attr>());
        libc::syscall(libc::SYS_mount_setattr, top.as_raw_fd(), c"".as_ptr(), libc::AT_EMPTY_PATH, attributes, length)
    };
    Errno::result(result).map(drop)
}

/// Tells the disk below a file system which blocks are free: ioctl_fitrim(2). The bytes that it told.
pub fn trim(of: BorrowedFd<'_>) -> nix::Result<u64> {
    /// `FITRIM`: Linux, include/uapi/linux/fs.h, `_IOWR('X', 121, struct fstrim_range)`.
    const FITRIM: u64 = 0xc018_5879;
    // start, length, shortest; the length becomes what was told
    let mut range = [0, u64::MAX, 0];
    // JUSTIFICATION: nix has no FITRIM.
    // SAFETY: `range` is a whole fstrim_range, three 64-bit numbers, and outlives the call, which writes nothing beyond it.
    let result = unsafe { libc::ioctl(of.as_raw_fd(), FITRIM as _, range.as_mut_ptr()) };
    Errno::result(result).map(|_| range[1])
}

/// The descriptor that a call has made.
fn descriptor(result: libc::c_long) -> nix::Result<OwnedFd> {
    let fd = RawFd::try_from(Errno::result(result)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made it, and nothing else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
