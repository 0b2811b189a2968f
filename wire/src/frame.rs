//! Frames on a noisy line: delimiting, checksum, resynchronisation.
//!
//! ```text
//! body ‖ CRC-32C(body), little endian   --COBS-->   bytes without zero   ‖   00
//! ```
//!
//! A zero byte ends a frame and appears nowhere else, so whatever precedes it (firmware output, half a frame of an
//! earlier life) is skipped up to the next zero, and counted. Empty frames (two zeros in a row) are silence, not noise.
//! COBS: Cheshire and Baker, "Consistent Overhead Byte Stuffing", 1999. CRC-32C: RFC 3720 appendix B.4.
//! What a body means is decided in [`crate::packet`].

/// The longest body, in bytes. A longer run without a zero is noise. Both ends rely on it: raising it needs a version.
pub const MAX_BODY: usize = 64 * 1024;

/// Ends every frame; sent once before the first frame of a connection too, to cut off noise.
pub const DELIMITER: u8 = 0;

const CHECKSUM: usize = 4;
const MAX_PLAIN: usize = MAX_BODY + CHECKSUM;
/// COBS adds one byte for every 254, and one.
pub(crate) const MAX_ENCODED: usize = MAX_PLAIN + MAX_PLAIN / 254 + 1;

/// Appends a body as one frame, delimiter included. The body comes in two parts, so that a payload need not be copied behind its header first.
///
/// # Panics
/// When the body is longer than [`MAX_BODY`]: the caller cuts.
pub fn encode(header: &[u8], payload: &[u8], out: &mut Vec<u8>) {
    let len = header.len() + payload.len();
    assert!(len <= MAX_BODY, "a frame's body is at most {MAX_BODY} bytes");
    let sum = checksum(&[header, payload]).to_le_bytes();
    out.reserve(MAX_ENCODED.min(len + len / 254 + 2 + CHECKSUM));
    let mut stuffing = Stuffing::start(out);
    stuffing.push(header, out);
    stuffing.push(payload, out);
    stuffing.push(&sum, out);
    stuffing.end(out);
}

/// CRC-32C of the parts, one after the other. By tables: at this rate it costs real machines nothing that shows, and an emulated one takes four times as
/// long for the CPU's own instruction.
fn checksum(parts: &[&[u8]]) -> u32 {
    static CASTAGNOLI: crc::Crc<u32, crc::Table<16>> = crc::Crc::<u32, crc::Table<16>>::new(&crc::CRC_32_ISCSI);
    let mut digest = CASTAGNOLI.digest();
    parts.iter().for_each(|part| digest.update(part));
    digest.finalize()
}

/// The open COBS block: where its code byte lies, and how many bytes it has.
struct Stuffing {
    code_at: usize,
    len: u8,
}

impl Stuffing {
    fn start(out: &mut Vec<u8>) -> Stuffing {
        out.push(0);
        Stuffing { code_at: out.len() - 1, len: 0 }
    }

    fn push(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            let room = usize::from(FULL_BLOCK - self.len);
            let window = &bytes[..bytes.len().min(room)];
            match memchr::memchr(0, window) {
                Some(zero) => {
                    self.copy(&window[..zero], out);
                    self.close(out);
                    bytes = self.push_zeros(&bytes[zero + 1..], out);
                }
                None => {
                    self.copy(window, out);
                    bytes = &bytes[window.len()..];
                    if self.len == FULL_BLOCK {
                        self.close(out);
                    }
                }
            }
        }
    }

    /// Zeros that follow a zero are blocks with nothing in them: a run of them is common, and one byte at a time is slow.
    fn push_zeros<'a>(&mut self, bytes: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
        let run = bytes.iter().take_while(|&&byte| byte == 0).count();
        if run > 0 {
            out[self.code_at] = 1;
            out.resize(out.len() + run - 1, 1);
            *self = Stuffing::start(out);
        }
        &bytes[run..]
    }

    #[allow(clippy::cast_possible_truncation)] // at most FULL_BLOCK bytes, by push()
    fn copy(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(bytes);
        self.len += bytes.len() as u8;
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        out[self.code_at] = self.len + 1;
        *self = Stuffing::start(out);
    }

    fn end(self, out: &mut Vec<u8>) {
        out[self.code_at] = self.len + 1;
        out.push(DELIMITER);
    }
}

/// Bytes in a COBS block that no zero ended.
const FULL_BLOCK: u8 = 254;

/// What a [`Decoder`] has thrown away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Noise {
    /// Runs between delimiters that were no frame.
    pub runs: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Those of the runs that were longer than any frame.
    pub oversized: u64,
}

impl std::ops::Add for Noise {
    type Output = Noise;

    fn add(self, other: Noise) -> Noise {
        Noise {
            runs: self.runs + other.runs,
            bytes: self.bytes + other.bytes,
            oversized: self.oversized + other.oversized,
        }
    }
}

/// Finds frames in a byte stream.
#[derive(Debug, Default)]
pub struct Decoder {
    /// An encoded frame, as far as it has come.
    partial: Vec<u8>,
    /// A decoded one; kept for its memory.
    body: Vec<u8>,
    /// `Some` while a run that is too long for a frame is skipped: the bytes of it so far.
    overlong: Option<u64>,
    noise: Noise,
}

impl Decoder {
    /// Takes bytes as they come and hands each whole, intact body to `deliver`.
    pub fn feed(&mut self, mut bytes: &[u8], mut deliver: impl FnMut(&[u8])) {
        while let Some(end) = memchr::memchr(DELIMITER, bytes) {
            let (run, rest) = (&bytes[..end], &bytes[end + 1..]);
            bytes = rest;
            if let Some(skipped) = self.overlong.take() {
                self.count(skipped + run.len() as u64);
                continue;
            }
            let whole = match self.partial.is_empty() {
                true => run,
                false => {
                    self.partial.extend_from_slice(run);
                    &self.partial
                }
            };
            let len = whole.len() as u64;
            let intact = len == 0 || decode(whole, &mut self.body);
            self.partial.clear();
            match intact {
                true if len > 0 => deliver(&self.body),
                true => {}
                false => self.count(len),
            }
        }
        self.keep(bytes);
    }

    /// Forgets a half-received frame, as after a cut.
    pub fn reset(&mut self) {
        self.partial.clear();
        self.overlong = None;
    }

    /// What has been thrown away since the start.
    pub fn noise(&self) -> Noise {
        self.noise
    }

    fn keep(&mut self, bytes: &[u8]) {
        let len = (self.partial.len() + bytes.len()) as u64;
        match &mut self.overlong {
            Some(skipped) => *skipped += bytes.len() as u64,
            None if len > MAX_ENCODED as u64 => {
                self.partial = Vec::new();
                self.overlong = Some(len);
            }
            None => self.partial.extend_from_slice(bytes),
        }
    }

    fn count(&mut self, bytes: u64) {
        self.noise.runs += 1;
        self.noise.bytes += bytes;
        self.noise.oversized += u64::from(bytes > MAX_ENCODED as u64);
    }
}

/// Undoes COBS and checks the checksum; `body` holds the result only when this returns true.
fn decode(mut encoded: &[u8], body: &mut Vec<u8>) -> bool {
    body.clear();
    if encoded.len() > MAX_ENCODED {
        return false;
    }
    while let Some((&code, rest)) = encoded.split_first() {
        let len = usize::from(code) - 1; // a code is never zero: zero is the delimiter
        let Some((block, rest)) = rest.split_at_checked(len) else { return false };
        body.extend_from_slice(block);
        if len < usize::from(FULL_BLOCK) && !rest.is_empty() {
            body.push(0);
        }
        encoded = rest;
    }
    let Some((_, sum)) = body.split_last_chunk::<CHECKSUM>() else { return false };
    let claimed = u32::from_le_bytes(*sum);
    body.truncate(body.len() - CHECKSUM);
    body.len() <= MAX_BODY && checksum(&[body]) == claimed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(decoder: &mut Decoder, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        decoder.feed(bytes, |body| found.push(body.to_vec()));
        found
    }

    fn bodies() -> Vec<Vec<u8>> {
        let mut bodies: Vec<Vec<u8>> = [0usize, 1, 2, 253, 254, 255, 507, 508, 509, 1024, MAX_BODY]
            .iter()
            .flat_map(|&len| [vec![0; len], vec![7; len], (0..=250).cycle().take(len).collect()])
            .collect();
        bodies.push(b"\0\0a\0".to_vec());
        bodies
    }

    #[test]
    fn every_body_comes_back() {
        for body in bodies() {
            let mut line = Vec::new();
            encode(&body, b"", &mut line);
            assert!(!line[..line.len() - 1].contains(&0), "no zero inside a frame");
            assert_eq!(frames(&mut Decoder::default(), &line), std::slice::from_ref(&body));
        }
    }

    #[test]
    fn it_does_not_matter_how_the_bytes_arrive() {
        let mut line = Vec::new();
        for body in bodies() {
            encode(&body, b"", &mut line);
        }
        for size in [1, 3, 1000, 70_000] {
            let mut decoder = Decoder::default();
            let found: Vec<_> = line.chunks(size).flat_map(|chunk| frames(&mut decoder, chunk)).collect();
            assert_eq!(found, bodies());
            assert_eq!(decoder.noise(), Noise::default());
        }
    }

    #[test]
    fn noise_is_skipped_and_counted() {
        let mut line = b"SeaBIOS (version 1.16.2)\r\nBooting from DVD/CD...\0".to_vec();
        let noise = line.len() as u64 - 1;
        encode(b"hel", b"lo", &mut line);
        let mut decoder = Decoder::default();
        assert_eq!(frames(&mut decoder, &line), [b"hello"]);
        assert_eq!(decoder.noise(), Noise { runs: 1, bytes: noise, oversized: 0 });
    }

    #[test]
    fn an_endless_run_takes_no_memory_and_ends_at_the_next_frame() {
        let mut decoder = Decoder::default();
        for _ in 0..100 {
            assert!(frames(&mut decoder, &[0x55; 10_000]).is_empty());
        }
        assert!(decoder.partial.capacity() <= 2 * MAX_ENCODED);
        let mut line = vec![DELIMITER];
        encode(b"hel", b"lo", &mut line);
        assert_eq!(frames(&mut decoder, &line), [b"hello"]);
        assert_eq!(decoder.noise(), Noise { runs: 1, bytes: 1_000_000, oversized: 1 });
    }

    #[test]
    fn a_flipped_bit_is_no_frame() {
        let mut line = Vec::new();
        encode(b"what was sent", b"", &mut line);
        for bit in 0..(line.len() - 1) * 8 {
            let mut bent = line.clone();
            bent[bit / 8] ^= 1 << (bit % 8);
            assert!(frames(&mut Decoder::default(), &bent).is_empty(), "bit {bit}");
        }
    }

    /// The bytes that `docs/protocol.md` shows.
    #[test]
    fn golden_frame() {
        let mut line = Vec::new();
        encode(b"A\0B", b"", &mut line);
        assert_eq!(line, [0x02, 0x41, 0x04, 0x42, 0x96, 0xdc, 0x02, 0xa2, 0x00]);
    }
}
