//! Where the files of a container lie while its machine is off.
//!
//! It decides which disks those are. How they are read and written: [`crate::root_disk`]. It blocks.

use std::path::Path;

use wire::spec::Source;

use super::{MakeError, Maker, MountPoint, On};
use crate::containers::Container;
use crate::root_disk::{Mount, Place};
use crate::volumes::Held;

impl Maker {
    /// Its image's layers, its own disk, and what is mounted over them.
    pub(crate) fn place(&self, container: &Container) -> Result<Place, MakeError> {
        let made = container.made().ok_or_else(|| anyhow::anyhow!("its machine is not made here"))?;
        let image = self.images.of_container(&made.image_id)?;
        let layers = self.images.disks(&image)?.into_iter().map(|layer| layer.file).collect();
        let told = container.told();
        let spec = told.as_ref().map(|told| &told.spec);
        // what a guest mounts by itself is memory, and what file servers have is not this host's to read
        let memory = spec.into_iter().flat_map(|spec| &spec.mounts).filter_map(|mount| match mount.source {
            Source::Memory { .. } => Some(Mount {
                destination: mount.destination.clone(),
                disk: None,
                read_only: mount.read_only,
                seed: false,
                held: false,
            }),
            _ => None,
        });
        let disks = made.mounts.iter().filter_map(|mount| {
            let (file, seed) = match &mount.on {
                On::Volume { file, seed, .. } => (file, *seed),
                On::File(file) => (file, false),
                On::Memory { .. } => return None,
            };
            let (destination, disk) = (mount.destination.clone(), Some(file.clone()));
            Some(Mount { destination, disk, read_only: mount.read_only, seed, held: false })
        });
        let mounts = memory.chain(disks);
        let host = made.asked.host_config.as_ref();
        Ok(Place {
            layers,
            top: Maker::disk(container),
            blank: self.images.top(&image)?,
            mounts: mounts.collect(),
            read_only: host.and_then(|host| host.readonly_rootfs).unwrap_or_default(),
        })
    }

    /// Keeps other machines off the volumes that a directory lies in.
    pub(crate) async fn hold_below(&self, container: &Container, dir: &str) -> Result<Option<Held>, MakeError> {
        let Some(made) = container.made() else { return Ok(None) };
        let is_below = |mount: &&MountPoint| Path::new(dir).starts_with(&mount.destination);
        let mounts: Vec<MountPoint> = made.mounts.iter().filter(is_below).cloned().collect();
        if mounts.is_empty() {
            return Ok(None);
        }
        self.hold(container, &mounts).await.map(Some)
    }
}
