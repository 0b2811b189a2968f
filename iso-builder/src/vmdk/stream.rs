//! Writes a stream-optimized VMDK from a raw image: compressed grains, each behind a marker, and the tables at the end. What vSphere imports, and OVF means by a VMDK.
//!
//! After VMware's "Virtual Disk Format 5.0", section 4.2. The same image under the same name gives the same bytes.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

use flate2::Compression;
use flate2::write::ZlibEncoder;

use super::format::{
    AT_THE_END, DESCRIPTOR_AT, DIRECTORY, FOOTER, GRAIN, Header, SECTOR, TABLE, TABLE_ENTRIES, TABLE_SECTORS,
    directory_sectors, tables,
};
use super::writer::{Stats, index, sector, store};
use super::{Error, descriptor};

/// Writes the first `size` bytes of `raw` to `out`, which must be empty, as [`super::write_sparse`] does.
pub fn write_stream(
    raw: &File,
    size: u64,
    name: &str,
    out: &mut File,
    progress: &mut dyn FnMut(u64),
) -> Result<Stats, Error> {
    let capacity = size.div_ceil(SECTOR);
    // Table entries are sectors in 32 bits; a grain that cannot be compressed takes a few sectors more than it has.
    if capacity > u64::from(u32::MAX) || capacity + capacity / 16 + Header::new(capacity).overhead > u64::from(u32::MAX)
    {
        return Err(Error::TooLarge { size });
    }
    let header = Header::stream(capacity, AT_THE_END);
    let mut stream = Stream { out, at: header.overhead };
    let mut directory = vec![0u8; index(directory_sectors(capacity) * SECTOR)];
    let mut table = Table::default();
    let (stored, cid) = store(raw, size, progress, &mut |number, grain| {
        if table.number != number / TABLE_ENTRIES {
            table.finish(&mut stream, &mut directory)?;
            table.number = number / TABLE_ENTRIES;
        }
        let place = stream.grain(number * (GRAIN / SECTOR), grain)?;
        table.entries.resize(index(TABLE_ENTRIES), 0);
        table.entries[index(number % TABLE_ENTRIES)] = sector(place);
        Ok(())
    })?;
    let mut end = || -> io::Result<u64> {
        table.finish(&mut stream, &mut directory)?;
        let directory_at = stream.marked(DIRECTORY, &directory)?;
        stream.marked(FOOTER, &Header::stream(capacity, directory_at).to_bytes())?;
        stream.put(&[0; 512])?;
        Ok(stream.at * SECTOR)
    };
    let end = end().map_err(Error::Write)?;
    debug_assert!(tables(capacity) * 4 <= directory.len() as u64);
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

impl Table {
    /// Writes it behind its grains, and its place into the directory.
    fn finish(&mut self, stream: &mut Stream<'_>, directory: &mut [u8]) -> io::Result<()> {
        if self.entries.is_empty() {
            return Ok(());
        }
        let bytes: Vec<u8> = self.entries.iter().flat_map(|entry| entry.to_le_bytes()).collect();
        let place = stream.marked(TABLE, &bytes)?;
        directory[index(self.number * 4)..][..4].copy_from_slice(&sector(place).to_le_bytes());
        self.entries.clear();
        Ok(())
    }
}

/// A file that grows by whole sectors.
struct Stream<'a> {
    out: &'a File,
    /// In sectors.
    at: u64,
}

impl Stream<'_> {
    /// Where it lies on the disk, how long it is, and the compressed grain; the marker's place is the result.
    fn grain(&mut self, disk_sector: u64, grain: &[u8]) -> io::Result<u64> {
        let mut bytes = [&disk_sector.to_le_bytes()[..], &[0; 4]].concat();
        let marker = bytes.len();
        let mut encoder = ZlibEncoder::new(bytes, Compression::default());
        encoder.write_all(grain)?;
        bytes = encoder.finish()?;
        let length = u32::try_from(bytes.len() - marker).map_err(io::Error::other)?;
        bytes[8..12].copy_from_slice(&length.to_le_bytes());
        let place = self.at;
        self.put(&bytes)?;
        Ok(place)
    }

    /// What is not a grain: how many sectors it has, a length of zero, its kind; and then itself, whose place is the result.
    fn marked(&mut self, kind: u32, bytes: &[u8]) -> io::Result<u64> {
        let sectors = (bytes.len() as u64).div_ceil(SECTOR);
        self.put(&[&sectors.to_le_bytes()[..], &0u32.to_le_bytes(), &kind.to_le_bytes()].concat())?;
        let place = self.at;
        self.put(bytes)?;
        Ok(place)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        let sectors = (bytes.len() as u64).div_ceil(SECTOR);
        self.out.write_all_at(bytes, self.at * SECTOR)?;
        self.at += sectors;
        self.out.set_len(self.at * SECTOR)
    }
}

const _: () = assert!(TABLE_SECTORS * SECTOR == TABLE_ENTRIES * 4);
