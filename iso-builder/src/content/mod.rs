//! Images that were pulled: blobs under their digests, and the names that lead to them.
//!
//! The store is an OCI layout, so `oci` opens what is in it as it opens any other. A blob appears whole and verified or not at all; a name, when all that it needs
//! is there. Processes share a store: one fetches a blob while the others that want it wait, and nothing is removed while anybody pulls. Where blobs come from is
//! `registry`'s, what time it is the caller's.
//!
//! ```text
//! oci-layout  index.json     the layout; the index has an entry for each name
//! blobs/sha256/HEX           verified
//! partial/HEX                on its way, locked by whoever fetches it; left by a broken download, taken up by the next
//! .lock  index.lock          held by whoever pulls (shared) or collects; by whoever changes the index
//! ```

mod collect;
pub mod document;
mod names;
mod partial;

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

pub use self::collect::{Collected, Keep};
pub use self::names::Named;
pub use self::partial::{Claim, Finished, Partial};
use crate::digest::Hasher;
use crate::oci::Digest;
use crate::output::Output;
use document::DOCUMENT_LIMIT;

/// A store of images.
#[derive(Clone, Debug)]
pub struct Store {
    dir: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the store of images: {}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("the store of images: {}: {what}; remove the directory that it is in, and pull again", path.display())]
    Index { path: PathBuf, what: String },
    #[error("what is to be kept cannot be read")]
    From { source: io::Error },
    #[error("it has the digest {found}, not {expected}")]
    Wrong { found: String, expected: String },
}

/// While it is held, nothing is removed from the store.
#[derive(Debug)]
pub struct InUse {
    #[expect(dead_code, reason = "held, not read")]
    file: File,
}

impl Store {
    /// The store in the user's cache directory; it is made if there is none.
    pub fn open(cache: &Path) -> Result<Store, Error> {
        Store::at(&cache.join("tether/content"))
    }

    /// The store in that directory; it is made if there is none.
    pub fn at(dir: &Path) -> Result<Store, Error> {
        let store = Store { dir: dir.to_owned() };
        for dir in [store.blobs(), store.partials()] {
            fs::create_dir_all(&dir).map_err(at(&dir))?;
        }
        let path = store.dir.join("oci-layout");
        if !path.exists() {
            let mut output = Output::create(&path).map_err(at(&path))?;
            output.file_mut().write_all(b"{\"imageLayoutVersion\":\"1.0.0\"}\n").map_err(at(&path))?;
            output.publish().map_err(at(&path))?;
        }
        Ok(store)
    }

    /// The directory, which is an OCI layout.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Keeps what comes from being collected before it has a name.
    pub fn hold(&self) -> Result<InUse, Error> {
        let path = self.lock_path();
        let file = File::create(&path).map_err(at(&path))?;
        file.lock_shared().map_err(at(&path))?;
        Ok(InUse { file })
    }

    /// Whether the blob is here.
    pub fn has(&self, digest: &Digest, size: u64) -> bool {
        partial::is_whole(&self.blob(digest), size)
    }

    /// An index, a manifest or a config, verified again: who reads it may act upon it. `None` if it is not here, or is damaged.
    pub fn document(&self, digest: &Digest) -> Result<Option<Vec<u8>>, Error> {
        let path = self.blob(digest);
        let mut bytes = Vec::new();
        match File::open(&path) {
            Ok(file) => file.take(DOCUMENT_LIMIT + 1).read_to_end(&mut bytes).map_err(at(&path))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(at(&path)(error)),
        };
        Ok((Digest::of(&bytes) == *digest).then_some(bytes))
    }

    /// Keeps a document of that digest.
    pub fn put(&self, digest: &Digest, bytes: &[u8]) -> Result<(), Error> {
        debug_assert_eq!(Digest::of(bytes), *digest);
        let path = self.blob(digest);
        let write = || {
            let mut output = Output::create(&path)?;
            output.file_mut().write_all(bytes)?;
            output.publish()
        };
        write().map_err(at(&path))
    }

    /// Keeps all that `from` has; the result is its digest and its length. What has another digest than `expected` is not kept.
    pub fn take(&self, from: &mut dyn io::Read, expected: Option<&Digest>) -> Result<(Digest, u64), Error> {
        let blobs = self.blobs();
        let mut output = Output::create(&blobs.join("incoming")).map_err(at(&blobs))?;
        let (mut hasher, mut len, mut chunk) = (Hasher::default(), 0, vec![0; 256 << 10]);
        loop {
            let read = match from.read(&mut chunk) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(Error::From { source }),
            };
            output.file_mut().write_all(&chunk[..read]).map_err(at(&blobs))?;
            hasher.write_all(&chunk[..read]).map_err(at(&blobs))?;
            len += read as u64;
        }
        let found = format!("sha256:{}", hasher.finish());
        let digest =
            Digest::parse(&found).ok_or_else(|| Error::Wrong { found: found.clone(), expected: String::new() })?;
        if let Some(expected) = expected.filter(|expected| **expected != digest) {
            return Err(Error::Wrong { found, expected: expected.to_string() });
        }
        let path = self.blob(&digest);
        output.publish_as(&path).map_err(at(&path))?;
        Ok((digest, len))
    }

    /// A blob, to be read.
    pub fn read(&self, digest: &Digest) -> Result<File, Error> {
        let path = self.blob(digest);
        File::open(&path).map_err(at(&path))
    }

    /// Claims a blob that is to be fetched; waits while somebody else does.
    pub fn claim(&self, digest: &Digest, size: u64) -> Result<Claim, Error> {
        let blob = self.blob(digest);
        if partial::is_whole(&blob, size) {
            return Ok(Claim::There);
        }
        partial::claim(&blob, &self.partials().join(digest.hex()), *digest, size)
    }

    fn blobs(&self) -> PathBuf {
        self.dir.join("blobs/sha256")
    }

    fn partials(&self) -> PathBuf {
        self.dir.join("partial")
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }

    fn lock_path(&self) -> PathBuf {
        self.dir.join(".lock")
    }
}

fn at(path: &Path) -> impl Fn(io::Error) -> Error + '_ {
    |source| Error::File { path: path.to_owned(), source }
}

/// Indexes within indexes; real ones have two.
pub const MAX_DEPTH: u32 = 4;

#[cfg(test)]
mod tests;
