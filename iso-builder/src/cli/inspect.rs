//! `iso-builder inspect`: what kind of image a file is, by its first bytes, and its dump.
//!
//! It decides the kind only; what is shown is decided by each format's `dump`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::Context;
use iso_builder::{cpio, ext4, iso9660, vmdk};

/// The text that describes the image at `path`.
pub(crate) fn inspect(path: &Path) -> anyhow::Result<String> {
    let open = || -> io::Result<_> {
        let file = File::open(path)?;
        let kind = kind(&file)?;
        Ok((file, kind))
    };
    let (file, kind) = open().with_context(|| path.display().to_string())?;
    let text = match kind {
        Some(Kind::Iso) => iso9660::dump::dump(&file).map_err(anyhow::Error::from),
        Some(Kind::Cpio) => cpio::dump(&mut io::BufReader::new(&file)).map_err(anyhow::Error::from),
        Some(Kind::Ext4) => ext4::dump(&file).map_err(anyhow::Error::from),
        Some(Kind::Vmdk) => vmdk::dump(&file).map_err(anyhow::Error::from),
        None => anyhow::bail!("{}: it is none of ISO 9660, initramfs (cpio), ext4 and VMDK", path.display()),
    };
    text.with_context(|| path.display().to_string())
}

enum Kind {
    Iso,
    Cpio,
    Ext4,
    Vmdk,
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
    } else if starts(0, b"KDMV")? {
        Some(Kind::Vmdk)
    } else if starts(1024 + 56, &[0x53, 0xef])? {
        Some(Kind::Ext4)
    } else {
        None
    })
}
