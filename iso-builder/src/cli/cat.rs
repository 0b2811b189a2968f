//! `iso-builder cat`: what a file of an image holds, on stdout.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;

use anyhow::Context as _;
use clap::Args;
use iso_builder::tree::Kind;
use iso_builder::view::text;
use iso_builder::view::{self, Links, Place};
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::{Context, place, printed};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  iso-builder cat disk.vmdk:/etc/os-release
  iso-builder cat bootstrap.iso:/boot/initramfs.cpio:/init > init
  iso-builder cat appliance.iso:/boot/initramfs.cpio | cpio -itv

Every byte is given as it is; into a file, holes are written as holes. `iso-builder ls --help` says how a PATH is written.")]
pub(crate) struct Cat {
    #[arg(value_name = "FILE:PATH", required = true, value_parser = place(), value_hint = clap::ValueHint::AnyPath, help = "Files in images; symbolic links are followed")]
    places: Vec<Place>,
}

impl Cat {
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<()> {
        for place in &self.places {
            anyhow::ensure!(!place.paths.is_empty(), "{place}: name a file in it, as in {place}:/etc/hostname");
            let view = view::open(place, Links::Follow, &context.spool)?;
            let Kind::File(content) = &view.node().kind else {
                anyhow::bail!("{place}: is a {}, and has no bytes", text::kind(&view.node().kind));
            };
            let mut out = io::stdout().lock();
            out.flush().context("stdout")?;
            let file = plain_file().context("stdout")?;
            let copied = match &file {
                Some(file) => view::copy(content, &mut &*file, Some(file)),
                None => view::copy(content, &mut out, None),
            };
            match copied {
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                    return Err(error).with_context(|| place.to_string());
                }
                copied => printed(copied)?,
            }
        }
        Ok(())
    }
}

/// Stdout, where it is a file that ends where we begin: only there can a hole be left.
fn plain_file() -> io::Result<Option<File>> {
    let file = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let metadata = file.metadata()?;
    if !metadata.is_file() || OFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFL)?).contains(OFlag::O_APPEND) {
        return Ok(None);
    }
    let at = io::Seek::stream_position(&mut &file)?;
    Ok((at == metadata.len()).then_some(file))
}
