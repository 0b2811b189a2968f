//! Entries of a tar archive that lies in a file, for those who make a tree of it by rules of their own.
//!
//! What regular files hold is not read but named as parts of the archive. Decides nothing about what an entry does.

use std::fs::File;
use std::sync::Arc;

use super::section::{Section, SectionReader};
use super::tar::{self, EntryKind, Segment};
use crate::tree::{Content, Extent, Kind, Meta, Source};

/// A member of an archive.
#[derive(Debug)]
pub struct Entry {
    /// As the archive has it.
    pub path: Vec<u8>,
    pub meta: Meta,
    pub what: What,
}

/// What a member is.
#[derive(Debug)]
pub enum What {
    /// A new inode; a directory is empty.
    Node(Kind),
    /// Another name of what an earlier member of this name is.
    HardLink(Vec<u8>),
}

/// The members of an archive in their order.
#[derive(Debug)]
pub struct Entries {
    file: Arc<File>,
    reader: tar::Reader<SectionReader>,
    is_over: bool,
}

impl Entries {
    /// Those of an archive that is not compressed.
    pub fn of(file: &Arc<File>) -> Result<Entries, tar::Error> {
        let len = file.metadata()?.len();
        let section = Section { file: Arc::clone(file), start: 0, len };
        Ok(Entries { file: Arc::clone(file), reader: tar::Reader::new(section.reader()), is_over: false })
    }

    fn content(&self, size: u64, segments: &[Segment]) -> Content {
        let mut from = self.reader.offset();
        let part = |&Segment { at, len }| {
            let extent = Extent { at, len, source: Source::File(Arc::clone(&self.file)), from };
            from += len;
            extent
        };
        Content { size, extents: segments.iter().map(part).collect() }
    }
}

impl Iterator for Entries {
    type Item = Result<Entry, tar::Error>;

    fn next(&mut self) -> Option<Result<Entry, tar::Error>> {
        if self.is_over {
            return None;
        }
        let entry = match self.reader.next() {
            Ok(Some(entry)) => entry,
            Ok(None) => return None,
            Err(error) => {
                self.is_over = true;
                return Some(Err(error));
            }
        };
        let what = match entry.kind {
            EntryKind::File { size, segments } => What::Node(Kind::File(self.content(size, &segments))),
            EntryKind::HardLink(target) => What::HardLink(target),
            EntryKind::Symlink(target) => What::Node(Kind::Symlink(target)),
            EntryKind::CharDevice { major, minor } => What::Node(Kind::CharDevice { major, minor }),
            EntryKind::BlockDevice { major, minor } => What::Node(Kind::BlockDevice { major, minor }),
            EntryKind::Dir => What::Node(Kind::Dir(Default::default())),
            EntryKind::Fifo => What::Node(Kind::Fifo),
        };
        Some(Ok(Entry { path: entry.path, meta: entry.meta, what }))
    }
}
