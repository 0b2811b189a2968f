//! Indexes and manifests, as far as one must read them to know which blobs an image is made of.
//!
//! What the blobs mean is `oci`'s. Media types are kept and told on, but not believed: registries and older writers get them wrong, the fields do not.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::oci::Digest;

/// One blob, as an index, a manifest or the store's own `index.json` names it (OCI image-spec, descriptor.md).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    #[serde(deserialize_with = "read_digest", serialize_with = "write_digest")]
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// What a machine must be to run an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    #[serde(default)]
    pub os: String,
    #[serde(default)]
    pub architecture: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// A document that names others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// An image for each of several platforms.
    Index(Vec<Descriptor>),
    Manifest {
        config: Descriptor,
        layers: Vec<Descriptor>,
    },
}

impl Document {
    /// Reads an index or a manifest. The error says what is wrong with it, not whose it is.
    pub fn parse(bytes: &[u8]) -> Result<Document, String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Fields {
            schema_version: Option<u32>,
            manifests: Option<Vec<Descriptor>>,
            config: Option<Descriptor>,
            layers: Option<Vec<Descriptor>>,
        }
        let fields: Fields = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        match fields {
            Fields { schema_version: Some(1), .. } => {
                Err("it is of Docker's schema 1, which nobody has written since 2017: push the image again".to_owned())
            }
            Fields { manifests: Some(manifests), .. } => Ok(Document::Index(manifests)),
            Fields { config: Some(config), layers: Some(layers), .. } => Ok(Document::Manifest { config, layers }),
            _ => Err("it is neither an index nor a manifest".to_owned()),
        }
    }

    /// What the document names, attestations and other platforms too.
    pub fn children(&self) -> impl Iterator<Item = &Descriptor> {
        let (first, rest) = match self {
            Document::Index(manifests) => (None, manifests),
            Document::Manifest { config, layers } => (Some(config), layers),
        };
        first.into_iter().chain(rest)
    }
}

impl Platform {
    /// What runs on the hosts that this is made for.
    pub fn this_host() -> Platform {
        Platform { os: "linux".to_owned(), architecture: "amd64".to_owned(), variant: None }
    }

    /// Reads `OS/ARCHITECTURE[/VARIANT]`, as docker's `--platform` has it.
    pub fn parse(text: &str) -> Option<Platform> {
        let mut parts = text.split('/').map(str::to_owned);
        let (os, architecture, variant) = (parts.next()?, parts.next()?, parts.next());
        let whole = parts.next().is_none() && !os.is_empty() && !architecture.is_empty();
        whole.then_some(Platform { os, architecture, variant })
    }

    /// Whether an image for `other` is what was asked for. What is not told is taken to fit, as Docker does.
    pub fn takes(&self, other: &Platform) -> bool {
        let like = |asked: &str, found: &str| found.is_empty() || asked == found;
        let variant = match (&self.variant, &other.variant) {
            (Some(asked), Some(found)) => asked == found,
            _ => true,
        };
        like(&self.os, &other.os) && like(&self.architecture, &other.architecture) && variant
    }

    /// The one of `all` that an index offers for this platform: the least demanding variant, else one that does not say what it is for. The rule is `oci`'s.
    pub fn choose<'a>(&self, all: &'a [Descriptor]) -> Option<&'a Descriptor> {
        let images = || all.iter().filter(|it| !it.annotations.contains_key(ATTESTATION));
        let fits = |it: &&Descriptor| it.platform.as_ref().is_some_and(|platform| self.takes(platform));
        let variant = |it: &&Descriptor| it.platform.as_ref().and_then(|platform| platform.variant.clone());
        images().filter(fits).min_by_key(variant).or_else(|| images().find(|it| it.platform.is_none()))
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

fn read_digest<'de, D: Deserializer<'de>>(from: D) -> Result<Digest, D::Error> {
    let text = String::deserialize(from)?;
    Digest::parse(&text).ok_or_else(|| serde::de::Error::custom(format!("{text:?} is no sha256 digest")))
}

fn write_digest<S: Serializer>(digest: &Digest, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(digest)
}

fn nullable<'de, T: Default + Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// Bytes of one document: what registries accept of a manifest (distribution-spec, "Pushing Manifests").
pub const DOCUMENT_LIMIT: u64 = 4 << 20;

/// What BuildKit puts beside an image to say how it was built.
const ATTESTATION: &str = "vnd.docker.reference.type";

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn descriptor(platform: Option<&str>, size: u64) -> Descriptor {
        let platform = platform.map(|text| Platform::parse(text).unwrap());
        let (digest, annotations) = (Digest::parse(DIGEST).unwrap(), BTreeMap::new());
        Descriptor { media_type: String::new(), digest, size, platform, annotations }
    }

    #[test]
    fn the_fields_say_what_a_document_is() {
        let leaf = format!(r#"{{"digest":"{DIGEST}","size":3,"annotations":null}}"#);
        let manifest = Document::parse(format!(r#"{{"config":{leaf},"layers":[{leaf}]}}"#).as_bytes()).unwrap();
        assert_eq!(manifest.children().count(), 2);
        let index = Document::parse(format!(r#"{{"manifests":[{leaf}]}}"#).as_bytes()).unwrap();
        assert_eq!(index, Document::Index(vec![descriptor(None, 3)]));
        for (bad, why) in [
            ("{}", "neither"),
            ("[", "EOF"),
            (r#"{"schemaVersion":1,"fsLayers":[]}"#, "schema 1"),
            (r#"{"manifests":[{"digest":"sha512:00","size":1}]}"#, "no sha256 digest"),
            (r#"{"manifests":[{"digest":"sha256:../../etc/passwd","size":1}]}"#, "no sha256 digest"),
        ] {
            let error = Document::parse(bad.as_bytes()).unwrap_err();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }

    #[test]
    fn the_platform_asked_for_is_chosen_and_no_other() {
        let mut attestation = descriptor(Some("linux/amd64"), 9);
        attestation.annotations.insert(ATTESTATION.to_owned(), "attestation-manifest".to_owned());
        let all = [
            attestation,
            descriptor(Some("linux/arm64/v8"), 1),
            descriptor(Some("linux/amd64/v3"), 2),
            descriptor(Some("linux/amd64"), 3),
        ];
        let chosen = |asked: &str| Platform::parse(asked).unwrap().choose(&all).map(|it| it.size);
        assert_eq!(chosen("linux/amd64"), Some(3));
        assert_eq!(chosen("linux/arm64"), Some(1));
        assert_eq!(chosen("linux/arm64/v7"), None);
        assert_eq!(chosen("windows/amd64"), None);
        assert_eq!(Platform::parse("linux"), None);
        assert_eq!(Platform::this_host().choose(&[descriptor(None, 7)]).map(|it| it.size), Some(7));
    }
}
