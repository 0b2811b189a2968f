//! Which images and blobs of a store may go, and their removal.
//!
//! Nothing is removed while somebody pulls: what comes has no name yet. Whoever has opened an image goes on reading it, since files that are open outlive their
//! names.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::path::Path;
use std::time::Duration;

use super::names::Named;
use super::partial::remove_if_same;
use super::{Error, Store, at};
use crate::oci::Digest;

/// What is to stay.
#[derive(Clone, Copy, Debug, Default)]
pub struct Keep {
    /// Only images that were used within this time.
    pub used_within: Option<Duration>,
    /// At most so many bytes of images, the most recently used first.
    pub bytes: Option<u64>,
}

/// What went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Names of images.
    pub images: Vec<String>,
    pub blobs: usize,
    /// Bytes that are free now.
    pub bytes: u64,
    /// Bytes that stay.
    pub kept: u64,
}

impl Store {
    /// Forgets images that are not to be kept, and removes every blob that no image has, and downloads that nobody took up for a day.
    pub fn collect(&self, keep: Keep, now: u64) -> Result<Collected, Error> {
        let path = self.lock_path();
        let lock = File::create(&path).map_err(at(&path))?;
        lock.lock().map_err(at(&path))?;
        self.collect_locked(keep, now)
    }

    /// The same, if nobody brings anything now: who does then collects afterwards.
    pub fn collect_if_idle(&self, keep: Keep, now: u64) -> Result<Option<Collected>, Error> {
        let path = self.lock_path();
        let lock = File::create(&path).map_err(at(&path))?;
        match lock.try_lock() {
            Ok(()) => self.collect_locked(keep, now).map(Some),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(at(&path)(error)),
        }
    }

    fn collect_locked(&self, keep: Keep, now: u64) -> Result<Collected, Error> {
        let (kept, gone) = self.divide(keep, now)?;
        if !gone.is_empty() {
            self.edit(|names| names.retain(|named| !gone.contains(&named.name)))?;
        }
        let mut collected = Collected { images: gone.into_iter().collect(), ..Collected::default() };
        for (path, name, len) in files(&self.blobs())? {
            // what is no digest is what a killed process left half-written
            if Digest::parse(&format!("sha256:{name}")).is_some_and(|digest| kept.contains(&digest)) {
                collected.kept += len;
                continue;
            }
            fs::remove_file(&path).map_err(at(&path))?;
            collected.blobs += 1;
            collected.bytes += len;
        }
        for (path, _, len) in files(&self.partials())? {
            let file = File::open(&path).map_err(at(&path))?;
            let old = file.metadata().and_then(|meta| meta.modified()).map_err(at(&path))?;
            let old = old.duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs());
            if now.saturating_sub(old) >= ABANDONED && file.try_lock().is_ok() {
                remove_if_same(&file, &path)?;
                collected.bytes += len;
            }
        }
        Ok(collected)
    }

    /// The blobs that stay, and the names that go.
    fn divide(&self, keep: Keep, now: u64) -> Result<(BTreeSet<Digest>, BTreeSet<String>), Error> {
        let mut names: Vec<Named> = self.names()?;
        names.sort_by_key(|named| std::cmp::Reverse(named.used));
        let (mut kept, mut gone, mut bytes) = (BTreeSet::new(), BTreeSet::new(), 0);
        for named in names {
            let parts = self.parts(&named)?;
            let more: u64 = parts.iter().filter(|(digest, _)| !kept.contains(*digest)).map(|(_, size)| size).sum();
            let old = keep.used_within.is_some_and(|limit| now.saturating_sub(named.used) > limit.as_secs());
            let large = keep.bytes.is_some_and(|limit| bytes + more > limit);
            if old || large {
                gone.insert(named.name);
            } else {
                kept.extend(parts.into_keys());
                bytes += more;
            }
        }
        Ok((kept, gone))
    }
}

fn files(dir: &Path) -> Result<Vec<(std::path::PathBuf, String, u64)>, Error> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).map_err(at(dir))? {
        let entry = entry.map_err(at(dir))?;
        let meta = entry.metadata().map_err(at(&entry.path()))?;
        if meta.is_file() {
            all.push((entry.path(), entry.file_name().to_string_lossy().into_owned(), meta.len()));
        }
    }
    Ok(all)
}

/// Seconds after which a broken download is taken for one that nobody wants any more.
const ABANDONED: u64 = 24 * 60 * 60;
