//! What is remembered of a container beyond its machine's life and this program's: a file of its own, written whole or not at all.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use wire::handshake::LinkKey;
use wire::spec::{About, Spec};
use wire::vmx::Dictionary;

use super::state::State;
use crate::maker::Made;
use crate::whole::{self, Lasts, if_there};

/// What is remembered.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The VM's id, from which its link's key follows.
    pub(crate) vm: String,
    pub(crate) name: String,
    /// Nanoseconds since 1970.
    pub(crate) created_ns: u64,
    pub(crate) state: State,
    /// The guest's own spec, as the text of a VMX dictionary without the link's key. Its environment may hold secrets: the file is its owner's alone.
    #[serde(default)]
    pub(crate) spec: Option<String>,
    /// What its machine is made of, if this host makes it.
    #[serde(default)]
    pub(crate) made: Option<Arc<Made>>,
    /// What this host remembers of the machine that it makes.
    #[serde(default)]
    pub(crate) power: Power,
}

/// What is remembered of a machine that this host powers on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Power {
    /// It was powered on, and nobody has seen its process run yet.
    pub(crate) starting: bool,
    /// Its process has run.
    pub(crate) has_run: bool,
    /// Its user wanted it to end: docker's `HasBeenManuallyStopped`.
    pub(crate) stopped: bool,
    /// How often it was powered on again since its user did.
    pub(crate) restarts: u32,
}

/// What the guest was asked to be, read from its own words.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) spec: Spec,
    pub(crate) about: About,
}

/// Why a record cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} is no record of a container: {source}; remove its directory to forget the container")]
    Malformed { path: PathBuf, source: serde_json::Error },
    #[error("cannot write {path}: {source}")]
    Write { path: PathBuf, source: io::Error },
}

impl fmt::Debug for Record {
    /// Without the spec's text, whose environment may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Record { vm, name, created_ns, state, spec: _, made, power } = self;
        f.debug_struct("Record")
            .field("vm", vm)
            .field("name", name)
            .field("created_ns", created_ns)
            .field("state", state)
            .field("made", made)
            .field("power", power)
            .finish_non_exhaustive()
    }
}

impl Record {
    /// Reads the record of the container that has this directory; none where there is none.
    pub(super) fn read(dir: &Path) -> Result<Option<Record>, RecordError> {
        let path = dir.join(FILE);
        let bytes = match if_there(fs::read(&path)) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(None),
            Err(source) => return Err(RecordError::Read { path, source }),
        };
        serde_json::from_slice(&bytes).map(Some).map_err(|source| RecordError::Malformed { path, source })
    }

    /// Removes it. What else is in the directory is nobody's then.
    pub(super) fn remove(dir: &Path) -> io::Result<()> {
        if_there(fs::remove_file(dir.join(FILE)))?;
        File::open(dir)?.sync_all()
    }

    /// Writes it. Whoever reads it, also after a loss of power, finds this one or the one before.
    pub(super) fn write(&self, dir: &Path) -> Result<(), RecordError> {
        let path = dir.join(FILE);
        let written = || whole::write(&path, &serde_json::to_vec(self)?, Lasts::Always);
        let written = match written() {
            // what was kept for this is given up: how a container has ended is worth more than what is kept
            Err(error) if error.kind() == io::ErrorKind::StorageFull && give_up(dir) => written(),
            written => written,
        };
        written.map_err(|source| RecordError::Write { path: path.clone(), source })
    }
}

/// Takes room on the disk for records that must be written when it is full. `dir` is the containers'.
pub(super) fn keep_room(dir: &Path) {
    let path = dir.join(RESERVE);
    let is_there = fs::metadata(&path).is_ok_and(|it| it.len() == ROOM as u64);
    if !is_there && fs::write(&path, [0xff; ROOM]).is_err() {
        // half of it is no use
        let _none = fs::remove_file(&path);
    }
}

/// Gives up what is kept; false where nothing is.
fn give_up(container: &Path) -> bool {
    container.parent().is_some_and(|dir| fs::remove_file(dir.join(RESERVE)).is_ok())
}

impl Told {
    /// Reads a guest's own words. None where they are not understood: a later guest may know more than this host.
    pub(super) fn parse(text: &str) -> Option<Told> {
        let dictionary = Dictionary::parse(text).ok()?;
        let about = wire::guestinfo::about(&dictionary);
        // its key is not told, and nobody here asks the spec for it
        let spec = wire::guestinfo::read_with_key(&dictionary, &LinkKey::new([0; 32])).ok()?;
        Some(Told { spec, about })
    }
}

const FILE: &str = "container.json";
/// Beside the containers' directories.
const RESERVE: &str = "reserve";
/// Some records: a record is a few blocks.
const ROOM: usize = 256 * 1024;
