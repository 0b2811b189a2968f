//! Paths inside a directory that is somebody else's: links in it are followed, and lead nowhere but into it. The kernel sees to that: openat2(2).

use std::ffi::{CStr, CString};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat, mkdirat, mknodat};

/// What a descriptor that only names a directory is opened with.
pub(crate) const NAMED_DIR: OFlag = OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);

/// What a directory is opened with, to be read and described.
pub(crate) const DIR: OFlag = OFlag::O_DIRECTORY.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// Links that are followed on one way, as many as the kernel follows: path_resolution(7).
const LINKS: usize = 40;

/// Opens a path below `dir`. The kernel asks for another try when something on the way was renamed meanwhile.
pub(crate) fn open_below(dir: BorrowedFd<'_>, path: &[u8], flags: OFlag, resolve: ResolveFlag) -> nix::Result<OwnedFd> {
    const TRIES: usize = 100;
    let how = || OpenHow::new().flags(flags).resolve(resolve | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let mut result = openat2(dir, path, how());
    for _ in 1..TRIES {
        match result {
            Err(Errno::EAGAIN | Errno::EINTR) => result = openat2(dir, path, how()),
            _ => break,
        }
    }
    result
}

/// Opens a directory of the container, by a path from its root; links of the container are followed.
pub(crate) fn open_dir(root: BorrowedFd<'_>, path: &[u8]) -> nix::Result<OwnedFd> {
    open_below(root, path, NAMED_DIR, ResolveFlag::RESOLVE_IN_ROOT)
}

/// What is there, links not followed; `None` for nothing.
pub(crate) fn look(parent: BorrowedFd<'_>, name: &CStr) -> nix::Result<Option<FileStat>> {
    match fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Err(Errno::ENOENT) => Ok(None),
        other => other.map(Some),
    }
}

/// What is made at the end of a path where there is nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Made {
    Directory,
    File,
}

/// Names what lies at a path from `root`, and makes it, and the directories on the way, where there is nothing: also where a link leads to nothing yet.
/// `EPERM` where links lead into what the kernel itself shows there.
pub(crate) fn reach(root: BorrowedFd<'_>, path: &str, made: Made) -> nix::Result<OwnedFd> {
    let mut todo = backwards(path.as_bytes());
    // without links
    let mut done: Vec<Vec<u8>> = Vec::new();
    let mut links = 0;
    while let Some(name) = todo.pop() {
        match name.as_slice() {
            b"" | b"." => continue,
            b".." => {
                done.pop();
                continue;
            }
            _ => {}
        }
        let parent = open_dir(root, &from_root(&done))?;
        let last = CString::new(name.as_slice()).map_err(|_| Errno::EINVAL)?;
        let mode = Mode::from_bits_truncate(0o755);
        match look(std::os::fd::AsFd::as_fd(&parent), &last)? {
            Some(there) if SFlag::from_bits_truncate(there.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFLNK => {
                links += 1;
                if links > LINKS {
                    return Err(Errno::ELOOP);
                }
                let target = readlinkat(&parent, last.as_c_str())?.into_vec();
                if target.starts_with(b"/") {
                    done.clear();
                }
                todo.extend(backwards(&target));
                continue;
            }
            Some(_) => {}
            None if is_kernels(&[&done[..], std::slice::from_ref(&name)].concat()) => return Err(Errno::EPERM),
            None if made == Made::File && todo.is_empty() => {
                mknodat(&parent, last.as_c_str(), SFlag::S_IFREG, Mode::from_bits_truncate(0o644), 0)?;
            }
            None => mkdirat(&parent, last.as_c_str(), mode)?,
        }
        done.push(name);
    }
    if is_kernels(&done) {
        return Err(Errno::EPERM);
    }
    let flags = if made == Made::Directory { NAMED_DIR } else { OFlag::O_PATH | OFlag::O_CLOEXEC };
    open_below(root, &from_root(&done), flags, ResolveFlag::RESOLVE_IN_ROOT)
}

/// Whether it is what the kernel shows of itself and of devices: as runc does, nothing is put over that.
fn is_kernels(path: &[Vec<u8>]) -> bool {
    let first = path.first().map(Vec::as_slice);
    matches!(first, None | Some(b"proc" | b"sys")) || first == Some(b"dev") && path.len() == 1
}

fn backwards(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|&byte| byte == b'/').rev().map(<[u8]>::to_vec).collect()
}

fn from_root(components: &[Vec<u8>]) -> Vec<u8> {
    [b"./".as_slice(), &components.join(&b'/')].concat()
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::fd::AsFd as _;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    use super::*;

    struct Scratch(PathBuf);

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _gone = fs::remove_dir_all(&self.0);
        }
    }

    fn scratch(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("tether-within-{name}-{}", std::process::id()));
        fs::create_dir_all(path.join("root/etc")).unwrap();
        Scratch(path)
    }

    #[test]
    fn a_link_leads_nowhere_but_into_the_root() {
        let Scratch(path) = &scratch("links");
        let root = path.join("root");
        fs::create_dir_all(root.join("sys")).unwrap();
        for (link, target) in [
            ("group", "/sys"),
            ("abs", "/etc"),
            ("up", "../../.."),
            ("loop", "loop"),
            ("new", "/made/../made/here"),
            ("kernel", "etc/../proc/self"),
        ] {
            symlink(target, root.join(link)).unwrap();
        }
        let fd = File::open(&root).unwrap();
        let reach = |path| reach(fd.as_fd(), path, Made::Directory);
        reach("/abs/below").unwrap();
        reach("/up/escape").unwrap();
        reach("/new/deep").unwrap();
        assert!(
            root.join("etc/below").is_dir() && root.join("escape").is_dir() && root.join("made/here/deep").is_dir()
        );
        assert!(!path.join("escape").exists());
        assert_eq!(reach("/loop").unwrap_err(), Errno::ELOOP);
        assert_eq!(reach("/kernel").unwrap_err(), Errno::EPERM);
        assert_eq!(reach("/up").unwrap_err(), Errno::EPERM);
        assert_eq!(reach("/group/new").unwrap_err(), Errno::EPERM);
        assert!(!root.join("sys/new").exists() && !root.join("proc").exists(), "what is the kernel's is left alone");
    }

    #[test]
    fn a_file_is_made_where_a_link_leads_to_nothing() {
        let Scratch(path) = &scratch("files");
        let root = path.join("root");
        symlink("/run/resolve/stub.conf", root.join("etc/resolv.conf")).unwrap();
        let fd = File::open(&root).unwrap();
        reach(fd.as_fd(), "etc/resolv.conf", Made::File).unwrap();
        assert!(root.join("run/resolve/stub.conf").is_file());
        fs::write(root.join("etc/hosts"), "kept").unwrap();
        reach(fd.as_fd(), "etc/hosts", Made::File).unwrap();
        assert_eq!(fs::read_to_string(root.join("etc/hosts")).unwrap(), "kept");
    }
}
