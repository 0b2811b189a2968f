//! The same image as a disk: MBR and GPT (UEFI 2.10, section 5).
//!
//! With nothing but a BIOS in mind there is one active partition over everything, as `isohybrid` makes it: some BIOSes
//! boot from no disk without. With UEFI there is a GPT without overlaps, as strict firmware wants it: the file system of
//! the CD is its first partition, which begins after the tables and has volume descriptors of its own (see `writer`), and
//! the EFI system partition is the second. The MBR then protects the GPT, and has an active entry of size zero for the
//! BIOSes that look for one. GUIDs come from a digest of the image.

use std::sync::Arc;

use flate2::Crc;
use sha2::{Digest as _, Sha256};

use super::error::Error;
use super::format::u32_at;
use super::volume;
use crate::tree::ReadAt;

/// Bytes of a disk's sector here. Tables for drives with larger ones would lie elsewhere.
pub(super) const SECTOR: u64 = 512;
/// Sectors of the second GPT, at the disk's end.
pub(super) const BACKUP_SECTORS: u64 = 33;

/// Where the address of isolinux goes in the boot code, and where the code ends.
pub(super) const CODE: usize = 432;

const ENTRIES: u32 = 128;
const ENTRY_BYTES: u32 = 128;
/// The same as indices.
const ENTRY: usize = ENTRY_BYTES as usize;
const TABLE: usize = ENTRIES as usize * ENTRY;

/// Type GUIDs as they lie on the disk: basic data, EFI system.
const BASIC_DATA: [u8; 16] = guid(0xebd0_a0a2, 0xb9e5, 0x4433, 0x87c0_68b6_b726_99c7);
const EFI_SYSTEM: [u8; 16] = guid(0xc12a_7328, 0xf81f, 0x11d2, 0xba4b_00a0_c93e_c93b);
/// Basic data that nobody writes to.
const READ_ONLY: u64 = 1 << 60;

/// What the partitions are to be, in sectors of 512 bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Disk {
    pub(super) sectors: u64,
    pub(super) gpt: Option<Gpt>,
}

/// First sector and number of sectors of each partition.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gpt {
    /// The one with the CD's file system, if there is one.
    pub(super) data: Option<(u64, u64)>,
    /// The EFI system partition.
    pub(super) system: (u64, u64),
}

/// The first sector. `code` is of [`CODE`] bytes at most; `boot` is the sector of isolinux.
pub(super) fn mbr(disk: &Disk, code: &[u8], boot: Option<u64>, digest: &[u8; 32]) -> [u8; 512] {
    let mut sector = [0; 512];
    sector[..code.len()].copy_from_slice(code);
    if let Some(boot) = boot {
        sector[CODE..CODE + 8].copy_from_slice(&boot.to_le_bytes());
    }
    sector[440..444].copy_from_slice(&digest[..4]);
    match disk.gpt {
        Some(_) => {
            // strict firmware takes no protective entry that is active
            sector[446..462].copy_from_slice(&mbr_entry(0, 0xee, 1, disk.sectors - 1));
            sector[462] = 0x80;
        }
        None => sector[446..462].copy_from_slice(&mbr_entry(0x80, 0x17, 0, disk.sectors)),
    }
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

/// Flag, type, first sector and length of a partition. What is too large is said to be as large as can be.
fn mbr_entry(flag: u8, kind: u8, start: u64, len: u64) -> [u8; 16] {
    let (first, last) = (cylinders(start), cylinders(start + len - 1));
    let [start, len] = [start, len].map(|value| u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes());
    let mut entry = [0; 16];
    entry[0] = flag;
    entry[1..4].copy_from_slice(&first);
    entry[4] = kind;
    entry[5..8].copy_from_slice(&last);
    entry[8..12].copy_from_slice(&start);
    entry[12..].copy_from_slice(&len);
    entry
}

/// Head, sector and cylinder of a disk with 64 heads and 32 sectors: a cylinder is a MiB.
fn cylinders(sector: u64) -> [u8; 3] {
    let cylinder = sector / (64 * 32);
    if cylinder > 1023 {
        return [0xfe, 0xff, 0xff];
    }
    let byte = |value: u64| u8::try_from(value).expect("below 256");
    [byte(sector / 32 % 64), byte(sector % 32 + 1) | byte(cylinder >> 8) << 6, byte(cylinder & 0xff)]
}

/// Both GPTs with their places in bytes; none where the disk has no such partitions.
pub(super) fn gpt(disk: &Disk, digest: &[u8; 32]) -> Vec<(u64, Vec<u8>)> {
    let Some(Gpt { data, system }) = disk.gpt else { return Vec::new() };
    let mut entries = vec![0; TABLE];
    let mut next = entries.chunks_mut(ENTRY);
    let mut next = || next.next().expect("there is room for 128");
    if let Some(data) = data {
        gpt_entry(next(), BASIC_DATA, derived(digest, b"data"), data, READ_ONLY, "ISO9660");
    }
    gpt_entry(next(), EFI_SYSTEM, derived(digest, b"system"), system, 0, "EFI system");
    let last = disk.sectors - 1;
    let header = |own, other, table| header(own, other, table, last, &derived(digest, b"disk"), &entries);
    vec![
        (SECTOR, header(1, last, 2)),
        (2 * SECTOR, entries.clone()),
        ((last - 32) * SECTOR, entries.clone()),
        (last * SECTOR, header(last, 1, last - 32)),
    ]
}

fn gpt_entry(entry: &mut [u8], kind: [u8; 16], id: [u8; 16], (start, len): (u64, u64), flags: u64, name: &str) {
    entry[..16].copy_from_slice(&kind);
    entry[16..32].copy_from_slice(&id);
    for (field, value) in entry[32..56].chunks_mut(8).zip([start, start + len - 1, flags]) {
        field.copy_from_slice(&value.to_le_bytes());
    }
    for (unit, value) in entry[56..].chunks_mut(2).zip(name.encode_utf16()) {
        unit.copy_from_slice(&value.to_le_bytes());
    }
}

fn header(own: u64, other: u64, table: u64, last: u64, id: &[u8; 16], entries: &[u8]) -> Vec<u8> {
    let mut header = Vec::with_capacity(512);
    header.extend(b"EFI PART\0\0\x01\0");
    header.extend([92, 0].map(u32::to_le_bytes).as_flattened());
    header.extend([0; 4]);
    header.extend([own, other, 34, last - 33].map(u64::to_le_bytes).as_flattened());
    header.extend(id);
    header.extend(table.to_le_bytes());
    header.extend([ENTRIES, ENTRY_BYTES, crc(entries)].map(u32::to_le_bytes).as_flattened());
    let sum = crc(&header);
    header[16..20].copy_from_slice(&sum.to_le_bytes());
    header.resize(512, 0);
    header
}

fn crc(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// A UUID of version 8 (RFC 9562: bits of one's own), in the byte order of GUIDs.
fn derived(digest: &[u8; 32], what: &[u8]) -> [u8; 16] {
    let digest = Sha256::new().chain_update(b"tether GUID ").chain_update(what).chain_update(digest).finalize();
    let mut guid: [u8; 16] = std::array::from_fn(|at| digest[at]);
    guid[7] = guid[7] & 0x0f | 0x80;
    guid[8] = guid[8] & 0x3f | 0x80;
    guid
}

/// The first three parts of a GUID are little-endian, the rest is big-endian.
const fn guid(first: u32, second: u16, third: u16, rest: u64) -> [u8; 16] {
    let ([a, b, c, d], [e, f], [g, h]) = (first.to_le_bytes(), second.to_le_bytes(), third.to_le_bytes());
    let [i, j, k, l, m, n, o, p] = rest.to_be_bytes();
    [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
}

/// The partitions of an image, a line each, as its first and last sectors have them.
pub(super) fn dump(image: &Arc<dyn ReadAt>) -> Result<String, Error> {
    let size = image.size().map_err(|source| Error::Image { at: 0, source })?;
    let mut sector = [0; 512];
    volume::read_at(image, 0, &mut sector)?;
    if sector[510..] != [0x55, 0xaa] {
        return Ok(String::new());
    }
    let mut text = String::new();
    for entry in sector[446..510].chunks(16).filter(|entry| entry[4] != 0) {
        let active = if entry[0] == 0x80 { "active, " } else { "" };
        let (start, len) = (u32_at(entry, 8), u32_at(entry, 12));
        text += &format!("partition: {active}type {:#04x}, {len} sectors from {start}\n", entry[4]);
    }
    let primary = dump_gpt(1, image)?;
    if let Some(primary) = primary {
        let second = dump_gpt((size / SECTOR).saturating_sub(1), image)?;
        let agrees = if second.as_ref() == Some(&primary) { "agrees" } else { "is missing or differs" };
        text += &format!("{primary}GPT: the second one {agrees}\n");
    }
    Ok(text)
}

/// A sound GPT with its header in `sector`.
fn dump_gpt(sector: u64, image: &Arc<dyn ReadAt>) -> Result<Option<String>, Error> {
    let mut header = [0; 512];
    volume::read_at(image, sector * SECTOR, &mut header)?;
    let (sum, table) = (u32_at(&header, 16), u64_at(&header, 72));
    header[16..20].fill(0);
    let (count, bytes) = (u32_at(&header, 80), u32_at(&header, 84));
    let known = header.starts_with(b"EFI PART") && (count, bytes) == (ENTRIES, ENTRY_BYTES);
    if !known || crc(&header[..92]) != sum {
        return Ok(None);
    }
    let mut entries = vec![0; TABLE];
    volume::read_at(image, table.saturating_mul(SECTOR), &mut entries)?;
    if crc(&entries) != u32_at(&header, 88) {
        return Ok(None);
    }
    let mut text = format!("GPT: disk {}\n", written(&header[56..72]));
    for entry in entries.chunks(ENTRY).filter(|entry| entry[..16] != [0; 16]) {
        let kind = match &entry[..16] {
            kind if kind == BASIC_DATA => "basic data".to_owned(),
            kind if kind == EFI_SYSTEM => "EFI system".to_owned(),
            kind => written(kind),
        };
        let (first, last) = (u64_at(entry, 32), u64_at(entry, 40));
        let sectors = last.saturating_sub(first).saturating_add(1);
        text += &format!("GPT partition: {kind}, {sectors} sectors from {first}, {}\n", written(&entry[16..32]));
    }
    Ok(Some(text))
}

/// A GUID as people write it.
fn written(guid: &[u8]) -> String {
    let order = [3, 2, 1, 0, 16, 5, 4, 16, 7, 6, 16, 8, 9, 16, 10, 11, 12, 13, 14, 15];
    order.iter().map(|at| guid.get(*at).map_or("-".to_owned(), |byte| format!("{byte:02X}"))).collect()
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guids_are_those_of_the_specification() {
        assert_eq!(written(&EFI_SYSTEM), "C12A7328-F81F-11D2-BA4B-00A0C93EC93B");
        assert_eq!(written(&BASIC_DATA), "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7");
        assert_eq!(&written(&derived(&[7; 32], b"disk"))[14..15], "8", "version 8");
    }

    #[test]
    fn both_tables_are_read_as_they_were_written() {
        let disk = Disk { sectors: 4096, gpt: Some(Gpt { data: Some((64, 2000)), system: (2064, 1000) }) };
        let mut image = vec![0; 4096 * 512];
        image[..512].copy_from_slice(&mbr(&disk, &[0xfa; 432], Some(300), &[7; 32]));
        for (at, bytes) in gpt(&disk, &[7; 32]) {
            let at = usize::try_from(at).unwrap();
            image[at..at + bytes.len()].copy_from_slice(&bytes);
        }
        assert_eq!(image[432..440], 300_u64.to_le_bytes());
        let text = |bytes: &[u8]| {
            let file = tempfile::tempfile().unwrap();
            std::os::unix::fs::FileExt::write_all_at(&file, bytes, 0).unwrap();
            let image: Arc<dyn ReadAt> = Arc::new(file);
            dump(&image).unwrap()
        };
        let whole = text(&image);
        for line in [
            "partition: type 0xee, 4095 sectors from 1\n",
            "GPT partition: basic data, 2000 sectors from 64, ",
            "GPT partition: EFI system, 1000 sectors from 2064, ",
            "GPT: the second one agrees\n",
        ] {
            assert!(whole.contains(line), "{line:?} is not in {whole}");
        }
        image[4095 * 512 + 60] ^= 1;
        assert!(text(&image).ends_with("GPT: the second one is missing or differs\n"));
    }

    #[test]
    fn a_bios_sees_whole_cylinders() {
        let entry = mbr_entry(0x80, 0x17, 0, 2048 * 20);
        assert_eq!(entry[..8], [0x80, 0, 1, 0, 0x17, 63, 32, 19]);
        assert_eq!(cylinders(u64::MAX), [0xfe, 0xff, 0xff]);
    }
}
