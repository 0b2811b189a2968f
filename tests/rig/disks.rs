//! Disks that a test gives a machine: made by the file systems' own tools, and looked into afterwards with them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::images::{ImageDir, run};

/// Files and QEMU's arguments for them. They lie as long as this does.
pub struct Disks {
    dir: TempDir,
    busybox: ImageDir,
    arguments: Vec<String>,
    count: usize,
}

impl Default for Disks {
    fn default() -> Disks {
        Disks::new()
    }
}

impl Disks {
    pub fn new() -> Disks {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let arguments = ["-device", "virtio-scsi-pci,id=scsi"].map(String::from).to_vec();
        Disks { dir, busybox: ImageDir::with_busybox(), arguments, count: 0 }
    }

    /// A file for a disk.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The files of an image with a shell.
    pub fn busybox(&self) -> PathBuf {
        self.busybox.root()
    }

    /// An empty folder for files of a disk.
    pub fn folder(&self, name: &str) -> PathBuf {
        let path = self.path(&format!("{name}.d"));
        fs::create_dir_all(&path).expect("a folder");
        path
    }

    /// An ext4 file system with the files of a folder.
    pub fn ext4(&self, label: &str, files: Option<&Path>, mib: u32) -> PathBuf {
        let path = self.path(&format!("{label}.ext4"));
        let mut command = Command::new("mke2fs");
        command.args(["-q", "-F", "-t", "ext4", "-L", label]);
        if let Some(files) = files {
            command.arg("-d").arg(files);
        }
        run(command.arg(&path).arg(format!("{mib}M")));
        path
    }

    /// The container's one disk.
    pub fn root(&mut self) -> PathBuf {
        let root = self.ext4("containerfs", Some(&self.busybox()), 32);
        self.scsi(&root, "root", "");
        root
    }

    /// An EROFS file system with the files of a folder.
    pub fn erofs(&self, name: &str, files: &Path) -> PathBuf {
        let path = self.path(&format!("{name}.erofs"));
        run(Command::new("mkfs.erofs").arg(&path).arg(files));
        path
    }

    /// Attaches a file to the one SCSI controller. `options` are of QEMU's `-drive`, with a comma before each.
    pub fn scsi(&mut self, file: &Path, serial: &str, options: &str) {
        self.attach(file, &format!("scsi-hd,bus=scsi.0,serial={serial}"), options);
    }

    /// Attaches a file as a virtio-blk disk.
    pub fn blk(&mut self, file: &Path, serial: &str) {
        self.attach(file, &format!("virtio-blk-pci,serial={serial}"), "");
    }

    fn attach(&mut self, file: &Path, device: &str, options: &str) {
        let id = format!("disk{}", self.count);
        self.count += 1;
        let drive = format!("if=none,id={id},format=raw,cache=unsafe,file={}{options}", file.display());
        self.arguments.extend(["-drive".into(), drive, "-device".into(), format!("{device},drive={id}")]);
    }

    /// QEMU's arguments for everything that is attached.
    pub fn arguments(&self) -> Vec<String> {
        self.arguments.clone()
    }
}

/// An empty file.
pub fn blank(path: &Path, mib: u64) {
    File::create(path).expect("a file").set_len(mib << 20).expect("room");
}

/// No journal waits to be replayed, and nothing is to be repaired.
pub fn assert_clean(disk: &Path) {
    let features = run(Command::new("dumpe2fs").arg("-h").arg(disk));
    assert!(!features.contains("needs_recovery"), "{}: the journal is not written out", disk.display());
    let check = Command::new("e2fsck").arg("-fn").arg(disk).output().expect("e2fsck");
    let said = String::from_utf8_lossy(&check.stdout);
    assert_eq!(check.status.code(), Some(0), "{}: {said}", disk.display());
}

/// One command of debugfs(8).
pub fn debugfs(disk: &Path, command: &str) -> String {
    run(Command::new("debugfs").args(["-w", "-R", command]).arg(disk))
}
