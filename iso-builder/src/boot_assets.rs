//! The programs that an image boots with: kernel, init and boot loader, taken by path and checked before use.
//!
//! There is no Cargo edge to `tether`: whatever is given must prove that it can be what it is taken for. A wrong file
//! would otherwise show only as a VM that does not boot.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::input;
use crate::tree::{Content, Extent, Extents, Source};

/// A kernel for x86 BIOS boot (a bzImage).
pub fn kernel(path: &Path) -> Result<Content, Error> {
    let content = open(path)?;
    // The setup header's magic, at its place since Linux 1.3.73.
    match bytes_at(&content, 0x202, 4, path)?.as_slice() {
        b"HdrS" => Ok(content),
        _ => Err(wrong(path, "it is no x86 kernel (bzImage)")),
    }
}

/// A program that can be PID 1 where there is nothing else: a static executable for x86-64.
pub fn init(path: &Path) -> Result<Content, Error> {
    let content = open(path)?;
    let header = bytes_at(&content, 0, 64, path)?;
    let word = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    // 64 bits, little-endian; EXEC or DYN (a static PIE is DYN); x86-64.
    if !header.starts_with(b"\x7fELF\x02\x01") || !matches!(word(16), 2 | 3) || word(18) != 62 {
        return Err(wrong(path, "it is no x86-64 ELF executable"));
    }
    let table = u64::from_le_bytes(header[32..40].try_into().expect("8 bytes"));
    let (size, count) = (u64::from(word(54)), u64::from(word(56)));
    for index in 0..count {
        let kind = bytes_at(&content, table.saturating_add(index * size), 4, path)?;
        // PT_INTERP: the kernel would look for a dynamic linker, which an initramfs of one file does not have.
        if kind == 3u32.to_le_bytes() {
            return Err(wrong(path, "it is dynamically linked; build it static, for x86_64-unknown-linux-musl"));
        }
    }
    match count {
        0 => Err(wrong(path, "it is no x86-64 ELF executable")),
        _ => Ok(content),
    }
}

/// The BIOS boot loader, as Debian installs it.
#[derive(Clone, Debug)]
pub struct Isolinux {
    pub isolinux_bin: Content,
    pub ldlinux_c32: Content,
    /// Boot code for an image that is used as a disk.
    pub mbr: Vec<u8>,
}

/// isolinux of this machine.
pub fn isolinux() -> Result<Isolinux, Error> {
    let find = |path: &str| {
        open(Path::new(path)).map_err(|error| match error {
            Error::File { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Error::Loader { path: path.into() }
            }
            other => other,
        })
    };
    let code = find("/usr/lib/ISOLINUX/isohdpfx.bin")?;
    // The code ends where the addresses begin that are written into the sector, at 432.
    let mbr = bytes_at(&code, 0, 432, Path::new("/usr/lib/ISOLINUX/isohdpfx.bin"))?;
    Ok(Isolinux {
        isolinux_bin: find("/usr/lib/ISOLINUX/isolinux.bin")?,
        ldlinux_c32: find("/usr/lib/syslinux/modules/bios/ldlinux.c32")?,
        mbr,
    })
}

/// The program that starts a kernel on a UEFI firmware: the one that was named, or this machine's. What it must be is checked by [`crate::uki`].
pub fn efi_stub(named: Option<&Path>) -> Result<Content, Error> {
    if let Some(path) = named {
        return open(path);
    }
    open(Path::new(EFI_STUB)).map_err(|error| match error {
        Error::File { source, .. } if source.kind() == io::ErrorKind::NotFound => Error::EfiStub,
        other => other,
    })
}

/// Where Debian's package has the stub.
pub const EFI_STUB: &str = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub";

/// The certificates of authorities, in PEM: each must be there as a block, since a bundle that is none would only show when a registry is not believed.
pub fn ca_bundle(path: &Path) -> Result<Content, Error> {
    let content = open(path).map_err(|error| match error {
        Error::File { source, .. } if source.kind() == io::ErrorKind::NotFound && path == Path::new(CA_BUNDLE) => {
            Error::CaBundle
        }
        other => other,
    })?;
    let size = usize::try_from(content.size).unwrap_or(usize::MAX).min(MOST_CA_BYTES);
    let text = String::from_utf8_lossy(&bytes_at(&content, 0, size, path)?).into_owned();
    let count = |mark: &str| text.matches(mark).count();
    let begun = count("-----BEGIN CERTIFICATE-----");
    match begun > 0 && begun == count("-----END CERTIFICATE-----") && content.size <= MOST_CA_BYTES as u64 {
        true => Ok(content),
        false => Err(wrong(path, "it is no bundle of certificates in PEM, of at most 4 MiB")),
    }
}

const MOST_CA_BYTES: usize = 4 << 20;

/// Where Debian's package has the certificates of authorities.
pub const CA_BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Why an image has nothing to boot.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{} cannot be used: {reason}", path.display())]
    Wrong { path: PathBuf, reason: &'static str },
    #[error(
        "no boot loader for BIOS at {}: apt-get install isolinux syslinux-common (`bootstrap` and `appliance` do without them \
         with --firmware uefi, too)",
        path.display()
    )]
    Loader { path: PathBuf },
    #[error(
        "no boot stub for UEFI at {EFI_STUB}: apt-get install systemd-boot-efi (`bootstrap` and `appliance` take one from \
         elsewhere with --efi-stub FILE, too, and do without it with --firmware bios)"
    )]
    EfiStub,
    #[error(
        "no certificates of authorities at {CA_BUNDLE}: apt-get install ca-certificates (`appliance` takes others with --ca-bundle FILE, too)"
    )]
    CaBundle,
}

fn open(path: &Path) -> Result<Content, Error> {
    let opened = || {
        let file = input::open(path)?;
        let size = file.metadata()?.len();
        Ok((file, size))
    };
    let (file, size) = opened().map_err(|source| Error::File { path: path.to_owned(), source })?;
    // What a name stands for may change while we build; what is open does not.
    let extent = Extent { at: 0, len: size, source: Source::File(Arc::new(file)), from: 0 };
    Ok(Content { size, extents: if size == 0 { Extents::default() } else { extent.into() } })
}

/// `len` bytes from offset `at`; zeros beyond the end, which no check takes for right.
fn bytes_at(content: &Content, at: u64, len: usize, path: &Path) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![0; len];
    if at.checked_add(len as u64).is_some_and(|end| end <= content.size) {
        content.read_exact_at(&mut bytes, at).map_err(|source| Error::File { path: path.to_owned(), source })?;
    }
    Ok(bytes)
}

fn wrong(path: &Path, reason: &'static str) -> Error {
    Error::Wrong { path: path.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elf(kinds: &[u32]) -> Vec<u8> {
        let mut bytes = vec![0; 64];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[16] = 2;
        bytes[18] = 62;
        bytes[32] = 64;
        bytes[54] = 56;
        bytes[56] = u8::try_from(kinds.len()).unwrap();
        for kind in kinds {
            bytes.extend_from_slice(&kind.to_le_bytes());
            bytes.resize(bytes.len() + 52, 0);
        }
        bytes
    }

    fn check(bytes: &[u8], expected: Result<(), &str>) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let got = init(file.path()).map(|_| ()).map_err(|error| error.to_string());
        match expected {
            Ok(()) => got.unwrap(),
            Err(reason) => assert!(got.unwrap_err().contains(reason)),
        }
    }

    #[test]
    fn only_a_static_program_can_be_init() {
        check(&elf(&[1, 1]), Ok(()));
        check(&elf(&[1, 3, 1]), Err("dynamically linked"));
        check(&elf(&[]), Err("no x86-64 ELF"));
        check(b"#!/bin/sh\n", Err("no x86-64 ELF"));
        check(b"", Err("no x86-64 ELF"));
        let mut arm = elf(&[1]);
        arm[18] = 183;
        check(&arm, Err("no x86-64 ELF"));
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = kernel(Path::new("/nonexistent/bzImage")).unwrap_err();
        assert_eq!(error.to_string(), "/nonexistent/bzImage");
    }
}
