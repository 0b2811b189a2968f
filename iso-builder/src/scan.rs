//! What a file holds, block by block, found while its bytes pass by in order: which blocks of 4 KiB have a byte that is not zero, and a checksum over those.
//!
//! It decides nothing about where blocks go. What was found is kept small: an image has many files.

/// Bytes of a block.
pub(crate) const BLOCK: usize = 4096;

/// `len` blocks of a file from its block `start`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    pub start: u32,
    pub len: u32,
}

/// What was found in one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// Blocks that are not all zero, in order, not touching each other.
    pub runs: Vec<Run>,
    /// CRC-32C over them; of the last block only what is in the file.
    pub checksum: u32,
}

/// Cuts the parts of a file, which come in order, into whole blocks; what no part covers of a block is zero.
#[derive(Debug)]
pub(crate) struct Cutter {
    block: Box<[u8; BLOCK]>,
    /// The block that is being filled.
    open: Option<u64>,
}

impl Cutter {
    pub(crate) fn new() -> Cutter {
        Cutter { block: Box::new([0; BLOCK]), open: None }
    }

    /// Takes the bytes from offset `at` on; `cut` is given whole blocks in a row, by the number of the first.
    pub(crate) fn add<E>(
        &mut self,
        mut at: u64,
        mut bytes: &[u8],
        cut: &mut impl FnMut(u64, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        while !bytes.is_empty() {
            let (number, within) = (at / BLOCK as u64, within(at));
            if self.open.is_some_and(|open| open != number) {
                self.close(cut)?;
            }
            let len = match (self.open, within) {
                (None, 0) if bytes.len() >= BLOCK => {
                    let len = bytes.len() / BLOCK * BLOCK;
                    cut(number, &bytes[..len])?;
                    len
                }
                _ => {
                    let len = bytes.len().min(BLOCK - within);
                    self.open = Some(number);
                    self.block[within..within + len].copy_from_slice(&bytes[..len]);
                    if within + len == BLOCK {
                        self.close(cut)?;
                    }
                    len
                }
            };
            at += len as u64;
            bytes = &bytes[len..];
        }
        Ok(())
    }

    /// Gives the last block, if it was not full, and is ready for another file.
    pub(crate) fn close<E>(&mut self, cut: &mut impl FnMut(u64, &[u8]) -> Result<(), E>) -> Result<(), E> {
        let Some(number) = self.open.take() else { return Ok(()) };
        let cut = cut(number, &self.block[..]);
        self.block.fill(0);
        cut
    }
}

/// Scans the blocks of one file.
#[derive(Debug)]
pub(crate) struct Scanner {
    size: u64,
    found: Scan,
}

impl Scanner {
    /// For a file of `size` bytes; beyond 16 TiB, which no file system of ours holds, blocks are not told apart.
    pub(crate) fn new(size: u64) -> Scanner {
        Scanner { size, found: Scan::default() }
    }

    /// Looks at whole blocks, of which `first` is the number of the first. They come in order.
    pub(crate) fn look(&mut self, first: u64, blocks: &[u8]) {
        for (block, number) in blocks.chunks(BLOCK).zip(first..) {
            if *block == ZEROS {
                continue;
            }
            let inside =
                usize::try_from(self.size.saturating_sub(number * BLOCK as u64)).map_or(BLOCK, |len| len.min(BLOCK));
            self.found.checksum = crc32c::crc32c_append(self.found.checksum, &block[..inside]);
            let number = u32::try_from(number).unwrap_or(u32::MAX);
            match self.found.runs.last_mut() {
                Some(last) if last.start.checked_add(last.len) == Some(number) => last.len += 1,
                _ => self.found.runs.push(Run { start: number, len: 1 }),
            }
        }
    }

    pub(crate) fn finish(self) -> Scan {
        self.found
    }

    /// Pieces that are not in a row, so far.
    pub(crate) fn runs(&self) -> usize {
        self.found.runs.len()
    }
}

/// What was found in many files, by a number that grows from one to the next.
#[derive(Debug, Default)]
pub(crate) struct Scans {
    files: Vec<Known>,
    runs: Vec<Run>,
}

#[derive(Debug)]
struct Known {
    key: u64,
    checksum: u32,
    /// Its first run's place in the list; the next file's are behind its own.
    runs: u32,
}

impl Scans {
    /// Keeps what was found under `key`, which must be larger than the last one; otherwise, or when there is too much, it is forgotten.
    pub(crate) fn keep(&mut self, key: u64, scan: &Scan) {
        let Ok(runs) = u32::try_from(self.runs.len()) else { return };
        if self.files.last().is_none_or(|last| last.key < key) {
            self.files.push(Known { key, checksum: scan.checksum, runs });
            self.runs.extend_from_slice(&scan.runs);
        }
    }

    pub(crate) fn get(&self, key: u64) -> Option<Scan> {
        let place = self.files.binary_search_by_key(&key, |file| file.key).ok()?;
        let end = self.files.get(place + 1).map_or(self.runs.len(), |next| next.runs as usize);
        let file = &self.files[place];
        Some(Scan { runs: self.runs[file.runs as usize..end].to_vec(), checksum: file.checksum })
    }
}

/// An offset within its block.
#[allow(clippy::cast_possible_truncation)]
fn within(at: u64) -> usize {
    (at % BLOCK as u64) as usize
}

const ZEROS: [u8; BLOCK] = [0; BLOCK];

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    /// The scan of a file whose parts are added as they are given.
    fn scan(size: u64, parts: &[(u64, &[u8])]) -> Scan {
        let (mut cutter, mut scanner) = (Cutter::new(), Scanner::new(size));
        let mut cut = |first, blocks: &[u8]| {
            scanner.look(first, blocks);
            Ok::<_, Infallible>(())
        };
        parts.iter().for_each(|(at, bytes)| cutter.add(*at, bytes, &mut cut).unwrap());
        cutter.close(&mut cut).unwrap();
        scanner.finish()
    }

    #[test]
    fn how_the_bytes_are_cut_does_not_matter() {
        let mut bytes: Vec<u8> = (0..60_000u32).map(|n| n.to_le_bytes()[0]).collect();
        bytes[9000..30_000].fill(0);
        let whole = scan(60_000, &[(0, &bytes)]);
        let runs: Vec<_> = whole.runs.iter().map(|run| (run.start, run.len)).collect();
        assert_eq!(runs, [(0, 3), (7, 8)]);
        let stored = [&bytes[..12_288], &bytes[28_672..]].concat();
        assert_eq!(whole.checksum, crc32c::crc32c(&stored));
        for step in [1, 7, 512, 4095, 4096, 4097, 50_000] {
            let parts: Vec<_> = (0..).step_by(step).zip(bytes.chunks(step)).collect();
            assert_eq!(scan(60_000, &parts), whole, "{step}");
        }
        // holes instead of zeros
        assert_eq!(scan(60_000, &[(0, &bytes[..9001]), (29_999, &bytes[29_999..])]), whole);
        assert_eq!(scan(0, &[]), Scan::default());
    }

    #[test]
    fn what_was_found_is_found_again() {
        let scans: Vec<Scan> = [&[1; 5000][..], &[], &[0; 9000], &[2; 1]].map(|part| scan(9000, &[(0, part)])).to_vec();
        let mut kept = Scans::default();
        scans.iter().zip([10, 20, 21, 30]).for_each(|(scan, key)| kept.keep(key, scan));
        kept.keep(30, &scans[0]);
        for (key, expected) in [(10, Some(0)), (20, Some(1)), (21, Some(2)), (30, Some(3)), (9, None), (31, None)] {
            assert_eq!(kept.get(key), expected.map(|place: usize| scans[place].clone()), "{key}");
        }
    }
}
