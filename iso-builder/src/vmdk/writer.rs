//! Writes a monolithic sparse VMDK from a raw image. Only grains that hold something are stored, in their order.
//!
//! The same image under the same name gives the same bytes: the content id is a checksum of the contents, where QEMU
//! takes a random number.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use flate2::Crc;

use super::disk::next_in_file;
use super::format::{DESCRIPTOR_AT, GRAIN, Header, SECTOR, TABLE_ENTRIES, TABLE_SECTORS, directory_sectors, tables};
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

/// Writes the first `size` bytes of `raw` to `out`, which must be empty, as a disk whose extent is called `name`. What
/// `raw` lacks is zero; a last sector is filled up. `progress` is told how many bytes of the disk are done.
pub fn write_sparse(
    raw: &File,
    size: u64,
    name: &str,
    out: &mut File,
    progress: &mut dyn FnMut(u64),
) -> Result<Stats, Error> {
    let capacity = size.div_ceil(SECTOR);
    // Table entries are sectors in 32 bits: every grain must start below 2^32 sectors even if all are stored.
    if capacity > u64::from(u32::MAX) || Header::new(capacity).overhead + capacity > u64::from(u32::MAX) {
        return Err(Error::TooLarge { size });
    }
    let header = Header::new(capacity);
    let grains = size.div_ceil(GRAIN);
    let mut entries = vec![0u32; index(tables(capacity) * TABLE_ENTRIES)];
    let mut place = header.overhead;
    let (stored, cid) = store(raw, size, progress, &mut |number, grain| {
        out.write_all_at(grain, place * SECTOR)?;
        entries[index(number)] = sector(place);
        place += GRAIN / SECTOR;
        Ok(())
    })?;
    let end = (header.overhead + stored * (GRAIN / SECTOR)) * SECTOR;
    let metadata =
        metadata(&header, &entries, &descriptor::write("monolithicSparse", cid, capacity, "SPARSE", name, None)?);
    out.write_all_at(&metadata, 0).and_then(|()| out.set_len(end)).map_err(Error::Write)?;
    Ok(Stats { grains, stored, size: end, cid })
}

/// Hands on each grain that holds something, with its number; how many there were, and their content id.
pub(super) fn store(
    raw: &File,
    size: u64,
    progress: &mut dyn FnMut(u64),
    put: &mut dyn FnMut(u64, &[u8]) -> io::Result<()>,
) -> Result<(u64, u32), Error> {
    let (mut crc, mut stored, mut number) = (Crc::new(), 0, 0);
    let mut grain = vec![0; index(GRAIN)];
    while let Some(next) = next_with_data(raw, number, size)? {
        number = next;
        read_grain(raw, number * GRAIN, size, &mut grain).map_err(Error::Read)?;
        if grain.iter().any(|&byte| byte != 0) {
            put(number, &grain).map_err(Error::Write)?;
            crc.update(&number.to_le_bytes());
            crc.update(&grain);
            stored += 1;
        }
        number += 1;
        progress((number * GRAIN).min(size));
    }
    progress(size);
    Ok((stored, content_id(crc.sum())))
}

/// Everything before the first grain.
fn metadata(header: &Header, entries: &[u32], descriptor: &str) -> Vec<u8> {
    let mut bytes = vec![0; index(header.overhead * SECTOR)];
    let mut put = |at: u64, value: &[u8]| bytes[index(at)..][..value.len()].copy_from_slice(value);
    put(0, &header.to_bytes());
    put(DESCRIPTOR_AT * SECTOR, descriptor.as_bytes());
    for directory in [header.spare_directory_at, header.directory_at] {
        let first = directory + directory_sectors(header.capacity);
        for (table, number) in entries.chunks(index(TABLE_ENTRIES)).zip(0..) {
            let place = first + number * TABLE_SECTORS;
            put(directory * SECTOR + number * 4, &sector(place).to_le_bytes());
            let table: Vec<u8> = table.iter().flat_map(|entry| entry.to_le_bytes()).collect();
            put(place * SECTOR, &table);
        }
    }
    bytes
}

/// The first grain from `number` on that the file system has data for. Holes cost a call, not a read.
fn next_with_data(raw: &File, number: u64, size: u64) -> Result<Option<u64>, Error> {
    let start = number * GRAIN;
    if start >= size {
        return Ok(None);
    }
    let next = next_in_file(raw, start).map_err(Error::Read)?;
    Ok(next.filter(|&at| at < size).map(|at| at / GRAIN))
}

/// Fills `grain` with what `raw` has from `at` to `size`, and zeros.
fn read_grain(raw: &File, at: u64, size: u64, grain: &mut [u8]) -> io::Result<()> {
    let wanted = index((size - at).min(GRAIN));
    let mut filled = 0;
    while filled < wanted {
        match raw.read_at(&mut grain[filled..wanted], at + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    grain[filled..].fill(0);
    Ok(())
}

/// `ffffffff` says that there is no parent, and `fffffffe` that the disk is new: neither is a content id.
fn content_id(crc: u32) -> u32 {
    crc.min(u32::MAX - 2)
}

/// A place in the file, in sectors; checked against the capacity before.
pub(super) fn sector(place: u64) -> u32 {
    u32::try_from(place).expect("a disk that large was refused")
}

/// A number of bytes or entries that are in memory.
pub(super) fn index(number: u64) -> usize {
    usize::try_from(number).expect("the tables of 2 TiB are 256 MiB")
}
