//! `iso-builder kernel`: what may be asked of the kernel's build, and of a kernel that others built.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use iso_builder::kernel::check::{self, Origin};
use iso_builder::kernel::selection::Selection;
use iso_builder::kernel::{self, Request, report};
use iso_builder::output::Output;
use iso_builder::progress;

use super::{Context, cpus, made, print};

#[derive(Debug, Args)]
pub(crate) struct Kernel {
    /// A tarball of Linux 6.12 [default: that of Debian's package linux-source-6.12]
    #[arg(long, value_name = "FILE")]
    source: Option<PathBuf>,
    /// Only these groups of options, and base; a path, as in `./my.config`, adds a file of your own to what there is
    #[arg(long, value_name = "NAME|FILE", num_args = 1..)]
    fragment: Vec<String>,
    /// All groups of options but these; what falls with them is told
    #[arg(long, value_name = "NAME", num_args = 1..)]
    without: Vec<String>,
    /// List the groups of options, with what each is for
    #[arg(long)]
    list: bool,
    /// Tell what the kernel weighs and what each group sets
    #[arg(long)]
    report: bool,
    /// Tell what this group costs: builds the kernel with it and without it, and compares
    #[arg(long, value_name = "NAME")]
    cost: Option<String>,
    /// Check this kernel, which others built, for what a containerVM needs, and build none
    #[arg(long, value_name = "FILE", conflicts_with_all = ["source", "fragment", "without", "cost", "output", "jobs"])]
    kernel: Option<PathBuf>,
    /// Its configuration [default: what lies beside it by custom, or is in it (CONFIG_IKCONFIG)]
    #[arg(long, value_name = "FILE", requires = "kernel")]
    config: Option<PathBuf>,
    /// Compilers at once [default: one for each CPU]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// Copy the kernel here too, and its configuration to FILE.config
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Kernel {
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<()> {
        if self.list {
            return print(&report::fragments());
        }
        if let Some(path) = &self.kernel {
            return foreign(path, self.config.as_deref());
        }
        let (image, config, selection) = self.build(&self.without, context)?;
        if let Some(path) = &self.output {
            copy(&image, path).with_context(|| path.display().to_string())?;
            let beside = PathBuf::from(format!("{}.config", path.display()));
            copy(&image.with_file_name("config"), &beside).with_context(|| beside.display().to_string())?;
        }
        let mut text = format!("{}\n", image.display());
        let read = |image: &Path| fs::read(image).with_context(|| image.display().to_string());
        let unreadable = |reason| anyhow::anyhow!("{}: {reason}", image.display());
        if self.report {
            text += &report::kernel(&read(&image)?, &config, &selection).map_err(unreadable)?;
        }
        if let Some(name) = &self.cost {
            let (other, others_config, _) =
                self.build(&[&self.without[..], std::slice::from_ref(name)].concat(), context)?;
            let (with, without) = (read(&image)?, read(&other)?);
            text += &report::cost(name, (&with, &config), (&without, &others_config)).map_err(unreadable)?;
        }
        context.tell(&text, || {
            let mut result = made(&image);
            if self.report || self.cost.is_some() {
                result["report"] = text.clone().into();
            }
            result
        })
    }

    /// A kernel and its configuration; tells what fell with what was left out.
    fn build(&self, without: &[String], context: &Context) -> anyhow::Result<(PathBuf, String, Selection)> {
        let selection = Selection::of(&self.fragment, without)?;
        let jobs = self.jobs.map_or_else(cpus, usize::from);
        let request =
            Request { source: self.source.clone(), cache: context.cache()?, jobs, selection: selection.clone() };
        let image = kernel::obtain(&request)?;
        let path = image.with_file_name("config");
        let config = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let lost = selection.lost(&config);
        if !lost.is_empty() {
            progress::note(&format!("kernel: lost with what was left out: {}", lost.join(", ")));
        }
        Ok((image, config, selection))
    }
}

/// Checks a kernel that others built.
fn foreign(path: &Path, config: Option<&Path>) -> anyhow::Result<()> {
    let kernel = check::Kernel::open(path, config)?;
    let sizes = report::sizes(&kernel.bytes).map_err(|reason| anyhow::anyhow!("{}: {reason}", path.display()))?;
    let origin = match &kernel.origin {
        Origin::File(path) => path.display().to_string(),
        Origin::Kernel => "the kernel itself".to_owned(),
    };
    kernel.check()?;
    print(&format!("{sizes}{} has all that a containerVM needs, by the options in {origin}\n", path.display()))
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    let mut output = Output::create(to)?;
    std::io::copy(&mut fs::File::open(from)?, output.file_mut())?;
    output.publish()
}
