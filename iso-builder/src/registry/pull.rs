//! The order in which an image comes: index, manifest, config, layers three at a time, and its name last.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use serde::Deserialize as _;

use super::error::{Also, Error, Failed, Reason};
use super::name::{Name, Version};
use super::session::{GivenUp, Session};
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
    let pull = Pull { session: &session, store, platform };
    let pulled = pull.all(tell).map_err(|given_up| match given_up {
        GivenUp::Because(error) => error,
        GivenUp::Stopped => unreachable!("whoever stops the others has an error of its own"),
    })?;
    store.name(&full, &pulled.0, now)?;
    let was_here = known.is_some_and(|Named { descriptor, .. }| descriptor.digest == pulled.0.digest);
    Ok(Pulled { digest: pulled.0.digest, was_here, size: pulled.1 })
}

struct Pull<'a> {
    session: &'a Session<'a>,
    store: &'a Store,
    platform: &'a Platform,
}

impl Pull<'_> {
    fn all(&self, tell: &mut dyn FnMut(Progress)) -> Result<(Descriptor, u64), GivenUp> {
        let top = self.session.top(self.store)?;
        let (config, mut layers) = self.manifest(top.digest)?;
        if config.size > DOCUMENT_LIMIT {
            return Err(self.malformed("its config is larger than 4 MiB"));
        }
        let read = AtomicU64::new(0);
        self.session.blob(&config, self.store, &read)?;
        self.fits(&config)?;
        let mut seen = std::collections::BTreeSet::new();
        layers.retain(|layer| seen.insert(layer.digest));
        let sizes = layers.iter().map(|layer| layer.size);
        let size = sizes.chain([config.size]).try_fold(0u64, u64::checked_add);
        let size = size.ok_or_else(|| self.malformed("its layers are larger than anything"))?;
        self.layers(layers, &read, size, tell)?;
        Ok((top, size))
    }

    /// From what the name leads to, through indexes, to the parts of one image.
    fn manifest(&self, top: Digest) -> Result<(Descriptor, Vec<Descriptor>), GivenUp> {
        let mut digest = top;
        for _ in 0..MAX_DEPTH {
            let bytes = match self.stored(&digest)? {
                Some(bytes) => Some(bytes),
                None => {
                    self.session.document(&Version::Digest(digest), self.store)?;
                    self.stored(&digest)?
                }
            };
            let parsed = Document::parse(&bytes.unwrap_or_default());
            match parsed.map_err(|what| self.malformed(&format!("the document {digest} is of no use: {what}")))? {
                Document::Manifest { config, layers } => return Ok((config, layers)),
                Document::Index(all) => match self.platform.choose(&all) {
                    Some(chosen) => digest = chosen.digest,
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

    fn layers(
        &self,
        layers: Vec<Descriptor>,
        read: &AtomicU64,
        size: u64,
        tell: &mut dyn FnMut(Progress),
    ) -> Result<(), GivenUp> {
        let count = layers.len();
        let workers = count.min(AT_ONCE);
        let queue = Mutex::new(VecDeque::from(layers));
        let done = AtomicUsize::new(0);
        let mut failed = None;
        thread::scope(|scope| {
            let (ended, ends) = mpsc::channel();
            for _ in 0..workers {
                let (ended, queue, done) = (ended.clone(), &queue, &done);
                scope.spawn(move || {
                    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                    while let Some(layer) = next() {
                        let fetched = self.session.check().and_then(|()| self.session.blob(&layer, self.store, read));
                        match fetched {
                            Ok(()) => done.fetch_add(1, Ordering::Relaxed),
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
                let (done, read) = (done.load(Ordering::Relaxed), read.load(Ordering::Relaxed));
                tell(Progress { done, layers: count, read, size });
                match ends.recv_timeout(TELL) {
                    Ok(given_up @ GivenUp::Because(_)) => drop(failed.get_or_insert(given_up)),
                    Ok(GivenUp::Stopped) | Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => break,
                }
            }
        });
        match failed {
            Some(given_up) => Err(given_up),
            None => {
                tell(Progress { done: count, layers: count, read: size, size });
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

/// Layers at once: docker's number, and what registries are used to.
const AT_ONCE: usize = 3;
/// How often the caller is told how far it is.
const TELL: Duration = Duration::from_millis(100);
