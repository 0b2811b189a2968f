//! What the options of a container refer to outside of the command line: variables of the environment, files of variables and labels, a seccomp profile.
//!
//! It is read once, before anything is made. What it means is decided in [`crate::plan`].

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::cli::ContainerArgs;
use crate::{plan, seccomp};

/// What was read. Variables are secrets, so there is no `Debug`.
pub struct Inputs {
    /// The assignments of `--env-file` and `-e`, in order.
    pub variables: Vec<String>,
    /// The filter of `--security-opt seccomp=FILE`, as seccomp(2) takes it.
    pub seccomp: Option<Vec<u8>>,
    labels: Vec<String>,
}

impl Inputs {
    pub fn read(args: &ContainerArgs) -> Result<Inputs> {
        let mut variables = lines(&args.env_file)?;
        variables.extend(args.env.iter().cloned());
        for entry in &mut variables {
            *entry = plan::resolve(entry, |name| std::env::var(name).ok())?;
        }
        let mut labels = lines(&args.label_file)?;
        labels.extend(args.label.iter().cloned());
        Ok(Inputs { variables, seccomp: seccomp::filter(&args.process)?, labels })
    }

    /// The image's labels, and those that were asked for.
    pub fn labels(&self, mut image: BTreeMap<String, String>) -> BTreeMap<String, String> {
        image.extend(self.labels.iter().map(|label| {
            let (key, value) = label.split_once('=').unwrap_or((label, ""));
            (key.to_owned(), value.to_owned())
        }));
        image
    }
}

/// The entries of files as `--env-file` takes them.
fn lines(files: &[PathBuf]) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for file in files {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        lines.extend(plan::env_file(&text).map(str::to_owned));
    }
    Ok(lines)
}
