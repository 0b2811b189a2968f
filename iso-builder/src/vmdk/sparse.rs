//! Reads one sparse extent: which of its grains are stored, where, and what is in them.
//!
//! After VMware's "Virtual Disk Format 5.0", section 4. The file was written by anybody: tables and grains are read when they are asked for, and each is
//! of a bounded size.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use flate2::{Decompress, FlushDecompress};

use super::Error;
use super::cache::Recent;
use super::descriptor::TEXT_LIMIT;
use super::format::{AT_THE_END, COMPRESSED, FOOTER, Header, MARKED, SECTOR};

/// A sparse extent that is open. Its grains start at byte 0 of the extent.
#[derive(Debug)]
pub(super) struct Sparse {
    file: File,
    /// Which one of a chain's it is, in the caches that they share.
    id: usize,
    header: Header,
}

/// What the extents of a disk and of its parents keep in memory.
#[derive(Debug)]
pub(super) struct Caches {
    tables: Recent<Vec<u32>>,
    grains: Recent<Vec<u8>>,
}

impl Default for Caches {
    /// Tables of 2 KiB, each of which tells of 32 MiB as a rule; unpacked grains of 64 KiB, 1 MiB at most.
    fn default() -> Caches {
        Caches { tables: Recent::new(64), grains: Recent::new(8) }
    }
}

/// What a part of an extent reads as.
#[derive(Debug)]
pub(super) enum Part {
    /// As the parent says, or zero.
    Absent,
    Zero,
    /// In the file, from this byte on.
    Stored(u64),
    /// In this grain, from this byte on.
    Unpacked(Arc<Vec<u8>>, usize),
}

impl Sparse {
    pub(super) fn open(file: File, id: usize) -> Result<Sparse, Error> {
        let size = file.metadata().map_err(Error::Open)?.len();
        let header = header(&file, 0)?;
        let malformed = |why, at| Err(Error::Malformed { why, at });
        if !(1..=3).contains(&header.version) {
            return malformed("its version is none of 1, 2 and 3", 4);
        }
        let compressed = header.flags & COMPRESSED != 0;
        if compressed && (header.flags & MARKED == 0 || header.compression != 1) {
            return malformed("its grains are compressed in a way that is not known", 8);
        }
        let limit = if compressed { PACKED_GRAIN_LIMIT } else { GRAIN_LIMIT };
        if !header.grain_sectors.is_power_of_two() || header.grain_sectors > limit / SECTOR {
            return malformed(
                "its grains' size is no power of 2, or more than 16 MiB (1 MiB if they are compressed)",
                20,
            );
        }
        if !(1..=512).contains(&header.table_entries) {
            return malformed("its tables have no entries, or more than 512", 44);
        }
        let entries = u64::from(header.table_entries) * header.grain_sectors;
        if header.capacity.div_ceil(entries) > TABLES_LIMIT {
            return malformed("its capacity is larger than a million tables can tell of", 12);
        }
        let header = match header.directory_at {
            AT_THE_END => footer(&file, size, &header)?,
            _ => header,
        };
        let sparse = Sparse { file, id, header };
        // one entry stands for all: a directory that is not there is noticed now
        match sparse.header.capacity.div_ceil(entries) {
            0 => Ok(()),
            tables => read(&sparse.file, &mut [0; 4], sparse.directory_entry(tables - 1)?),
        }?;
        Ok(sparse)
    }

    pub(super) fn header(&self) -> &Header {
        &self.header
    }

    /// In sectors.
    pub(super) fn capacity(&self) -> u64 {
        self.header.capacity
    }

    /// The descriptor within it; empty where another file has it.
    pub(super) fn descriptor(&self) -> Result<Vec<u8>, Error> {
        let sectors = usize::try_from(self.header.descriptor_sectors).unwrap_or(usize::MAX);
        if sectors > TEXT_LIMIT / 512 {
            return Err(Error::Malformed { why: "its descriptor is larger than 1 MiB", at: 36 });
        }
        let mut text = vec![0; sectors * 512];
        read(&self.file, &mut text, byte(self.header.descriptor_at, 28)?)?;
        let end = text.iter().position(|&byte| byte == 0).unwrap_or(text.len());
        text.truncate(end);
        Ok(text)
    }

    /// What the bytes from `from` on read as, up to the end of their grain: of a capacity's, if that comes first, is for the caller to see to.
    pub(super) fn part(&self, from: u64, caches: &Caches) -> Result<Part, Error> {
        let number = from / self.grain();
        Ok(match self.entry(number, caches)? {
            0 => Part::Absent,
            // a grain that is known to be zero; the first sector is the header's
            1 => Part::Zero,
            place if self.header.flags & COMPRESSED == 0 => {
                Part::Stored(u64::from(place) * SECTOR + from % self.grain())
            }
            place => {
                let grain = caches.grains.get((self.id, number), || self.unpack(number, u64::from(place) * SECTOR))?;
                Part::Unpacked(grain, to_usize(from % self.grain()))
            }
        })
    }

    /// Where a grain is: a sector, or 0 if it is absent, or 1 if it is zero.
    pub(super) fn entry(&self, grain: u64, caches: &Caches) -> Result<u32, Error> {
        let table = self.table(grain, caches)?;
        Ok(table.map_or(0, |table| table[to_usize(grain % u64::from(self.header.table_entries))]))
    }

    /// The first byte from `from` on that is not absent, or `None`.
    pub(super) fn next_stored(&self, from: u64, caches: &Caches) -> Result<Option<u64>, Error> {
        let grains = self.header.capacity.div_ceil(self.header.grain_sectors);
        let entries = u64::from(self.header.table_entries);
        let mut number = from / self.grain();
        while number < grains {
            let Some(table) = self.table(number, caches)? else {
                number = (number / entries + 1) * entries;
                continue;
            };
            let rest = &table[to_usize(number % entries)..];
            match rest.iter().position(|&entry| entry != 0) {
                Some(place) => {
                    number += place as u64;
                    return Ok((number < grains).then(|| from.max(number * self.grain())));
                }
                None => number += rest.len() as u64,
            }
        }
        Ok(None)
    }

    pub(super) fn read(&self, buf: &mut [u8], at: u64) -> Result<(), Error> {
        read(&self.file, buf, at)
    }

    /// Bytes of a grain.
    pub(super) fn grain(&self) -> u64 {
        self.header.grain_sectors * SECTOR
    }

    /// The table that a grain is in; a directory may leave out tables of nothing.
    fn table(&self, grain: u64, caches: &Caches) -> Result<Option<Arc<Vec<u32>>>, Error> {
        let number = grain / u64::from(self.header.table_entries);
        let table = caches.tables.get((self.id, number), || -> Result<_, Error> {
            let mut entry = [0; 4];
            read(&self.file, &mut entry, self.directory_entry(number)?)?;
            let place = u32::from_le_bytes(entry);
            if place == 0 {
                return Ok(Vec::new());
            }
            let mut bytes = vec![0; self.header.table_entries as usize * 4];
            read(&self.file, &mut bytes, u64::from(place) * SECTOR)?;
            let entries =
                bytes.chunks_exact(4).map(|entry| u32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]]));
            Ok(entries.collect())
        })?;
        Ok(Some(table).filter(|table| !table.is_empty()))
    }

    fn directory_entry(&self, table: u64) -> Result<u64, Error> {
        // a table's number is below a million
        let at = byte(self.header.directory_at, 56)?.checked_add(table * 4);
        at.ok_or(Error::Malformed { why: "its directory is beyond the end of any file", at: 56 })
    }

    /// A compressed grain, behind a marker that says where on the disk it belongs and how long it is.
    fn unpack(&self, number: u64, at: u64) -> Result<Vec<u8>, Error> {
        let mut marker = [0; 12];
        read(&self.file, &mut marker, at)?;
        let sector = u64::from_le_bytes(std::array::from_fn(|index| marker[index]));
        let length = u32::from_le_bytes(std::array::from_fn(|index| marker[8 + index]));
        if sector != number * self.header.grain_sectors {
            return Err(Error::Malformed { why: "a grain's marker names another place on the disk", at });
        }
        // what zlib makes of a grain that cannot be compressed is a little more than the grain
        if u64::from(length) > self.grain() * 2 + 1024 {
            return Err(Error::Malformed { why: "a compressed grain is longer than any can be", at });
        }
        let mut packed = vec![0; length as usize];
        read(&self.file, &mut packed, at + 12)?;
        let mut grain = vec![0; to_usize(self.grain())];
        let mut inflate = Decompress::new(true);
        let done = inflate.decompress(&packed, &mut grain, FlushDecompress::Finish);
        // a last grain may end where the disk does
        let rest = (self.header.capacity * SECTOR).saturating_sub(number * self.grain());
        match done {
            Ok(_) if inflate.total_out() >= rest.min(self.grain()) => Ok(grain),
            Ok(_) => Err(Error::Malformed { why: "a compressed grain is too short", at }),
            Err(_) => Err(Error::Malformed { why: "a compressed grain is damaged", at }),
        }
    }
}

/// Bytes of a grain at most: an unpacked one is held in memory.
const GRAIN_LIMIT: u64 = 16 << 20;
const PACKED_GRAIN_LIMIT: u64 = 1 << 20;

/// Tables at most: 32 TiB of grains of 64 KiB, more than sectors of 32 bits can tell of.
const TABLES_LIMIT: u64 = 1 << 20;

fn header(file: &File, at: u64) -> Result<Header, Error> {
    let mut bytes = [0; 512];
    read(file, &mut bytes, at)?;
    Header::from_bytes(&bytes, at)
}

/// The header again, where a stream has its tables: before the marker at its end.
fn footer(file: &File, size: u64, first: &Header) -> Result<Header, Error> {
    let outside = Error::Malformed { why: "it ends before its footer", at: size };
    let at = size.checked_sub(3 * SECTOR).ok_or(outside)?;
    let mut marker = [0; 16];
    read(file, &mut marker, at)?;
    if marker[8..] != [&[0; 4], &FOOTER.to_le_bytes()[..]].concat() {
        return Err(Error::Malformed { why: "it has no footer, so it was cut, or something was added to it", at });
    }
    let footer = header(file, at + SECTOR)?;
    let same = |header: &Header| {
        (header.version, header.flags, header.capacity, header.grain_sectors, header.table_entries, header.compression)
    };
    if same(&footer) != same(first) || footer.directory_at == AT_THE_END {
        return Err(Error::Malformed { why: "its footer is not that of its header", at: at + SECTOR });
    }
    Ok(footer)
}

/// The byte at which a sector starts that the header names, at `named`.
fn byte(sector: u64, named: u64) -> Result<u64, Error> {
    let at = sector.checked_mul(SECTOR).filter(|&at| i64::try_from(at).is_ok());
    at.ok_or(Error::Malformed { why: "it refers to what is beyond the end of any file", at: named })
}

pub(super) fn read(file: &File, buf: &mut [u8], at: u64) -> Result<(), Error> {
    file.read_exact_at(buf, at).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Error::Malformed { why: "it ends before what it refers to", at },
        _ => Error::Open(error),
    })
}

/// A number of bytes or entries that are in memory.
fn to_usize(number: u64) -> usize {
    usize::try_from(number).expect("it is within a grain or a table")
}
