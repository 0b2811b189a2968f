//! `iso-builder diff`: what differs between the files of two images.

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use iso_builder::progress::Progress;
use iso_builder::view::text::{self, Shown};
use iso_builder::view::{self, Aspect, Change, CompareError, Difference, Ignore, Place, View, json};

use super::{Context, place, printed};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  iso-builder diff old.iso new.iso
  iso-builder diff --ignore times,owners image.tar disk.vmdk
  iso-builder diff old.iso:/boot/initramfs.cpio new.iso:/boot/initramfs.cpio

The images may be of different kinds. What they say besides their files (labels, boot records) is not compared; `cmp` compares bytes.
Exit status: 0 the files are the same, 1 they differ, 2 trouble.")]
pub(crate) struct Diff {
    #[arg(value_name = "FIRST", value_parser = place(), value_hint = clap::ValueHint::AnyPath, help = "FILE or FILE:PATH: an image, a directory in one, or a file in one")]
    first: Place,
    #[arg(value_name = "SECOND", value_parser = place(), value_hint = clap::ValueHint::AnyPath, help = "What it is compared with")]
    second: Place,
    /// What need not be the same
    #[arg(long, value_enum, value_name = "WHAT", value_delimiter = ',')]
    ignore: Vec<Ignored>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Ignored {
    Times,
    Owners,
    Modes,
    Xattrs,
}

impl Diff {
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<ExitCode> {
        let first = view::open_image(&self.first, &context.spool)?;
        let second = view::open_image(&self.second, &context.spool)?;
        let ignores = |what| self.ignore.contains(&what);
        let ignore = Ignore {
            times: ignores(Ignored::Times),
            owners: ignores(Ignored::Owners),
            modes: ignores(Ignored::Modes),
            xattrs: ignores(Ignored::Xattrs),
        };
        let mut out = BufWriter::new(io::stdout().lock());
        if context.json {
            let formats = [&first, &second].map(|view| json::line(&json::formats(&view.formats)));
            printed(write!(out, "{{\"first\":{},\"second\":{},\"differences\":[", formats[0], formats[1]))?;
        }
        let count = differences(&first, &second, ignore, context.json, &mut out)?;
        if context.json {
            printed(writeln!(out, "{}]}}", if count > 0 { "\n" } else { "" }))?;
        }
        printed(out.flush())?;
        Ok(ExitCode::from(u8::from(count > 0)))
    }
}

/// Writes each difference as it is found, and gives their number. Of JSON, what stands between the brackets.
pub(super) fn differences(
    first: &View,
    second: &View,
    ignore: Ignore,
    as_json: bool,
    out: &mut dyn Write,
) -> anyhow::Result<u64> {
    let mut count = 0;
    let mut progress = Progress::bytes("compare", view::count(&first.tree).stored);
    let read = &mut |bytes| progress.advance(bytes);
    let trees = ((&first.tree, first.node), (&second.tree, second.node));
    let compared = view::compare(trees.0, trees.1, ignore, read, &mut |difference| {
        let comma = if count > 0 { "," } else { "" };
        count += 1;
        match as_json {
            true => write!(out, "{comma}\n{}", json::line(&json::difference(&difference))),
            false => writeln!(out, "{}", line(&difference)),
        }
        .map_err(Stop::Write)
    });
    match compared {
        Ok(()) => Ok(count),
        Err(Stop::Read(error)) => Err(error.into()),
        Err(Stop::Write(error)) => printed(Err(error)).map(|()| count),
    }
}

enum Stop {
    Read(CompareError),
    Write(io::Error),
}

impl From<CompareError> for Stop {
    fn from(error: CompareError) -> Stop {
        Stop::Read(error)
    }
}

/// `-` only the first has it, `+` only the second, `~` it differs.
fn line(difference: &Difference) -> String {
    let path = Shown(&difference.path);
    let lone = |what: &str, below: usize| match below {
        0 => what.to_owned(),
        below => format!("{what}, {below} below it"),
    };
    match &difference.change {
        Change::Removed { what, below } => format!("- {path} ({})", lone(what, *below)),
        Change::Added { what, below } => format!("+ {path} ({})", lone(what, *below)),
        Change::Changed(aspects) => {
            let aspects: Vec<String> = aspects.iter().map(aspect).collect();
            format!("~ {path}: {}", aspects.join("; "))
        }
    }
}

fn aspect(aspect: &Aspect) -> String {
    let value = |value: &Option<Vec<u8>>| {
        value.as_deref().map_or_else(|| "none".to_owned(), |value| format!("\"{}\"", Shown(value)))
    };
    let link = |path: &Option<Vec<u8>>| {
        path.as_deref().map_or_else(|| "a file of its own".to_owned(), |path| format!("a link to {}", Shown(path)))
    };
    match aspect {
        Aspect::Type(a, b) => format!("{a} -> {b}"),
        Aspect::Mode(a, b) => format!("mode {a:04o} -> {b:04o}"),
        Aspect::Owner(a, b) => format!("owner {}:{} -> {}:{}", a.0, a.1, b.0, b.1),
        Aspect::Time(a, b) => format!("time {} -> {}", text::exact_time(*a), text::exact_time(*b)),
        Aspect::Xattr(name, a, b) => format!("xattr {} {} -> {}", Shown(name), value(a), value(b)),
        Aspect::Target(a, b) => format!("target {} -> {}", Shown(a), Shown(b)),
        Aspect::Device(a, b) => format!("device {},{} -> {},{}", a.0, a.1, b.0, b.1),
        Aspect::Size(a, b) => format!("size {a} -> {b}"),
        Aspect::Content(at) => format!("content from byte {at}"),
        Aspect::Link(a, b) => format!("{} -> {}", link(a), link(b)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_each() {
        let difference = |path: &[u8], change| Difference { path: path.to_vec(), change };
        let changed = vec![
            Aspect::Mode(0o644, 0o4755),
            Aspect::Size(1, 2),
            Aspect::Xattr(b"user.x".to_vec(), None, Some(b"\x1b".to_vec())),
        ];
        for (difference, text) in [
            (difference(b"/a\x1b", Change::Removed { what: "file", below: 0 }), r"- /a\x1b (file)"),
            (difference(b"/d", Change::Added { what: "directory", below: 3 }), "+ /d (directory, 3 below it)"),
            (
                difference(b"/x", Change::Changed(changed)),
                r#"~ /x: mode 0644 -> 4755; size 1 -> 2; xattr user.x none -> "\x1b""#,
            ),
            (
                difference(b"/y", Change::Changed(vec![Aspect::Link(Some(b"/x".to_vec()), None)])),
                "~ /y: a link to /x -> a file of its own",
            ),
        ] {
            assert_eq!(line(&difference), text);
        }
    }
}
