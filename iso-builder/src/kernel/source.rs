//! Where the kernel's source lies, and its digest.
//!
//! The pin is `kernel-config/SOURCE`. The digest of 150 MB takes half a second, so it is remembered by the file's path,
//! size and time: a kernel that is already built must be found at once. Nothing is downloaded.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Error, at};
use crate::{digest, progress};

/// A tarball of the kernel's source.
#[derive(Clone, Debug)]
pub struct Source {
    pub path: PathBuf,
    /// SHA-256 of the tarball, in hex.
    pub digest: String,
}

impl Source {
    /// The tarball that was named, or the pinned one. `cache` remembers digests.
    pub fn find(named: Option<&Path>, cache: &Path) -> Result<Source, Error> {
        let path = named.unwrap_or(Path::new(pin("path")));
        // The path is part of what is remembered, so it must be whole.
        let path = match fs::canonicalize(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let (package, version) = (pin("debian-package"), version());
                return Err(Error::Source { path: path.to_owned(), package, version });
            }
            other => other.map_err(at(path))?,
        };
        let file = File::open(&path).map_err(at(&path))?;
        let meta = file.metadata().map_err(at(&path))?;
        let stamp = format!("{} {}.{} {}", meta.len(), meta.mtime(), meta.mtime_nsec(), meta.ino());
        let note = cache.join("tether/digests").join(digest::bytes(path.as_os_str().as_encoded_bytes()));
        if let Some(digest) = remembered(&note, &stamp) {
            return Ok(Source { path, digest });
        }
        let digest = digest::file(&file).map_err(at(&path))?;
        // A digest that cannot be remembered is only computed again.
        if let Err(error) = remember(&note, &stamp, &digest) {
            progress::note(&format!("kernel: {}: {error}", note.display()));
        }
        Ok(Source { path, digest })
    }
}

/// The release that `kernel-config/` is for, as in `6.12`.
pub fn version() -> &'static str {
    pin("version")
}

/// A value of `kernel-config/SOURCE`.
fn pin(name: &str) -> &'static str {
    let values = include_str!("../../../kernel-config/SOURCE").lines().filter(|line| !line.starts_with('#'));
    let mut pairs = values.filter_map(|line| line.split_once('='));
    pairs.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim()).expect("kernel-config/SOURCE has the key")
}

fn remembered(note: &Path, stamp: &str) -> Option<String> {
    let text = fs::read_to_string(note).ok()?;
    let (of, digest) = text.trim_end().split_once('\n')?;
    (of == stamp && digest.len() == 64).then(|| digest.to_owned())
}

fn remember(note: &Path, stamp: &str, digest: &str) -> io::Result<()> {
    fs::create_dir_all(note.parent().unwrap_or(Path::new("/")))?;
    let output = crate::output::Output::create(note)?;
    io::Write::write_all(&mut output.file(), format!("{stamp}\n{digest}\n").as_bytes())?;
    output.publish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_tarball_gets_a_new_digest() {
        let dir = tempfile::tempdir().unwrap();
        let tarball = dir.path().join("linux.tar.xz");
        fs::write(&tarball, b"one").unwrap();
        let first = Source::find(Some(&tarball), dir.path()).unwrap();
        assert_eq!(first.digest, digest::bytes(b"one"));
        assert_eq!(Source::find(Some(&tarball), dir.path()).unwrap().digest, first.digest);
        fs::write(&tarball, b"longer").unwrap();
        assert_eq!(Source::find(Some(&tarball), dir.path()).unwrap().digest, digest::bytes(b"longer"));
    }

    #[test]
    fn no_tarball_is_an_error_with_a_way_out() {
        let dir = tempfile::tempdir().unwrap();
        let error = Source::find(Some(&dir.path().join("none")), dir.path()).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("apt-get install linux-source-6.12") && text.contains("--source FILE"), "{text}");
    }
}
