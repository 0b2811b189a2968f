//! An ISO 9660 image as text: what it says about itself, who starts from it, and every file with its digest.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;

use super::el_torito;
use super::error::Error;
use super::format::{SECTOR, SECTOR_BYTES, civil, u32_at};
use super::partitions;
use super::reader;
use super::rock_ridge as mode;
use super::volume::{self, PUBLISHER, VOLUME_BLOCKS, VOLUME_ID, Volumes};
use crate::digest::Hasher;
use crate::tree::{Content, Kind, NodeId, ROOT, ReadAt, Tree};

/// The text, one line or two for each thing. Fails on what is no sound image.
pub fn dump(image: &File) -> Result<String, Error> {
    let image: Arc<dyn ReadAt> = Arc::new(image.try_clone().map_err(|source| Error::Image { at: 0, source })?);
    let volumes = volume::read(&image)?;
    let mut text = format!(
        "volume {:?}, publisher {:?}, {} blocks of 2048 bytes{}\n",
        trimmed(&volumes.primary[VOLUME_ID]),
        trimmed(&volumes.primary[PUBLISHER]),
        u32_at(&volumes.primary[..], VOLUME_BLOCKS),
        if volumes.joliet.is_some() { ", Joliet" } else { "" },
    );
    text += &partitions::dump(&image)?;
    text += &boot(&image, &volumes)?;
    files(&reader::read(&image)?, &mut text)?;
    Ok(text)
}

/// The entries of the boot catalog, if there is one.
fn boot(image: &Arc<dyn ReadAt>, volumes: &Volumes) -> Result<String, Error> {
    let Some(block) = volumes.boot_catalog else { return Ok(String::new()) };
    let mut sector = [0; SECTOR];
    volume::sector(image, block, &mut sector)?;
    let damaged = || Error::damaged(u64::from(block) * SECTOR_BYTES, "the boot catalog's checksum is wrong");
    let entries = el_torito::parse(&sector).ok_or_else(damaged)?;
    Ok(entries.iter().map(|entry| format!("boot: {entry}\n")).collect())
}

/// Directories before what is in them, by name.
fn files(tree: &Tree, text: &mut String) -> Result<(), Error> {
    let entries = |dir: NodeId, path: &str| {
        let entries = tree.entries(dir).into_iter().flatten().rev();
        entries.map(|(name, id)| (format!("{path}/{}", String::from_utf8_lossy(name)), *id)).collect::<Vec<_>>()
    };
    let mut waiting = entries(ROOT, "");
    while let Some((path, id)) = waiting.pop() {
        let what = match &tree.node(id).kind {
            Kind::File(content) => contents(content, &path)?,
            Kind::Symlink(target) => format!("-> {}", String::from_utf8_lossy(target)),
            Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => format!("device {major},{minor}"),
            Kind::Dir(_) | Kind::Fifo | Kind::Socket => String::new(),
        };
        *text += &format!("{path}\n    {}\n", format!("{} {what}", attributes(tree, id)).trim_end());
        waiting.extend(entries(id, &path));
    }
    Ok(())
}

/// Mode, owner, and time in UTC.
fn attributes(tree: &Tree, id: NodeId) -> String {
    let node = tree.node(id);
    let kind = match node.kind {
        Kind::Dir(_) => mode::DIR,
        Kind::File(_) => mode::REGULAR,
        Kind::Symlink(_) => mode::SYMLINK,
        Kind::CharDevice { .. } => mode::CHAR,
        Kind::BlockDevice { .. } => mode::BLOCK,
        Kind::Fifo => mode::FIFO,
        Kind::Socket => mode::SOCKET,
    };
    let (year, month, day, hour, minute, second) = civil(node.meta.mtime);
    let mode = kind | u32::from(node.meta.mode);
    let (uid, gid) = (node.meta.uid, node.meta.gid);
    format!("{mode:06o} {uid}:{gid} {year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

/// Size, first block and digest.
fn contents(content: &Content, path: &str) -> Result<String, Error> {
    let unreadable = |source| Error::Read { path: path.trim_start_matches('/').to_owned(), source };
    let mut hasher = Hasher::default();
    let mut chunk = vec![0; 1 << 16];
    let mut at = 0;
    while at < content.size {
        let len = usize::try_from((content.size - at).min(1 << 16)).expect("a chunk at most");
        content.read_exact_at(&mut chunk[..len], at).map_err(unreadable)?;
        hasher.write_all(&chunk[..len]).map_err(unreadable)?;
        at += len as u64;
    }
    let place =
        content.extents.first().map_or(String::new(), |first| format!(" at block {}", first.from / SECTOR_BYTES));
    Ok(format!("{} bytes{place}, sha256 {}", content.size, hasher.finish()))
}

fn trimmed(text: &[u8]) -> String {
    String::from_utf8_lossy(text).trim_end_matches([' ', '\0']).to_owned()
}
