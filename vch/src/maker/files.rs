//! Where the files of a container lie while its machine is off.
//!
//! It decides which disks those are. How they are read and written: [`crate::root_disk`]. It blocks.

use wire::spec::Source;

use super::{MakeError, Maker};
use crate::containers::Container;
use crate::root_disk::{Mount, Place};

impl Maker {
    /// Its image's layers, its own disk, and what is mounted over them.
    pub(crate) fn place(&self, container: &Container) -> Result<Place, MakeError> {
        let made = container.made().ok_or_else(|| anyhow::anyhow!("its machine is not made here"))?;
        let image = self.images.of_container(&made.image_id)?;
        let layers = self.images.disks(&image)?.into_iter().map(|layer| layer.file).collect();
        let told = container.told();
        let spec = told.as_ref().map(|told| &told.spec);
        let mounts = spec.into_iter().flat_map(|spec| &spec.mounts).filter_map(|mount| {
            let disk = match &mount.source {
                Source::Memory { .. } => None,
                // what another machine serves is not this host's to read
                _ => return None,
            };
            let (destination, read_only) = (mount.destination.clone(), mount.read_only);
            Some(Mount { destination, disk, read_only, seed: mount.seed })
        });
        let host = made.asked.host_config.as_ref();
        Ok(Place {
            layers,
            top: Maker::disk(container),
            blank: self.images.top(&image)?,
            mounts: mounts.collect(),
            read_only: host.and_then(|host| host.readonly_rootfs).unwrap_or_default(),
        })
    }
}
