//! The log of a session's output: entries with time and stream, on a device that a host may read long after.
//!
//! ```text
//! entry = frame( stream u8 ‖ nanoseconds since 1970, u64 little endian ‖ bytes )
//! ```
//!
//! An entry is a frame of [`crate::frame`]: one that was cut off by the end of its machine is noise, and the next one is found.

use crate::frame::{self, Decoder, Noise};

/// Which of the process's streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Stream {
    /// With a terminal, everything.
    Stdout = 1,
    /// Standard error.
    Stderr = 2,
}

/// The longest piece of output in an entry, in bytes.
pub const MAX_BYTES: usize = 32 * 1024;

/// The bytes of an entry before its output.
const HEADER: usize = 1 + 8;

/// A piece of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Where it was written.
    pub stream: Stream,
    /// When: nanoseconds since 1970.
    pub time_ns: u64,
    /// What; at most [`MAX_BYTES`].
    pub bytes: &'a [u8],
}

impl Entry<'_> {
    /// Appends the entry as it goes to the device.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut header = [self.stream as u8; HEADER];
        header[1..].copy_from_slice(&self.time_ns.to_le_bytes());
        frame::encode(&header, self.bytes, out);
    }
}

/// Reads a log piece by piece.
#[derive(Debug, Default)]
pub struct Reader {
    decoder: Decoder,
    unknown: u64,
}

impl Reader {
    /// Hands on every entry that `bytes` completes.
    pub fn feed(&mut self, bytes: &[u8], mut take: impl FnMut(Entry<'_>)) {
        let Reader { decoder, unknown } = self;
        decoder.feed(bytes, |body| match parse(body) {
            Some(entry) => take(entry),
            None => *unknown += 1,
        });
    }

    /// What was no entry.
    pub fn noise(&self) -> Noise {
        self.decoder.noise()
    }

    /// Intact frames that say nothing that this version knows.
    pub fn unknown(&self) -> u64 {
        self.unknown
    }
}

fn parse(body: &[u8]) -> Option<Entry<'_>> {
    let (&stream, rest) = body.split_first()?;
    let (time, bytes) = rest.split_first_chunk()?;
    let stream = [Stream::Stdout, Stream::Stderr].into_iter().find(|&known| known as u8 == stream)?;
    Some(Entry { stream, time_ns: u64::from_le_bytes(*time), bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_entry() {
        let mut bytes = Vec::new();
        Entry { stream: Stream::Stderr, time_ns: 258, bytes: b"hi" }.encode(&mut bytes);
        let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let golden = hex.join(" ");
        assert!(include_str!("../../docs/protocol.md").contains(&golden), "docs/protocol.md lacks {golden}");
    }

    #[test]
    fn a_torn_entry_costs_only_itself() {
        let (mut log, mut torn) = (Vec::new(), Vec::new());
        Entry { stream: Stream::Stdout, time_ns: 1, bytes: b"one" }.encode(&mut log);
        Entry { stream: Stream::Stdout, time_ns: 2, bytes: b"torn" }.encode(&mut torn);
        log.extend_from_slice(&torn[..7]);
        log.push(frame::DELIMITER);
        Entry { stream: Stream::Stderr, time_ns: 3, bytes: b"two" }.encode(&mut log);
        frame::encode(&[9, 9], &[], &mut log);
        let mut seen = Vec::new();
        let mut reader = Reader::default();
        for byte in log {
            reader.feed(&[byte], |entry| seen.push((entry.stream, entry.time_ns, entry.bytes.to_vec())));
        }
        assert_eq!(seen, [(Stream::Stdout, 1, b"one".to_vec()), (Stream::Stderr, 3, b"two".to_vec())]);
        assert_eq!((reader.noise().runs, reader.unknown()), (1, 1));
    }
}
