//! Volumes: disks that outlive their containers, or belong to one, or lie in files of the user's.
//!
//! It decides where they are, how large a new one is, and that only one running machine writes to each. What is mounted where is decided in [`crate::plan`].

mod disk;
mod holders;
mod options;
mod store;

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use wire::spec::ROOT_LABEL;

pub use self::disk::make;
pub(crate) use self::holders::{Denied, Held, Volumes, Want};
pub(crate) use self::options::{Kind, Options};
pub(crate) use self::store::{ANONYMOUS, DRIVER, Store, Stored, VolumeError, Wanted, check_name};
use crate::cli::run::disks::Backing;
use crate::plan::Volume;
use crate::state;
use crate::vm::{Disk, Format};

/// A volume that a machine may use for as long as this is there.
#[derive(Debug)]
pub struct Attached {
    pub disk: Disk,
    _lock: Option<File>,
}

/// Finds a volume, or makes it. One of its container's own lies in `container`, the directory of the container.
pub fn attach(volume: &Volume, container: &Path, transient: bool) -> Result<Attached> {
    let disk = |file, format, transient| disk_of(volume, file, format, transient);
    match &volume.backing {
        Backing::Named(name) => {
            let (file, lock) = named(&Store::open(&volumes_dir()?)?, name, volume)?;
            Ok(Attached { disk: disk(file, Format::Raw, false), _lock: Some(lock) })
        }
        Backing::Anonymous => {
            let file = container.join(format!("{}.raw", volume.serial));
            make(&file, &volume.serial, volume.size)?;
            Ok(Attached { disk: disk(file, Format::Raw, transient), _lock: None })
        }
        Backing::File(path) => {
            let (file, format, lock) = foreign(path, volume.read_only)?;
            Ok(Attached { disk: disk(file, format, false), _lock: Some(lock) })
        }
    }
}

/// A volume of a machine that [`Volumes`] holds for it.
pub(crate) fn held(volume: &Volume, store: &Store) -> Result<Disk> {
    match &volume.backing {
        Backing::Named(name) => Ok(disk_of(volume, store.disk(name), Format::Raw, false)),
        Backing::Anonymous => bail!("volume {} has no name", volume.serial),
        Backing::File(path) => {
            let (file, format, _) = image(path, volume.read_only)?;
            Ok(disk_of(volume, file, format, false))
        }
    }
}

fn disk_of(volume: &Volume, file: PathBuf, format: Format, transient: bool) -> Disk {
    Disk { file, format, serial: Some(volume.serial.clone()), read_only: volume.read_only, transient }
}

/// Where volumes with names are kept, if nobody says otherwise.
pub fn volumes_dir() -> Result<PathBuf> {
    Ok(state::state_dir()?.join(DIR))
}

fn named(store: &Store, name: &str, volume: &Volume) -> Result<(PathBuf, File)> {
    let size = volume.size.map(|size| ("size".to_owned(), size.to_string()));
    let wanted = Wanted { options: size.into_iter().collect(), ..Wanted::default() };
    let (stored, _) = store.make(name, &wanted)?;
    let Some(found) = stored.size else {
        bail!("volume {name} is no disk, and vch run mounts disks: docker run mounts it");
    };
    let lock = store.take(name, volume.read_only)?;
    if volume.read_only {
        store.settle(name)?;
    }
    if volume.size.is_some_and(|size| size != found) {
        bail!("volume {name} has {found} bytes already, and keeps its size: leave out volume-opt=size");
    }
    Ok((store.disk(name), lock))
}

/// A file of the user's, and how a disk lies in it, for one machine that writes or several that read.
fn foreign(path: &Path, read_only: bool) -> Result<(PathBuf, Format, File)> {
    let (file, format, lock) = image(path, read_only)?;
    store::take(&lock, read_only, &format!("-v {}: the disk image", path.display()))?;
    Ok((file, format, lock))
}

fn image(path: &Path, read_only: bool) -> Result<(PathBuf, Format, File)> {
    let shown = path.display();
    let meta = fs::metadata(path).with_context(|| {
        format!("-v {shown}: cannot use this disk image (`truncate -s 1G {shown} && mkfs.ext4 {shown}` makes one)")
    })?;
    if meta.is_dir() {
        bail!("-v {shown}: this is a directory, and a virtual machine has disks: use a volume (-v NAME:DIR)");
    }
    let path = fs::canonicalize(path).with_context(|| format!("cannot find {shown}"))?;
    let opened = File::options().read(true).write(!read_only).open(&path);
    let mut file = opened.with_context(|| match read_only {
        true => format!("cannot read {shown}"),
        false => format!("cannot write to {shown} (:ro behind the directory does without)"),
    })?;
    let mut magic = [0; 4];
    let format = match file.read(&mut magic) {
        Ok(4) if &magic == b"QFI\xfb" => Format::Qcow2,
        Ok(4) if &magic == b"KDMV" => Format::Vmdk,
        Ok(_) => Format::Raw,
        Err(error) => return Err(error).with_context(|| format!("cannot read {shown}")),
    };
    if names_others(&file, format).with_context(|| format!("cannot read {shown}"))? {
        bail!(
            "-v {shown}: this image names other files of the host, and whoever writes to it could name any: make it one file \
             (`qemu-img convert -O qcow2 {shown} FILE.qcow2`)"
        );
    }
    let mut label = [0; 16];
    if file.read_exact_at(&mut label, EXT4_LABEL).is_ok() && label.starts_with(ROOT_LABEL.as_bytes()) {
        bail!("-v {shown}: this is a container's root, labelled {ROOT_LABEL}: give a copy another label (e2label)");
    }
    Ok((path, format, file))
}

/// Whether the disk is made of other files, too: QEMU, docs/interop/qcow2.txt; VMware, Virtual Disk Format 1.1. A guest that has a raw disk may write
/// such a beginning to it.
fn names_others(file: &File, format: Format) -> io::Result<bool> {
    let part = |at, len| {
        let mut bytes = vec![0; len];
        // one that ends before has nothing there
        let read = file.read_at(&mut bytes, at)?;
        bytes[read..].fill(0);
        io::Result::Ok(bytes)
    };
    let zero = |at, len| Ok::<bool, io::Error>(part(at, len)?.iter().all(|&byte| byte == 0));
    Ok(match format {
        Format::Raw => false,
        // the name of what lies below; that the data lies elsewhere, of a form that has such features
        Format::Qcow2 => !zero(8, 8)? || part(7, 1)? != [2] && part(79, 1)?[0] & 4 != 0,
        // an extent of no size is a list of others; in the descriptor, what lies below
        Format::Vmdk => {
            let descriptor = part(VMDK_DESCRIPTOR, VMDK_DESCRIPTOR_LEN)?;
            zero(12, 8)? || descriptor.windows(VMDK_PARENT.len()).any(|words| words == VMDK_PARENT)
        }
    })
}

/// Where QEMU looks for it, and in how many bytes.
const VMDK_DESCRIPTOR: u64 = 512;
const VMDK_DESCRIPTOR_LEN: usize = 20 * 512;
const VMDK_PARENT: &[u8] = b"parentFileNameHint";
/// In the state directory.
pub(crate) const DIR: &str = "volumes";
/// Where ext4 has its label: 120 bytes into the superblock.
const EXT4_LABEL: u64 = 1024 + 120;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_keeps_its_size() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let volume = |size| Volume { serial: "s".into(), backing: Backing::Anonymous, read_only: false, size };
        named(&store, "data", &volume(Some(16 << 20))).unwrap();
        named(&store, "data", &volume(Some(16 << 20))).unwrap();
        named(&store, "data", &volume(None)).unwrap();
        let error = named(&store, "data", &volume(Some(1 << 30))).unwrap_err().to_string();
        assert!(error.contains("keeps its size"), "{error}");
    }

    #[test]
    fn an_image_that_names_other_files_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.img");
        let is_refused = |magic: &[u8], more: &[(usize, &[u8])]| {
            let mut bytes = vec![0; 64 << 10];
            bytes[..magic.len()].copy_from_slice(magic);
            for (at, part) in more {
                bytes[*at..at + part.len()].copy_from_slice(part);
            }
            fs::write(&path, bytes).unwrap();
            let refused = image(&path, false).map_err(|error| format!("{error:#}"));
            refused.is_err_and(|error| error.contains("names other files") || panic!("{error}"))
        };
        let (second, third) = (b"QFI\xfb\0\0\0\x02", b"QFI\xfb\0\0\0\x03");
        assert!(!is_refused(second, &[(79, b"\x04")]) && !is_refused(third, &[(79, b"\x01")]));
        assert!(is_refused(second, &[(15, b"\x70")]) && is_refused(third, &[(14, b"\x01")]));
        assert!(is_refused(third, &[(79, b"\x04")]));
        let sized: (usize, &[u8]) = (13, b"\x08");
        assert!(!is_refused(b"KDMV", &[sized, (512, b"# Disk DescriptorFile\nCID=1\n")]));
        assert!(is_refused(b"KDMV", &[]));
        assert!(is_refused(b"KDMV", &[sized, (600, b"parentFileNameHint=\"/etc/shadow\"")]));
        assert!(!is_refused(b"", &[(600, b"parentFileNameHint"), (8, b"\x01")]));
    }

    #[test]
    fn what_is_no_disk_image_is_refused_with_a_way_out() {
        let dir = tempfile::tempdir().unwrap();
        let error = |path: &Path| format!("{:#}", foreign(path, false).unwrap_err());
        assert!(error(dir.path()).contains("this is a directory"));
        assert!(error(&dir.path().join("no.img")).contains("mkfs.ext4"));
        let root = dir.path().join("root.img");
        let mut bytes = vec![0; 4096];
        bytes[1144..1155].copy_from_slice(ROOT_LABEL.as_bytes());
        fs::write(&root, bytes).unwrap();
        assert!(error(&root).contains("e2label"));
        let image = dir.path().join("a.img");
        fs::write(&image, b"QFI\xfb\0\0\0\x03").unwrap();
        let (_, format, _lock) = foreign(&image, false).unwrap();
        assert_eq!(format, Format::Qcow2);
        assert!(error(&image).contains("in use"));
    }
}
