//! Files that appear whole or not at all: written without a name, flushed, then named in one step.
//!
//! Every artifact goes through [`Output`]. It decides nothing about what is written.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::libc;
use nix::unistd::linkat;
use tempfile::{Builder, TempPath};

/// A file being made. Without [`Output::publish`] it leaves nothing behind, even when the process is killed.
#[derive(Debug)]
pub struct Output {
    file: File,
    /// Only where the file system knows no files without a name: then a killed process does leave this one.
    named: Option<TempPath>,
    path: PathBuf,
}

impl Output {
    /// Starts a file that will become `path`. The directory must exist. A device, as `/dev/null` is, or a named pipe is not replaced: others need it.
    pub fn create(path: &Path) -> io::Result<Output> {
        if path.metadata().is_ok_and(|there| !there.is_file() && !there.is_dir()) {
            return Err(io::Error::other("there is a device or pipe of that name, and a file would take its place"));
        }
        let dir = directory(path);
        // an artifact is for everyone to read, less what the umask takes
        let unnamed = OpenOptions::new().read(true).write(true).custom_flags(libc::O_TMPFILE).mode(0o644).open(dir);
        let (file, named) = match unnamed {
            Ok(file) => (file, None),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR | libc::EINVAL)) => {
                let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o644);
                let (file, path) =
                    Builder::new().prefix(PREFIX).permissions(permissions).tempfile_in(dir)?.into_parts();
                (file, Some(path))
            }
            Err(error) => return Err(error),
        };
        Ok(Output { file, named, path: path.to_owned() })
    }

    pub fn file(&self) -> &File {
        &self.file
    }

    pub fn file_mut(&mut self) -> &mut File {
        &mut self.file
    }

    /// Publishes the file as `path`, in the same file system, whatever it was to be when it was started.
    pub fn publish_as(self, path: &Path) -> io::Result<()> {
        Output { path: path.to_owned(), ..self }.publish()
    }

    /// Flushes the file to the disk and gives it its name, in place of what had it before.
    pub fn publish(self) -> io::Result<()> {
        let (named, path) = self.name()?;
        named.persist(&path).map_err(|error| error.error)
    }

    /// All of it that can fail for want of room or rights: the file is on the disk, under a name that is not yet its own.
    fn name(self) -> io::Result<(TempPath, PathBuf)> {
        self.file.sync_all()?;
        let named = match self.named {
            Some(named) => named,
            // a link cannot take another file's place, a rename can: so it gets a name of its own first
            None => Builder::new()
                .prefix(PREFIX)
                .make_in(directory(&self.path), |path| {
                    let unnamed = format!("/proc/self/fd/{}", self.file.as_raw_fd());
                    Ok(linkat(AT_FDCWD, unnamed.as_str(), AT_FDCWD, path, AtFlags::AT_SYMLINK_FOLLOW)?)
                })
                .map(tempfile::NamedTempFile::into_temp_path)?,
        };
        Ok((named, self.path))
    }
}

/// Bytes that are free for us on the file system of `file`.
pub(crate) fn room(file: &File) -> io::Result<u64> {
    let stat = nix::sys::statvfs::fstatvfs(file)?;
    Ok(stat.blocks_available().saturating_mul(stat.fragment_size()))
}

/// Publishes two files of which the second refers to the first: it is never there without it. Where the second fails, the first is taken away again.
pub fn publish_both(first: Output, second: Output) -> io::Result<()> {
    let ((first, first_path), (second, second_path)) = (first.name()?, second.name()?);
    first.persist(&first_path).map_err(|error| error.error)?;
    second.persist(&second_path).map_err(|error| match std::fs::remove_file(&first_path) {
        Ok(()) => error.error,
        Err(left) => {
            io::Error::new(error.error.kind(), format!("{}; and {} is left: {left}", error.error, first_path.display()))
        }
    })
}

const PREFIX: &str = ".iso-builder-";

/// The directory that a path's file is in.
pub fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_file_appears_whole_and_takes_the_place_of_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("artifact");
        for text in ["old", "new"] {
            let mut output = Output::create(&path).unwrap();
            output.file_mut().write_all(text.as_bytes()).unwrap();
            output.publish().unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(names(dir.path()), ["artifact"]);
    }

    #[test]
    fn a_device_or_pipe_keeps_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let (pipe, link) = (dir.path().join("pipe"), dir.path().join("link"));
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::os::unix::fs::symlink("/dev/null", &link).unwrap();
        for path in [pipe, link] {
            assert!(Output::create(&path).unwrap_err().to_string().contains("device or pipe"), "{}", path.display());
        }
    }

    #[test]
    fn two_files_appear_or_none() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        publish_both(Output::create(&at("a")).unwrap(), Output::create(&at("b")).unwrap()).unwrap();
        let mut all = names(dir.path());
        all.sort();
        assert_eq!(all, ["a", "b"]);
        std::fs::create_dir(at("taken")).unwrap();
        let second = Output::create(&at("taken")).unwrap();
        assert!(publish_both(Output::create(&at("c")).unwrap(), second).is_err());
        assert!(!at("c").exists());
    }

    #[test]
    fn what_is_not_published_was_never_there() {
        let dir = tempfile::tempdir().unwrap();
        let mut output = Output::create(&dir.path().join("artifact")).unwrap();
        output.file_mut().write_all(b"half").unwrap();
        if output.named.is_none() {
            assert!(names(dir.path()).is_empty(), "even now");
        }
        drop(output);
        assert!(names(dir.path()).is_empty());
    }
}
