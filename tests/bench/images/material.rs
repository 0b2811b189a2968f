//! What images are made of: this machine's `/usr` and Debian, each as a tarball, unpacked, and as a docker archive.

use std::fs;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use rig::artifacts;
use rig::images::sha256;

use crate::run;

/// One set of files in every form.
#[derive(Debug)]
pub(crate) struct Material {
    pub(crate) name: &'static str,
    pub(crate) layer: PathBuf,
    /// A docker archive of that layer alone.
    pub(crate) archive: PathBuf,
    /// The files themselves.
    pub(crate) tree: PathBuf,
    pub(crate) files: usize,
    pub(crate) bytes: u64,
}

/// More than 400 MB and 20,000 files of this machine, wherever a system keeps that many.
pub(crate) fn usr(scratch: &Path) -> Result<Material> {
    const BYTES: u64 = 400_000_000;
    let layer = scratch.join("usr.tar");
    let mut folders: Vec<&str> = Vec::new();
    for folder in ["usr/share", "usr/include", "usr/bin", "usr/lib"] {
        folders.push(folder);
        let mut tar = Command::new("tar");
        tar.args(["--format=pax", "--xattrs", "--acls", "--numeric-owner", "-C", "/", "-cf"]).arg(&layer);
        run(tar.args(folders.iter().filter(|folder| Path::new("/").join(folder).exists())))?;
        if fs::metadata(&layer)?.len() > BYTES && count(&layer)? > 20_000 {
            break;
        }
    }
    forms("/usr", scratch, layer)
}

/// Debian's minbase with Python.
pub(crate) fn debian(scratch: &Path) -> Result<Material> {
    run(Command::new("tar").arg("-xf").arg(artifacts::debian()).arg("-C").arg(scratch).arg("layer.tar"))?;
    forms("Debian", scratch, scratch.join("layer.tar"))
}

/// So many files of a few bytes in folders of a thousand: what memory a file takes.
pub(crate) fn many(scratch: &Path, files: usize) -> Result<Material> {
    let layer = scratch.join("many.tar");
    let mut tar = BufWriter::new(fs::File::create(&layer)?);
    for n in 0..files {
        tar.write_all(&header(&format!("d{:04}/a-file-name-of-24-{n:06}", n / 1000), 7))?;
        let mut content = [0; 512];
        content[..7].copy_from_slice(b"content");
        tar.write_all(&content)?;
    }
    tar.write_all(&[0; 1024])?;
    tar.into_inner()?;
    archive("many", scratch, layer)
}

/// The header of a regular file in a tarball, as POSIX has it.
fn header(name: &str, size: usize) -> [u8; 512] {
    let mut header = [0; 512];
    let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000644");
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{size:011o}"));
    put(136, "00000000000");
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\x0000");
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

fn forms(name: &'static str, scratch: &Path, layer: PathBuf) -> Result<Material> {
    let made = archive(name, scratch, layer)?;
    fs::create_dir(&made.tree)?;
    run(Command::new("tar")
        .args(["--xattrs", "--xattrs-include=*", "--acls", "--exclude=./dev/*", "-xpf"])
        .arg(&made.layer)
        .arg("-C")
        .arg(&made.tree))?;
    Ok(made)
}

fn archive(name: &'static str, scratch: &Path, layer: PathBuf) -> Result<Material> {
    let folder = scratch.join(name.trim_matches('/').to_lowercase());
    fs::create_dir(&folder)?;
    fs::rename(&layer, folder.join("layer.tar"))?;
    let layer = folder.join("layer.tar");
    let document = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", sha256(&layer))] },
    });
    fs::write(folder.join("config.json"), document.to_string())?;
    let manifest =
        serde_json::json!([{ "Config": "config.json", "RepoTags": ["bench:latest"], "Layers": ["layer.tar"] }]);
    fs::write(folder.join("manifest.json"), manifest.to_string())?;
    let archive = folder.join("image.tar");
    let names = ["config.json", "manifest.json", "layer.tar"];
    run(Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(&folder).args(names))?;
    let (files, bytes) = (count(&layer)?, fs::metadata(&layer)?.len());
    Ok(Material { name, layer, archive, tree: folder.join("tree"), files, bytes })
}

fn count(layer: &Path) -> Result<usize> {
    let output = Command::new("tar").arg("-tf").arg(layer).output().context("tar")?;
    Ok(output.stdout.iter().filter(|&&byte| byte == b'\n').count())
}
