//! Docker's images: what was loaded, pulled, imported or committed, by id and by name.
//!
//! ```text
//! STATE/images: an OCI layout (iso_builder::content)
//! index.json   sha256:CONFIG -> manifest      the image itself, with what a manifest does not say: its parent, the sizes of its layers
//!              docker.io/library/x:1 -> manifest   a tag      docker.io/library/x@sha256:MANIFEST -> manifest   a digest that a registry gave it
//! blobs/       manifest, config, layers
//! disks/       of the layers: links into the cache
//! ```
//!
//! One rename of `index.json` brings an image and its names, or takes them away; what has no name in it is nobody's, and collected. It decides what an image is called
//! and which files are its own. How its layers become disks: [`crate::images`].

mod bring;
mod build;
mod changes;
mod disks;
mod names;
mod pull;
mod remove;
mod save;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use iso_builder::content::document::Descriptor;
use iso_builder::content::{Named, Store};
use iso_builder::oci::{self, Digest};
use iso_builder::recipe::layer_disk;
use serde_json::Value;

pub(crate) use self::bring::{Brought, Step};
pub(crate) use self::build::Deed;
pub(crate) use self::changes::{ChangeError, apply as apply_change};
pub(crate) use self::names::{familiar, normal, repository};
pub(crate) use self::pull::{PullError, credentials, settings};
pub(crate) use self::remove::{Removal, RemoveError, User};
use crate::images;
use crate::lock::locked;
use crate::plan::ImageConfig;
use crate::serve::say;
use crate::state::make_dir;
use crate::timestamp;

/// The images of this host.
#[derive(Debug)]
pub(crate) struct ImageStore {
    content: Store,
    /// Where the disks of layers are kept, which `vch run` shares.
    cache: PathBuf,
    all: Mutex<BTreeMap<String, Arc<StoredImage>>>,
    /// Held while the index is changed, so that what is found out of it holds until it is written.
    changes: Mutex<()>,
}

/// An image.
#[derive(Clone, Debug)]
pub(crate) struct StoredImage {
    /// `sha256:` and 64 hexadecimal digits: the digest of its configuration.
    pub(crate) id: String,
    /// As docker shows them: `busybox:latest`.
    pub(crate) names: Vec<String>,
    /// The same of registries: `busybox@sha256:...`.
    pub(crate) digests: Vec<String>,
    pub(crate) config: ImageConfig,
    /// As its configuration says it; empty if it does not.
    pub(crate) created: String,
    /// Nanoseconds since 1970.
    pub(crate) created_ns: u64,
    /// Nanoseconds since 1970 when it got the last of its names here.
    pub(crate) tagged_ns: Option<u64>,
    /// What it was committed from.
    pub(crate) parent: Option<String>,
    /// Its layers by what they are and what lies below them, the lowest first.
    pub(crate) chain: Vec<Digest>,
    /// Bytes of the files in each layer.
    pub(crate) sizes: Vec<u64>,
    /// It was removed by force, and containers have it still: nobody sees it.
    removed: bool,
    manifest: Descriptor,
}

/// There is no such image.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UnknownImage {
    #[error("No such image: {0}")]
    None(String),
    #[error("multiple IDs found with provided prefix: {0}")]
    Many(String),
}

impl ImageStore {
    /// `dir` has the images, `cache` what can be made again. It blocks.
    pub(crate) fn open(dir: &Path, cache: &Path) -> Result<ImageStore> {
        make_dir(dir)?;
        let content = Store::at(dir)?;
        let store = ImageStore { content, cache: cache.into(), all: Mutex::default(), changes: Mutex::default() };
        store.refresh()?;
        // what a crash left half-way: nobody else brings anything into this store
        store.content.drop_partials()?;
        images::clear_unfinished(cache);
        store.collect()?;
        store.drop_unused_disks();
        Ok(store)
    }

    /// All that are to be seen, by id.
    pub(crate) fn list(&self) -> Vec<Arc<StoredImage>> {
        locked(&self.all).values().filter(|image| !image.removed).cloned().collect()
    }

    /// The image of this name (`:latest` if it has no tag), of this digest in a repository, of this id, or the only one whose id begins so.
    pub(crate) fn find(&self, wanted: &str) -> Result<Arc<StoredImage>, UnknownImage> {
        let all = self.list();
        let shown = normal(wanted).map_or_else(|| wanted.to_owned(), |name| familiar(&name));
        if let Some(image) = all.iter().find(|image| image.names.contains(&shown) || image.digests.contains(&shown)) {
            return Ok(image.clone());
        }
        let digits = wanted.strip_prefix("sha256:").unwrap_or(wanted);
        let is_id = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let mut fitting = all.iter().filter(|image| is_id && image.digits().starts_with(digits));
        match (fitting.next(), fitting.next()) {
            (Some(image), None) => Ok(image.clone()),
            (Some(_), Some(_)) => Err(UnknownImage::Many(wanted.to_owned())),
            // docker takes the digits of an id for what they are, and does not put a tag behind them
            (None, _) => Err(UnknownImage::None(if wanted.starts_with("sha256:") { wanted.to_owned() } else { shown })),
        }
    }

    /// The image of a container: of this id, even if it was removed by force meanwhile.
    pub(crate) fn of_container(&self, id: &str) -> Result<Arc<StoredImage>, UnknownImage> {
        locked(&self.all).get(id).cloned().ok_or_else(|| UnknownImage::None(id.to_owned()))
    }

    /// Its whole configuration, as JSON. It blocks.
    pub(crate) fn document(&self, image: &StoredImage) -> Result<Value> {
        let digest = Digest::parse(&image.id).context("its id is a digest")?;
        let bytes =
            self.content.document(&digest)?.with_context(|| format!("the configuration of {} is gone", image.id))?;
        Ok(serde_json::from_slice(&bytes)?)
    }

    fn image(&self, image: &StoredImage) -> Result<oci::Image> {
        Ok(oci::open_manifest(self.content.dir(), &image.manifest.digest)?)
    }

    /// Reads the index again. An image that cannot be read is told of, and left out: the others are well.
    fn refresh(&self) -> Result<()> {
        let mut found: BTreeMap<String, StoredImage> = BTreeMap::new();
        let (ids, names): (Vec<Named>, Vec<Named>) =
            self.content.names()?.into_iter().partition(|named| Digest::parse(&named.name).is_some());
        let before = locked(&self.all).clone();
        for named in ids {
            let read = match before.get(&named.name) {
                Some(known) if known.manifest.digest == named.descriptor.digest => Ok(StoredImage::clone(known)),
                _ => self.read(&named),
            };
            match read {
                Ok(image) => {
                    let note = |key: &str| named.descriptor.annotations.get(key);
                    let image = StoredImage {
                        names: Vec::new(),
                        digests: Vec::new(),
                        tagged_ns: None,
                        parent: note(PARENT).cloned(),
                        removed: note(REMOVED).is_some(),
                        ..image
                    };
                    found.insert(named.name, image);
                }
                Err(error) => say(&format!("the image {} cannot be used: {error:#}", named.name)),
            }
        }
        for named in names {
            let of = found.values_mut().find(|image| image.manifest.digest == named.descriptor.digest);
            let Some(image) = of else { continue };
            let shown = familiar(&named.name);
            if named.name.contains('@') {
                image.digests.push(shown);
            } else {
                image.names.push(shown);
                image.tagged_ns = image.tagged_ns.max(Some(named.used.saturating_mul(1_000_000_000)));
            }
        }
        for image in found.values_mut() {
            image.names.sort();
            image.digests.sort();
        }
        *locked(&self.all) = found.into_iter().map(|(id, image)| (id, Arc::new(image))).collect();
        Ok(())
    }

    fn read(&self, named: &Named) -> Result<StoredImage> {
        let image = oci::open_manifest(self.content.dir(), &named.descriptor.digest)?;
        let digest = Digest::parse(&named.name).context("its id is no digest")?;
        let bytes = self.content.document(&digest)?.context("its configuration is gone")?;
        let document: Value = serde_json::from_slice(&bytes)?;
        let created = document["created"].as_str().unwrap_or_default().to_owned();
        let sizes = named.descriptor.annotations.get(SIZES).map(String::as_str).unwrap_or_default();
        Ok(StoredImage {
            id: named.name.clone(),
            names: Vec::new(),
            digests: Vec::new(),
            config: images::config(&image.config),
            created_ns: timestamp::parse(&created, 0).filter(|_| !created.is_empty()).unwrap_or_default(),
            created,
            tagged_ns: None,
            parent: None,
            chain: image.chain(),
            sizes: sizes.split(',').filter_map(|size| size.parse().ok()).collect(),
            removed: false,
            manifest: named.descriptor.clone(),
        })
    }

    /// Changes the index, and what is known of it.
    fn edit(&self, change: impl FnOnce(&mut Vec<Named>)) -> Result<()> {
        self.content.edit(change)?;
        self.refresh()
    }
}

impl StoredImage {
    /// Bytes of the files in all of its layers.
    pub(crate) fn size(&self) -> u64 {
        self.sizes.iter().sum()
    }

    /// Its id without `sha256:`.
    pub(crate) fn digits(&self) -> &str {
        self.id.strip_prefix("sha256:").unwrap_or(&self.id)
    }

    /// The names of its layers' disks.
    fn disk_names(&self) -> impl Iterator<Item = String> {
        self.chain.iter().map(layer_disk::file_name)
    }
}

/// Annotations of an image's entry in the index: the image that it was committed from; the bytes in its layers; that nobody is to see it.
const PARENT: &str = "tether.parent";
const SIZES: &str = "tether.sizes";
const REMOVED: &str = "tether.removed";

#[cfg(test)]
mod tests;
