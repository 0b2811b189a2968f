//! One set of names for the tree: its directories with their records, and the path tables that list them (ECMA-119, 6.8 and 9.4).
//!
//! An image has one with Rock Ridge and may have one of Joliet's. Directories may be of any depth, as xorriso makes them
//! by default: what the standard wants instead, that those below the eighth level move elsewhere, shows a directory that
//! nobody made, and no reader in use needs it.

use super::error::Error;
use super::fields::{self, Continuations};
use super::files::Files;
use super::format::{SECTOR, SECTOR_BYTES, date};
use super::identifiers::Namer;
use super::record::{DIRECTORY, MAX, NOT_LAST, PARENT, Record, SELF, system_use_at};
use super::sink::Sink;
use crate::tree::{Kind, NodeId, ROOT};

/// The most that one record holds of a file: whole sectors, below 4 GiB.
const PART: u64 = 0xffff_f800;

/// Bytes of a block, as sizes of directories are counted.
const SECTOR_U32: u32 = 2048;

/// The path tables number directories in 16 bits.
const MAX_IN_PATH_TABLE: usize = 0xffff;

#[derive(Debug)]
pub(super) struct Hierarchy<'a> {
    joliet: bool,
    /// Level by level, and by name within a directory: the order of the path tables.
    dirs: Vec<Dir<'a>>,
    /// Blocks of one path table.
    table_blocks: u32,
    /// Blocks of everything.
    pub(super) blocks: u32,
}

#[derive(Debug)]
struct Dir<'a> {
    id: NodeId,
    /// Place in the list of directories; the root is its own parent.
    parent: usize,
    identifier: Vec<u8>,
    entries: Vec<Entry<'a>>,
    /// Blocks of records. Those of continuations follow.
    records: u32,
    /// The first block, counted from the hierarchy's own.
    at: u32,
}

#[derive(Debug)]
struct Entry<'a> {
    /// Only while it is not that of a directory, which has its own.
    identifier: Vec<u8>,
    name: &'a [u8],
    id: NodeId,
    dir: Option<usize>,
}

impl<'a> Hierarchy<'a> {
    /// Names all files, and finds how much room their records take.
    pub(super) fn new(files: &Files<'a>, joliet: bool) -> Result<Hierarchy<'a>, Error> {
        let mut dirs = vec![Dir::new(ROOT, 0, SELF.to_vec())];
        let mut next = 0;
        while next < dirs.len() {
            let mut namer = Namer::new(joliet);
            let mut entries = Vec::new();
            for (name, &id) in files.tree().entries(dirs[next].id).into_iter().flatten() {
                let kind = &files.tree().node(id).kind;
                // Joliet has nothing but files and directories
                if !joliet || matches!(kind, Kind::Dir(_) | Kind::File(_)) {
                    let identifier = namer.name(name, matches!(kind, Kind::Dir(_)));
                    entries.push(Entry { identifier, name, id, dir: None });
                }
            }
            entries.sort_by(|one, other| one.identifier.cmp(&other.identifier));
            for entry in &mut entries {
                if files.tree().entries(entry.id).is_some() {
                    entry.dir = Some(dirs.len());
                    dirs.push(Dir::new(entry.id, next, entry.identifier.clone()));
                }
            }
            dirs[next].entries = entries;
            next += 1;
        }
        let mut hierarchy = Hierarchy { joliet, dirs, table_blocks: 0, blocks: 0 };
        hierarchy.measure(files)?;
        Ok(hierarchy)
    }

    /// Gives every directory its place.
    fn measure(&mut self, files: &Files<'_>) -> Result<(), Error> {
        let too_large = || Error::Layout { reason: "its directories take more than 4 GiB".to_owned() };
        self.table_blocks = blocks(self.path_table_size()).ok_or_else(too_large)?;
        let mut at = self.table_blocks * 2;
        for number in 0..self.dirs.len() {
            let (records, continuations) = self.bytes(number, files, 0, 0);
            let records = blocks(records.len()).filter(|blocks| *blocks < 1 << 21).ok_or_else(too_large)?;
            let continuations = blocks(continuations.len()).ok_or_else(too_large)?;
            let dir = &mut self.dirs[number];
            (dir.records, dir.at) = (records, at);
            at = at.checked_add(records + continuations).ok_or_else(too_large)?;
        }
        self.blocks = at;
        Ok(())
    }

    /// Writes all of it from block `base` on. Addresses are less by `shift`: they count from a partition's first block.
    pub(super) fn write(&self, files: &Files<'_>, base: u32, shift: u32, sink: &mut Sink<'_>) -> Result<(), Error> {
        let at = |block: u32| u64::from(base + block) * SECTOR_BYTES;
        sink.put(at(0), &self.path_table(base - shift, u16::to_le_bytes, u32::to_le_bytes))?;
        sink.put(at(self.table_blocks), &self.path_table(base - shift, u16::to_be_bytes, u32::to_be_bytes))?;
        for (number, dir) in self.dirs.iter().enumerate() {
            let (records, continuations) = self.bytes(number, files, base - shift, shift);
            sink.put(at(dir.at), &records)?;
            sink.put(at(dir.at + dir.records), &continuations)?;
        }
        Ok(())
    }

    /// The record of the root as volume descriptors have it, without fields.
    pub(super) fn root_record(&self, files: &Files<'_>, base: u32) -> Vec<u8> {
        let mut record = Vec::new();
        self.record(0, SELF, files, base).put(&mut record);
        record
    }

    pub(super) fn path_table_size(&self) -> usize {
        self.listed().map(|dir| 8 + dir.identifier.len().next_multiple_of(2)).sum()
    }

    /// Where the tables with little-endian and with big-endian numbers begin.
    pub(super) fn path_tables(&self, base: u32) -> (u32, u32) {
        (base, base + self.table_blocks)
    }

    /// Directories beyond those that can be numbered are found through their parents only. That is how all of today's readers go.
    fn listed(&self) -> impl Iterator<Item = &Dir<'a>> {
        self.dirs.iter().take(MAX_IN_PATH_TABLE)
    }

    fn path_table(&self, base: u32, short: fn(u16) -> [u8; 2], long: fn(u32) -> [u8; 4]) -> Vec<u8> {
        let mut table = Vec::with_capacity(self.path_table_size());
        for dir in self.listed() {
            table.extend([u8::try_from(dir.identifier.len()).expect("identifiers are short"), 0]);
            table.extend(long(base + dir.at));
            table.extend(short(u16::try_from(dir.parent + 1).expect("a parent is listed before")));
            table.extend(&dir.identifier);
            table.resize(table.len().next_multiple_of(2), 0);
        }
        table
    }

    /// A directory's record under some name, with no fields.
    fn record<'r>(&self, number: usize, identifier: &'r [u8], files: &Files<'_>, base: u32) -> Record<'r> {
        let dir = &self.dirs[number];
        Record {
            block: base + dir.at,
            size: dir.records * SECTOR_U32,
            date: date(files.tree().node(dir.id).meta.mtime),
            flags: DIRECTORY,
            identifier,
            system_use: &[],
        }
    }

    /// Records and continuations of a directory, in whole blocks.
    fn bytes(&self, number: usize, files: &Files<'_>, base: u32, shift: u32) -> (Vec<u8>, Vec<u8>) {
        let dir = &self.dirs[number];
        let mut records = Vec::new();
        let mut continuations = Continuations::new(base + dir.at + dir.records);
        let mut put = |record: Record<'_>, id, name: &[u8]| {
            let fields = if self.joliet { Vec::new() } else { self.fields(files, id, name, &record, number) };
            let system_use = continuations.lay(&fields, MAX - system_use_at(record.identifier.len()));
            let start = records.len();
            Record { system_use: &system_use, ..record }.put(&mut records);
            // a record does not cross the end of a sector
            if start / SECTOR != (records.len() - 1) / SECTOR {
                let moved = records.split_off(start);
                records.resize(start.next_multiple_of(SECTOR), 0);
                records.extend(moved);
            }
        };
        put(self.record(number, SELF, files, base), dir.id, b"");
        put(self.record(dir.parent, PARENT, files, base), self.dirs[dir.parent].id, b"");
        for entry in &dir.entries {
            match entry.dir {
                Some(child) => put(self.record(child, &entry.identifier, files, base), entry.id, entry.name),
                None => parts(entry, files, shift).for_each(|part| put(part, entry.id, entry.name)),
            }
        }
        records.resize(records.len().next_multiple_of(SECTOR), 0);
        let mut continuations = continuations.bytes;
        continuations.resize(continuations.len().next_multiple_of(SECTOR), 0);
        (records, continuations)
    }

    fn fields(&self, files: &Files<'_>, id: NodeId, name: &[u8], record: &Record<'_>, dir: usize) -> Vec<Vec<u8>> {
        let node = files.tree().node(id);
        let is_root = dir == 0 && record.identifier == SELF;
        let mut fields = if is_root { vec![fields::protocol()] } else { Vec::new() };
        fields.push(fields::posix(&files.posix(id)));
        fields.push(fields::times(node.meta.mtime));
        if let Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } = node.kind {
            fields.push(fields::device(major, minor));
        }
        if is_root {
            fields.push(fields::extension());
        }
        fields.extend(fields::name(name));
        if let Kind::Symlink(target) = &node.kind {
            fields.extend(fields::link(target));
        }
        fields
    }
}

impl Dir<'_> {
    fn new(id: NodeId, parent: usize, identifier: Vec<u8>) -> Self {
        Dir { id, parent, identifier, entries: Vec::new(), records: 0, at: 0 }
    }
}

/// The records of a file: one for each [`PART`] of it, without fields.
fn parts<'r>(entry: &'r Entry<'_>, files: &Files<'_>, shift: u32) -> impl Iterator<Item = Record<'r>> {
    let node = files.tree().node(entry.id);
    let size = match &node.kind {
        Kind::File(content) => content.size,
        _ => 0,
    };
    let (first, date) = (files.file(entry.id).block.saturating_sub(shift), date(node.meta.mtime));
    (0..size.div_ceil(PART).max(1)).map(move |number| {
        let left = size - number * PART;
        Record {
            block: u32::try_from(u64::from(first) + number * (PART / SECTOR_BYTES)).unwrap_or(u32::MAX),
            size: u32::try_from(left.min(PART)).expect("a part is below 4 GiB"),
            date,
            flags: if left > PART { NOT_LAST } else { 0 },
            identifier: &entry.identifier,
            system_use: &[],
        }
    })
}

fn blocks(bytes: usize) -> Option<u32> {
    u32::try_from(bytes.div_ceil(SECTOR)).ok()
}
