//! Guest operations, as the host relays them: VIX requests, little endian, in slices that are checked.
//!
//! ```text
//! "name" 00   magic d00d0001  version u16  total u32  header u32 = 51  body u32  credentials u32  flags u8
//!             operation u32  flags u32  timeout u32  cookie u64  handle u32  kind of credentials u32
//!             body …  credentials: name's length u32, password's length u32, base64 of `name 00 password 00`, 00
//! ```
//!
//! What a containerVM serves: its state, to anybody; and to who knows the VM's id and its link's key, to start a program, to list processes, to end one,
//! and to transfer files, of which the host first asks whether they may be, and then for their bytes, in packets of [`super::hgfs`]. Sources: open-vm-tools, lib/include/vixCommands.h and services/plugins/vix/vixTools.c; govmomi, toolbox/vix.

mod reply;

use wire::guestinfo::{base64, signal_number};
use wire::handshake::LinkKey;
use wire::message::Exec;
use wire::spec::Environment;

pub(super) use self::reply::state;
pub use self::reply::{Process, Reply, file, list};
use super::hgfs::{Packet, is_path};

/// What is asked.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// Answered here.
    State,
    Operation(Operation),
}

/// What PID 1 is to do, for somebody who may ask for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Start a program beside the main process. Answered with its number.
    Start(Exec),
    /// VIC's `kill`: send this signal to the main process. Answered with its number.
    Signal(u8),
    /// VIC's `reload`: read the spec anew. Answered with the number of PID 1.
    Reload,
    /// Tell of these processes, or of all if there are none. Answered with what [`list`] makes of them.
    List(Vec<u64>),
    /// End a process: SIGTERM, and SIGKILL if it has not gone within five seconds (vSphere's API, `TerminateProcessInGuest`).
    Terminate(u64),
    /// Whether this file can be read. Answered with what [`file()`] makes of it.
    Download(String),
    /// Whether a file can be written there, in the place of one too.
    Upload { path: String, overwrite: bool },
    /// A step of a transfer. Answered with what [`Packet::answer`] makes of it.
    Transfer(Packet),
}

/// The data of an answer, or why there is none.
pub type Outcome = Result<Vec<u8>, VixError>;

/// Why an operation was not done: vix.h of open-vm-tools, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VixError {
    /// The guest could not.
    Failed = 1,
    InvalidArgument = 3,
    FileNotFound = 4,
    FileExists = 12,
    AccessDenied = 13,
    /// Who asks has not shown that they may.
    Authentication = 35,
    /// An operation that is not served.
    UnknownOperation = 3025,
    /// The request is none.
    Header = 10_000,
    /// What the operation needs to know cannot be read.
    Body = 10_001,
    /// A directory, a pipe, a device.
    NotAFile = 20_001,
    NoSuchProcess = 20_003,
}

const MAGIC: u32 = 0xd00d_0001;
/// Bytes before the body.
const HEADER: usize = 51;
/// `VIX_USER_CREDENTIAL_NAME_PASSWORD`.
const NAME_AND_PASSWORD: u32 = 1;

const GET_TOOLS_STATE: u32 = 62;
const SEND_HGFS_PACKET: u32 = 84;
const START_PROGRAM: u32 = 185;
const LIST_PROCESSES: u32 = 186;
const TRANSFER_FROM_GUEST: u32 = 188;
const TRANSFER_TO_GUEST: u32 = 189;
const TERMINATE_PROCESS: u32 = 193;

/// What is asked, and how it is to be answered.
pub(super) fn read(relayed: &[u8], id: &str, key: &LinkKey) -> (Reply, Result<Request, VixError>) {
    let Some(message) = Message::read(relayed) else { return (Reply::default(), Err(VixError::Header)) };
    (Reply::new(message.flags), message.request(id, key))
}

struct Message<'a> {
    flags: u8,
    operation: u32,
    credential_kind: u32,
    body: &'a [u8],
    credentials: &'a [u8],
}

impl<'a> Message<'a> {
    /// None if it is none, or its lengths are not true.
    fn read(relayed: &'a [u8]) -> Option<Message<'a>> {
        let quoted = relayed.strip_prefix(b" \"")?;
        let end = quoted.iter().position(|&byte| byte == b'"')?;
        let message = quoted[end..].strip_prefix(b"\"\0")?;
        let mut rest = Reader(message);
        let (magic, _version) = (rest.u32()?, rest.take(2)?);
        let [total, header, body, credentials] = [rest.len()?, rest.len()?, rest.len()?, rest.len()?];
        let flags = rest.take(1)?[0];
        let (operation, _flags, _timeout) = (rest.u32()?, rest.u32()?, rest.u32()?);
        let (_cookie, _handle) = (rest.take(8)?, rest.u32()?);
        let credential_kind = rest.u32()?;
        let are_true = magic == MAGIC
            && header == HEADER
            && Some(total) == HEADER.checked_add(body).and_then(|sum| sum.checked_add(credentials));
        let (body, credentials) = (rest.take(body)?, rest.take(credentials)?);
        are_true.then_some(Message { flags, operation, credential_kind, body, credentials })
    }

    fn request(&self, id: &str, key: &LinkKey) -> Result<Request, VixError> {
        let read = match self.operation {
            GET_TOOLS_STATE => return Ok(Request::State),
            START_PROGRAM => start,
            LIST_PROCESSES => list_processes,
            TERMINATE_PROCESS => terminate,
            TRANSFER_FROM_GUEST => download,
            TRANSFER_TO_GUEST => upload,
            SEND_HGFS_PACKET => transfer,
            _ => return Err(VixError::UnknownOperation),
        };
        if !self.is_by(id, key).unwrap_or(false) {
            return Err(VixError::Authentication);
        }
        read(self.body).map(Request::Operation)
    }

    /// Whether it comes from somebody who knows the VM's id and its link's key. None if nothing can be read.
    fn is_by(&self, id: &str, key: &LinkKey) -> Option<bool> {
        let mut rest = Reader(self.credentials.strip_suffix(&[0])?);
        let (name, password) = (rest.len()?, rest.len()?);
        let both = base64::decode(std::str::from_utf8(rest.0).ok()?)?;
        let mut rest = Reader(&both);
        let (name, _nul) = (rest.take(name)?, rest.take(1)?);
        let password = std::str::from_utf8(rest.take(password)?).ok()?;
        // who is asked for is no secret, the key is
        let is_known = name == id.as_bytes() && key.is_hex(password);
        Some(is_known && self.credential_kind == NAME_AND_PASSWORD && rest.0 == [0])
    }
}

fn start(body: &[u8]) -> Result<Operation, VixError> {
    let (program, arguments, dir, env) = read_start(body).ok_or(VixError::Body)?;
    let words = words_of(&arguments)?;
    if program.is_empty() || env.iter().any(|entry| !entry.contains('=')) {
        return Err(VixError::InvalidArgument);
    }
    // an image's own programs of these names have a path
    match (program.as_str(), &words[..]) {
        ("kill", []) => return Ok(Operation::Signal(wire::spec::SIGTERM)),
        ("kill", [signal]) => return signal_number(signal).map(Operation::Signal).ok_or(VixError::InvalidArgument),
        ("kill", _) => return Err(VixError::InvalidArgument),
        ("reload", _) => return Ok(Operation::Reload),
        _ => {}
    }
    let argv = [program].into_iter().chain(words).collect();
    let env = Environment(env);
    Ok(Operation::Start(Exec { argv, env, dir, user: String::new(), terminal: None, stdin: false, attach: false }))
}

fn words_of(arguments: &str) -> Result<Vec<String>, VixError> {
    super::words::split(arguments).ok_or(VixError::InvalidArgument)
}

/// `VixMsgStartProgramRequest`: the lengths count the NUL that ends each text; what has none has no text either.
fn read_start(body: &[u8]) -> Option<(String, String, String, Vec<String>)> {
    let mut rest = Reader(body);
    let _minimized = rest.take(1)?;
    let [program, arguments, dir] = [rest.len()?, rest.len()?, rest.len()?];
    let (count, env) = (rest.len()?, rest.len()?);
    let (program, arguments, dir) = (rest.text(program)?, rest.text(arguments)?, rest.text(dir)?);
    let env = rest.text_of_texts(env)?;
    (env.len() == count && rest.0.is_empty()).then_some((program, arguments, dir, env))
}

/// `VixMsgListProcessesExRequest`. An answer is never so long that it would be asked for in parts.
fn list_processes(body: &[u8]) -> Result<Operation, VixError> {
    read_list(body).map(Operation::List).ok_or(VixError::Body)
}

fn read_list(body: &[u8]) -> Option<Vec<u64>> {
    let mut rest = Reader(body);
    let (_key, _offset, count) = (rest.u32()?, rest.u32()?, rest.len()?);
    let is_true = Some(rest.0.len()) == count.checked_mul(8);
    is_true.then(|| std::iter::from_fn(|| rest.u64()).collect())
}

/// `VixCommandKillProcessRequest`.
fn terminate(body: &[u8]) -> Result<Operation, VixError> {
    let mut rest = Reader(body);
    let pid = rest.u64();
    pid.filter(|_| rest.take(4).is_some()).map(Operation::Terminate).ok_or(VixError::Body)
}

/// `VixMsgListFilesRequest`, of which only the path says something.
fn download(body: &[u8]) -> Result<Operation, VixError> {
    path(body, 28).map(Operation::Download)
}

/// `VixCommandInitiateFileTransferToGuestRequest`.
fn upload(body: &[u8]) -> Result<Operation, VixError> {
    path(body, 9).map(|path| Operation::Upload { path, overwrite: body.get(8) != Some(&0) })
}

/// Its length is in the second word, and it begins there. The NUL behind it is counted by some hosts and not by others.
fn path(body: &[u8], begin: usize) -> Result<String, VixError> {
    let length = body.get(4..).and_then(|rest| Reader(rest).len());
    let bytes = body.get(begin..).zip(length).and_then(|(rest, length)| rest.get(..length)).ok_or(VixError::Body)?;
    let path = std::str::from_utf8(bytes.strip_suffix(&[0]).unwrap_or(bytes)).map_err(|_| VixError::InvalidArgument)?;
    match is_path(path) {
        true => Ok(path.to_owned()),
        false => Err(VixError::InvalidArgument),
    }
}

/// `VixCommandHgfsSendPacket`.
fn transfer(body: &[u8]) -> Result<Operation, VixError> {
    let mut rest = Reader(body);
    let length = rest.len().filter(|_| rest.u32().is_some());
    let packet = length.and_then(|length| rest.take(length)).and_then(Packet::read);
    packet.map(Operation::Transfer).ok_or(VixError::Body)
}

/// Bytes from their front, as far as there are any.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(front)
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn len(&mut self) -> Option<usize> {
        self.u32()?.try_into().ok()
    }

    /// A text of so many bytes with its NUL.
    fn text(&mut self, count: usize) -> Option<String> {
        let mut texts = self.text_of_texts(count)?;
        match (texts.pop(), texts.is_empty()) {
            (text, true) => Some(text.unwrap_or_default()),
            (_, false) => None,
        }
    }

    /// Texts of so many bytes with their NULs.
    fn text_of_texts(&mut self, count: usize) -> Option<Vec<String>> {
        let bytes = self.take(count)?;
        if bytes.is_empty() {
            return Some(Vec::new());
        }
        let text = std::str::from_utf8(bytes.strip_suffix(&[0])?).ok()?;
        Some(text.split('\0').map(str::to_owned).collect())
    }
}

#[cfg(test)]
pub(super) mod tests;
