//! Maps of sparse files: which parts of a file an archive stores. Old GNU headers and PAX formats 0.0, 0.1 and 1.0.

use super::header::{BLOCK, Header, number};
use super::pax::{SparseKeys, decimal};
use super::{Error, Reader, Segment, Stream};

/// The size of a file and its stored parts.
type Map = (u64, Vec<Segment>);

/// What is wrong with a map, before it is known whose map it is.
pub(super) enum Trouble {
    Map(&'static str),
    Tar(Error),
}

impl Trouble {
    pub(super) fn of(self, path: String) -> Error {
        match self {
            Trouble::Map(why) => Error::Sparse { path, why },
            Trouble::Tar(error) => error,
        }
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Trouble {
        Trouble::Tar(error)
    }
}

/// The map of a file without holes.
pub(super) fn none(size: u64) -> Map {
    (size, Vec::from_iter((size > 0).then_some(Segment { at: 0, len: size })))
}

/// A map in the header and in the blocks behind it, each with a mark that says whether one more follows.
pub(super) fn old_gnu<S: Stream>(reader: &mut Reader<S>, header: &Header) -> Result<Map, Trouble> {
    let mut numbers = Vec::new();
    let (map, mut more) = header.sparse_map();
    read_pairs(&mut numbers, map)?;
    while more {
        let block = reader.extra_block()?;
        read_pairs(&mut numbers, &block[..504])?;
        more = block[504] != 0;
    }
    let size = header.sparse_size().map_err(Trouble::Map)?;
    checked(size, &numbers, reader.left)
}

/// A map in PAX records, or named by them and written before the data: a count, then as many pairs, one number a line.
pub(super) fn pax<S: Stream>(reader: &mut Reader<S>, keys: &SparseKeys) -> Result<Map, Trouble> {
    let size = keys.size.ok_or(Trouble::Map("it says no size"))?;
    if !keys.map_in_data {
        return checked(size, &keys.map, reader.left);
    }
    let mut lines = Lines { reader, block: [0; BLOCK], at: BLOCK };
    let count = lines.number()?;
    let mut numbers = Vec::new();
    for _ in 0..count {
        let pair = [lines.number()?, lines.number()?];
        push(&mut numbers, pair)?;
    }
    checked(size, &numbers, reader.left)
}

/// Pairs of 12-byte numbers; an empty field ends the map.
fn read_pairs(numbers: &mut Vec<u64>, map: &[u8]) -> Result<(), Trouble> {
    for pair in map.chunks_exact(24).take_while(|pair| pair[0] != 0) {
        let part = |field| number(field)?.try_into().map_err(|_| "a number is negative");
        let pair = [part(&pair[..12]).map_err(Trouble::Map)?, part(&pair[12..]).map_err(Trouble::Map)?];
        push(numbers, pair)?;
    }
    Ok(())
}

fn push(numbers: &mut Vec<u64>, pair: [u64; 2]) -> Result<(), Trouble> {
    if numbers.len() >= 2 * SEGMENTS {
        return Err(Trouble::Map("it has more than a million parts"));
    }
    numbers.extend(pair);
    Ok(())
}

/// Parts must come in order, lie within the file, and add up to what is stored.
fn checked(size: u64, numbers: &[u64], stored: u64) -> Result<Map, Trouble> {
    let mut segments: Vec<Segment> = Vec::new();
    let (mut end, mut sum) = (0, 0);
    for pair in numbers.chunks(2) {
        let &[at, len] = pair else { return Err(Trouble::Map("a part has no length")) };
        if at < end || at > size || len > size - at {
            return Err(Trouble::Map("parts overlap or leave the file"));
        }
        (end, sum) = (at + len, sum + len);
        segments.extend((len > 0).then_some(Segment { at, len }));
    }
    if sum != stored {
        return Err(Trouble::Map("parts do not add up to what is stored"));
    }
    Ok((size, segments))
}

/// The numbers of a 1.0 map, which fills whole blocks.
struct Lines<'a, S> {
    reader: &'a mut Reader<S>,
    block: [u8; BLOCK],
    at: usize,
}

impl<S: Stream> Lines<'_, S> {
    fn number(&mut self) -> Result<u64, Trouble> {
        let mut digits = Vec::new();
        loop {
            match self.byte()? {
                b'\n' => return decimal(&digits).ok_or(Trouble::Map("it is no list of numbers")),
                _ if digits.len() >= 20 => return Err(Trouble::Map("it is no list of numbers")),
                digit => digits.push(digit),
            }
        }
    }

    fn byte(&mut self) -> Result<u8, Trouble> {
        if self.at == BLOCK {
            let mut filled = 0;
            while filled < BLOCK {
                match self.reader.read(&mut self.block[filled..])? {
                    0 => return Err(Trouble::Map("it is longer than the entry")),
                    read => filled += read,
                }
            }
            self.at = 0;
        }
        self.at += 1;
        Ok(self.block[self.at - 1])
    }
}

/// Parts of one sparse file; bounds what a hostile map takes of memory.
const SEGMENTS: usize = 1 << 20;
