//! The ISO of a folder, against `xorriso -as mkisofs -R` on the same files.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use rig::artifacts;

use super::{compare, cost, material};

pub(crate) fn bench(scratch: &Path) -> Result<()> {
    let usr = material::usr(scratch)?;
    let out = scratch.join("usr.iso");
    let fresh = |command: &mut Command| {
        fs::remove_file(&out).ok();
        cost(command)
    };
    let what = format!("ISO of a folder, {}: {} files, {} MB", usr.name, usr.files, usr.bytes / 1_000_000);
    let ours = || fresh(Command::new(artifacts::program("iso-builder")).arg("pack").arg(&usr.tree).arg("-o").arg(&out));
    let theirs = || {
        let mut xorriso = Command::new("xorriso");
        fresh(xorriso.args(["-as", "mkisofs", "-quiet", "-R", "-o"]).arg(&out).arg(&usr.tree))
    };
    compare(&what, ours, "`xorriso -as mkisofs -R`", theirs)
}
