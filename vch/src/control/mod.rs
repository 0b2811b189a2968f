//! The control socket: how the commands of `vch` use the links that `vch serve` holds.
//!
//! A unix socket, one connection for each operation. The client sends one line of JSON, a [`Request`]; everything after it, both ways, is frames:
//!
//! ```text
//! frame = type u8 ‖ length u32, little endian ‖ that many bytes
//! ```
//!
//! | type | from | frame | bytes |
//! |---|---|---|---|
//! | 01 | client | stdin | a piece of standard input |
//! | 02 | client | stdin ends | none |
//! | 03 | client | taken | stream u8 (1 stdout, 2 stderr), offset u64: written out up to here |
//! | 04 | client | resize | rows u16, columns u16 |
//! | 05 | client | signal | Linux number u8, 1 to 64 |
//! | 06 | client | finished | none: how it ended is known, and all of its output is written out |
//! | 07 | client | give up | stream u8: the rest of it is not wanted |
//! | 10 | serve | started | JSON, [`Started`]: the first frame of an attachment |
//! | 11 | serve | stdout | offset u64, a piece of output |
//! | 12 | serve | stderr | offset u64, a piece of output |
//! | 13 | serve | stdin taken | offset u64: the guest has standard input up to here |
//! | 14 | serve | ended | JSON, [`wire::status::Exit`]: after the last byte of output |
//! | 15 | serve | detached | UTF-8 text, the reason; the last frame |
//! | 16 | serve | result | JSON, what was asked for; the last frame |
//! | 17 | serve | error | JSON, [`Problem`]; the last frame |
//!
//! Fields of JSON that a receiver does not know are ignored, as are frames of an unknown type. What is malformed is answered by an error frame.
//!
//! *What survives.* Offsets count the bytes of a session's stream from its beginning, as on the link. Serve takes output from the guest only when a client has said
//! `taken`, and a client keeps standard input until `stdin taken`. So a client whose connection breaks, because serve was killed, connects again, says what
//! it has ([`Request::Attach`], `from`), and goes on: nothing is lost or repeated. A client has at most [`MAX_STDIN`] bytes of input under way; more is malformed.

mod address;
mod frame;
mod request;

pub use address::{Address, ENVIRONMENT};
pub use frame::{Broken, Decoder, Frame, Stream};
pub use request::{Offsets, Problem, ProblemKind, Request, Started, Vm, VmState};

/// Standard input that a client may have sent and not yet heard of, in bytes: enough for the link's window, little enough to keep.
pub const MAX_STDIN: usize = 1 << 20;

/// The longest request line, in bytes: a message of the link is at most 1 MiB, and JSON may need six for one.
pub const MAX_REQUEST: usize = 8 << 20;
