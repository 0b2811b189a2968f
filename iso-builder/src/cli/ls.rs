//! `iso-builder ls`: which files an image holds, a line for each.

use std::io::{self, BufWriter, Write};

use clap::Args;
use iso_builder::tree::{Kind, Node};
use iso_builder::view::text::{self, Shown};
use iso_builder::view::{self, Links, Place, View, json};

use super::{Context, place, printed};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  iso-builder ls -l bootstrap.iso
  iso-builder ls -lR bootstrap.iso:/boot/initramfs.cpio:/
  iso-builder ls --json disk.vmdk:/etc | jq -r '.entries[].path'

The image may be an ISO, ext4, a VMDK or a partitioned disk that holds an ext4, an initramfs, a docker-archive or an OCI layout. \
A colon parts FILE from PATH only before a slash; write \\:/ where the name of a directory ends in one. A further :/PATH leads on into an image \
that the first path names. In names, what a terminal could obey is escaped.")]
pub(crate) struct Ls {
    /// Mode, links, owner, size and time (UTC) of each
    #[arg(short, long)]
    long: bool,
    /// Everything below, by its path
    #[arg(short = 'R', long)]
    recursive: bool,
    // no doc comment: rustdoc would take the brackets for links
    #[arg(value_name = "FILE[:PATH]", value_parser = place(), value_hint = clap::ValueHint::AnyPath, help = "The image, and the file or directory in it [default: all of it]")]
    place: Place,
}

impl Ls {
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<()> {
        let view = view::open(&self.place, Links::Keep, &context.spool)?;
        let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
        printed(if context.json { self.json(&view, &mut out) } else { self.text(&view, &mut out) })?;
        printed(out.flush())
    }

    fn text(&self, view: &View, out: &mut dyn Write) -> io::Result<()> {
        let mut widths = Widths::default();
        if self.long {
            self.each(view, &mut |_, node, links| {
                widths.see(node, links);
                Ok(())
            })?;
        }
        self.each(view, &mut |path, node, links| {
            if self.long {
                widths.line(node, links, out)?;
            }
            write!(out, "{}", Shown(path))?;
            if let (true, Kind::Symlink(target)) = (self.long, &node.kind) {
                write!(out, " -> {}", Shown(target))?;
            }
            writeln!(out)
        })
    }

    fn json(&self, view: &View, out: &mut dyn Write) -> io::Result<()> {
        let mut head = serde_json::Map::new();
        head.insert("formats".to_owned(), json::formats(&view.formats));
        json::put(&mut head, "path", &view.path);
        let head = json::line(&head.into());
        write!(out, "{},\"entries\":[", head.trim_end_matches('}'))?;
        let mut comma = "";
        self.each(view, &mut |path, node, links| {
            write!(out, "{comma}\n{}", json::line(&json::entry(path, node, links)))?;
            comma = ",";
            Ok(())
        })?;
        writeln!(out, "\n]}}")
    }

    /// What was asked for, in order; of a file, itself.
    fn each(&self, view: &View, seen: &mut dyn FnMut(&[u8], &Node, u32) -> io::Result<()>) -> io::Result<()> {
        match view.node().kind {
            Kind::Dir(_) => view::list(&view.tree, view.node, self.recursive, &mut |entry| {
                seen(entry.path, view.tree.node(entry.id), entry.links)
            }),
            _ => seen(&view.path, view.node(), view::links_of(&view.tree, view.node)),
        }
    }
}

/// How wide the columns are.
#[derive(Default)]
struct Widths {
    mode: usize,
    links: usize,
    uid: usize,
    gid: usize,
    size: usize,
}

impl Widths {
    fn see(&mut self, node: &Node, links: u32) {
        let digits = |number: u32| number.checked_ilog10().map_or(1, |log| log as usize + 1);
        self.mode = self.mode.max(text::mode(&node.kind, &node.meta).len());
        self.links = self.links.max(digits(links));
        self.uid = self.uid.max(digits(node.meta.uid));
        self.gid = self.gid.max(digits(node.meta.gid));
        self.size = self.size.max(size(node).len());
    }

    fn line(&self, node: &Node, links: u32, out: &mut dyn Write) -> io::Result<()> {
        let (mode, size, time) = (text::mode(&node.kind, &node.meta), size(node), text::time(node.meta.mtime));
        write!(
            out,
            "{mode:mode_width$} {links:links_width$} {:uid_width$} {:gid_width$} {size:>size_width$} {time} ",
            node.meta.uid,
            node.meta.gid,
            mode_width = self.mode,
            links_width = self.links,
            uid_width = self.uid,
            gid_width = self.gid,
            size_width = self.size,
        )
    }
}

/// A file's bytes, a symlink's, a device's number. How large a directory is says only how its format stores it.
fn size(node: &Node) -> String {
    match &node.kind {
        Kind::File(content) => content.size.to_string(),
        Kind::Symlink(target) => target.len().to_string(),
        Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => format!("{major},{minor}"),
        Kind::Dir(_) | Kind::Fifo | Kind::Socket => "0".to_owned(),
    }
}
