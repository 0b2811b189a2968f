//! A container's disk: the files of an OCI image as one ext4 file system, raw or in a VMDK.
//!
//! It decides label, free space and the order of steps. Which image is meant, and what its layers hold, is `oci`'s.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::oci::{self, Limits, Reference};
use crate::recipe::layer_disk;
use crate::recipe::virtual_disk::{self, Form, VirtualDisk};
use crate::tree::{Content, Kind, Time, Tree};
use crate::{ext4, output};

/// What the disk is to be.
#[derive(Clone, Debug)]
pub struct Options {
    pub form: Form,
    /// Bytes; `None` for what the files need, a quarter of it and 64 MiB, or for a delta, the parent's.
    pub size: Option<u64>,
    /// Only this layer, from 1, as a disk under overlayfs; its size and label are not asked for.
    pub layer: Option<usize>,
    /// When the file system says it was made.
    pub time: Time,
    /// What the image may hold.
    pub limits: Limits,
}

/// What is being done, for whoever waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Unpack,
    Format,
    Convert,
}

/// Writes the disk of the image to `output`. What is unpacked on the way goes to unnamed files in the same directory.
///
/// `progress` is told the step, how much of it is done, and how much there is.
pub fn write(
    reference: &Reference,
    options: &Options,
    output: &Path,
    progress: &mut dyn FnMut(Step, u64, u64),
) -> Result<(), Error> {
    let spool = output::directory(output);
    let disk = VirtualDisk::create(output, &options.form)?;
    let mut image = oci::open(reference, spool)?;
    image.limits = options.limits;
    let tree = unpack(&image, options.layer, spool, progress)?;
    let raw = disk.raw()?;
    let at = |source| Error::Disk(virtual_disk::Error::Write { path: output.to_owned(), source });
    let (stored, room) = (stored(&tree), output::room(&raw).map_err(at)?);
    if stored > room {
        return Err(Error::Room { dir: spool.to_owned(), stored, room });
    }
    let options = &Options { size: options.size.or(disk.size()), ..options.clone() };
    let size = format(&tree, options, &raw, output, progress)?;
    Ok(disk.finish(&raw, size, &mut |done| progress(Step::Convert, done, size))?)
}

fn unpack(
    image: &oci::Image,
    layer: Option<usize>,
    spool: &Path,
    progress: &mut dyn FnMut(Step, u64, u64),
) -> Result<Tree, Error> {
    let tell = &mut |seen: oci::Progress| progress(Step::Unpack, seen.read, seen.size);
    let Some(number) = layer else { return Ok(image.flatten(spool, tell)?) };
    let mut tree = None;
    image.layers::<oci::Error>(spool, &|layer| layer + 1 == number, tell, &mut |_, made| {
        tree = Some(made);
        Ok(())
    })?;
    tree.ok_or(Error::NoLayer { number, layers: image.chain().len() })
}

/// Writes the file system; gives its size.
fn format(
    tree: &Tree,
    options: &Options,
    raw: &File,
    output: &Path,
    progress: &mut dyn FnMut(Step, u64, u64),
) -> Result<u64, Error> {
    if options.layer.is_some() {
        let stats = layer_disk::write(tree, raw, &mut |done, total| progress(Step::Format, done, total));
        return Ok(stats.map_err(|source| Error::Ext4 { path: output.to_owned(), source })?.size);
    }
    let size = match options.size {
        Some(size) => ext4::Size::Exactly(size),
        None => ext4::Size::Fit { spare: spare(tree) },
    };
    let options = ext4::Options { label: LABEL.to_owned(), size, time: options.time, ..ext4::Options::default() };
    let stats = ext4::write(tree, &options, raw, &mut |done, total| progress(Step::Format, done, total));
    Ok(stats.map_err(|source| Error::Ext4 { path: output.to_owned(), source })?.size)
}

/// A quarter of the content, because containers write what resembles it; 64 MiB, because small ones write too. Both
/// are holes until they are used.
fn spare(tree: &Tree) -> u64 {
    let named = |content: &Content| content.extents.iter().map(|extent| extent.len).sum::<u64>();
    contents(tree).map(named).sum::<u64>() / 4 + (64 << 20)
}

/// Bytes that the files will take at least: those of blocks that are not zero.
fn stored(tree: &Tree) -> u64 {
    let bytes = |content: &Content| {
        let known = content.known()?;
        Some(known.runs.iter().map(|run| u64::from(run.len) * 4096).sum::<u64>().min(content.size))
    };
    contents(tree).filter_map(bytes).fold(0, u64::saturating_add)
}

fn contents(tree: &Tree) -> impl Iterator<Item = &Content> {
    tree.reachable().into_iter().filter_map(|id| match &tree.node(id).kind {
        Kind::File(content) => Some(content),
        _ => None,
    })
}

/// By this label a containerVM finds its root; the name is VIC's.
const LABEL: &str = "containerfs";

/// Why there is no disk.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Image(#[from] oci::Error),
    #[error("the image has no layer {number}: it has {layers}, from 1")]
    NoLayer { number: usize, layers: usize },
    #[error("the files take {stored} bytes, and {} has {room} free", dir.display())]
    Room { dir: PathBuf, stored: u64, room: u64 },
    #[error("{}", path.display())]
    Ext4 { path: PathBuf, source: ext4::Error },
    #[error(transparent)]
    Disk(#[from] virtual_disk::Error),
}
