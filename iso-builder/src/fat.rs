//! FAT12 and FAT16 file systems: the EFI System Partition that a UEFI firmware boots from.
//!
//! The format is in Microsoft's "FAT: General Overview of On-Disk Format" (1.03, 2000), which the UEFI specification (13.3) rests on. Files lie in one
//! piece each, at offsets that are multiples of an ISO 9660 sector, so that a medium which holds the image can name them itself and store them once.
//! Nothing is copied: an image is a [`Content`] that says where its parts lie. Long names are not written: 8.3 is what `EFI/BOOT/BOOTX64.EFI` needs.

use std::io::Write as _;

use crate::tree::{Content, Extent, Kind, Node, NodeId, ROOT, Source, Time, Tree};

/// The file system that holds `tree`, exactly as large as that takes. `label` has at most 11 of `A`-`Z`, `0`-`9` and `_`.
///
/// Modes, owners and xattrs have no place in it and are left out; a link, a device or a name that is not 8.3 in capitals is an error. `time` dates the
/// label; what is before 1980 is dated to its first day, since FAT has no earlier one.
pub fn image(tree: &Tree, label: &str, time: Time) -> Result<Content, Error> {
    let label = padded::<11>(label.as_bytes()).filter(|_| label.bytes().all(in_label));
    let label = label.ok_or(Error::Label)?;
    let mut items = vec![Item { id: ROOT, parent: 0, entries: Vec::new(), first: 0, clusters: 0 }];
    collect(tree, 0, &mut Vec::new(), &mut items)?;
    let layout = Layout::of(tree, &mut items)?;

    let mut extents = vec![memory(0, layout.head(tree, &items, label, time))];
    for item in &items[1..] {
        let at = layout.offset(item.first);
        match &tree.node(item.id).kind {
            Kind::File(content) => {
                extents.extend(content.extents.iter().map(|extent| Extent { at: at + extent.at, ..extent.clone() }))
            }
            _ => extents.push(memory(at, directory(tree, &items, item))),
        }
    }
    Ok(Content { size: layout.offset(FIRST + layout.clusters), extents: extents.into() })
}

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the label of a FAT file system has at most 11 of A-Z, 0-9 and _")]
    Label,
    #[error("/{path} cannot be stored in a FAT file system: {reason}")]
    Unfit { path: String, reason: &'static str },
    #[error("its files are too large for FAT16: together they may have 2 GiB")]
    TooLarge,
}

/// A file or directory; the first one is the root.
struct Item {
    id: NodeId,
    /// The place of its directory among the items.
    parent: usize,
    /// Of a directory: names as they are stored, and places among the items.
    entries: Vec<([u8; 11], usize)>,
    first: u32,
    clusters: u32,
}

/// Lists what is below the directory at `dir`, a directory before what is in it.
fn collect(tree: &Tree, dir: usize, path: &mut Vec<String>, items: &mut Vec<Item>) -> Result<(), Error> {
    for (name, &id) in tree.entries(items[dir].id).into_iter().flatten() {
        path.push(name.escape_ascii().to_string());
        let unfit = |reason| Error::Unfit { path: path.join("/"), reason };
        let stored = short(name).ok_or_else(|| unfit("its name is not 8.3 in capitals"))?;
        match &tree.node(id).kind {
            Kind::Dir(_) => {}
            Kind::File(content) if u32::try_from(content.size).is_ok() => {}
            Kind::File(_) => return Err(unfit("it has 4 GiB or more")),
            _ => return Err(unfit("it is neither a file nor a directory")),
        }
        let place = items.len();
        items.push(Item { id, parent: dir, entries: Vec::new(), first: 0, clusters: 0 });
        items[dir].entries.push((stored, place));
        collect(tree, place, path, items)?;
        path.pop();
    }
    Ok(())
}

/// Where the parts of the file system lie, in sectors of 512 bytes.
struct Layout {
    /// Sectors before the first table: the boot sector, and as many as bring the data to a sector of a medium.
    reserved: u32,
    /// Sectors of one of the two tables.
    table: u32,
    /// Sectors of the root directory.
    root: u32,
    /// Sectors of a cluster.
    cluster: u32,
    clusters: u32,
}

impl Layout {
    /// Gives every item its clusters, in the smallest size of them that is enough.
    fn of(tree: &Tree, items: &mut [Item]) -> Result<Layout, Error> {
        for cluster in [4, 8, 16, 32, 64] {
            let bytes = u64::from(cluster * SECTOR);
            let mut next = u64::from(FIRST);
            for item in &mut items[1..] {
                let size = match &tree.node(item.id).kind {
                    Kind::File(content) => content.size,
                    // besides `.` and `..`
                    _ => (item.entries.len() as u64 + 2) * ENTRY,
                };
                let count = size.div_ceil(bytes);
                // An empty file has no cluster, and its entry says 0.
                item.first = if count == 0 { 0 } else { u32::try_from(next).map_err(|_| Error::TooLarge)? };
                item.clusters = u32::try_from(count).map_err(|_| Error::TooLarge)?;
                next += count;
            }
            let used = u32::try_from(next).map_err(|_| Error::TooLarge)? - FIRST;
            // How many clusters there are says which FAT it is, and not all drivers draw the line at the same cluster: keep away from it.
            let clusters = match used {
                ..4069 => used,
                4069..=4101 => 4101,
                _ => used,
            };
            if clusters <= 65_508 {
                let bits = if clusters < FAT16 { 12 } else { 16 };
                let table = ((clusters + FIRST) * bits).div_ceil(8 * SECTOR);
                // Besides the label.
                let root = u32::try_from(items[0].entries.len() + 1).map_err(|_| Error::TooLarge)?.div_ceil(16);
                let data = 1 + 2 * table + root;
                let reserved = 1 + data.next_multiple_of(MEDIUM) - data;
                return Ok(Layout { reserved, table, root, cluster, clusters });
            }
        }
        Err(Error::TooLarge)
    }

    /// Sectors before the first cluster.
    fn data(&self) -> u32 {
        self.reserved + 2 * self.table + self.root
    }

    /// Where cluster `number` begins, in bytes.
    fn offset(&self, number: u32) -> u64 {
        u64::from(self.data()) * u64::from(SECTOR)
            + u64::from(number - number.min(FIRST)) * u64::from(self.cluster * SECTOR)
    }

    /// Everything before the first cluster: boot sector, tables, root directory.
    fn head(&self, tree: &Tree, items: &[Item], label: [u8; 11], time: Time) -> Vec<u8> {
        let mut head = self.boot_sector(label, time);
        let sector = SECTOR as usize;
        head.resize(self.reserved as usize * sector, 0);
        let table = self.table(items);
        head.extend(&table);
        head.extend(&table);
        head.extend(entry(label, 0x08, time, 0, 0));
        head.extend(listing(tree, items, &items[0]));
        head.resize(self.data() as usize * sector, 0);
        head
    }

    fn boot_sector(&self, label: [u8; 11], time: Time) -> Vec<u8> {
        let total = self.data() + self.clusters * self.cluster;
        let short = |value: u32| u16::try_from(value).unwrap_or(0).to_le_bytes();
        let mut out = Vec::with_capacity(SECTOR as usize);
        out.extend(b"\xeb\x3c\x90TETHER  "); // a jump over what follows
        out.extend(short(SECTOR));
        out.push(u8::try_from(self.cluster).expect("at most 64"));
        out.extend(short(self.reserved));
        out.push(2); // tables
        out.extend(short(self.root * 16));
        out.extend(short(total)); // 0 if it does not fit: then it stands below
        out.push(MEDIA);
        out.extend(short(self.table));
        out.extend(short(32)); // sectors of a track and heads, of a disk that has none
        out.extend(short(64));
        out.extend(0u32.to_le_bytes()); // sectors before: the image does not know where it will lie
        out.extend(if total > 0xffff { total } else { 0 }.to_le_bytes());
        out.extend([0x80, 0, 0x29]); // a disk; three fields follow
        // A number that tells media apart, of what is known: the same input gives the same bytes.
        out.extend(crc32c::crc32c_append(crc32c::crc32c(&label), &time.secs.to_le_bytes()).to_le_bytes());
        out.extend(label);
        out.extend(if self.clusters < FAT16 { b"FAT12   " } else { b"FAT16   " });
        // int 18h: a BIOS that starts this goes on to the next medium.
        out.extend(b"\xcd\x18\xf4\xeb\xfd");
        out.resize(SECTOR as usize - 2, 0);
        out.extend([0x55, 0xaa]);
        out
    }

    /// One table: which cluster follows each one.
    fn table(&self, items: &[Item]) -> Vec<u8> {
        let last = if self.clusters < FAT16 { 0x0fff } else { 0xffff };
        let mut next = vec![0u16; (self.clusters + FIRST) as usize];
        next[0] = last & 0xff00 | u16::from(MEDIA);
        next[1] = last;
        for item in items.iter().filter(|item| item.clusters > 0) {
            let end = item.first + item.clusters - 1;
            for cluster in item.first..end {
                next[cluster as usize] = u16::try_from(cluster + 1).expect("FAT16 has fewer clusters");
            }
            next[end as usize] = last;
        }
        let mut out = Vec::with_capacity((self.table * SECTOR) as usize);
        if self.clusters < FAT16 {
            for pair in next.chunks(2) {
                let both = u32::from(pair[0]) | u32::from(pair.get(1).copied().unwrap_or(0)) << 12;
                out.extend(&both.to_le_bytes()[..3]);
            }
        } else {
            out.extend(next.iter().flat_map(|cluster| cluster.to_le_bytes()));
        }
        out.resize((self.table * SECTOR) as usize, 0);
        out
    }
}

/// A directory other than the root.
fn directory(tree: &Tree, items: &[Item], dir: &Item) -> Vec<u8> {
    let time = tree.node(dir.id).meta.mtime;
    // The root is cluster 0 to those in it.
    let mut out = entry(*b".          ", 0x10, time, dir.first, 0).to_vec();
    out.extend(entry(*b"..         ", 0x10, time, items[dir.parent].first, 0));
    out.extend(listing(tree, items, dir));
    out
}

fn listing(tree: &Tree, items: &[Item], dir: &Item) -> Vec<u8> {
    let one = |(name, place): &([u8; 11], usize)| {
        let item = &items[*place];
        let Node { meta, kind } = tree.node(item.id);
        let (attributes, size) = match kind {
            Kind::File(content) => (0x20, u32::try_from(content.size).expect("checked when it was listed")),
            _ => (0x10, 0),
        };
        entry(*name, attributes, meta.mtime, item.first, size)
    };
    dir.entries.iter().flat_map(one).collect()
}

/// One entry of a directory.
fn entry(name: [u8; 11], attributes: u8, time: Time, first: u32, size: u32) -> [u8; 32] {
    let (date, clock) = dos_time(time);
    let mut out = [0; 32];
    let mut rest = &mut out[..];
    let mut put = |bytes: &[u8]| rest.write_all(bytes).expect("the fields have 32 bytes together");
    put(&name);
    put(&[attributes, 0, 0]);
    for field in [clock, date, date, 0, clock, date] {
        put(&field.to_le_bytes());
    }
    put(&u16::try_from(first).expect("FAT16 has fewer clusters").to_le_bytes());
    put(&size.to_le_bytes());
    out
}

/// Date and time of day, UTC, to two seconds, from 1980 to 2107.
fn dos_time(time: Time) -> (u16, u16) {
    // 1980-01-01 and 2107-12-31 23:59:58
    let secs = time.secs.clamp(315_532_800, 4_354_819_198);
    let (mut days, second) = ((secs - 315_532_800) / 86_400, secs % 86_400);
    let (mut year, mut month) = (1980, 1);
    let length = |year: i64, month: i64| match month {
        // 2100 is the one year divisible by 4 in that time which is no leap year.
        2 if year % 4 == 0 && year != 2100 => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    while days >= length(year, month) {
        days -= length(year, month);
        (year, month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
    }
    let date = ((year - 1980) << 9) | (month << 5) | (days + 1);
    let clock = ((second / 3600) << 11) | ((second / 60 % 60) << 5) | (second % 60 / 2);
    (u16::try_from(date).expect("7, 4 and 5 bits"), u16::try_from(clock).expect("5, 6 and 5 bits"))
}

/// A name as a directory stores it: 8 and 3 characters, padded.
fn short(name: &[u8]) -> Option<[u8; 11]> {
    let (base, extension) = match name.iter().position(|byte| *byte == b'.') {
        Some(dot) => (&name[..dot], &name[dot + 1..]),
        None => (name, &[][..]),
    };
    let allowed = |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || b"!#$%&'()-@^_`{}~".contains(byte);
    let dotted_for_nothing = extension.is_empty() && name.ends_with(b".");
    if base.is_empty() || dotted_for_nothing || !base.iter().chain(extension).all(allowed) {
        return None;
    }
    let (base, extension) = (padded::<8>(base)?, padded::<3>(extension)?);
    let mut out = [0; 11];
    out[..8].copy_from_slice(&base);
    out[8..].copy_from_slice(&extension);
    Some(out)
}

fn in_label(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_'
}

/// `text` with spaces after it; `None` if it is longer.
fn padded<const LEN: usize>(text: &[u8]) -> Option<[u8; LEN]> {
    let mut out = [b' '; LEN];
    out.get_mut(..text.len())?.copy_from_slice(text);
    Some(out)
}

fn memory(at: u64, bytes: Vec<u8>) -> Extent {
    Extent { at, len: bytes.len() as u64, source: Source::Memory(bytes.into()), from: 0 }
}

/// Bytes of a sector, to all firmwares.
const SECTOR: u32 = 512;

/// Sectors of ours in one of an ISO 9660 medium.
const MEDIUM: u32 = 4;

/// Bytes of an entry in a directory.
const ENTRY: u64 = 32;

/// The number of the first cluster.
const FIRST: u32 = 2;

/// So many clusters make it FAT16; fewer, FAT12.
const FAT16: u32 = 4085;

/// A disk that stays where it is.
const MEDIA: u8 = 0xf8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Meta;

    fn tree(files: &[(&str, usize)]) -> Tree {
        let mut tree = Tree::new(Meta::default());
        let boot = tree.insert(ROOT, b"EFI", Node { meta: Meta::default(), kind: Kind::Dir(Default::default()) });
        for (name, size) in files {
            let kind = Kind::File(Content::from_bytes(vec![0x11; *size]));
            tree.insert(boot, name.as_bytes(), Node { meta: Meta::default(), kind });
        }
        tree
    }

    fn bytes(content: &Content) -> Vec<u8> {
        let mut all = vec![0; usize::try_from(content.size).unwrap()];
        content.read_exact_at(&mut all, 0).unwrap();
        all
    }

    #[test]
    fn a_small_image_in_bytes() {
        let all = bytes(&image(&tree(&[("A.BIN", 3000)]), "LABEL", Time::default()).unwrap());
        // boot sector, two tables, root directory; the directory's cluster and two of the file
        assert_eq!(all.len(), 4 * 512 + 3 * 2048);
        assert_eq!(&all[510..512], [0x55, 0xaa]);
        assert_eq!(&all[54..62], b"FAT12   ");
        // media, end, 2 ends, 3 goes on with 4, which ends
        assert_eq!(&all[512..520], [0xf8, 0xff, 0xff, 0xff, 0x4f, 0x00, 0xff, 0x0f]);
        assert_eq!(all[512..1024], all[1024..1536]);
        assert_eq!(&all[1536..1548], b"LABEL      \x08");
        assert_eq!(&all[1568..1580], b"EFI        \x10");
        assert_eq!(&all[2048 + 64..2048 + 76], b"A       BIN\x20");
        assert_eq!(&all[2048 + 64 + 26..2048 + 96], [3, 0, 0xb8, 0x0b, 0, 0]);
        assert!(all[4096..4096 + 3000].iter().all(|byte| *byte == 0x11));
        assert!(all[4096 + 3000..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn files_begin_where_a_sector_of_a_medium_does() {
        for size in [0, 1, 2047, 2048, 2049, 5_000_000, 8_370_000, 20_000_000] {
            let image = image(&tree(&[("A", size), ("B", 1)]), "X", Time::default()).unwrap();
            for extent in &image.extents {
                assert_eq!(extent.at % 2048, 0, "{size}");
            }
            assert_eq!(image.size % 2048, 0, "{size}");
        }
    }

    #[test]
    fn no_image_lies_between_fat12_and_fat16() {
        // 4067 clusters of the file and one of the directory are FAT12; one more, and it is surely FAT16
        for (clusters, kind, size) in [(4067, b"FAT12   ", 4068), (4068, b"FAT16   ", 4101), (4100, b"FAT16   ", 4101)]
        {
            let image = image(&tree(&[("A", clusters * 2048)]), "X", Time::default()).unwrap();
            let all = bytes(&image);
            assert_eq!(&all[54..62], kind, "{clusters}");
            assert_eq!(image.extents[1].at + size * 2048, image.size, "{clusters}");
        }
    }

    #[test]
    fn what_has_no_place_in_it_is_refused_by_name() {
        for name in ["lower", "TOOLONGNAME", "A.LONG", "A.B.C", ".A", "A.", "A B"] {
            let error = image(&tree(&[(name, 1)]), "X", Time::default()).unwrap_err();
            assert!(error.to_string().starts_with(&format!("/EFI/{name} cannot be stored")), "{error}");
        }
        assert!(image(&tree(&[]), "a", Time::default()).is_err());
        assert!(image(&tree(&[]), "TWELVELETTER", Time::default()).is_err());
    }

    #[test]
    fn dates_as_dos_has_them() {
        let date = |secs| dos_time(Time { secs, nanos: 0 });
        assert_eq!(date(0), (1 << 5 | 1, 0));
        // 2024-02-29 23:59:59 and 2100-03-01 00:00:00
        assert_eq!(date(1_709_251_199), (44 << 9 | 2 << 5 | 29, 23 << 11 | 59 << 5 | 29));
        assert_eq!(date(4_107_542_400), (120 << 9 | 3 << 5 | 1, 0));
        assert_eq!(date(i64::MAX), (127 << 9 | 12 << 5 | 31, 23 << 11 | 59 << 5 | 29));
    }
}
