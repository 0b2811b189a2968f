//! A disk as a file, or two: raw, or one of the kinds of VMDK. How it is stored is decided here, and that all of its files appear or none.
//!
//! What is on the disk is the caller's to say: it writes a raw image, or has one.

use std::fs::File;
use std::io::{self, Write as _};
use std::num::NonZero;
use std::path::{Path, PathBuf};

use crate::output::{self, Output};
use crate::vmdk::{self, Raw, Stored};

/// How a disk is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// As it is, with holes.
    Raw,
    /// A monolithicSparse VMDK.
    Sparse,
    /// A streamOptimized VMDK; that many threads compress.
    Stream { threads: NonZero<usize> },
    /// A monolithicFlat VMDK: `NAME.vmdk` describes what `NAME-flat.vmdk` holds.
    Flat,
    /// A sparse VMDK of what differs from another of the same size, which lies in its directory or below.
    Delta { parent: PathBuf },
}

/// A disk that is being made.
#[derive(Debug)]
pub struct VirtualDisk {
    path: PathBuf,
    name: String,
    out: Output,
    stored: As,
}

#[derive(Debug)]
enum As {
    Raw,
    Sparse,
    Stream(NonZero<usize>),
    /// The name and the file of what the descriptor describes.
    Flat(String, Output),
    Delta(Stored, String),
}

impl VirtualDisk {
    /// Starts the disk that will be at `path`.
    pub fn create(path: &Path, form: &Form) -> Result<VirtualDisk, Error> {
        let at = |source| Error::Write { path: path.to_owned(), source };
        let name = path.file_name().unwrap_or_default();
        let shown = name.to_string_lossy().into_owned();
        let stored = match form {
            Form::Raw => As::Raw,
            Form::Sparse => As::Sparse,
            Form::Stream { threads } => As::Stream(*threads),
            Form::Flat => {
                let stem = name.to_str().map(|name| name.strip_suffix(".vmdk").unwrap_or(name));
                let unnamed = vmdk::Error::Name { name: shown.clone() };
                let stem = stem.ok_or(Error::Vmdk { path: path.to_owned(), source: unnamed })?;
                let flat = format!("{stem}-flat.vmdk");
                let output = Output::create(&path.with_file_name(&flat)).map_err(at)?;
                As::Flat(flat, output)
            }
            Form::Delta { parent } => {
                let name = beside(parent, path)?;
                let parent = Stored::open(parent).map_err(|source| Error::Vmdk { path: path.to_owned(), source })?;
                As::Delta(parent, name)
            }
        };
        Ok(VirtualDisk { path: path.to_owned(), name: shown, out: Output::create(path).map_err(at)?, stored })
    }

    /// The size that the disk must have, in bytes, if only one will do.
    pub fn size(&self) -> Option<u64> {
        match &self.stored {
            As::Delta(parent, _) => Some(parent.size()),
            _ => None,
        }
    }

    /// An empty file for the raw image: the disk's own where it is stored as it is, else one that vanishes. [`VirtualDisk::finish`] is to be given the same.
    pub fn raw(&self) -> Result<File, Error> {
        match &self.stored {
            As::Raw => self.out.file().try_clone(),
            As::Flat(_, flat) => flat.file().try_clone(),
            _ => tempfile::tempfile_in(output::directory(&self.path)),
        }
        .map_err(|source| self.failed(source))
    }

    /// Makes the disk of the first `size` bytes of what [`VirtualDisk::raw`] gave. `progress` is told how many bytes are done.
    pub fn finish(self, raw: &File, size: u64, progress: &mut dyn FnMut(u64)) -> Result<(), Error> {
        match &self.stored {
            As::Raw => self.out.publish().map_err(|source| Error::Write { path: self.path, source }),
            As::Flat(name, flat) => {
                // a last sector that is not full is filled up
                flat.file().set_len(size.next_multiple_of(512)).map_err(|source| self.failed(source))?;
                let text = vmdk::describe_flat(raw, size, name, progress).map(|(text, _)| text);
                self.publish_flat(text)
            }
            _ => self.store(raw, size, progress),
        }
    }

    /// Makes the disk of the first `size` bytes of an image that lies elsewhere.
    pub fn store(mut self, raw: &dyn Raw, size: u64, progress: &mut dyn FnMut(u64)) -> Result<(), Error> {
        let (name, out) = (&self.name, self.out.file_mut());
        let written = match &self.stored {
            As::Raw => vmdk::write_raw(raw, size, out, progress),
            As::Sparse => vmdk::write_sparse(raw, size, name, out, progress),
            As::Stream(threads) => vmdk::write_stream(raw, size, name, *threads, out, progress),
            As::Delta(parent, hint) => vmdk::write_delta(raw, size, name, (parent, hint), out, progress),
            As::Flat(name, flat) => {
                let stats = vmdk::write_raw(raw, size, flat.file(), progress);
                let text = stats.and_then(|stats| vmdk::flat_descriptor(&stats, name));
                return self.publish_flat(text);
            }
        };
        let VirtualDisk { path, out, .. } = self;
        match written {
            Ok(_) => out.publish().map_err(|source| Error::Write { path, source }),
            Err(source) => Err(Error::Vmdk { path, source }),
        }
    }

    fn publish_flat(self, text: Result<String, vmdk::Error>) -> Result<(), Error> {
        let VirtualDisk { path, mut out, stored, .. } = self;
        let text = text.map_err(|source| Error::Vmdk { path: path.clone(), source })?;
        let As::Flat(_, flat) = stored else { unreachable!("a disk with a file of its own for what is in it") };
        let written = out.file_mut().write_all(text.as_bytes()).and_then(|()| output::publish_both(flat, out));
        written.map_err(|source| Error::Write { path, source })
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::Write { path: self.path.clone(), source }
    }
}

/// What a disk at `path` is to call its parent: a disk looks for it in its own directory (see `vmdk`), and so both can be moved together.
fn beside(parent: &Path, path: &Path) -> Result<String, Error> {
    let read = |source| Error::Write { path: parent.to_owned(), source };
    let dir = output::directory(path).canonicalize().map_err(read)?;
    let real = parent.canonicalize().map_err(read)?;
    if path.canonicalize().is_ok_and(|path| path == real) {
        return Err(Error::Vmdk { path: path.to_owned(), source: vmdk::Error::Loop });
    }
    let name = real.strip_prefix(&dir).ok().and_then(Path::to_str);
    name.map(str::to_owned).ok_or_else(|| Error::Parent { parent: parent.to_owned(), dir })
}

/// Why there is no disk.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}", path.display())]
    Vmdk { path: PathBuf, source: vmdk::Error },
    #[error("{}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error(
        "the parent {} is not in {} or below, where the disk will look for it: put it there first",
        parent.display(), dir.display()
    )]
    Parent { parent: PathBuf, dir: PathBuf },
}
