//! Reads container images from files: docker-archives and OCI layouts become a [`Tree`] and a [`Config`].
//!
//! Everything in an image is untrusted. Digests are verified while layers stream by, paths stay inside the tree, and
//! nothing is allocated because a number in the image says so. Registries are spoken to by `registry`, which leaves a layout for this to read.

pub mod archive;
mod compression;
mod contents;
mod difference;
mod digest;
mod document;
mod lay;
mod layer;
mod layout;
mod limits;
mod merge;
mod path;
mod platform;
mod reference;
mod section;
mod spool;
mod store;
mod take;
mod tar;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use self::difference::between;
pub use self::digest::Digest;
pub use self::layer::LayerError;
pub use self::limits::{LimitError, Limits};
pub use self::path::EntryError;
pub use self::reference::Reference;
pub use self::spool::SpoolError;
pub use self::store::unpacked;
pub use self::take::{CONFIG, LAYER, MANIFEST, TakeError, Taken, Taking, take};
pub use self::tar::Error as TarError;
use crate::tree::Tree;

/// An image whose documents are read; its layers are not.
#[derive(Debug)]
pub struct Image {
    pub config: Config,
    /// `sha256:..` of the manifest; for a docker-archive, which has none, of the config.
    pub digest: String,
    /// What it may hold.
    pub limits: Limits,
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
    pub healthcheck: Option<Healthcheck>,
}

/// How an image finds out whether its process is well; what is zero is left to who runs it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Healthcheck {
    /// `NONE`, `CMD` and a command, or `CMD-SHELL` and a line for a shell.
    pub test: Vec<String>,
    pub interval: Duration,
    pub timeout: Duration,
    pub start_period: Duration,
    pub start_interval: Duration,
    pub retries: u32,
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
    #[error("{reference}: no such file or directory")]
    NotFound { reference: String },
    #[error("{reference} is in a registry, not in a file; `iso-builder pull` brings it here")]
    NotPulled { reference: Reference },
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
    #[error("{} unpacks to more than {limit} bytes: {} has no room for it, or it is an attack", path.display(), dir.display())]
    Room { path: PathBuf, dir: PathBuf, limit: u64 },
    #[error(transparent)]
    Spool(#[from] SpoolError),
}

/// Finds an image and reads its documents, not its layers. An archive that is compressed as a whole is unpacked into an
/// unlinked file in `spool`.
pub fn open(reference: &Reference, spool: &Path) -> Result<Image, Error> {
    let Some(path) = reference.path() else { return Err(Error::NotPulled { reference: reference.clone() }) };
    if matches!(reference, Reference::Bare(_)) && matches!(path.try_exists(), Ok(false)) {
        return Err(Error::NotFound { reference: path.display().to_string() });
    }
    let store = store::Store::open(path, spool)?;
    let found = layout::find(&store, reference)?;
    image(store, found)
}

/// Opens the image of a manifest that is in an OCI layout, whatever it is called there.
pub fn open_manifest(layout: &Path, manifest: &Digest) -> Result<Image, Error> {
    let store = store::Store::open(layout, layout)?;
    let found = layout::of_manifest(&store, manifest)?;
    image(store, found)
}

fn image(store: store::Store, found: layout::Found) -> Result<Image, Error> {
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
        healthcheck: config.healthcheck.map(|check| Healthcheck {
            test: check.test,
            interval: Duration::from_nanos(check.interval),
            timeout: Duration::from_nanos(check.timeout),
            start_period: Duration::from_nanos(check.start_period),
            start_interval: Duration::from_nanos(check.start_interval),
            retries: check.retries,
        }),
    };
    Ok(Image {
        config,
        digest: found.digest.to_string(),
        limits: Limits::default(),
        path: store.path,
        layers: found.layers,
    })
}

impl Image {
    /// Lays all layers over one another. What files hold is not unpacked: a [`Source`](crate::tree::Source) of the tree reads it from the layer, in order if the
    /// writer asks so, and from an unlinked file in `spool` otherwise. So the image must not be changed while the tree is in use.
    pub fn flatten(&self, spool: &Path, progress: &mut dyn FnMut(Progress)) -> Result<Tree, Error> {
        let mut merge = merge::Merge::new();
        self.lay::<Error>(&mut merge, spool, progress, &mut |_, _| Ok(()))?;
        Ok(merge.finish())
    }

    /// What each layer says, one after the other: a tree that holds what it adds and changes, and what hides the rest, as overlayfs has it. `made` is given
    /// the layer's number, from 0, and its tree. Laid over one another, the trees are what [`Image::flatten`] makes.
    ///
    /// A layer is read in the light of those below: its paths may lead through their symlinks, and its hard links to their files. So all are read, whichever
    /// are `wanted`.
    pub fn layers<E: From<Error>>(
        &self,
        spool: &Path,
        wanted: &dyn Fn(usize) -> bool,
        progress: &mut dyn FnMut(Progress),
        made: &mut dyn FnMut(usize, Tree) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut merge = merge::Merge::new();
        let mut below = merge.tree().clone();
        self.lay(&mut merge, spool, progress, &mut |layer, merge| {
            if wanted(layer) {
                made(layer, difference::between(&below, merge.tree()))?;
            }
            below.clone_from(merge.tree());
            Ok(())
        })
    }

    /// Reads all layers, and so sees that they are what they are called: the bytes of the files in each, the lowest first.
    pub fn sizes(&self, spool: &Path) -> Result<Vec<u64>, Error> {
        let shared = layer::Shared {
            spool,
            budget: limits::Budget::new(self.limits),
            read: Default::default(),
            stop: Default::default(),
        };
        let count = self.layers.len();
        let size = |(index, layer): (usize, &layer::Layer)| {
            let mut size = 0u64;
            let read = layer.read(&shared, &mut |batch| {
                size = batch.iter().fold(size, |size, (_, content)| size.saturating_add(content.size));
            });
            read.map(|()| size).map_err(|error| match error {
                // that is not the layer's fault
                LayerError::Spool(error) => error.into(),
                source => Error::Layer { path: self.path.clone(), number: index + 1, count, source },
            })
        };
        self.layers.iter().enumerate().map(size).collect()
    }

    /// The digests of the layers' tars, the lowest first.
    pub fn diff_ids(&self) -> Vec<Digest> {
        self.layers.iter().map(|layer| layer.diff_id).collect()
    }

    /// The layers by what they are and what lies below them, the lowest first: equal ones look the same in every image. Docker's chain id.
    pub fn chain(&self) -> Vec<Digest> {
        let mut chain: Vec<Digest> = Vec::new();
        for layer in &self.layers {
            chain.push(match chain.last() {
                None => layer.diff_id,
                Some(below) => Digest::of(format!("{below} {}", layer.diff_id).as_bytes()),
            });
        }
        chain
    }
}
