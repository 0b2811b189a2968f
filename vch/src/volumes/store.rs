//! Volumes with names: a directory each, with a record and a disk.
//!
//! ```text
//! volumes/NAME/   volume.json  what was asked for     (a volume that an earlier version made has none)
//!                 disk.raw     its file system        (none, if it is memory or a file server's)
//!                 lock         held while a machine has it
//! volumes/.lock   held while one is made, taken or removed
//! ```
//!
//! It decides when a volume is there: from the renaming of its directory to the next one. Who may use it is decided in [`super::holders`].

use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, anyhow};
use iso_builder::ext4;
use serde::{Deserialize, Serialize};

use super::disk;
use super::options::{self, Kind, Options};
use crate::ids::is_name;
use crate::state::make_dir;
use crate::timestamp::now_ns;
use crate::whole::if_there;

/// The volumes in a directory. Several programs may have it.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    dir: PathBuf,
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stored {
    pub(crate) name: String,
    pub(crate) driver: String,
    pub(crate) options: Options,
    pub(crate) labels: Options,
    /// Nanoseconds since 1970.
    pub(crate) created_ns: u64,
    /// Bytes of its disk; none if it has no disk.
    pub(crate) size: Option<u64>,
}

/// What a new volume is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) options: Options,
    pub(crate) labels: Options,
}

/// Why a volume cannot be had: docker's words.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VolumeError {
    #[error("get {0}: no such volume")]
    Unknown(String),
    #[error("create {0}: volume name is too short, names should be at least two alphanumeric characters")]
    ShortName(String),
    #[error(
        "create {0}: {0:?} includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you \
         intended to pass a host directory, use absolute path"
    )]
    Name(String),
    #[error("create {name}: {why}")]
    Option { name: String, why: String },
    /// By a machine.
    #[error("{0}")]
    InUse(String),
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
}

impl Stored {
    /// What it is made of.
    pub(crate) fn kind(&self) -> Kind {
        // they were read when it was made
        options::kind(&self.options).unwrap_or(Kind::Disk(None))
    }

    /// Made for one container, which did not name it.
    pub(crate) fn is_anonymous(&self) -> bool {
        self.labels.contains_key(ANONYMOUS)
    }
}

impl Store {
    /// Those in `dir`, which is made if it does not exist. What another program left half done is done away with.
    pub(crate) fn open(dir: &Path) -> Result<Store> {
        make_dir(dir)?;
        let store = Store { dir: dir.to_owned() };
        let _turn = store.turn()?;
        for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(BESIDE) {
                remove_all(&entry.path())?;
            }
        }
        Ok(store)
    }

    /// The volume of this name.
    pub(crate) fn find(&self, name: &str) -> Result<Stored, VolumeError> {
        self.read(name)?.ok_or_else(|| VolumeError::Unknown(name.to_owned()))
    }

    /// All of them, in the order of their names.
    pub(crate) fn list(&self) -> Result<Vec<Stored>> {
        let entries = fs::read_dir(&self.dir).with_context(|| format!("cannot read {}", self.dir.display()))?;
        let mut names: Vec<String> =
            entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.retain(|name| check_name(name, 1).is_ok());
        names.sort();
        let all = names.iter().map(|name| self.read(name)).collect::<Result<Vec<_>>>()?;
        Ok(all.into_iter().flatten().collect())
    }

    /// The volume of this name, made if there is none. The second is whether it was.
    pub(crate) fn make(&self, name: &str, wanted: &Wanted) -> Result<(Stored, bool), VolumeError> {
        check_name(name, 1)?;
        let kind = options::kind(&wanted.options).map_err(|why| VolumeError::Option { name: name.into(), why })?;
        let _turn = self.turn()?;
        if let Some(there) = self.read(name)? {
            return Ok((there, false));
        }
        let beside = self.dir.join(format!("{BESIDE}new"));
        remove_all(&beside)?;
        make_dir(&beside)?;
        let size = match kind {
            Kind::Disk(size) => {
                let size = size.unwrap_or(disk::SIZE);
                disk::make(&beside.join(DISK), name, Some(size))?;
                Some(size)
            }
            Kind::Memory { .. } | Kind::Server { .. } => None,
        };
        let Wanted { options, labels } = wanted.clone();
        let (name, driver) = (name.to_owned(), DRIVER.to_owned());
        let stored = Stored { name, driver, options, labels, created_ns: now_ns(), size };
        let dir = self.dir(&stored.name);
        let published = || {
            let mut file = File::create_new(beside.join(RECORD))?;
            file.write_all(&serde_json::to_vec_pretty(&stored)?)?;
            file.sync_all()?;
            File::open(&beside)?.sync_all()?;
            // an earlier version made the directory before the disk
            if dir.exists() {
                fs::remove_dir_all(&dir)?;
            }
            fs::rename(&beside, &dir)?;
            File::open(&self.dir)?.sync_all()
        };
        published().with_context(|| format!("cannot make volume {} in {}", stored.name, dir.display()))?;
        Ok((stored, true))
    }

    /// Removes a volume that no machine has, and says how many bytes of the host's it took.
    pub(crate) fn remove(&self, name: &str) -> Result<u64, VolumeError> {
        let _turn = self.turn()?;
        if self.read(name)?.is_none() {
            return Err(VolumeError::Unknown(name.to_owned()));
        }
        let _lock = self.lock(name, false)?;
        let size = self.used(name);
        let (dir, beside) = (self.dir(name), self.dir.join(format!("{BESIDE}old")));
        remove_all(&beside)?;
        fs::rename(&dir, &beside).with_context(|| format!("cannot remove {}", dir.display()))?;
        remove_all(&beside)?;
        Ok(size)
    }

    /// Takes a volume for a machine, for as long as the file is open. Several may read what nobody writes.
    pub(crate) fn take(&self, name: &str, read_only: bool) -> Result<File, VolumeError> {
        let _turn = self.turn()?;
        self.lock(name, read_only)
    }

    fn lock(&self, name: &str, read_only: bool) -> Result<File, VolumeError> {
        let path = self.dir(name).join(LOCK);
        let opened = File::options().create(true).truncate(false).write(true).open(&path);
        let lock = opened.with_context(|| format!("cannot open {}", path.display()))?;
        take(&lock, read_only, &format!("volume {name}"))?;
        Ok(lock)
    }

    /// Has a disk that is taken to be read be one that can be: what its last machine could not unmount, no kernel that may only read it mounts.
    pub(crate) fn settle(&self, name: &str) -> Result<(), VolumeError> {
        // one at a time, as several may take it at once
        let _turn = self.turn()?;
        let disk = self.disk(name);
        let settle = || Ok(ext4::settle(&File::options().read(true).write(true).open(&disk)?)?);
        settle().map(drop).map_err(|error: anyhow::Error| {
            error
                .context(format!(
                    "volume {name} was not unmounted, and cannot be read as it is: mount it once without :ro"
                ))
                .into()
        })
    }

    /// The file of its disk.
    pub(crate) fn disk(&self, name: &str) -> PathBuf {
        self.dir(name).join(DISK)
    }

    /// Bytes that it takes of the host's disk.
    pub(crate) fn used(&self, name: &str) -> u64 {
        fs::metadata(self.disk(name)).map(|meta| meta.blocks() * 512).unwrap_or_default()
    }

    fn dir(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn read(&self, name: &str) -> Result<Option<Stored>> {
        // no other names a directory of ours
        if check_name(name, 1).is_err() {
            return Ok(None);
        }
        let path = self.dir(name).join(RECORD);
        match if_there(fs::read(&path)).with_context(|| format!("cannot read {}", path.display()))? {
            Some(bytes) => {
                let read = serde_json::from_slice(&bytes);
                read.map(Some).with_context(|| format!("{} is no record of a volume", path.display()))
            }
            None => Ok(self.found(name)),
        }
    }

    /// One that an earlier version made, which wrote no records.
    fn found(&self, name: &str) -> Option<Stored> {
        let meta = fs::metadata(self.disk(name)).ok()?;
        let made = meta.created().or_else(|_| meta.modified()).ok()?;
        let since = made.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Some(Stored {
            name: name.into(),
            driver: DRIVER.into(),
            options: Options::default(),
            labels: Options::default(),
            created_ns: u64::try_from(since.as_nanos()).unwrap_or_default(),
            size: Some(meta.len()),
        })
    }

    /// Nobody else makes, takes or removes one meanwhile.
    fn turn(&self) -> Result<File> {
        let path = self.dir.join(TURN);
        let opened = File::options().create(true).truncate(false).write(true).open(&path);
        let file = opened.with_context(|| format!("cannot open {}", path.display()))?;
        file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
        Ok(file)
    }
}

/// Docker's rule for names; of `least` characters.
pub(crate) fn check_name(name: &str, least: usize) -> Result<(), VolumeError> {
    match is_name(name) {
        true if name.len() < least => Err(VolumeError::ShortName(name.into())),
        true => Ok(()),
        false => Err(VolumeError::Name(name.into())),
    }
}

/// Locks what one machine may write to, or several may read.
pub(super) fn take(lock: &File, read_only: bool, what: &str) -> Result<(), VolumeError> {
    match if read_only { lock.try_lock_shared() } else { lock.try_lock() } {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(VolumeError::InUse(format!(
            "{what} is in use by another virtual machine: only machines that all mount it read-only can share it"
        ))),
        Err(TryLockError::Error(error)) => Err(anyhow!(error).context(format!("cannot lock {what}")).into()),
    }
}

fn remove_all(dir: &Path) -> Result<()> {
    if_there(fs::remove_dir_all(dir)).with_context(|| format!("cannot remove {}", dir.display()))?;
    Ok(())
}

/// The label of a volume that was made for one container: docker's.
pub(crate) const ANONYMOUS: &str = "com.docker.volume.anonymous";
/// The one that there is, by docker's name for it.
pub(crate) const DRIVER: &str = "local";
const RECORD: &str = "volume.json";
const DISK: &str = "disk.raw";
const LOCK: &str = "lock";
/// In the store's directory.
const TURN: &str = ".lock";
/// Begins the names of what is no volume yet, or not any more.
const BESIDE: &str = ".beside-";

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("volumes")).unwrap();
        (dir, store)
    }

    #[test]
    fn a_volume_is_made_once_and_found_again() {
        let (_dir, store) = store();
        let pair = |name: &str, value: &str| Options::from([(name.to_owned(), value.to_owned())]);
        let wanted = Wanted { options: pair("size", "16m"), labels: pair("tier", "db") };
        let (made, is_new) = store.make("data", &wanted).unwrap();
        assert!(is_new && made.size == Some(16 << 20) && !made.is_anonymous());
        assert_eq!(store.make("data", &Wanted::default()).unwrap(), (made.clone(), false));
        let again = Store::open(&store.dir).unwrap();
        assert_eq!(again.list().unwrap(), std::slice::from_ref(&made));
        assert_eq!(fs::metadata(again.disk("data")).unwrap().len(), 16 << 20);
        let used = again.used("data");
        assert_eq!(again.remove("data").unwrap(), used);
        assert!(matches!(again.find("data"), Err(VolumeError::Unknown(_))) && again.list().unwrap().is_empty());
        assert!(matches!(again.remove("data"), Err(VolumeError::Unknown(_))));
    }

    #[test]
    fn what_is_half_made_or_half_removed_is_nowhere() {
        let (_dir, store) = store();
        for name in [".beside-new", ".beside-old"] {
            fs::create_dir(store.dir.join(name)).unwrap();
            fs::write(store.dir.join(name).join(DISK), "half").unwrap();
        }
        // an earlier version made the directory first
        fs::create_dir(store.dir.join("early")).unwrap();
        fs::write(store.dir.join("early").join(LOCK), "").unwrap();
        let store = Store::open(&store.dir).unwrap();
        assert!(store.list().unwrap().is_empty() && !store.dir.join(".beside-new").exists());
        assert!(store.make("early", &Wanted::default()).unwrap().1);
    }

    #[test]
    fn volumes_of_earlier_versions_are_read() {
        let (_dir, store) = store();
        fs::create_dir(store.dir.join("old")).unwrap();
        disk::make(&store.disk("old"), "old", Some(16 << 20)).unwrap();
        let old = store.find("old").unwrap();
        assert!(old.size == Some(16 << 20) && old.created_ns > 0 && old.kind() == Kind::Disk(None));
        store.remove("old").unwrap();
    }

    #[test]
    fn one_writes_or_many_read() {
        let (_dir, store) = store();
        store.make("data", &Wanted::default()).unwrap();
        let open = |read_only| store.take("data", read_only).map_err(|error| error.to_string());
        let writer = open(false).unwrap();
        let error =
            "volume data is in use by another virtual machine: only machines that all mount it read-only can share it";
        assert_eq!(open(false).unwrap_err(), error);
        assert_eq!(open(true).unwrap_err(), error);
        assert_eq!(store.remove("data").unwrap_err().to_string(), error);
        drop(writer);
        let readers = (open(true).unwrap(), open(true).unwrap());
        assert_eq!(open(false).unwrap_err(), error);
        drop(readers);
        open(false).unwrap();
    }

    #[test]
    fn names_are_dockers() {
        let (dir, store) = store();
        // what lies elsewhere is no volume, whatever a client calls it
        let elsewhere = dir.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        for place in [dir.path(), &elsewhere, &store.dir] {
            fs::write(place.join(DISK), "a disk").unwrap();
        }
        for name in ["", "..", ".", "../elsewhere", ".lock", "-a", "a/b", "a b", "ä"] {
            assert!(matches!(store.make(name, &Wanted::default()), Err(VolumeError::Name(_))), "{name}");
            assert!(matches!(store.find(name), Err(VolumeError::Unknown(_))), "{name}");
            assert!(matches!(store.remove(name), Err(VolumeError::Unknown(_))), "{name}");
        }
        assert!(elsewhere.join(DISK).exists() && store.dir.join(DISK).exists());
        assert!(matches!(check_name("a", 2), Err(VolumeError::ShortName(_))));
        assert!(check_name("a1", 2).is_ok());
    }
}
