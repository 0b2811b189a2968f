//! Images of a host that keeps none: what its containers were made of, by what they tell.
//!
//! It decides which containers share an image, and what that is called.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use wire::spec::HealthCheck;

use crate::api::error::ApiError;
use crate::api::filters::Filters;
use crate::containers::{Container, Containers, Told};
use crate::state;
use crate::timestamp;

/// Docker images.
pub(super) fn list(containers: &Containers, filters: &Filters) -> Result<Vec<Value>, ApiError> {
    let dangling = filters.truth("dangling")?.unwrap_or_default();
    let known = known(containers);
    let created = |name: &str| match filters.values(name) {
        [] => Ok(None),
        [first, ..] => find(&known, first).map(|image| Some(image.created_ns)),
    };
    let (since, before) = (created("since")?, created("before")?);
    let fits = |image: &&Image| {
        !dangling
            && filters.any("reference", |pattern| image.is_called(pattern))
            && filters.labels("label", &image.labels())
            && since.is_none_or(|since| image.created_ns > since)
            && before.is_none_or(|before| image.created_ns < before)
    };
    Ok(known.values().filter(fits).map(|image| image.summary(-1)).collect())
}

/// Docker image inspect.
pub(super) fn details(containers: &Containers, name: &str) -> Result<Value, ApiError> {
    Ok(find(&known(containers), name)?.details())
}

/// Docker history.
pub(super) fn history(containers: &Containers, name: &str) -> Result<Value, ApiError> {
    Ok(find(&known(containers), name)?.history())
}

/// Each image, with how many containers it has.
pub(super) fn usage(containers: &Containers) -> Vec<Value> {
    let known = known(containers);
    known.values().map(|image| image.summary(i64::try_from(image.containers).unwrap_or(i64::MAX))).collect()
}

/// An image, by what its containers tell.
#[derive(Debug)]
struct Image {
    /// `sha256:` and 64 hexadecimal digits.
    id: String,
    /// With their tags, and those that are digests.
    tags: Vec<String>,
    digests: Vec<String>,
    /// Of the oldest container that was made of it, in nanoseconds since 1970: the image is older.
    created_ns: u64,
    containers: usize,
    /// Of the latest container.
    told: Arc<Told>,
}

/// All images, by id.
fn known(containers: &Containers) -> BTreeMap<String, Image> {
    let mut images: BTreeMap<String, Image> = BTreeMap::new();
    for container in containers.list() {
        let Some(told) = container.told() else { continue };
        let name = told.about.image.clone().map(|name| Name::parse(&name));
        let Some(id) = told.about.image_id.clone().or_else(|| name.as_ref().map(Name::id)) else { continue };
        let image = images.entry(id.clone()).or_insert_with(|| Image {
            id,
            tags: Vec::new(),
            digests: Vec::new(),
            created_ns: u64::MAX,
            containers: 0,
            told,
        });
        image.add(&container, name);
    }
    images
}

/// The one of that name, id, or beginning of an id.
fn find<'a>(known: &'a BTreeMap<String, Image>, wanted: &str) -> Result<&'a Image, ApiError> {
    let name = Name::parse(wanted);
    let full = name.to_string();
    if let Some(image) = known.values().find(|image| image.tags.contains(&full) || image.digests.contains(&full)) {
        return Ok(image);
    }
    let digits = wanted.strip_prefix("sha256:").unwrap_or(wanted);
    let is_id = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    // a guest may tell anything
    let begins = |image: &&Image| image.id.strip_prefix("sha256:").unwrap_or(&image.id).starts_with(digits);
    let mut fitting = known.values().filter(|image| is_id && begins(image));
    match (fitting.next(), fitting.next()) {
        (Some(image), None) => Ok(image),
        (Some(_), Some(_)) => {
            Err(ApiError::bad_parameter(format!("multiple IDs found with provided prefix: {wanted}")))
        }
        (None, _) => Err(ApiError::not_found(format!("No such image: {full}"))),
    }
}

impl Image {
    fn add(&mut self, container: &Container, name: Option<Name>) {
        self.containers += 1;
        self.created_ns = self.created_ns.min(container.created_ns());
        if let Some(name) = name {
            let names = if name.is_digest { &mut self.digests } else { &mut self.tags };
            let name = name.to_string();
            if let Err(place) = names.binary_search(&name) {
                names.insert(place, name);
            }
        }
    }

    fn is_called(&self, pattern: &str) -> bool {
        super::patterns::is_called(self.tags.iter().chain(&self.digests), pattern)
    }

    fn labels(&self) -> BTreeMap<String, String> {
        self.told.about.labels.clone()
    }

    /// One line of `docker images`. How large it is nobody has told; how many containers it has is told where docker counts them.
    fn summary(&self, containers: i64) -> Value {
        json!({
            "Containers": containers,
            "Created": self.created_ns / 1_000_000_000,
            "Id": self.id,
            "Labels": self.labels(),
            "ParentId": "",
            "RepoDigests": self.digests,
            "RepoTags": self.tags,
            "SharedSize": -1,
            "Size": 0,
        })
    }

    fn details(&self) -> Value {
        let about = &self.told.about;
        let process = &self.told.spec.main;
        let set =
            |names: &[String]| -> Value { Value::Object(names.iter().map(|name| (name.clone(), json!({}))).collect()) };
        // where nobody tells which words are the image's, all may be
        let is_told = !(about.entrypoint.is_empty() && about.cmd.is_empty());
        let cmd = if is_told { &about.cmd } else { &process.argv };
        let mut config = json!({
            "Cmd": cmd,
            "Entrypoint": about.entrypoint,
            "Env": process.env.0,
            "ExposedPorts": set(&about.exposed),
            "Labels": about.labels,
            "OnBuild": Value::Null,
            "User": process.user,
            "Volumes": set(&about.volumes),
            "WorkingDir": process.dir,
        });
        if let Some(check) = &process.health {
            config["Healthcheck"] = health(check);
        }
        json!({
            "Id": self.id,
            "RepoTags": self.tags,
            "RepoDigests": self.digests,
            "Parent": "",
            "Comment": "",
            "Created": timestamp::format(self.created_ns),
            "DockerVersion": "",
            "Author": "",
            "Architecture": "amd64",
            "Os": "linux",
            "Size": 0,
            "GraphDriver": { "Data": {}, "Name": "vm" },
            "RootFS": { "Type": "layers", "Layers": [] },
            "Metadata": { "LastTagTime": timestamp::format(self.created_ns) },
            "Config": config,
        })
    }

    fn history(&self) -> Value {
        json!([{
            "Comment": "its layers are with the machines that run it",
            "Created": self.created_ns / 1_000_000_000,
            "CreatedBy": "",
            "Id": self.id,
            "Size": 0,
            "Tags": self.tags,
        }])
    }
}

/// Docker Engine API, `HealthConfig`: nanoseconds.
fn health(check: &HealthCheck) -> Value {
    let ns = |time: std::time::Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let test: Vec<&str> = ["CMD"].into_iter().chain(check.argv.iter().map(String::as_str)).collect();
    json!({
        "Test": test,
        "Interval": ns(check.interval),
        "Timeout": ns(check.timeout),
        "StartPeriod": ns(check.start_period),
        "StartInterval": ns(check.start_interval),
        "Retries": check.retries,
    })
}

/// An image's name as docker shows it: without the registry and the folder that everybody means, and never without a tag.
#[derive(Debug, PartialEq, Eq)]
struct Name {
    repository: String,
    /// `:tag` or `@sha256:...`
    version: String,
    is_digest: bool,
}

impl Name {
    fn parse(text: &str) -> Name {
        let text = ["docker.io/library/", "index.docker.io/library/", "docker.io/", "index.docker.io/"]
            .iter()
            .find_map(|prefix| text.strip_prefix(prefix))
            .unwrap_or(text);
        let name =
            |repository: &str, version: String, is_digest| Name { repository: repository.into(), version, is_digest };
        if let Some((repository, digest)) = text.split_once('@') {
            // a tag beside a digest says nothing more
            let bare = tag(repository).map_or(repository, |(repository, _)| repository);
            return name(bare, format!("@{digest}"), true);
        }
        match tag(text) {
            Some((repository, tag)) => name(repository, format!(":{tag}"), false),
            None => name(text, ":latest".into(), false),
        }
    }

    /// Of an image whose id nobody told: it is the same for all that have the name.
    fn id(&self) -> String {
        format!("sha256:{}", state::id_from(self.to_string()))
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.repository, self.version)
    }
}

/// A colon before the last slash is a registry's port.
fn tag(text: &str) -> Option<(&str, &str)> {
    text.rsplit_once(':').filter(|(_, tag)| !tag.contains('/'))
}

#[cfg(test)]
mod tests;
