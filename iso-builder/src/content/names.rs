//! The names of the images in a store: `index.json`, which `oci` reads as that of any OCI layout, and which of an image's blobs are there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write as _};

use serde::{Deserialize, Serialize};

use super::document::{Descriptor, Document, Platform};
use super::{Error, Store, at};
use crate::oci::Digest;
use crate::output::Output;

/// An image in the store, by its full name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    pub name: String,
    /// Of the index if the image is for several platforms, else of its manifest.
    pub descriptor: Descriptor,
    /// Seconds since 1970 when it was last pulled or opened.
    pub used: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    schema_version: u32,
    manifests: Vec<Descriptor>,
}

impl Store {
    /// All names, in alphabetical order.
    pub fn names(&self) -> Result<Vec<Named>, Error> {
        let path = self.dir.join("index.json");
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            read => read.map_err(at(&path))?,
        };
        let malformed = |error: serde_json::Error| Error::Index { path: path.clone(), what: error.to_string() };
        let index: Index = serde_json::from_slice(&bytes).map_err(malformed)?;
        let named = index.manifests.into_iter().filter_map(|descriptor| {
            let name = descriptor.annotations.get(NAME)?.clone();
            let used = descriptor.annotations.get(USED).and_then(|used| used.parse().ok()).unwrap_or(0);
            Some(Named { name, descriptor, used })
        });
        let mut named: Vec<Named> = named.collect();
        named.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(named)
    }

    /// Gives the image a name, in place of what had it before. Its blobs are there.
    pub fn name(&self, name: &str, descriptor: &Descriptor, now: u64) -> Result<(), Error> {
        self.edit(|names| {
            names.retain(|named| named.name != name);
            let descriptor = Descriptor { annotations: BTreeMap::new(), platform: None, ..descriptor.clone() };
            names.push(Named { name: name.to_owned(), descriptor, used: now });
        })
    }

    /// Notes that the image is of use. Only once a minute: what is opened often must not write often.
    pub fn touch(&self, named: &Named, now: u64) -> Result<(), Error> {
        if now.saturating_sub(named.used) < 60 {
            return Ok(());
        }
        self.edit(|names| names.iter_mut().filter(|it| it.name == named.name).for_each(|it| it.used = now))
    }

    /// Takes a name away; whether there was one. Its blobs stay until they are collected.
    pub fn forget(&self, name: &str) -> Result<bool, Error> {
        let mut found = false;
        self.edit(|names| {
            let before = names.len();
            names.retain(|named| named.name != name);
            found = names.len() < before;
        })?;
        Ok(found)
    }

    /// Changes names, all at once: whoever looks, and whoever comes after a power cut, sees them as they were or as they are. What a descriptor's annotations
    /// say beside its name stays with it.
    pub fn edit(&self, change: impl FnOnce(&mut Vec<Named>)) -> Result<(), Error> {
        let path = self.dir.join("index.lock");
        let lock = File::create(&path).map_err(at(&path))?;
        lock.lock().map_err(at(&path))?;
        let mut names = self.names()?;
        change(&mut names);
        names.sort_by(|a, b| a.name.cmp(&b.name));
        let manifests = names.into_iter().map(|named| {
            let mut descriptor = named.descriptor;
            descriptor.annotations.insert(NAME.to_owned(), named.name);
            descriptor.annotations.insert(USED.to_owned(), named.used.to_string());
            descriptor
        });
        let index = Index { schema_version: 2, manifests: manifests.collect() };
        let text = serde_json::to_string_pretty(&index).expect("strings are valid JSON") + "\n";
        let path = self.dir.join("index.json");
        let write = || {
            let mut output = Output::create(&path)?;
            output.file_mut().write_all(text.as_bytes())?;
            output.publish()
        };
        write().map_err(at(&path))
    }

    /// The image of that name, when all that `platform` needs of it is here: index, manifest, config and layers.
    pub fn find(&self, name: &str, platform: &Platform) -> Result<Option<Named>, Error> {
        let Some(named) = self.names()?.into_iter().find(|named| named.name == name) else { return Ok(None) };
        let mut wanted = named.descriptor.clone();
        for _ in 0..super::MAX_DEPTH {
            let Some(bytes) = self.document(&wanted.digest)? else { return Ok(None) };
            match Document::parse(&bytes) {
                Ok(Document::Index(manifests)) => match platform.choose(&manifests) {
                    Some(chosen) => wanted = chosen.clone(),
                    None => return Ok(None),
                },
                Ok(manifest @ Document::Manifest { .. }) => {
                    return Ok(manifest.children().all(|part| self.has(&part.digest, part.size)).then_some(named));
                }
                Err(_) => return Ok(None),
            }
        }
        Ok(None)
    }

    /// All blobs that the image is made of and that are here, with their bytes.
    pub fn parts(&self, named: &Named) -> Result<BTreeMap<Digest, u64>, Error> {
        let mut found = BTreeMap::new();
        let mut seen = BTreeSet::new();
        let mut documents = vec![(named.descriptor.digest, 0)];
        while let Some((digest, depth)) = documents.pop() {
            if depth >= super::MAX_DEPTH || !seen.insert(digest) {
                continue;
            }
            let Some(bytes) = self.document(&digest)? else { continue };
            found.insert(digest, bytes.len() as u64);
            match Document::parse(&bytes) {
                Ok(Document::Index(all)) => documents.extend(all.iter().map(|it| (it.digest, depth + 1))),
                Ok(manifest) => {
                    let there = manifest.children().filter(|part| self.has(&part.digest, part.size));
                    found.extend(there.map(|part| (part.digest, part.size)));
                }
                Err(_) => {}
            }
        }
        Ok(found)
    }
}

/// The standard's annotation for a name (OCI image-spec, annotations.md).
const NAME: &str = "org.opencontainers.image.ref.name";
const USED: &str = "tether.used";
