//! What can keep a tree from becoming an image.

use std::io;
use std::path::PathBuf;

/// Why an image was not written, or not read back.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("can not store {}: {reason}", path.display())]
    Unfit { path: PathBuf, reason: Unfit },
    #[error("can not read the contents of {}", path.display())]
    Contents { path: PathBuf, source: io::Error },
    #[error("can not write the image")]
    Write { source: io::Error },
    #[error("the files need an image of {needed} bytes, more than the {size} asked for")]
    TooSmall { size: u64, needed: u64 },
    #[error("an image of {size} bytes is beyond the limit of {limit}")]
    TooLarge { size: u64, limit: u64 },
    #[error("the label {label:?} is longer than 16 bytes or has a zero byte")]
    Label { label: String },
    #[error("can not read the image, at byte {at}")]
    Read { at: u64, source: io::Error },
    #[error("damaged ext4 image, at byte {at}: {what}")]
    Damaged { at: u64, what: String },
    #[error("the ext4 image has the feature {feature}, which is not read here")]
    Feature { feature: String },
    #[error("inode {inode} of the ext4 image, at byte {at}, is {what}: this is not read here")]
    Unread { inode: u32, at: u64, what: &'static str },
    #[error("the ext4 image was not cleanly unmounted, and its journal is not read here: {what}; run e2fsck on it")]
    Journal { what: String },
}

impl Error {
    pub(super) fn damaged(at: u64, what: impl std::fmt::Display) -> Error {
        Error::Damaged { at, what: what.to_string() }
    }
}

/// What of a file ext4 can not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    #[error("the name is empty, `.`, `..`, longer than 255 bytes, or contains `/` or a zero byte")]
    Name,
    #[error("the directory has a second name")]
    SecondName,
    #[error("{links} hard links are more than 65000")]
    Links { links: u64 },
    #[error("the symlink's target is empty, longer than 4095 bytes, or contains a zero byte")]
    Target,
    #[error("there is no device number {major}:{minor}")]
    Device { major: u32, minor: u32 },
    #[error("a file of {size} bytes is too large")]
    FileSize { size: u64 },
    #[error("the xattr {name} has a name that Linux does not store, or is a malformed ACL")]
    Xattr { name: String },
    #[error("xattrs of {bytes} bytes do not fit the {room} in a block")]
    XattrSpace { bytes: usize, room: usize },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_reads_well() {
        let path = PathBuf::from("/a");
        let source = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let unfit = |reason| Error::Unfit { path: path.clone(), reason }.to_string();
        let said = [
            unfit(Unfit::Name),
            unfit(Unfit::SecondName),
            unfit(Unfit::Links { links: 65_001 }),
            unfit(Unfit::Target),
            unfit(Unfit::Device { major: 1, minor: 2 }),
            unfit(Unfit::FileSize { size: 1 }),
            unfit(Unfit::Xattr { name: "x".into() }),
            unfit(Unfit::XattrSpace { bytes: 5000, room: 4060 }),
            Error::Contents { path: path.clone(), source: source() }.to_string(),
            Error::Write { source: source() }.to_string(),
            Error::TooSmall { size: 1, needed: 2 }.to_string(),
            Error::TooLarge { size: 2, limit: 1 }.to_string(),
            Error::Label { label: "x".into() }.to_string(),
            Error::Read { at: 1, source: source() }.to_string(),
            Error::damaged(1024, "superblock").to_string(),
            Error::Feature { feature: "compression".into() }.to_string(),
            Error::Unread { inode: 12, at: 4096, what: "encrypted" }.to_string(),
            Error::Journal { what: "it has the feature fast_commit".into() }.to_string(),
        ];
        assert_eq!(said[4], "can not store /a: there is no device number 1:2");
        assert_eq!(said[10], "the files need an image of 2 bytes, more than the 1 asked for");
        assert!(said.iter().all(|text| !text.is_empty() && !text.ends_with('.')));
    }
}
