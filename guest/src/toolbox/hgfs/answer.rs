//! What packets are answered with.

use nix::errno::Errno;
use nix::sys::stat::FileStat;

use super::{
    CLOSE_V3, DESTROY_SESSION_V4, HAS_GID, HAS_PERMISSIONS, HAS_SIZE, HAS_TYPE, HAS_UID, HEADER, LONGEST, MARK,
    OPEN_V3, Packet, SERVED, Status, is_old,
};

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Answer {
    /// A session of this number was made.
    Session(u64),
    Attributes(Attributes),
    /// A file was opened, with this handle.
    Opened(u32),
    Read(Vec<u8>),
    /// So many bytes.
    Written(usize),
    Done,
}

/// A regular file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Attributes {
    pub size: u64,
    /// With its type.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds since 1970.
    pub modified: i64,
    pub accessed: i64,
}

impl From<&FileStat> for Attributes {
    fn from(of: &FileStat) -> Attributes {
        let size = u64::try_from(of.st_size).unwrap_or_default();
        let (modified, accessed) = (of.st_mtime, of.st_atime);
        Attributes { size, mode: of.st_mode, uid: of.st_uid, gid: of.st_gid, modified, accessed }
    }
}

impl From<Errno> for Status {
    fn from(errno: Errno) -> Status {
        match errno {
            Errno::ENOENT => Status::NoSuchFile,
            // what is written is not read before it is there
            Errno::EBADF => Status::InvalidHandle,
            Errno::EPERM | Errno::EROFS => Status::NotPermitted,
            Errno::EEXIST => Status::FileExists,
            Errno::ENOTDIR => Status::NotDirectory,
            Errno::EACCES | Errno::EISDIR | Errno::ELOOP => Status::AccessDenied,
            // somebody has a lease on it
            Errno::EAGAIN => Status::Sharing,
            Errno::ENOSPC | Errno::EDQUOT => Status::NoSpace,
            Errno::ENAMETOOLONG => Status::NameTooLong,
            Errno::EINVAL | Errno::EFBIG => Status::InvalidParameter,
            Errno::EXDEV => Status::NotSameDevice,
            Errno::ESTALE => Status::StaleSession,
            Errno::EUSERS => Status::TooManySessions,
            _ => Status::Generic,
        }
    }
}

impl Packet {
    /// The whole packet that answers it.
    pub fn answer(&self, outcome: &Result<Answer, Status>) -> Vec<u8> {
        let (status, session) = match outcome {
            Ok(Answer::Session(session)) => (0, *session),
            Ok(_) => (0, self.session),
            Err(status) => (*status as u32, self.session),
        };
        let mut out = vec![1, 0, 0, 0];
        words(&mut out, &[MARK, 0, word(HEADER), self.id, self.operation, status, 2, 0]);
        long(&mut out, session);
        long(&mut out, 0);
        if let Ok(answer) = outcome {
            self.payload(answer, &mut out);
        }
        let whole = word(out.len()).to_le_bytes();
        out[8..12].copy_from_slice(&whole);
        out
    }

    fn payload(&self, answer: &Answer, out: &mut Vec<u8>) {
        if is_old(self.operation) {
            long(out, 0);
        }
        match answer {
            Answer::Session(session) => {
                long(out, *session);
                // that the longest packet is said; no identity
                words(out, &[word(SERVED.len()), word(LONGEST), 0, 1, 0]);
                SERVED.iter().for_each(|&operation| words(out, &[operation, 1]));
            }
            Answer::Attributes(Attributes { size, mode, uid, gid, .. }) => {
                long(out, HAS_TYPE | HAS_SIZE | 0xf << HAS_PERMISSIONS | HAS_UID | HAS_GID);
                // a regular file
                words(out, &[0]);
                long(out, *size);
                words(out, &[0; 8]);
                let permissions = [9, 6, 3, 0].map(|shift| (mode >> shift & 7).to_le_bytes()[0]);
                words(out, &[u32::from_le_bytes(permissions), 0, 0, 0, 0, *uid, *gid]);
                // no file's, no volume's number; and the name that a link has, with the first byte that it always has
                words(out, &[0; 2 + 1 + 1 + 2 + 1]);
                out.push(0);
            }
            Answer::Opened(handle) if self.operation == OPEN_V3 => words(out, &[*handle, 0, 0, 0]),
            Answer::Opened(handle) => words(out, &[*handle]),
            Answer::Read(data) => {
                words(out, &[word(data.len()), 0, 0]);
                out.extend_from_slice(data);
            }
            Answer::Written(count) => words(out, &[word(*count), 0, 0]),
            Answer::Done if matches!(self.operation, CLOSE_V3 | DESTROY_SESSION_V4) => long(out, 0),
            Answer::Done => {}
        }
    }
}

// never inline: so many fields in a row would take as many copies of them
#[inline(never)]
fn words(out: &mut Vec<u8>, words: &[u32]) {
    words.iter().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
}

#[inline(never)]
fn long(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// A length of a packet's, which is none that it could not hold.
fn word(len: usize) -> u32 {
    u32::try_from(len).unwrap_or_default()
}
