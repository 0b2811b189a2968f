//! Container images made on the spot, out of Debian's static busybox and what a test adds.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

use crate::artifacts;

/// A folder that becomes the one layer of a docker archive.
pub struct ImageDir {
    dir: TempDir,
}

impl ImageDir {
    /// Holds a shell and its usual companions.
    pub fn with_busybox() -> ImageDir {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let image = ImageDir { dir };
        let layer = image.root();
        fs::create_dir(&layer).expect("a folder");
        run(Command::new("tar").args(["-xf"]).arg(artifacts::dist("busybox.tar")).arg("-C").arg(image.dir.path()));
        run(Command::new("tar").args(["-xf"]).arg(image.dir.path().join("layer.tar")).arg("-C").arg(&layer));
        image
    }

    /// Where the files of the image go.
    pub fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// The archive, with the fields of the image's `config`.
    pub fn archive(&self, config: &serde_json::Value) -> PathBuf {
        let dir = self.dir.path();
        run(Command::new("tar")
            .args(["--numeric-owner", "--owner=0", "--group=0", "-cf"])
            .arg(dir.join("layer.tar"))
            .arg("-C")
            .arg(self.root())
            .arg("."));
        let diff_id = format!("sha256:{}", sha256(&dir.join("layer.tar")));
        let document = serde_json::json!({
            "architecture": "amd64", "os": "linux", "config": config,
            "rootfs": { "type": "layers", "diff_ids": [diff_id] },
        });
        self.pack(&document.to_string())
    }

    /// The archive of `layer.tar` as it is, under the given image document.
    pub fn pack(&self, document: &str) -> PathBuf {
        let dir = self.dir.path();
        fs::write(dir.join("config.json"), document).expect("a file");
        let config = format!("{}.json", sha256(&dir.join("config.json")));
        fs::rename(dir.join("config.json"), dir.join(&config)).expect("a name");
        let manifest = serde_json::json!([{ "Config": config, "RepoTags": ["test:latest"], "Layers": ["layer.tar"] }]);
        fs::write(dir.join("manifest.json"), manifest.to_string()).expect("a file");
        let archive = dir.join("image.tar");
        run(Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(dir).args([
            config.as_str(),
            "manifest.json",
            "layer.tar",
        ]));
        archive
    }

    pub fn layer(&self) -> PathBuf {
        self.dir.path().join("layer.tar")
    }
}

/// Busybox as a raw disk, made by iso-builder itself. It lies as long as its folder.
pub fn busybox_disk() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let disk = dir.path().join("disk.raw");
    let mut command = Command::new(artifacts::program("iso-builder"));
    run(command.arg("disk").arg(artifacts::dist("busybox.tar")).arg("-o").arg(&disk));
    (dir, disk)
}

/// The digest of a file, by the system's own tool.
pub fn sha256(path: &Path) -> String {
    let output = Command::new("sha256sum").arg(path).output().expect("sha256sum");
    String::from_utf8_lossy(&output.stdout).split(' ').next().expect("a digest").to_owned()
}

/// Runs a tool that must succeed.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// nginx, redis and postgresql out of Debian's packages, as a raw disk: made once a run of the tests.
pub fn services_disk() -> PathBuf {
    static DISK: OnceLock<PathBuf> = OnceLock::new();
    let make = || {
        let disk = artifacts::root().join("target/services.raw");
        run(Command::new(artifacts::program("iso-builder"))
            .arg("disk")
            .arg(artifacts::services())
            .arg("-o")
            .arg(&disk));
        disk
    };
    DISK.get_or_init(make).clone()
}

/// An empty volume: a disk whose file system has that label.
pub fn volume(dir: &Path, label: &str) -> PathBuf {
    let disk = dir.join(label);
    fs::File::create(&disk).and_then(|file| file.set_len(256 << 20)).expect("a file");
    run(Command::new("mkfs.ext4").args(["-q", "-L", label]).arg(&disk));
    disk
}
