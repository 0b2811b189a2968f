//! What is to be stored: a raw image, grain by grain, and the id of its contents. How grains are stored is the writers'.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use flate2::Crc;

use super::Error;
use super::disk::{Disk, next_in_file};
use super::format::{GRAIN, SECTOR};
use crate::tree::ReadAt;

/// An image that knows its holes.
pub trait Raw: Sync {
    /// Fills `buf` from byte `from` on, with zeros where the image has ended.
    fn fill(&self, buf: &mut [u8], from: u64) -> io::Result<()>;

    /// The first byte from `from` on that may be other than zero, or `None`. Holes cost a call, not a read.
    fn next_data(&self, from: u64) -> io::Result<Option<u64>>;
}

impl Raw for File {
    fn fill(&self, buf: &mut [u8], from: u64) -> io::Result<()> {
        let mut filled = 0;
        while filled < buf.len() {
            match self.read_at(&mut buf[filled..], from + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        buf[filled..].fill(0);
        Ok(())
    }

    fn next_data(&self, from: u64) -> io::Result<Option<u64>> {
        next_in_file(self, from)
    }
}

/// The disk in a VMDK, to be stored in another way, or to be the parent of another.
#[derive(Clone, Debug)]
pub struct Stored(Arc<Disk>);

impl Stored {
    /// Opens it as [`super::open`] does.
    pub fn open(path: &std::path::Path) -> Result<Stored, Error> {
        Ok(Stored(Arc::new(Disk::open(path)?)))
    }

    /// Bytes of the disk.
    pub fn size(&self) -> u64 {
        self.0.bytes()
    }

    pub(super) fn cid(&self) -> u32 {
        self.0.cid()
    }
}

impl Raw for Stored {
    fn fill(&self, buf: &mut [u8], from: u64) -> io::Result<()> {
        let rest = self.size().saturating_sub(from);
        let (held, beyond) = buf.split_at_mut(usize::try_from(rest).map_or(buf.len(), |rest| rest.min(buf.len())));
        self.0.read_exact_at(held, from)?;
        beyond.fill(0);
        Ok(())
    }

    fn next_data(&self, from: u64) -> io::Result<Option<u64>> {
        self.0.next_data(from).map_err(Error::into_io)
    }
}

/// The first grain from `number` on that may hold something, of a disk of `size` bytes.
pub(super) fn next_grain(raw: &dyn Raw, number: u64, size: u64) -> Result<Option<u64>, Error> {
    let start = number * GRAIN;
    if start >= size {
        return Ok(None);
    }
    let next = raw.next_data(start).map_err(Error::Read)?;
    Ok(next.filter(|&at| at < size).map(|at| at / GRAIN))
}

/// Fills `grain` with what the first `size` bytes of `raw` have of it, and zeros.
pub(super) fn read_grain(raw: &dyn Raw, number: u64, size: u64, grain: &mut [u8]) -> Result<(), Error> {
    let rest = size - number * GRAIN;
    let (held, beyond) = grain.split_at_mut(usize::try_from(rest.min(GRAIN)).expect("a grain is in memory"));
    raw.fill(held, number * GRAIN).map_err(Error::Read)?;
    beyond.fill(0);
    Ok(())
}

/// In pieces that the compiler has wide instructions for: musl compares a byte at a time.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(64).all(|chunk| chunk.iter().fold(0, |all, byte| all | byte) == 0)
}

/// As `==`, in pieces like those of [`is_zero`].
pub(super) fn equal(one: &[u8], other: &[u8]) -> bool {
    let same =
        |(one, other): (&[u8], &[u8])| one.iter().zip(other).fold(0, |all, (one, other)| all | (one ^ other)) == 0;
    one.len() == other.len() && one.chunks(64).zip(other.chunks(64)).all(same)
}

/// The content id: a checksum of the grains that hold something and of where they are, so that the same contents have the same however they are stored.
/// QEMU takes a random number, and VMware's products too.
#[derive(Debug, Default)]
pub(super) struct ContentId(Crc);

impl ContentId {
    /// Of a disk whose first writer started from another.
    pub(super) fn of_child(parent: u32) -> ContentId {
        let mut id = ContentId::default();
        id.0.update(&parent.to_le_bytes());
        id
    }

    /// Takes up a grain; in order of their numbers.
    pub(super) fn grain(&mut self, number: u64, checksum: u32) {
        self.0.update(&number.to_le_bytes());
        self.0.update(&checksum.to_le_bytes());
    }

    /// `ffffffff` says that there is no parent, and `fffffffe` that the disk is new: neither is a content id.
    pub(super) fn value(&self) -> u32 {
        self.0.sum().min(u32::MAX - 2)
    }
}

/// What of a grain goes into a content id.
pub(super) fn checksum(grain: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(grain);
    crc.sum()
}

/// Sectors of a disk; a last one is filled up.
pub(super) fn capacity(size: u64) -> u64 {
    size.div_ceil(SECTOR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_anywhere_are_seen() {
        for length in [0, 1, 63, 64, 65, 200] {
            let zeros = vec![0; length];
            assert!(is_zero(&zeros) && equal(&zeros, &zeros));
            for at in 0..length {
                let mut bytes = zeros.clone();
                bytes[at] = 0x80;
                assert!(!is_zero(&bytes) && !equal(&zeros, &bytes), "{at} of {length}");
            }
        }
        assert!(!equal(&[0], &[]));
    }
}
