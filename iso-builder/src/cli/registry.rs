//! What may be asked of registries, by every command that takes an image, and how a pull is told.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, ValueEnum};
use iso_builder::content::Store;
use iso_builder::content::document::Platform;
use iso_builder::oci::Reference;
use iso_builder::progress::Progress;
use iso_builder::registry::{Mirror, Name, Settings, Source, When};

use super::Context;

/// How registries are spoken to.
#[derive(Debug, Args)]
#[command(next_help_heading = "Registries")]
pub(crate) struct Registries {
    /// Ask there first, for images of Docker Hub or of HOST; also TETHER_MIRRORS, also docker's daemon.json
    #[arg(long, value_name = "[HOST=]URL", value_parser = Mirror::parse)]
    mirror: Vec<Mirror>,
    /// Trust this authority too; also TETHER_REGISTRY_CA, also /etc/docker/certs.d/HOST/ca.crt
    #[arg(long = "ca", value_name = "FILE")]
    authority: Vec<PathBuf>,
    /// Speak to registries without TLS; to some only: TETHER_PLAIN_HTTP=HOST,..
    #[arg(long)]
    plain_http: bool,
    /// How long a registry may say nothing
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: Option<u64>,
    /// How often one thing is tried when it fails in a way that may pass
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    attempts: Option<u32>,
}

impl Registries {
    pub(super) fn settings(&self) -> anyhow::Result<Settings> {
        let mut settings = Settings::of_user(&|name| std::env::var_os(name)).map_err(anyhow::Error::msg)?;
        if !self.mirror.is_empty() {
            settings.mirrors.clone_from(&self.mirror);
        }
        settings.authorities.extend(self.authority.iter().cloned());
        if self.plain_http {
            settings.plain_http.insert("*".to_owned());
        }
        settings.timeout = self.timeout.map_or(settings.timeout, Duration::from_secs);
        settings.attempts = self.attempts.unwrap_or(settings.attempts);
        Ok(settings)
    }
}

/// The image that a command is about, and how it is obtained.
#[derive(Debug, Args)]
pub(crate) struct Image {
    // no doc comment: rustdoc would take the brackets for links
    #[arg(
        value_name = "IMAGE",
        help = "docker-archive:FILE[:NAME], oci:DIR[:TAG], a file or directory of either kind, docker://NAME, or just NAME as docker has it"
    )]
    asked: Reference,
    /// When to pull an image that has a name in a registry
    #[arg(long, value_enum, default_value_t = Pull::Missing, help_heading = "Registries")]
    pull: Pull,
    #[command(flatten)]
    registries: Registries,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Pull {
    Always,
    Missing,
    Never,
}

impl Image {
    /// What the user wrote, as something to open: pulled, if that must be.
    pub(super) fn obtain(&self, context: &Context) -> anyhow::Result<Reference> {
        let asked = &self.asked;
        if asked.name().is_none() {
            return Ok(asked.clone());
        }
        let when = match self.pull {
            Pull::Always => When::Always,
            Pull::Missing => When::Missing,
            Pull::Never => When::Never,
        };
        let (store, settings) = (Store::open(&context.cache()?)?, self.registries.settings()?);
        let platform = Platform::this_host();
        let source = Source { store: &store, settings: &settings, when, platform, now: now() };
        let mut teller = Teller::default();
        Ok(source.obtain(asked, &mut |name, progress| teller.tell(name, progress))?)
    }
}

/// Tells how far a pull is.
#[derive(Default)]
pub(super) struct Teller(Option<Progress>);

impl Teller {
    pub(super) fn tell(&mut self, name: &Name, progress: iso_builder::registry::Progress) {
        let bar = self.0.get_or_insert_with(|| Progress::bytes(&format!("pull {name}"), progress.size));
        bar.reach(progress.read, progress.size);
    }
}

pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
