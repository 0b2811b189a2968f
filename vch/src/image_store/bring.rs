//! Images that come: out of archives, and from registries.
//!
//! Whatever comes is read once to its end before it gets a name, and its disks are made: what is found under a name can be run.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result};
use iso_builder::content::document::Descriptor;
use iso_builder::content::{Keep, Named};
use iso_builder::oci::{self, Digest, Image, TakeError, Taking};

use super::names::normal;
use super::{ImageStore, PARENT, REMOVED, SIZES, StoredImage};
use crate::lock::locked;
use crate::timestamp::now_ns;

/// An image that has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Brought {
    pub(crate) id: String,
    /// As docker shows them.
    pub(crate) names: Vec<String>,
    /// Names of these that another image had, and its id.
    pub(crate) renamed: Vec<(String, String)>,
}

/// What is done on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Layer(Taking),
}

/// Why an image does not come.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BringError {
    #[error("{}", told(.0))]
    Archive(#[from] TakeError),
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
}

/// All that an error says, cause after cause, on one line.
fn told(error: &TakeError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        // an error that is shown as its cause is one with it
        if !text.ends_with(&cause.to_string()) {
            text = format!("{text}: {cause}");
        }
        source = cause.source();
    }
    text
}

impl ImageStore {
    /// Takes all images of an archive of `docker save`, or of an OCI layout in a tar. It blocks.
    pub(crate) fn load(&self, archive: File, tell: &mut dyn FnMut(Step)) -> Result<Vec<Brought>, BringError> {
        let brought = self.holding(|| {
            let dir = self.content.dir();
            let mut tell = |taking| tell(Step::Layer(taking));
            let taken = oci::take(archive, Path::new(SHOWN), dir, &self.content, &mut tell)?;
            let mut all = Vec::new();
            for taken in taken {
                let names: Vec<String> = taken.names.iter().filter_map(|name| normal(name)).collect();
                let sizes = self.make_ready(&taken.image, names.first().map(String::as_str))?;
                all.push(New { id: taken.config, manifest: taken.manifest, sizes, names, parent: None });
            }
            Ok(self.enter(&all)?)
        });
        // whether it came or not: what it has left is nobody's
        self.collect()?;
        brought
    }

    /// A file without a name for what comes.
    pub(crate) fn spool(&self) -> std::io::Result<File> {
        tempfile::tempfile_in(self.content.dir())
    }

    /// Does what brings blobs, of which none is taken for nobody's meanwhile.
    pub(super) fn holding<T, E: From<anyhow::Error>>(&self, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let _held = self.content.hold().map_err(anyhow::Error::from)?;
        work()
    }

    /// Reads an image to its end, and has its disks made; the result is the bytes in each layer.
    pub(super) fn make_ready(&self, image: &Image, name: Option<&str>) -> Result<Vec<u64>, anyhow::Error> {
        let sizes = image.sizes(self.content.dir())?;
        let again = oci::open_manifest(self.content.dir(), &Digest::parse(&image.digest).context("no digest")?)?;
        let name = name.unwrap_or(&image.digest);
        crate::images::Image::stored(again, name, &self.cache, Default::default())?.layer_disks()?;
        Ok(sizes)
    }

    /// Enters images with their names, all at once.
    pub(super) fn enter(&self, all: &[New]) -> Result<Vec<Brought>> {
        let _changes = locked(&self.changes);
        let before = self.list();
        let now = now_ns() / 1_000_000_000;
        self.edit(|index| {
            for new in all {
                new.enter(index, now);
            }
        })?;
        let brought = all.iter().map(|new| {
            let names: Vec<String> = new.names.iter().map(|name| super::familiar(name)).collect();
            let id = new.id.to_string();
            let had = |name: &String| {
                let other = before.iter().find(|image| image.id != id && image.names.contains(name))?;
                Some((name.clone(), other.id.clone()))
            };
            Brought { renamed: names.iter().filter_map(had).collect(), id, names }
        });
        Ok(brought.collect())
    }

    /// Gives an image another name, and takes it from what had it.
    pub(crate) fn tag(&self, image: &StoredImage, full: &str) -> Result<()> {
        let _changes = locked(&self.changes);
        let now = now_ns() / 1_000_000_000;
        self.edit(|index| enter_name(index, full, &image.manifest, now))
    }

    /// Removes blobs that no image has. While something comes nothing is removed, and what comes collects when it is over.
    pub(crate) fn collect(&self) -> Result<()> {
        self.content.collect_if_idle(Keep::default(), now_ns() / 1_000_000_000)?;
        Ok(())
    }
}

/// An image that is whole and has no entry yet.
#[derive(Debug)]
pub(super) struct New {
    pub(super) id: Digest,
    pub(super) manifest: Descriptor,
    pub(super) sizes: Vec<u64>,
    /// In full.
    pub(super) names: Vec<String>,
    pub(super) parent: Option<String>,
}

impl New {
    fn enter(&self, index: &mut Vec<Named>, now: u64) {
        let id = self.id.to_string();
        let manifest = match index.iter_mut().find(|named| named.name == id) {
            Some(named) => {
                // removed by force, and here again
                named.descriptor.annotations.remove(REMOVED);
                named.descriptor.clone()
            }
            None => {
                let sizes: Vec<String> = self.sizes.iter().map(u64::to_string).collect();
                let mut descriptor = self.manifest.clone();
                descriptor.annotations = [(SIZES.to_owned(), sizes.join(","))].into();
                descriptor.annotations.extend(self.parent.clone().map(|parent| (PARENT.to_owned(), parent)));
                index.push(Named { name: id, descriptor: descriptor.clone(), used: now });
                descriptor
            }
        };
        for name in &self.names {
            enter_name(index, name, &manifest, now);
        }
    }
}

fn enter_name(index: &mut Vec<Named>, full: &str, manifest: &Descriptor, now: u64) {
    index.retain(|named| named.name != full);
    let descriptor = Descriptor { annotations: Default::default(), platform: None, ..manifest.clone() };
    index.push(Named { name: full.to_owned(), descriptor, used: now });
}

/// What messages call an archive that came over the wire.
const SHOWN: &str = "the archive";
