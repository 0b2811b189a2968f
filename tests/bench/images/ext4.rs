//! An ext4 disk from a layer, against `mke2fs -d` of the files and, where it is new enough to take one, of the tarball.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use rig::artifacts;

use super::material::{self, Material};
use super::{Cost, compare, cost};

/// Files for the figure of memory.
const MANY: usize = 500_000;

/// What may be resident besides 200 bytes for each file, KiB.
const ALLOWED: u64 = 64 << 10;

pub(crate) fn bench(scratch: &Path) -> Result<()> {
    let many = material::many(scratch, MANY)?;
    let ours = disk(&many, &scratch.join("many.raw"))?;
    memory(&many, ours);
    fs::remove_dir_all(scratch.join("many"))?;
    fs::remove_file(scratch.join("many.raw"))?;
    for material in [material::debian(scratch)?, material::usr(scratch)?] {
        against_mke2fs(&material, scratch)?;
    }
    Ok(())
}

fn against_mke2fs(material: &Material, scratch: &Path) -> Result<()> {
    let out = scratch.join("disk.raw");
    let peer = |from: &Path, program: &str| {
        fs::remove_file(&out).ok();
        fs::File::create(&out)?.set_len(2 * material.bytes + (256 << 20))?;
        cost(Command::new(program).args(["-q", "-F", "-t", "ext4", "-d"]).arg(from).arg(&out))
    };
    let Material { name, files, bytes, .. } = material;
    let what = format!("ext4 from a layer, {name}: {files} files, {} MB", bytes / 1_000_000);
    let ours = || disk(material, &out);
    compare(&what, ours, "`mke2fs -d` of the files", || peer(&material.tree, "mke2fs"))?;
    // A `mke2fs` that takes tarballs is 1.47.1 or newer, with libarchive; it can be named where the system's is older.
    let program = std::env::var("MKE2FS_TAR").unwrap_or_else(|_| "mke2fs".into());
    match peer(&material.layer, &program) {
        Ok(_) => compare(&what, ours, "`mke2fs -d` of the tarball", || peer(&material.layer, &program))?,
        Err(_) => {
            println!("| {what} | | `mke2fs -d` of the tarball | not of this `mke2fs`: name one in MKE2FS_TAR | |")
        }
    }
    memory(material, ours()?);
    fs::remove_file(&out)?;
    Ok(())
}

fn disk(material: &Material, out: &Path) -> Result<Cost> {
    cost(Command::new(artifacts::program("iso-builder")).arg("disk").arg(&material.archive).arg("-o").arg(out))
}

fn memory(material: &Material, ours: Cost) {
    let allowed = ALLOWED + 200 * material.files as u64 / 1024;
    println!(
        "| `iso-builder disk`, most memory, {}: {} files | {} KiB | limit | {allowed} KiB | {:.2} |",
        material.name,
        material.files,
        ours.memory,
        crate::ratio(ours.memory, allowed)
    );
}
