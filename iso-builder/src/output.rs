//! Files that appear whole or not at all: written beside their place, flushed, then renamed.
//!
//! Every artifact goes through [`Output`]. It decides nothing about what is written.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

/// A file being made. Dropped without [`Output::publish`], it leaves nothing behind.
#[derive(Debug)]
pub struct Output {
    file: NamedTempFile,
    path: PathBuf,
}

impl Output {
    /// Starts a file that will become `path`. The directory must exist.
    pub fn create(path: &Path) -> io::Result<Output> {
        let dir = match path.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir,
            _ => Path::new("."),
        };
        let file = tempfile::Builder::new().prefix(".iso-builder-").permissions(permissions()).tempfile_in(dir)?;
        Ok(Output { file, path: path.to_owned() })
    }

    pub fn file(&self) -> &File {
        self.file.as_file()
    }

    pub fn file_mut(&mut self) -> &mut File {
        self.file.as_file_mut()
    }

    /// Flushes the file to the disk and gives it its name, in place of what had it before.
    pub fn publish(self) -> io::Result<()> {
        self.file.as_file().sync_all()?;
        self.file.persist(&self.path).map_err(|error| error.error)?;
        Ok(())
    }
}

/// An artifact is for everyone to read, less what the umask takes; `tempfile` alone would say 0600.
fn permissions() -> std::fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o644)
}
