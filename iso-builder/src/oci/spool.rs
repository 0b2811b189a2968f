//! One unlinked file that takes the contents of files as layers stream by.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file without a name, written in order.
#[derive(Debug)]
pub(super) struct Spool {
    file: Arc<File>,
    dir: PathBuf,
    written: u64,
    buffer: Vec<u8>,
}

/// The spool took no more: as a rule, the disk is full.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to the spool directory {}", dir.display())]
pub struct SpoolError {
    dir: PathBuf,
    source: io::Error,
}

impl Spool {
    pub(super) fn create(dir: &Path) -> Result<Spool, SpoolError> {
        let file = tempfile::tempfile_in(dir).map_err(|source| SpoolError { dir: dir.to_owned(), source })?;
        Ok(Spool { file: Arc::new(file), dir: dir.to_owned(), written: 0, buffer: Vec::new() })
    }

    pub(super) fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Where the next byte goes.
    pub(super) fn end(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<(), SpoolError> {
        if self.buffer.len() + bytes.len() > BUFFER {
            self.flush()?;
        }
        if bytes.len() >= BUFFER {
            return self.write(bytes);
        }
        if self.buffer.capacity() == 0 {
            // most spools are never written to
            self.buffer.reserve_exact(BUFFER);
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// Gives the kernel what is held back; only then may it be read.
    pub(super) fn flush(&mut self) -> Result<(), SpoolError> {
        let buffer = std::mem::take(&mut self.buffer);
        self.write(&buffer)?;
        self.buffer = buffer;
        self.buffer.clear();
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), SpoolError> {
        self.file.write_all_at(bytes, self.written).map_err(|source| SpoolError { dir: self.dir.clone(), source })?;
        self.written += bytes.len() as u64;
        Ok(())
    }
}

/// Bytes held back: most files of an image are smaller, and a call per file costs more than the copy.
const BUFFER: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_with_its_directory() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut spool =
            Spool { file: Arc::new(full), dir: "/var/spool".into(), written: 0, buffer: Vec::with_capacity(BUFFER) };
        spool.append(b"x").unwrap();
        let error = anyhow::Error::from(spool.flush().unwrap_err());
        let expected = "cannot write to the spool directory /var/spool: No space left on device (os error 28)";
        assert_eq!(format!("{error:#}"), expected);
    }
}
