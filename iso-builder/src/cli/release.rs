//! `iso-builder release`: what may be asked of a release, and which programs and kernel it takes when nothing is asked.

use std::path::PathBuf;

use clap::Args;
use iso_builder::artifacts::{self, Request};
use iso_builder::kernel;
use iso_builder::kernel::selection::Selection;
use iso_builder::view::json;
use serde_json::{Map, json};

use super::{Context, beside, cpus};

#[derive(Debug, Args)]
pub(crate) struct Release {
    /// The kernel to boot (a bzImage); a `manifest.json` beside it says what it was built from [default: the cached one, built if there is none]
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// PID 1 of a containerVM [default: `tether` beside this program]
    #[arg(long, value_name = "FILE")]
    tether: Option<PathBuf>,
    /// PID 1 of the appliance [default: `appliance-init` beside this program]
    #[arg(long, value_name = "FILE")]
    appliance_init: Option<PathBuf>,
    /// The Virtual Container Host, in the appliance [default: `vch` beside this program]
    #[arg(long, value_name = "FILE")]
    vch: Option<PathBuf>,
    /// The authorities whose certificates registries may have, in the appliance, in PEM [default: those of Debian's package ca-certificates]
    #[arg(long, value_name = "FILE")]
    ca_bundle: Option<PathBuf>,
    /// Which crates are in these three: what `cargo metadata --locked --format-version 1 --filter-platform x86_64-unknown-linux-musl` printed [default: left open]
    #[arg(long, value_name = "FILE")]
    crates: Option<PathBuf>,
    /// The git commit that these were built from
    #[arg(long, value_name = "HEX", value_parser = commit)]
    commit: Option<String>,
    /// What `rustc --version` said when these were built
    #[arg(long, value_name = "TEXT")]
    toolchain: Option<String>,
    /// Who builds, for the statement of provenance
    #[arg(long, value_name = "URI", value_parser = uri)]
    builder: Option<String>,
    /// The folder to write; a new one appears at once, in one that is there files are replaced
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
}

impl Release {
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<()> {
        let program = |named: Option<PathBuf>, name, option| named.map_or_else(|| beside(name, option), Ok);
        let kernel = match self.kernel {
            Some(path) => path,
            None => kernel::obtain(&kernel::Request {
                source: None,
                cache: context.cache()?,
                jobs: cpus(),
                selection: Selection::default(),
            })?,
        };
        let request = Request {
            kernel,
            tether: program(self.tether, "tether", "--tether")?,
            appliance_init: program(self.appliance_init, "appliance-init", "--appliance-init")?,
            vch: program(self.vch, "vch", "--vch")?,
            ca_bundle: self.ca_bundle,
            crates: self.crates,
            commit: self.commit,
            toolchain: self.toolchain,
            builder: self.builder,
            time: context.time,
        };
        let sums = artifacts::release(&request, &self.output)?;
        context.tell(&sums, || {
            let files = sums.lines().filter_map(|line| line.split_once("  "));
            let files: Vec<_> = files.map(|(sha256, name)| json!({"name": name, "sha256": sha256})).collect();
            let mut result = Map::new();
            json::put(&mut result, "output", self.output.as_os_str().as_encoded_bytes());
            result.insert("files".to_owned(), files.into());
            result.into()
        })
    }
}

fn commit(text: &str) -> Result<String, String> {
    let hex = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    match hex && matches!(text.len(), 40 | 64) {
        true => Ok(text.to_owned()),
        false => Err("not the whole name of a commit, 40 or 64 hexadecimal digits".to_owned()),
    }
}

fn uri(text: &str) -> Result<String, String> {
    let absolute = text
        .split_once(':')
        .is_some_and(|(scheme, rest)| scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && !rest.is_empty());
    match absolute && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(text.to_owned()),
        false => Err("not a URI, as in https://example.org/builder".to_owned()),
    }
}
