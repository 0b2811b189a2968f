//! Extended attributes: in an inode's spare bytes as far as they fit there, the others in one block.
//!
//! Decides the split, and turns POSIX ACLs from the form of `setxattr(2)` into that of ext4 and back. Values larger
//! than a block would need the feature `ea_inode`; they are refused.

use std::collections::BTreeMap;

use super::error::Unfit;
use super::format::{BLOCK, Checksum, INODE_SIZE, get_u16, get_u32, index, low32, put_u16, put_u32, wide};
use super::inode::BODY;

const MAGIC: u32 = 0xEA02_0000;

/// The header of an xattr block: magic, references, blocks, hash, checksum, reserved.
const BLOCK_HEADER: usize = 32;
const BLOCK_CHECKSUM: usize = 0x10;

/// The header of xattrs in an inode: magic only.
const BODY_HEADER: usize = 4;

/// An entry without its name.
const ENTRY: usize = 16;

/// Four zero bytes end the entries.
const END: usize = 4;

/// Prefixes of names that ext4 stores as a number. The first that matches counts; an exact one leaves no suffix.
const PREFIXES: [(u8, &[u8]); 6] = [
    (ACL_ACCESS, b"system.posix_acl_access"),
    (ACL_DEFAULT, b"system.posix_acl_default"),
    (1, b"user."),
    (4, b"trusted."),
    (6, b"security."),
    (7, b"system."),
];
const ACL_ACCESS: u8 = 2;
const ACL_DEFAULT: u8 = 3;

/// Names and values, in the form of `setxattr(2)`.
pub(super) type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// The xattrs of an inode as stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stored {
    /// For the inode's spare bytes; empty when there is nothing in them.
    pub(super) body: Vec<u8>,
    /// For a block of its own, without a checksum yet.
    pub(super) block: Option<Box<[u8; BLOCK]>>,
}

/// Splits xattrs between inode and block.
pub(super) fn store(xattrs: &BTreeMap<Vec<u8>, Vec<u8>>) -> Result<Stored, Unfit> {
    if xattrs.is_empty() {
        return Ok(Stored::default());
    }
    let mut entries = xattrs.iter().map(|(name, value)| Entry::new(name, value)).collect::<Result<Vec<_>, _>>()?;
    entries.sort_by(|a, b| a.order().cmp(&b.order()));
    let mut body_room = INODE_SIZE - BODY - BODY_HEADER - END;
    let (in_body, in_block): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| {
        let left = body_room.checked_sub(entry.size());
        body_room = left.unwrap_or(body_room);
        left.is_some()
    });
    let needed: usize = in_block.iter().map(Entry::size).sum();
    if needed > BLOCK - BLOCK_HEADER - END {
        return Err(Unfit::XattrSpace { bytes: needed, room: BLOCK - BLOCK_HEADER - END });
    }
    Ok(Stored { body: encode_body(&in_body), block: (!in_block.is_empty()).then(|| encode_block(&in_block)) })
}

/// Gives an xattr block, bound for block `place`, its checksum.
pub(super) fn seal(block: &mut [u8], place: u64, seed: Checksum) {
    put_u32(block, BLOCK_CHECKSUM, 0);
    let checksum = seed.add(&place.to_le_bytes()).add(block).value();
    put_u32(block, BLOCK_CHECKSUM, checksum);
}

/// Names and values in an inode's spare bytes.
pub(super) fn decode_body(bytes: &[u8]) -> Result<Pairs, &'static str> {
    match bytes.len() > BODY_HEADER && get_u32(bytes, 0) == MAGIC {
        true => decode(&bytes[BODY_HEADER..], 0),
        false => Ok(Vec::new()),
    }
}

/// Names and values in an xattr block of any size. Without `seed` it has no checksum.
pub(super) fn decode_block(bytes: &[u8], place: u64, seed: Option<Checksum>) -> Result<Pairs, &'static str> {
    if get_u32(bytes, 0) != MAGIC {
        return Err("this is none");
    }
    if let Some(seed) = seed {
        let mut sealed = bytes.to_vec();
        seal(&mut sealed, place, seed);
        if sealed != bytes {
            return Err("its checksum is wrong");
        }
    }
    decode(bytes, BLOCK_HEADER)
}

struct Entry {
    prefix: u8,
    suffix: Vec<u8>,
    value: Vec<u8>,
}

impl Entry {
    fn new(name: &[u8], value: &[u8]) -> Result<Entry, Unfit> {
        let unfit = || Unfit::Xattr { name: String::from_utf8_lossy(name).into_owned() };
        let (prefix, suffix) = PREFIXES
            .iter()
            .find_map(|&(number, prefix)| Some((number, name.strip_prefix(prefix)?)))
            .ok_or_else(unfit)?;
        let acl = matches!(prefix, ACL_ACCESS | ACL_DEFAULT);
        if suffix.is_empty() != acl || suffix.len() > 255 || suffix.contains(&0) {
            return Err(unfit());
        }
        let value = match acl {
            true => acl_to_disk(value).ok_or_else(unfit)?,
            false => value.to_vec(),
        };
        Ok(Entry { prefix, suffix: suffix.to_vec(), value })
    }

    /// The kernel's order: it stops a search in a block at the first larger entry.
    fn order(&self) -> (u8, usize, &[u8]) {
        (self.prefix, self.suffix.len(), &self.suffix)
    }

    fn size(&self) -> usize {
        ENTRY + self.suffix.len().next_multiple_of(4) + self.value.len().next_multiple_of(4)
    }

    /// The hash that the kernel and `e2fsck` expect beside an entry.
    fn hash(&self) -> u32 {
        let name = self.suffix.iter().fold(0u32, |hash, &byte| hash.rotate_left(5) ^ u32::from(byte));
        self.value.chunks(4).fold(name, |hash, chunk| {
            let mut word = [0; 4];
            word[..chunk.len()].copy_from_slice(chunk);
            hash.rotate_left(16) ^ u32::from_le_bytes(word)
        })
    }
}

fn encode_body(entries: &[Entry]) -> Vec<u8> {
    if entries.is_empty() {
        return Vec::new();
    }
    let mut bytes = vec![0; INODE_SIZE - BODY];
    put_u32(&mut bytes, 0, MAGIC);
    put_entries(&mut bytes[BODY_HEADER..], 0, entries);
    bytes
}

fn encode_block(entries: &[Entry]) -> Box<[u8; BLOCK]> {
    let mut bytes = Box::new([0; BLOCK]);
    put_u32(&mut *bytes, 0x0, MAGIC);
    put_u32(&mut *bytes, 0x4, 1); // one inode uses it
    put_u32(&mut *bytes, 0x8, 1); // one block long
    let hash = entries.iter().fold(0u32, |hash, entry| hash.rotate_left(16) ^ entry.hash());
    put_u32(&mut *bytes, 0xC, hash);
    put_entries(&mut *bytes, BLOCK_HEADER, entries);
    bytes
}

/// Entries from `start` upwards, their values from the end downwards; values' offsets count from the start of `area`.
fn put_entries(area: &mut [u8], start: usize, entries: &[Entry]) {
    let (mut at, mut values) = (start, area.len());
    for entry in entries {
        let (name, value) = (&entry.suffix, &entry.value);
        values -= value.len().next_multiple_of(4);
        area[at] = u8::try_from(name.len()).expect("checked in Entry::new");
        area[at + 1] = entry.prefix;
        let offset = if value.is_empty() { 0 } else { values };
        put_u16(area, at + 2, u16::try_from(offset).expect("within a block"));
        put_u32(area, at + 8, low32(wide(value.len())));
        put_u32(area, at + 12, entry.hash());
        area[at + ENTRY..at + ENTRY + name.len()].copy_from_slice(name);
        area[values..values + value.len()].copy_from_slice(value);
        at += ENTRY + name.len().next_multiple_of(4);
    }
}

fn decode(area: &[u8], start: usize) -> Result<Pairs, &'static str> {
    let mut found = Vec::new();
    let mut at = start;
    // Values do not overlap, so they can not be more than the area; this keeps a small block from becoming a large tree.
    let mut room = area.len();
    while area.get(at..at + END).ok_or("the entries do not end")? != [0; END] {
        let name_len = usize::from(area[at]);
        let suffix = area.get(at + ENTRY..at + ENTRY + name_len).ok_or("a name does not fit")?;
        let (prefix, name) =
            PREFIXES.iter().find(|(number, _)| *number == area[at + 1]).ok_or("a name has an unknown prefix")?;
        if get_u32(area, at + 4) != 0 {
            return Err("a value lies in an inode of its own (ea_inode), which is not read");
        }
        let offset = usize::from(get_u16(area, at + 2));
        let len = index(u64::from(get_u32(area, at + 8)));
        room = room.checked_sub(len).ok_or("values overlap")?;
        let value = if len == 0 { &[] } else { area.get(offset..offset + len).ok_or("a value does not fit")? };
        let value = match *prefix {
            ACL_ACCESS | ACL_DEFAULT => acl_from_disk(value).ok_or("an ACL is malformed")?,
            _ => value.to_vec(),
        };
        found.push(([name, suffix].concat(), value));
        at += ENTRY + name_len.next_multiple_of(4);
    }
    Ok(found)
}

/// Version numbers of the two forms of an ACL: that of Linux has 8 bytes per entry, that of ext4 only those it needs.
const ACL_LINUX: u32 = 2;
const ACL_DISK: u32 = 1;

/// Whether an ACL entry of this tag names a user (2) or a group (8) by id.
fn acl_has_id(tag: u16) -> bool {
    matches!(tag, 0x02 | 0x08)
}

fn acl_to_disk(value: &[u8]) -> Option<Vec<u8>> {
    let (version, entries) = value.split_at_checked(4)?;
    if get_u32(version, 0) != ACL_LINUX || entries.len() % 8 != 0 {
        return None;
    }
    let mut disk = ACL_DISK.to_le_bytes().to_vec();
    for entry in entries.chunks(8) {
        let kept = if acl_has_id(get_u16(entry, 0)) { 8 } else { 4 };
        disk.extend_from_slice(&entry[..kept]);
    }
    Some(disk)
}

fn acl_from_disk(value: &[u8]) -> Option<Vec<u8>> {
    let (version, mut rest) = value.split_at_checked(4)?;
    if get_u32(version, 0) != ACL_DISK {
        return None;
    }
    let mut linux = ACL_LINUX.to_le_bytes().to_vec();
    while !rest.is_empty() {
        let (entry, behind) = rest.split_at_checked(4)?;
        linux.extend_from_slice(entry);
        rest = behind;
        if acl_has_id(get_u16(entry, 0)) {
            let (id, behind) = rest.split_at_checked(4)?;
            linux.extend_from_slice(id);
            rest = behind;
        } else {
            linux.extend_from_slice(&[0xFF; 4]);
        }
    }
    Some(linux)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `user::rw-, user:1000:rwx, group::r--, mask::rwx, other::r--`
    const ACL: &[u8] = b"\x02\0\0\0\
        \x01\0\x06\0\xFF\xFF\xFF\xFF\x02\0\x07\0\xE8\x03\0\0\x04\0\x04\0\xFF\xFF\xFF\xFF\
        \x10\0\x07\0\xFF\xFF\xFF\xFF\x20\0\x04\0\xFF\xFF\xFF\xFF";

    fn xattrs(list: &[(&[u8], &[u8])]) -> BTreeMap<Vec<u8>, Vec<u8>> {
        list.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect()
    }

    fn all(stored: &Stored) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut found = BTreeMap::new();
        if !stored.body.is_empty() {
            found.extend(decode_body(&stored.body).unwrap());
        }
        if let Some(block) = &stored.block {
            let mut block = **block;
            seal(&mut block, 77, Checksum::START);
            found.extend(decode_block(&block, 77, Some(Checksum::START)).unwrap());
            assert!(decode_block(&block, 78, Some(Checksum::START)).is_err());
        }
        found
    }

    #[test]
    fn small_ones_live_in_the_inode() {
        let list = xattrs(&[(b"user.note", b"hello"), (b"security.capability", &[1; 20])]);
        let stored = store(&list).unwrap();
        assert!(stored.block.is_none());
        assert_eq!(all(&stored), list);
    }

    #[test]
    fn large_ones_take_a_block() {
        let list =
            xattrs(&[(b"user.big", &[7; 2500]), (b"trusted.x", b"1"), (b"user.bb", &[8; 1000]), (b"user.empty", b"")]);
        let stored = store(&list).unwrap();
        assert!(stored.block.is_some() && !stored.body.is_empty());
        assert_eq!(all(&stored), list);
    }

    #[test]
    fn acls_change_form_and_back() {
        let list = xattrs(&[(b"system.posix_acl_access", ACL)]);
        let stored = store(&list).unwrap();
        assert_eq!(acl_to_disk(ACL).unwrap().len(), 4 + 4 * 4 + 8);
        assert_eq!(all(&stored), list);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let room = BLOCK - BLOCK_HEADER - END - ENTRY - 4;
        assert!(store(&xattrs(&[(b"user.a", &vec![1; room])])).is_ok());
        let error = store(&xattrs(&[(b"user.a", &vec![1; room + 1])])).unwrap_err();
        assert!(matches!(error, Unfit::XattrSpace { .. }), "{error}");
        for (name, value) in [
            (&b"com.example"[..], &b""[..]),
            (b"user.", b""),
            (b"system.posix_acl_access", b"\x01\0\0\0"),
            (b"system.posix_acl_default", b"\x02\0\0\0\0"),
        ] {
            let error = store(&xattrs(&[(name, value)])).unwrap_err();
            assert!(matches!(error, Unfit::Xattr { .. }), "{error}");
        }
    }
}
