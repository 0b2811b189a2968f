//! Blocks on their way to the image file: gathered into large writes, left out where they are zero.
//!
//! Decides nothing about what is in a block.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::error::Error;
use super::format::{BLOCK, BLOCK_BYTES, ZEROS, wide};

/// Bytes gathered before they are written: enough that small files cost no system call each.
const GATHER: usize = 1 << 20;

/// An empty image file of the final size being filled. Whatever is not put reads as zero.
#[derive(Debug)]
pub(super) struct Sink<'a> {
    file: &'a File,
    gathered: Vec<u8>,
    /// The block that `gathered` starts with.
    start: u64,
    written: u64,
}

impl<'a> Sink<'a> {
    /// Empties the file and gives it its size.
    pub(super) fn new(file: &'a File, size: u64) -> Result<Sink<'a>, Error> {
        file.set_len(0).and_then(|()| file.set_len(size)).map_err(|source| Error::Write { source })?;
        Ok(Sink::beside(file))
    }

    /// Another way into a file that has its size already.
    pub(super) fn beside(file: &'a File) -> Sink<'a> {
        Sink { file, gathered: Vec::with_capacity(GATHER), start: 0, written: 0 }
    }

    /// Puts whole blocks from block `place` on.
    pub(super) fn put(&mut self, place: u64, bytes: &[u8]) -> Result<(), Error> {
        debug_assert!(bytes.len().is_multiple_of(BLOCK));
        for (block, place) in bytes.chunks(BLOCK).zip(place..) {
            if block == ZEROS {
                continue;
            }
            let follows = self.start + wide(self.gathered.len()) / BLOCK_BYTES == place;
            if !follows || self.gathered.len() >= GATHER {
                self.flush()?;
                self.start = place;
            }
            self.gathered.extend_from_slice(block);
        }
        Ok(())
    }

    /// Writes what is left, and tells how many bytes were written in all.
    pub(super) fn finish(mut self) -> Result<u64, Error> {
        self.flush()?;
        Ok(self.written)
    }

    fn flush(&mut self) -> Result<(), Error> {
        let at = self.start * BLOCK_BYTES;
        self.file.write_all_at(&self.gathered, at).map_err(|source| Error::Write { source })?;
        self.written += wide(self.gathered.len());
        self.gathered.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn zeros_stay_holes_and_the_rest_arrives() {
        let file = tempfile::tempfile().unwrap();
        let mut sink = Sink::new(&file, 1 << 30).unwrap();
        sink.put(9, &[[1; BLOCK], [0; BLOCK], [2; BLOCK]].concat()).unwrap();
        sink.put(12, &[3; BLOCK]).unwrap();
        sink.put(5, &[4; BLOCK]).unwrap();
        assert_eq!(sink.finish().unwrap(), 4 * BLOCK_BYTES);
        let mut bytes = [0; 8 * BLOCK];
        file.read_exact_at(&mut bytes, 5 * BLOCK_BYTES).unwrap();
        let firsts: Vec<u8> = bytes.chunks(BLOCK).map(|block| block[0]).collect();
        assert_eq!(firsts, [4, 0, 0, 0, 1, 0, 2, 3]);
        let meta = file.metadata().unwrap();
        assert_eq!(meta.size(), 1 << 30);
        assert!(meta.blocks() * 512 < 1 << 20);
    }

    #[test]
    fn a_full_disk_is_an_error() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut sink = Sink { file: &full, gathered: Vec::new(), start: 0, written: 0 };
        sink.put(0, &[1; BLOCK]).unwrap();
        let error = sink.finish().unwrap_err();
        assert!(matches!(error, Error::Write { .. }));
    }
}
