//! The disks of an image: made once, kept in the cache, shared by all of its containers. One holds all of the image, under the image's digest; or each holds
//! a layer, under the digest of that layer and of those below it, and images share them.
//!
//! How an image is read and a file system written is iso-builder's; this file decides when, where and how large.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use iso_builder::content::Store;
use iso_builder::content::document::Platform;
use iso_builder::ext4;
use iso_builder::oci::{self, Reference};
use iso_builder::output::Output;
use iso_builder::recipe::layer_disk::{self, GENERATION, Step};
use iso_builder::registry::{Settings, Source, When};
use iso_builder::tree::{Kind, Meta, Node, ROOT, Time, Tree};
use wire::spec::ROOT_LABEL;

use crate::cli::run::Pull;
use crate::plan::ImageConfig;
use crate::state;

mod progress;
mod turn;

use progress::Meter;
use turn::Turn;

/// An image, and where its disk belongs.
#[derive(Debug)]
pub struct Image {
    image: oci::Image,
    name: String,
    cache: PathBuf,
    unfinished: Unfinished,
}

/// A disk in the making. Whoever ends the program meanwhile abandons it, so that nothing half-written is left.
#[derive(Clone, Debug, Default)]
pub struct Unfinished(Arc<Mutex<Option<PathBuf>>>);

impl Unfinished {
    /// What is in the making is the directory, from now on.
    pub fn begin(&self, dir: &Path) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(dir.to_owned());
    }

    /// Removes what there is of it.
    pub fn abandon(&self) {
        if let Some(dir) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
            && let Err(error) = fs::remove_dir_all(&dir)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            eprintln!("vch: cannot remove {}: {error}", dir.display());
        }
    }
}

/// Reads what an image says about itself; `cache` is where disks are kept. May take long for a compressed archive, and for one that is pulled.
pub fn open(name: &str, pull: Pull, cache: &Path, unfinished: Unfinished) -> Result<Image> {
    let reference = obtain(&name.parse()?, pull, &cache.join("content"))?;
    let disks = cache.join(DISKS);
    state::make_dir(&disks)?;
    Image::stored(oci::open(&reference, &disks)?, name, cache, unfinished)
}

/// A file is at hand; what is a name is looked for in the user's store, which `iso-builder` uses too, or pulled into it.
fn obtain(asked: &Reference, pull: Pull, store: &Path) -> Result<Reference> {
    if asked.name().is_none() {
        return Ok(asked.clone());
    }
    let when = match pull {
        Pull::Always => When::Always,
        Pull::Missing => When::Missing,
        Pull::Never => When::Never,
    };
    let store = Store::at(store)?;
    let settings = Settings::of_user(&|name| std::env::var_os(name)).map_err(anyhow::Error::msg)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let source = Source { store: &store, settings: &settings, when, platform: Platform::this_host(), now };
    let mut meter = None;
    Ok(source.obtain(asked, &mut |name, progress| {
        let meter = meter.get_or_insert_with(|| Meter::new(&format!("pull of {name}")));
        meter.show(
            &format!("layer {} of {}", (progress.done + 1).min(progress.layers), progress.layers),
            progress.read,
            progress.size,
        );
    })?)
}

/// What an image's configuration means for a plan.
pub(crate) fn config(config: &oci::Config) -> ImageConfig {
    ImageConfig {
        env: config.env.clone(),
        entrypoint: config.entrypoint.clone(),
        cmd: config.cmd.clone(),
        working_dir: config.working_dir.clone(),
        user: config.user.clone(),
        stop_signal: config.stop_signal.clone(),
        volumes: config.volumes.iter().cloned().collect(),
        exposed_ports: config.exposed_ports.iter().cloned().collect(),
        labels: config.labels.clone(),
        healthcheck: config.healthcheck.clone(),
    }
}

/// Where the disk of that name is kept.
pub(crate) fn disk_path(cache: &Path, name: &str) -> PathBuf {
    cache.join(DISKS).join(name)
}

/// Removes what killed programs have left half-made, of which nobody works on any more. It blocks.
pub(crate) fn clear_unfinished(cache: &Path) {
    turn::clear(&cache.join(DISKS));
}

impl Image {
    /// One that somebody else keeps and has opened.
    pub(crate) fn stored(image: oci::Image, name: &str, cache: &Path, unfinished: Unfinished) -> Result<Image> {
        let cache = cache.join(DISKS);
        state::make_dir(&cache)?;
        Ok(Image { image, name: name.to_owned(), cache, unfinished })
    }

    pub fn config(&self) -> ImageConfig {
        config(&self.image.config)
    }

    /// `sha256:` and 64 hexadecimal digits.
    pub fn digest(&self) -> &str {
        &self.image.digest
    }

    /// The serial numbers of its layers' disks, the lowest first.
    pub fn layers(&self) -> Vec<String> {
        self.image.chain().iter().map(layer_disk::serial).collect()
    }

    /// What its layers' disks are called, the lowest first.
    pub(crate) fn disk_names(&self) -> Vec<String> {
        self.image.chain().iter().map(layer_disk::file_name).collect()
    }

    /// The disks of its layers, the lowest first; those that are not there are made now.
    pub fn layer_disks(&self) -> Result<Vec<PathBuf>> {
        let chain = self.image.chain();
        let disks: Vec<PathBuf> = chain.iter().map(|layer| self.cache.join(layer_disk::file_name(layer))).collect();
        let key = format!("layers-{}", chain.last().map_or_else(|| "none".to_owned(), layer_disk::file_name));
        self.once(&key, || disks.iter().all(|disk| disk.exists()), |_| self.write_layers(&disks))?;
        Ok(disks)
    }

    /// An empty disk to lie over layers, with the directories that overlayfs works in.
    pub fn top_disk(&self) -> Result<PathBuf> {
        let disk = self.cache.join(format!("top-{GENERATION}.raw"));
        self.once(
            "top",
            || disk.exists(),
            |partial| {
                let directory = || Meta { mode: 0o755, ..Meta::default() };
                let mut tree = Tree::new(directory());
                for name in [b"upper", &b"work"[..]] {
                    tree.insert(ROOT, name, Node { meta: directory(), kind: Kind::Dir(Default::default()) });
                }
                let options = ext4::Options {
                    label: TOP_LABEL.into(),
                    size: ext4::Size::Exactly(LEAST_SIZE),
                    ..Default::default()
                };
                let output = Output::create(&partial.join("disk.raw"))?;
                ext4::write(&tree, &options, output.file(), &mut |_, _| {})?;
                output.publish()?;
                Ok(fs::rename(partial.join("disk.raw"), &disk)?)
            },
        )?;
        Ok(disk)
    }

    /// The image's disk, made now if this is its first container.
    pub fn disk(&self) -> Result<PathBuf> {
        let digest = self.image.digest.rsplit(':').next().unwrap_or_default();
        let key = format!("{digest}-{GENERATION}");
        let disk = self.cache.join(format!("{key}.raw"));
        self.once(
            &key,
            || disk.exists(),
            |partial| {
                self.write(&partial.join("disk.raw"))?;
                Ok(fs::rename(partial.join("disk.raw"), &disk)?)
            },
        )?;
        Ok(disk)
    }

    /// Makes what is not there, unless somebody else does meanwhile.
    fn once(&self, key: &str, is_there: impl Fn() -> bool, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        if is_there() {
            return Ok(());
        }
        let turn = Turn::wait(&self.cache, key, || {
            eprintln!("vch: waiting for another vch that makes the disk of {}", self.name);
        });
        let turn = turn.with_context(|| format!("cannot lock {key} in {}", self.cache.display()))?;
        if is_there() {
            return Ok(());
        }
        self.make(&turn.partial(), make)
            .with_context(|| format!("cannot make the disk of {} in {}", self.name, self.cache.display()))
    }

    /// Works in a directory of its own, in its turn: what a killed run left there is known to be nobody's.
    fn make(&self, partial: &Path, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        if partial.exists() {
            fs::remove_dir_all(partial)?;
        }
        self.unfinished.begin(partial);
        state::make_dir(partial)?;
        let made = make(partial);
        self.unfinished.abandon();
        made
    }

    /// Only those that are not there.
    fn write_layers(&self, disks: &[PathBuf]) -> Result<()> {
        let mut meter = Meter::new(&format!("disk of {}", self.name));
        Ok(layer_disk::write_missing(&self.image, disks, &self.cache, &mut |step, done, total| match step {
            Step::Read { layer, layers } => meter.show(&format!("layer {layer} of {layers}"), done, total),
            Step::Write => meter.show("file system", done, total),
        })?)
    }

    fn write(&self, path: &Path) -> Result<()> {
        let mut meter = Meter::new(&format!("disk of {}", self.name));
        let tree = self.image.flatten(&self.cache, &mut |progress| {
            meter.show(&format!("layer {} of {}", progress.layer, progress.layers), progress.read, progress.size);
        })?;
        let options = ext4::Options {
            label: ROOT_LABEL.into(),
            size: ext4::Size::Exactly(disk_size(&tree)),
            journal: true,
            uuid: None,
            time: Time::default(),
        };
        let output = Output::create(path)?;
        ext4::write(&tree, &options, output.file(), &mut |done, total| meter.show("file system", done, total))?;
        output.publish()?;
        Ok(())
    }
}

/// Room to work for the container; it costs nothing until it is used.
fn disk_size(tree: &Tree) -> u64 {
    let stored = |id| match &tree.node(id).kind {
        Kind::File(content) => content.size.next_multiple_of(BLOCK) + BLOCK,
        _ => BLOCK,
    };
    let content: u64 = tree.reachable().into_iter().map(stored).sum();
    LEAST_SIZE.max((content / 2 * 3 + GIB).next_multiple_of(BLOCK))
}

/// In the cache.
const DISKS: &str = "disks";
const TOP_LABEL: &str = "container-top";
const BLOCK: u64 = 4096;
const GIB: u64 = 1 << 30;
const LEAST_SIZE: u64 = 8 * GIB;

#[cfg(test)]
mod tests {
    use iso_builder::tree::{Content, Meta, Node, ROOT};

    use super::*;

    #[test]
    fn a_disk_has_room_to_work() {
        let mut tree = Tree::new(Meta::default());
        assert_eq!(disk_size(&tree), 8 * GIB);
        let content = Content { size: 20 * GIB, extents: Default::default() };
        tree.insert(ROOT, b"big", Node { meta: Meta::default(), kind: Kind::File(content) });
        assert!(disk_size(&tree) > 31 * GIB && disk_size(&tree).is_multiple_of(BLOCK));
    }

    #[test]
    fn what_is_abandoned_is_gone() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("x.partial");
        fs::create_dir(&dir).unwrap();
        let unfinished = Unfinished(Arc::new(Mutex::new(Some(dir.clone()))));
        unfinished.clone().abandon();
        assert!(!dir.exists());
        unfinished.abandon();
    }
}
