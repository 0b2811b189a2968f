//! Disks that are stored as they are: the raw image with its holes, and the text that makes a VMDK of it.
//!
//! After VMware's "Virtual Disk Format 5.0", section 2: `NAME.vmdk` describes what `NAME-flat.vmdk` holds.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::format::{GRAIN, SECTOR};
use super::raw::{ContentId, Raw, capacity, checksum, is_zero, next_grain, read_grain};
use super::{Error, Stats, descriptor};

/// Writes the first `size` bytes of `raw` to `out`, which must be empty; zeros become holes, and a last sector is filled up. `progress` is told how many bytes
/// are done.
pub fn write_raw(raw: &dyn Raw, size: u64, out: &File, progress: &mut dyn FnMut(u64)) -> Result<Stats, Error> {
    let stats = each(raw, size, progress, |number, grain| {
        // the part of a last grain that is beyond the disk's end is zero, and left out
        let held = usize::try_from((size - number * GRAIN).min(GRAIN)).expect("a grain is in memory");
        out.write_all_at(&grain[..held], number * GRAIN).map_err(Error::Write)
    })?;
    out.set_len(stats.size).map_err(Error::Write)?;
    Ok(stats)
}

/// The descriptor of a disk whose `size` bytes are those of `raw`, in the file `name` beside it.
pub fn describe_flat(
    raw: &dyn Raw,
    size: u64,
    name: &str,
    progress: &mut dyn FnMut(u64),
) -> Result<(String, Stats), Error> {
    let stats = each(raw, size, progress, |_, _| Ok(()))?;
    Ok((flat_descriptor(&stats, name)?, stats))
}

/// The descriptor of a disk that [`write_raw`] put into the file `name`.
pub fn flat_descriptor(stats: &Stats, name: &str) -> Result<String, Error> {
    descriptor::write("monolithicFlat", stats.cid, stats.size / SECTOR, "FLAT", name, None)
}

fn each(
    raw: &dyn Raw,
    size: u64,
    progress: &mut dyn FnMut(u64),
    mut put: impl FnMut(u64, &[u8]) -> Result<(), Error>,
) -> Result<Stats, Error> {
    let (mut id, mut stored, mut number) = (ContentId::default(), 0, 0);
    let mut grain = vec![0; 64 << 10];
    while let Some(next) = next_grain(raw, number, size)? {
        number = next;
        read_grain(raw, number, size, &mut grain)?;
        if !is_zero(&grain) {
            id.grain(number, checksum(&grain));
            put(number, &grain)?;
            stored += 1;
        }
        number += 1;
        progress((number * GRAIN).min(size));
    }
    progress(size);
    Ok(Stats { grains: size.div_ceil(GRAIN), stored, size: capacity(size) * SECTOR, cid: id.value() })
}
