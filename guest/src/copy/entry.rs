//! One entry of an archive: what is known of a file, in neither's bytes.

use std::ffi::CString;

/// A file, link, directory or device, without a file's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// As the archive has it.
    pub(super) name: Vec<u8>,
    pub(super) kind: Kind,
    pub(super) meta: Meta,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File {
        size: u64,
    },
    /// The name of an earlier entry.
    HardLink {
        target: Vec<u8>,
    },
    Symlink {
        target: Vec<u8>,
    },
    Directory,
    Fifo,
    CharDevice {
        major: u64,
        minor: u64,
    },
    BlockDevice {
        major: u64,
        minor: u64,
    },
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Meta {
    /// Permissions, with set-id and sticky bits.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: Time,
    pub(super) xattrs: Vec<(CString, Vec<u8>)>,
}

/// Since 1970. The nanoseconds always count forward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Time {
    pub(super) seconds: i64,
    pub(super) nanos: u32,
}
