//! `iso-builder pull`: what may be asked of a pull.

use clap::Args;
use iso_builder::content::Store;
use iso_builder::content::document::Platform;
use iso_builder::progress;
use iso_builder::registry::{self, Name};
use serde_json::json;

use super::Context;
use super::registry::{Registries, Teller, now};

#[derive(Debug, Args)]
pub(crate) struct Pull {
    /// The image, as docker names it: alpine, ghcr.io/a/b:tag, localhost:5000/x@sha256:..
    #[arg(value_name = "IMAGE", value_parser = image)]
    image: Name,
    /// Of an image for several platforms, the one for this [default: linux/amd64]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", value_parser = platform)]
    platform: Option<Platform>,
    #[command(flatten)]
    registries: Registries,
}

impl Pull {
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<()> {
        let store = Store::open(&context.cache()?)?;
        let settings = self.registries.settings()?;
        let platform = self.platform.unwrap_or_else(Platform::this_host);
        let mut teller = Teller::default();
        let tell = &mut |progress| teller.tell(&self.image, progress);
        let pulled = registry::pull(&self.image, &platform, &store, &settings, now(), tell)?;
        drop(teller);
        let what = if pulled.was_here { "was here already" } else { "pulled" };
        progress::note(&format!("{}: {what}", self.image));
        context.tell(&format!("{}\n", pulled.digest), || {
            let (name, digest) = (self.image.to_string(), pulled.digest.to_string());
            json!({"name": name, "digest": digest, "size": pulled.size, "was_here": pulled.was_here})
        })
    }
}

pub(super) fn image(text: &str) -> Result<Name, registry::NameError> {
    text.strip_prefix("docker://").unwrap_or(text).parse()
}

fn platform(text: &str) -> Result<Platform, String> {
    Platform::parse(text).ok_or_else(|| "it is written OS/ARCHITECTURE[/VARIANT], as in linux/arm64".to_owned())
}
