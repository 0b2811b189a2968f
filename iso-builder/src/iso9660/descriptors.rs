//! The bytes of volume descriptors (ECMA-119, section 8).
//!
//! Where their numbers come from is decided by the writer; where they are read back, by `volume`.

use super::error::Error;
use super::format::{NEVER, SECTOR, both16, both32, digits};
use super::volume::{BLOCK_SIZE, BOOT, ESCAPES, MARK, PRIMARY, PUBLISHER, ROOT_RECORD, SUPPLEMENTARY, TERMINATOR};
use super::volume::{VOLUME_BLOCKS, VOLUME_ID};
use crate::tree::Time;

/// What a primary or supplementary descriptor says.
#[derive(Debug)]
pub(super) struct Descriptor<'a> {
    pub(super) joliet: bool,
    pub(super) volume: &'a str,
    pub(super) publisher: &'a str,
    pub(super) time: Time,
    pub(super) blocks: u32,
    pub(super) path_table_size: u32,
    /// Blocks of the tables with little-endian and with big-endian numbers.
    pub(super) path_tables: (u32, u32),
    pub(super) root: Vec<u8>,
}

const PROGRAM: &str = "ISO-BUILDER";

/// Fields of text that we leave empty, and those that we fill in.
const SYSTEM_ID: std::ops::Range<usize> = 8..40;
const SET_ID: std::ops::Range<usize> = 190..318;
const PREPARER: std::ops::Range<usize> = 446..574;
const APPLICATION: std::ops::Range<usize> = 574..702;
const FILES: [std::ops::Range<usize>; 3] = [702..739, 739..776, 776..813];

impl Descriptor<'_> {
    pub(super) fn bytes(&self) -> [u8; SECTOR] {
        let mut bytes = started(if self.joliet { SUPPLEMENTARY } else { PRIMARY });
        let texts =
            [(SYSTEM_ID, ""), (VOLUME_ID, self.volume), (SET_ID, ""), (PUBLISHER, self.publisher), (PREPARER, "")];
        let texts = texts.into_iter().chain([(APPLICATION, PROGRAM)]).chain(FILES.map(|field| (field, "")));
        for (field, text) in texts {
            self.text(&mut bytes[field], text);
        }
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(VOLUME_BLOCKS, &both32(self.blocks));
        if self.joliet {
            put(ESCAPES, b"%/E");
        }
        put(BLOCK_SIZE - 8, &both16(1)); // volumes in the set
        put(BLOCK_SIZE - 4, &both16(1)); // this one's number
        put(BLOCK_SIZE, &both16(2048));
        put(132, &both32(self.path_table_size));
        put(140, &self.path_tables.0.to_le_bytes());
        put(148, &self.path_tables.1.to_be_bytes());
        put(ROOT_RECORD.start, &self.root);
        put(813, &digits(self.time)); // made
        put(830, &digits(self.time)); // changed
        put(847, &NEVER); // out of date
        put(864, &NEVER); // to be used
        put(881, &[1]); // version of the file structure
        bytes
    }

    fn text(&self, field: &mut [u8], text: &str) {
        if self.joliet {
            let units = text.encode_utf16().chain(std::iter::repeat(b' '.into()));
            field.chunks_mut(2).zip(units).for_each(|(bytes, unit)| {
                bytes.copy_from_slice(&unit.to_be_bytes()[..bytes.len()]);
            });
        } else {
            field.fill(b' ');
            field[..text.len()].copy_from_slice(text.as_bytes());
        }
    }
}

/// Names the block of the boot catalog.
pub(super) fn boot_record(catalog: u32) -> [u8; SECTOR] {
    let mut bytes = started(BOOT);
    bytes[7..30].copy_from_slice(b"EL TORITO SPECIFICATION");
    bytes[71..75].copy_from_slice(&catalog.to_le_bytes());
    bytes
}

pub(super) fn terminator() -> [u8; SECTOR] {
    started(TERMINATOR)
}

fn started(kind: u8) -> [u8; SECTOR] {
    let mut bytes = [0; SECTOR];
    bytes[0] = kind;
    bytes[1..6].copy_from_slice(MARK);
    bytes[6] = 1;
    bytes
}

/// Whether the volume may be named so.
pub(super) fn check(volume: &str, publisher: &str, time: Time) -> Result<(), Error> {
    let label = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    let reason = if volume.is_empty() || volume.len() > VOLUME_ID.len() || !volume.bytes().all(label) {
        format!("the volume's label {volume:?} is not one of 1 to 32 of A-Z, 0-9 and _")
    } else if publisher.len() > PUBLISHER.len() || !publisher.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        format!("the publisher {publisher:?} is longer than 128 bytes, or not ASCII")
    } else if !super::format::has_date(time) {
        "its time is not within ISO 9660's years, 1900 to 2155".to_owned()
    } else {
        return Ok(());
    };
    Err(Error::Layout { reason })
}
