//! What can keep a tree from becoming an ISO 9660 image, or an image from being read.

use std::io;

/// Why there is no image, or no tree.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("/{path} cannot be stored in an ISO 9660 image: {reason}")]
    Unfit { path: String, reason: String },
    #[error("/{path} cannot be read")]
    Read { path: String, source: io::Error },
    #[error("the image cannot be laid out: {reason}")]
    Layout { reason: String },
    #[error("the image cannot be written")]
    Write(#[from] io::Error),
    #[error("the image cannot be read at byte {at}")]
    Image { at: u64, source: io::Error },
    #[error("no ISO 9660 image, or a damaged one: at byte {at}, {what}")]
    Damaged { at: u64, what: String },
}

impl Error {
    pub(super) fn damaged(at: u64, what: impl Into<String>) -> Error {
        Error::Damaged { at, what: what.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_reads_well() {
        let source = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let said = [
            Error::Unfit { path: "a".into(), reason: "it has extended attributes".into() },
            Error::Read { path: "a".into(), source: source() },
            Error::Layout { reason: "it is too large".into() },
            Error::Write(source()),
            Error::Image { at: 5, source: source() },
            Error::damaged(5, "a record is cut off"),
        ]
        .map(|error| error.to_string());
        assert_eq!(said[0], "/a cannot be stored in an ISO 9660 image: it has extended attributes");
        assert_eq!(said[5], "no ISO 9660 image, or a damaged one: at byte 5, a record is cut off");
        assert!(said.iter().all(|text| !text.ends_with('.')));
    }
}
