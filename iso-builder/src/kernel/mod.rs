//! The pico kernel: built once from pinned source and our configuration, then taken from a cache.
//!
//! [`obtain`] is all that recipes need. It decides the order: look in the cache, else check the tools, build, publish.
//! What the kernel contains is data in `kernel-config/` (see [`config`]), of which [`selection`] takes all or a part; where its source lies is
//! [`source`]'s, how it is compiled [`build`]'s, and where results are kept [`store`]'s. [`report`] tells what came out, [`check`] whether a kernel that
//! others built will do.

use std::io;
use std::path::{Path, PathBuf};

pub mod build;
pub mod check;
pub mod config;
pub mod image;
pub mod report;
pub mod selection;
pub mod source;
pub mod store;

use build::Compiler;
use selection::Selection;
use source::Source;
use store::Store;

use crate::progress;

/// What to build, and with what.
#[derive(Clone, Debug)]
pub struct Request {
    /// A tarball to use in place of the pinned one.
    pub source: Option<PathBuf>,
    /// The directory for caches of this user, such as `~/.cache`.
    pub cache: PathBuf,
    pub jobs: usize,
    pub selection: Selection,
}

/// The path of the kernel's bzImage, after building it if the cache does not have it.
pub fn obtain(request: &Request) -> Result<PathBuf, Error> {
    let store = Store::open(&request.cache)?;
    let source = Source::find(request.source.as_deref(), &request.cache)?;
    let compiler = Compiler::find()?;
    let key = store::key(&source.digest, &request.selection.merged(), &compiler.version);
    if let Some(image) = store.image(&key) {
        return Ok(image);
    }
    let missing = build::missing_packages();
    if !missing.is_empty() {
        return Err(Error::Tools { packages: missing.join(" ") });
    }
    let lock = store.lock()?;
    // Whoever held the lock may have built this very kernel.
    if let Some(image) = store.image(&key) {
        return Ok(image);
    }
    let place = lock.place(&key)?;
    progress::note(&format!("kernel: building once, which takes minutes; the log is {}", place.log.display()));
    build::run(&source, &compiler, &request.selection, request.jobs, &place)?;
    lock.publish(&place, &source, &compiler)
}

/// Why there is no kernel.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "no kernel source at {}: `apt-get install {package}`, or name a tarball of Linux {version} with --source FILE",
        path.display()
    )]
    Source { path: PathBuf, package: &'static str, version: &'static str },
    #[error("the kernel source {} is Linux {found}, and kernel-config/ is for {wanted}", path.display())]
    Version { path: PathBuf, found: String, wanted: &'static str },
    #[error("tools to build the kernel are missing: apt-get install {packages}")]
    Tools { packages: String },
    #[error("the kernel's final .config lacks what kernel-config/ asks for: {options}")]
    Config { options: String },
    #[error("there is no fragment {name}; there are {known}, and files by their path, as in ./my.config")]
    Fragment { name: String, known: String },
    #[error("base is the machine itself: no kernel is without it")]
    Base,
    #[error("{} is not a kernel that we can read: {reason}", path.display())]
    Image { path: PathBuf, reason: String },
    #[error(
        "{} says nothing of its options ({reason}): name its .config with --config FILE, or lay it beside, as {}",
        kernel.display(), beside.display()
    )]
    NoConfig { kernel: PathBuf, beside: PathBuf, reason: String },
    #[error("{} lacks what a containerVM needs: {}", kernel.display(), missing.join(", "))]
    Lacking { kernel: PathBuf, missing: Vec<String> },
    #[error("the kernel build failed at `{step}`: {tail} (whole log: {})", log.display())]
    Step { step: String, tail: String, log: PathBuf },
    #[error("{}", path.display())]
    File { path: PathBuf, source: io::Error },
}

/// Puts the path to an I/O error.
pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::File { path: path.to_owned(), source }
}
