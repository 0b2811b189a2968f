//! Writes a monolithic sparse VMDK from a raw image: only grains that hold something are stored, in their order. Of a delta, grains that differ from the parent's.
//!
//! The same image under the same name gives the same bytes.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use super::format::{DESCRIPTOR_AT, GRAIN, Header, SECTOR, TABLE_ENTRIES, TABLE_SECTORS, directory_sectors, tables};
use super::raw::{ContentId, Raw, Stored, capacity, checksum, equal, is_zero, next_grain, read_grain};
use super::{Error, descriptor};

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Grains of the disk, and how many of them are stored.
    pub grains: u64,
    pub stored: u64,
    /// Bytes of the file.
    pub size: u64,
    /// The content id in the descriptor.
    pub cid: u32,
}

/// Writes the first `size` bytes of `raw` to `out`, which must be empty, as a disk whose extent is called `name`. What `raw` lacks is zero; a last sector is
/// filled up. `progress` is told how many bytes of the disk are done.
pub fn write_sparse(
    raw: &dyn Raw,
    size: u64,
    name: &str,
    out: &mut File,
    progress: &mut dyn FnMut(u64),
) -> Result<Stats, Error> {
    let mut sparse = Sparse::start(size, out)?;
    let (mut id, mut number) = (ContentId::default(), 0);
    let mut grain = vec![0; index(GRAIN)];
    while let Some(next) = next_grain(raw, number, size)? {
        number = next;
        read_grain(raw, number, size, &mut grain)?;
        if !is_zero(&grain) {
            id.grain(number, checksum(&grain));
            sparse.store(number, Some(&grain))?;
        }
        number += 1;
        progress((number * GRAIN).min(size));
    }
    progress(size);
    sparse.finish(id.value(), name, None)
}

/// Writes what differs from the disk `parent`, which has the same size and lies as `parent_name` beside the new one. As [`write_sparse`] does else.
///
/// The content id follows VMware's rule: the parent's is kept as `parentCID`, and is the disk's own as long as nothing differs.
pub fn write_delta(
    raw: &dyn Raw,
    size: u64,
    name: &str,
    (parent, parent_name): (&Stored, &str),
    out: &mut File,
    progress: &mut dyn FnMut(u64),
) -> Result<Stats, Error> {
    if capacity(size) * SECTOR != parent.size() {
        return Err(Error::Resized { size, parent: parent.size() });
    }
    let mut sparse = Sparse::start(size, out)?;
    let (mut id, mut number) = (ContentId::of_child(parent.cid()), 0);
    let (mut grain, mut before) = (vec![0; index(GRAIN)], vec![0; index(GRAIN)]);
    loop {
        let next = [next_grain(raw, number, size)?, next_grain(parent, number, size)?];
        let Some(next) = next.into_iter().flatten().min() else { break };
        number = next;
        read_grain(raw, number, size, &mut grain)?;
        read_grain(parent, number, size, &mut before)?;
        if !equal(&grain, &before) {
            id.grain(number, checksum(&grain));
            // Zeros over a parent's bytes have a place like others. It is a hole of the file: the flag for zero grains would be one more thing to be read.
            sparse.store(number, Some(&grain[..]).filter(|grain| !is_zero(grain)))?;
        }
        number += 1;
        progress((number * GRAIN).min(size));
    }
    progress(size);
    let cid = if sparse.stored == 0 { parent.cid() } else { id.value() };
    sparse.finish(cid, name, Some((parent.cid(), parent_name)))
}

/// A disk that is being written: grains first, and what tells where they are at last.
struct Sparse<'a> {
    out: &'a File,
    header: Header,
    /// The tables that have a grain, by their number: those of a large disk that is nearly empty are few.
    tables: BTreeMap<u64, Vec<u32>>,
    size: u64,
    stored: u64,
}

impl Sparse<'_> {
    fn start(size: u64, out: &File) -> Result<Sparse<'_>, Error> {
        let capacity = capacity(size);
        // Table entries are sectors in 32 bits: every grain must start below 2^32 sectors even if all are stored.
        if capacity > u64::from(u32::MAX) || Header::new(capacity).overhead + capacity > u64::from(u32::MAX) {
            return Err(Error::TooLarge { size });
        }
        Ok(Sparse { out, header: Header::new(capacity), tables: BTreeMap::new(), size, stored: 0 })
    }

    /// Gives a grain the next place; `None` for zeros.
    fn store(&mut self, number: u64, grain: Option<&[u8]>) -> Result<(), Error> {
        let place = self.end();
        if let Some(grain) = grain {
            self.out.write_all_at(grain, place * SECTOR).map_err(Error::Write)?;
        }
        let table = self.tables.entry(number / TABLE_ENTRIES).or_insert_with(|| vec![0; index(TABLE_ENTRIES)]);
        table[index(number % TABLE_ENTRIES)] = sector(place);
        self.stored += 1;
        Ok(())
    }

    /// In sectors.
    fn end(&self) -> u64 {
        self.header.overhead + self.stored * (GRAIN / SECTOR)
    }

    fn finish(self, cid: u32, name: &str, parent: Option<(u32, &str)>) -> Result<Stats, Error> {
        let text = descriptor::write("monolithicSparse", cid, self.header.capacity, "SPARSE", name, parent)?;
        let end = self.end() * SECTOR;
        let put = |bytes: &[u8], at: u64| self.out.write_all_at(bytes, at * SECTOR).map_err(Error::Write);
        put(&self.header.to_bytes(), 0)?;
        put(text.as_bytes(), DESCRIPTOR_AT)?;
        for directory_at in [self.header.spare_directory_at, self.header.directory_at] {
            let first = directory_at + directory_sectors(self.header.capacity);
            let places = (0..tables(self.header.capacity)).map(|number| sector(first + number * TABLE_SECTORS));
            put(&places.flat_map(u32::to_le_bytes).collect::<Vec<u8>>(), directory_at)?;
            for (number, entries) in &self.tables {
                let bytes: Vec<u8> = entries.iter().flat_map(|entry| entry.to_le_bytes()).collect();
                put(&bytes, first + number * TABLE_SECTORS)?;
            }
        }
        // tables without a grain are holes
        self.out.set_len(end).map_err(Error::Write)?;
        Ok(Stats { grains: self.size.div_ceil(GRAIN), stored: self.stored, size: end, cid })
    }
}

/// A place in the file, in sectors; checked against the capacity before.
pub(super) fn sector(place: u64) -> u32 {
    u32::try_from(place).expect("a disk that large was refused")
}

/// A number of bytes or entries that are in memory.
pub(super) fn index(number: u64) -> usize {
    usize::try_from(number).expect("the tables of 2 TiB are 256 MiB")
}
