//! Standard output and standard error in one stream of bytes, as docker's clients take them apart (moby's stdcopy; Docker Engine API, ContainerAttach).
//!
//! ```text
//! 1 or 2 or 3 | 0 0 0 | length, 4 bytes, the greatest first | as many bytes of that stream
//! ```
//!
//! It decides how a piece of output looks on the wire, and what the stream is called. Each piece is whole: who writes it writes all of it before the next.

use axum::http::HeaderValue;

/// Whose bytes these are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Stdout = 1,
    Stderr = 2,
    /// What this host has to say of the stream itself: docker's client prints it and ends with 1.
    Daemon = 3,
}

/// How output is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// As it comes: a terminal has only one stream.
    Raw,
    /// Each piece with its source and length.
    Multiplexed,
}

impl Framing {
    /// Docker's rule: one that has a terminal has no frames.
    pub(super) fn of(terminal: bool) -> Framing {
        if terminal { Framing::Raw } else { Framing::Multiplexed }
    }

    /// What clients are told that follows.
    pub(super) fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Framing::Raw => "application/vnd.docker.raw-stream",
            Framing::Multiplexed => "application/vnd.docker.multiplexed-stream",
        })
    }

    /// Appends a piece.
    pub(super) fn encode(self, source: Source, bytes: &[u8], out: &mut Vec<u8>) {
        if self == Framing::Raw {
            return out.extend_from_slice(bytes);
        }
        for bytes in bytes.chunks(MAX_FRAME) {
            let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            out.reserve(HEADER + bytes.len());
            out.extend_from_slice(&[source as u8, 0, 0, 0]);
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(bytes);
        }
    }
}

impl From<wire::log::Stream> for Source {
    fn from(stream: wire::log::Stream) -> Source {
        match stream {
            wire::log::Stream::Stdout => Source::Stdout,
            wire::log::Stream::Stderr => Source::Stderr,
        }
    }
}

/// Bytes before each piece.
const HEADER: usize = 8;
/// Some clients read a whole frame into memory.
const MAX_FRAME: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trap_12_each_piece_is_a_frame_of_its_stream() {
        let mut out = Vec::new();
        Framing::Multiplexed.encode(Source::Stdout, b"o\n", &mut out);
        Framing::Multiplexed.encode(Source::Stderr, &[b'e'; 300], &mut out);
        Framing::Multiplexed.encode(Source::Daemon, b"no", &mut out);
        // what carries nothing is no frame
        Framing::Multiplexed.encode(Source::Stdout, b"", &mut out);
        let mut expected = b"\x01\0\0\0\0\0\0\x02o\n\x02\0\0\0\0\0\x01\x2c".to_vec();
        expected.extend([b'e'; 300]);
        expected.extend(b"\x03\0\0\0\0\0\0\x02no");
        assert_eq!(out, expected);
    }

    #[test]
    fn long_output_is_in_frames_that_fit_in_memory() {
        let mut out = Vec::new();
        Framing::Multiplexed.encode(Source::Stdout, &vec![0; MAX_FRAME + 1], &mut out);
        assert_eq!(out.len(), MAX_FRAME + 1 + 2 * HEADER);
        assert_eq!(
            (&out[..8], &out[8 + MAX_FRAME..][..8]),
            (&[1, 0, 0, 0, 0, 16, 0, 0][..], &[1, 0, 0, 0, 0, 0, 0, 1][..])
        );
    }

    #[test]
    fn a_terminal_has_no_frames() {
        let mut out = Vec::new();
        Framing::of(true).encode(Source::Stderr, b"text", &mut out);
        assert_eq!(out, b"text");
        assert_eq!(Framing::of(true).content_type(), "application/vnd.docker.raw-stream");
        assert_eq!(Framing::of(false).content_type(), "application/vnd.docker.multiplexed-stream");
    }
}
