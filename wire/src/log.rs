//! The log of a session's output: entries with time and stream, on a device that a host may read long after.
//!
//! ```text
//! entry  = frame( stream u8 ‖ nanoseconds since 1970, u64 little endian ‖ bytes )
//! stream = 2 * member + 1 for standard output, + 2 for standard error
//! ```
//!
//! Member 0 is the main session, and member n the one with the number [`crate::message::FIRST_OTHER`] + n - 1. The first [`MEMBERS`] are logged.
//!
//! An entry is a frame of [`crate::frame`]: one that was cut off by the end of its machine is noise, and the next one is found.

use crate::frame::{self, Decoder, Noise};
use crate::message::{FIRST_OTHER, MAIN, SessionId};

/// Which of the process's streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Stream {
    /// With a terminal, everything.
    Stdout = 1,
    /// Standard error.
    Stderr = 2,
}

/// How many of the spec's sessions have a number in the log.
pub const MEMBERS: u32 = 127;

/// The number in the log of a session of the spec's; others have none.
pub fn member(session: SessionId) -> Option<u8> {
    let member = match session {
        MAIN => 0,
        session => session.0.checked_sub(FIRST_OTHER.0)? + 1,
    };
    u8::try_from(member).ok().filter(|member| u32::from(*member) < MEMBERS)
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
    /// Appends the entry, of the main session, as it goes to the device.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.encode_of(0, out);
    }

    /// The same, of a member below [`MEMBERS`].
    pub fn encode_of(&self, member: u8, out: &mut Vec<u8>) {
        let mut header = [2 * member + self.stream as u8; HEADER];
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
    /// Hands on every entry of the main session that `bytes` completes.
    pub fn feed(&mut self, bytes: &[u8], mut take: impl FnMut(Entry<'_>)) {
        self.feed_all(bytes, |member, entry| {
            if member == 0 {
                take(entry);
            }
        });
    }

    /// Hands on every entry that `bytes` completes, with its member.
    pub fn feed_all(&mut self, bytes: &[u8], mut take: impl FnMut(u8, Entry<'_>)) {
        let Reader { decoder, unknown } = self;
        decoder.feed(bytes, |body| match parse(body) {
            Some((member, entry)) => take(member, entry),
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

fn parse(body: &[u8]) -> Option<(u8, Entry<'_>)> {
    let (&stream, rest) = body.split_first()?;
    let (time, bytes) = rest.split_first_chunk()?;
    let (member, of) = (stream.checked_sub(1)? / 2, if stream % 2 == 1 { Stream::Stdout } else { Stream::Stderr });
    let known = u32::from(member) < MEMBERS;
    known.then_some((member, Entry { stream: of, time_ns: u64::from_le_bytes(*time), bytes }))
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
        frame::encode(&[255; 20], &[], &mut log);
        let mut seen = Vec::new();
        let mut reader = Reader::default();
        for byte in log {
            reader.feed(&[byte], |entry| seen.push((entry.stream, entry.time_ns, entry.bytes.to_vec())));
        }
        assert_eq!(seen, [(Stream::Stdout, 1, b"one".to_vec()), (Stream::Stderr, 3, b"two".to_vec())]);
        assert_eq!((reader.noise().runs, reader.unknown()), (1, 2));
    }

    #[test]
    fn each_session_of_the_spec_has_its_entries() {
        assert_eq!([MAIN, SessionId(1), SessionId(FIRST_OTHER.0 - 1)].map(member), [Some(0), None, None]);
        let last = FIRST_OTHER.0 + MEMBERS - 2;
        assert_eq!([FIRST_OTHER.0, last, last + 1].map(|id| member(SessionId(id))), [Some(1), Some(126), None]);
        let mut log = Vec::new();
        for member in [0, 1, 126] {
            for stream in [Stream::Stdout, Stream::Stderr] {
                Entry { stream, time_ns: 1, bytes: &[member] }.encode_of(member, &mut log);
            }
        }
        let (mut all, mut main) = (Vec::new(), 0);
        Reader::default().feed_all(&log, |member, entry| all.push((member, entry.stream, entry.bytes[0])));
        Reader::default().feed(&log, |_| main += 1);
        let both = |member| [(member, Stream::Stdout, member), (member, Stream::Stderr, member)];
        assert_eq!((all, main), ([0, 1, 126].map(both).concat(), 2));
    }
}
