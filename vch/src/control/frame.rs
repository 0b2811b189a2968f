//! The frames of the control socket, as bytes. The table is in [`crate::control`].

use serde::Serialize;
use serde::de::DeserializeOwned;
use wire::spec::TermSize;
use wire::status::Exit;

use super::request::{Problem, ProblemKind, Started};

pub use wire::log::Stream;

/// A frame, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    Stdin(Vec<u8>),
    StdinEnds,
    Taken {
        stream: Stream,
        offset: u64,
    },
    Resize(TermSize),
    Signal(u8),
    GiveUp(Stream),
    Finished,
    Started(Started),
    Output {
        stream: Stream,
        offset: u64,
        bytes: Vec<u8>,
    },
    StdinTaken(u64),
    Ended(Exit),
    Detached(String),
    Result(serde_json::Value),
    Error(Problem),
    /// Of a later version: to be passed over.
    Unknown(u8),
}

/// Bytes that are no frames of this socket.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    #[error("a frame of {0} bytes: there are none so long")]
    TooLong(usize),
    #[error("a frame of type {kind:#04x} that does not hold what it should: {reason}")]
    Malformed { kind: u8, reason: String },
}

impl From<Broken> for Problem {
    fn from(broken: Broken) -> Problem {
        Problem::new(ProblemKind::Malformed, broken.to_string())
    }
}

const STDIN: u8 = 0x01;
const STDIN_ENDS: u8 = 0x02;
const TAKEN: u8 = 0x03;
const RESIZE: u8 = 0x04;
const SIGNAL: u8 = 0x05;
const FINISHED: u8 = 0x06;
const GIVE_UP: u8 = 0x07;
const STARTED: u8 = 0x10;
const STDOUT: u8 = 0x11;
const STDERR: u8 = 0x12;
const STDIN_TAKEN: u8 = 0x13;
const ENDED: u8 = 0x14;
const DETACHED: u8 = 0x15;
const RESULT: u8 = 0x16;
const ERROR: u8 = 0x17;

/// The bytes of a frame before its own.
const HEADER: usize = 1 + 4;

/// The longest frame that is read: a list of processes in JSON is far below.
const MAX_FRAME: usize = 16 << 20;

impl Frame {
    /// Appends the frame's bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Frame::Stdin(bytes) => put(out, STDIN, &[bytes]),
            Frame::StdinEnds => put(out, STDIN_ENDS, &[]),
            Frame::Taken { stream, offset } => put(out, TAKEN, &[&[*stream as u8], &offset.to_le_bytes()]),
            Frame::Resize(size) => put(out, RESIZE, &[&size.rows.to_le_bytes(), &size.columns.to_le_bytes()]),
            Frame::Signal(number) => put(out, SIGNAL, &[&[*number]]),
            Frame::Finished => put(out, FINISHED, &[]),
            Frame::GiveUp(stream) => put(out, GIVE_UP, &[&[*stream as u8]]),
            Frame::Started(started) => put(out, STARTED, &[&json(started)]),
            Frame::Output { stream, offset, bytes } => {
                let kind = match stream {
                    Stream::Stdout => STDOUT,
                    Stream::Stderr => STDERR,
                };
                put(out, kind, &[&offset.to_le_bytes(), bytes]);
            }
            Frame::StdinTaken(offset) => put(out, STDIN_TAKEN, &[&offset.to_le_bytes()]),
            Frame::Ended(exit) => put(out, ENDED, &[&json(exit)]),
            Frame::Detached(reason) => put(out, DETACHED, &[reason.as_bytes()]),
            Frame::Result(value) => put(out, RESULT, &[&json(value)]),
            Frame::Error(problem) => put(out, ERROR, &[&json(problem)]),
            Frame::Unknown(kind) => put(out, *kind, &[]),
        }
    }

    fn decode(kind: u8, body: &[u8]) -> Result<Frame, Broken> {
        let wrong = |reason: String| Broken::Malformed { kind, reason };
        let length = || wrong(format!("{} bytes", body.len()));
        let exactly = |frame: Frame| if body.is_empty() { Ok(frame) } else { Err(length()) };
        let offset = |bytes: &[u8]| bytes.try_into().map(u64::from_le_bytes).map_err(|_| length());
        let stream = |number: u8| {
            let known = [Stream::Stdout, Stream::Stderr].into_iter().find(|&known| known as u8 == number);
            known.ok_or_else(|| wrong(format!("there is no stream {number}")))
        };
        match kind {
            STDIN => Ok(Frame::Stdin(body.to_vec())),
            STDIN_ENDS => exactly(Frame::StdinEnds),
            TAKEN => {
                let (&number, rest) = body.split_first().ok_or_else(length)?;
                Ok(Frame::Taken { stream: stream(number)?, offset: offset(rest)? })
            }
            RESIZE => match *body {
                [r0, r1, c0, c1] => Ok(Frame::Resize(TermSize {
                    rows: u16::from_le_bytes([r0, r1]),
                    columns: u16::from_le_bytes([c0, c1]),
                })),
                _ => Err(length()),
            },
            SIGNAL => match *body {
                [number @ 1..=64] => Ok(Frame::Signal(number)),
                [number] => Err(wrong(format!("there is no signal {number}"))),
                _ => Err(length()),
            },
            FINISHED => exactly(Frame::Finished),
            GIVE_UP => match *body {
                [number] => stream(number).map(Frame::GiveUp),
                _ => Err(length()),
            },
            STARTED => parse(body).map(Frame::Started).map_err(wrong),
            STDOUT | STDERR => {
                let (at, bytes) = body.split_at_checked(8).ok_or_else(length)?;
                let stream = if kind == STDOUT { Stream::Stdout } else { Stream::Stderr };
                Ok(Frame::Output { stream, offset: offset(at)?, bytes: bytes.to_vec() })
            }
            STDIN_TAKEN => Ok(Frame::StdinTaken(offset(body)?)),
            ENDED => parse(body).map(Frame::Ended).map_err(wrong),
            DETACHED => Ok(Frame::Detached(String::from_utf8_lossy(body).into_owned())),
            RESULT => parse(body).map(Frame::Result).map_err(wrong),
            ERROR => parse(body).map(Frame::Error).map_err(wrong),
            unknown => Ok(Frame::Unknown(unknown)),
        }
    }
}

/// Puts frames together from what a socket gives.
#[derive(Debug, Default)]
pub struct Decoder {
    bytes: Vec<u8>,
    read: usize,
}

impl Decoder {
    pub fn feed(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.read);
        self.read = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole frame, if there is one.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, Broken> {
        let bytes = &self.bytes[self.read..];
        let Some((&[kind, l0, l1, l2, l3], rest)) = bytes.split_first_chunk::<HEADER>() else { return Ok(None) };
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        if length > MAX_FRAME {
            return Err(Broken::TooLong(length));
        }
        let Some(body) = rest.get(..length) else { return Ok(None) };
        let frame = Frame::decode(kind, body)?;
        self.read += HEADER + length;
        Ok(Some(frame))
    }
}

fn put(out: &mut Vec<u8>, kind: u8, parts: &[&[u8]]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    out.push(kind);
    out.extend_from_slice(&u32::try_from(length).expect("pieces and answers are below 4 GiB").to_le_bytes());
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("our types have no map with other keys than text")
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use wire::message::SessionId;
    use wire::status::Ending;

    use super::super::request::Offsets;
    use super::*;

    fn frames() -> Vec<Frame> {
        let exit = Exit { ending: Ending::Signaled { signal: 9, core: false }, started_us: 1, ended_us: 2, oom: true };
        let offsets = Offsets { stdin: 1, stdout: 2, stderr: 3 };
        let started = Started { session: SessionId(3), terminal: true, offsets };
        vec![
            Frame::Stdin(b"in\0".to_vec()),
            Frame::StdinEnds,
            Frame::Taken { stream: Stream::Stderr, offset: u64::MAX },
            Frame::Resize(TermSize { rows: 24, columns: 300 }),
            Frame::Signal(64),
            Frame::Finished,
            Frame::GiveUp(Stream::Stdout),
            Frame::Started(started),
            Frame::Output { stream: Stream::Stdout, offset: 258, bytes: b"out".to_vec() },
            Frame::Output { stream: Stream::Stderr, offset: 0, bytes: Vec::new() },
            Frame::StdinTaken(5),
            Frame::Ended(exit),
            Frame::Detached("too slow".into()),
            Frame::Result(serde_json::json!({"a": [1]})),
            Frame::Error(Problem::new(ProblemKind::UnknownVm, "no x".into())),
            Frame::Unknown(0x7f),
        ]
    }

    #[test]
    fn frames_survive_any_cut() {
        let mut bytes = Vec::new();
        frames().iter().for_each(|frame| frame.encode(&mut bytes));
        for size in [1, 2, 3, 7, bytes.len()] {
            let (mut decoder, mut seen) = (Decoder::default(), Vec::new());
            for piece in bytes.chunks(size) {
                decoder.feed(piece);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    seen.push(frame);
                }
            }
            assert_eq!(seen, frames(), "pieces of {size}");
        }
    }

    #[test]
    fn golden_frames() {
        let check = |frame: Frame, golden: &[u8]| {
            let mut bytes = Vec::new();
            frame.encode(&mut bytes);
            assert_eq!(bytes, golden, "{frame:?}");
        };
        check(Frame::Stdin(b"hi".to_vec()), b"\x01\x02\0\0\0hi");
        check(Frame::Taken { stream: Stream::Stderr, offset: 258 }, b"\x03\x09\0\0\0\x02\x02\x01\0\0\0\0\0\0");
        check(Frame::Resize(TermSize { rows: 24, columns: 80 }), b"\x04\x04\0\0\0\x18\0\x50\0");
        let out = Frame::Output { stream: Stream::Stdout, offset: 1, bytes: b"x".to_vec() };
        check(out, b"\x11\x09\0\0\0\x01\0\0\0\0\0\0\0x");
    }

    #[test]
    fn what_is_no_frame_is_an_error() {
        let check = |bytes: &[u8]| {
            let mut decoder = Decoder::default();
            decoder.feed(bytes);
            assert!(decoder.next_frame().is_err(), "{bytes:?}");
        };
        check(b"\x01\xff\xff\xff\xff");
        check(b"\x02\x01\0\0\0x");
        check(b"\x03\x02\0\0\0\x01\0");
        check(b"\x03\x09\0\0\0\x03\0\0\0\0\0\0\0\0");
        check(b"\x04\x01\0\0\0\0");
        check(b"\x05\x01\0\0\0\0");
        check(b"\x05\x01\0\0\0\x41");
        check(b"\x07\x01\0\0\0\x03");
        check(b"\x11\x01\0\0\0x");
        check(b"\x10\x02\0\0\0{}");
        check(b"\x17\x01\0\0\0{");
    }
}
