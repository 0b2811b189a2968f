//! Volumes: disks that outlive their containers, or belong to one, or lie in files of the user's.
//!
//! It decides where they are, how large a new one is, and that only one running machine writes to each. What is mounted where is decided in [`crate::plan`].

use std::fs::{self, File, TryLockError};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use iso_builder::ext4;
use iso_builder::output::Output;
use iso_builder::tree::{Kind, Meta, Node, ROOT, Time, Tree};
use sha2::{Digest, Sha256};
use wire::spec::ROOT_LABEL;

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
    let disk = |file, format, transient| {
        let (serial, read_only) = (Some(volume.serial.clone()), volume.read_only);
        Disk { file, format, serial, read_only, transient }
    };
    match &volume.backing {
        Backing::Named(name) => {
            let dir = volumes_dir()?.join(name);
            let (file, lock) = named(&dir, name, volume)?;
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

/// Where volumes with names are kept.
pub fn volumes_dir() -> Result<PathBuf> {
    Ok(state::state_dir()?.join("volumes"))
}

fn named(dir: &Path, name: &str, volume: &Volume) -> Result<(PathBuf, File)> {
    state::make_dir(dir)?;
    let path = dir.join("lock");
    let opened = File::options().create(true).truncate(false).write(true).open(&path);
    let lock = opened.with_context(|| format!("cannot open {}", path.display()))?;
    let disk = dir.join("disk.raw");
    if !disk.exists() {
        // of two that make it at once, one does
        lock.lock().with_context(|| format!("cannot lock {}", path.display()))?;
        if !disk.exists() {
            make(&disk, name, volume.size)?;
        }
        lock.unlock().with_context(|| format!("cannot unlock {}", path.display()))?;
    }
    take(&lock, volume.read_only, &format!("volume {name}"))?;
    if let Some(size) = volume.size {
        let found = fs::metadata(&disk).with_context(|| format!("cannot read {}", disk.display()))?.len();
        if found != size {
            bail!("volume {name} has {found} bytes already, and keeps its size: leave out volume-opt=size");
        }
    }
    Ok((disk, lock))
}

/// A file of the user's, and how a disk lies in it.
fn foreign(path: &Path, read_only: bool) -> Result<(PathBuf, Format, File)> {
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
    let mut label = [0; 16];
    if file.read_exact_at(&mut label, EXT4_LABEL).is_ok() && label.starts_with(ROOT_LABEL.as_bytes()) {
        bail!("-v {shown}: this is a container's root, labelled {ROOT_LABEL}: give a copy another label (e2label)");
    }
    take(&file, read_only, &format!("-v {shown}: the disk image"))?;
    Ok((path, format, file))
}

/// Several may read what nobody writes.
fn take(lock: &File, read_only: bool, what: &str) -> Result<()> {
    match if read_only { lock.try_lock_shared() } else { lock.try_lock() } {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => {
            bail!("{what} is in use by another virtual machine: only machines that all mount it read-only can share it")
        }
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("cannot lock {what}")),
    }
}

/// Makes an empty file system. It takes no room of the host until it is used.
pub fn make(path: &Path, name: &str, size: Option<u64>) -> Result<()> {
    let size = size.unwrap_or(SIZE);
    let options = ext4::Options {
        label: label(name),
        size: ext4::Size::Exactly(size),
        journal: true,
        uuid: Some(uuid(state::random()?)),
        time: Time::default(),
    };
    let made = Output::create(path).map_err(anyhow::Error::from).and_then(|output| {
        let directory = || Meta { mode: 0o755, ..Meta::default() };
        let mut tree = Tree::new(directory());
        tree.insert(ROOT, INNER, Node { meta: directory(), kind: Kind::Dir(Default::default()) });
        ext4::write(&tree, &options, output.file(), &mut |_, _| {})?;
        Ok(output.publish()?)
    });
    made.with_context(|| format!("cannot make volume {name} of {size} bytes in {}", path.display()))
}

/// The label of a volume: 16 hexadecimal digits that follow from its name, as in vSphere Integrated Containers, where the digest was MD5.
fn label(name: &str) -> String {
    Sha256::digest(name.as_bytes())[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Version 4: RFC 9562.
fn uuid(random: [u8; 32]) -> [u8; 16] {
    let mut uuid: [u8; 16] = std::array::from_fn(|at| random[at]);
    uuid[6] = uuid[6] & 0x0f | 0x40;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    uuid
}

/// As much as a container's own disk has at least. Only what is used takes room.
const SIZE: u64 = 8 << 30;
/// The directory of a volume that is mounted, as in vSphere Integrated Containers: a database would not begin in one that holds `lost+found`.
const INNER: &[u8] = b".vic.vol.data";
/// Where ext4 has its label: 120 bytes into the superblock.
const EXT4_LABEL: u64 = 1024 + 120;

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn volume(read_only: bool, size: Option<u64>) -> Volume {
        Volume { serial: "s".into(), backing: Backing::Anonymous, read_only, size }
    }

    #[test]
    fn one_writes_or_many_read() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("data");
        let open = |read_only| named(&dir, "data", &volume(read_only, None)).map_err(|error| error.to_string());
        let writer = open(false).unwrap();
        let error =
            "volume data is in use by another virtual machine: only machines that all mount it read-only can share it";
        assert_eq!(open(false).unwrap_err(), error);
        assert_eq!(open(true).unwrap_err(), error);
        drop(writer);
        let readers = (open(true).unwrap(), open(true).unwrap());
        assert_eq!(open(false).unwrap_err(), error);
        drop(readers);
        open(false).unwrap();
        let error = named(&dir, "data", &volume(false, Some(1 << 30))).unwrap_err().to_string();
        assert!(error.contains("keeps its size"), "{error}");
    }

    #[test]
    fn a_new_volume_is_clean_thin_and_labelled() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("v.raw");
        make(&path, "data", None).unwrap();
        let check = Command::new("e2fsck").arg("-fn").arg(&path).output().expect("e2fsck");
        assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
        let header = Command::new("dumpe2fs").arg("-h").arg(&path).output().expect("dumpe2fs");
        let header = String::from_utf8_lossy(&header.stdout).into_owned();
        assert!(header.contains(&label("data")) && header.contains("has_journal"), "{header}");
        let meta = fs::metadata(&path).unwrap();
        let stored = std::os::unix::fs::MetadataExt::blocks(&meta) * 512;
        assert!(meta.len() == SIZE && stored < 2 << 20, "{stored} bytes");
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
        fs::write(&image, b"QFI\xfb and more").unwrap();
        let (_, format, _lock) = foreign(&image, false).unwrap();
        assert_eq!(format, Format::Qcow2);
        assert!(error(&image).contains("in use"));
    }
}
