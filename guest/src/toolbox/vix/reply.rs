//! What guest operations are answered with: a VIX error, a number of the system's that we leave 0, and data.

use std::fmt::Write as _;

use wire::guestinfo::base64;

use super::{Outcome, VixError};
use crate::toolbox::hgfs::Attributes;

/// How the answer to a request has to be put.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    is_binary: bool,
}

/// `VIX_COMMAND_GUEST_RETURNS_BINARY`.
const RETURNS_BINARY: u8 = 0x80;

impl Reply {
    pub(super) fn new(flags: u8) -> Reply {
        Reply { is_binary: flags & RETURNS_BINARY != 0 }
    }

    /// The whole answer, for TCLO.
    pub fn answer(self, outcome: &Outcome) -> Vec<u8> {
        let (code, data) = match outcome {
            Ok(data) => (0, &data[..]),
            Err(error) => (*error as u32, &b""[..]),
        };
        let mut answer = format!("OK {code} 0 ").into_bytes();
        // binary data begins behind its mark, text ends with a NUL
        answer.extend(self.is_binary.then_some(b'#'));
        answer.extend_from_slice(data);
        answer.extend((!self.is_binary).then_some(0));
        answer
    }
}

impl From<&std::io::Error> for VixError {
    fn from(error: &std::io::Error) -> VixError {
        match error.kind() {
            std::io::ErrorKind::NotFound => VixError::FileNotFound,
            std::io::ErrorKind::AlreadyExists => VixError::FileExists,
            std::io::ErrorKind::IsADirectory => VixError::NotAFile,
            std::io::ErrorKind::PermissionDenied => VixError::AccessDenied,
            _ => VixError::Failed,
        }
    }
}

// -- the state of the tools

/// Properties by number: open-vm-tools, lib/include/vixOpenSource.h.
const TOOLS_VERSION: u32 = 4500;
const API_OPTIONS: u32 = 4501;
const OS_FAMILY: u32 = 4502;
const OS_VERSION: u32 = 4503;
const NAME: u32 = 4505;
const PRODUCT: u32 = 4511;
const OS_VERSION_SHORT: u32 = 4520;
/// Whether each operation is served.
const SERVED: std::ops::RangeInclusive<u32> = 4540..=4557;
const SERVES_START: u32 = 4540;
const SERVES_TERMINATE: u32 = 4542;
const SERVES_DOWNLOAD: u32 = 4556;
const SERVES_UPLOAD: u32 = 4557;

/// `GetToolsState`: a list of properties. An operation that is not named is taken for one of tools that are too old, so each is.
pub(in super::super) fn state(host_name: &str, os: &str, os_short: &str, agent: &str) -> Vec<u8> {
    let mut list = Vec::new();
    let mut put = |number: u32, kind: u32, value: &[u8]| {
        for word in [number, kind, u32::try_from(value.len()).unwrap_or_default()] {
            list.extend_from_slice(&word.to_le_bytes());
        }
        list.extend_from_slice(value);
    };
    let texts =
        [(OS_VERSION, os), (OS_VERSION_SHORT, os_short), (PRODUCT, agent), (TOOLS_VERSION, agent), (NAME, host_name)];
    for (number, text) in texts {
        put(number, 2, &[text.as_bytes(), &[0]].concat());
    }
    // that a handle's state can be asked for; and Linux
    for number in [API_OPTIONS, OS_FAMILY] {
        put(number, 1, &1_u32.to_le_bytes());
    }
    for number in SERVED {
        put(
            number,
            3,
            &[u8::from(matches!(number, SERVES_START..=SERVES_TERMINATE | SERVES_DOWNLOAD..=SERVES_UPLOAD))],
        );
    }
    base64::encode(&list).into()
}

// -- processes

/// A process as vCenter lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    pub pid: u32,
    /// Its program and arguments.
    pub command: Vec<String>,
    pub user: String,
    /// Seconds since 1970.
    pub started: u64,
    /// What it exited with, and when, in seconds since 1970. Who started it is told that for a while.
    pub exit: Option<(u8, u64)>,
}

/// What fits into one message of the guest's, with room for what is around it.
const MOST: usize = crate::vmware::MOST_SENT - 1024;

/// Processes as `ListProcessesEx` tells them: as many as one answer can hold.
pub fn list(processes: &[Process]) -> Vec<u8> {
    let mut out = String::new();
    for Process { pid, command, user, started, exit } in processes {
        let before = out.len();
        let path = command.first().map(String::as_str).unwrap_or_default();
        out.push_str("<proc><cmd>");
        escape(path.rsplit('/').next().unwrap_or(path), &mut out);
        out.push_str("</cmd><name>");
        for (at, argument) in command.iter().enumerate() {
            out.push_str(if at == 0 { "" } else { " " });
            escape(argument, &mut out);
        }
        let (code, ended) = exit.unwrap_or_default();
        let _infallible = write!(out, "</name><pid>{pid}</pid><user>");
        escape(user, &mut out);
        let _infallible =
            write!(out, "</user><start>{started}</start><eCode>{code}</eCode><eTime>{ended}</eTime></proc>");
        if out.len() > MOST {
            out.truncate(before);
            break;
        }
    }
    out.into()
}

// -- files

/// A regular file as `InitiateFileTransferFromGuest` tells of it.
pub fn file(path: &str, of: &Attributes) -> Vec<u8> {
    let mut out = String::from("<fxi><Name>");
    escape(path, &mut out);
    let Attributes { size, mode, uid, gid, modified, accessed } = of;
    let _infallible = write!(out, "</Name><ft>0</ft><fs>{size}</fs><mt>{modified}</mt><at>{accessed}</at>");
    let _infallible = write!(out, "<uid>{uid}</uid><gid>{gid}</gid><perm>{mode}</perm><slt></slt></fxi>");
    out.into()
}

/// What would be read as part of the list is written in hexadecimal. A NUL would end the answer, and other control characters are of no use there.
fn escape(text: &str, out: &mut String) {
    for char in text.chars() {
        match char {
            '"' | '%' | '&' | '\'' | '<' | '>' | '\0'..='\x1f' => {
                let _infallible = write!(out, "%{:02X}", u32::from(char));
            }
            char => out.push(char),
        }
    }
}
