//! Docker pull, told layer by layer as docker's daemon does.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use iso_builder::content::document::Platform;
use iso_builder::oci::Digest;
use iso_builder::registry::{Coming, Error, Name, Reason, Version};
use serde_json::json;

use super::event;
use super::lines::{self, Teller};
use crate::api::error::ApiError;
use crate::api::query::Params;
use crate::ids;
use crate::image_store::{self, PullError, familiar, repository};
use crate::maker::Maker;

pub(super) async fn pull(
    maker: Arc<Maker>,
    image: &str,
    params: &Params,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    let name = asked(image, params)?;
    let settings = settings(&name, headers)?;
    lines::answer(move |teller| {
        let mut told = Told { teller, name: &name, layers: BTreeMap::new(), begun: false };
        let pulled = maker.images.pull(&name, &settings, &mut |coming| told.layers(coming));
        let pulled = pulled.map_err(|error| explained(&name, error))?;
        told.end();
        teller.tell(json!({ "status": format!("Digest: {}", pulled.digest) }));
        let what = if pulled.was_here { "Image is up to date" } else { "Downloaded newer image" };
        teller.tell(json!({ "status": format!("Status: {what} for {}", pulled.name) }));
        let image = maker.images.find(&pulled.id).ok();
        event(&maker, "pull", &pulled.name, repository(&pulled.name), image.as_deref());
        Ok(())
    })
    .await
}

/// The name; a digest comes where a tag would.
fn asked(image: &str, params: &Params) -> Result<Name, ApiError> {
    let text = match params.text("tag") {
        Some(tag) if tag.contains(':') => format!("{image}@{tag}"),
        Some(tag) => format!("{image}:{tag}"),
        None if repository(image) == image => {
            return Err(ApiError::not_implemented(format!(
                "this host does not pull all tags of a repository at once: docker pull {image}:TAG pulls one"
            )));
        }
        None => image.to_owned(),
    };
    let name =
        text.parse::<Name>().map_err(|error| ApiError::bad_parameter(format!("invalid reference format: {error}")))?;
    if let Some(wanted) = params.text("platform") {
        let platform = Platform::parse(wanted)
            .ok_or_else(|| ApiError::bad_parameter(format!("{wanted:?} is no platform: it is OS/ARCHITECTURE")))?;
        if !platform.takes(&Platform::this_host()) {
            return Err(ApiError::not_implemented(format!(
                "containers are virtual machines of linux/amd64 here, and run no image for {platform}"
            )));
        }
    }
    Ok(name)
}

/// How its registry is reached, with the client's login.
pub(super) fn settings(name: &Name, headers: &HeaderMap) -> Result<iso_builder::registry::Settings, ApiError> {
    let header = headers.get("x-registry-auth").and_then(|value| value.to_str().ok());
    let credentials = image_store::credentials(header, name.host()).map_err(ApiError::bad_parameter)?;
    image_store::settings(credentials).map_err(ApiError::internal)
}

/// In docker's words, where it has some.
pub(super) fn explained(name: &Name, error: PullError) -> ApiError {
    let shown = familiar(&name.to_string());
    let failed = match error {
        PullError::Registry(Error::Pull(failed)) => failed,
        // what only its causes say: that the disk is full
        PullError::Registry(error) => return ApiError::internal(format!("{:#}", anyhow::Error::from(error))),
        PullError::Failed(_) => return ApiError::internal(error.to_string()),
    };
    match &failed.reason {
        Reason::Missing(said) => {
            let said = if said.is_empty() { "there is none" } else { said };
            ApiError::not_found(format!("manifest for {shown} not found: manifest unknown: {said}"))
        }
        Reason::Guest { said, .. } => {
            let said = if said.is_empty() { "denied" } else { said };
            ApiError::not_found(format!(
                "pull access denied for {}, repository does not exist or may require 'docker login': denied: {said}",
                repository(&shown)
            ))
        }
        Reason::Denied { said, .. } => {
            let said = if said.is_empty() { "authentication required" } else { said };
            ApiError::new(StatusCode::UNAUTHORIZED, format!("unauthorized: {said}"))
        }
        Reason::Platform { found, .. } => ApiError::not_found(format!(
            "no matching manifest for linux/amd64 in the manifest list entries: {shown} is for {found}"
        )),
        _ => ApiError::internal(failed.to_string()),
    }
}

/// What a client knows of each layer.
struct Told<'a> {
    teller: &'a Teller,
    name: &'a Name,
    layers: BTreeMap<Digest, Layer>,
    begun: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layer {
    Waits,
    At(u64),
    There,
    WasThere,
}

impl Told<'_> {
    /// Tells what is new. The pull is given up when nobody hears of it.
    fn layers(&mut self, coming: &[Coming]) -> ControlFlow<()> {
        let mut hears = true;
        if !self.begun {
            self.begun = true;
            let version = match self.name.version() {
                Version::Tag(tag) => tag.clone(),
                Version::Digest(_) => self.name.to_string(),
            };
            let of = format!("Pulling from {}", self.name.repository());
            hears &= self.teller.tell(json!({ "status": of, "id": version }));
        }
        for layer in coming {
            let digits = layer.digest.hex();
            let id = ids::short(&digits);
            let mut say = |status: &str, progress| {
                hears &= self.teller.tell(json!({ "status": status, "progressDetail": progress, "id": id }));
            };
            let before = self.layers.get(&layer.digest).copied();
            let now = match before {
                None if layer.was_here => {
                    say("Already exists", json!({}));
                    Layer::WasThere
                }
                None => {
                    say("Pulling fs layer", json!({}));
                    Layer::Waits
                }
                Some(Layer::Waits | Layer::At(_)) if layer.is_here => {
                    say("Download complete", json!({}));
                    Layer::There
                }
                Some(Layer::Waits | Layer::At(_)) if layer.read > 0 && before != Some(Layer::At(layer.read)) => {
                    say("Downloading", json!({ "current": layer.read, "total": layer.size }));
                    Layer::At(layer.read)
                }
                Some(same) => same,
            };
            self.layers.insert(layer.digest, now);
        }
        if hears { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }

    /// All disks are made.
    fn end(&self) {
        for (digest, layer) in &self.layers {
            if *layer != Layer::WasThere {
                let digits = digest.hex();
                let id = ids::short(&digits);
                self.teller.tell(json!({ "status": "Pull complete", "progressDetail": {}, "id": id }));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use iso_builder::content;

    use super::*;

    #[test]
    fn a_pull_that_fails_here_is_told_with_its_cause() {
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let of_store = content::Error::File { path: "/state/x".into(), source: full() };
        let name = "busybox".parse().unwrap();
        for (error, words) in [
            (PullError::Registry(of_store.into()), "the store of images: /state/x: no storage space"),
            (
                PullError::Failed(anyhow::Error::from(full()).context("cannot make a disk")),
                "cannot make a disk: no storage space",
            ),
        ] {
            let shown = explained(&name, error);
            assert!(shown.message.contains(words), "{shown:?}");
            assert_eq!(shown.message.matches("no storage space").count(), 1, "{shown:?}");
        }
    }
}
