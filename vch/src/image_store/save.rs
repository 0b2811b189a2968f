//! `docker save`: images as a tar that is an OCI layout and has docker's `manifest.json`, written as it is read.
//!
//! Layers are as they came, compressed or not; who loads them tells.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::Arc;

use anyhow::{Context, Result};
use iso_builder::content::document::{Descriptor, Document};
use iso_builder::oci::Digest;
use serde_json::{Value, json};

use super::{ImageStore, StoredImage, UnknownImage, normal, repository};

/// An image, and those of its names that are saved.
pub(crate) type Chosen = (Arc<StoredImage>, Vec<String>);

impl ImageStore {
    /// Which images are meant, and by which of their names: a repository alone means all of its tags, an id none.
    pub(crate) fn chosen(&self, wanted: &[String]) -> Result<Vec<Chosen>, UnknownImage> {
        let mut chosen: Vec<Chosen> = Vec::new();
        for wanted in wanted {
            let is_bare = repository(wanted) == wanted;
            let all = self.list();
            let of = normal(wanted).map(|full| super::familiar(repository(&full)));
            let tags = |image: &StoredImage| -> Vec<String> {
                let fits = |name: &&String| of.as_deref() == Some(repository(name));
                image.names.iter().filter(fits).cloned().collect()
            };
            let named: Vec<Chosen> = match is_bare {
                true => all
                    .iter()
                    .map(|image| (image.clone(), tags(image)))
                    .filter(|(_, names)| !names.is_empty())
                    .collect(),
                false => Vec::new(),
            };
            if !named.is_empty() {
                chosen.extend(named);
                continue;
            }
            let image = self.find(wanted)?;
            let shown = normal(wanted).map(|full| super::familiar(&full));
            let names = image.names.iter().filter(|name| Some(*name) == shown.as_ref()).cloned().collect();
            chosen.push((image, names));
        }
        let mut merged: Vec<Chosen> = Vec::new();
        for (image, names) in chosen {
            match merged.iter_mut().find(|(other, _)| other.id == image.id) {
                Some((_, all)) => all.extend(names),
                None => merged.push((image, names)),
            }
        }
        Ok(merged)
    }

    /// Writes them. It blocks.
    pub(crate) fn save(&self, images: &[Chosen], out: impl Write) -> Result<()> {
        let _held = self.content.hold()?;
        let mut archive = tar::Builder::new(out);
        let (mut written, mut saved, mut index) = (BTreeSet::new(), Vec::new(), Vec::new());
        for (image, names) in images {
            let bytes = self.content.document(&image.manifest.digest)?;
            let bytes = bytes.with_context(|| format!("the manifest of {} is gone", image.id))?;
            let parsed = Document::parse(&bytes).map_err(anyhow::Error::msg)?;
            let Document::Manifest { config, layers } = &parsed else { anyhow::bail!("{} has no manifest", image.id) };
            for part in parsed.children().map(|part| part.digest).chain([image.manifest.digest]) {
                if written.insert(part) {
                    let file = self.content.read(&part)?;
                    archive.append(&header(file.metadata()?.len(), &path(&part))?, file)?;
                }
            }
            let layers: Vec<String> = layers.iter().map(|layer| path(&layer.digest)).collect();
            saved.push(json!({ "Config": path(&config.digest), "RepoTags": names, "Layers": layers }));
            let size = bytes.len();
            let entry = |annotations: Value| {
                let Descriptor { media_type, digest, .. } = &image.manifest;
                json!({ "mediaType": media_type, "digest": digest.to_string(), "size": size, "annotations": annotations })
            };
            let named = names.iter().filter_map(|name| normal(name)).map(|full| {
                let tag = full.rsplit(':').next().unwrap_or_default().to_owned();
                entry(json!({ "io.containerd.image.name": full, "org.opencontainers.image.ref.name": tag }))
            });
            let before = index.len();
            index.extend(named);
            if index.len() == before {
                index.push(entry(json!({})));
            }
        }
        let index =
            json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": index });
        for (name, text) in [
            ("index.json", index.to_string()),
            ("manifest.json", Value::Array(saved).to_string()),
            ("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#.to_owned()),
        ] {
            archive.append(&header(text.len() as u64, name)?, text.as_bytes())?;
        }
        archive.into_inner()?.flush()?;
        Ok(())
    }
}

fn path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn header(size: u64, name: &str) -> Result<tar::Header> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name)?;
    header.set_size(size);
    header.set_mode(0o644);
    header.set_cksum();
    Ok(header)
}
