//! Requests, replies and events: what the two ends tell each other on the control channel.
//!
//! A record is a length (u32, little endian) and a message. A message is a head and, behind it, a [`Request`], [`Reply`] or [`Event`], each encoded
//! by [`crate::codec`]. Enum variants are only ever appended: their numbers are on the wire, and golden vectors pin them. A request that this version
//! does not know is answered [`Reply::Unsupported`]; an event that it does not know is passed over.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::codec::{self, DecodeError};
use crate::packet::ChannelId;
use crate::spec::{Environment, TermSize};
use crate::status::{Exit, Failure};
use crate::vitals::{ProcessInfo, Stats};

/// One process that the guest was asked to run, and its descendants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionId(pub u32);

/// The session of the spec's own process; its end is the VM's end.
pub const MAIN: SessionId = SessionId(0);

/// The sessions of the spec's other processes have numbers from here on, which no host gives; [`crate::status::SessionStatus`] tells who has which.
pub const FIRST_OTHER: SessionId = SessionId(1 << 28);

/// The channels of a session's standard streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Streams {
    /// Host to guest.
    pub stdin: ChannelId,
    /// Guest to host; with a terminal, everything.
    pub stdout: ChannelId,
    /// Guest to host; unused with a terminal.
    pub stderr: ChannelId,
}

impl SessionId {
    /// The channels of this session: three in a row, after the control channel.
    pub fn streams(self) -> Streams {
        let first = 3 * self.0 + 1;
        Streams { stdin: ChannelId(first), stdout: ChannelId(first + 1), stderr: ChannelId(first + 2) }
    }
}

/// A message, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Host to guest; to be answered with the same id.
    #[allow(missing_docs)]
    Request { id: u64, request: Request },
    /// A request that this version does not know; to be answered [`Reply::Unsupported`].
    #[allow(missing_docs)]
    UnknownRequest { id: u64 },
    /// Guest to host.
    #[allow(missing_docs)]
    Reply { id: u64, reply: Reply },
    /// Guest to host, unasked.
    Event(Event),
    /// An event that this version does not know.
    UnknownEvent,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Head {
    Request(u64),
    Reply(u64),
    Event,
}

/// What the host asks of a running guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// The terminal of a session has another size.
    #[allow(missing_docs)]
    Resize { session: SessionId, size: TermSize },
    /// Send a signal (Linux number, 1 to 64) to a session's process.
    #[allow(missing_docs)]
    Signal { session: SessionId, signal: u8 },
    /// End every process, unmount, power off.
    PowerOff,
    /// Make a session of this number, which the host chooses, and start its work. Answered `Started`, `Failed` or `Refused`.
    #[allow(missing_docs)]
    Create { session: SessionId, work: Work },
    /// Start the main process, which the spec holds. Answered `Done`, also when it runs already.
    Start,
    /// From now on a session's output goes to the host.
    #[allow(missing_docs)]
    Attach { session: SessionId },
    /// From now on it does not.
    #[allow(missing_docs)]
    Detach { session: SessionId },
    /// Which sessions there are. Answered `Sessions`.
    List,
    /// The host knows how a session ended and has its output: it is over, and so are its channels.
    #[allow(missing_docs)]
    Forget { session: SessionId },
    /// Which processes run. Answered `Processes`.
    Top,
    /// What the container uses. Answered `Stats`.
    Stats,
    /// What lies at a path of the container, links of its last component not followed. Answered `Path`.
    #[allow(missing_docs)]
    Inspect { path: String },
    /// The spec is another one: `keys` is the whole of it, as the text of a VMX dictionary; empty, the store is read again. What is new is added, and what is
    /// another is changed; all of it, or, when something cannot be, nothing: then the answer is `Refused`, and names the key.
    #[allow(missing_docs)]
    Reload { keys: SpecText },
    /// Tell the disks which blocks are free: `FITRIM`. Answered `Trimmed`.
    Trim,
    /// It is so many nanoseconds after 1970.
    #[allow(missing_docs)]
    SetClock { unix_ns: i64 },
    /// What the kernel has said since it booted. Answered `Text`.
    KernelLog,
    /// End every process, unmount, boot again.
    Reboot,
    /// How the machine is. Answered `Text`: the JSON of [`crate::status::Status`].
    Status,
    /// What the machine was asked to be. Answered `Spec`.
    Spec,
    /// As `PowerOff`, but the spec's sessions get this signal, if there is one, and so many milliseconds to obey it: `u64::MAX` is for ever; without a number,
    /// what their stop timeout is. Asked again, it gives no more time, but it can give less.
    #[allow(missing_docs)]
    Stop { signal: Option<u8>, grace_ms: Option<u64> },
    /// As `Reboot`, with signal and time as in `Stop`.
    #[allow(missing_docs)]
    Restart { signal: Option<u8>, grace_ms: Option<u64> },
}

impl Request {
    /// Its name, for a log: what is asked for may hold secrets.
    pub fn name(&self) -> &'static str {
        match self {
            Request::Resize { .. } => "Resize",
            Request::Signal { .. } => "Signal",
            Request::PowerOff => "PowerOff",
            Request::Create { .. } => "Create",
            Request::Start => "Start",
            Request::Attach { .. } => "Attach",
            Request::Detach { .. } => "Detach",
            Request::List => "List",
            Request::Forget { .. } => "Forget",
            Request::Top => "Top",
            Request::Stats => "Stats",
            Request::Inspect { .. } => "Inspect",
            Request::Reload { .. } => "Reload",
            Request::Trim => "Trim",
            Request::SetClock { .. } => "SetClock",
            Request::KernelLog => "KernelLog",
            Request::Reboot => "Reboot",
            Request::Status => "Status",
            Request::Spec => "Spec",
            Request::Stop { .. } => "Stop",
            Request::Restart { .. } => "Restart",
        }
    }
}

/// The text of a spec's keys. It holds secrets, so `Debug` does not show it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpecText(pub String);

impl From<&str> for SpecText {
    fn from(text: &str) -> SpecText {
        SpecText(text.into())
    }
}

impl fmt::Debug for SpecText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} bytes]", self.0.len())
    }
}

/// What a session does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Work {
    /// Run a program.
    Exec(Exec),
    /// Write what lies at `path` to standard output as a tar archive, whose names begin with the path's last component. Exits 0 when it is complete;
    /// otherwise standard error says why.
    #[allow(missing_docs)]
    CopyOut { path: String },
    /// Unpack the tar archive on standard input in the directory `dir`. Exits 0 when it is complete. Nothing goes beyond the container's root, and no name
    /// of the archive out of `dir`. Links that lay there before are the container's own: they are followed within the root, also out of `dir`, until the
    /// archive has brought a link that could lead out.
    #[allow(missing_docs)]
    CopyIn {
        dir: String,
        /// Let the files have the owners that the archive names; else they are root's.
        owners: bool,
        /// Let a file replace a directory, and a directory a file.
        replace: bool,
    },
    /// Write to standard output what is not as the image has it: for each path a letter, `A` for added, `C` for changed, `D` for deleted, the absolute path, and
    /// a zero byte. Exits 0 when that is all; otherwise standard error says why.
    Changes,
}

/// A program to run beside the main process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// The program, then its arguments; never empty.
    pub argv: Vec<String>,
    /// `NAME=VALUE`, set over the main process's environment.
    pub env: Environment,
    /// Absolute; empty is the main process's.
    pub dir: String,
    /// `user[:group]`; empty is the main process's.
    pub user: String,
    /// Run on a terminal of this size.
    pub terminal: Option<TermSize>,
    /// Standard input comes from the host; otherwise it is empty.
    pub stdin: bool,
    /// Output goes to the host from the start.
    pub attach: bool,
}

/// What the guest answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// It is done.
    Done,
    /// This version does not know the request.
    Unsupported,
    /// It could not be done.
    #[allow(missing_docs)]
    Refused { reason: String },
    /// The session runs.
    #[allow(missing_docs)]
    Started { pid: u32 },
    /// The session's program could not be run; there is no session.
    Failed(Failure),
    /// Every session that has not been forgotten, by number.
    Sessions(Vec<SessionInfo>),
    /// Every process of the container, by number.
    Processes(Vec<ProcessInfo>),
    /// What the container uses.
    Stats(Box<Stats>),
    /// What lies at a path.
    Path(PathInfo),
    /// So many bytes of the disks were told to be free.
    #[allow(missing_docs)]
    Trimmed { bytes: u64 },
    /// What was asked for.
    Text(String),
    /// The keys of the spec, without the link's: what the store holds now, or what the last `Reload` brought.
    Spec(SpecText),
}

/// A session, as its guest knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionInfo {
    /// Its number.
    pub session: SessionId,
    /// How far it is.
    pub state: SessionState,
    /// It has a terminal.
    pub terminal: bool,
    /// Its output goes to the host.
    pub attached: bool,
}

/// How far a session is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionState {
    /// It is held until the host says `Start`.
    Waiting,
    /// Its process runs, or its output is not yet complete.
    #[allow(missing_docs)]
    Running { pid: u32, started_us: u64 },
    /// Its process has ended and its output is on its channels.
    Ended(Exit),
}

/// What lies at a path: stat(2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct PathInfo {
    /// The last component, as asked.
    pub name: String,
    pub size: u64,
    /// Type and permissions as Linux has them: inode(7).
    pub mode: u32,
    /// Modification: nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Where a symbolic link leads, or an empty text.
    pub target: String,
}

/// What the guest tells unasked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// The first message of a boot.
    Ready(Ready),
    /// A session's process runs.
    #[allow(missing_docs)]
    Started { session: SessionId, pid: u32 },
    /// A session's process has ended and its output is complete; it may still be under way on its channels, up to their ends.
    #[allow(missing_docs)]
    Ended { session: SessionId, exit: Exit },
    /// The guest could not do what its spec asks, and will power off.
    Failed(Failure),
    /// The machine is not as it was: the JSON of [`crate::status::Status`].
    Status(String),
    /// Before [`Event::Failed`]: what the kernel had said by then, the end of it if it is long.
    KernelLog(String),
}

/// Who speaks, and how long it took: microseconds since the kernel's clock began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// The guest program's version.
    pub version: String,
    /// Drawn at random once a boot.
    pub boot: [u8; 16],
    /// When PID 1 began.
    pub init_us: u64,
    /// When the spec was read and the link's device opened.
    pub link_us: u64,
    /// When the root file system was ready to run the process.
    pub ready_us: u64,
}

impl Message {
    /// The bytes of a message, without the record's length.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self {
            Message::Request { id, request } => {
                codec::encode(&Head::Request(*id), &mut bytes);
                codec::encode(request, &mut bytes);
            }
            Message::UnknownRequest { id } => codec::encode(&Head::Request(*id), &mut bytes),
            Message::Reply { id, reply } => {
                codec::encode(&Head::Reply(*id), &mut bytes);
                codec::encode(reply, &mut bytes);
            }
            Message::Event(event) => {
                codec::encode(&Head::Event, &mut bytes);
                codec::encode(event, &mut bytes);
            }
            Message::UnknownEvent => codec::encode(&Head::Event, &mut bytes),
        }
        bytes
    }

    /// Parses a message.
    pub fn decode(bytes: &[u8]) -> Result<Message, DecodeError> {
        let (head, body) = codec::decode(bytes)?;
        match head {
            Head::Request(id) => Message::request(id, body),
            Head::Reply(id) => Ok(Message::Reply { id, reply: codec::decode_all(body)? }),
            Head::Event => match codec::decode_all(body) {
                Ok(event) => Ok(Message::Event(event)),
                Err(DecodeError::UnknownKind) => Ok(Message::UnknownEvent),
                Err(error) => Err(error),
            },
        }
    }

    /// Parses a message as a guest does: `None` for replies and events, which are not for it. A program that calls this and not [`Message::decode`] has no code for
    /// these, 20 KB of it.
    pub fn decode_request(bytes: &[u8]) -> Result<Option<Message>, DecodeError> {
        match codec::decode(bytes)? {
            (Head::Request(id), body) => Message::request(id, body).map(Some),
            (Head::Reply(_) | Head::Event, _) => Ok(None),
        }
    }

    fn request(id: u64, body: &[u8]) -> Result<Message, DecodeError> {
        match codec::decode_all(body) {
            Ok(request) => Ok(Message::Request { id, request }),
            Err(DecodeError::UnknownKind) => Ok(Message::UnknownRequest { id }),
            Err(error) => Err(error),
        }
    }
}

/// The bytes of a record before its message.
pub(crate) const RECORD_HEADER: usize = 4;

/// Appends a message as a record.
#[allow(clippy::cast_possible_truncation)] // the assertion
pub(crate) fn frame_record(message: &[u8], out: &mut Vec<u8>) {
    assert!(message.len() <= codec::MAX_ENCODED, "a message is at most {} bytes", codec::MAX_ENCODED);
    out.extend_from_slice(&(message.len() as u32).to_le_bytes());
    out.extend_from_slice(message);
}

/// The message at the front of `bytes` and the length of its record; `None` while it is incomplete.
pub(crate) fn split_record(bytes: &[u8]) -> Result<Option<(&[u8], usize)>, DecodeError> {
    let Some((len, rest)) = bytes.split_first_chunk::<RECORD_HEADER>() else { return Ok(None) };
    let len = u32::from_le_bytes(*len) as usize;
    if len > codec::MAX_ENCODED {
        return Err(DecodeError::Malformed(format!("a message of {len} bytes")));
    }
    Ok(rest.get(..len).map(|message| (message, RECORD_HEADER + len)))
}

#[cfg(test)]
mod tests;
