//! Files that are there whole or not at all, and files that need not be there.
//!
//! It decides how a file takes another's place. What is in it, and what a failure is called, is its user's.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// How long a file has to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lasts {
    /// As long as the host is on.
    Boot,
    /// Also over a loss of power.
    Always,
}

/// Writes a file that only its owner may read. Whoever reads it finds this one or the one before. Beside it, `part` instead of its ending, may lie what a killed program left.
pub(crate) fn write(path: &Path, bytes: &[u8], lasts: Lasts) -> io::Result<()> {
    let beside = path.with_extension("part");
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(bytes)?;
    if lasts == Lasts::Always {
        file.sync_all()?;
    }
    fs::rename(&beside, path)?;
    match path.parent().filter(|_| lasts == Lasts::Always) {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

/// What the file system answers; none where it says that there is no such file.
pub(crate) fn if_there<T>(answer: io::Result<T>) -> io::Result<Option<T>> {
    match answer {
        Ok(it) => Ok(Some(it)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn what_is_read_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("it.json");
        assert_eq!(if_there(fs::read(&path)).unwrap(), None);
        for (text, lasts) in [("one", Lasts::Boot), ("two", Lasts::Always)] {
            // a killed program's
            write(&dir.path().join("it.left"), b"halfway through a longer one", lasts).unwrap();
            fs::rename(dir.path().join("it.left"), dir.path().join("it.part")).unwrap();
            write(&path, text.as_bytes(), lasts).unwrap();
            assert_eq!(if_there(fs::read(&path)).unwrap().unwrap(), text.as_bytes());
        }
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        // what cannot be written leaves what was there
        fs::create_dir(dir.path().join("it.part")).unwrap();
        assert!(write(&path, b"three", Lasts::Always).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert!(if_there(fs::read(dir.path())).is_err());
    }
}
