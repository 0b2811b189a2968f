//! One blob on its way into the store: kept under its digest while it grows, so that a broken download goes on where it stopped, and in its place only when its
//! digest is right.
//!
//! Where the bytes come from is not decided here.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::{Error, at};
use crate::digest::Hasher;
use crate::oci::Digest;

/// What there is to do for a blob.
#[derive(Debug)]
pub enum Claim {
    /// Nothing: it is in the store.
    There,
    /// It is to be fetched, and nobody else does.
    Mine(Box<Partial>),
}

/// The right to fetch one blob, and what there is of it. The kernel frees it with its holder, however that ends.
#[derive(Debug)]
pub struct Partial {
    file: File,
    path: PathBuf,
    blob: PathBuf,
    digest: Digest,
    size: u64,
    len: u64,
    hasher: Hasher,
}

/// What became of a blob of which enough bytes came.
#[derive(Debug, PartialEq, Eq)]
pub enum Finished {
    Kept,
    /// It has another digest, and its bytes are thrown away.
    Wrong(String),
}

/// Claims the blob; waits while another process, or thread, has it.
pub(super) fn claim(blob: &Path, path: &Path, digest: Digest, size: u64) -> Result<Claim, Error> {
    loop {
        let mut file = OpenOptions::new();
        let file = file.read(true).write(true).create(true).truncate(false).open(path).map_err(at(path))?;
        file.lock().map_err(at(path))?;
        // While we waited, the one before us may have finished it, which takes the file away, or given up.
        if is_whole(blob, size) {
            remove_if_same(&file, path)?;
            return Ok(Claim::There);
        }
        if !is_same(&file, path)? {
            continue;
        }
        let mut partial = Partial {
            file,
            path: path.to_owned(),
            blob: blob.to_owned(),
            digest,
            size,
            len: 0,
            hasher: Hasher::default(),
        };
        partial.take_up().map_err(at(path))?;
        return Ok(Claim::Mine(Box::new(partial)));
    }
}

/// Whether the store has the blob; its digest was verified when it came.
pub(super) fn is_whole(blob: &Path, size: u64) -> bool {
    fs::metadata(blob).is_ok_and(|meta| meta.is_file() && meta.len() == size)
}

fn is_same(file: &File, path: &Path) -> Result<bool, Error> {
    let ours = file.metadata().map_err(at(path))?;
    match fs::metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (ours.dev(), ours.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(at(path)(error)),
    }
}

/// Removes the name of a file that we have locked.
pub(super) fn remove_if_same(file: &File, path: &Path) -> Result<(), Error> {
    match is_same(file, path)? {
        true => fs::remove_file(path).map_err(at(path)),
        false => Ok(()),
    }
}

impl Partial {
    /// The bytes that are there.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// The bytes that there should be.
    pub fn size(&self) -> u64 {
        self.size
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds what came. More than the blob's size is an error of the caller's: it must stop before.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file.write_all(bytes).map_err(at(&self.path))?;
        self.hasher.write_all(bytes).map_err(at(&self.path))?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Forgets what is there.
    pub fn restart(&mut self) -> Result<(), Error> {
        let empty = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()
        };
        empty(&mut self.file).map_err(at(&self.path))?;
        self.len = 0;
        self.hasher = Hasher::default();
        Ok(())
    }

    /// Puts the blob into its place if its digest is right.
    pub fn finish(&mut self) -> Result<Finished, Error> {
        let found = std::mem::take(&mut self.hasher).finish();
        if self.len != self.size || found != self.digest.hex() {
            self.restart()?;
            return Ok(Finished::Wrong(format!("sha256:{found}")));
        }
        self.file.sync_all().map_err(at(&self.path))?;
        fs::rename(&self.path, &self.blob).map_err(at(&self.blob))?;
        sync_directory(&self.blob)?;
        Ok(Finished::Kept)
    }

    /// Reads what an earlier try left, since its digest is that of a part.
    fn take_up(&mut self) -> io::Result<()> {
        if self.file.metadata()?.len() > self.size {
            self.file.set_len(0)?;
        }
        let mut chunk = vec![0; 1 << 20];
        loop {
            let len = match self.file.read(&mut chunk) {
                Ok(0) => break,
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.hasher.write_all(&chunk[..len])?;
            self.len += len as u64;
        }
        self.file.seek(SeekFrom::Start(self.len)).map(drop)
    }
}

impl Drop for Partial {
    /// An empty one is of no use to the next.
    fn drop(&mut self) {
        if self.len == 0 {
            remove_if_same(&self.file, &self.path).ok();
        }
    }
}

/// A rename lasts when its directory is on the disk.
fn sync_directory(file: &Path) -> Result<(), Error> {
    let dir = file.parent().unwrap_or(Path::new("."));
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(at(dir))
}
