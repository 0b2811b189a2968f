//! The JSON documents of OCI layouts and docker-archives, as far as they matter here.
//!
//! They are read as leniently as Docker does: `null` and absent are one, unknown fields are passed over.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer};

/// An index or a manifest: which, is told by its fields, since older writers leave its media type out.
#[derive(Debug, Deserialize)]
pub(super) struct Document {
    pub(super) manifests: Option<Vec<Descriptor>>,
    pub(super) config: Option<Descriptor>,
    pub(super) layers: Option<Vec<Descriptor>>,
    /// What manifests of the first schema have in place of layers.
    #[serde(rename = "fsLayers")]
    pub(super) old_layers: Option<serde::de::IgnoredAny>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Descriptor {
    pub(super) digest: String,
    pub(super) size: u64,
    pub(super) platform: Option<Platform>,
    /// Where a blob is to be had that its owner does not let others pass on.
    #[serde(default, deserialize_with = "nullable")]
    pub(super) urls: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    annotations: BTreeMap<String, String>,
}

impl Descriptor {
    /// The names that tools give an image in an index: `latest`, or `docker.io/library/busybox:latest`.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        NAMES.iter().filter_map(|key| self.annotations.get(*key)).map(String::as_str)
    }

    /// A name that says which image it is, and not only which tag of it.
    pub(super) fn full_name(&self) -> Option<&str> {
        NAMES
            .iter()
            .rev()
            .filter_map(|key| self.annotations.get(*key))
            .map(String::as_str)
            .find(|it| it.contains([':', '/']))
    }

    /// What BuildKit puts beside an image to say how it was built.
    pub(super) fn is_attestation(&self) -> bool {
        let is_of_none = |it: &Platform| it.os == "unknown" && it.architecture == "unknown";
        self.annotations.contains_key("vnd.docker.reference.type") || self.platform.as_ref().is_some_and(is_of_none)
    }
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Platform {
    #[serde(default)]
    pub(super) os: String,
    #[serde(default)]
    pub(super) architecture: String,
    pub(super) variant: Option<String>,
}

/// One image of a docker-archive's `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct SavedImage {
    pub(super) config: String,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) repo_tags: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) layers: Vec<String>,
}

/// An image's configuration.
#[derive(Debug, Deserialize)]
pub(super) struct ImageConfig {
    #[serde(flatten)]
    pub(super) platform: Platform,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) config: Execution,
    pub(super) rootfs: RootFs,
}

#[derive(Debug, Deserialize)]
pub(super) struct RootFs {
    #[serde(default, deserialize_with = "nullable")]
    pub(super) diff_ids: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Execution {
    #[serde(deserialize_with = "nullable")]
    pub(super) user: String,
    #[serde(deserialize_with = "nullable")]
    pub(super) env: Vec<String>,
    #[serde(deserialize_with = "words")]
    pub(super) entrypoint: Vec<String>,
    #[serde(deserialize_with = "words")]
    pub(super) cmd: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub(super) working_dir: String,
    #[serde(deserialize_with = "keys")]
    pub(super) exposed_ports: BTreeSet<String>,
    #[serde(deserialize_with = "keys")]
    pub(super) volumes: BTreeSet<String>,
    #[serde(deserialize_with = "nullable")]
    pub(super) labels: BTreeMap<String, String>,
    pub(super) stop_signal: Option<String>,
    pub(super) healthcheck: Option<Healthcheck>,
}

/// Docker's: times are nanoseconds.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Healthcheck {
    #[serde(deserialize_with = "nullable")]
    pub(super) test: Vec<String>,
    pub(super) interval: u64,
    pub(super) timeout: u64,
    pub(super) start_period: u64,
    pub(super) start_interval: u64,
    pub(super) retries: u32,
}

fn nullable<'de, T: Default + Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// A list of words, or one word alone, as old images have it.
fn words<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Words {
        Many(Vec<String>),
        One(String),
    }
    Ok(match Option::deserialize(from)? {
        Some(Words::Many(words)) => words,
        Some(Words::One(word)) => vec![word],
        None => Vec::new(),
    })
}

/// The keys of an object whose values mean nothing: how JSON writes a set in Go.
fn keys<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeSet<String>, D::Error> {
    let object: Option<BTreeMap<String, serde::de::IgnoredAny>> = Option::deserialize(from)?;
    Ok(object.unwrap_or_default().into_keys().collect())
}

/// Annotations that hold names, the one of the standard first.
const NAMES: [&str; 2] = ["org.opencontainers.image.ref.name", "io.containerd.image.name"];
