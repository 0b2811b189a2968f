//! The container's disk: clean when the machine is off, gone with `--rm`, kept without.

use std::path::PathBuf;
use std::process::Command;

use rig::images::run as tool;
use rig::vch::run;

fn container(state: &std::path::Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(state.join("tether/containers")).ok()?;
    let mut dirs = entries.flatten().map(|entry| entry.path());
    let first = dirs.next();
    assert!(dirs.next().is_none(), "one run, one container");
    first
}

#[test]
fn what_was_written_is_on_a_clean_disk() {
    let image = rig::artifacts::dist("busybox.tar");
    let script = "echo kept > /kept; mkdir -p /a/b; mount -t tmpfs none /mnt 2>/dev/null; sleep 1000 & exit 0";
    let running = run([image.as_os_str()].into_iter().chain(["sh", "-c", script].map(std::ffi::OsStr::new))).start();
    let kept = tempfile::tempdir().unwrap();
    let (from, to) = (running.state().to_owned(), kept.path());
    let output = running.finish_with(|| {
        tool(Command::new("cp").arg("-a").arg(&from).arg(to));
    });
    assert_eq!(output.code, 0, "{output:?}");
    let copied = to.join(from.file_name().unwrap());
    let dir = container(&copied).expect("kept without --rm");
    let (disk, raw) = (dir.join("disk.qcow2"), to.join("disk.raw"));
    tool(Command::new("qemu-img").args(["convert", "-O", "raw"]).arg(&disk).arg(&raw));
    let check = Command::new("e2fsck").arg("-fn").arg(&raw).output().expect("e2fsck");
    let said = String::from_utf8_lossy(&check.stdout);
    assert_eq!(check.status.code(), Some(0), "{said}");
    let features = tool(Command::new("dumpe2fs").arg("-h").arg(&raw));
    assert!(!features.contains("needs_recovery"), "the journal is written out");
    assert_eq!(tool(Command::new("debugfs").args(["-R", "cat /kept"]).arg(&raw)), "kept\n");
}

#[test]
fn rm_leaves_nothing() {
    for (command, code) in [("true", 0), ("nosuchcmd", 127)] {
        let image = rig::artifacts::dist("busybox.tar");
        let running = run(["--rm".as_ref(), image.as_os_str(), command.as_ref()]).start();
        let state = running.state().to_owned();
        let output = running.finish_with(|| assert!(container(&state).is_none(), "{command}: something is left"));
        assert_eq!(output.code, code);
    }
}
