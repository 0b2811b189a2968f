//! A run of bytes in a file, read without moving the file's cursor, so that many may read one archive.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::tar::Stream;

/// `len` bytes of `file` from offset `start`.
#[derive(Clone, Debug)]
pub(super) struct Section {
    pub(super) file: Arc<File>,
    pub(super) start: u64,
    pub(super) len: u64,
}

impl Section {
    /// All of a file, as long as it is now.
    pub(super) fn whole(file: File) -> io::Result<Section> {
        let len = file.metadata()?.len();
        Ok(Section { file: Arc::new(file), start: 0, len })
    }

    pub(super) fn reader(&self) -> SectionReader {
        SectionReader { section: self.clone(), at: 0 }
    }

    /// The whole section in memory, or `None` when it is longer than `limit`.
    pub(super) fn read_up_to(&self, limit: u64) -> io::Result<Option<Vec<u8>>> {
        if self.len > limit {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        self.reader().read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }
}

/// A cursor in a [`Section`].
#[derive(Debug)]
pub(super) struct SectionReader {
    section: Section,
    at: u64,
}

impl Read for SectionReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = self.section.len - self.at;
        let len = usize::try_from(left).map_or(buf.len(), |left| left.min(buf.len()));
        if len == 0 {
            return Ok(0);
        }
        match self.section.file.read_at(&mut buf[..len], self.section.start + self.at)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                self.at += read as u64;
                Ok(read)
            }
        }
    }
}

impl Stream for SectionReader {
    fn skip(&mut self, len: u64) -> io::Result<()> {
        if len > self.section.len - self.at {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += len;
        Ok(())
    }
}
