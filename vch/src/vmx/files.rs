//! The files of a containerVM for ESXi: its disks as VMDKs, and the medium that it boots.
//!
//! It decides what becomes of volumes. What is mounted where is decided in [`crate::plan`].

use std::fs::{self, File};
use std::num::NonZero;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use iso_builder::output::Output;
use iso_builder::vmdk;
use wire::spec::{DiskId, Mount, Source};

use crate::cli::VmdkForm;
use crate::cli::run::disks::Backing;
use crate::plan::Volume;
use crate::volumes;

/// What lies in the directory so far.
#[derive(Debug)]
pub(super) struct Files {
    dir: PathBuf,
    form: VmdkForm,
    disks: Vec<String>,
}

impl Files {
    pub(super) fn in_dir(dir: &Path, form: VmdkForm) -> Files {
        Files { dir: dir.to_owned(), form, disks: Vec::new() }
    }

    /// The disks' names, in the order of their places.
    pub(super) fn disks(&self) -> &[String] {
        &self.disks
    }

    /// The image's disk becomes the VM's first.
    pub(super) fn root(&mut self, raw: &Path) -> Result<()> {
        let file = File::open(raw).with_context(|| format!("cannot read {}", raw.display()))?;
        self.disk(&file, raw, "root")
    }

    /// Makes the volumes. The result is the mounts, whose disks are known by the UUIDs of their file systems: a VMDK has no serial number of our choice.
    pub(super) fn volumes(&mut self, volumes: &[Volume], mounts: &[Mount]) -> Result<Vec<Mount>> {
        let mut mounts = mounts.to_vec();
        for (number, volume) in volumes.iter().enumerate() {
            if self.disks.len() == MOST_DISKS {
                bail!("{} volumes: one controller holds {} beside the root", volumes.len(), MOST_DISKS - 1);
            }
            let uuid = match &volume.backing {
                Backing::Named(name) => self.new_volume(name, volume.size)?,
                Backing::Anonymous => self.new_volume(&format!("volume{number}"), volume.size)?,
                Backing::File(path) => self.foreign(path, &format!("volume{number}"))?,
            };
            let known = Source::Disk(DiskId::Serial(volume.serial.clone()));
            // one disk may be mounted twice
            for mount in mounts.iter_mut().filter(|mount| mount.source == known) {
                mount.source = Source::Disk(DiskId::Uuid(uuid.clone()));
            }
        }
        Ok(mounts)
    }

    /// Copies the medium; its name is the result.
    pub(super) fn medium(&self, iso: &Path) -> Result<String> {
        let copied = fs::copy(iso, self.dir.join(MEDIUM));
        copied.with_context(|| format!("cannot copy {} to {}", iso.display(), self.dir.display()))?;
        Ok(MEDIUM.to_owned())
    }

    /// An empty one. Those of this host stay here: they are in the state of another machine.
    fn new_volume(&mut self, name: &str, size: Option<u64>) -> Result<String> {
        let raw = self.dir.join(format!(".{name}.raw"));
        volumes::make(&raw, name, size)?;
        let file = File::open(&raw).with_context(|| format!("cannot read {}", raw.display()))?;
        let uuid = uuid(&file).with_context(|| format!("{} has no file system", raw.display()))?;
        self.disk(&file, &raw, name)?;
        fs::remove_file(&raw).with_context(|| format!("cannot remove {}", raw.display()))?;
        Ok(uuid)
    }

    /// A raw disk image of the user's, copied.
    fn foreign(&mut self, path: &Path, name: &str) -> Result<String> {
        let shown = path.display();
        let file = File::open(path).with_context(|| format!("-v {shown}: cannot read this disk image"))?;
        let mut magic = [0; 4];
        let read = file.read_at(&mut magic, 0).with_context(|| format!("-v {shown}: cannot read this disk image"))?;
        if read == 4 && (&magic == b"QFI\xfb" || &magic == b"KDMV") {
            bail!("-v {shown}: only raw disk images are taken: `qemu-img convert -O raw {shown} FILE.raw` makes one");
        }
        let Some(uuid) = uuid(&file) else {
            bail!("-v {shown}: this disk image has no ext4 file system, and by its UUID the guest would find it");
        };
        self.disk(&file, path, name)?;
        Ok(uuid)
    }

    /// Writes a VMDK of that name. Only what is not zero takes room.
    fn disk(&mut self, raw: &File, path: &Path, name: &str) -> Result<()> {
        let name = format!("{name}.vmdk");
        let place = self.dir.join(&name);
        if self.disks.contains(&name) {
            bail!("a volume cannot be called {:?} here: another disk is", name.trim_end_matches(".vmdk"));
        }
        let context = || format!("cannot write {}", place.display());
        let size = raw.metadata().with_context(|| format!("cannot read {}", path.display()))?.len();
        let mut output = Output::create(&place).with_context(context)?;
        let written = match self.form {
            VmdkForm::Sparse => vmdk::write_sparse(raw, size, &name, output.file_mut(), &mut |_| {}),
            VmdkForm::Stream => {
                let threads = std::thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN);
                vmdk::write_stream(raw, size, &name, threads, output.file_mut(), &mut |_| {})
            }
        };
        written.with_context(context)?;
        output.publish().with_context(context)?;
        self.disks.push(name);
        Ok(())
    }
}

/// Of an ext4 file system, as 36 characters; none where there is no such file system.
fn uuid(file: &File) -> Option<String> {
    let (mut magic, mut bytes) = ([0; 2], [0; 16]);
    file.read_exact_at(&mut magic, SUPERBLOCK + 0x38).ok()?;
    file.read_exact_at(&mut bytes, SUPERBLOCK + 0x68).ok()?;
    if magic != [0x53, 0xef] || bytes == [0; 16] {
        return None;
    }
    let hex = bytes.map(|byte| format!("{byte:02x}")).concat();
    Some([&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-"))
}

/// Places 0 to 15 of a SCSI bus, less 7, which is the controller's.
pub(super) const MOST_DISKS: usize = 15;
const MEDIUM: &str = "bootstrap.iso";
/// Where ext4 has it: "Ext4 Disk Layout", in the kernel's documentation.
const SUPERBLOCK: u64 = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(serial: &str, backing: Backing) -> (Volume, Mount) {
        let volume = Volume { serial: serial.into(), backing, read_only: false, size: Some(64 << 20) };
        let source = Source::Disk(DiskId::Serial(serial.into()));
        let mount =
            Mount { name: serial.into(), source, destination: format!("/{serial}"), read_only: false, seed: false };
        (volume, mount)
    }

    #[test]
    fn volumes_are_known_by_their_file_systems() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = Files::in_dir(dir.path(), VmdkForm::Sparse);
        let (volumes, mounts): (Vec<_>, Vec<_>) =
            [volume("a", Backing::Named("data".into())), volume("b", Backing::Anonymous)].into_iter().unzip();
        let mounts = files.volumes(&volumes, &mounts).unwrap();
        assert_eq!(files.disks(), ["data.vmdk", "volume1.vmdk"]);
        let [Source::Disk(DiskId::Uuid(first)), Source::Disk(DiskId::Uuid(second))] =
            [&mounts[0].source, &mounts[1].source]
        else {
            panic!("{mounts:?}")
        };
        assert!(first.len() == 36 && first != second, "{first} {second}");
        let mut names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["data.vmdk", "volume1.vmdk"], "nothing else is left");
    }

    #[test]
    fn what_cannot_be_a_volume_is_refused_with_a_way_out() {
        let dir = tempfile::tempdir().unwrap();
        let error = |bytes: &[u8]| {
            let path = dir.path().join("a.img");
            fs::write(&path, bytes).unwrap();
            let (volume, mount) = volume("a", Backing::File(path));
            format!("{:#}", Files::in_dir(dir.path(), VmdkForm::Sparse).volumes(&[volume], &[mount]).unwrap_err())
        };
        assert!(error(b"QFI\xfb and more").contains("qemu-img convert -O raw"));
        assert!(error(&[0; 4096]).contains("no ext4 file system"));
        assert!(error(&[7; 4096]).contains("no ext4 file system") && error(b"").contains("no ext4 file system"));
        let many: Vec<_> = (0..16).map(|n| volume(&format!("v{n}"), Backing::Anonymous)).collect();
        let (volumes, mounts): (Vec<_>, Vec<_>) = many.into_iter().unzip();
        let error = Files::in_dir(dir.path(), VmdkForm::Sparse).volumes(&volumes, &mounts).unwrap_err().to_string();
        assert!(error.starts_with("16 volumes: one controller holds 14"), "{error}");
        let root = volume("a", Backing::Named("root".into()));
        let mut files = Files::in_dir(dir.path(), VmdkForm::Sparse);
        files.disks.push("root.vmdk".into());
        assert!(files.volumes(&[root.0], &[root.1]).unwrap_err().to_string().contains("another disk is"));
    }
}
