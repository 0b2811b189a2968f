//! Docker's images: what was loaded, pulled, imported or committed, by id and by name.
//!
//! It decides what an image is called and which files are its own. How its layers become disks: [`crate::images`].

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::cli::run::Pull;
use crate::images::{self, Unfinished};
use crate::lock::locked;
use crate::plan::ImageConfig;
use crate::state::{id_from, make_dir};

/// The images of this host.
#[derive(Debug)]
pub(crate) struct ImageStore {
    dir: PathBuf,
    /// Where the disks of layers are kept, which `vch run` shares.
    cache: PathBuf,
    all: Mutex<BTreeMap<String, Arc<StoredImage>>>,
}

/// An image.
#[derive(Clone, Debug)]
pub(crate) struct StoredImage {
    /// `sha256:` and 64 hexadecimal digits: the digest of its configuration.
    pub(crate) id: String,
    /// As in `busybox:latest`.
    pub(crate) names: Vec<String>,
    pub(crate) config: ImageConfig,
    kept: Kept,
}

/// The disk of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LayerDisk {
    /// By which a guest finds it.
    pub(crate) serial: String,
    pub(crate) file: PathBuf,
}

/// There is no such image.
#[derive(Debug, thiserror::Error)]
#[error("No such image: {0}")]
pub(crate) struct UnknownImage(pub(crate) String);

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Kept {
    id: String,
    names: Vec<String>,
    archive: PathBuf,
}

impl ImageStore {
    pub(crate) fn open(dir: &Path, cache: &Path) -> Result<ImageStore> {
        make_dir(dir)?;
        let store = ImageStore { dir: dir.into(), cache: cache.into(), all: Mutex::default() };
        if let Ok(bytes) = fs::read(dir.join(INDEX)) {
            for kept in serde_json::from_slice::<Vec<Kept>>(&bytes).context("images.json")? {
                store.take(kept)?;
            }
        }
        Ok(store)
    }

    /// All of them, by id.
    pub(crate) fn list(&self) -> Vec<Arc<StoredImage>> {
        locked(&self.all).values().cloned().collect()
    }

    /// The image of this id, of this name (`:latest` if it has no tag), or the only one whose id begins so.
    pub(crate) fn find(&self, name: &str) -> Result<Arc<StoredImage>, UnknownImage> {
        let all = locked(&self.all);
        let tagged = if name.contains(':') { name.to_owned() } else { format!("{name}:latest") };
        let bare = name.strip_prefix("sha256:").unwrap_or(name);
        let fits = |image: &&Arc<StoredImage>| {
            image.names.contains(&tagged) || (!bare.is_empty() && image.id["sha256:".len()..].starts_with(bare))
        };
        all.values().find(fits).cloned().ok_or(UnknownImage(tagged))
    }

    /// The disks of its layers, the lowest first; those that are not there are made now. It blocks.
    pub(crate) fn disks(&self, image: &StoredImage) -> Result<Vec<LayerDisk>> {
        let image = self.image(&image.kept)?;
        let disks = image.layers().into_iter().zip(image.layer_disks()?);
        Ok(disks.map(|(serial, file)| LayerDisk { serial, file }).collect())
    }

    /// An empty disk to lie over an image's layers: each container has a copy. It blocks.
    pub(crate) fn top(&self, image: &StoredImage) -> Result<PathBuf> {
        self.image(&image.kept)?.top_disk()
    }

    /// Takes the image of an archive of `docker save`; the result is what it is called. It blocks.
    pub(crate) fn load(&self, archive: &Path) -> Result<Vec<String>> {
        let names = names(archive)?;
        let kept = self.dir.join(format!("{}.tar", id_from(names.join(" "))));
        fs::copy(archive, &kept).with_context(|| format!("cannot write {}", kept.display()))?;
        self.take(Kept { id: String::new(), names: names.clone(), archive: kept })?;
        let all: Vec<Kept> = locked(&self.all).values().map(|image| image.kept.clone()).collect();
        fs::write(self.dir.join(INDEX), serde_json::to_vec(&all)?)?;
        Ok(names)
    }

    fn image(&self, kept: &Kept) -> Result<images::Image> {
        let name = format!("docker-archive:{}", kept.archive.display());
        images::open(&name, Pull::Never, &self.cache, Unfinished::default())
    }

    fn take(&self, mut kept: Kept) -> Result<()> {
        let image = self.image(&kept)?;
        kept.id = image.digest().to_owned();
        let stored = StoredImage { id: kept.id.clone(), names: kept.names.clone(), config: image.config(), kept };
        locked(&self.all).insert(stored.id.clone(), Arc::new(stored));
        Ok(())
    }
}

fn names(archive: &Path) -> Result<Vec<String>> {
    let mut tar = tar::Archive::new(File::open(archive)?);
    for entry in tar.entries()? {
        let mut entry = entry?;
        if entry.path()?.ends_with("manifest.json") {
            let mut text = String::new();
            entry.read_to_string(&mut text)?;
            let manifest: serde_json::Value = serde_json::from_str(&text)?;
            let tags = manifest[0]["RepoTags"].as_array().cloned().unwrap_or_default();
            return Ok(tags.iter().filter_map(|tag| tag.as_str().map(str::to_owned)).collect());
        }
    }
    anyhow::bail!("no manifest.json")
}

const INDEX: &str = "images.json";
