//! The containers that this host knows: what docker calls a container is a VM whose link has authenticated, now or some time ago.
//!
//! ```text
//! serve/vms   a VM has proved itself ──> Containers::arrived ──> keeper: its life, told as docker tells it
//!                                              │                   ├─ recorder: its output, on disk
//! api/        asks, by id, name or beginning ──┴─> Container ──────┴─ hub: the machine itself
//! ```
//!
//! It decides what a container is called and found by, and when it is forgotten. How it lives is [`keeper`]'s; what it writes, [`crate::journal`]'s.

mod container;
mod events;
mod health;
mod keeper;
mod power;
mod record;
mod state;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};

pub(crate) use self::container::{AbsentError, Container, Life};
pub(crate) use self::events::{Event, Events};
pub(crate) use self::health::{Check, verdict};
pub(crate) use self::record::Told;
pub(crate) use self::state::{Exited, Running, State, human};
use crate::hub::Hub;
use crate::ids;
use crate::lock::locked;
use crate::maker::{Made, MakeError};
use crate::state::{id_from, make_dir};

/// All containers of this host.
#[derive(Debug)]
pub(crate) struct Containers {
    dir: PathBuf,
    /// Bytes that a container's output may take on disk.
    journal_limit: u64,
    /// From a cut until a machine that has not come back counts as gone.
    lost_after: Duration,
    all: Mutex<BTreeMap<String, Arc<Container>>>,
    /// The ids of containers that are being written down, by their names.
    coming: Mutex<BTreeMap<String, String>>,
    pub(crate) events: Events,
}

/// Why there is no such container.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FindError {
    #[error("No such container: {0}")]
    Unknown(String),
    #[error("multiple IDs found with provided prefix: {0}")]
    Ambiguous(String),
}

/// Why a container cannot have a name.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NameError {
    #[error("Invalid container name ({0}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")]
    Invalid(String),
    #[error(
        "Conflict. The container name \"/{name}\" is already in use by container \"{id}\". You have to remove (or rename) that container to be able to reuse that name."
    )]
    Taken { name: String, id: String },
}

impl Containers {
    /// Those that are remembered in `dir`, which is made if it does not exist.
    #[cfg(test)]
    pub(crate) fn open(dir: &Path, journal_limit: u64) -> Result<Arc<Containers>> {
        Containers::open_with(dir, journal_limit, Duration::from_secs(60))
    }

    /// The same; a machine that has been away for `lost_after` is gone, but may come back all the same.
    pub(crate) fn open_with(dir: &Path, journal_limit: u64, lost_after: Duration) -> Result<Arc<Containers>> {
        make_dir(dir)?;
        let (dir_of, all, coming, events) = (dir.to_owned(), Mutex::default(), Mutex::default(), Events::new());
        let containers = Containers { dir: dir_of, journal_limit, lost_after, all, coming, events };
        let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
        for entry in entries {
            let path = entry.with_context(|| format!("cannot read {}", dir.display()))?.path();
            if !path.is_dir() {
                continue;
            }
            let id = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
            let Some(container) = Container::remembered(&id, &path, journal_limit)? else {
                // what was begun and never became a container, or is one no more
                clear(&id, &path);
                continue;
            };
            locked(&containers.all).insert(id, Arc::new(container));
        }
        record::keep_room(dir);
        Ok(Arc::new(containers))
    }

    /// Where they are remembered.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// From a cut until a machine that has not come back counts as gone.
    pub(crate) fn lost_after(&self) -> Duration {
        self.lost_after
    }

    /// Those that were there when an earlier serve ended are there still, or have gone meanwhile: their links tell, by coming or not.
    pub(crate) fn expect_links(self: &Arc<Self>) {
        for container in self.list() {
            tokio::spawn(keeper::expect(self.clone(), container));
        }
    }

    /// A VM has proved itself: it is a container, and kept as one from now on.
    pub(crate) fn arrived(self: &Arc<Self>, vm: &str, hub: Hub) -> Result<Arc<Container>> {
        let id = id_of(vm);
        let known = locked(&self.all).get(&id).cloned();
        let is_new = known.is_none();
        let container = match known {
            Some(container) => container,
            None => {
                let container = Arc::new(Container::new(&id, vm, &self.dir.join(&id), self.journal_limit)?);
                locked(&self.all).insert(id, container.clone());
                container
            }
        };
        tokio::spawn(keeper::keep(self.clone(), container.clone(), hub, is_new));
        Ok(container)
    }

    /// A container may have this name.
    pub(crate) fn check_name(&self, name: &str) -> Result<(), NameError> {
        self.is_free(&locked(&self.all), name)
    }

    fn is_free(&self, all: &BTreeMap<String, Arc<Container>>, name: &str) -> Result<(), NameError> {
        let has = all.values().find(|other| other.name() == name).map(|other| other.id.clone());
        match has.or_else(|| locked(&self.coming).get(name).cloned()) {
            _ if !is_name(name) => Err(NameError::Invalid(name.into())),
            Some(id) => Err(NameError::Taken { name: name.into(), id }),
            None => Ok(()),
        }
    }

    /// Writes down a container that is to have a machine of this host's. It blocks.
    pub(crate) fn create(&self, id: &str, name: &str, made: Made, told: &str) -> Result<Arc<Container>, MakeError> {
        {
            let all = locked(&self.all);
            self.is_free(&all, name)?;
            locked(&self.coming).insert(name.into(), id.into());
        }
        // others are found meanwhile: disks are slow
        let container = Container::created(id, name, &self.dir.join(id), (made, told), self.journal_limit);
        record::keep_room(&self.dir);
        let mut all = locked(&self.all);
        locked(&self.coming).remove(name);
        let container = Arc::new(container?);
        all.insert(id.into(), container.clone());
        Ok(container)
    }

    /// Takes a container whose machine this host makes to a state, and tells.
    pub(crate) fn pass(&self, container: &Arc<Container>, state: State) {
        keeper::pass(self, container, state);
    }

    /// All of them, the latest first.
    pub(crate) fn list(&self) -> Vec<Arc<Container>> {
        let mut all: Vec<_> = locked(&self.all).values().cloned().collect();
        all.sort_by_key(|container| std::cmp::Reverse(container.created_ns()));
        all
    }

    /// The container of this id, of this name, or the only one whose id begins so.
    pub(crate) fn find(&self, name: &str) -> Result<Arc<Container>, FindError> {
        let all = locked(&self.all);
        let bare = name.strip_prefix('/').unwrap_or(name);
        let exact = all.get(bare).or_else(|| all.values().find(|container| container.name() == bare));
        if let Some(container) = exact {
            return Ok(container.clone());
        }
        let mut fitting = all.iter().filter(|(id, _)| !bare.is_empty() && id.starts_with(bare));
        match (fitting.next(), fitting.next()) {
            (Some((_, only)), None) => Ok(only.clone()),
            (None, _) => Err(FindError::Unknown(name.into())),
            (Some(_), Some(_)) => Err(FindError::Ambiguous(name.into())),
        }
    }

    /// The container that a VM is; none if the VM has never proved itself.
    pub(crate) fn of_vm(&self, vm: &str) -> Option<Arc<Container>> {
        locked(&self.all).get(&id_of(vm)).cloned()
    }

    /// Gives a container another name, which lasts.
    pub(crate) async fn rename(&self, container: &Arc<Container>, name: &str) -> Result<(), NameError> {
        let name = name.strip_prefix('/').unwrap_or(name);
        {
            let all = locked(&self.all);
            self.is_free(&all, name)?;
            container.set_name(name);
        }
        let _written = container.save().await;
        Ok(())
    }

    /// The name that a container asks for, if nobody has it, or else one that nobody can have asked for.
    fn free_name(&self, container: &Container, wanted: &str) -> String {
        let all = locked(&self.all);
        let taken = |name: &str| {
            locked(&self.coming).contains_key(name)
                || all.values().any(|other| other.id != container.id && other.name() == name)
        };
        match is_name(wanted) && !taken(wanted) {
            true => wanted.into(),
            false => ids::short(&container.id).into(),
        }
    }

    /// Forgets a container and all that it wrote. One whose machine still runs comes back when its link does: stop it first.
    pub(crate) async fn remove(&self, container: &Arc<Container>) -> Result<()> {
        let result = container.discard().await;
        record::keep_room(&self.dir);
        locked(&self.all).remove(&container.id);
        self.events.container(container, "destroy", &[]);
        // only now is its name free
        container.removed();
        result
    }
}

/// Removes a directory that holds no container. What is not of this program's making stays.
fn clear(id: &str, path: &Path) {
    if id_of(id) == id
        && let Err(error) = fs::remove_dir_all(path)
    {
        crate::serve::say(&format!("{} is no container, and cannot be removed: {error}", path.display()));
    }
}

/// Docker's form of a VM's id.
fn id_of(vm: &str) -> String {
    let is_id = vm.len() == ID && vm.chars().all(|char| matches!(char, '0'..='9' | 'a'..='f'));
    match is_id {
        true => vm.into(),
        false => id_from(vm),
    }
}

/// Docker's form of a network's id: its name is all that is known of it.
pub(crate) fn network_id(name: &str) -> String {
    id_from(format!("network {name}"))
}

/// What vSphere Integrated Containers called the networks that are not its own.
pub(crate) fn network_driver(name: &str) -> &'static str {
    if name == "bridge" { "bridge" } else { "external" }
}

/// Docker's rule for names.
fn is_name(name: &str) -> bool {
    name.len() > 1 && ids::is_name(name)
}

/// Characters of an id.
const ID: usize = 64;

#[cfg(test)]
pub(crate) mod tests;
