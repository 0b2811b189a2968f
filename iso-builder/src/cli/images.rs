//! `iso-builder images`, `rmi` and `gc`: what is in the store of pulled images, and what is to leave it.

use std::fmt::Write as _;
use std::time::Duration;

use clap::Args;
use iso_builder::content::{Collected, Keep, Store};
use iso_builder::progress::note;
use iso_builder::registry::Name;
use iso_builder::view::text;
use serde_json::{Value, json};

use super::registry::now;
use super::{Context, pull, size};

/// A table of the images that were pulled.
pub(super) fn list(context: &Context) -> anyhow::Result<()> {
    let store = Store::open(&context.cache()?)?;
    let now = now();
    let mut images = Vec::new();
    let mut rows = vec![["IMAGE", "DIGEST", "SIZE", "USED"].map(str::to_owned)];
    for named in store.names()? {
        let bytes: u64 = store.parts(&named)?.values().sum();
        let (digest, age) = (named.descriptor.digest.to_string(), ago(now.saturating_sub(named.used)));
        images.push(json!({"name": named.name, "digest": digest, "size": bytes, "used": named.used}));
        rows.push([named.name, digest, text::size(bytes), age]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let (name, digest, size) = (width(0), width(1), width(2));
    let mut table = String::new();
    for row in &rows {
        writeln!(table, "{:name$}  {:digest$}  {:>size$}  {}", row[0], row[1], row[2], row[3])?;
    }
    context.tell(&table, || json!({"images": images}))
}

#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// Names of images, as `images` shows them or as docker shortens them
    #[arg(value_name = "IMAGE", required = true, value_parser = pull::image)]
    images: Vec<Name>,
}

impl Remove {
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<()> {
        let store = Store::open(&context.cache()?)?;
        let names: Vec<String> = self.images.iter().map(Name::to_string).collect();
        for name in &names {
            anyhow::ensure!(store.forget(name)?, "{name} is not here; `iso-builder images` shows what is");
        }
        let collected = store.collect(Keep::default(), now())?;
        note(&format!("{} freed", text::size(collected.bytes)));
        context.tell("", || removed(&names, &collected))
    }
}

#[derive(Debug, Args)]
pub(crate) struct Collect {
    /// Also forget images that nobody has used for so many days
    #[arg(long, value_name = "DAYS")]
    older_than: Option<u64>,
    /// Also forget those that were used longest ago, until the rest takes so much, as in 10G
    #[arg(long, value_name = "SIZE", value_parser = size)]
    keep_bytes: Option<u64>,
}

impl Collect {
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<()> {
        let store = Store::open(&context.cache()?)?;
        let days = |days: u64| Duration::from_secs(days.saturating_mul(24 * 60 * 60));
        let keep = Keep { used_within: self.older_than.map(days), bytes: self.keep_bytes };
        let collected = store.collect(keep, now())?;
        for name in &collected.images {
            note(&format!("{name}: forgotten"));
        }
        let (freed, kept) = (text::size(collected.bytes), text::size(collected.kept));
        note(&format!("{} blobs and {freed} freed; {kept} stay", collected.blobs));
        context.tell("", || removed(&collected.images, &collected))
    }
}

/// What was removed, for a machine.
fn removed(images: &[String], collected: &Collected) -> Value {
    json!({"images": images, "blobs": collected.blobs, "freed": collected.bytes, "kept": collected.kept})
}

fn ago(seconds: u64) -> String {
    match seconds {
        0..60 => "just now".to_owned(),
        60..3_600 => format!("{} min ago", seconds / 60),
        3_600..172_800 => format!("{} h ago", seconds / 3_600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_as_people_read_them() {
        for (seconds, text) in [(0, "just now"), (61, "1 min ago"), (90_000, "25 h ago"), (172_800, "2 days ago")] {
            assert_eq!(ago(seconds), text);
        }
    }
}
