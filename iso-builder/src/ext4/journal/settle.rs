//! Writes what the journal of an image holds to its places, as the kernel does when it mounts a disk that it may write to. One that it may only read it does not
//! mount before that is done.
//!
//! Files that were open without a name, or being cut off, are left to the next kernel that may write.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::super::error::Error;
use super::super::facts::{METADATA_CSUM, RECOVER};
use super::super::format::{Checksum, get_u32, index, put_be32, put_u32, wide};
use super::super::superblock::{CHECKSUM, OFFSET, SIZE};
use super::Replay;

/// Has the image be as if it had been unmounted; whether it had not been. Killed at any point, it can be done again.
///
/// The file is open for reading and writing, and nobody else uses it. An image that is damaged is an error, and what was written by then is what its journal says.
pub fn settle(image: &File) -> Result<bool, Error> {
    let mut sb = superblock(image)?;
    if get_u32(&sb, INCOMPAT) & RECOVER == 0 {
        return Ok(false);
    }
    let replay = Replay::of(image)?;
    let write = |bytes: &[u8], at| image.write_all_at(bytes, at).map_err(|source| Error::Write { source });
    let sync = || image.sync_data().map_err(|source| Error::Write { source });
    let mut block = vec![0; index(replay.block_size)];
    for &number in replay.blocks.keys() {
        let at = number * replay.block_size;
        replay.read(image, &mut block, at).map_err(|source| Error::Read { at, source })?;
        write(&block, at)?;
    }
    // each step is on the disk before what makes it needless
    sync()?;
    if let Some(ended) = replay.ended {
        let mut log = vec![0; SIZE];
        image
            .read_exact_at(&mut log, ended.superblock)
            .map_err(|source| Error::Read { at: ended.superblock, source })?;
        put_be32(&mut log, LOG_SEQUENCE, ended.next);
        put_be32(&mut log, LOG_START, 0);
        if ended.has_checksums {
            put_be32(&mut log, LOG_CHECKSUM, 0);
            let checksum = Checksum::START.add(&log).value();
            put_be32(&mut log, LOG_CHECKSUM, checksum);
        }
        write(&log, ended.superblock)?;
        sync()?;
        // the journal may have had a newer one
        sb = superblock(image)?;
    }
    let features = get_u32(&sb, INCOMPAT) & !RECOVER;
    put_u32(&mut sb, INCOMPAT, features);
    if get_u32(&sb, RO_COMPAT) & METADATA_CSUM != 0 {
        let checksum = Checksum::START.add(&sb[..CHECKSUM]).value();
        put_u32(&mut sb, CHECKSUM, checksum);
    }
    write(&sb, wide(OFFSET))?;
    sync()?;
    Ok(true)
}

fn superblock(image: &File) -> Result<[u8; SIZE], Error> {
    let mut sb = [0; SIZE];
    let at = wide(OFFSET);
    image.read_exact_at(&mut sb, at).map_err(|source| Error::Read { at, source })?;
    Ok(sb)
}

/// Fields of the file system's superblock.
const INCOMPAT: usize = 0x60;
const RO_COMPAT: usize = 0x64;

/// Fields of the journal's superblock.
const LOG_SEQUENCE: usize = 0x18;
const LOG_START: usize = 0x1C;
const LOG_CHECKSUM: usize = 0xFC;
