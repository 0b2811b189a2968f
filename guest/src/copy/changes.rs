//! What a container has changed of its image: the top of its overlay, compared with the layers below it. What counts as a change is docker's: `docker diff`.
//!
//! All of it is reached from the machine's own root, which the container does not see, by names that are never links. What the container changes meanwhile may or
//! may not be told.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::io::{BufWriter, Write};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag};

use super::pack::{LONGEST_NAME, kind_of, refused_to_pack};
use super::{BUFFER, CopyError, failed};
use crate::mounts;
use crate::sys::xattr::{self, Subject};
use crate::within::{DIR, look};

/// Linux, Documentation/filesystems/overlayfs.rst: of a directory that hides what is below it.
const OPAQUE: &CStr = c"trusted.overlay.opaque";
/// What a program may do beyond its user: capabilities(7).
const CAPABILITY: &CStr = c"security.capability";

/// Writes a letter, the path and a zero byte for each change: `A` added, `C` changed, `D` deleted. `own` is the machine's own root. Mount points are left out:
/// what is there is not the image's.
pub fn changes(own: BorrowedFd<'_>, out: &mut dyn Write) -> Result<(), CopyError> {
    let Ok(upper) = openat(own, mounts::UPPER, DIR, Mode::empty()) else { return Err(CopyError::Unlayered) };
    let mut layers = Vec::new();
    loop {
        let place = mounts::layer_place(layers.len());
        match openat(own, place.as_c_str(), DIR, Mode::empty()) {
            Ok(layer) => layers.push(layer),
            Err(Errno::ENOENT) => break,
            Err(errno) => return Err(failed("open the layer", place.as_bytes(), errno)),
        }
    }
    layers.reverse();
    let mut comparison = Comparison {
        out: BufWriter::with_capacity(BUFFER, out),
        mount_points: mounts::mount_points(own),
        pending: Vec::new(),
        path: Vec::new(),
    };
    comparison.directory(upper.as_fd(), &layers, false)?;
    comparison.out.flush().map_err(CopyError::Write)
}

struct Comparison<'a> {
    out: BufWriter<&'a mut dyn Write>,
    mount_points: BTreeSet<Vec<u8>>,
    /// Directories on the way, as lengths of the path, that are as they were, and changed only if something in them is.
    pending: Vec<usize>,
    /// Where it is.
    path: Vec<u8>,
}

impl Comparison<'_> {
    /// Compares what is in a directory of the top with what is in it in each layer, the highest first; all of that, if it is opaque.
    fn directory(&mut self, upper: BorrowedFd<'_>, layers: &[OwnedFd], opaque: bool) -> Result<(), CopyError> {
        for name in self.names(upper)? {
            self.within(&name, |all| all.child(upper, layers, &name))?;
        }
        if opaque {
            let mut seen = BTreeSet::new();
            for layer in layers {
                for name in self.names(layer.as_fd())? {
                    let gone = look(upper, &name).is_ok_and(|there| there.is_none());
                    if seen.insert(name.clone()) && gone && self.below(layers, &name)?.is_some() {
                        self.within(&name, |all| all.tell(b'D'))?;
                    }
                }
            }
        }
        Ok(())
    }

    fn names(&self, dir: BorrowedFd<'_>) -> Result<Vec<CString>, CopyError> {
        let at_path = |errno| failed("read", &self.path, errno);
        let mut dir = Dir::openat(dir, c".", DIR, Mode::empty()).map_err(at_path)?;
        let mut names = Vec::new();
        for entry in dir.iter() {
            let entry = entry.map_err(at_path)?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                names.push(entry.file_name().to_owned());
            }
        }
        Ok(names)
    }

    fn within(&mut self, name: &CStr, work: impl FnOnce(&mut Self) -> Result<(), CopyError>) -> Result<(), CopyError> {
        let length = self.path.len();
        self.path.push(b'/');
        self.path.extend_from_slice(name.to_bytes());
        if self.path.len() > LONGEST_NAME {
            return Err(refused_to_pack(&self.path));
        }
        let outcome = if self.mount_points.contains(&self.path) { Ok(()) } else { work(self) };
        self.path.truncate(length);
        outcome
    }

    fn child(&mut self, upper: BorrowedFd<'_>, layers: &[OwnedFd], name: &CStr) -> Result<(), CopyError> {
        let Some(stat) = look(upper, name).map_err(|errno| failed("read", &self.path, errno))? else { return Ok(()) };
        let below = self.below(layers, name)?;
        if is_whiteout(&stat) {
            return if below.is_some() { self.tell(b'D') } else { Ok(()) };
        }
        let changed = match &below {
            None => Some(b'A'),
            Some((layer, old)) => self.differs((upper, &stat), (layer.as_fd(), old), name)?.then_some(b'C'),
        };
        if let Some(letter) = changed {
            self.tell(letter)?;
        }
        if kind_of(&stat) != SFlag::S_IFDIR {
            return Ok(());
        }
        let dir = match openat(upper, name, DIR, Mode::empty()) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
            other => other.map_err(|errno| failed("read", &self.path, errno))?,
        };
        let opaque = self.is_opaque(&dir)?;
        let below = self.directories(layers, name)?;
        let length = self.path.len();
        if changed.is_none() {
            self.pending.push(length);
        }
        self.directory(dir.as_fd(), &below, opaque)?;
        self.pending.pop_if(|pending| *pending == length);
        Ok(())
    }

    /// What the image has there, and in which layer.
    fn below<'l>(&self, layers: &'l [OwnedFd], name: &CStr) -> Result<Option<(&'l OwnedFd, FileStat)>, CopyError> {
        for layer in layers {
            if let Some(stat) = look(layer.as_fd(), name).map_err(|errno| failed("read", &self.path, errno))? {
                return Ok(Some((layer, stat)).filter(|(_, stat)| !is_whiteout(stat)));
            }
        }
        Ok(None)
    }

    /// The directories of the layers that make one of the image, the highest first.
    fn directories(&self, layers: &[OwnedFd], name: &CStr) -> Result<Vec<OwnedFd>, CopyError> {
        let mut dirs = Vec::new();
        for layer in layers {
            match openat(layer, name, DIR, Mode::empty()) {
                Ok(dir) => {
                    let opaque = self.is_opaque(&dir)?;
                    dirs.push(dir);
                    if opaque {
                        break;
                    }
                }
                Err(Errno::ENOENT) => {}
                // a whiteout, or a file, hides what is below it
                Err(Errno::ENOTDIR | Errno::ELOOP) => break,
                Err(errno) => return Err(failed("read", &self.path, errno)),
            }
        }
        Ok(dirs)
    }

    fn is_opaque(&self, dir: &OwnedFd) -> Result<bool, CopyError> {
        Ok(self.attribute(dir, OPAQUE)?.as_deref() == Some(b"y"))
    }

    fn attribute(&self, file: &OwnedFd, wanted: &CStr) -> Result<Option<Vec<u8>>, CopyError> {
        let all = xattr::all(Subject::Open(file.as_fd()));
        let all = all.map_err(|errno| failed("read the attributes of", &self.path, errno))?;
        Ok(all.into_iter().find_map(|(name, value)| (name.as_c_str() == wanted).then_some(value)))
    }

    /// As docker compares: not the times of directories, and of attributes the one that gives rights.
    fn differs(
        &self,
        (upper, new): (BorrowedFd<'_>, &FileStat),
        (layer, old): (BorrowedFd<'_>, &FileStat),
        name: &CStr,
    ) -> Result<bool, CopyError> {
        if (new.st_mode, new.st_uid, new.st_gid, new.st_rdev) != (old.st_mode, old.st_uid, old.st_gid, old.st_rdev) {
            return Ok(true);
        }
        let kind = kind_of(new);
        let content = |stat: &FileStat| (stat.st_size, stat.st_mtime, stat.st_mtime_nsec);
        if kind == SFlag::S_IFDIR || content(new) != content(old) {
            return Ok(kind != SFlag::S_IFDIR);
        }
        if kind != SFlag::S_IFREG {
            return Ok(false);
        }
        let rights = |dir: BorrowedFd<'_>| {
            let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
            match openat(dir, name, flags, Mode::empty()) {
                Ok(file) => self.attribute(&file, CAPABILITY),
                // it is gone by now, or another thing
                Err(_) => Ok(None),
            }
        };
        Ok(rights(upper)? != rights(layer)?)
    }

    /// One change, and before it those that it is for the directories on its way.
    fn tell(&mut self, letter: u8) -> Result<(), CopyError> {
        let Comparison { out, pending, path, .. } = self;
        let above = pending.drain(..).map(|length| (b'C', length));
        for (letter, length) in above.chain([(letter, path.len())]) {
            let record = [&[letter], &path[..length], &[0]];
            record.iter().try_for_each(|part| out.write_all(part)).map_err(CopyError::Write)?;
        }
        Ok(())
    }
}

/// overlayfs's mark of something deleted: a character device 0:0.
fn is_whiteout(stat: &FileStat) -> bool {
    kind_of(stat) == SFlag::S_IFCHR && stat.st_rdev == 0
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    use nix::sys::stat::mknod;

    use super::super::tests::Scratch;
    use super::*;

    fn compared(dir: &Path) -> Result<Vec<String>, CopyError> {
        let own = fs::File::open(dir).unwrap();
        let mut out = Vec::new();
        changes(own.as_fd(), &mut out)?;
        let text = String::from_utf8(out).unwrap();
        Ok(text.split_terminator('\0').map(str::to_owned).collect())
    }

    fn write(dir: &Path, files: &[&str]) {
        for name in files {
            let path = dir.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, name).unwrap();
            let file = fs::File::options().write(true).open(&path).unwrap();
            file.set_modified(std::time::UNIX_EPOCH).unwrap();
        }
    }

    fn whiteout(path: &Path) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        mknod(path, SFlag::S_IFCHR, Mode::empty(), 0).unwrap();
    }

    fn opaque(path: &Path) {
        let dir = OwnedFd::from(fs::File::open(path).unwrap());
        xattr::set(Subject::Open(dir.as_fd()), OPAQUE, b"y").unwrap();
    }

    /// Without the right to make devices and such attributes, as root alone has it, there is nothing to compare.
    fn may() -> bool {
        let dir = Scratch::new();
        let may = mknod(&dir.0.join("w"), SFlag::S_IFCHR, Mode::empty(), 0).is_ok() && {
            let dir = OwnedFd::from(fs::File::open(&dir.0).unwrap());
            xattr::set(Subject::Open(dir.as_fd()), OPAQUE, b"y").is_ok()
        };
        if !may {
            eprintln!("skipped: not root, or in a place without trusted attributes");
        }
        may
    }

    #[test]
    fn a_root_without_layers_is_told() {
        let dir = Scratch::new();
        let error = compared(&dir.0).unwrap_err().to_string();
        assert!(error.starts_with("the container's root is one disk"), "{error}");
    }

    #[test]
    fn what_is_new_changed_and_gone() {
        if !may() {
            return;
        }
        let dir = Scratch::new();
        let [low, high, upper] = ["l0", "l1", "top/upper"].map(|name| dir.0.join(name));
        write(&low, &["a/old", "a/kept", "b/hidden", "c/deep/file", "gone/x", "whole/x", "again/one", "again/two"]);
        write(&high, &["a/high", "file"]);
        whiteout(&high.join("b"));
        // the image's own whiteouts are not the container's
        write(&upper, &["new/file", "a/old", "a/high", "again/two", "b/back"]);
        fs::write(upper.join("a/high"), "other").unwrap();
        fs::create_dir_all(upper.join("c/deep")).unwrap();
        whiteout(&upper.join("gone"));
        whiteout(&upper.join("whole/x"));
        whiteout(&upper.join("never"));
        opaque(&upper.join("again"));
        write(&upper, &["file"]);
        fs::set_permissions(upper.join("file"), fs::Permissions::from_mode(0o4755)).unwrap();
        let mut lines = compared(&dir.0).unwrap();
        let at = |line: &str| lines.iter().position(|one| one == line).unwrap_or_else(|| panic!("{line}: {lines:?}"));
        assert!(at("C/a") < at("C/a/high") && at("A/new") < at("A/new/file") && at("C/whole") < at("D/whole/x"));
        lines.sort();
        let expected = [
            "A/b",
            "A/b/back",
            "A/new",
            "A/new/file",
            "C/a",
            "C/a/high",
            "C/again",
            "C/file",
            "C/whole",
            "D/again/one",
            "D/gone",
            "D/whole/x",
        ];
        assert_eq!(lines, expected);
    }
}
