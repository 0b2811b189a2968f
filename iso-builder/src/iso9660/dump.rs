//! An ISO 9660 image as text: what it says about itself, how it boots, and every file with its digest.
//!
//! A reader of its own, which shares nothing with the writer. It believes no number of the image without a bound, and
//! reads the primary tree with Rock Ridge names only: that is what Linux shows.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

use crate::digest::Hasher;

/// The text, one line for each thing. Fails with `InvalidData` on what is no sound image.
pub fn dump(image: &File) -> io::Result<String> {
    let image = Image { file: image, len: image.metadata()?.len() };
    let primary = image.block(16)?;
    if !primary.starts_with(b"\x01CD001") {
        return Err(bad("it has no primary volume descriptor"));
    }
    let mut text = format!(
        "volume {:?}, publisher {:?}, {} blocks of 2048 bytes\n",
        trimmed(&primary[40..72]),
        trimmed(&primary[318..446]),
        u32_at(&primary, 80),
    );
    text += &mbr(&image.block(0)?);
    text += &boot(&image)?;
    let root = Record::parse(&primary[156..190])?;
    directory(&image, &root, "", 0, &mut text)?;
    Ok(text)
}

/// The first sector's partitions, if there are any.
fn mbr(sector: &[u8]) -> String {
    if sector[510..512] != [0x55, 0xaa] {
        return String::new();
    }
    let partitions = sector[446..510].chunks(16).filter(|entry| entry[4] != 0);
    let line = |entry: &[u8]| {
        let active = if entry[0] == 0x80 { "active, " } else { "" };
        format!("partition: {active}type {:#04x}, {} sectors from {}\n", entry[4], u32_at(entry, 12), u32_at(entry, 8))
    };
    partitions.map(line).collect()
}

/// The first entry of the El Torito catalog, if there is one.
fn boot(image: &Image<'_>) -> io::Result<String> {
    let record = image.block(17)?;
    if !record.starts_with(b"\0CD001\x01EL TORITO SPECIFICATION") {
        return Ok(String::new());
    }
    let catalog = image.block(u32_at(&record, 71))?;
    let platform = match catalog[1] {
        0 => "BIOS",
        0xef => "UEFI",
        _ => "other",
    };
    let entry = &catalog[32..64];
    let bootable = if entry[0] == 0x88 { "boots" } else { "does not boot" };
    Ok(format!(
        "boot: {bootable} {platform}, emulation {}, {} sectors from block {}\n",
        entry[1],
        u16::from_le_bytes([entry[6], entry[7]]),
        u32_at(entry, 8)
    ))
}

fn directory(image: &Image<'_>, dir: &Record, path: &str, depth: u32, text: &mut String) -> io::Result<()> {
    if depth > MAX_DEPTH || dir.size > MAX_DIRECTORY {
        return Err(bad("its directories are deeper or larger than any sound image's"));
    }
    let mut entries = Vec::new();
    let blocks = dir.size.div_ceil(2048);
    for number in 0..blocks {
        let block = image.block(dir.block.saturating_add(number))?;
        let mut rest = &block[..];
        // A record never crosses a block; a length of zero says that the block has no more.
        while let Some(&len) = rest.first().filter(|len| **len != 0) {
            let (record, after) = rest.split_at_checked(usize::from(len)).ok_or_else(|| bad("a record is cut off"))?;
            rest = after;
            let mut entry = Record::parse(record)?;
            // The directory itself and its parent are named 0 and 1.
            if !matches!(record[33], 0 | 1) || record[32] != 1 {
                entry.rock_ridge(image, record)?;
                entries.push(entry);
            }
        }
    }
    let mut index = 0;
    while let Some(entry) = entries.get(index) {
        // A file of 4 GiB and more has several records; all but the last say so.
        let parts = entries[index..].iter().take_while(|part| part.continues).count() + 1;
        let parts = entries.get(index..index + parts).ok_or_else(|| bad("a file's last part is missing"))?;
        index += parts.len();
        let path = format!("{path}/{}", entry.name);
        *text += &line(image, parts, &path)?;
        if entry.directory {
            directory(image, entry, &path, depth + 1, text)?;
        }
    }
    Ok(())
}

/// Mode, owner, time, block, path and what is in it.
fn line(image: &Image<'_>, parts: &[Record], path: &str) -> io::Result<String> {
    let entry = &parts[0];
    let what = match entry.mode & 0o170_000 {
        0o120_000 => format!("-> {}", entry.target),
        0o020_000 | 0o060_000 => format!("device {},{}", entry.device.0, entry.device.1),
        _ if entry.directory => String::new(),
        _ => {
            let size: u64 = parts.iter().map(|part| u64::from(part.size)).sum();
            format!("{size} bytes at block {}, sha256 {}", entry.block, image.digest(parts)?)
        }
    };
    let line = format!("{:06o} {}:{} {} {what}", entry.mode, entry.owner.0, entry.owner.1, entry.time);
    Ok(format!("{path}\n    {}\n", line.trim_end()))
}

struct Image<'a> {
    file: &'a File,
    len: u64,
}

impl Image<'_> {
    fn block(&self, number: u32) -> io::Result<[u8; 2048]> {
        let mut block = [0; 2048];
        self.file.read_exact_at(&mut block, u64::from(number) * 2048)?;
        Ok(block)
    }

    fn digest(&self, parts: &[Record]) -> io::Result<String> {
        let mut hasher = Hasher::default();
        let mut buf = vec![0; 1 << 16];
        for part in parts {
            let mut at = u64::from(part.block) * 2048;
            let end = at + u64::from(part.size);
            if end > self.len {
                return Err(bad("a file reaches beyond the image's end"));
            }
            while at < end {
                let len = usize::try_from((end - at).min(buf.len() as u64)).expect("at most the buffer's length");
                self.file.read_exact_at(&mut buf[..len], at)?;
                hasher.write_all(&buf[..len])?;
                at += len as u64;
            }
        }
        Ok(hasher.finish())
    }
}

/// A directory record, and what Rock Ridge adds to it.
#[derive(Default)]
struct Record {
    block: u32,
    size: u32,
    directory: bool,
    continues: bool,
    name: String,
    mode: u32,
    owner: (u32, u32),
    /// `YYYY-MM-DD hh:mm:ss`, UTC as our images have it.
    time: String,
    target: String,
    device: (u32, u32),
}

impl Record {
    fn parse(record: &[u8]) -> io::Result<Record> {
        let name_len = record.get(32).copied().map(usize::from).ok_or_else(|| bad("a record is too short"))?;
        let name = record.get(33..33 + name_len).filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| bad("a record has no name"))?;
        let [year, month, day, hour, minute, second] = record[18..24].try_into().expect("6 bytes");
        Ok(Record {
            block: u32_at(record, 2),
            size: u32_at(record, 10),
            directory: record[25] & 2 != 0,
            continues: record[25] & 0x80 != 0,
            name: trimmed(name),
            time: format!("{}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}", 1900 + u32::from(year)),
            ..Record::default()
        })
    }

    /// Reads the system use fields, which begin after the name and its padding.
    fn rock_ridge(&mut self, image: &Image<'_>, record: &[u8]) -> io::Result<()> {
        let start = (33 + usize::from(record[32])).next_multiple_of(2);
        let mut area = record.get(start..).unwrap_or_default().to_vec();
        let mut name = String::new();
        for _ in 0..MAX_CONTINUATIONS {
            let mut next = None;
            let mut rest = &area[..];
            while let Some((field, after)) = field(rest) {
                rest = after;
                match (&field[..2], field.len()) {
                    (b"PX", 36..) => {
                        self.mode = u32_at(field, 4);
                        self.owner = (u32_at(field, 20), u32_at(field, 28));
                    }
                    (b"NM", 5..) => name += &String::from_utf8_lossy(&field[5..]),
                    (b"PN", 20..) => self.device = (u32_at(field, 4), u32_at(field, 12)),
                    (b"SL", 5..) => self.link(&field[5..]),
                    (b"CE", 28..) => next = Some((u32_at(field, 4), u32_at(field, 12), u32_at(field, 20))),
                    _ => {}
                }
            }
            let Some((block, offset, len)) = next else { break };
            let (from, len) = (offset as usize, len as usize);
            area = image.block(block)?.get(from..from.saturating_add(len)).unwrap_or_default().to_vec();
        }
        if !name.is_empty() {
            self.name = name;
        }
        Ok(())
    }

    /// Adds a symlink's components: flags, length, text.
    fn link(&mut self, mut rest: &[u8]) {
        while let [flags, len, after @ ..] = rest {
            let Some((text, after)) = after.split_at_checked(usize::from(*len)) else { return };
            rest = after;
            if !self.target.is_empty() && !self.target.ends_with('/') {
                self.target.push('/');
            }
            match flags & 0b1110 {
                0b0010 => self.target.push('.'),
                0b0100 => self.target.push_str(".."),
                0b1000 => self.target.push('/'),
                _ => self.target.push_str(&String::from_utf8_lossy(text)),
            }
        }
    }
}

/// The first field of a system use area and what follows it.
fn field(area: &[u8]) -> Option<(&[u8], &[u8])> {
    let len = usize::from(*area.get(2)?);
    if len < 4 { None } else { area.split_at_checked(len) }
}

/// A little-endian number; `bytes` reaches to its end.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

fn trimmed(text: &[u8]) -> String {
    String::from_utf8_lossy(text).trim_end_matches([' ', '\0']).to_owned()
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Rock Ridge moves what is deeper than 8; 64 ends a loop soon.
const MAX_DEPTH: u32 = 64;

/// Half a million files in one directory.
const MAX_DIRECTORY: u32 = 64 << 20;

/// A name, a symlink and the rest fit in three blocks; 32 ends a loop.
const MAX_CONTINUATIONS: u32 = 32;
