//! A release: the images, and what others need to trust them: checksums, a bill of materials, a manifest of files, a statement of provenance.
//!
//! It decides which files there are and what is asked of the machine to describe them. What is in an image is the recipe's; how each document is written is that of
//! its module. No clock is read: the same inputs give the same folder. docs/artifacts.md tells its users.

pub mod crates;
mod files;
mod folder;
pub mod origin;
mod provenance;
mod spdx;

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use self::crates::Crates;
use self::files::{Manifest, What};
use self::folder::Folder;
use crate::iso9660::format::civil;
use crate::recipe::iso::{Firmware, Parts};
use crate::recipe::{self, initramfs};
use crate::tree::{Content, Kind, ReadAt, Time, Tree};
use crate::{boot_assets, cpio, digest, iso9660, lookup, view};

/// What a release is made of.
#[derive(Clone, Debug)]
pub struct Request {
    pub kernel: PathBuf,
    /// PID 1 of a containerVM, a static program.
    pub tether: PathBuf,
    /// PID 1 of the appliance, a static program.
    pub appliance_init: PathBuf,
    /// The Virtual Container Host, a static program of the appliance.
    pub vch: PathBuf,
    /// In place of this machine's authorities.
    pub ca_bundle: Option<PathBuf>,
    /// The output of `cargo metadata`; `None` leaves open which crates are in the programs.
    pub crates: Option<PathBuf>,
    /// The commit that the programs were built from.
    pub commit: Option<String>,
    /// What `rustc --version` said.
    pub toolchain: Option<String>,
    /// Who builds, a URI.
    pub builder: Option<String>,
    /// Dates files and documents.
    pub time: Time,
}

/// Makes the release in the folder `dir`; gives the text of its SHA256SUMS.
pub fn release(request: &Request, dir: &Path) -> Result<String, Error> {
    let write = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Write { path, source }
    };
    if !(0..=LAST_SECOND).contains(&request.time.secs) {
        return Err(Error::Time { secs: request.time.secs });
    }
    let mut folder = Folder::create(dir).map_err(write(dir))?;
    let mut manifest = Manifest::default();
    let mut subjects = Vec::new();
    for name in [BOOTSTRAP, APPLIANCE, INITRAMFS, KERNEL] {
        let path = folder.path(name);
        let file = folder.file(name).map_err(write(&path))?;
        image(name, request, file, &path)?;
        let sha256 = digest::file(file).map_err(write(&path))?;
        if name != KERNEL {
            let image: Arc<dyn ReadAt> = Arc::new(file.try_clone().map_err(write(&path))?);
            describe(&mut manifest, name, &sha256, image).map_err(|source| Error::ReadBack { path, source })?;
        }
        subjects.push(Subject { name: name.to_owned(), sha256 });
    }
    let facts = Facts::gather(request, subjects.clone())?;
    facts.check(&manifest)?;
    let mut add = |name: &str, bytes: &[u8]| {
        let path = folder.path(name);
        folder.file(name).and_then(|mut file| file.write_all(bytes)).map_err(write(&path))?;
        subjects.push(Subject { name: name.to_owned(), sha256: digest::bytes(bytes) });
        Ok::<_, Error>(subjects.clone())
    };
    add(FILES, &manifest.to_json())?;
    let described = add(BILL, &spdx::document(&facts))?;
    let mut all = add(PROVENANCE, &provenance::statement(&facts, &described))?;
    all.sort_by(|one, other| one.name.cmp(&other.name));
    let sums: String = all.iter().map(|subject| format!("{}  {}\n", subject.sha256, subject.name)).collect();
    // The last one to be named: as long as it is not there, or the old one, the folder does not pass for whole.
    add(SUMS, sums.as_bytes())?;
    folder.publish().map_err(write(dir))?;
    Ok(sums)
}

/// Writes the image of that name.
fn image(name: &str, request: &Request, file: &File, path: &Path) -> Result<(), Error> {
    let Request { kernel, tether, appliance_init, vch, ca_bundle, time, .. } = request;
    let copied = |result: io::Result<_>| result.map_err(|source| Error::Write { path: path.to_owned(), source });
    let parts = |init: &Path, extra| Parts {
        kernel: kernel.clone(),
        init: init.to_owned(),
        cmdline: None,
        firmware: Firmware::Both,
        efi_stub: None,
        extra,
        time: *time,
    };
    match name {
        BOOTSTRAP => Ok(recipe::iso::BOOTSTRAP.write_to(&parts(tether, Vec::new()), file, path)?),
        APPLIANCE => {
            let own = recipe::iso::appliance_files(vch, ca_bundle.as_deref(), None)?;
            Ok(recipe::iso::APPLIANCE.write_to(&parts(appliance_init, own), file, path)?)
        }
        INITRAMFS => {
            let tree = initramfs::tree(boot_assets::init(tether)?, *time);
            let mut out = io::BufWriter::new(file);
            copied(cpio::write(&tree, &mut out).and_then(|()| out.flush()))
        }
        _ => copied(copy(&boot_assets::kernel(kernel)?, file)),
    }
}

fn copy(content: &Content, mut out: &File) -> io::Result<()> {
    let mut buf = vec![0; 1 << 20];
    let mut at = 0;
    while at < content.size {
        let part = usize::try_from(content.size - at).unwrap_or(usize::MAX).min(buf.len());
        content.read_exact_at(&mut buf[..part], at)?;
        out.write_all(&buf[..part])?;
        at += part as u64;
    }
    Ok(())
}

/// Reads the finished image, and each initramfs in it, for the manifest.
fn describe(manifest: &mut Manifest, name: &str, sha256: &str, image: Arc<dyn ReadAt>) -> Result<(), Unreadable> {
    let size = image.size()?;
    let tree = if name == INITRAMFS { cpio::read(&image)? } else { iso9660::read(&image)? };
    let listed = manifest.add(name, size, sha256.to_owned(), &tree)?;
    let inner: Vec<(String, String)> = listed
        .files
        .iter()
        .filter_map(|file| match &file.what {
            What::File { sha256, .. } if name != INITRAMFS => Some((file.path.clone(), sha256.clone())),
            _ => None,
        })
        .collect();
    for (path, sha256) in inner {
        if let Some(archive) = archive(&tree, &path)? {
            let size = archive.size()?;
            manifest.add(&format!("{name}:{path}"), size, sha256, &cpio::read(&archive)?)?;
        }
    }
    Ok(())
}

/// The file at `path`, if it is an initramfs.
fn archive(tree: &Tree, path: &str) -> io::Result<Option<Arc<dyn ReadAt>>> {
    let Ok(id) = lookup::find_link(tree, path.as_bytes()) else { return Ok(None) };
    let Kind::File(content) = &tree.node(id).kind else { return Ok(None) };
    let mut magic = [0; 6];
    if content.size < 6 {
        return Ok(None);
    }
    content.read_exact_at(&mut magic, 0)?;
    Ok((&magic == b"070701").then(|| view::image_of(content.clone())))
}

/// A file of the release.
#[derive(Clone, Debug)]
pub struct Subject {
    pub name: String,
    pub sha256: String,
}

/// A program of ours in an image.
#[derive(Clone, Debug)]
pub struct Program {
    pub name: &'static str,
    pub sha256: String,
    pub crates: Option<crates::Program>,
}

/// All that the documents say.
#[derive(Clone, Debug)]
pub struct Facts {
    pub images: Vec<Subject>,
    pub kernel: origin::Kernel,
    /// tether, appliance-init and vch.
    pub programs: [Program; 3],
    pub loaders: Vec<origin::Found>,
    /// The certificates of authorities, in the appliance.
    pub authorities: origin::Found,
    /// SHA-256 of Cargo.lock.
    pub lock: Option<String>,
    pub commit: Option<String>,
    pub toolchain: Option<String>,
    pub builder: Option<String>,
    pub time: Time,
}

impl Facts {
    fn gather(request: &Request, images: Vec<Subject>) -> Result<Facts, Error> {
        let crates = request.crates.as_deref().map(Crates::read).transpose()?;
        let program = |name: &'static str, path: &Path| {
            let read = |source| Error::Read { path: path.to_owned(), source };
            let sha256 = files::sha256(&boot_assets::init(path)?).map_err(read)?;
            let crates = crates.as_ref().map(|crates| crates.program(name)).transpose()?;
            Ok::<_, Error>(Program { name, sha256, crates })
        };
        let kernel = boot_assets::kernel(&request.kernel)?;
        let read = |source| Error::Read { path: request.kernel.clone(), source };
        let kernel_sha256 = files::sha256(&kernel).map_err(read)?;
        let of = |(path, source)| Error::Read { path, source };
        Ok(Facts {
            kernel: origin::Kernel::of(&request.kernel, &kernel, &kernel_sha256).map_err(read)?,
            programs: [
                program("tether", &request.tether)?,
                program("appliance-init", &request.appliance_init)?,
                program("vch", &request.vch)?,
            ],
            loaders: origin::loaders().map_err(of)?,
            authorities: origin::authorities(request.ca_bundle.as_deref()).map_err(of)?,
            lock: crates.as_ref().map(|crates| crates.lock.clone()),
            commit: request.commit.clone(),
            toolchain: request.toolchain.clone(),
            builder: request.builder.clone(),
            time: request.time,
            images,
        })
    }

    /// Is what was described what is in the images? Files may change while a release is made.
    fn check(&self, manifest: &Manifest) -> Result<(), Error> {
        let [tether, appliance_init, vch] = &self.programs;
        let parts = [
            (BOOTSTRAP, KERNEL, self.digest(KERNEL)),
            (APPLIANCE, KERNEL, self.digest(KERNEL)),
            (BOOTSTRAP, tether.name, &tether.sha256),
            (INITRAMFS, tether.name, &tether.sha256),
            (APPLIANCE, appliance_init.name, &appliance_init.sha256),
            (APPLIANCE, vch.name, &vch.sha256),
        ];
        let authorities =
            self.authorities.files.iter().map(|(_, sha256)| (APPLIANCE, self.authorities.package, &**sha256));
        match parts.into_iter().chain(authorities).find(|(image, _, sha256)| !manifest.holds(image, sha256)) {
            Some((image, part, _)) => Err(Error::Changed { image, part }),
            None => Ok(()),
        }
    }

    /// The digest of an image.
    fn digest(&self, name: &str) -> &str {
        self.images.iter().find(|image| image.name == name).map_or("", |image| &image.sha256)
    }
}

/// JSON for people too, with an end of line at its end.
fn json(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(value).expect("strings and numbers are valid JSON");
    bytes.push(b'\n');
    bytes
}

/// A moment as ISO 8601 writes it, in UTC. The years are 1970 to 9999.
fn date(time: Time) -> String {
    let (year, month, day, hour, minute, second) = civil(time);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// 9999-12-31T23:59:59Z.
const LAST_SECOND: i64 = 253_402_300_799;

const VERSION: &str = env!("CARGO_PKG_VERSION");

pub const BOOTSTRAP: &str = "bootstrap.iso";
pub const APPLIANCE: &str = "appliance.iso";
pub const INITRAMFS: &str = "initramfs";
pub const KERNEL: &str = "kernel";
pub const FILES: &str = "tether.files.json";
pub const BILL: &str = "tether.spdx.json";
pub const PROVENANCE: &str = "tether.provenance.json";
pub const SUMS: &str = "SHA256SUMS";

/// Why there is no release.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Asset(#[from] boot_assets::Error),
    #[error(transparent)]
    Iso(#[from] recipe::iso::Error),
    #[error(transparent)]
    Crates(#[from] crates::Error),
    #[error("{} cannot be read back", path.display())]
    ReadBack { path: PathBuf, source: Unreadable },
    #[error("{part} is not in {image} as it is now: it changed while the release was made; make it again")]
    Changed { image: &'static str, part: &'static str },
    #[error("SOURCE_DATE_EPOCH is {secs}: documents are dated from 0, 1970, to {LAST_SECOND}, the end of 9999")]
    Time { secs: i64 },
    #[error("{}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

/// Why a finished image cannot be described.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    #[error(transparent)]
    Iso(#[from] iso9660::Error),
    #[error(transparent)]
    Cpio(#[from] cpio::Error),
    #[error(transparent)]
    Content(#[from] io::Error),
}

#[cfg(test)]
mod tests;
