//! The disk of one layer of an image: as large as its files, never written to, and without a journal, as nothing is ever to be replayed. It is called after the
//! layer and all below it, so images that have them in common share it.
//!
//! Under overlayfs such disks, one over the other, are the image. How a layer hides what is below is decided in `oci`.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::ext4::{self, Options, Size, Stats};
use crate::oci::{self, Digest, Image};
use crate::output::Output;
use crate::tree::Tree;

/// Writes the disk of a layer that [`crate::oci::Image::layers`] has made.
pub fn write(tree: &Tree, out: &File, progress: &mut dyn FnMut(u64, u64)) -> Result<Stats, ext4::Error> {
    let options = Options { size: Size::Fit { spare: 0 }, journal: false, ..Options::default() };
    ext4::write(tree, &options, out, progress)
}

/// The name of a layer's disk, by its digest in [`Image::chain`].
pub fn file_name(layer: &Digest) -> String {
    format!("layer-{}-{GENERATION}.raw", digits(layer))
}

/// By this serial number a machine finds the disk of a layer.
pub fn serial(layer: &Digest) -> String {
    digits(layer)[..SERIAL].to_owned()
}

/// Writes the disks of an image's layers, the lowest first, to `disks`. What is there and whole is left: a layer that another image has brought is the same.
///
/// `progress` is told bytes done and bytes in all, of one step after the other. What must be unpacked on the way goes to unnamed files in `spool`.
pub fn write_missing(
    image: &Image,
    disks: &[PathBuf],
    spool: &Path,
    progress: &mut dyn FnMut(Step, u64, u64),
) -> Result<(), Error> {
    let missing: Vec<bool> = disks.iter().map(|disk| !is_whole(disk)).collect();
    if !missing.contains(&true) {
        return Ok(());
    }
    let progress = std::cell::RefCell::new(progress);
    let mut read = |told: oci::Progress| {
        let step = Step::Read { layer: told.layer, layers: told.layers };
        progress.borrow_mut()(step, told.read, told.size);
    };
    image.layers::<Error>(spool, &|layer| missing[layer], &mut read, &mut |layer, tree| {
        let path = &disks[layer];
        let at = |source| Error::Write { path: path.clone(), source };
        let output = Output::create(path).map_err(at)?;
        let mut wrote = |done, total| progress.borrow_mut()(Step::Write, done, total);
        write(&tree, output.file(), &mut wrote).map_err(|source| Error::Ext4 { path: path.clone(), source })?;
        output.publish().map_err(at)
    })
}

/// What [`write_missing`] is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Layers are numbered from 1.
    Read {
        layer: usize,
        layers: usize,
    },
    Write,
}

/// Writes the disks of an image's layers to `dir`, where several images may have theirs, and an index of this one. Gives the path of the index.
pub fn write_all(image: &Image, dir: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<PathBuf, Error> {
    let chain = image.chain();
    let disks: Vec<PathBuf> = chain.iter().map(|layer| dir.join(file_name(layer))).collect();
    write_missing(image, &disks, dir, &mut |_, done, total| progress(done, total))?;
    let path = dir.join(format!("image-{}.json", image.digest.rsplit(':').next().unwrap_or_default()));
    let at = |source| Error::Write { path: path.clone(), source };
    let mut output = Output::create(&path).map_err(at)?;
    output.file_mut().write_all(index(image, &chain).as_bytes()).map_err(at)?;
    output.publish().map_err(at)?;
    Ok(path)
}

/// Which disks are an image, the lowest first.
fn index(image: &Image, chain: &[Digest]) -> String {
    let layers: Vec<_> = chain
        .iter()
        .map(|layer| json!({"chainId": layer.to_string(), "disk": file_name(layer), "serial": serial(layer)}))
        .collect();
    format!("{:#}\n", json!({"image": image.digest, "layers": layers}))
}

/// Whether there is a disk that was not cut off: a superblock with its checksum, which the writer puts last, and all the blocks that it counts.
///
/// What lies in them is not looked at: the name of a disk appears only once it is on the medium.
fn is_whole(path: &Path) -> bool {
    let superblock = || -> io::Result<bool> {
        let file = File::open(path)?;
        let mut block = [0; 1024];
        file.read_exact_at(&mut block, 1024)?;
        let number = |at: usize| u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
        let size = u64::from(number(4)) * 4096;
        Ok(block[56..58] == [0x53, 0xef]
            && number(1020) == !crc32c::crc32c(&block[..1020])
            && file.metadata()?.len() >= size)
    };
    superblock().unwrap_or(false)
}

fn digits(digest: &Digest) -> String {
    digest.to_string().split_off("sha256:".len())
}

/// Which kind of disk: another one, and old disks are not found any more.
pub const GENERATION: &str = "v1";

/// As many digits of a layer's digest as a disk's serial number can be long.
const SERIAL: usize = 20;

/// Why a layer has no disk.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Image(#[from] oci::Error),
    #[error("{}", path.display())]
    Ext4 { path: PathBuf, source: ext4::Error },
    #[error("{}", path.display())]
    Write { path: PathBuf, source: io::Error },
}
