//! Images that are made here: of a container's changes (`docker commit`), or of a tar alone (`docker import`).

use std::fs::File;
use std::io;
use std::path::Path;

use anyhow::{Context, Result, bail};
use iso_builder::content::document::Descriptor;
use iso_builder::oci::{self, CONFIG, Digest, LAYER, MANIFEST};
use serde_json::{Value, json};

use super::bring::New;
use super::names::normal;
use super::{ImageStore, StoredImage};
use crate::timestamp;

/// What is told of how an image was made: an entry of `docker history`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Deed {
    /// Nanoseconds since 1970.
    pub(crate) created_ns: u64,
    pub(crate) author: String,
    pub(crate) comment: String,
    pub(crate) created_by: String,
}

impl ImageStore {
    /// Makes an image of `parent` and a layer over it; the result is its id. It blocks.
    ///
    /// `layer` holds the changes as a tar, with whiteouts as OCI has them (`.wh.NAME`, `.wh..wh..opq`); it is read from its beginning, copied, and may go afterwards. One
    /// that is compressed is kept unpacked. `config` is docker's `Config` of the new image (`Cmd`, `Env`, `Labels` and so on) as an object. `name` is one as users
    /// write it, `:latest` if it has no tag; an image that had it loses it. Without a parent it is what `docker import` makes.
    pub(crate) fn commit(
        &self,
        parent: Option<&StoredImage>,
        layer: File,
        config: Value,
        deed: &Deed,
        name: Option<&str>,
    ) -> Result<String> {
        let name = match name {
            None => None,
            Some(name) => Some(normal(name).with_context(|| format!("invalid reference format: {name}"))?),
        };
        let built = self.holding(|| {
            let layer = oci::unpacked(layer, Path::new("the layer"), self.content.dir())?;
            let (layer, len) = self.content.take(&mut Whole { file: &layer, at: 0 }, None)?;
            let new = self.document_of(parent, layer, len, config, deed, name)?;
            let id = new.id.to_string();
            self.enter(&[new])?;
            Ok::<_, anyhow::Error>(id)
        });
        self.collect()?;
        built
    }

    fn document_of(
        &self,
        parent: Option<&StoredImage>,
        layer: Digest,
        len: u64,
        config: Value,
        deed: &Deed,
        name: Option<String>,
    ) -> Result<New> {
        let created = timestamp::format(deed.created_ns);
        let (mut document, mut manifest) = match parent {
            Some(parent) => (self.document(parent)?, self.manifest_of(parent)?),
            None => (
                json!({ "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": [] } }),
                json!({ "schemaVersion": 2, "mediaType": MANIFEST, "layers": [] }),
            ),
        };
        // what only builders of long ago wrote tells of the parent
        for old in ["container", "container_config", "id", "parent", "docker_version", "Size"] {
            document.as_object_mut().context("its configuration is no object")?.remove(old);
        }
        document["created"] = json!(created);
        document["author"] = json!(deed.author);
        document["config"] = config;
        let mut entry = json!({ "created": created, "created_by": deed.created_by });
        for (key, text) in [("author", &deed.author), ("comment", &deed.comment)] {
            if !text.is_empty() {
                entry[key] = json!(text);
            }
        }
        push(&mut document["history"], entry)?;
        push(&mut document["rootfs"]["diff_ids"], json!(layer.to_string()))?;
        push(&mut manifest["layers"], json!({ "mediaType": LAYER, "digest": layer.to_string(), "size": len }))?;
        let bytes = serde_json::to_vec(&document)?;
        let id = Digest::of(&bytes);
        self.content.put(&id, &bytes)?;
        manifest["config"] = json!({ "mediaType": CONFIG, "digest": id.to_string(), "size": bytes.len() });
        let bytes = serde_json::to_vec(&manifest)?;
        let digest = Digest::of(&bytes);
        self.content.put(&digest, &bytes)?;
        let image = oci::open_manifest(self.content.dir(), &digest)?;
        let sizes = self.make_ready(&image, name.as_deref())?;
        let (media_type, size) = (MANIFEST.to_owned(), bytes.len() as u64);
        let manifest = Descriptor { media_type, digest, size, platform: None, annotations: Default::default() };
        let parent = parent.map(|parent| parent.id.clone());
        Ok(New { id, manifest, sizes, names: name.into_iter().collect(), parent })
    }

    fn manifest_of(&self, image: &StoredImage) -> Result<Value> {
        let bytes = self.content.document(&image.manifest.digest)?;
        Ok(serde_json::from_slice(&bytes.with_context(|| format!("the manifest of {} is gone", image.id))?)?)
    }
}

/// A list that may not be there yet, or be null.
fn push(list: &mut Value, entry: Value) -> Result<()> {
    match list {
        Value::Null => *list = json!([entry]),
        Value::Array(entries) => entries.push(entry),
        _ => bail!("the image's configuration is not as it should be"),
    }
    Ok(())
}

/// A file from its beginning, wherever its cursor is.
struct Whole<'a> {
    file: &'a File,
    at: u64,
}

impl io::Read for Whole<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = std::os::unix::fs::FileExt::read_at(self.file, buf, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}
