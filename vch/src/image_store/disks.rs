//! The disks of images' layers: made in the cache, which `vch run` and other hosts of this user share, and linked into the store, so that no one else's tidying takes
//! them from a container.
//!
//! A disk goes from the store with the last image that has its layer, and then from the cache if no other store has a link to it. Whoever wants it again makes it again.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use iso_builder::oci;

use super::{ImageStore, StoredImage};
use crate::images::{self, Unfinished};
use crate::lock::locked;
use crate::state::make_dir;

/// The disk of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LayerDisk {
    /// By which a guest finds it.
    pub(crate) serial: String,
    pub(crate) file: PathBuf,
}

impl ImageStore {
    /// The disks of its layers, the lowest first; those that are not there are made now. It blocks.
    pub(crate) fn disks(&self, image: &StoredImage) -> Result<Vec<LayerDisk>> {
        let name = image.names.first().unwrap_or(&image.id);
        self.disks_of(self.image(image)?, name)
    }

    /// An empty disk to lie over an image's layers: each container has a copy. It blocks.
    pub(crate) fn top(&self, image: &StoredImage) -> Result<PathBuf> {
        let name = image.names.first().unwrap_or(&image.id);
        images::Image::stored(self.image(image)?, name, &self.cache, Unfinished::default())?.top_disk()
    }

    pub(super) fn disks_of(&self, image: oci::Image, name: &str) -> Result<Vec<LayerDisk>> {
        let image = images::Image::stored(image, name, &self.cache, Unfinished::default())?;
        let serials = image.layers();
        let own: Vec<PathBuf> = image.disk_names().iter().map(|disk| self.own(disk)).collect();
        let mut files = own.clone();
        if !own.iter().all(|disk| disk.exists()) {
            make_dir(&self.content.dir().join(DISKS))?;
            files = self.link(&image, &own)?;
        }
        Ok(serials.into_iter().zip(files).map(|(serial, file)| LayerDisk { serial, file }).collect())
    }

    /// Another host may tidy the cache between the making and the linking: then all over again.
    fn link(&self, image: &images::Image, own: &[PathBuf]) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        'again: for _ in 0..TRIES {
            files.clear();
            for (made, own) in image.layer_disks()?.into_iter().zip(own) {
                match fs::hard_link(&made, own) {
                    Err(error) if error.kind() == ErrorKind::NotFound => continue 'again,
                    Err(error) if error.kind() == ErrorKind::AlreadyExists => files.push(own.clone()),
                    // a cache elsewhere
                    Err(error) if error.kind() == ErrorKind::CrossesDevices => files.push(made),
                    linked => {
                        linked.with_context(|| format!("cannot link {} to {}", made.display(), own.display()))?;
                        files.push(own.clone());
                    }
                }
            }
            return Ok(files);
        }
        anyhow::bail!("somebody removes the disks in {} as fast as they are made", self.cache.display())
    }

    /// Removes the disks of these names that no image has any more.
    pub(super) fn drop_disks(&self, names: impl IntoIterator<Item = String>) {
        let kept: BTreeSet<String> = locked(&self.all).values().flat_map(|image| image.disk_names()).collect();
        for name in names.into_iter().filter(|name| !kept.contains(name)) {
            // what cannot be removed now is tried again when the store is opened
            fs::remove_file(self.own(&name)).ok();
            let shared = images::disk_path(&self.cache, &name);
            if fs::metadata(&shared).is_ok_and(|about| about.nlink() == 1) {
                fs::remove_file(&shared).ok();
            }
        }
    }

    /// Removes what a crash has left.
    pub(super) fn drop_unused_disks(&self) {
        let Ok(entries) = fs::read_dir(self.content.dir().join(DISKS)) else { return };
        self.drop_disks(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()));
    }

    fn own(&self, name: &str) -> PathBuf {
        self.content.dir().join(DISKS).join(Path::new(name))
    }
}

/// In the store.
const DISKS: &str = "disks";
const TRIES: u32 = 5;
