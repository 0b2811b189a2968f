//! ext4 images: a [`Tree`] becomes a file system that the kernel mounts read-write.
//!
//! An image is written in three steps, each knowing nothing of the next:
//!
//! 1. `inodes` numbers the files, and `survey` reads each once to see what it needs and which blocks are zero;
//! 2. `layout` gives every block its place, on the `geometry` of a file system of that size;
//! 3. `writer` reads the files again and writes all bytes, through a `sink` that leaves zeros as holes; `pour` does so
//!    for those that come from compressed layers, in the order of the layers.
//!
//! The structures on disk have a file each: `superblock`, `group`, `inode`, `extent`, `directory` with
//! `htree` and `name_hash`, `xattr`, over the sizes and checksums of `format`.
//!
//! Any ext4 image is read, ours or another's: `facts` of its superblock, `volume` with its blocks and inodes, `map` of the
//! blocks of a file. What `journal` holds of one that was not unmounted is seen as if it was replayed, and [`settle()`]
//! writes it. [`read()`] makes a tree of it, [`dump()`] a text.
//!
//! The image is a function of tree and options: no clock, no randomness, no environment. It has 4 KiB blocks, checksums
//! over all metadata, 64-bit descriptors, flexible groups, indexed directories and, if asked, a journal. Not made: inode quotas, encryption,
//! inline data, large xattrs in inodes, files beyond 16 TiB.

mod directory;
mod dump;
mod error;
mod extent;
mod facts;
mod format;
mod geometry;
mod group;
mod htree;
mod inode;
mod inodes;
mod journal;
mod layout;
mod map;
mod name_hash;
mod pour;
mod reader;
mod sink;
mod superblock;
mod survey;
mod volume;
mod window;
mod writer;
mod xattr;

use std::fs::File;

use sha2::{Digest, Sha256};

pub use dump::dump;
pub use error::{Error, Unfit};
pub use journal::settle;
pub use reader::{options, read};

use crate::tree::{Kind, Time, Tree};
use inodes::Inodes;
use name_hash::NameHash;
use writer::Identity;

/// What an image is to be, besides its files.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name of the file system, at most 16 bytes.
    pub label: String,
    pub size: Size,
    pub journal: bool,
    /// `None`: derived from the files, so that equal trees have equal images.
    pub uuid: Option<[u8; 16]>,
    /// When the file system says it was made.
    pub time: Time,
}

impl Default for Options {
    fn default() -> Options {
        Options { label: String::new(), size: Size::Fit { spare: 0 }, journal: true, uuid: None, time: Time::default() }
    }
}

/// How large an image becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// As large as the files need, with this many bytes free.
    Fit { spare: u64 },
    /// This many bytes.
    Exactly(u64),
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Bytes of the image, holes included.
    pub size: u64,
    /// Blocks of 4 KiB in use by the file system, and those of them that are free.
    pub blocks: u64,
    pub free_blocks: u64,
    /// Inodes of the file system, and those of them that are free.
    pub inodes: u64,
    pub free_inodes: u64,
    /// Bytes written; the others are holes.
    pub written: u64,
    pub uuid: [u8; 16],
}

/// Writes the image of `tree` to `out`, which is emptied first.
///
/// `progress` is told bytes done and bytes in all; contents count twice, because they are read twice.
pub fn write(tree: &Tree, options: &Options, out: &File, progress: &mut dyn FnMut(u64, u64)) -> Result<Stats, Error> {
    let label = label(&options.label)?;
    let lost_found = inodes::lost_found(options.time);
    let inodes = Inodes::new(tree, &lost_found)?;
    let total = 2 * stored_bytes(&inodes);
    let mut done = 0;
    let mut advance = |bytes| {
        done += bytes;
        progress(done, total);
    };
    let mut survey = survey::survey(&inodes, &mut advance)?;
    let uuid = options.uuid.unwrap_or_else(|| uuid(&survey.digest));
    let identity = Identity { uuid, hash_seed: hash_seed(&uuid), label, time: options.time };
    survey.add_directories(&inodes, NameHash::new(&identity.hash_seed));
    let layout = layout::plan(&survey.needs, options.size, options.journal)?;
    let written = writer::write(&inodes, &survey.needs, &layout, &identity, out, &mut advance)?;
    progress(total, total);
    Ok(Stats {
        size: layout.size,
        blocks: layout.geometry.blocks,
        free_blocks: layout.free_blocks(),
        inodes: layout.geometry.inodes(),
        free_inodes: layout.geometry.inodes() - layout.used_inodes(),
        written,
        uuid,
    })
}

fn label(text: &str) -> Result<[u8; 16], Error> {
    let mut label = [0; 16];
    match label.get_mut(..text.len()) {
        Some(start) if !text.contains('\0') => start.copy_from_slice(text.as_bytes()),
        _ => return Err(Error::Label { label: text.to_owned() }),
    }
    Ok(label)
}

/// Bytes of contents that the survey will read.
fn stored_bytes(inodes: &Inodes<'_>) -> u64 {
    let files = (0..inodes.len()).filter_map(|place| match &inodes.node(place).kind {
        Kind::File(content) => Some(content),
        _ => None,
    });
    files.flat_map(survey::stored_parts).map(|(_, len)| len).sum()
}

/// A UUID of version 8 (RFC 9562: bits of one's own) from a digest of the files.
fn uuid(digest: &[u8; 32]) -> [u8; 16] {
    let mut uuid: [u8; 16] = std::array::from_fn(|at| digest[at]);
    uuid[6] = uuid[6] & 0x0F | 0x80;
    uuid[8] = uuid[8] & 0x3F | 0x80;
    uuid
}

/// The seed of directory hashes, different for every file system.
fn hash_seed(uuid: &[u8; 16]) -> [u8; 16] {
    let digest = Sha256::new().chain_update(b"tether ext4 hash seed").chain_update(uuid).finalize();
    std::array::from_fn(|at| digest[at])
}
