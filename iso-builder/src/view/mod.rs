//! Looks into images of every kind without mounting them: what a file is, the files it holds, and the files in an image that another holds.
//!
//! It decides how an image is known and what leads from one to the next. Each format's reader makes the [`Tree`]; what is shown of it is the caller's.

mod compare;
mod dump;
mod inner;
pub mod json;
mod label;
mod list;
mod partition;
mod place;
mod probe;
pub mod text;

use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use self::compare::{Aspect, Change, Difference, Error as CompareError, Ignore, compare};
pub use self::dump::dump;
pub use self::inner::copy;
pub(crate) use self::inner::image_of;
pub use self::label::Label;
pub use self::list::{Counts, Entry, count, links_of, list};
pub use self::place::Place;
use self::text::Shown;
use crate::tree::{Kind, Node, NodeId, ROOT, ReadAt, Tree};
use crate::{cpio, ext4, input, iso9660, lookup, oci, vmdk};

/// One kind of image, as it is found around the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    Iso,
    Ext4,
    Cpio,
    Vmdk,
    /// An OCI layout or a docker-archive; its layers are laid over one another.
    Container,
    /// Of a disk with several; the number counts from 1 as Linux does.
    Partition {
        number: u32,
    },
}

impl Format {
    /// One word, as machines read it.
    pub fn word(&self) -> &'static str {
        match self {
            Format::Iso => "iso9660",
            Format::Ext4 => "ext4",
            Format::Cpio => "cpio",
            Format::Vmdk => "vmdk",
            Format::Container => "container",
            Format::Partition { .. } => "partition",
        }
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Format::Iso => out.write_str("ISO 9660"),
            Format::Ext4 => out.write_str("ext4"),
            Format::Cpio => out.write_str("initramfs (cpio)"),
            Format::Vmdk => out.write_str("VMDK"),
            Format::Container => out.write_str("container image"),
            Format::Partition { number } => write!(out, "partition {number}"),
        }
    }
}

/// An image's files, and the one among them that was asked for.
#[derive(Debug)]
pub struct View {
    /// From the outermost to the one whose files these are.
    pub formats: Vec<Format>,
    /// How many of them are images that the last file was found in.
    pub around: usize,
    pub tree: Tree,
    /// What the last path names; without one, the root.
    pub node: NodeId,
    /// The last path, for messages.
    pub path: Vec<u8>,
    /// What the innermost image calls itself.
    pub label: Label,
    /// What a container image says about running it, when that is what the tree came from.
    pub container: Option<oci::Image>,
}

/// Whether a symlink that a path ends in is meant itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    Follow,
    Keep,
}

/// Finds what `place` names. What must be unpacked on the way goes to unnamed files in the directory `spool`.
pub fn open(place: &Place, links: Links, spool: &Path) -> Result<View, Error> {
    let path = PathBuf::from(&place.file);
    let mut view = file(&path, spool)
        .map_err(|source| Error { place: shown(path.as_os_str().as_bytes()), source: Box::new(source) })?;
    let mut name = shown(path.as_os_str().as_bytes());
    for (index, path) in place.paths.iter().enumerate() {
        if index > 0 {
            view = view.within(spool).map_err(|source| Error { place: name.clone(), source: Box::new(source) })?;
        }
        name = format!("{name}:{}", Shown(path));
        let last = index + 1 == place.paths.len();
        let found = match links {
            Links::Keep if last => lookup::find_link(&view.tree, path),
            _ => lookup::find(&view.tree, path),
        };
        view.node = found.map_err(|source| Error { place: name.clone(), source: Box::new(Reason::Path(source)) })?;
        view.path.clone_from(path);
    }
    Ok(view)
}

/// The same, but a file that the last path names is opened as an image in its turn, if it is one.
pub fn open_image(place: &Place, spool: &Path) -> Result<View, Error> {
    let view = open(place, Links::Follow, spool)?;
    match view.within(spool) {
        Ok(inside) => Ok(inside),
        Err(Reason::NoFile(_) | Reason::Unknown) => Ok(view),
        Err(source) => Err(Error { place: place.to_string(), source: Box::new(source) }),
    }
}

impl View {
    /// What was asked for.
    pub fn node(&self) -> &Node {
        self.tree.node(self.node)
    }

    /// The innermost image's format, and those around it: `ext4 in VMDK`.
    pub fn described(&self) -> String {
        let formats: Vec<String> = self.formats.iter().rev().map(Format::to_string).collect();
        formats.join(" in ")
    }

    /// Opens the file that was asked for as an image.
    fn within(&self, spool: &Path) -> Result<View, Reason> {
        let Kind::File(content) = &self.tree.node(self.node).kind else {
            return Err(Reason::NoFile(text::kind(&self.tree.node(self.node).kind)));
        };
        let mut inside = image(&image_of(content.clone()), None, spool)?;
        inside.around = self.formats.len();
        inside.formats.splice(0..0, self.formats.iter().cloned());
        Ok(inside)
    }
}

/// The image that a file, or a directory, of this host is.
fn file(path: &Path, spool: &Path) -> Result<View, Reason> {
    let container = |text: &std::ffi::OsStr| {
        // Names that are not UTF-8 are no references; the file at hand is meant.
        text.to_str()
            .and_then(|text| text.parse::<oci::Reference>().ok())
            .unwrap_or_else(|| oci::Reference::Bare(path.to_owned()))
    };
    let is_reference = !path.exists() && !matches!(container(path.as_os_str()), oci::Reference::Bare(_));
    if is_reference || path.is_dir() {
        return flattened(&container(path.as_os_str()), spool);
    }
    let file = input::open(path).map_err(|source| Reason::Open { source })?;
    image(&(Arc::new(file) as Arc<dyn ReadAt>), Some(path), spool)
}

/// The image in `bytes`, which is the file at `path` if it is one of this host.
fn image(bytes: &Arc<dyn ReadAt>, path: Option<&Path>, spool: &Path) -> Result<View, Reason> {
    let kind = probe::kind(&**bytes).map_err(|source| Reason::Open { source })?;
    let (format, tree) = match kind.ok_or(Reason::Unknown)? {
        probe::Kind::Iso => (Format::Iso, iso9660::read(bytes)?),
        probe::Kind::Ext4 => (Format::Ext4, ext4::read(bytes)?),
        probe::Kind::Cpio => (Format::Cpio, cpio::read(bytes)?),
        probe::Kind::Vmdk => {
            let disk = match path {
                Some(path) => vmdk::open(path)?,
                None => vmdk::open(&inner::taken_out(bytes, spool)?.path())?,
            };
            return Ok(beneath(Format::Vmdk, image(&disk, None, spool)?));
        }
        probe::Kind::Tar => {
            let of = |path: &Path| flattened(&oci::Reference::Bare(path.to_owned()), spool);
            return path.map_or_else(|| of(&inner::taken_out(bytes, spool)?.path()), of);
        }
        probe::Kind::Partitions => {
            let (number, bytes) = partition::first_ext4(bytes)?;
            return Ok(beneath(Format::Partition { number }, image(&bytes, None, spool)?));
        }
    };
    let label = label::read(&format, &**bytes).map_err(|source| Reason::Open { source })?;
    let path = b"/".to_vec();
    Ok(View { formats: vec![format], around: 0, tree, node: ROOT, path, label, container: None })
}

fn beneath(format: Format, mut view: View) -> View {
    view.formats.insert(0, format);
    view
}

fn flattened(reference: &oci::Reference, spool: &Path) -> Result<View, Reason> {
    let image = oci::open(reference, spool)?;
    let tree = image.flatten(spool, &mut |_| ())?;
    let (formats, path, label) = (vec![Format::Container], b"/".to_vec(), Label::default());
    Ok(View { formats, around: 0, tree, node: ROOT, path, label, container: Some(image) })
}

fn shown(name: &[u8]) -> String {
    Shown(name).to_string()
}

impl Error {
    /// Whether the image is at fault, and not the way to it: it is damaged, or lies about itself.
    pub fn is_damage(&self) -> bool {
        matches!(
            *self.source,
            Reason::Iso(_)
                | Reason::Ext4(_)
                | Reason::Cpio(_)
                | Reason::Vmdk(_)
                | Reason::Partition(_)
                | Reason::Container(_)
        )
    }

    /// Whether it is no image of a kind that is known here.
    pub fn is_unknown(&self) -> bool {
        matches!(*self.source, Reason::Unknown)
    }
}

/// Why something could not be looked into, and what.
#[derive(Debug, thiserror::Error)]
#[error("{place}")]
pub struct Error {
    place: String,
    source: Box<Reason>,
}

/// Whose fault it was.
#[derive(Debug, thiserror::Error)]
pub enum Reason {
    #[error("cannot be read")]
    Open { source: io::Error },
    #[error("is a {0}, and no image")]
    NoFile(&'static str),
    #[error("is none of ISO 9660, initramfs (cpio), ext4, VMDK, container image, and disk with an ext4 partition")]
    Unknown,
    #[error("cannot be taken out of the image that it is in")]
    TakeOut(#[from] inner::Error),
    #[error(transparent)]
    Path(#[from] lookup::Error),
    #[error("ISO 9660")]
    Iso(#[from] iso9660::Error),
    #[error("ext4")]
    Ext4(#[from] ext4::Error),
    #[error("initramfs")]
    Cpio(#[from] cpio::Error),
    #[error("VMDK")]
    Vmdk(#[from] vmdk::Error),
    #[error(transparent)]
    Partition(#[from] partition::Error),
    #[error("container image")]
    Container(#[from] oci::Error),
}
