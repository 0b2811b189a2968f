//! The order in which an image comes: index, manifest, config, layers three at a time, and its name last.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use serde::Deserialize as _;

use super::error::{Also, Error, Failed, Reason};
use super::http::Ask;
use super::name::{Name, Version};
use super::session::{GivenUp, Request, Session};
use super::settings::Settings;
use crate::content::document::{DOCUMENT_LIMIT, Descriptor, Document, Platform};
use crate::content::{MAX_DEPTH, Named, Store};
use crate::oci::Digest;

/// How far a pull has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Layers that are there, and all.
    pub done: usize,
    pub layers: usize,
    /// Bytes that are there, and all.
    pub read: u64,
    pub size: u64,
}

/// What came of a pull.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// Of what the name leads to: an index, or a manifest.
    pub digest: Digest,
    /// Whether all of it was here already.
    pub was_here: bool,
    /// Bytes of the config and the layers.
    pub size: u64,
}

/// One layer on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coming {
    pub digest: Digest,
    pub size: u64,
    pub read: u64,
    /// It is in the store; it was before.
    pub is_here: bool,
    pub was_here: bool,
}

/// What was fetched, and has no name in the store yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// What the name leads to: an index, or the manifest itself.
    pub top: Descriptor,
    pub manifest: Descriptor,
    pub config: Descriptor,
    /// Bytes of the config and the layers.
    pub size: u64,
}

/// What a name leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub top: Descriptor,
    pub platforms: Vec<Platform>,
}

/// Brings the image that `name` means at its registry now into the store. What is there already is not fetched again.
pub fn pull(
    name: &Name,
    platform: &Platform,
    store: &Store,
    settings: &Settings,
    now: u64,
    tell: &mut dyn FnMut(Progress),
) -> Result<Pulled, Error> {
    let _held = store.hold()?;
    let full = name.to_string();
    let session = Session::new(name, settings);
    let known = store.find(&full, platform)?;
    if let Some(known) = &known
        && (name.digest().is_some() || session.peek() == Some(known.descriptor.digest))
    {
        store.touch(known, now)?;
        let size = store.parts(known)?.values().sum();
        return Ok(Pulled { digest: known.descriptor.digest, was_here: true, size });
    }
    let mut tell = |coming: &[Coming], read, size| {
        let done = coming.iter().filter(|layer| layer.is_here).count();
        tell(Progress { done, layers: coming.len(), read, size });
        ControlFlow::Continue(())
    };
    let fetched = Pull { session: &session, store, platform }.run(&mut tell)?;
    store.name(&full, &fetched.top, now)?;
    let was_here = known.is_some_and(|Named { descriptor, .. }| descriptor.digest == fetched.top.digest);
    Ok(Pulled { digest: fetched.top.digest, was_here, size: fetched.size })
}

/// Brings it, and gives it no name: that is the caller's, who holds the store meanwhile. It is given up when `tell`, which hears of each layer, says so.
pub fn fetch(
    name: &Name,
    platform: &Platform,
    store: &Store,
    settings: &Settings,
    tell: &mut dyn FnMut(&[Coming]) -> ControlFlow<()>,
) -> Result<Fetched, Error> {
    let session = Session::new(name, settings);
    Pull { session: &session, store, platform }.run(&mut |coming, _, _| tell(coming))
}

/// What `name` leads to; no layer is fetched. The caller holds the store.
pub fn look(name: &Name, store: &Store, settings: &Settings) -> Result<Found, Error> {
    let session = Session::new(name, settings);
    let pull = Pull { session: &session, store, platform: &Platform::this_host() };
    let found = || {
        let top = session.top(store)?;
        let bytes = pull.stored(&top.digest)?.unwrap_or_default();
        let parsed =
            Document::parse(&bytes).map_err(|what| pull.malformed(&format!("its manifest is of no use: {what}")))?;
        let platforms = match parsed {
            Document::Index(all) => {
                all.into_iter().filter_map(|it| it.platform).filter(|it| it.os != "unknown").collect()
            }
            Document::Manifest { config, .. } => {
                if config.size > DOCUMENT_LIMIT {
                    return Err(pull.malformed("its config is larger than 4 MiB"));
                }
                session.blob(&config, store, &AtomicU64::new(0))?;
                let bytes = pull.stored(&config.digest)?.unwrap_or_default();
                serde_json::from_slice(&bytes).into_iter().collect()
            }
        };
        Ok(Found { top, platforms })
    };
    found().map_err(|given_up| pull.error(given_up))
}

/// Whether a registry lets the user of these settings in: `docker login`.
pub fn knock(name: &Name, settings: &Settings) -> Result<(), Error> {
    let session = Session::new(name, settings);
    let request = Request { ask: Ask::Get, path: "", headers: &[], verified: false };
    let knocked = session.anywhere(&mut |source, _| session.request(source, request).map(drop));
    knocked.map_err(|given_up| error(name, given_up))
}

fn error(name: &Name, given_up: GivenUp) -> Error {
    match given_up {
        GivenUp::Because(error) => error,
        GivenUp::Stopped => Error::Stopped { name: name.clone() },
    }
}

struct Pull<'a> {
    session: &'a Session<'a>,
    store: &'a Store,
    platform: &'a Platform,
}

/// Hears of each layer, and of bytes in all: those that are there, and how many there will be.
type Tell<'a> = &'a mut dyn FnMut(&[Coming], u64, u64) -> ControlFlow<()>;

impl Pull<'_> {
    fn run(&self, tell: Tell<'_>) -> Result<Fetched, Error> {
        self.all(tell).map_err(|given_up| self.error(given_up))
    }

    fn error(&self, given_up: GivenUp) -> Error {
        error(self.session.name, given_up)
    }

    fn all(&self, tell: Tell<'_>) -> Result<Fetched, GivenUp> {
        let top = self.session.top(self.store)?;
        let (manifest, config, mut layers) = self.manifest(&top)?;
        if config.size > DOCUMENT_LIMIT {
            return Err(self.malformed("its config is larger than 4 MiB"));
        }
        self.session.blob(&config, self.store, &AtomicU64::new(0))?;
        self.fits(&config)?;
        let mut seen = std::collections::BTreeSet::new();
        layers.retain(|layer| seen.insert(layer.digest));
        let sizes = layers.iter().map(|layer| layer.size);
        let size = sizes.chain([config.size]).try_fold(0u64, u64::checked_add);
        let size = size.ok_or_else(|| self.malformed("its layers are larger than anything"))?;
        self.layers(layers, config.size, size, tell)?;
        Ok(Fetched { top, manifest, config, size })
    }

    /// From what the name leads to, through indexes, to the parts of one image.
    fn manifest(&self, top: &Descriptor) -> Result<(Descriptor, Descriptor, Vec<Descriptor>), GivenUp> {
        let mut found = top.clone();
        for _ in 0..MAX_DEPTH {
            let digest = found.digest;
            let bytes = match self.stored(&digest)? {
                Some(bytes) => Some(bytes),
                None => {
                    self.session.document(&Version::Digest(digest), self.store)?;
                    self.stored(&digest)?
                }
            };
            let parsed = Document::parse(&bytes.unwrap_or_default());
            match parsed.map_err(|what| self.malformed(&format!("the document {digest} is of no use: {what}")))? {
                Document::Manifest { config, layers } => return Ok((found, config, layers)),
                Document::Index(all) => match self.platform.choose(&all) {
                    Some(chosen) => found = chosen.clone(),
                    None => {
                        let found = all.iter().flat_map(|it| &it.platform).filter(|it| it.os != "unknown");
                        let found: std::collections::BTreeSet<String> = found.map(Platform::to_string).collect();
                        return Err(self.other_platform(found.into_iter().collect::<Vec<_>>().join(", ")));
                    }
                },
            }
        }
        Err(self.malformed("its indexes are nested too deep"))
    }

    fn stored(&self, digest: &Digest) -> Result<Option<Vec<u8>>, GivenUp> {
        self.store.document(digest).map_err(|error| GivenUp::Because(error.into()))
    }

    /// An image without an index says in its config what it is for: better to see that before its layers come.
    fn fits(&self, config: &Descriptor) -> Result<(), GivenUp> {
        let bytes = self.stored(&config.digest)?.unwrap_or_default();
        let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
        match Platform::deserialize(&value) {
            Ok(found) if !self.platform.takes(&found) => Err(self.other_platform(found.to_string())),
            _ => Ok(()),
        }
    }

    fn layers(&self, layers: Vec<Descriptor>, before: u64, size: u64, tell: Tell<'_>) -> Result<(), GivenUp> {
        let counts: Vec<Count> = layers.iter().map(|layer| Count::new(layer, self.store)).collect();
        let told = || counts.iter().map(Count::coming).collect::<Vec<_>>();
        let read = |all: &[Coming]| before + all.iter().map(|layer| layer.read).sum::<u64>();
        let workers = layers.len().min(AT_ONCE);
        let queue = Mutex::new(layers.iter().zip(&counts).collect::<VecDeque<_>>());
        let (mut failed, mut stopped) = (None, false);
        thread::scope(|scope| {
            let (ended, ends) = mpsc::channel();
            for _ in 0..workers {
                let (ended, queue) = (ended.clone(), &queue);
                scope.spawn(move || {
                    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                    while let Some((layer, count)) = next() {
                        let blob = || self.session.blob(layer, self.store, &count.read);
                        match self.session.check().and_then(|()| blob()) {
                            Ok(()) => count.is_here.store(true, Ordering::Relaxed),
                            Err(given_up) => {
                                self.session.stop();
                                // the receiver is there until all workers are gone
                                ended.send(given_up).ok();
                                return;
                            }
                        };
                    }
                });
            }
            drop(ended);
            loop {
                let all = told();
                if !stopped && tell(&all, read(&all), size).is_break() {
                    stopped = true;
                    self.session.stop();
                }
                match ends.recv_timeout(TELL) {
                    Ok(given_up @ GivenUp::Because(_)) => drop(failed.get_or_insert(given_up)),
                    Ok(GivenUp::Stopped) | Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => break,
                }
            }
        });
        match failed {
            Some(given_up) => Err(given_up),
            None if stopped => Err(GivenUp::Stopped),
            None => {
                // that all is here is of interest to nobody who may yet give up
                let _last = tell(&told(), size, size);
                Ok(())
            }
        }
    }

    fn malformed(&self, what: &str) -> GivenUp {
        self.because(Reason::Malformed(what.to_owned()))
    }

    fn other_platform(&self, found: String) -> GivenUp {
        self.because(Reason::Platform { found, asked: self.platform.to_string() })
    }

    fn because(&self, reason: Reason) -> GivenUp {
        let name = self.session.name.clone();
        let failed = Failed { registry: name.host().to_owned(), name, reason, also: Also::default() };
        GivenUp::Because(Error::Pull(Box::new(failed)))
    }
}

/// One layer, while others count too.
struct Count {
    digest: Digest,
    size: u64,
    was_here: bool,
    read: AtomicU64,
    is_here: AtomicBool,
}

impl Count {
    fn new(layer: &Descriptor, store: &Store) -> Count {
        let was_here = store.has(&layer.digest, layer.size);
        Count {
            digest: layer.digest,
            size: layer.size,
            was_here,
            read: AtomicU64::new(0),
            is_here: AtomicBool::new(false),
        }
    }

    fn coming(&self) -> Coming {
        let (read, is_here) = (self.read.load(Ordering::Relaxed), self.is_here.load(Ordering::Relaxed));
        Coming {
            digest: self.digest,
            size: self.size,
            read,
            is_here: is_here || self.was_here,
            was_here: self.was_here,
        }
    }
}

/// Layers at once: docker's number, and what registries are used to.
const AT_ONCE: usize = 3;
/// How often the caller is told how far it is.
const TELL: Duration = Duration::from_millis(100);
