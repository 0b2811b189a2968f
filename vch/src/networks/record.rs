//! What is remembered of a network: a file of its own, written whole or not at all.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::addresses::Pool;
use crate::whole::{self, Lasts, if_there};

/// A network, as it was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// Nanoseconds since 1970.
    pub(crate) created_ns: u64,
    /// It leads nowhere but to its members.
    pub(crate) internal: bool,
    pub(crate) attachable: bool,
    pub(crate) options: BTreeMap<String, String>,
    pub(crate) ipam_options: BTreeMap<String, String>,
    pub(crate) labels: BTreeMap<String, String>,
}

/// What a network is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// A switch in this program.
    Bridge(Pool),
    /// No card at all.
    Null,
    /// The host's own, which a machine cannot share.
    Host,
}

impl Record {
    /// Docker's word for what carries it.
    pub(crate) fn driver(&self) -> &'static str {
        match self.kind {
            Kind::Bridge(_) => "bridge",
            Kind::Null => "null",
            Kind::Host => "host",
        }
    }

    pub(crate) fn pool(&self) -> Option<&Pool> {
        match &self.kind {
            Kind::Bridge(pool) => Some(pool),
            Kind::Null | Kind::Host => None,
        }
    }

    /// It is there without anybody's making it.
    pub(crate) fn is_predefined(&self) -> bool {
        is_predefined(&self.name)
    }
}

/// Docker's names.
pub(crate) fn is_predefined(name: &str) -> bool {
    ["bridge", "none", "host", "default"].contains(&name)
}

/// Writes a value as a file that only its owner may read. Whoever reads it finds this one or the one before.
pub(super) fn write(path: &Path, value: &impl Serialize, lasts: Lasts) -> Result<()> {
    let written = || whole::write(path, &serde_json::to_vec(value)?, lasts);
    written().with_context(|| format!("cannot write {}", path.display()))
}

/// Reads it; none where there is none.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let bytes = if_there(fs::read(path)).with_context(|| format!("cannot read {}", path.display()))?;
    let read = bytes.map(|bytes| serde_json::from_slice(&bytes)).transpose();
    read.with_context(|| format!("{} is not whole", path.display()))
}

/// Removes it, if it is there.
pub(super) fn remove(path: &Path) -> Result<()> {
    if_there(fs::remove_file(path)).with_context(|| format!("cannot remove {}", path.display()))?;
    Ok(())
}
