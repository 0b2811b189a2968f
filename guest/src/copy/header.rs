//! The bytes of an entry: a ustar header, and before it a PAX one for all that ustar has no room for.
//!
//! Sources: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Extended Header"; star's manual for `SCHILY.xattr`; GNU tar for `=` and `%` in
//! the name of an attribute.

use std::io::Write as _;

use super::entry::{Entry, Kind, Time};

pub(super) const BLOCK: usize = 512;
pub(super) const XATTR: &[u8] = b"SCHILY.xattr.";

/// Where a field is: first byte, length.
pub(super) type Field = (usize, usize);
pub(super) const NAME: Field = (0, 100);
pub(super) const MODE: Field = (100, 8);
pub(super) const UID: Field = (108, 8);
pub(super) const GID: Field = (116, 8);
pub(super) const SIZE: Field = (124, 12);
pub(super) const MTIME: Field = (136, 12);
pub(super) const CHECKSUM: Field = (148, 8);
pub(super) const TYPE: usize = 156;
pub(super) const LINK: Field = (157, 100);
pub(super) const MAGIC: Field = (257, 8);
pub(super) const MAJOR: Field = (329, 8);
pub(super) const MINOR: Field = (337, 8);
pub(super) const PREFIX: Field = (345, 155);
/// Of the PAX standard, with its version.
pub(super) const USTAR: &[u8] = b"ustar\x0000";

/// The headers of an entry; a file's bytes follow them, filled up to a block.
pub(super) fn encode(entry: &Entry) -> Vec<u8> {
    let mut records = Vec::new();
    let mut block = [0; BLOCK];
    let (kind, link): (u8, &[u8]) = match &entry.kind {
        Kind::File { .. } => (b'0', b""),
        Kind::HardLink { target } => (b'1', target),
        Kind::Symlink { target } => (b'2', target),
        Kind::CharDevice { .. } => (b'3', b""),
        Kind::BlockDevice { .. } => (b'4', b""),
        Kind::Directory => (b'5', b""),
        Kind::Fifo => (b'6', b""),
    };
    let size = if let Kind::File { size } = entry.kind { size } else { 0 };
    let meta = &entry.meta;
    put_text(&mut block, NAME, &entry.name, b"path", &mut records);
    put_text(&mut block, LINK, link, b"linkpath", &mut records);
    put_number(&mut block, MODE, meta.mode.into(), b"", &mut records);
    put_number(&mut block, UID, meta.uid.into(), b"uid", &mut records);
    put_number(&mut block, GID, meta.gid.into(), b"gid", &mut records);
    put_number(&mut block, SIZE, size, b"size", &mut records);
    let seconds = u64::try_from(meta.mtime.seconds).ok().filter(|&seconds| fits(MTIME, seconds));
    put_number(&mut block, MTIME, seconds.unwrap_or_default(), b"", &mut records);
    if seconds.is_none() || meta.mtime.nanos != 0 {
        put_record(&mut records, b"mtime", time(meta.mtime).as_bytes());
    }
    if let Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } = entry.kind {
        put_number(&mut block, MAJOR, major, b"SCHILY.devmajor", &mut records);
        put_number(&mut block, MINOR, minor, b"SCHILY.devminor", &mut records);
    }
    for (name, value) in &meta.xattrs {
        let mut key = XATTR.to_vec();
        for &byte in name.to_bytes() {
            match byte {
                b'%' => key.extend_from_slice(b"%25"),
                b'=' => key.extend_from_slice(b"%3D"),
                _ => key.push(byte),
            }
        }
        put_record(&mut records, &key, value);
    }
    let mut bytes = Vec::new();
    if !records.is_empty() {
        let mut extended = [0; BLOCK];
        put(&mut extended, NAME, b"././@PaxHeader");
        put_number(&mut extended, MODE, 0o644, b"", &mut Vec::new());
        put_number(&mut extended, SIZE, records.len() as u64, b"", &mut Vec::new());
        finish(&mut extended, b'x');
        bytes.extend_from_slice(&extended);
        bytes.extend_from_slice(&records);
        bytes.resize(bytes.len() + padding(records.len() as u64), 0);
    }
    finish(&mut block, kind);
    bytes.extend_from_slice(&block);
    bytes
}

/// What follows `size` bytes up to the next block.
#[allow(clippy::cast_possible_truncation)] // below 512
pub(super) fn padding(size: u64) -> usize {
    ((BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64) as usize
}

/// The sum of a header's bytes, its checksum counting as spaces; and as old archives have it, of signed bytes.
pub(super) fn checksums(block: &[u8; BLOCK]) -> (i64, i64) {
    let (start, length) = CHECKSUM;
    let bytes =
        block.iter().enumerate().map(|(at, &byte)| if (start..start + length).contains(&at) { b' ' } else { byte });
    bytes.fold((0, 0), |(unsigned, signed), byte| (unsigned + i64::from(byte), signed + i64::from(byte.cast_signed())))
}

fn put(block: &mut [u8; BLOCK], (start, length): Field, value: &[u8]) {
    block[start..start + length].iter_mut().zip(value).for_each(|(to, &from)| *to = from);
}

fn put_text(block: &mut [u8; BLOCK], field: Field, value: &[u8], key: &[u8], records: &mut Vec<u8>) {
    put(block, field, value);
    if value.len() > field.1 {
        put_record(records, key, value);
    }
}

/// Octal digits and a NUL. A number without room is a record, and 0 here.
fn put_number(block: &mut [u8; BLOCK], field: Field, value: u64, key: &[u8], records: &mut Vec<u8>) {
    let (_, length) = field;
    let shown = if fits(field, value) { value } else { 0 };
    put(block, field, format!("{shown:0width$o}", width = length - 1).as_bytes());
    if shown != value {
        put_record(records, key, value.to_string().as_bytes());
    }
}

fn fits((_, length): Field, value: u64) -> bool {
    value < 1 << (3 * (length - 1))
}

fn finish(block: &mut [u8; BLOCK], kind: u8) {
    block[TYPE] = kind;
    put(block, MAGIC, USTAR);
    let (sum, _) = checksums(block);
    put(block, CHECKSUM, format!("{sum:06o}\0 ").as_bytes());
}

/// `length key=value\n`, where the length counts itself.
fn put_record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = 1 + key.len() + 1 + value.len() + 1;
    let mut length = rest;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    let _in_memory = write!(records, "{length} ");
    for part in [key, b"=", value, b"\n"] {
        records.extend_from_slice(part);
    }
}

/// Decimal, with the sign before the whole.
fn time(time: Time) -> String {
    let nanos = i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos);
    let sign = if nanos < 0 { "-" } else { "" };
    let nanos = nanos.unsigned_abs();
    format!("{sign}{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_its_own_length() {
        for length in [0, 1, 90, 91, 92, 93, 94, 95, 990, 991, 992, 993] {
            let mut records = Vec::new();
            put_record(&mut records, b"path", &vec![b'x'; length]);
            let digits: Vec<u8> = records.iter().copied().take_while(u8::is_ascii_digit).collect();
            assert_eq!(String::from_utf8(digits).unwrap().parse::<usize>().unwrap(), records.len());
        }
    }

    #[test]
    fn times_are_decimal() {
        for (seconds, nanos, expected) in [
            (1, 5, "1.000000005"),
            (-2, 500_000_000, "-1.500000000"),
            (-1, 0, "-1.000000000"),
            (-1, 999_999_999, "-0.000000001"),
            (i64::MAX, 1, "9223372036854775807.000000001"),
        ] {
            assert_eq!(time(Time { seconds, nanos }), expected);
        }
    }

    #[test]
    fn what_fits_needs_one_block() {
        let entry = |name: &[u8], size| Entry {
            name: name.into(),
            kind: Kind::File { size },
            meta: super::super::entry::Meta::default(),
        };
        assert_eq!(encode(&entry(&[b'x'; 100], 0o77_777_777_777)).len(), BLOCK);
        assert_eq!(encode(&entry(&[b'x'; 101], 0)).len(), 3 * BLOCK);
        assert_eq!(encode(&entry(b"x", 0o100_000_000_000)).len(), 3 * BLOCK);
    }
}
