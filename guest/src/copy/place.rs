//! Where a name of an archive may lead: into the directory that it is unpacked in.
//!
//! Links that were there before are the container's own choice and are followed, within its root. A link that the archive itself brought could be made
//! to lead anywhere, so that once there is one, nothing is followed out of the directory any more. The kernel resolves every path and keeps to that
//! (openat2(2)); `..` does not get as far.

use std::ffi::CString;
use std::os::fd::{AsFd as _, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::ResolveFlag;
use nix::sys::stat::{Mode, fstat, mkdirat};

use super::{CopyError, failed, refused};
use crate::within::{NAMED_DIR, open_below, open_dir};

/// The directory that an archive is unpacked in.
pub(super) struct Place {
    root: OwnedFd,
    dir: OwnedFd,
    /// From the root.
    path: Vec<u8>,
    resolve: ResolveFlag,
    /// No link of the archive can lead out of the directory.
    trusts_links: bool,
}

/// An entry's place: its directory, and its name there.
pub(super) struct Spot {
    pub(super) parent: OwnedFd,
    pub(super) name: CString,
}

/// A name, checked: components without `..`, `.` and empty ones, so that an absolute name begins at the directory too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Inside(Vec<CString>);

impl Inside {
    pub(super) fn parse(name: &[u8]) -> Result<Inside, CopyError> {
        let components = name.split(|&byte| byte == b'/').filter(|component| !matches!(*component, b"" | b"."));
        let checked = components.map(|component| match component {
            b".." => Err(refused(name, "its name leads out of the directory")),
            _ => CString::new(component).map_err(|_| refused(name, "its name holds a NUL")),
        });
        checked.collect::<Result<_, _>>().map(Inside)
    }

    /// It is the directory itself.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As one path; `.` for the directory itself.
    pub(super) fn path(&self) -> Vec<u8> {
        join(&self.0)
    }
}

fn join(components: &[CString]) -> Vec<u8> {
    match components {
        [] => b".".to_vec(),
        _ => components.iter().map(|component| component.to_bytes()).collect::<Vec<_>>().join(&b'/'),
    }
}

impl Place {
    pub(super) fn open(root: OwnedFd, path: &str) -> Result<Place, CopyError> {
        let at_path = |errno| failed("open the directory", path.as_bytes(), errno);
        let from_root = [b"./", path.as_bytes()].concat();
        let dir = open_dir(root.as_fd(), &from_root).map_err(at_path)?;
        let (of_root, of_dir) = (fstat(&root).map_err(at_path)?, fstat(&dir).map_err(at_path)?);
        // out of the root there is nowhere to go
        let resolve = match (of_root.st_dev, of_root.st_ino) == (of_dir.st_dev, of_dir.st_ino) {
            true => ResolveFlag::RESOLVE_IN_ROOT,
            false => ResolveFlag::RESOLVE_BENEATH,
        };
        Ok(Place { root, dir, path: from_root, resolve, trusts_links: true })
    }

    /// Where an entry of that name goes. Directories above it are made where there are none.
    pub(super) fn spot(&self, name: &[u8], inside: &Inside) -> Result<Spot, CopyError> {
        let Some((last, above)) = inside.0.split_last() else {
            return Err(refused(name, "it would take the place of the directory itself"));
        };
        let parent = match self.enter(&join(above)) {
            Err(Errno::ENOENT) => self.make_dirs(above),
            other => other,
        };
        let parent = parent.map_err(|errno| self.explain("open the directory of", name, errno))?;
        Ok(Spot { parent, name: last.clone() })
    }

    /// The same, of an entry that is there already; `None` when nothing is any more.
    pub(super) fn made(&self, inside: &Inside) -> Option<Spot> {
        let (last, above) = inside.0.split_last()?;
        let parent = self.enter(&join(above)).ok()?;
        Some(Spot { parent, name: last.clone() })
    }

    /// Where a hard link of the archive leads: never out of the directory, whoever made the links on the way.
    pub(super) fn target(&self, name: &[u8], inside: &Inside) -> Result<Spot, CopyError> {
        let Some((last, above)) = inside.0.split_last() else {
            return Err(refused(name, "it is a hard link to the directory itself"));
        };
        let parent = open_below(self.dir.as_fd(), &join(above), NAMED_DIR, self.resolve);
        let parent =
            parent.map_err(|errno| self.explain("open the target's directory of the hard link", name, errno))?;
        Ok(Spot { parent, name: last.clone() })
    }

    /// The archive has made a link to `target`.
    pub(super) fn has_link_to(&mut self, target: &[u8]) {
        let leads_out =
            target.starts_with(b"/") || target.split(|&byte| byte == b'/').any(|component| component == b"..");
        self.trusts_links &= !leads_out;
    }

    /// The archive has given a link that was there another name, where it may lead elsewhere.
    pub(super) fn has_moved_link(&mut self) {
        self.trusts_links = false;
    }

    fn enter(&self, path: &[u8]) -> nix::Result<OwnedFd> {
        match open_below(self.dir.as_fd(), path, NAMED_DIR, self.resolve) {
            Err(Errno::EXDEV) if self.trusts_links => {
                open_dir(self.root.as_fd(), &[&self.path, &b"/"[..], path].concat())
            }
            other => other,
        }
    }

    fn make_dirs(&self, components: &[CString]) -> nix::Result<OwnedFd> {
        let mut parent = self.enter(b".")?;
        for (at, component) in components.iter().enumerate() {
            let path = join(&components[..=at]);
            parent = match self.enter(&path) {
                Err(Errno::ENOENT) => {
                    mkdirat(&parent, component.as_c_str(), Mode::from_bits_truncate(0o755))?;
                    self.enter(&path)?
                }
                other => other?,
            };
        }
        Ok(parent)
    }

    fn explain(&self, doing: &'static str, name: &[u8], errno: Errno) -> CopyError {
        match errno {
            Errno::EXDEV => refused(name, "a symbolic link on the way to it leads out of the directory"),
            Errno::ELOOP => refused(name, "a symbolic link on the way to it leads nowhere that an archive may go"),
            errno => failed(doing, name, errno),
        }
    }
}
