//! Contents on their way to the image, read ahead where files lie one behind another, as those of a layer that is not compressed do.
//!
//! Decides how much is read at once, not of what.

use std::io;

use super::format::{index, wide};
use crate::tree::{Content, Source};

/// The last bytes read.
#[derive(Debug, Default)]
pub(super) struct Window {
    bytes: Vec<u8>,
    /// What they were read from, and the offset there; `None` for what is no plain part of a source.
    origin: Option<(Source, u64)>,
}

impl Window {
    /// `len` bytes of a file from its offset `at`, holes as zeros.
    pub(super) fn read(&mut self, content: &Content, at: u64, len: usize) -> io::Result<&[u8]> {
        let found = content.extents.iter().find(|extent| extent.at <= at && at + wide(len) <= extent.at + extent.len);
        let Some(extent) = found else {
            self.origin = None;
            self.bytes.resize(len, 0);
            content.read_exact_at(&mut self.bytes, at)?;
            return Ok(&self.bytes);
        };
        let (source, from) = (&extent.source, extent.from + (at - extent.at));
        let ahead = match &self.origin {
            Some((other, start)) if other.is(source) && from >= *start => {
                let (skipped, held) = (from - start, wide(self.bytes.len()));
                if skipped + wide(len) <= held {
                    return Ok(&self.bytes[index(skipped)..][..len]);
                }
                // one that follows is followed itself, most likely
                if skipped <= held + NEAR { index(source.size()?.saturating_sub(from).min(AHEAD)) } else { 0 }
            }
            _ => 0,
        };
        self.origin = None;
        self.bytes.resize(len.max(ahead), 0);
        source.read_exact_at(&mut self.bytes, from)?;
        self.origin = Some((source.clone(), from));
        Ok(&self.bytes[..len])
    }
}

/// Bytes read at once of small files: enough that calls cost little, and fit for a cache.
const AHEAD: u64 = 256 << 10;

/// Bytes between two files that count as neighbours: a tar has headers there, and here and there a file that is elsewhere on the disk.
const NEAR: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Extent;

    #[test]
    fn what_is_read_ahead_is_what_is_there() {
        let bytes: Vec<u8> = (0..700_000u32).map(|n| (n / 3).to_le_bytes()[0]).collect();
        let source = Source::Memory(bytes.clone().into());
        let file = |from: u64, len: u64| Content {
            size: len,
            extents: Extent { at: 0, len, source: source.clone(), from }.into(),
        };
        let mut window = Window::default();
        // in order, back, far ahead, over the end of what was read ahead, and up to the end
        for (from, len) in [(0, 10), (512, 3000), (4096, 9), (100, 50), (400_000, 8), (400_100, 200_000), (699_990, 10)]
        {
            let end = index(from + len);
            assert_eq!(window.read(&file(from, len), 0, index(len)).unwrap(), &bytes[index(from)..end], "{from}");
        }
        let other = Content::from_bytes(*b"abc");
        assert_eq!(window.read(&other, 1, 2).unwrap(), b"bc");
        let sparse = Content {
            size: 9,
            extents: Extent { at: 4, len: 2, source: other.extents[0].source.clone(), from: 0 }.into(),
        };
        assert_eq!(window.read(&sparse, 0, 9).unwrap(), b"\0\0\0\0ab\0\0\0");
        assert_eq!(window.read(&other, 0, 3).unwrap(), b"abc");
        assert!(window.read(&file(699_999, 2), 0, 2).is_err());
        assert_eq!(window.read(&file(0, 3), 0, 3).unwrap(), &bytes[..3], "an error leaves nothing behind");
    }
}
