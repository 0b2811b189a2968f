//! Reads container images from files: docker-archives and OCI layouts become a [`Tree`] and a [`Config`].
//!
//! Everything in an image is untrusted. Digests are verified while layers stream by, paths stay inside the tree, and
//! nothing is allocated because a number in the image says so. Registries are not spoken to.

mod compression;
mod digest;
mod document;
mod layer;
mod layout;
mod merge;
mod path;
mod platform;
mod reference;
mod section;
mod spool;
mod store;
mod tar;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

pub use self::digest::Digest;
pub use self::layer::LayerError;
pub use self::path::EntryError;
pub use self::reference::Reference;
pub use self::spool::SpoolError;
pub use self::tar::Error as TarError;
use crate::tree::Tree;

/// An image whose documents are read; its layers are not.
#[derive(Debug)]
pub struct Image {
    pub config: Config,
    /// `sha256:..` of the manifest; for a docker-archive, which has none, of the config.
    pub digest: String,
    path: PathBuf,
    layers: Vec<layer::Layer>,
}

/// What an image says about running it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    pub os: String,
    pub architecture: String,
    /// `NAME=VALUE`, in the image's order.
    pub env: Vec<String>,
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    /// Empty when the image does not say.
    pub working_dir: String,
    /// `USER[:GROUP]`, names or numbers; empty when the image does not say.
    pub user: String,
    /// `PORT/PROTOCOL`.
    pub exposed_ports: BTreeSet<String>,
    pub volumes: BTreeSet<String>,
    pub labels: BTreeMap<String, String>,
    /// A name (`SIGQUIT`) or a number.
    pub stop_signal: Option<String>,
}

/// How far [`Image::flatten`] has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The present layer, from 1.
    pub layer: usize,
    pub layers: usize,
    /// Bytes of all layers as they are stored, and how many of them have been read.
    pub read: u64,
    pub size: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "{reference}: no such file or directory, and registries are not read; \
         `docker save -o image.tar {reference}` or `skopeo copy docker://{reference} oci:image` make a file of an image"
    )]
    NotFound { reference: String },
    #[error("{} cannot be read", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is no image archive", path.display())]
    Archive { path: PathBuf, source: TarError },
    #[error("{}: {what}", path.display())]
    Malformed { path: PathBuf, what: String },
    #[error("{}: it holds several images; name one of {names}", path.display())]
    Choice { path: PathBuf, names: String },
    #[error(
        "{}: image is for {found}; this host runs linux/amd64: \
         `docker pull --platform linux/amd64` or `skopeo copy --override-arch amd64` fetch the other one", path.display()
    )]
    Platform { path: PathBuf, found: String },
    #[error("{}: layer {number} of {count}", path.display())]
    Layer { path: PathBuf, number: usize, count: usize, source: LayerError },
    #[error(transparent)]
    Spool(#[from] SpoolError),
}

/// Finds an image and reads its documents, not its layers. An archive that is compressed as a whole is unpacked into an
/// unlinked file in `spool`.
pub fn open(reference: &Reference, spool: &Path) -> Result<Image, Error> {
    let path = reference.path();
    if matches!(reference, Reference::Bare(_)) && matches!(path.try_exists(), Ok(false)) {
        return Err(Error::NotFound { reference: path.display().to_string() });
    }
    let store = store::Store::open(path, spool)?;
    let found = layout::find(&store, reference)?;
    let document::ImageConfig { platform, config, .. } = found.config;
    if !platform.fits_this_host() {
        return Err(Error::Platform { path: store.path, found: layout::listed([platform.to_string()]) });
    }
    let config = Config {
        os: platform.os,
        architecture: platform.architecture,
        env: config.env,
        entrypoint: config.entrypoint,
        cmd: config.cmd,
        working_dir: config.working_dir,
        user: config.user,
        exposed_ports: config.exposed_ports,
        volumes: config.volumes,
        labels: config.labels,
        stop_signal: config.stop_signal.filter(|signal| !signal.is_empty()),
    };
    Ok(Image { config, digest: found.digest.to_string(), path: store.path, layers: found.layers })
}

impl Image {
    /// Lays all layers over one another. What files hold goes to an unlinked file in `spool`, except that of layers
    /// which are not compressed: it stays where it is, so the image must not be changed while the tree is in use.
    pub fn flatten(&self, spool: &Path, progress: &mut dyn FnMut(Progress)) -> Result<Tree, Error> {
        let mut spool = spool::Spool::create(spool)?;
        let mut merge = merge::Merge::new();
        let layers = self.layers.len();
        let size = self.layers.iter().map(|layer| layer.blob.len).sum();
        let mut before = 0;
        for (index, layer) in self.layers.iter().enumerate() {
            let number = index + 1;
            let mut tell = |read| progress(Progress { layer: number, layers, read: before + read, size });
            let applied = layer.apply(&mut merge, &mut spool, &mut tell);
            applied.map_err(|source| Error::Layer { path: self.path.clone(), number, count: layers, source })?;
            before += layer.blob.len;
            progress(Progress { layer: number, layers, read: before, size });
        }
        Ok(merge.finish())
    }
}
