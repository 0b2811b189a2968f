//! From an index or a `manifest.json` to one image: which one is meant, and which blobs it is made of.

use std::collections::BTreeSet;

use super::Error;
use super::digest::Digest;
use super::document::{Descriptor, Document, ImageConfig, Platform, SavedImage};
use super::layer::Layer;
use super::path::shown;
use super::reference::Reference;
use super::section::Section;
use super::store::Store;

/// An image whose documents are read and verified.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) digest: Digest,
    pub(super) config: ImageConfig,
    pub(super) layers: Vec<Layer>,
}

/// Finds the image that `reference` means in `store`.
pub(super) fn find(store: &Store, reference: &Reference) -> Result<Found, Error> {
    match reference {
        // an archive that has only what newer tools write
        Reference::DockerArchive { name, .. }
            if store.find("manifest.json")?.is_none() && store.find("index.json")?.is_some() =>
        {
            oci(store, name.as_deref())
        }
        Reference::DockerArchive { name, .. } => docker(store, name.as_deref()),
        Reference::Oci { tag, .. } => oci(store, tag.as_deref()),
        // `docker save` writes both; the older one says which image was saved.
        Reference::Bare(_) if store.find("manifest.json")?.is_some() => docker(store, None),
        Reference::Bare(_) if store.find("index.json")?.is_some() => oci(store, None),
        Reference::Bare(_) | Reference::Registry(_) => {
            Err(store.lacks("neither manifest.json nor index.json is there"))
        }
    }
}

/// What `docker save` writes: `manifest.json` names the config and the layers of each image.
fn docker(store: &Store, name: Option<&str>) -> Result<Found, Error> {
    let bytes = store.document("manifest.json")?;
    let mut images: Vec<SavedImage> = store.parse("manifest.json", &bytes)?;
    let names = images.iter().flat_map(|image| image.repo_tags.clone()).collect();
    if let Some(name) = name {
        images.retain(|image| image.repo_tags.iter().any(|tag| is_named(tag, name)));
    }
    let image = one(store, images, name, names)?;
    let bytes = store.document(&image.config)?;
    let digest = Digest::of(&bytes);
    // The config is called after its digest: `HEX.json`, or `blobs/sha256/HEX`.
    let last = image.config.rsplit('/').next().unwrap_or_default();
    let claimed = Digest::from_hex(last.strip_suffix(".json").unwrap_or(last));
    if let Some(expected) = claimed.filter(|&expected| expected != digest) {
        return Err(mismatch(store, &image.config, digest, expected));
    }
    let config: ImageConfig = store.parse(&image.config, &bytes)?;
    let blobs = image.layers.iter().map(|name| Ok((store.get(name)?, None)));
    let layers = layers(store, &config, blobs)?;
    Ok(Found { digest, config, layers })
}

/// An OCI layout: `index.json` names manifests, or further indexes, by their digests.
fn oci(store: &Store, tag: Option<&str>) -> Result<Found, Error> {
    let bytes = store.document("index.json")?;
    let index: Document = store.parse("index.json", &bytes)?;
    let manifests = index.manifests.ok_or_else(|| store.malformed("index.json names no manifests".to_owned()))?;
    let manifest = resolve(store, tagged(store, manifests, tag)?)?;
    of_parts(store, manifest)
}

/// The image of a manifest.
pub(super) fn of_manifest(store: &Store, manifest: &Digest) -> Result<Found, Error> {
    let bytes = store.document(&manifest.blob_name())?;
    let found = Digest::of(&bytes);
    if found != *manifest {
        return Err(mismatch(store, &manifest.blob_name(), found, *manifest));
    }
    match store.parse(&manifest.blob_name(), &bytes)? {
        Document { config: Some(config), layers: Some(layers), .. } => {
            of_parts(store, Manifest { digest: *manifest, bytes, config, layers })
        }
        _ => Err(store.malformed(format!("{:?} is no manifest", manifest.blob_name()))),
    }
}

fn of_parts(store: &Store, manifest: Manifest) -> Result<Found, Error> {
    let (config_digest, bytes) = verified(store, &manifest.config)?;
    let config: ImageConfig = store.parse(&config_digest.blob_name(), &bytes)?;
    let blobs = manifest.layers.iter().map(|blob| {
        let digest = self::digest(store, &blob.digest)?;
        Ok((sized(store, blob, digest)?, Some(digest)))
    });
    let layers = layers(store, &config, blobs)?;
    Ok(Found { digest: manifest.digest, config, layers })
}

/// A manifest, and what it names.
pub(super) struct Manifest {
    pub(super) digest: Digest,
    pub(super) bytes: Vec<u8>,
    pub(super) config: Descriptor,
    pub(super) layers: Vec<Descriptor>,
}

/// The manifest for this host, through indexes.
pub(super) fn resolve(store: &Store, among: Vec<Descriptor>) -> Result<Manifest, Error> {
    let mut wanted = for_this_host(store, among)?;
    for _ in 0..MAX_DEPTH {
        let (digest, bytes) = verified(store, &wanted)?;
        let name = digest.blob_name();
        let document: Document = store.parse(&name, &bytes)?;
        match document {
            Document { manifests: Some(manifests), .. } => wanted = for_this_host(store, manifests)?,
            Document { config: Some(config), layers: Some(layers), .. } => {
                return Ok(Manifest { digest, bytes, config, layers });
            }
            Document { old_layers: Some(_), .. } => {
                let what =
                    "is a manifest of schema 1, which is not read: pull or push the image anew with a present tool";
                return Err(store.malformed(format!("{name:?} {what}")));
            }
            _ => return Err(store.malformed(format!("{name:?} is neither an index nor a manifest"))),
        }
    }
    Err(store.malformed("its indexes are nested too deep".to_owned()))
}

/// The descriptors that `tag` names; without one, all that there are, unless they are of several images.
fn tagged(store: &Store, mut all: Vec<Descriptor>, tag: Option<&str>) -> Result<Vec<Descriptor>, Error> {
    all.retain(|descriptor| !descriptor.is_attestation());
    let names: BTreeSet<String> = all.iter().filter_map(|it| it.names().next()).map(str::to_owned).collect();
    let digests: BTreeSet<&str> = all.iter().map(|it| it.digest.as_str()).collect();
    if tag.is_none() && names.len() > 1 && digests.len() > 1 {
        return Err(choice(store, names));
    }
    if let Some(tag) = tag {
        all.retain(|descriptor| descriptor.names().any(|name| name == tag || is_named(name, tag)));
    }
    match (all.is_empty(), tag) {
        (false, _) => Ok(all),
        (true, Some(tag)) => Err(no_such(store, tag, names)),
        (true, None) => Err(store.malformed("no image is in it".to_owned())),
    }
}

/// The descriptor for linux/amd64, the least demanding variant first; else one that does not say what it is for.
fn for_this_host(store: &Store, mut all: Vec<Descriptor>) -> Result<Descriptor, Error> {
    all.retain(|descriptor| !descriptor.is_attestation());
    let fits = |it: &&Descriptor| it.platform.as_ref().is_some_and(Platform::fits_this_host);
    let variant = |it: &&Descriptor| it.platform.as_ref().and_then(|platform| platform.variant.clone());
    let best = all.iter().filter(fits).min_by_key(variant).or_else(|| all.iter().find(|it| it.platform.is_none()));
    best.cloned().ok_or_else(|| {
        let found: BTreeSet<String> = all.iter().flat_map(|it| &it.platform).map(Platform::to_string).collect();
        match found.is_empty() {
            true => store.malformed("no image is in it".to_owned()),
            false => Error::Platform { path: store.path.clone(), found: listed(found) },
        }
    })
}

fn one(
    store: &Store,
    mut images: Vec<SavedImage>,
    name: Option<&str>,
    names: Vec<String>,
) -> Result<SavedImage, Error> {
    match (images.pop(), images.is_empty(), name) {
        (Some(image), true, _) => Ok(image),
        (Some(_), false, _) => Err(choice(store, names)),
        (None, _, Some(name)) => Err(no_such(store, name, names)),
        (None, _, None) => Err(store.malformed("manifest.json names no image".to_owned())),
    }
}

/// Whether an image's full name is the one that a user wrote: `docker.io/library/alpine:latest` is `alpine` to docker.
fn is_named(tag: &str, name: &str) -> bool {
    fn short(name: &str) -> &str {
        let name = name.strip_prefix("docker.io/").unwrap_or(name);
        name.strip_prefix("library/").unwrap_or(name)
    }
    short(tag).strip_suffix(":latest").is_some_and(|tag| tag == short(name)) || short(tag) == short(name)
}

fn choice(store: &Store, names: impl IntoIterator<Item = String>) -> Error {
    Error::Choice { path: store.path.clone(), names: listed(names) }
}

/// Names from an image for a message: on one line, and not too many.
pub(super) fn listed(names: impl IntoIterator<Item = String>) -> String {
    shown(Vec::from_iter(names).join(", ").escape_debug().to_string().as_bytes())
}

fn no_such(store: &Store, name: &str, names: impl IntoIterator<Item = String>) -> Error {
    store.malformed(format!("no image in it is called {name:?}, but: {}", listed(names)))
}

pub(super) fn mismatch(store: &Store, name: &str, found: Digest, expected: Digest) -> Error {
    store.malformed(format!("{name:?} has the digest {found}, not {expected}"))
}

/// Pairs the blobs with what the config says is in them.
fn layers(
    store: &Store,
    config: &ImageConfig,
    blobs: impl ExactSizeIterator<Item = Result<(Section, Option<Digest>), Error>>,
) -> Result<Vec<Layer>, Error> {
    let diff_ids = &config.rootfs.diff_ids;
    if diff_ids.len() != blobs.len() {
        let what = format!("its manifest names {} layers, its config {}", blobs.len(), diff_ids.len());
        return Err(store.malformed(what));
    }
    let pairs = blobs.zip(diff_ids).map(|(found, diff_id)| {
        let (blob, digest) = found?;
        Ok(Layer { blob, digest, diff_id: self::digest(store, diff_id)? })
    });
    pairs.collect()
}

/// A document that has the digest by which it is called.
pub(super) fn verified(store: &Store, descriptor: &Descriptor) -> Result<(Digest, Vec<u8>), Error> {
    let expected = digest(store, &descriptor.digest)?;
    let bytes = store.document(&expected.blob_name())?;
    let found = Digest::of(&bytes);
    if found != expected {
        return Err(mismatch(store, &expected.blob_name(), found, expected));
    }
    Ok((expected, bytes))
}

/// A blob of the size that its descriptor says.
pub(super) fn sized(store: &Store, descriptor: &Descriptor, digest: Digest) -> Result<Section, Error> {
    let name = digest.blob_name();
    let Some(blob) = store.find(&name)? else {
        return Err(match descriptor.urls.first() {
            None => store.lacks(&format!("{name:?} is missing")),
            Some(url) => {
                let url = shown(url.escape_debug().to_string().as_bytes());
                store.malformed(format!("{name:?} is a foreign layer, which is not in the image but at {url}"))
            }
        });
    };
    if blob.len != descriptor.size {
        let what = format!("{name:?} holds {} bytes, not {} as the manifest says", blob.len, descriptor.size);
        return Err(store.malformed(what));
    }
    Ok(blob)
}

pub(super) fn digest(store: &Store, text: &str) -> Result<Digest, Error> {
    Digest::parse(text).ok_or_else(|| store.malformed(format!("{:?} is no sha256 digest", shown(text.as_bytes()))))
}

/// Indexes within indexes; real ones have two.
const MAX_DEPTH: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dockers() {
        for name in ["alpine", "alpine:latest", "library/alpine", "docker.io/library/alpine:latest"] {
            assert!(is_named("docker.io/library/alpine:latest", name), "{name}");
            assert!(is_named("alpine:latest", name), "{name}");
        }
        assert!(is_named("docker.io/x/y:z", "x/y:z"));
        for name in ["x/y", "y:z", "x/y:latest", "other.io/x/y:z"] {
            assert!(!is_named("docker.io/x/y:z", name), "{name}");
        }
    }
}
