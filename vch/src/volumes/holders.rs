//! Which machine has which volume, for as long as it is on.
//!
//! It decides that one machine writes to a volume or several read it, and who is named to the one that has to wait. Against other programs the volumes'
//! locks count; this table knows names.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use super::store::{Store, VolumeError};
use super::{foreign, options::Kind};
use crate::lock::locked;

/// The volumes of a host, and who has them.
#[derive(Debug)]
pub(crate) struct Volumes {
    pub(crate) store: Store,
    /// By volume.
    holders: Mutex<BTreeMap<String, Vec<Holder>>>,
    freed: watch::Sender<()>,
}

/// A machine that has a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Holder {
    /// The container's id.
    container: String,
    read_only: bool,
}

/// What a machine wants to mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    Volume {
        name: String,
        read_only: bool,
    },
    /// A disk image of the user's.
    File {
        path: std::path::PathBuf,
        read_only: bool,
    },
}

/// A machine's volumes are its own until this is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    volumes: Arc<Volumes>,
    container: String,
    _locks: Vec<File>,
}

/// Why a machine cannot have what it wants.
#[derive(Debug)]
pub(crate) enum Denied {
    /// Another container's machine has it.
    By {
        volume: String,
        container: String,
    },
    Otherwise(VolumeError),
}

impl<E: Into<VolumeError>> From<E> for Denied {
    fn from(error: E) -> Denied {
        Denied::Otherwise(error.into())
    }
}

impl Volumes {
    pub(crate) fn new(store: Store) -> Arc<Volumes> {
        Arc::new(Volumes { store, holders: Mutex::default(), freed: watch::Sender::new(()) })
    }

    /// Hears when a machine has let go of its volumes.
    pub(crate) fn freed(&self) -> watch::Receiver<()> {
        self.freed.subscribe()
    }

    /// A machine has it.
    pub(crate) fn is_held(&self, volume: &str) -> bool {
        locked(&self.holders).contains_key(volume)
    }

    /// Takes all that a container's machine wants, or nothing. One that it wants twice, it may write to if it says so once.
    pub(crate) fn hold(self: &Arc<Self>, container: &str, wants: &[Want]) -> Result<Held, Denied> {
        let mut volumes: BTreeMap<&str, bool> = BTreeMap::new();
        let mut files: BTreeMap<&std::path::Path, bool> = BTreeMap::new();
        for want in wants {
            match want {
                Want::Volume { name, read_only } => *volumes.entry(name).or_insert(true) &= read_only,
                Want::File { path, read_only } => *files.entry(path).or_insert(true) &= read_only,
            }
        }
        let (mut locks, mut read) = (Vec::new(), Vec::new());
        let mut holders = locked(&self.holders);
        for (&name, &read_only) in &volumes {
            // what is no disk, any number of machines share
            if !matches!(self.store.find(name)?.kind(), Kind::Disk(_)) {
                continue;
            }
            let others = holders.get(name).into_iter().flatten();
            if let Some(other) = others.clone().find(|other| !(read_only && other.read_only)) {
                return Err(Denied::By { volume: name.into(), container: other.container.clone() });
            }
            locks.push(self.store.take(name, read_only)?);
            if read_only {
                read.push(name);
            }
        }
        for (path, read_only) in files {
            locks.push(foreign(path, read_only)?.2);
        }
        for (name, read_only) in volumes {
            holders.entry(name.into()).or_default().push(Holder { container: container.into(), read_only });
        }
        drop(holders);
        let held = Held { volumes: self.clone(), container: container.into(), _locks: locks };
        // nobody writes to it any more
        for name in read {
            self.store.settle(name)?;
        }
        Ok(held)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // before who waits for them is told
        self._locks.clear();
        let mut holders = locked(&self.volumes.holders);
        holders.retain(|_, all| {
            all.retain(|holder| holder.container != self.container);
            !all.is_empty()
        });
        drop(holders);
        self.volumes.freed.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use super::super::store::Wanted;
    use super::*;

    #[test]
    fn one_machine_writes_or_many_read_and_the_other_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let volumes = Volumes::new(Store::open(dir.path()).unwrap());
        for name in ["data", "more"] {
            volumes.store.make(name, &Wanted::default()).unwrap();
        }
        let want = |name: &str, read_only| Want::Volume { name: name.into(), read_only };
        let hold = |container: &str, wants: &[Want]| match volumes.hold(container, wants) {
            Ok(held) => Ok(held),
            Err(Denied::By { volume, container }) => Err(format!("{volume} {container}")),
            Err(Denied::Otherwise(error)) => Err(error.to_string()),
        };
        let freed = volumes.freed();
        let web = hold("web", &[want("data", true), want("data", false)]).unwrap();
        assert_eq!(hold("db", &[want("more", false), want("data", true)]).unwrap_err(), "data web");
        // what it would have had is not held
        let more = hold("other", &[want("more", false)]).unwrap();
        drop((web, more));
        assert!(freed.has_changed().unwrap());
        let readers = (hold("a", &[want("data", true)]).unwrap(), hold("b", &[want("data", true)]).unwrap());
        assert_eq!(hold("c", &[want("data", false)]).unwrap_err(), "data a");
        drop(readers);
        assert_eq!(hold("c", &[want("none", false)]).unwrap_err(), "get none: no such volume");
        let elsewhere = volumes.store.take("data", false).unwrap();
        assert!(hold("c", &[want("data", true)]).unwrap_err().contains("another virtual machine"));
        drop(elsewhere);
        hold("c", &[want("data", false)]).unwrap();
    }
}
