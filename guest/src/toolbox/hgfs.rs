//! HGFS, version 4 as a host speaks it for a guest's files: packets, little endian, in slices that are checked. What becomes of files is decided by PID 1.
//!
//! ```text
//! version u8 = 1  0 u24  mark u32 = ff  whole u32  header u32 = 52  id u32  operation u32  status u32  flags u32  information u32  session u64  0 u64
//! payload …       of operations that are older than sessions it begins with 8 bytes more, of a header of theirs
//! a name          its length u32, `root 00 etc 00 hosts`; a byte may follow that nothing counts
//! ```
//!
//! Served is what a transfer needs: a session; the attributes of a file; to open, read and close it; and to write one and give it an owner and a mode: not times.
//! Sources: open-vm-tools, lib/include/hgfsProto.h; what a host asks for `govc guest.download` and `guest.upload`: govmomi, toolbox/hgfs/protocol_test.go.

mod answer;

pub use self::answer::{Answer, Attributes};

/// A request, and what its answer has to name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    id: u32,
    operation: u32,
    pub session: u64,
    /// What is asked, or why it cannot be.
    pub call: Result<Call, Status>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Call {
    CreateSession,
    DestroySession,
    Attributes(Target),
    SetAttributes(Target, Changes),
    Open {
        path: String,
        how: How,
    },
    /// Never more than one answer can hold.
    Read {
        handle: u32,
        offset: u64,
        count: usize,
    },
    /// Without an offset, at the end.
    Write {
        handle: u32,
        offset: Option<u64>,
        data: Vec<u8>,
    },
    Close {
        handle: u32,
    },
}

/// A file, open or by its path.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Target {
    Handle(u32),
    Path(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum How {
    Read,
    /// Anew, with these permissions. `fresh`: only where there is none.
    Write {
        mode: u32,
        fresh: bool,
    },
}

/// Attributes to be set; `mode` where `mask` has a bit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Changes {
    pub mode: u32,
    pub mask: u32,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
}

/// Why a request was not done: hgfsProto.h, `HgfsStatus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Status {
    NoSuchFile = 1,
    InvalidHandle = 2,
    NotPermitted = 3,
    FileExists = 4,
    NotDirectory = 5,
    Protocol = 7,
    AccessDenied = 8,
    InvalidName = 9,
    Generic = 10,
    Sharing = 11,
    NoSpace = 12,
    NotSupported = 13,
    NameTooLong = 14,
    InvalidParameter = 15,
    NotSameDevice = 16,
    StaleSession = 17,
    TooManySessions = 18,
}

/// Bytes of a packet's header.
const HEADER: usize = 52;
/// What tells this header from those of older versions.
const MARK: u32 = 0xff;
/// The longest packet, `HGFS_LARGE_PACKET_MAX`.
const LONGEST: usize = 0xf800;
/// What is left of it for the bytes of a file.
const MOST_READ: usize = LONGEST - HEADER - 12;

const OPEN: u32 = 0;
const CLOSE: u32 = 3;
const GET_ATTRIBUTES_V2: u32 = 15;
const SET_ATTRIBUTES_V2: u32 = 16;
const OPEN_V3: u32 = 24;
const READ_V3: u32 = 25;
const WRITE_V3: u32 = 26;
const CLOSE_V3: u32 = 27;
const CREATE_SESSION_V4: u32 = 41;
const DESTROY_SESSION_V4: u32 = 42;
const SERVED: [u32; 10] = [
    OPEN,
    CLOSE,
    GET_ATTRIBUTES_V2,
    SET_ATTRIBUTES_V2,
    OPEN_V3,
    READ_V3,
    WRITE_V3,
    CLOSE_V3,
    CREATE_SESSION_V4,
    DESTROY_SESSION_V4,
];

/// Which attributes are said, as far as they mean something here: `HGFS_ATTR_VALID_*`.
const HAS_TYPE: u64 = 1;
const HAS_SIZE: u64 = 1 << 1;
/// Of special, the owner's, the group's and others' permissions, from here on.
const HAS_PERMISSIONS: u32 = 6;
const HAS_UID: u64 = 1 << 12;
const HAS_GID: u64 = 1 << 13;
/// The same, of a file to be made: `HGFS_OPEN_VALID_*`.
const OPENS_WITH_PERMISSIONS: u32 = 2;
/// `HGFS_ATTR_HINT_USE_FILE_DESC`: the file is the one of this handle.
const HINT_HANDLE: u64 = 1 << 2;
const WRITE_APPEND: u64 = 1;

impl Packet {
    /// None if it is none, or its lengths are not true.
    pub(super) fn read(bytes: &[u8]) -> Option<Packet> {
        let header = bytes.get(..HEADER)?;
        let mut rest = Fields { rest: header, fault: None };
        rest.take(4);
        let (mark, whole, own) = (rest.u32(), rest.len(), rest.len());
        let (id, operation) = (rest.u32(), rest.u32());
        // status, flags, information
        rest.take(12);
        let session = rest.u64();
        let mut payload = Fields { rest: bytes.get(HEADER..whole)?, fault: None };
        let call = call(operation, &mut payload);
        let call = payload.fault.map_or(Ok(call), Err);
        (mark == MARK && own == HEADER).then_some(Packet { id, operation, session, call })
    }
}

/// The fields of a payload from its front. What is not there is 0, or empty, and what is wrong is remembered.
struct Fields<'a> {
    rest: &'a [u8],
    fault: Option<Status>,
}

impl<'a> Fields<'a> {
    // never inline: so many fields in a row would take as many copies of it
    #[inline(never)]
    fn take(&mut self, count: usize) -> &'a [u8] {
        let Some((front, rest)) = self.rest.split_at_checked(count) else {
            self.fault = Some(Status::Protocol);
            return &[];
        };
        self.rest = rest;
        front
    }

    /// Of so many bytes.
    #[inline(never)]
    fn number(&mut self, count: usize) -> u64 {
        let mut bytes = [0; 8];
        bytes.iter_mut().zip(self.take(count)).for_each(|(byte, of)| *byte = *of);
        u64::from_le_bytes(bytes)
    }

    fn u64(&mut self) -> u64 {
        self.number(8)
    }

    #[allow(clippy::cast_possible_truncation, reason = "there are four bytes")]
    fn u32(&mut self) -> u32 {
        self.number(4) as u32
    }

    #[allow(clippy::cast_possible_truncation, reason = "there are four bytes")]
    fn len(&mut self) -> usize {
        self.number(4) as usize
    }
}

/// What is asked, as far as the payload has its fields.
fn call(operation: u32, rest: &mut Fields<'_>) -> Call {
    if is_old(operation) {
        rest.take(8);
    }
    match operation {
        CREATE_SESSION_V4 => Call::CreateSession,
        DESTROY_SESSION_V4 => Call::DestroySession,
        CLOSE | CLOSE_V3 => Call::Close { handle: rest.u32() },
        READ_V3 => {
            let (handle, offset, count) = (rest.u32(), rest.u64(), rest.len());
            Call::Read { handle, offset, count: count.min(MOST_READ) }
        }
        WRITE_V3 => {
            let (handle, flags, offset) = (rest.u32(), rest.number(1), rest.u64());
            let (count, _) = (rest.len(), rest.u64());
            let offset = (flags & WRITE_APPEND == 0).then_some(offset);
            Call::Write { handle, offset, data: rest.take(count).to_vec() }
        }
        GET_ATTRIBUTES_V2 => {
            let hints = rest.u64();
            Call::Attributes(target(hints, rest))
        }
        SET_ATTRIBUTES_V2 => {
            let hints = rest.u64();
            let changes = changes(rest);
            Call::SetAttributes(target(hints, rest), changes)
        }
        OPEN | OPEN_V3 => open(operation, rest),
        _ => {
            rest.fault = Some(Status::NotSupported);
            // and so it is nothing
            Call::DestroySession
        }
    }
}

/// Whether it has a header of its own behind the packet's, and so has its answer.
fn is_old(operation: u32) -> bool {
    operation < OPEN_V3
}

fn open(operation: u32, rest: &mut Fields<'_>) -> Call {
    let is_new = operation == OPEN_V3;
    let named = if is_new { rest.u64() >> OPENS_WITH_PERMISSIONS } else { 1 << 1 };
    let (access, flags) = (rest.u32(), rest.u32());
    let mode = if is_new {
        permissions(named, rest.take(4))
    } else {
        permissions(named, &[0, rest.take(1).first().copied().unwrap_or_default()])
    };
    // attributes, size, access, sharing, lock, reserved: a lock is asked for and not given
    rest.take(if is_new { 8 + 8 + 4 + 4 + 4 + 16 } else { 0 });
    let len = rest.len();
    // flags, case, handle
    rest.take(if is_new { 12 } else { 0 });
    let path = path(len, rest);
    let how = match (access, flags) {
        (0, 0) => How::Read,
        // the ones that leave nothing of a file that was there before
        (1, 3 | 4) => How::Write { mode: complete(mode), fresh: flags == 3 },
        _ => {
            rest.fault = rest.fault.or(Some(Status::NotSupported));
            How::Read
        }
    };
    Call::Open { path, how }
}

/// Special, the owner's, the group's and others' as a mode, and which of its bits are named.
fn permissions(named: u64, bytes: &[u8]) -> (u32, u32) {
    let (mut mode, mut mask) = (0, 0);
    for (at, &bits) in bytes.iter().enumerate() {
        if named >> at & 1 == 1 {
            let shift = 9 - 3 * at;
            mode |= u32::from(bits & 7) << shift;
            mask |= 7 << shift;
        }
    }
    (mode, mask)
}

/// Who is not named may what the owner may, but for writing.
fn complete((mode, named): (u32, u32)) -> u32 {
    let owner = if named & 0o700 == 0 { 6 } else { mode >> 6 & 7 };
    let all = owner << 6 | (owner & 5) << 3 | owner & 5;
    mode & named | all & !named
}

fn changes(rest: &mut Fields<'_>) -> Changes {
    let (valid, _type, size) = (rest.u64(), rest.u32(), rest.u64());
    // times: of creation, access, writing, and change of these
    rest.take(32);
    let (mode, mask) = permissions(valid >> HAS_PERMISSIONS, rest.take(4));
    // flags, size on the disk
    rest.take(16);
    let (uid, gid) = (rest.u32(), rest.u32());
    // numbers of the file and its volume, permissions in effect, reserved
    rest.take(24);
    let has = |bit: u64| valid & bit != 0;
    Changes {
        mode,
        mask,
        uid: has(HAS_UID).then_some(uid),
        gid: has(HAS_GID).then_some(gid),
        size: has(HAS_SIZE).then_some(size),
    }
}

fn target(hints: u64, rest: &mut Fields<'_>) -> Target {
    let (handle, len) = (rest.u32(), rest.len());
    match hints & HINT_HANDLE {
        0 => Target::Path(path(len, rest)),
        _ => Target::Handle(handle),
    }
}

/// A path from the root, of so many bytes: components with NULs between them, and none leads upwards.
fn path(len: usize, rest: &mut Fields<'_>) -> String {
    let name = rest.take(len);
    let mut path = name.strip_prefix(b"root").unwrap_or_default().to_vec();
    let has_slash = path.contains(&b'/');
    path.iter_mut().filter(|byte| **byte == 0).for_each(|byte| *byte = b'/');
    let path = String::from_utf8(path).unwrap_or_default();
    if has_slash || !is_path(&path) {
        rest.fault = rest.fault.or(Some(Status::InvalidName));
    }
    path
}

/// Whether it is a file's path from the root that leads nowhere upwards.
pub(super) fn is_path(path: &str) -> bool {
    let path = path.as_bytes();
    let leads_astray = |name: &[u8]| matches!(name, b"." | b"..") || name.contains(&0);
    path.first() == Some(&b'/') && path.last() != Some(&b'/') && !path.split(|&byte| byte == b'/').any(leads_astray)
}

#[cfg(test)]
mod tests;
