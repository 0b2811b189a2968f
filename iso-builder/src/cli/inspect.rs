//! `iso-builder inspect`: what an image is, and all that its format says.
//!
//! What is shown of a format is decided by its `dump`; what is inside, by `view`.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Seek as _;
use std::path::Path;

use anyhow::Context as _;
use clap::Args;
use iso_builder::tree::{Kind, ROOT};
use iso_builder::view::text::{self, Shown};
use iso_builder::view::{self, Format, Label, Links, Place, View, json};
use iso_builder::{ext4, iso9660, vmdk};
use serde_json::Value;

use super::{Context, place, print};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  iso-builder inspect bootstrap.iso
  iso-builder inspect bootstrap.iso:/boot/initramfs.cpio
  iso-builder inspect --json disk.vmdk | jq .formats

Shown are the files with their attributes and SHA-256, and what the format says besides: labels, boot records, where things lie. \
`iso-builder ls --help` says how a PATH is written.")]
pub(crate) struct Inspect {
    #[arg(value_name = "FILE[:PATH]", value_parser = place(), value_hint = clap::ValueHint::AnyPath, help = "The image: ISO, initramfs, ext4, VMDK, partitioned disk, docker-archive or OCI layout, or one in another")]
    place: Place,
}

impl Inspect {
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<()> {
        let view = view::open_image(&self.place, &context.spool)?;
        anyhow::ensure!(
            view.node == ROOT || matches!(view.node().kind, Kind::Dir(_)),
            "{}: a {} that is no image; `iso-builder ls -l` shows it",
            self.place,
            text::kind(&view.node().kind)
        );
        match context.json {
            true => print(&format!("{}\n", json::line(&report(&view)))),
            false => print(&self.text(&view, context).with_context(|| self.place.to_string())?),
        }
    }

    fn text(&self, view: &View, context: &Context) -> anyhow::Result<String> {
        let mut text = match view.formats.last() {
            Some(Format::Container) => container(view),
            _ => dump(view, &self.file(context)?)?,
        };
        let counts = view::count(&view.tree);
        let kinds = [
            (counts.directories, "directory", "directories"),
            (counts.files, "file", "files"),
            (counts.symlinks, "symlink", "symlinks"),
            (counts.others, "special file", "special files"),
        ];
        let kinds: Vec<String> = kinds
            .into_iter()
            .filter(|(count, ..)| *count > 0)
            .map(|(count, one, many)| format!("{count} {}", if count == 1 { one } else { many }))
            .collect();
        let (bytes, stored) = (text::size(counts.bytes), text::size(counts.stored));
        writeln!(text, "{}: {}; {bytes}, of which {stored} are no holes", view.described(), kinds.join(", "))?;
        Ok(text)
    }

    /// The image as a file of its own, which the formats' dumps read.
    fn file(&self, context: &Context) -> anyhow::Result<File> {
        if self.place.paths.is_empty() {
            return Ok(File::open(Path::new(&self.place.file))?);
        }
        let view = view::open(&self.place, Links::Follow, &context.spool)?;
        let Kind::File(content) = &view.node().kind else {
            anyhow::bail!("a directory of an image is none itself; `iso-builder ls -lR` shows it");
        };
        let mut file = tempfile::tempfile_in(&context.spool).with_context(|| context.spool.display().to_string())?;
        view::copy(content, &mut &file, Some(&file))?;
        file.rewind()?;
        Ok(file)
    }
}

/// What the format says about the file that is in it.
fn dump(view: &View, file: &File) -> anyhow::Result<String> {
    Ok(match view.formats[view.around] {
        Format::Iso => iso9660::dump::dump(file)?,
        Format::Ext4 => ext4::dump(file)?,
        Format::Vmdk => vmdk::dump(file)?,
        Format::Cpio | Format::Partition { .. } | Format::Container => {
            let mut text = Vec::new();
            view::dump(&view.tree, &mut text)?;
            String::from_utf8(text)?
        }
    })
}

/// What a container image says about running it.
fn container(view: &View) -> String {
    let Some(image) = &view.container else { return String::new() };
    let config = &image.config;
    let mut text = {
        let (platform, layers) = (format!("{}/{}", config.os, config.architecture), image.chain().len());
        format!("{} for {}, {layers} layers\n", image.digest, Shown(platform.as_bytes()))
    };
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            text.push_str(&format!("{name}: {value}\n"));
        }
    };
    // JSON's quotes show where a word ends, and its escapes what cannot be seen.
    let words = |words: &[String]| match words {
        [] => String::new(),
        words => json::line(&words.into()),
    };
    let shown = |text: &str| Shown(text.as_bytes()).to_string();
    line("entrypoint", &words(&config.entrypoint));
    line("cmd", &words(&config.cmd));
    config.env.iter().for_each(|value| line("env", &shown(value)));
    line("working directory", &shown(&config.working_dir));
    line("user", &shown(&config.user));
    config.exposed_ports.iter().for_each(|port| line("port", &shown(port)));
    config.volumes.iter().for_each(|volume| line("volume", &shown(volume)));
    config.labels.iter().for_each(|(name, value)| line("label", &shown(&format!("{name}={value}"))));
    line("stop signal", &shown(config.stop_signal.as_deref().unwrap_or_default()));
    text
}

fn report(view: &View) -> Value {
    let mut report = serde_json::json!({
        "formats": json::formats(&view.formats),
        "counts": json::counts(&view::count(&view.tree)),
    });
    if let Value::Object(report) = &mut report {
        let Label { label, uuid, publisher } = &view.label;
        for (name, value) in [("label", label), ("publisher", publisher)] {
            if !value.is_empty() {
                json::put(report, name, value);
            }
        }
        report.extend(uuid.clone().map(|uuid| ("uuid".to_owned(), uuid.into())));
    }
    if let Some(image) = &view.container {
        report["container"] = json::container(image);
    }
    report
}
