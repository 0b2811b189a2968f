//! Directory records: where a file lies, and how it is named to those who know no more (ECMA-119, 9.1).
//!
//! What Rock Ridge adds is in the system use area, which is bytes here (see `rock_ridge`).

use super::format::{SECTOR, both16, both32, u32_at};

/// Flags of a record (ECMA-119, 9.1.6).
pub(super) const DIRECTORY: u8 = 0x02;
pub(super) const NOT_LAST: u8 = 0x80;

/// The identifiers of a directory's first two records: itself and its parent.
pub(super) const SELF: &[u8] = &[0];
pub(super) const PARENT: &[u8] = &[1];

/// A record's bytes before its identifier.
pub(super) const HEAD: usize = 33;
/// The largest record: its length is one byte, and even.
pub(super) const MAX: usize = 254;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    /// The first block, extended attributes left out.
    pub(super) block: u32,
    /// Bytes of this part of the file.
    pub(super) size: u32,
    pub(super) date: [u8; 7],
    pub(super) flags: u8,
    pub(super) identifier: &'a [u8],
    pub(super) system_use: &'a [u8],
}

impl<'a> Record<'a> {
    /// Reads a record of exactly these bytes.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Record<'a>, &'static str> {
        let len = usize::from(*bytes.get(32).ok_or("a directory record is too short")?);
        let identifier = bytes.get(HEAD..HEAD + len).ok_or("a directory record is shorter than its name")?;
        if identifier.is_empty() {
            return Err("a directory record has no name");
        }
        if bytes[26] != 0 {
            return Err("a file is interleaved, which nobody does");
        }
        Ok(Record {
            block: u32_at(bytes, 2).checked_add(u32::from(bytes[1])).ok_or("a file lies beyond every image")?,
            size: u32_at(bytes, 10),
            date: *bytes[18..].first_chunk().expect("the identifier is further on"),
            flags: bytes[25],
            identifier,
            system_use: bytes.get(system_use_at(len)..).unwrap_or_default(),
        })
    }

    /// Adds the record's bytes to `out`. They must be [`MAX`] at most.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let len = (system_use_at(self.identifier.len()) + self.system_use.len()).next_multiple_of(2);
        out.extend([u8::try_from(len).expect("the system use area was made to fit"), 0]);
        out.extend(both32(self.block));
        out.extend(both32(self.size));
        out.extend(self.date);
        out.extend([self.flags, 0, 0]);
        out.extend(both16(1));
        out.push(u8::try_from(self.identifier.len()).expect("identifiers are short"));
        out.extend(self.identifier);
        out.resize(start + system_use_at(self.identifier.len()), 0);
        out.extend(self.system_use);
        out.resize(start + len, 0);
    }
}

/// Where the system use area begins: the identifier is padded to an even offset.
pub(super) fn system_use_at(identifier: usize) -> usize {
    (HEAD + identifier).next_multiple_of(2)
}

/// The records of one sector, each with its offset. A length of zero ends it.
pub(super) fn records(sector: &[u8]) -> impl Iterator<Item = (usize, Result<Record<'_>, &'static str>)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at;
        let len = usize::from(*sector.get(start).filter(|len| **len != 0)?);
        let record = match sector.get(start..start + len) {
            Some(bytes) => Record::parse(bytes),
            None => Err("a directory record crosses the end of a sector"),
        };
        at = if record.is_ok() { start + len } else { SECTOR };
        Some((start, record))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        for identifier in [&b"A.;1"[..], b"ABC.;1", SELF] {
            let record = Record {
                block: 0x0102_0304,
                size: 0xffff_f800,
                date: [70, 1, 1, 0, 0, 0, 0],
                flags: NOT_LAST,
                identifier,
                system_use: b"NM\x06\x01\x00a",
            };
            let mut sector = vec![];
            record.put(&mut sector);
            assert_eq!(usize::from(sector[0]), sector.len());
            assert!(sector.len().is_multiple_of(2));
            assert_eq!(Record::parse(&sector), Ok(record));
            sector.resize(SECTOR, 0);
            assert_eq!(records(&sector).map(|(_, record)| record).collect::<Vec<_>>(), [Ok(record)]);
        }
    }

    #[test]
    fn what_is_cut_off_is_refused() {
        let mut sector = vec![0; SECTOR];
        sector[SECTOR - 2] = 4;
        assert_eq!(records(&sector).count(), 0);
        sector[0] = 254;
        sector[32] = 255;
        let found: Vec<_> = records(&sector).map(|(_, record)| record.is_err()).collect();
        assert_eq!(found, [true], "the name would cross the record's end, and nothing after it is believed");
    }
}
