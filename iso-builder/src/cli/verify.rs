//! `iso-builder verify`: whether a file is what it claims to be, and what it becomes when it is built once more.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, CommandFactory as _, Parser as _};
use iso_builder::progress::Progress;
use iso_builder::verify::{self, Differs, Published};
use iso_builder::view::text::{self, Shown};
use iso_builder::view::{self, Ignore, Place, View, json};
use serde_json::{Map, Value};

use super::{Cli, Context, diff, print};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  iso-builder verify disk.vmdk
  iso-builder verify bootstrap.iso bootstrap --kernel bzImage --init tether --epoch 1700000000
  iso-builder verify disk.vmdk disk image.tar --format vmdk

The file is compared with the digest beside it (FILE.sha256 or SHA256SUMS), the image's own checksums are checked, and all that it holds is read. \
With the command that built it, without --output, it is built again in a temporary directory (TMPDIR) and compared byte for byte.
Exit status: 0 all is well, 1 it is damaged or differs, 2 trouble.")]
pub(crate) struct Verify {
    /// What was built
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// How: the words that follow `iso-builder`
    #[arg(value_name = "COMMAND", trailing_var_arg = true)]
    command: Vec<OsString>,
}

impl Verify {
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<ExitCode> {
        let mut findings = Findings { file: self.file.clone(), bad: false, report: Map::new(), json: context.json };
        std::fs::metadata(&self.file).with_context(|| shown(&self.file))?;
        let dir = tempfile::tempdir_in(&context.spool).with_context(|| shown(&context.spool))?;
        let again = (!self.command.is_empty()).then(|| self.again(dir.path(), context)).transpose()?;
        if self.file.is_file() {
            findings.digest()?;
        }
        let view = findings.inside(context)?;
        if let Some(again) = again {
            again.rebuild(context).context("it cannot be built again")?;
            findings.compare(dir.path(), view.as_ref(), context)?;
        }
        if context.json {
            findings.report.insert("ok".to_owned(), (!findings.bad).into());
            print(&format!("{}\n", json::line(&findings.report.into())))?;
        }
        Ok(ExitCode::from(u8::from(findings.bad)))
    }

    /// The command, with a file of the same name in `dir` as its output.
    fn again(&self, dir: &Path, context: &Context) -> anyhow::Result<Cli> {
        let known = Cli::command();
        let into_a_file = |argument: &clap::Arg| {
            let value = argument.get_value_names().and_then(|names| names.first()).map(|name| name.as_str());
            argument.get_long() == Some("output") && value == Some("FILE")
        };
        let builds = |command: &&clap::Command| command.get_arguments().any(into_a_file);
        let builders: Vec<&str> = known.get_subcommands().filter(builds).map(clap::Command::get_name).collect();
        let word = Shown(self.command[0].as_encoded_bytes()).to_string();
        anyhow::ensure!(
            builders.contains(&word.as_str()),
            "{word}: no command that builds a file; those are {}",
            builders.join(", ")
        );
        let name = self.file.file_name().with_context(|| shown(&self.file))?;
        let mut words: Vec<OsString> =
            vec!["iso-builder".into(), "--epoch".into(), context.time.secs.to_string().into()];
        if let Some(cache) = &context.cache {
            words.extend(["--cache".into(), cache.into()]);
        }
        words.extend(self.command.iter().cloned());
        words.extend(["--output".into(), dir.join(name).into()]);
        Ok(Cli::try_parse_from(words).unwrap_or_else(|error| error.exit()))
    }
}

/// What was found so far.
struct Findings {
    file: PathBuf,
    /// Something is not as it should be.
    bad: bool,
    report: Map<String, Value>,
    json: bool,
}

impl Findings {
    fn digest(&mut self) -> anyhow::Result<()> {
        let (word, text) = match verify::digest(&self.file)? {
            Published::Nowhere => ("none", "none lies beside it".to_owned()),
            Published::Same { beside } => ("same", format!("that of {}", shown(&beside))),
            Published::Other { beside, said, found } => {
                self.bad = true;
                ("other", format!("{found}, where {} says {}", shown(&beside), Shown(said.as_bytes())))
            }
        };
        self.say("digest", word.into(), &text)
    }

    /// Reads all that the image holds; `None` for what is no image, or none that can be read.
    fn inside(&mut self, context: &Context) -> anyhow::Result<Option<View>> {
        let place = Place { file: self.file.clone().into(), paths: Vec::new() };
        let view = match view::open(&place, view::Links::Follow, &context.spool) {
            Ok(view) => view,
            Err(error) if error.is_unknown() => {
                self.say("contents", "unknown".into(), "not looked into: it is no image of a kind that is known here")?;
                return Ok(None);
            }
            Err(error) if error.is_damage() => {
                self.bad = true;
                self.say("contents", "damaged".into(), &format!("damaged: {:#}", anyhow::Error::from(error)))?;
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        let mut progress = Progress::bytes("read", view::count(&view.tree).stored);
        match verify::contents(&view.tree, &mut |bytes| progress.advance(bytes)) {
            Ok(bytes) => {
                drop(progress);
                self.say(
                    "contents",
                    "readable".into(),
                    &format!("{}, all {} can be read", view.described(), text::size(bytes)),
                )?;
            }
            Err(error) => {
                drop(progress);
                self.bad = true;
                self.say("contents", "damaged".into(), &format!("damaged: {:#}", anyhow::Error::from(error)))?;
            }
        }
        Ok(Some(view))
    }

    /// Compares the file, and what else the command made, with what lies beside the file under the same names.
    fn compare(&mut self, dir: &Path, view: Option<&View>, context: &Context) -> anyhow::Result<()> {
        let mut made = std::fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
        made.sort_by_key(|name| (Some(name.as_os_str()) != self.file.file_name(), name.clone()));
        for name in made {
            let (ours, theirs) = (self.file.with_file_name(&name), dir.join(&name));
            if !ours.exists() && self.file.file_name() != Some(&name) {
                continue;
            }
            let mut progress = Progress::bytes("compare", theirs.metadata()?.len());
            let differs = verify::bytes(&ours, &theirs, &mut |bytes| progress.advance(bytes))?;
            drop(progress);
            let text = match differs {
                None => "the same bytes".to_owned(),
                Some(Differs::At(at)) => format!("other bytes, from byte {at}"),
                Some(Differs::Size(a, b)) => format!("{b} bytes, not {a}"),
            };
            let text = format!("{}: {text}", shown(&ours));
            let value = match differs {
                None => Value::from("same"),
                Some(Differs::At(at)) => serde_json::json!({"offset": at}),
                Some(Differs::Size(a, b)) => serde_json::json!({"size": [a, b]}),
            };
            let key = if Some(name.as_os_str()) == self.file.file_name() { "rebuilt" } else { "beside" };
            let value = match key {
                "rebuilt" => value,
                // there may be several: by name
                _ => {
                    let mut beside = self.report.remove(key).unwrap_or_else(|| Map::new().into());
                    beside[name.to_string_lossy().into_owned()] = value;
                    beside
                }
            };
            self.say(key, value, &text)?;
            self.bad |= differs.is_some();
            if let (Some(_), Some(view), "rebuilt") = (differs, view, key) {
                self.explain(view, theirs, context)?;
            }
        }
        Ok(())
    }

    /// Says how the files of two images that have different bytes differ.
    fn explain(&mut self, view: &View, rebuilt: PathBuf, context: &Context) -> anyhow::Result<()> {
        let place = Place { file: rebuilt.into(), paths: Vec::new() };
        let rebuilt = view::open(&place, view::Links::Follow, &context.spool)?;
        let mut text = Vec::new();
        let count = diff::differences(view, &rebuilt, Ignore::default(), self.json, &mut text)?;
        let text = String::from_utf8(text)?;
        if self.json {
            self.report.insert("differences".to_owned(), serde_json::from_str(&format!("[{text}]"))?);
            return Ok(());
        }
        match count {
            0 => print("  the files in them are the same\n"),
            _ => text.lines().try_for_each(|line| print(&format!("  {line}\n"))),
        }
    }

    fn say(&mut self, key: &str, value: Value, text: &str) -> anyhow::Result<()> {
        self.report.insert(key.to_owned(), value);
        match self.json {
            true => Ok(()),
            false => print(&format!("{key:<9} {text}\n")),
        }
    }
}

fn shown(path: &Path) -> String {
    Shown(path.as_os_str().as_encoded_bytes()).to_string()
}
