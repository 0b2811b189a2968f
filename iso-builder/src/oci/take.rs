//! All images of an archive, taken into a store: what `docker load` does with what `docker save` wrote, or with an OCI layout in a tar.
//!
//! Blobs come with their digests verified, manifests as they are; an image of `manifest.json` alone, which has none, gets one. What the images are called is told, and
//! decided by the caller: no name is given here, so that nobody finds what is not whole.

use std::fs::File;
use std::path::Path;

use serde_json::json;

use super::compression::Compression;
use super::digest::Digest;
use super::document::{Descriptor, Document, ImageConfig, SavedImage};
use super::layer::read_start;
use super::layout::{Manifest, digest, mismatch, resolve, sized, verified};
use super::section::Section;
use super::store::Store;
use super::{Error, Image, open_manifest};
use crate::content::{self, document};

/// An image that is in the store now.
#[derive(Debug)]
pub struct Taken {
    /// What the archive calls it.
    pub names: Vec<String>,
    /// Its configuration: docker's id.
    pub config: Digest,
    pub manifest: document::Descriptor,
    pub image: Image,
}

/// How far a layer is that has to be copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taking {
    /// Of the layer's tar.
    pub layer: Digest,
    pub read: u64,
    pub size: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    #[error(transparent)]
    Image(#[from] Error),
    #[error("{blob}")]
    Blob { blob: String, source: content::Error },
    #[error(transparent)]
    Store(#[from] content::Error),
}

/// Takes them. `shown` is what messages call the archive; one that is compressed is unpacked into an unlinked file in `spool`.
pub fn take(
    archive: File,
    shown: &Path,
    spool: &Path,
    into: &content::Store,
    tell: &mut dyn FnMut(Taking),
) -> Result<Vec<Taken>, TakeError> {
    let from = Store::of(archive, shown, spool)?;
    let mut take = Take { from: &from, into, tell };
    // docker save writes both: the older says how images were called
    if from.find("manifest.json")?.is_some() {
        return take.saved();
    }
    if from.find("index.json")?.is_some() {
        return take.layout();
    }
    Err(from.lacks("it holds no image: neither manifest.json nor index.json is there").into())
}

struct Take<'a> {
    from: &'a Store,
    into: &'a content::Store,
    tell: &'a mut dyn FnMut(Taking),
}

impl Take<'_> {
    /// `manifest.json`: images with their names.
    fn saved(&mut self) -> Result<Vec<Taken>, TakeError> {
        let bytes = self.from.document("manifest.json")?;
        let images: Vec<SavedImage> = self.from.parse("manifest.json", &bytes)?;
        if images.is_empty() {
            return Err(self.from.malformed("manifest.json names no image".to_owned()).into());
        }
        images.into_iter().map(|image| self.saved_image(image)).collect()
    }

    fn saved_image(&mut self, saved: SavedImage) -> Result<Taken, TakeError> {
        let config = self.from.document(&saved.config)?;
        let id = Digest::of(&config);
        let last = saved.config.rsplit('/').next().unwrap_or_default();
        let claimed = Digest::from_hex(last.strip_suffix(".json").unwrap_or(last));
        if let Some(expected) = claimed.filter(|&expected| expected != id) {
            return Err(mismatch(self.from, &saved.config, id, expected).into());
        }
        let diff_ids = self.fits(&saved.config, &config)?;
        if diff_ids.len() != saved.layers.len() {
            let what = format!("its manifest names {} layers, its config {}", saved.layers.len(), diff_ids.len());
            return Err(self.from.malformed(what).into());
        }
        let mut layers = Vec::new();
        for (name, diff_id) in saved.layers.iter().zip(&diff_ids) {
            let blob = self.from.get(name)?;
            let (kind, is_tar) = media_type(&blob).map_err(|source| self.unreadable(source))?;
            // a tar is called by its own digest
            let expected = is_tar.then_some(*diff_id);
            let (digest, size) = self.blob(name, &blob, *diff_id, expected)?;
            layers.push(json!({ "mediaType": kind, "digest": digest.to_string(), "size": size }));
        }
        self.into.put(&id, &config)?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": { "mediaType": CONFIG, "digest": id.to_string(), "size": config.len() },
            "layers": layers,
        });
        self.taken(saved.repo_tags, id, manifest.to_string().as_bytes())
    }

    /// `index.json`: one image for each name.
    fn layout(&mut self) -> Result<Vec<Taken>, TakeError> {
        let bytes = self.from.document("index.json")?;
        let index: Document = self.from.parse("index.json", &bytes)?;
        let mut found: Vec<Descriptor> = index.manifests.unwrap_or_default();
        found.retain(|it| !it.is_attestation());
        if found.is_empty() {
            return Err(self.from.malformed("index.json names no image".to_owned()).into());
        }
        let mut taken: Vec<Taken> = Vec::new();
        for descriptor in found {
            let name = descriptor.full_name().map(str::to_owned);
            let one = self.manifest(resolve(self.from, vec![descriptor])?, name.into_iter().collect())?;
            match taken.iter_mut().find(|other| other.manifest.digest == one.manifest.digest) {
                Some(other) => other.names.extend(one.names),
                None => taken.push(one),
            }
        }
        Ok(taken)
    }

    fn manifest(&mut self, manifest: Manifest, names: Vec<String>) -> Result<Taken, TakeError> {
        let (id, config) = verified(self.from, &manifest.config)?;
        let diff_ids = self.fits(&id.blob_name(), &config)?;
        for (layer, diff_id) in manifest.layers.iter().zip(diff_ids) {
            let expected = digest(self.from, &layer.digest)?;
            let blob = sized(self.from, layer, expected)?;
            self.blob(&expected.blob_name(), &blob, diff_id, Some(expected))?;
        }
        self.into.put(&id, &config)?;
        self.taken(names, id, &manifest.bytes)
    }

    /// The digests of the layers' tars, of an image that can run here.
    fn fits(&self, name: &str, config: &[u8]) -> Result<Vec<Digest>, TakeError> {
        let config: ImageConfig = self.from.parse(name, config)?;
        if !config.platform.fits_this_host() {
            let found = config.platform.to_string();
            return Err(Error::Platform { path: self.from.path.clone(), found }.into());
        }
        Ok(config.rootfs.diff_ids.iter().map(|text| digest(self.from, text)).collect::<Result<_, _>>()?)
    }

    /// Copies a blob, unless it is there.
    fn blob(
        &mut self,
        name: &str,
        blob: &Section,
        diff_id: Digest,
        expected: Option<Digest>,
    ) -> Result<(Digest, u64), TakeError> {
        if let Some(there) = expected.filter(|expected| self.into.has(expected, blob.len)) {
            return Ok((there, blob.len));
        }
        let mut reader = Told { reader: blob.reader(), layer: diff_id, read: 0, size: blob.len, tell: self.tell };
        self.into.take(&mut reader, expected.as_ref()).map_err(|source| match source {
            error @ content::Error::File { .. } => TakeError::Store(error),
            source => TakeError::Blob { blob: format!("{}: {name:?}", self.from.path.display()), source },
        })
    }

    fn taken(&mut self, names: Vec<String>, config: Digest, manifest: &[u8]) -> Result<Taken, TakeError> {
        let digest = Digest::of(manifest);
        self.into.put(&digest, manifest)?;
        let manifest = document::Descriptor {
            media_type: MANIFEST.to_owned(),
            digest,
            size: manifest.len() as u64,
            platform: None,
            annotations: Default::default(),
        };
        Ok(Taken { names, config, manifest, image: open_manifest(self.into.dir(), &digest)? })
    }

    fn unreadable(&self, source: std::io::Error) -> Error {
        Error::Read { path: self.from.path.clone(), source }
    }
}

/// What a layer's media type is, by its first bytes, and whether it is a tar as it is.
fn media_type(blob: &Section) -> std::io::Result<(&'static str, bool)> {
    let mut start = [0; 8];
    let sniffed = read_start(&mut blob.reader(), &mut start)?;
    Ok(match Compression::sniff(&start[..sniffed]) {
        Compression::Gzip => ("application/vnd.oci.image.layer.v1.tar+gzip", false),
        Compression::Zstd => ("application/vnd.oci.image.layer.v1.tar+zstd", false),
        Compression::None | Compression::Unsupported(_) => (LAYER, true),
    })
}

/// A layer that tells how far it is read.
struct Told<'a, R> {
    reader: R,
    layer: Digest,
    read: u64,
    size: u64,
    tell: &'a mut dyn FnMut(Taking),
}

impl<R: std::io::Read> std::io::Read for Told<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let len = self.reader.read(buf)?;
        self.read += len as u64;
        (self.tell)(Taking { layer: self.layer, read: self.read, size: self.size });
        Ok(len)
    }
}

/// Media types of the OCI image specification.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
