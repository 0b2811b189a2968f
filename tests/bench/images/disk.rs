//! A whole disk from a layer, against what has to be done in any case: `zcat` of the layer, and `zstd -dc` of it.
//!
//! CPU time, of which ours is spread over two threads; a quarter more than `zcat` takes is the most that is wanted of time on the clock.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use rig::artifacts;

use super::{compare, cost, material};

pub(crate) fn bench(scratch: &Path) -> Result<()> {
    let material = material::usr(scratch)?;
    let tar = digest(&material.layer)?;
    for (program, unpack, ending) in [("gzip", "zcat", "gz"), ("zstd", "zstdcat", "zst")] {
        let packed = scratch.join(format!("layer.{ending}"));
        let status = Command::new(program).arg("-c").arg(&material.layer).stdout(File::create(&packed)?).status()?;
        ensure!(status.success(), "{program}");
        let image = layout(&scratch.join(format!("image-{ending}")), &packed, &tar)?;
        let out = scratch.join("whole.raw");
        compare(
            &format!("a disk from a {program} layer, {}: {} files", material.name, material.files),
            || cost(Command::new(artifacts::program("iso-builder")).arg("disk").arg(&image).arg("-o").arg(&out)),
            &format!("`{unpack} > /dev/null`"),
            || cost(Command::new("sh").args(["-c", "exec \"$0\" \"$1\" > /dev/null", unpack]).arg(&packed)),
        )?;
        fs::remove_dir_all(image)?;
        fs::remove_file(packed)?;
        fs::remove_file(out)?;
    }
    Ok(())
}

/// An OCI layout of one layer.
fn layout(dir: &Path, packed: &Path, diff_id: &str) -> Result<PathBuf> {
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    let layer = digest(packed)?;
    fs::hard_link(packed, blobs.join(&layer)).context("blobs")?;
    let document = |value: serde_json::Value| -> Result<serde_json::Value> {
        let text = value.to_string();
        let file = blobs.join("document");
        fs::write(&file, &text)?;
        let digest = digest(&file)?;
        fs::rename(file, blobs.join(&digest))?;
        Ok(serde_json::json!({"digest": format!("sha256:{digest}"), "size": text.len()}))
    };
    let rootfs = serde_json::json!({"type": "layers", "diff_ids": [format!("sha256:{diff_id}")]});
    let config = document(serde_json::json!({"os": "linux", "architecture": "amd64", "rootfs": rootfs}))?;
    let blob = serde_json::json!({"digest": format!("sha256:{layer}"), "size": fs::metadata(packed)?.len()});
    let manifest = document(serde_json::json!({"schemaVersion": 2, "config": config, "layers": [blob]}))?;
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [manifest]});
    fs::write(dir.join("index.json"), index.to_string())?;
    Ok(dir.to_owned())
}

fn digest(file: &Path) -> Result<String> {
    let output = Command::new("sha256sum").arg(file).output()?;
    let said = String::from_utf8(output.stdout)?;
    Ok(said.split(' ').next().context("sha256sum says nothing")?.to_owned())
}
