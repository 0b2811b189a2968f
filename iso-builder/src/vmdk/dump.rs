//! Describes a sparse VMDK as text, for tests and for people. It reads what the format says, not what our writer does.

use std::fmt::Write;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::Error;
use super::format::{AT_THE_END, Header, SECTOR};

/// The header's fields, the descriptor, and runs of stored grains as `grains FIRST..END at sector PLACE`.
pub fn dump(file: &File) -> Result<String, Error> {
    let mut bytes = [0; 512];
    read(file, &mut bytes, 0)?;
    let header = Header::from_bytes(&bytes)?;
    let mut text = format!("{header:#?}\n");
    text.push_str(&embedded_descriptor(file, &header)?);
    let header = if header.directory_at == AT_THE_END { footer(file)? } else { header };
    let mut run: Option<Run> = None;
    let mut end_run = |run: Option<Run>| {
        run.map_or(Ok(()), |run| writeln!(text, "grains {}..{} at sector {}", run.first, run.end, run.place))
            .expect("a string takes all")
    };
    for_each_grain(file, &header, |number, place| {
        match &mut run {
            Some(run) if run.end == number && place == run.place + (number - run.first) * header.grain_sectors => {
                run.end += 1;
            }
            _ => end_run(run.replace(Run { first: number, end: number + 1, place })),
        };
    })?;
    end_run(run);
    Ok(text)
}

/// The header again, where a stream has its tables: before the marker at its end.
fn footer(file: &File) -> Result<Header, Error> {
    let mut bytes = [0; 512];
    let size = file.metadata().map_err(Error::Read)?.len();
    read(file, &mut bytes, size.checked_sub(2 * SECTOR).ok_or(OUTSIDE)?)?;
    Header::from_bytes(&bytes)
}

/// Grains that lie one behind the other both on the disk and in the file.
struct Run {
    first: u64,
    end: u64,
    place: u64,
}

fn embedded_descriptor(file: &File, header: &Header) -> Result<String, Error> {
    // The limit is QEMU's.
    if header.descriptor_sectors > 2048 {
        return Err(Error::Malformed { why: "its descriptor is larger than 1 MiB" });
    }
    let mut bytes = Vec::new();
    for sector in 0..header.descriptor_sectors {
        let mut block = [0; 512];
        read(file, &mut block, byte(header.descriptor_at.saturating_add(sector))?)?;
        bytes.extend(block);
    }
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    Ok(String::from_utf8_lossy(&bytes[..end]).into_owned())
}

/// Tells the number and the place of each stored grain; a table that is not there stores none.
fn for_each_grain(file: &File, header: &Header, mut see: impl FnMut(u64, u64)) -> Result<(), Error> {
    // The limits are QEMU's; within them, nothing below overflows.
    let grains_fit = (1..=1 << 20).contains(&header.grain_sectors) && (1..=512).contains(&header.table_entries);
    if !grains_fit || header.capacity > 1 << 40 {
        return Err(Error::Malformed { why: "its grains, its tables or its capacity are out of range" });
    }
    let entries = u64::from(header.table_entries);
    let grains = header.capacity.div_ceil(header.grain_sectors);
    for table in 0..grains.div_ceil(entries) {
        let at = entry(file, header.directory_at, table)?;
        if at == 0 {
            continue;
        }
        for number in table * entries..grains.min((table + 1) * entries) {
            match entry(file, at, number - table * entries)? {
                // 1 is a grain that is known to be zero.
                0 | 1 => {}
                place => see(number, place),
            }
        }
    }
    Ok(())
}

/// A 32-bit entry of the table or directory at a sector.
fn entry(file: &File, table: u64, number: u64) -> Result<u64, Error> {
    let mut bytes = [0; 4];
    let at = byte(table)?.checked_add(number.saturating_mul(4)).ok_or(OUTSIDE)?;
    read(file, &mut bytes, at)?;
    Ok(u32::from_le_bytes(bytes).into())
}

fn byte(sector: u64) -> Result<u64, Error> {
    sector.checked_mul(SECTOR).filter(|&at| i64::try_from(at).is_ok()).ok_or(OUTSIDE)
}

fn read(file: &File, buf: &mut [u8], at: u64) -> Result<(), Error> {
    file.read_exact_at(buf, at).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => OUTSIDE,
        _ => Error::Read(error),
    })
}

const OUTSIDE: Error = Error::Malformed { why: "it ends before what it refers to" };
