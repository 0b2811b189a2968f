//! Images of several layers, made on the spot over busybox's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use tempfile::TempDir;

use crate::artifacts;
use crate::images::{run, sha256};

/// An image whose first layer is busybox.
pub struct Layers {
    dir: TempDir,
    names: Vec<String>,
}

impl Default for Layers {
    fn default() -> Layers {
        Layers::over_busybox()
    }
}

impl Layers {
    pub fn over_busybox() -> Layers {
        let dir = tempfile::tempdir().expect("a temporary folder");
        run(Command::new("tar")
            .arg("-xf")
            .arg(artifacts::dist("busybox.tar"))
            .arg("-C")
            .arg(dir.path())
            .arg("layer.tar"));
        fs::rename(dir.path().join("layer.tar"), dir.path().join("0.tar")).expect("a name");
        Layers { dir, names: vec!["0.tar".into()] }
    }

    /// Lays one more layer over it, of what `fill` puts in a folder. Files called `.wh.NAME` hide NAME.
    pub fn add(&mut self, fill: impl FnOnce(&Path)) {
        let name = format!("{}.tar", self.names.len());
        let root = self.dir.path().join(format!("{name}.d"));
        fs::create_dir(&root).expect("a folder");
        fill(&root);
        run(Command::new("tar")
            .args(["--numeric-owner", "--owner=0", "--group=0", "--sort=name", "--mtime=@0", "-cf"])
            .arg(self.dir.path().join(&name))
            .arg("-C")
            .arg(&root)
            .arg("."));
        self.names.push(name);
    }

    /// Lays a tar over it as it is.
    pub fn add_tar(&mut self, make: impl FnOnce(&Path)) {
        let name = format!("{}.tar", self.names.len());
        make(&self.dir.path().join(&name));
        self.names.push(name);
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.names.len()
    }

    /// The docker archive, as far as it is now.
    pub fn archive(&self, name: &str) -> PathBuf {
        let dir = self.dir.path();
        let diff_ids: Vec<String> =
            self.names.iter().map(|name| format!("sha256:{}", sha256(&dir.join(name)))).collect();
        let config = json!({
            "architecture": "amd64", "os": "linux", "config": { "Cmd": ["/bin/sh"] },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        fs::write(dir.join("config"), config.to_string()).expect("a file");
        let config = format!("{}.json", sha256(&dir.join("config")));
        fs::rename(dir.join("config"), dir.join(&config)).expect("a name");
        let manifest = json!([{ "Config": config, "RepoTags": ["test:latest"], "Layers": self.names }]);
        fs::write(dir.join("manifest.json"), manifest.to_string()).expect("a file");
        let archive = dir.join(name);
        run(Command::new("tar")
            .arg("-cf")
            .arg(&archive)
            .arg("-C")
            .arg(dir)
            .args([&config, "manifest.json"])
            .args(&self.names));
        archive
    }
}
