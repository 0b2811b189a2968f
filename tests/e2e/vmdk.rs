//! Every form of a virtual disk as one that a machine has: QEMU checks it, boots a container from it, and it converts into every other without a byte's loss.

use std::path::Path;
use std::process::Command;

use rig::images::{busybox_disk, run};
use rig::machine::{Machine, script};
use wire::link::Tuning;
use wire::spec::LinkDevice;

fn iso_builder() -> Command {
    Command::new(rig::artifacts::program("iso-builder"))
}

fn convert(from: &Path, to: &Path, words: &[&str]) {
    run(iso_builder().arg("convert").arg(from).arg(to).args(words));
}

/// Powers a machine on whose only disk is that VMDK; what it writes is thrown away.
fn boots(disk: &Path, expected: &str) {
    let mut machine = Machine::new(&script(LinkDevice::Virtio, "cat /note 2>/dev/null || echo no note"), None);
    let drive = format!("if=none,id=d,format=vmdk,snapshot=on,file={}", disk.display());
    machine.extra = vec!["-drive".into(), drive, "-device".into(), "virtio-blk-pci,drive=d".into()];
    let seen = machine.power_on().serve(Tuning::FAST);
    assert_eq!(String::from_utf8_lossy(&seen.stdout).trim(), expected, "{}", disk.display());
}

#[test]
fn each_form_boots_and_becomes_every_other() {
    let (dir, raw) = busybox_disk();
    let at = |name: &str| dir.path().join(name);
    for (name, format) in [("sparse.vmdk", "vmdk"), ("stream.vmdk", "stream"), ("flat.vmdk", "flat")] {
        convert(&raw, &at(name), &["--format", format]);
        run(Command::new("qemu-img").args(["compare", "-f", "raw", "-F", "vmdk"]).arg(&raw).arg(at(name)));
        convert(&at(name), &at("back.raw"), &["--format", "raw"]);
        run(Command::new("cmp").arg(&raw).arg(at("back.raw")));
        boots(&at(name), "no note");
    }

    // the same file system with one more file, as what differs
    run(Command::new("cp").arg("--sparse=always").arg(&raw).arg(at("changed.raw")));
    std::fs::write(at("note"), "from the delta\n").unwrap();
    let command = format!("write {} /note", at("note").display());
    run(Command::new("debugfs").args(["-w", "-R", &command]).arg(at("changed.raw")));
    convert(
        &at("changed.raw"),
        &at("delta.vmdk"),
        &["--format", "delta", "--parent", at("stream.vmdk").to_str().unwrap()],
    );
    run(Command::new("qemu-img").args(["check", "-f", "vmdk"]).arg(at("delta.vmdk")));
    run(Command::new("qemu-img")
        .args(["compare", "-f", "raw", "-F", "vmdk"])
        .arg(at("changed.raw"))
        .arg(at("delta.vmdk")));
    let info = run(Command::new("qemu-img").args(["info", "--output=json"]).arg(at("delta.vmdk")));
    assert!(info.contains("\"backing-filename\": \"stream.vmdk\""), "{info}");
    assert!(at("delta.vmdk").metadata().unwrap().len() < 2 << 20, "a file more is a few grains");
    boots(&at("delta.vmdk"), "from the delta");
}

#[test]
fn what_cannot_be_converted_is_said() {
    let (dir, raw) = busybox_disk();
    let out = dir.path().join("out.vmdk");
    let refused = |words: &[&str]| {
        let output = iso_builder().arg("convert").arg(&raw).arg(&out).args(words).output().unwrap();
        assert!(!output.status.success() && !out.exists(), "{words:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(refused(&["--format", "delta"]).contains("--parent"));
    let error = refused(&["--format", "delta", "--parent", raw.to_str().unwrap()]);
    assert!(error.contains("neither a sparse extent nor a descriptor"), "{error}");
    let error = refused(&["--parent", raw.to_str().unwrap()]);
    assert!(error.contains("for --format delta alone"), "{error}");
    assert!(refused(&["--threads", "0", "--format", "stream"]).contains("--threads"));
}
