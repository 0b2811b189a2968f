//! `iso-builder inspect`: what kind of image a file is, by its first bytes, and its dump.
//!
//! It decides the kind only; what is shown is decided by each format's `dump`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::Context;
use iso_builder::{cpio, iso9660};

/// The text that describes the image at `path`.
pub(crate) fn inspect(path: &Path) -> anyhow::Result<String> {
    let open = || -> io::Result<_> {
        let file = File::open(path)?;
        let kind = kind(&file)?;
        Ok((file, kind))
    };
    let (file, kind) = open().with_context(|| path.display().to_string())?;
    let text = match kind {
        Some(Kind::Iso) => iso9660::dump::dump(&file),
        Some(Kind::Cpio) => cpio::dump(&mut io::BufReader::new(&file)),
        None => anyhow::bail!("{}: it is neither an ISO 9660 image nor an initramfs (cpio)", path.display()),
    };
    text.with_context(|| path.display().to_string())
}

enum Kind {
    Iso,
    Cpio,
}

fn kind(file: &File) -> io::Result<Option<Kind>> {
    let starts = |at: u64, magic: &[u8]| -> io::Result<bool> {
        let mut bytes = vec![0; magic.len()];
        match file.read_exact_at(&mut bytes, at) {
            Ok(()) => Ok(bytes == magic),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        }
    };
    Ok(if starts(0x8001, b"CD001")? {
        Some(Kind::Iso)
    } else if starts(0, b"070701")? {
        Some(Kind::Cpio)
    } else {
        None
    })
}
