//! The bytes of Rock Ridge's fields, and where those go that a record has no room for.
//!
//! The fields are those that Linux's isofs and xorriso read alike: times are the short ones of a second, for Linux takes
//! the long ones for short; a device's number is in one half where it fits, for xorriso joins the halves.

use super::format::{SECTOR, both32, date};
use super::rock_ridge::Posix;
use crate::tree::Time;

/// Bytes of a field that says where others go on.
const CE: usize = 28;
/// The longest field, and what comes before the text of a name or a symlink in it.
const MAX: usize = 255;
const HEAD: usize = 5;

/// Says that the fields are those of SUSP. The first of all.
pub(super) fn protocol() -> Vec<u8> {
    field(b"SP", &[0xbe, 0xef, 0])
}

/// Says that they mean what RRIP 1.12 says (5.2.1 there).
pub(super) fn extension() -> Vec<u8> {
    let id = b"IEEE_P1282";
    let about = b"THE IEEE P1282 PROTOCOL PROVIDES SUPPORT FOR POSIX FILE SYSTEM SEMANTICS";
    let source = b"PLEASE CONTACT THE IEEE STANDARDS DEPARTMENT, PISCATAWAY, NJ, USA FOR THE P1282 SPECIFICATION";
    let lens = [id.len(), about.len(), source.len()].map(|len| u8::try_from(len).expect("short"));
    field(b"ER", &[&lens[..], &[1], id, about, source].concat())
}

pub(super) fn posix(posix: &Posix) -> Vec<u8> {
    let numbers = [posix.mode, posix.links, posix.uid, posix.gid, posix.serial];
    field(b"PX", numbers.map(both32).as_flattened())
}

/// Modification, access and change of attributes: we know one time of each file.
pub(super) fn times(time: Time) -> Vec<u8> {
    field(b"TF", &[&[0b1110], [date(time); 3].as_flattened()].concat())
}

/// Linux takes the whole number out of the lower half when the upper one is zero, and more than a minor number is there.
pub(super) fn device(major: u32, minor: u32) -> Vec<u8> {
    let (high, low) = match (major, minor) {
        (1..=0xfff, 0..=0xff) => (0, major << 8 | minor),
        apart => apart,
    };
    field(b"PN", [high, low].map(both32).as_flattened())
}

/// A name, in as many fields as it takes.
pub(super) fn name(name: &[u8]) -> Vec<Vec<u8>> {
    let mut parts = name.chunks(MAX - HEAD).peekable();
    let mut fields = Vec::new();
    while let Some(part) = parts.next() {
        let goes_on = u8::from(parts.peek().is_some());
        fields.push(field(b"NM", &[&[goes_on], part].concat()));
    }
    fields
}

/// A symlink's target, component by component. Empty ones keep slashes that follow one another.
pub(super) fn link(target: &[u8]) -> Vec<Vec<u8>> {
    let (root, rest) = match target {
        [b'/', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let mut areas = vec![Vec::new()];
    if root {
        areas[0].extend([0b1000, 0]);
    }
    let components = rest.split(|byte| *byte == b'/').filter(|_| !(root && rest.is_empty()));
    for component in components {
        put_component(&mut areas, component);
    }
    let last = areas.len() - 1;
    let fields = areas.into_iter().enumerate();
    fields.map(|(number, area)| field(b"SL", &[&[u8::from(number != last)], &area[..]].concat())).collect()
}

/// Adds a component to the last area, and goes on in new ones where it has no room.
fn put_component(areas: &mut Vec<Vec<u8>>, component: &[u8]) {
    let (kind, mut text) = match component {
        b"." => (0b0010, &[][..]),
        b".." => (0b0100, &[][..]),
        text => (0, text),
    };
    loop {
        // a component's flags, length and one byte of it
        if areas.last().is_none_or(|area| MAX - HEAD - area.len() < 3) {
            areas.push(Vec::new());
        }
        let area = areas.last_mut().expect("one was just made sure of");
        let (part, rest) = text.split_at(text.len().min(MAX - HEAD - area.len() - 2));
        area.extend([kind | u8::from(!rest.is_empty()), u8::try_from(part.len()).expect("within a field")]);
        area.extend(part);
        text = rest;
        if text.is_empty() {
            return;
        }
    }
}

fn field(signature: &[u8; 2], data: &[u8]) -> Vec<u8> {
    let len = u8::try_from(data.len() + 4).expect("fields are split to fit");
    [signature, &[len, 1][..], data].concat()
}

/// The fields of one directory that its records have no room for, in blocks of their own behind it.
#[derive(Debug)]
pub(super) struct Continuations {
    pub(super) bytes: Vec<u8>,
    /// The block that they begin with.
    base: u32,
}

impl Continuations {
    pub(super) fn new(base: u32) -> Continuations {
        Continuations { bytes: Vec::new(), base }
    }

    /// Puts fields into an area of `room` bytes, and what does not fit there into areas of these.
    pub(super) fn lay(&mut self, fields: &[Vec<u8>], room: usize) -> Vec<u8> {
        let (here, later) = fields.split_at(fitting(fields, room));
        let mut area = here.concat();
        if later.is_empty() {
            return area;
        }
        let len = later[..fitting(later, SECTOR)].iter().map(Vec::len).sum::<usize>();
        let len = if fitting(later, SECTOR) == later.len() { len } else { len + CE };
        let at = self.reserve(len);
        let number = |value: usize| u32::try_from(value).expect("a directory's fields are far below 4 GiB");
        let place = [self.base + number(at / SECTOR), number(at % SECTOR), number(len)];
        area.extend(field(b"CE", place.map(both32).as_flattened()));
        let next = self.lay(later, SECTOR);
        self.bytes[at..at + len].copy_from_slice(&next);
        area
    }

    /// An area within one block: no reader goes beyond.
    fn reserve(&mut self, len: usize) -> usize {
        let at = self.bytes.len();
        let at = if at % SECTOR + len > SECTOR { at.next_multiple_of(SECTOR) } else { at };
        self.bytes.resize(at + len, 0);
        at
    }
}

/// How many fields an area of `room` bytes takes, and, when these are not all, a CE.
fn fitting(fields: &[Vec<u8>], room: usize) -> usize {
    if fields.iter().map(Vec::len).sum::<usize>() <= room {
        return fields.len();
    }
    let ends = fields.iter().scan(0, |end, field| {
        *end += field.len();
        Some(*end)
    });
    ends.take_while(|end| *end + CE <= room).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iso9660::rock_ridge::Attributes;

    /// Reads fields back as the reader does.
    fn taken(fields: &[Vec<u8>], room: usize) -> Attributes {
        let mut continuations = Continuations::new(7);
        let mut area = continuations.lay(fields, room);
        assert!(area.len() <= room);
        let mut attributes = Attributes::default();
        while let Some(next) = attributes.take(&area).unwrap() {
            let (offset, len) = (next.offset as usize, next.len as usize);
            assert!(offset + len <= SECTOR);
            let at = (next.block as usize - 7) * SECTOR + offset;
            area = continuations.bytes[at..at + len].to_vec();
        }
        attributes
    }

    #[test]
    fn symlinks_of_every_length_come_back() {
        for len in (1..=600).chain(4000..=4095) {
            for pattern in ["a", "/", "ab/", "../", "./", "//x", "...", "/..//.", &"y".repeat(300)] {
                let target: Vec<u8> = pattern.bytes().cycle().take(len).collect();
                assert_eq!(taken(&link(&target), 100).target, target, "{len} of {pattern:?}");
            }
        }
    }

    #[test]
    fn names_of_every_length_come_back() {
        for len in 1..=255 {
            let text = vec![b'n'; len];
            let mut fields = vec![times(Time::default()), extension()];
            fields.extend(name(&text));
            assert_eq!(taken(&fields, 60).name, text);
        }
    }

    #[test]
    fn devices_come_back() {
        for number in [(0, 0), (0, 5), (0, 255), (1, 3), (8, 255), (8, 256), (300, 70_000), (4095, 255), (4096, 1)] {
            assert_eq!(taken(&[device(number.0, number.1)], 100).device, Some(number));
        }
    }

    #[test]
    fn fields_beyond_a_block_go_on_in_the_next() {
        let fields: Vec<_> = (0..30).flat_map(|_| link(&[b'x'; 100])).collect();
        let mut continuations = Continuations::new(0);
        let first = continuations.lay(&fields, 28);
        assert_eq!(first.len(), CE);
        let second = continuations.lay(&fields, 28);
        assert_eq!(&first[..2], &second[..2]);
        assert!(continuations.bytes.len() > 2 * SECTOR);
    }
}
