//! Where the parts of an image come from that are not ours: the kernel's source, the packages of the boot loader and of the certificates of authorities.
//!
//! It decides what can be known of them on this machine, and leaves out what cannot: a kernel that somebody brought has no known source.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::tree::Content;
use crate::{boot_assets, digest};

/// A kernel, and what it was built from when that is known.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// As in `6.12.117`, out of the kernel itself.
    pub release: Option<String>,
    pub built: Option<Built>,
}

/// What the cache of kernels notes about one.
#[derive(Clone, Debug, Deserialize)]
pub struct Built {
    image_sha256: String,
    pub source_sha256: String,
    pub config_sha256: String,
    pub compiler: String,
}

impl Kernel {
    /// What is known of the kernel at `path`, whose digest is `sha256`. What it was built from stands in `manifest.json` beside it, as the cache keeps it.
    pub fn of(path: &Path, content: &Content, sha256: &str) -> io::Result<Kernel> {
        let note = fs::read(path.with_file_name("manifest.json")).ok();
        let built = note.and_then(|note| serde_json::from_slice::<Built>(&note).ok());
        Ok(Kernel { release: release(content)?, built: built.filter(|built| built.image_sha256 == sha256) })
    }
}

/// Where the source of that digest can be fetched, if it is the one that `kernel-config/SOURCE` pins.
pub(super) fn pinned(sha256: &str) -> Option<&'static str> {
    let pin = include_str!("../../../kernel-config/SOURCE");
    let value = |key: &str| pin.lines().find_map(|line| line.strip_prefix(key));
    value("url = ").filter(|_| value("sha256 = ") == Some(sha256))
}

/// The kernel's release, the first word of the text that its setup header points to (Documentation/arch/x86/boot.rst, `kernel_version`).
fn release(content: &Content) -> io::Result<Option<String>> {
    let read = |at: u64, len: u64| {
        let mut bytes = vec![0; usize::try_from(len.min(content.size.saturating_sub(at))).expect("at most a sector")];
        content.read_exact_at(&mut bytes, at).map(|()| bytes)
    };
    let pointer = read(0x20e, 2)?.try_into().map_or(0, u16::from_le_bytes);
    if pointer == 0 {
        return Ok(None);
    }
    let text = read(u64::from(pointer) + 0x200, 128)?;
    let word: Vec<u8> = text.into_iter().take_while(|byte| byte.is_ascii_graphic()).collect();
    Ok(String::from_utf8(word).ok().filter(|word| word.starts_with(|c: char| c.is_ascii_digit())))
}

/// A boot loader: whose it is, and which of its files an image takes.
#[derive(Debug)]
pub struct Loader {
    /// The package of Debian and its relatives.
    pub package: &'static str,
    /// Of these files, as the package's copyright file says.
    pub licence: &'static str,
    pub files: &'static [&'static str],
}

/// Every loader in the ISOs. One that [`crate::boot_assets`] takes from a package is a line here.
pub const LOADERS: &[Loader] = &[
    Loader {
        package: "isolinux",
        licence: "GPL-2.0-or-later",
        files: &["/usr/lib/ISOLINUX/isolinux.bin", "/usr/lib/ISOLINUX/isohdpfx.bin"],
    },
    Loader {
        package: "syslinux-common",
        licence: "GPL-2.0-or-later",
        files: &["/usr/lib/syslinux/modules/bios/ldlinux.c32"],
    },
    Loader {
        package: "systemd-boot-efi",
        licence: "LGPL-2.1-or-later",
        files: &["/usr/lib/systemd/boot/efi/linuxx64.efi.stub"],
    },
];

/// What is taken from a package, as this machine has it.
#[derive(Clone, Debug)]
pub struct Found {
    /// What it is in an image: the word before its names in the bill.
    pub part: &'static str,
    pub package: &'static str,
    pub licence: &'static str,
    pub installed: Option<Installed>,
    /// Name and SHA-256 of each file.
    pub files: Vec<(String, String)>,
}

/// A package as dpkg describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// `debian`, or a relative.
    pub distribution: String,
    pub version: String,
    pub architecture: String,
}

impl Installed {
    /// The package's name on the whole world's scale (github.com/package-url, type `deb`).
    pub fn purl(&self, package: &str) -> String {
        let Installed { distribution, version, architecture } = self;
        format!(
            "pkg:deb/{distribution}/{package}@{}?arch={architecture}",
            version.replace(':', "%3A").replace('+', "%2B")
        )
    }
}

/// The loaders as this machine has them.
pub fn loaders() -> Result<Vec<Found>, (PathBuf, io::Error)> {
    let installed = here();
    let found = |loader: &Loader| {
        let Loader { package, licence, files } = *loader;
        let files = files.iter().map(|path| file(Path::new(path))).collect::<Result<_, _>>()?;
        Ok(Found { part: "loader", package, licence, installed: installed.get(package).cloned(), files })
    };
    LOADERS.iter().map(found).collect()
}

/// The certificates of authorities that the appliance has: this machine's, or somebody's own, of which nothing is known but the bytes.
pub fn authorities(own: Option<&Path>) -> Result<Found, (PathBuf, io::Error)> {
    let (package, part) = ("ca-certificates", "authorities");
    let (path, licence, installed) = match own {
        Some(path) => (path, "NOASSERTION", None),
        // of Mozilla's list, as the package's copyright file says
        None => (Path::new(boot_assets::CA_BUNDLE), "MPL-2.0", here().remove(package)),
    };
    Ok(Found { part, package, licence, installed, files: vec![file(path)?] })
}

/// A file's name and digest.
fn file(path: &Path) -> Result<(String, String), (PathBuf, io::Error)> {
    let sha256 = fs::read(path).map(|bytes| digest::bytes(&bytes)).map_err(|error| (path.to_owned(), error))?;
    Ok((path.file_name().unwrap_or_default().to_string_lossy().into_owned(), sha256))
}

/// This machine's packages. Elsewhere than on Debian and its relatives nobody says which version a file is of.
fn here() -> BTreeMap<String, Installed> {
    installed(
        &fs::read_to_string("/var/lib/dpkg/status").unwrap_or_default(),
        &fs::read_to_string("/etc/os-release").unwrap_or_default(),
    )
}

/// The installed packages of a dpkg database (deb-control(5): paragraphs of `Field: value`).
fn installed(status: &str, os_release: &str) -> BTreeMap<String, Installed> {
    let mut distribution = os_release.lines().filter_map(|line| line.strip_prefix("ID="));
    let distribution = distribution.next().unwrap_or("debian").trim_matches('"');
    let package = |paragraph: &str| {
        let field = |name: &str| {
            let mut fields = paragraph.lines().filter_map(|line| line.split_once(": "));
            fields.find(|(field, _)| *field == name).map(|(_, value)| value.to_owned())
        };
        let there = field("Status")?.ends_with(" installed");
        let installed = Installed {
            distribution: distribution.to_owned(),
            version: field("Version")?,
            architecture: field("Architecture")?,
        };
        there.then_some((field("Package")?, installed))
    };
    status.split("\n\n").filter_map(package).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_says_its_release_and_the_note_beside_it_must_be_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut bytes = vec![0; 4096];
        bytes[0x20e..0x210].copy_from_slice(&0x300u16.to_le_bytes());
        bytes[0x500..0x516].copy_from_slice(b"6.12.117 (tether@x) #1");
        let (path, content) = (dir.path().join("bzImage"), Content::from_bytes(bytes.clone()));
        let note = |digest: &str| {
            let text =
                format!(r#"{{"image_sha256":"{digest}","source_sha256":"s","config_sha256":"c","compiler":"gcc"}}"#);
            fs::write(dir.path().join("manifest.json"), text).unwrap();
        };
        note("other");
        let kernel = Kernel::of(&path, &content, "mine").unwrap();
        assert_eq!((kernel.release.as_deref(), kernel.built.is_none()), (Some("6.12.117"), true));
        note("mine");
        assert_eq!(Kernel::of(&path, &content, "mine").unwrap().built.unwrap().source_sha256, "s");
        for short in [&bytes[..0x20f], &bytes[..0x400], &[0; 4096]] {
            assert_eq!(release(&Content::from_bytes(short)).unwrap(), None);
        }
    }

    #[test]
    fn the_pinned_source_says_where_it_is_from() {
        let pin = "c92591d896e79ecddbc3319136f0c2f855e832b397de7593f013ad7590a43e53";
        assert!(pinned(pin).unwrap().ends_with("/linux-6.12.80.tar.xz"));
        assert_eq!(pinned(&pin.replace('c', "d")), None);
    }

    #[test]
    fn a_package_that_was_removed_is_not_there() {
        let paragraph = |name: &str, status: &str| {
            format!(
                "Package: {name}\nStatus: install ok {status}\nArchitecture: all\nVersion: 3:6.04~git+dfsg1-3\nDescription: x\n y: z\n\n"
            )
        };
        let status = paragraph("isolinux", "installed") + &paragraph("old", "config-files");
        let found = installed(&status, "NAME=\"x\"\nID=ubuntu\n");
        assert_eq!(found.keys().collect::<Vec<_>>(), ["isolinux"]);
        assert_eq!(found["isolinux"].purl("isolinux"), "pkg:deb/ubuntu/isolinux@3%3A6.04~git%2Bdfsg1-3?arch=all");
        assert!(installed("", "").is_empty());
    }
}
