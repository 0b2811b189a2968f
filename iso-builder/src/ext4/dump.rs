//! An image as text: the facts of the superblock, the groups, then every path with all that is known of it.
//!
//! Decides only what a person sees: bytes that are not printable ASCII are escaped, uninteresting facts are left out.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::error::Error;
use super::extent::Extent;
use super::format::{
    BLOCK_DEVICE, CHAR_DEVICE, DIRECTORY, FIFO, JOURNAL_INODE, REGULAR, ROOT_INODE, SOCKET, SYMLINK, TYPE_MASK,
};
use super::group::{BLOCK_UNINIT, INODE_UNINIT, TABLE_ZEROED};
use super::inode::{EXTENTS, INDEXED, Record, decode_device};
use super::journal::Replay;
use super::map::{self, Map};
use super::reader::{Names, entries, target};
use super::volume::Volume;
use crate::digest::hex;
use crate::tree::ReadAt;

/// Extents and bytes of a value shown before the rest is only counted.
const SHOWN_EXTENTS: usize = 8;
const SHOWN_BYTES: usize = 64;

/// Describes an image, be it of ours or another's; any checksum that is wrong is an error.
pub fn dump(image: &dyn ReadAt) -> Result<String, Error> {
    let replay = Replay::of(image)?;
    let image = replay.through(image);
    let mut volume = Volume::open(&image)?;
    let mut text = head(&mut volume)?;
    if volume.facts.has_journal {
        let record = volume.inode(JOURNAL_INODE)?;
        let map = map::read(&mut volume, JOURNAL_INODE, &record)?;
        line(&mut text, format_args!("journal size={} extents={}", record.size, extents(&map.extents)));
    }
    let mut seen: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
    let mut waiting = vec![(b"/".to_vec(), ROOT_INODE)];
    while let Some((path, number)) = waiting.pop() {
        if let Some(first) = seen.get(&number) {
            line(&mut text, format_args!("{} = {}", escape(&path), escape(first)));
            continue;
        }
        let mut below = entry(&mut text, &mut volume, &path, number)?;
        below.sort();
        let join = |name: Vec<u8>| [path.strip_suffix(b"/").unwrap_or(&path), b"/", &name].concat();
        waiting.extend(below.into_iter().rev().map(|(name, child)| (join(name), child)));
        seen.insert(number, path);
    }
    Ok(text)
}

fn head(volume: &mut Volume<'_>) -> Result<String, Error> {
    let facts = volume.facts.clone();
    let label: Vec<u8> = facts.label.iter().copied().take_while(|&byte| byte != 0).collect();
    let mut text = String::new();
    line(&mut text, format_args!("label {:?} uuid={} time={}", escape(&label), hex(&facts.uuid), facts.time));
    line(&mut text, format_args!("blocks {} free={}", facts.blocks, facts.free_blocks));
    let per_group = facts.inodes_per_group;
    line(&mut text, format_args!("inodes {} free={} per_group={per_group}", facts.inodes, facts.free_inodes));
    for group in 0..facts.groups {
        let descriptor = volume.group(group)?;
        volume.check_bitmaps(group, &descriptor)?;
        let names = [(INODE_UNINIT, " inode_uninit"), (BLOCK_UNINIT, " block_uninit"), (TABLE_ZEROED, " zeroed")];
        let flags: String =
            names.into_iter().filter(|(flag, _)| descriptor.flags & flag != 0).map(|(_, name)| name).collect();
        line(
            &mut text,
            format_args!(
                "group {group} bitmaps={},{} table={} free={} free_inodes={} unused={} dirs={}{flags}",
                descriptor.block_bitmap,
                descriptor.inode_bitmap,
                descriptor.inode_table,
                descriptor.free_blocks,
                descriptor.free_inodes,
                descriptor.unused_inodes,
                descriptor.directories,
            ),
        );
    }
    Ok(text)
}

/// Describes one inode under its first path, and gives what is in it if it is a directory.
fn entry(text: &mut String, volume: &mut Volume<'_>, path: &[u8], number: u32) -> Result<Names, Error> {
    let record = volume.inode(number)?;
    let meta = format!(
        "{} ino={number} mode={:04o} uid={} gid={} links={} size={} mtime={}.{:09}",
        kind(&record),
        record.mode & !TYPE_MASK,
        record.uid,
        record.gid,
        record.links,
        record.size,
        record.mtime.secs,
        record.mtime.nanos,
    );
    line(text, format_args!("{} {meta}", escape(path)));
    let file_type = record.mode & TYPE_MASK;
    let (mut target_text, mut below) = (Vec::new(), Vec::new());
    let map = match file_type {
        REGULAR => map::read(volume, number, &record)?,
        DIRECTORY => {
            let (map, listed) = entries(volume, number, &record)?;
            below = listed;
            map
        }
        SYMLINK => {
            let (map, bytes) = target(volume, number, &record)?;
            target_text = bytes;
            map
        }
        _ => Map::default(),
    };
    if file_type == SYMLINK {
        line(text, format_args!("  -> {}", escape(&target_text)));
    }
    if !map.extents.is_empty() {
        line(text, format_args!("  extents={}", extents(&map.extents)));
    }
    if !map.tree.is_empty() {
        line(text, format_args!("  extent_tree={} blocks", map.tree.len()));
    }
    for (name, value) in volume.xattrs(number, &record)? {
        let shown = escape(&value[..value.len().min(SHOWN_BYTES)]);
        let rest = if value.len() > SHOWN_BYTES { format!(" of {} bytes", value.len()) } else { String::new() };
        line(text, format_args!("  {}=\"{shown}\"{rest}", escape(&name)));
    }
    Ok(below)
}

fn kind(record: &Record) -> String {
    let device = |letter| {
        let (major, minor) = decode_device(&record.block);
        format!("{letter}{major}:{minor}")
    };
    match record.mode & TYPE_MASK {
        DIRECTORY if record.flags & INDEXED != 0 => "indexed-dir".to_owned(),
        DIRECTORY => "dir".to_owned(),
        REGULAR => "file".to_owned(),
        SYMLINK if record.flags & EXTENTS == 0 => "symlink".to_owned(),
        SYMLINK => "long-symlink".to_owned(),
        CHAR_DEVICE => device('c'),
        BLOCK_DEVICE => device('b'),
        FIFO => "fifo".to_owned(),
        SOCKET => "socket".to_owned(),
        other => format!("type-{other:o}"),
    }
}

/// `logical+length@physical`, in blocks.
fn extents(list: &[Extent]) -> String {
    let mut text = list
        .iter()
        .take(SHOWN_EXTENTS)
        .map(|extent| format!("{}+{}@{}", extent.logical, extent.len, extent.physical))
        .collect::<Vec<_>>()
        .join(" ");
    if list.len() > SHOWN_EXTENTS {
        text += &format!(" and {} more", list.len() - SHOWN_EXTENTS);
    }
    text
}

fn escape(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    writeln!(text, "{arguments}").expect("a string takes all that is written");
}
