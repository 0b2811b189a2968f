//! Writes a stream-optimized VMDK from a raw image: compressed grains, each behind a marker, and the tables at the end. What vSphere imports, and OVF means by a VMDK.
//!
//! After VMware's "Virtual Disk Format 5.0", section 4.2. The same image under the same name gives the same bytes.

use std::fs::File;
use std::io;
use std::num::NonZero;
use std::os::unix::fs::FileExt;

use super::format::{
    AT_THE_END, DESCRIPTOR_AT, DIRECTORY, FOOTER, GRAIN, Header, SECTOR, TABLE, TABLE_ENTRIES, TABLE_SECTORS,
    directory_sectors,
};
use super::pack::{Batch, each_batch};
use super::raw::{ContentId, Raw, capacity};
use super::writer::{Stats, index, sector};
use super::{Error, descriptor};

/// Writes the first `size` bytes of `raw` to `out`, which must be empty, as [`super::write_sparse`] does. `threads` compress; how many makes no difference to
/// what is written.
pub fn write_stream(
    raw: &dyn Raw,
    size: u64,
    name: &str,
    threads: NonZero<usize>,
    out: &mut File,
    progress: &mut dyn FnMut(u64),
) -> Result<Stats, Error> {
    let capacity = capacity(size);
    // Table entries are sectors in 32 bits; a grain that cannot be compressed takes a few sectors more than it has.
    if capacity > u64::from(u32::MAX) || capacity + capacity / 16 + Header::new(capacity).overhead > u64::from(u32::MAX)
    {
        return Err(Error::TooLarge { size });
    }
    let header = Header::stream(capacity, AT_THE_END);
    let directory = vec![0u8; index(directory_sectors(capacity) * SECTOR)];
    let mut stream = Stream { out, at: header.overhead, directory, table: Table::default() };
    let (mut id, mut stored) = (ContentId::default(), 0);
    each_batch(raw, size, threads, &mut |batch| {
        batch.grains.iter().for_each(|grain| id.grain(grain.number, grain.checksum));
        stored += batch.grains.len() as u64;
        stream.batch(batch).map_err(Error::Write)?;
        progress((batch.end * GRAIN).min(size));
        Ok(())
    })?;
    progress(size);
    let end = stream.finish(capacity).map_err(Error::Write)?;
    let cid = id.value();
    let text = descriptor::write("streamOptimized", cid, capacity, "SPARSE", name, None)?;
    let written = out.write_all_at(&header.to_bytes(), 0);
    written.and_then(|()| out.write_all_at(text.as_bytes(), DESCRIPTOR_AT * SECTOR)).map_err(Error::Write)?;
    Ok(Stats { grains: size.div_ceil(GRAIN), stored, size: end, cid })
}

/// The table whose grains are being written.
#[derive(Default)]
struct Table {
    number: u64,
    /// Nothing while it has no grain: then it is not written.
    entries: Vec<u32>,
}

/// A file that grows by whole sectors.
struct Stream<'a> {
    out: &'a File,
    /// In sectors.
    at: u64,
    directory: Vec<u8>,
    table: Table,
}

impl Stream<'_> {
    fn batch(&mut self, batch: &Batch) -> io::Result<()> {
        let Some(first) = batch.grains.first() else { return Ok(()) };
        if self.table.number != first.number / TABLE_ENTRIES {
            self.finish_table()?;
            self.table.number = first.number / TABLE_ENTRIES;
        }
        self.table.entries.resize(index(TABLE_ENTRIES), 0);
        for grain in &batch.grains {
            self.table.entries[index(grain.number % TABLE_ENTRIES)] = sector(self.at + grain.place);
        }
        self.put(&batch.bytes)
    }

    /// Writes the table behind its grains, and its place into the directory.
    fn finish_table(&mut self) -> io::Result<()> {
        if self.table.entries.is_empty() {
            return Ok(());
        }
        let bytes: Vec<u8> = self.table.entries.drain(..).flat_map(u32::to_le_bytes).collect();
        let place = self.marked(TABLE, &bytes)?;
        self.directory[index(self.table.number * 4)..][..4].copy_from_slice(&sector(place).to_le_bytes());
        Ok(())
    }

    /// The directory, the footer and the end; the size of it all, in bytes, is the result.
    fn finish(mut self, capacity: u64) -> io::Result<u64> {
        self.finish_table()?;
        let directory = std::mem::take(&mut self.directory);
        let directory_at = self.marked(DIRECTORY, &directory)?;
        self.marked(FOOTER, &Header::stream(capacity, directory_at).to_bytes())?;
        self.put(&[0; 512])?;
        Ok(self.at * SECTOR)
    }

    /// What is not a grain: how many sectors it has, a length of zero, its kind; and then itself, whose place is the result.
    fn marked(&mut self, kind: u32, bytes: &[u8]) -> io::Result<u64> {
        let sectors = (bytes.len() as u64).div_ceil(SECTOR);
        let mut marker = [&sectors.to_le_bytes()[..], &0u32.to_le_bytes(), &kind.to_le_bytes()].concat();
        marker.resize(512, 0);
        self.put(&marker)?;
        let place = self.at;
        self.put(bytes)?;
        Ok(place)
    }

    /// Whole sectors.
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all_at(bytes, self.at * SECTOR)?;
        self.at += bytes.len() as u64 / SECTOR;
        Ok(())
    }
}

const _: () = assert!(TABLE_SECTORS * SECTOR == TABLE_ENTRIES * 4);
