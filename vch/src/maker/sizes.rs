//! What containers take on this host's disks.
//!
//! It decides what counts: blocks that are used, less those of an empty disk.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use super::Maker;
use crate::containers::Container;

/// Bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// What it has written itself.
    pub(crate) own: u64,
    /// The same, with the disks of its image's layers, which it may share.
    pub(crate) whole: u64,
}

impl Maker {
    /// Of one container; nothing where its machine is not made here, or its image is gone.
    pub(crate) async fn sizes(self: &Arc<Self>, container: &Arc<Container>) -> Sizes {
        let (maker, container) = (self.clone(), container.clone());
        tokio::task::spawn_blocking(move || maker.count(&container).unwrap_or_default()).await.unwrap_or_default()
    }

    fn count(&self, container: &Container) -> Option<Sizes> {
        let image = self.images.find(&container.made()?.image_id).ok()?;
        let empty = self.images.top(&image).map_or(0, |top| used(&top));
        let own = used(&Maker::disk(container)).saturating_sub(empty);
        let layers: u64 = self.images.disks(&image).ok()?.iter().map(|layer| used(&layer.file)).sum();
        Some(Sizes { own, whole: own + layers })
    }
}

/// A file may be mostly holes; one that is not there takes nothing.
fn used(file: &Path) -> u64 {
    fs::metadata(file).map_or(0, |file| file.blocks() * BLOCK)
}

/// Bytes of a block as stat(2) counts them.
const BLOCK: u64 = 512;
