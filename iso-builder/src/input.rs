//! Files that are read from the start to the end, and again: what may be opened for that.

use std::fs::File;
use std::io;
use std::path::Path;

/// Opens a regular file. Anything else is refused before it is opened: a named pipe would block, and a device says that it holds no bytes.
pub fn open(path: &Path) -> io::Result<File> {
    match path.metadata()? {
        about if about.is_file() => File::open(path),
        about if about.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_are_opened() {
        let dir = tempfile::tempdir().unwrap();
        let (file, pipe) = (dir.path().join("file"), dir.path().join("pipe"));
        std::fs::write(&file, "here").unwrap();
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(open(&file).is_ok());
        assert_eq!(open(dir.path()).unwrap_err().kind(), io::ErrorKind::IsADirectory);
        for other in [&pipe, Path::new("/dev/zero")] {
            assert_eq!(open(other).unwrap_err().to_string(), "not a regular file");
        }
    }
}
