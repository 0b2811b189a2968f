//! Extended attributes of open files, and of what cannot be opened: links, devices, pipes. Which of them matter: the caller's decision.

use std::ffi::{CStr, CString};
use std::io::Write as _;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use nix::errno::Errno;

/// Whose attributes.
#[derive(Clone, Copy, Debug)]
pub enum Subject<'a> {
    Open(BorrowedFd<'a>),
    /// A directory and a name in it. A link is not followed.
    Named(BorrowedFd<'a>, &'a CStr),
}

/// Linux, include/uapi/linux/limits.h: XATTR_LIST_MAX and XATTR_SIZE_MAX.
const LONGEST: usize = 65536;

/// Every attribute and its value. A file system without attributes has none.
pub fn all(subject: Subject<'_>) -> nix::Result<Vec<(CString, Vec<u8>)>> {
    let path = path_of(subject);
    let mut names = vec![0; LONGEST];
    let length = match list(subject, &path, &mut names) {
        Ok(length) => length,
        Err(Errno::EOPNOTSUPP) => return Ok(Vec::new()),
        Err(errno) => return Err(errno),
    };
    let mut value = Vec::new();
    let mut all = Vec::new();
    for name in
        names[..length].split_inclusive(|&byte| byte == 0).filter_map(|name| CStr::from_bytes_with_nul(name).ok())
    {
        value.resize(LONGEST, 0);
        match get(subject, &path, name, &mut value) {
            Ok(length) => all.push((name.into(), value[..length].to_vec())),
            // it is gone
            Err(Errno::ENODATA) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(all)
}

/// Sets one attribute.
pub fn set(subject: Subject<'_>, name: &CStr, value: &[u8]) -> nix::Result<()> {
    let path = path_of(subject);
    // JUSTIFICATION: neither nix nor std has extended attributes.
    // SAFETY: the names end in NUL, and the value is as long as is said; all outlive the call, which only reads them.
    let result = unsafe {
        let (name, bytes, length) = (name.as_ptr(), value.as_ptr().cast(), value.len());
        match subject {
            Subject::Open(fd) => libc::fsetxattr(fd.as_raw_fd(), name, bytes, length, 0),
            Subject::Named(..) => libc::lsetxattr(path.as_ptr(), name, bytes, length, 0),
        }
    };
    Errno::result(result).map(drop)
}

/// There are no such calls relative to a directory before Linux 6.13.
fn path_of(subject: Subject<'_>) -> CString {
    let mut path = Vec::new();
    if let Subject::Named(dir, name) = subject {
        let _in_memory = write!(path, "/proc/self/fd/{}/", dir.as_raw_fd());
        path.extend_from_slice(name.to_bytes());
    }
    CString::new(path).unwrap_or_default() // neither part holds a NUL
}

fn list(subject: Subject<'_>, path: &CStr, names: &mut [u8]) -> nix::Result<usize> {
    // JUSTIFICATION: as in `set`.
    // SAFETY: the path ends in NUL; the kernel writes at most the length that is said to `names`.
    let result = unsafe {
        let (buffer, length) = (names.as_mut_ptr().cast(), names.len());
        match subject {
            Subject::Open(fd) => libc::flistxattr(fd.as_raw_fd(), buffer, length),
            Subject::Named(..) => libc::llistxattr(path.as_ptr(), buffer, length),
        }
    };
    Errno::result(result).map(isize::cast_unsigned)
}

fn get(subject: Subject<'_>, path: &CStr, name: &CStr, value: &mut [u8]) -> nix::Result<usize> {
    // JUSTIFICATION: as in `set`.
    // SAFETY: the names end in NUL; the kernel writes at most the length that is said to `value`.
    let result = unsafe {
        let (buffer, length) = (value.as_mut_ptr().cast(), value.len());
        match subject {
            Subject::Open(fd) => libc::fgetxattr(fd.as_raw_fd(), name.as_ptr(), buffer, length),
            Subject::Named(..) => libc::lgetxattr(path.as_ptr(), name.as_ptr(), buffer, length),
        }
    };
    Errno::result(result).map(isize::cast_unsigned)
}
