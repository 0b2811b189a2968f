//! One file boots from a CD and from a USB stick, on a BIOS and on UEFI, and is sound to those who read its parts.

use std::fs;
use std::path::Path;
use std::process::Command;

use rig::artifacts;
use rig::images::{busybox_disk, run, sha256};
use rig::machine::{Machine, OVMF, script};
use wire::link::Tuning;
use wire::message::Event;
use wire::spec::LinkDevice;
use wire::status::Ending;

#[test]
fn bios_boots_the_cd() {
    boots("bios_boots_the_cd", false, false);
}

#[test]
fn bios_boots_the_stick() {
    boots("bios_boots_the_stick", false, true);
}

#[test]
fn uefi_boots_the_cd() {
    boots("uefi_boots_the_cd", true, false);
}

#[test]
fn uefi_boots_the_stick() {
    boots("uefi_boots_the_stick", true, true);
}

/// Boots bootstrap.iso and runs a container over the serial link; the kernel says which loader gave it its command line.
fn boots(name: &str, uefi: bool, stick: bool) {
    if uefi && !Path::new(OVMF).exists() {
        return crate::skip(name, "no OVMF: apt-get install ovmf");
    }
    let (_dir, disk) = busybox_disk();
    let mut machine = Machine::new(&script(LinkDevice::Serial, "cat /proc/cmdline; exit 7"), Some(disk));
    machine.iso = Some(artifacts::dist("bootstrap.iso"));
    machine.uefi = uefi;
    machine.iso_on_stick = stick;
    let mut powered = machine.power_on();
    let seen = powered.serve(Tuning::SERIAL);
    let console = powered.console();
    let cmdline = String::from_utf8_lossy(&seen.stdout).into_owned();
    assert!(cmdline.contains("console=ttyS1,115200n8 quiet panic=-1 "), "{cmdline}; console: {console}");
    // isolinux adds where it found the kernel; the stub adds nothing
    assert_eq!(cmdline.contains("BOOT_IMAGE=/boot/vmlinuz"), !uefi, "{cmdline}");
    let Some(Event::Ended { exit, .. }) = seen.messages.last() else { panic!("no end: {:?}", seen.messages) };
    assert_eq!(exit.ending, Ending::Exited { code: 7 });
    // what anyone sees who looks at the machine: tether, and nothing of a kernel in trouble
    assert!(console.contains("tether: info boot: tether "), "{console}");
    assert!(!console.contains("Kernel panic") && !console.contains("ataface"), "{console}");
}

/// The medium's own names of kernel and initramfs, and the parts of what UEFI starts, are the same bytes in the same place.
#[test]
fn kernel_and_initramfs_are_on_the_medium_once() {
    let dir = tempfile::tempdir().unwrap();
    let iso = artifacts::dist("bootstrap.iso");
    let path = |name: &str| dir.path().join(name);
    let sizes = ["kernel", "initramfs"].map(|name| fs::metadata(artifacts::dist(name)).unwrap().len());
    let whole = fs::metadata(&iso).unwrap().len();
    assert!(whole < sizes.iter().sum::<u64>() + (1 << 20), "{whole} bytes for {sizes:?}");
    for (name, original) in [("vmlinuz", "kernel"), ("initramfs.cpio", "initramfs")] {
        extract(&iso, &format!("/boot/{name}"), &path(name));
        assert_eq!(sha256(&path(name)), sha256(&artifacts::dist(original)), "{name}");
    }
    extract(&iso, "/EFI/BOOT/BOOTX64.EFI", &path("BOOTX64.EFI"));
    // by another's reading of the same file
    for (section, original) in [(".linux", "kernel"), (".initrd", "initramfs")] {
        let to = path(section);
        run(Command::new("objcopy")
            .args(["-O", "binary", "--only-section", section])
            .arg(path("BOOTX64.EFI"))
            .arg(&to));
        assert_eq!(sha256(&to), sha256(&artifacts::dist(original)), "{section}");
    }
}

/// The file system that UEFI finds, by the partition table and by `fsck.vfat` and `mtools`.
#[test]
fn the_system_partition_is_sound() {
    let dir = tempfile::tempdir().unwrap();
    let esp = dir.path().join("esp.img");
    let iso = artifacts::dist("bootstrap.iso");
    let report = run(Command::new("xorriso").arg("-indev").arg(&iso).args(["-report_system_area", "plain"]));
    // the only partition: number, start and length in sectors of 512
    let line = report.lines().find(|line| line.starts_with("GPT start and size "));
    let numbers: Vec<u64> =
        line.iter().flat_map(|line| line.split_whitespace()).filter_map(|word| word.parse().ok()).collect();
    let [_, start, sectors] = numbers[..] else { panic!("no partition: {report}") };
    let bytes = fs::read(&iso).unwrap();
    let range =
        |from: u64, len: u64| usize::try_from(from * 512).unwrap()..usize::try_from((from + len) * 512).unwrap();
    fs::write(&esp, &bytes[range(start, sectors)]).unwrap();
    for tool in ["fsck.vfat", "mtype"] {
        if Command::new("env")
            .arg(PATH)
            .args([tool, "--version"])
            .output()
            .is_ok_and(|it| it.status.code() == Some(127))
        {
            return crate::skip(
                "the_system_partition_is_sound",
                &format!("no {tool}: apt-get install dosfstools mtools"),
            );
        }
    }
    run(Command::new("env").arg(PATH).args(["fsck.vfat", "-n"]).arg(&esp));
    extract(&iso, "/EFI/BOOT/BOOTX64.EFI", &dir.path().join("program"));
    let there = Command::new("mtype").arg("-i").arg(&esp).arg("::EFI/BOOT/BOOTX64.EFI").output().unwrap();
    assert!(
        there.stdout == fs::read(dir.path().join("program")).unwrap(),
        "{}",
        String::from_utf8_lossy(&there.stderr)
    );
}

/// fsck.vfat lies where not everyone looks.
const PATH: &str = "PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";

fn extract(iso: &Path, file: &str, to: &Path) {
    run(Command::new("xorriso").args(["-osirrox", "on", "-indev"]).arg(iso).args(["-extract", file]).arg(to));
}
