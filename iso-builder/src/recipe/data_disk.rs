//! The appliance's data disk: an empty ext4 file system with the label by which the appliance finds it.
//!
//! It decides the label. Two disks of one size are the same bytes, their UUID too: the appliance tells disks apart by nothing but the label.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::meta;
use super::virtual_disk::{self, Form, VirtualDisk};
use crate::ext4;
use crate::tree::{Time, Tree};

/// By this label the appliance finds it: `wire::appliance` has the same.
pub const LABEL: &str = "vchdata";

/// Writes the disk, of so many bytes, to `output`.
pub fn write(size: u64, form: &Form, time: Time, output: &Path) -> Result<(), Error> {
    let disk = VirtualDisk::create(output, form)?;
    let raw = disk.raw()?;
    let size = format(size, time, &raw).map_err(|source| Error::Ext4 { path: output.to_owned(), source })?;
    Ok(disk.finish(&raw, size, &mut |_| {})?)
}

/// Writes the file system to `raw`, an empty file; gives its size in bytes.
pub fn format(size: u64, time: Time, raw: &File) -> Result<u64, ext4::Error> {
    let options =
        ext4::Options { label: LABEL.to_owned(), size: ext4::Size::Exactly(size), time, ..ext4::Options::default() };
    let stats = ext4::write(&Tree::new(meta(0o700, time)), &options, raw, &mut |_, _| {})?;
    Ok(stats.size)
}

/// Why there is no disk.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}", path.display())]
    Ext4 { path: PathBuf, source: ext4::Error },
    #[error(transparent)]
    Disk(#[from] virtual_disk::Error),
}
