//! VMDKs of a Debian file system, against `qemu-img convert`.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use rig::artifacts;

use super::{compare, cost};
use crate::run;

pub(crate) fn bench(scratch: &Path) -> Result<()> {
    let (raw, ours, theirs) = (scratch.join("vmdk.raw"), scratch.join("ours.vmdk"), scratch.join("theirs.vmdk"));
    let program = || Command::new(artifacts::program("iso-builder"));
    run(program().arg("disk").arg(artifacts::debian()).arg("-o").arg(&raw))?;
    for (format, subformat) in [("stream", "streamOptimized"), ("vmdk", "monolithicSparse"), ("flat", "monolithicFlat")]
    {
        let option = format!("subformat={subformat}");
        let peer =
            || cost(Command::new("qemu-img").args(["convert", "-O", "vmdk", "-o", &option]).arg(&raw).arg(&theirs));
        let us = || cost(program().arg("convert").arg(&raw).arg(&ours).args(["--format", format]));
        compare(subformat, us, "`qemu-img convert`", peer)?;
        if format == "stream" {
            let [us, peer] = [fs::metadata(&ours)?.len(), fs::metadata(&theirs)?.len()];
            println!(
                "| streamOptimized, bytes | {us} | `qemu-img convert` | {peer} | {:.3} |",
                us as f64 / peer as f64
            );
            let whole = fs::read(&ours)?;
            for threads in ["1", "3"] {
                run(program().arg("convert").arg(&raw).arg(&ours).args(["--format", "stream", "--threads", threads]))?;
                ensure!(fs::read(&ours)? == whole, "{threads} threads write other bytes");
            }
        }
    }
    fs::remove_file(&raw)?;
    Ok(())
}
