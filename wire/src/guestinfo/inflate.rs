//! Compressed data, RFC 1951: what gzip puts between its header and its checksum. Bit by bit, which is slow, and small enough for a PID 1.

/// The bytes that were compressed; none if it is not the compression of any, or of more than `most`. It must be all of `data`.
pub(super) fn inflate(data: &[u8], most: usize) -> Option<Vec<u8>> {
    let (mut bits, mut bytes) = (Bits { data, held: 0, count: 0 }, Vec::new());
    loop {
        let is_last = bits.take(1)? == 1;
        match bits.take(2)? {
            0 => stored(&mut bits, &mut bytes, most)?,
            1 => {
                let mut lengths = [8; 288];
                lengths[144..256].fill(9);
                lengths[256..280].fill(7);
                block(&mut bits, &mut bytes, most, &Code::new(&lengths)?, &Code::new(&[5; 30])?)?;
            }
            2 => {
                let (literals, distances) = codes(&mut bits)?;
                block(&mut bits, &mut bytes, most, &literals, &distances)?;
            }
            _ => return None,
        }
        if is_last {
            return bits.data.is_empty().then_some(bytes);
        }
    }
}

/// The lowest bit of a byte comes first.
struct Bits<'a> {
    data: &'a [u8],
    held: u32,
    count: u32,
}

impl Bits<'_> {
    /// At most 16.
    fn take(&mut self, count: u32) -> Option<u32> {
        while self.count < count {
            let (&byte, rest) = self.data.split_first()?;
            self.held |= u32::from(byte) << self.count;
            (self.data, self.count) = (rest, self.count + 8);
        }
        let taken = self.held & ((1 << count) - 1);
        (self.held, self.count) = (self.held >> count, self.count - count);
        Some(taken)
    }
}

/// Bytes as they are, from the next whole byte on.
fn stored(bits: &mut Bits<'_>, bytes: &mut Vec<u8>, most: usize) -> Option<()> {
    (bits.held, bits.count) = (0, 0);
    let (&[a, b, c, d], rest) = bits.data.split_first_chunk()?;
    let length = u16::from_le_bytes([a, b]);
    if u16::from_le_bytes([c, d]) != !length || bytes.len() + usize::from(length) > most {
        return None;
    }
    let (taken, rest) = rest.split_at_checked(length.into())?;
    bytes.extend(taken);
    bits.data = rest;
    Some(())
}

/// Which symbols have codes of each length, in the order of their codes.
struct Code {
    counts: [u16; 16],
    symbols: Vec<u16>,
}

impl Code {
    /// Of each symbol's length, 15 at most; 0 is none.
    fn new(lengths: &[u8]) -> Option<Code> {
        let (mut counts, mut symbols) = ([0; 16], Vec::with_capacity(lengths.len()));
        let mut free = 1_i32;
        for length in 1..16_u8 {
            let of_it = (0_u16..).zip(lengths).filter(|&(_, &other)| other == length).map(|(symbol, _)| symbol);
            let before = symbols.len();
            symbols.extend(of_it);
            let count = u16::try_from(symbols.len() - before).ok()?;
            counts[usize::from(length)] = count;
            free = free * 2 - i32::from(count);
            if free < 0 {
                return None;
            }
        }
        Some(Code { counts, symbols })
    }

    fn read(&self, bits: &mut Bits<'_>) -> Option<u32> {
        // the codes of a length are consecutive, and begin where twice those before them end
        let (mut code, mut first, mut passed) = (0, 0, 0);
        for &count in &self.counts[1..] {
            let count = usize::from(count);
            code |= bits.take(1)? as usize;
            if code < first + count {
                return Some(self.symbols[passed + code - first].into());
            }
            passed += count;
            first = (first + count) * 2;
            code *= 2;
        }
        None
    }
}

/// The codes of a block that brings its own.
fn codes(bits: &mut Bits<'_>) -> Option<(Code, Code)> {
    const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
    let (literals, distances) = (bits.take(5)? as usize + 257, bits.take(5)? as usize + 1);
    let known = bits.take(4)? as usize + 4;
    let mut of_lengths = [0; 19];
    for &place in &ORDER[..known] {
        of_lengths[place] = u8::try_from(bits.take(3)?).ok()?;
    }
    let of_lengths = Code::new(&of_lengths)?;
    let mut lengths = Vec::new();
    while lengths.len() < literals + distances {
        let (length, times) = match of_lengths.read(bits)? {
            16 => (*lengths.last()?, bits.take(2)? + 3),
            17 => (0, bits.take(3)? + 3),
            18 => (0, bits.take(7)? + 11),
            length => (u8::try_from(length).ok()?, 1),
        };
        lengths.extend((0..times).map(|_| length));
    }
    let (of_literals, of_distances) = lengths.split_at(literals);
    // a repetition may not reach past the end
    Some((Code::new(of_literals)?, Code::new(of_distances.get(..distances).filter(|all| *all == of_distances)?)?))
}

/// Bytes, and copies of what came before them.
fn block(bits: &mut Bits<'_>, bytes: &mut Vec<u8>, most: usize, literals: &Code, distances: &Code) -> Option<()> {
    const END: u32 = 256;
    while bytes.len() <= most {
        match literals.read(bits)? {
            END => return Some(()),
            symbol @ 0..END => bytes.push(u8::try_from(symbol).ok()?),
            symbol => {
                let length = match symbol - END - 1 {
                    code @ 0..28 => stretched(bits, code, 2)? + 3,
                    28 => 258,
                    _ => return None,
                };
                let distance = match distances.read(bits)? {
                    code @ 0..30 => stretched(bits, code, 1)? + 1,
                    _ => return None,
                };
                let from = bytes.len().checked_sub(distance)?;
                // it may overlap what it makes
                for at in from..from + length {
                    bytes.push(bytes[at]);
                }
            }
        }
    }
    None
}

/// A number of which the code has the highest bits: the first, which is not written, and `fine` of those behind it; the rest follows.
fn stretched(bits: &mut Bits<'_>, code: u32, fine: u32) -> Option<usize> {
    let steps = 1 << fine;
    let number = match (code / steps).checked_sub(1) {
        None | Some(0) => code,
        Some(extra) => ((code % steps + steps) << extra) + bits.take(extra)?,
    };
    Some(number as usize)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::DeflateEncoder;

    use super::*;

    fn deflate(bytes: &[u8], level: u32) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::new(level));
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// Texts that make a compressor use all that there is: every length and distance, bytes as they are, codes of its own and fixed ones.
    fn texts() -> Vec<Vec<u8>> {
        let mut dice = 1_u32;
        let mut roll = move || {
            dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (dice >> 24) as u8
        };
        let noise: Vec<u8> = (0..70_000).map(|_| roll()).collect();
        let words: Vec<u8> = (0..100_000).map(|_| b"guestinfo.vice./"[usize::from(roll()) % 16]).collect();
        let mut copies = noise[..33_000].to_vec();
        for length in 3..300 {
            let from = usize::from(roll()) * 120;
            copies.extend_from_within(from..from + length);
        }
        vec![Vec::new(), b"a".to_vec(), b"abc".to_vec(), vec![0; 100_000], noise, words, copies]
    }

    #[test]
    fn what_another_has_compressed_is_had_again() {
        for text in texts() {
            for level in [0, 1, 6, 9] {
                let data = deflate(&text, level);
                assert!(inflate(&data, text.len()).as_deref() == Some(&text[..]), "{} at {level}", text.len());
                if !text.is_empty() {
                    assert_eq!(inflate(&data, text.len() - 1), None, "the bound is {}", text.len());
                }
            }
        }
    }

    #[test]
    fn codes_that_two_symbols_would_share_are_refused() {
        assert!(Code::new(&[1, 1]).is_some());
        assert!(Code::new(&[2, 2, 2]).is_some(), "one that lacks some is no harm");
        assert!(Code::new(&[1, 1, 1]).is_none());
        assert!(Code::new(&[1, 2, 2, 15]).is_none());
    }

    #[test]
    fn no_bytes_are_too_odd_and_no_truncation_is_whole() {
        let data = deflate(&texts()[5][..1000], 9);
        for end in 0..data.len() {
            assert_eq!(inflate(&data[..end], 1 << 20), None, "{end}");
        }
        for at in 0..data.len() * 8 {
            let mut odd = data.clone();
            odd[at / 8] ^= 1 << (at % 8);
            let most = 1000;
            assert!(inflate(&odd, most).is_none_or(|bytes| bytes.len() <= most), "bit {at}");
        }
        for pair in 0..=u16::MAX {
            inflate(&[&pair.to_le_bytes()[..], &[0x55; 30]].concat(), 1000);
        }
    }
}
