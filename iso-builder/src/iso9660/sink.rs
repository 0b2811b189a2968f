//! Bytes on their way to the image file: gathered into large writes, and remembered as a digest.
//!
//! What is never put stays a hole, which reads as zero. Decides nothing about what the bytes are.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use sha2::{Digest as _, Sha256};

use super::format::SECTOR_BYTES;

/// Bytes gathered before they are written: enough that small files cost no system call each.
const GATHER: usize = 1 << 20;

/// A file that is given its bytes, best in order.
#[derive(Debug)]
pub(super) struct Sink<'a> {
    out: &'a File,
    gathered: Vec<u8>,
    /// Where the gathered bytes begin.
    start: u64,
    digest: Sha256,
}

impl<'a> Sink<'a> {
    /// Gives the file its size; it is empty until then.
    pub(super) fn new(out: &'a File, size: u64) -> io::Result<Sink<'a>> {
        out.set_len(0)?;
        out.set_len(size)?;
        Ok(Sink { out, gathered: Vec::with_capacity(GATHER), start: 0, digest: Sha256::new() })
    }

    pub(super) fn put(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        for (chunk, at) in bytes.chunks(GATHER).zip((at..).step_by(GATHER)) {
            self.room(at, chunk.len())?.copy_from_slice(chunk);
        }
        Ok(())
    }

    /// Room for `len` bytes, [`Sink::CHUNK`] at most, that are to be filled in.
    pub(super) fn room(&mut self, at: u64, len: usize) -> io::Result<&mut [u8]> {
        let end = self.start + self.gathered.len() as u64;
        // the rest of a sector is not worth a write of its own
        let gap = at.checked_sub(end).filter(|gap| *gap < SECTOR_BYTES).and_then(|gap| usize::try_from(gap).ok());
        match gap {
            Some(gap) if self.gathered.len() + gap + len <= GATHER => {
                self.gathered.resize(self.gathered.len() + gap, 0)
            }
            _ => {
                self.flush()?;
                self.start = at;
            }
        }
        let from = self.gathered.len();
        self.gathered.resize(from + len, 0);
        Ok(&mut self.gathered[from..])
    }

    /// The most that may be put at once.
    pub(super) const CHUNK: u64 = GATHER as u64;

    fn flush(&mut self) -> io::Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        self.out.write_all_at(&self.gathered, self.start)?;
        // a checksum of contents is enough to tell images apart, and costs next to nothing
        self.digest.update(self.start.to_le_bytes());
        self.digest.update(crc32c::crc32c(&self.gathered).to_le_bytes());
        self.gathered.clear();
        Ok(())
    }

    /// Writes what is left, and returns 32 bytes that depend on all that was put.
    pub(super) fn digest(&mut self) -> io::Result<[u8; 32]> {
        self.flush()?;
        Ok(self.digest.clone().finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn what_is_put_arrives_and_the_rest_is_a_hole() {
        let file = tempfile::tempfile().unwrap();
        let mut sink = Sink::new(&file, 1 << 30).unwrap();
        sink.put(5, b"abc").unwrap();
        sink.put(10, b"de").unwrap();
        sink.put(1 << 29, &vec![7; 3 * GATHER + 5]).unwrap();
        sink.put(6, b"X").unwrap();
        let digest = sink.digest().unwrap();
        let mut start = [0; 12];
        file.read_exact_at(&mut start, 0).unwrap();
        assert_eq!(&start, b"\0\0\0\0\0aXc\0\0de");
        let mut end = [0; 2];
        file.read_exact_at(&mut end, (1 << 29) + 3 * GATHER as u64 + 4).unwrap();
        assert_eq!(end, [7, 0]);
        let meta = file.metadata().unwrap();
        assert!(meta.size() == 1 << 30 && meta.blocks() * 512 < 4 << 20);
        assert_eq!(digest, sink.digest().unwrap());
    }

    #[test]
    fn a_full_disk_is_an_error() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut sink = Sink { out: &full, gathered: Vec::new(), start: 0, digest: Sha256::new() };
        sink.put(0, b"a").unwrap();
        assert!(sink.digest().is_err());
    }
}
