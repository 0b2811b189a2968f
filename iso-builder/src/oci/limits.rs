//! How much an image may hold before it is taken for an attack: a few kilobytes can say that they unpack to terabytes, or to millions of empty files.
//!
//! It decides the numbers and counts. What does not fit on a disk is told by who writes the disk.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bounds of one image; for all of its layers together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Entries of tar archives: files, directories, links, whiteouts.
    pub entries: u64,
    /// Bytes of names, link targets, xattrs and maps of sparse files: they are held in memory.
    pub described: u64,
    /// Bytes of tar that layers unpack to: they take time, and the disk what is not zero of them.
    pub unpacked: u64,
}

impl Default for Limits {
    /// The largest images in use have a million files, which take 100 MB to describe, and a few dozen gigabytes.
    fn default() -> Limits {
        Limits { entries: 4 << 20, described: 512 << 20, unpacked: 256 << 30 }
    }
}

/// Which bound an image went beyond.
#[derive(Debug, thiserror::Error)]
pub enum LimitError {
    #[error("with it the image has more than {limit} entries, the limit (--max-entries)")]
    Entries { limit: u64 },
    #[error("with it the image's names, links, xattrs and sparse maps take more than {limit} bytes, the limit")]
    Described { limit: u64 },
    #[error("with it the image unpacks to more than {limit} bytes, the limit (--max-unpacked)")]
    Unpacked { limit: u64 },
}

/// What of the limits is used up; several threads count at once.
#[derive(Debug)]
pub(super) struct Budget {
    limits: Limits,
    entries: AtomicU64,
    described: AtomicU64,
    unpacked: AtomicU64,
}

impl Budget {
    pub(super) fn new(limits: Limits) -> Budget {
        let zero = || AtomicU64::new(0);
        Budget { limits, entries: zero(), described: zero(), unpacked: zero() }
    }

    /// One more entry, which takes so many bytes of memory to describe.
    pub(super) fn entry(&self, described: u64) -> Result<(), LimitError> {
        if spend(&self.entries, 1, self.limits.entries) {
            return Err(LimitError::Entries { limit: self.limits.entries });
        }
        if spend(&self.described, described, self.limits.described) {
            return Err(LimitError::Described { limit: self.limits.described });
        }
        Ok(())
    }

    /// So many more bytes of tar.
    pub(super) fn unpacked(&self, bytes: u64) -> Result<(), LimitError> {
        match spend(&self.unpacked, bytes, self.limits.unpacked) {
            true => Err(LimitError::Unpacked { limit: self.limits.unpacked }),
            false => Ok(()),
        }
    }
}

/// Whether that is beyond the limit.
fn spend(used: &AtomicU64, more: u64, limit: u64) -> bool {
    used.fetch_add(more, Ordering::Relaxed).saturating_add(more) > limit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_at_a_limit_passes_and_one_more_does_not() {
        let budget = Budget::new(Limits { entries: 2, described: 10, unpacked: 100 });
        budget.entry(4).unwrap();
        budget.unpacked(100).unwrap();
        assert!(matches!(budget.entry(7), Err(LimitError::Described { limit: 10 })));
        assert!(matches!(budget.entry(0), Err(LimitError::Entries { limit: 2 })));
        assert!(matches!(budget.unpacked(1), Err(LimitError::Unpacked { limit: 100 })));
    }
}
