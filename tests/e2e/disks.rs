//! The container's root: one disk, or layers under a top; found by what a disk says of itself; clean whenever the machine is off.

use std::fs;
use std::path::Path;
use std::process::Command;

use rig::disks::{Disks, assert_clean, blank, debugfs};
use rig::host::Host;
use rig::images::run as tool;
use rig::machine::{Machine, script};
use rig::qmp::Qmp;
use serde_json::json;
use wire::link::Tuning;
use wire::message::{Event, Reply, Request};
use wire::spec::{DiskId, LinkDevice, Root, Spec, Top};
use wire::status::{Ending, FailureKind};

fn machine(spec: &Spec, disks: &Disks) -> Machine {
    let mut machine = Machine::new(spec, None);
    machine.extra = disks.arguments();
    machine
}

/// Runs to the end: what it printed, and how it ended.
pub(crate) fn run(spec: &Spec, disks: &Disks) -> (String, Event) {
    let mut powered = machine(spec, disks).power_on();
    let mut seen = powered.serve(Tuning::FAST);
    let last = seen.messages.pop().unwrap_or_else(|| panic!("nothing was told; console: {}", powered.console()));
    (String::from_utf8(seen.stdout).unwrap(), last)
}

/// What a script prints that must end well.
pub(crate) fn prints(spec: &Spec, disks: &Disks) -> String {
    let (printed, last) = run(spec, disks);
    match last {
        Event::Ended { exit, .. } if exit.ending == (Ending::Exited { code: 0 }) => printed,
        other => panic!("{other:?}; printed: {printed}"),
    }
}

/// Why it did not even begin.
pub(crate) fn fails(spec: &Spec, disks: &Disks) -> String {
    match run(spec, disks) {
        (_, Event::Failed(failure)) => {
            assert_eq!(failure.kind, FailureKind::Disk, "{failure}");
            failure.reason
        }
        (printed, other) => panic!("{other:?}; printed: {printed}"),
    }
}

pub(crate) fn label(text: &str) -> DiskId {
    DiskId::Label(text.into())
}

fn serial(text: &str) -> DiskId {
    DiskId::Serial(text.into())
}

fn layered(layers: Vec<DiskId>, top: Top, text: &str) -> Spec {
    Spec { root: Root { layers, top, read_only: false }, ..script(LinkDevice::Virtio, text) }
}

fn is_root() -> bool {
    nix::unistd::Uid::effective().is_root()
}

#[test]
fn forty_layers_in_any_order_of_their_disks() {
    let mut disks = Disks::new();
    let mut layers = Vec::new();
    let base = disks.ext4("base", Some(&disks.busybox()), 16);
    let mut files = vec![(base, "base".to_owned())];
    for number in 1..40 {
        let folder = disks.folder(&format!("layer{number}"));
        fs::create_dir(folder.join("layers")).unwrap();
        fs::write(folder.join("which"), format!("{number}\n")).unwrap();
        fs::write(folder.join(format!("layers/{number}")), "x").unwrap();
        let name = format!("layer{number}");
        let file = match number % 2 {
            0 => disks.ext4(&name, Some(&folder), 2),
            _ => disks.erofs(&name, &folder),
        };
        files.push((file, name));
    }
    for (_, name) in &files {
        layers.push(serial(name));
    }
    for (file, name) in files.iter().rev() {
        disks.scsi(file, name, ",readonly=on");
    }
    let spec = layered(layers, Top::Memory(0), "cat /which; ls /layers | wc -l; echo new > /which; cat /which");
    assert_eq!(prints(&spec, &disks), "39\n39\nnew\n");
}

#[test]
fn a_layer_hides_what_its_whiteouts_name() {
    if !is_root() {
        return crate::skip("a_layer_hides_what_its_whiteouts_name", "only root makes devices and trusted attributes");
    }
    let mut disks = Disks::new();
    let low = disks.busybox();
    fs::create_dir_all(low.join("srv/old")).unwrap();
    fs::write(low.join("srv/old/file"), "x").unwrap();
    fs::write(low.join("srv/gone"), "x").unwrap();
    let base = disks.ext4("base", Some(&low), 16);
    let high = disks.folder("high");
    fs::create_dir_all(high.join("srv/old")).unwrap();
    fs::write(high.join("srv/old/new"), "x").unwrap();
    tool(Command::new("mknod").arg(high.join("srv/gone")).args(["c", "0", "0"]));
    let high = disks.ext4("high", Some(&high), 2);
    debugfs(&high, "ea_set srv/old trusted.overlay.opaque y");
    debugfs(&high, "set_inode_field / mode 040751");
    disks.blk(&high, "high");
    disks.blk(&base, "base");
    let spec = layered(vec![label("base"), label("high")], Top::Memory(0), "cd /srv; find . | sort; stat -c %a /");
    // the root directory is the highest layer's
    assert_eq!(prints(&spec, &disks), ".\n./old\n./old/new\n751\n");
}

#[test]
fn a_top_disk_outlives_the_machine_and_is_clean() {
    let mut disks = Disks::new();
    let base = disks.erofs("base", &disks.busybox());
    let top = disks.ext4("top", None, 16);
    disks.scsi(&top, "T", "");
    disks.scsi(&base, "B", ",readonly=on");
    let layers = vec![serial("B")];
    let script =
        "exec 2>/dev/null; cat /kept; echo kept > /kept; rm -r /home /mnt; sleep 1000 > /open & ls -d /mnt /tmp";
    let spec = layered(layers, Top::Disk(label("top")), &format!("{script}; true"));
    assert_eq!(prints(&spec, &disks), "/tmp\n");
    assert_clean(&top);
    assert_eq!(prints(&spec, &disks), "kept\n/tmp\n");
    assert_clean(&top);
}

#[test]
fn memory_takes_what_it_was_given_and_no_more() {
    let mut disks = Disks::new();
    let base = disks.ext4("base", Some(&disks.busybox()), 16);
    disks.scsi(&base, "B", ",readonly=on");
    let script = "dd if=/dev/zero of=/big bs=1024 count=2048 2>&1 | grep -o 'No space.*'; stat -c %s /big";
    let spec = layered(vec![serial("B")], Top::Memory(1 << 20), script);
    let printed = prints(&spec, &disks);
    let (said, size) = printed.split_once('\n').unwrap();
    assert_eq!(said, "No space left on device");
    assert!((1..=1 << 20).contains(&size.trim().parse::<u64>().unwrap()), "{size}");
}

#[test]
fn a_disk_is_known_by_uuid_and_on_a_partition_too() {
    let mut disks = Disks::new();
    let base = disks.erofs("base", &disks.busybox());
    let uuid = tool(Command::new("blkid").args(["-o", "value", "-s", "UUID"]).arg(&base));
    let top = disks.ext4("top", None, 8);
    let whole = disks.path("whole");
    blank(&whole, 16);
    // a master boot record: one Linux partition from the second MiB on
    let (start, sectors) = (2048_u32, 8 * 2048_u32);
    let entry = [&[0, 0, 0, 0, 0x83, 0, 0, 0][..], &start.to_le_bytes(), &sectors.to_le_bytes()].concat();
    let file = fs::OpenOptions::new().write(true).open(&whole).unwrap();
    for (bytes, at) in [(entry, 446), (vec![0x55, 0xaa], 510), (fs::read(&top).unwrap(), 1 << 20)] {
        std::os::unix::fs::FileExt::write_all_at(&file, &bytes, at).unwrap();
    }
    disks.blk(&whole, "W");
    disks.scsi(&base, "B", "");
    let layers = vec![DiskId::Uuid(uuid.trim().into())];
    let spec = layered(layers, Top::Disk(label("top")), "touch /x && grep -c ' / overlay ' /proc/mounts");
    assert_eq!(prints(&spec, &disks), "1\n");
}

#[test]
fn a_disk_that_comes_late_is_waited_for() {
    let disks = Disks::new();
    let root = disks.ext4("containerfs", Some(&disks.busybox()), 32);
    let spec = script(LinkDevice::Virtio, "echo late");
    let mut powered = machine(&spec, &disks).power_on();
    // it is said before any disk is looked for
    powered.wait_for_hello();
    let mut qmp = Qmp::connect(&powered.path("qmp"));
    let file = json!({ "driver": "file", "filename": root });
    let node = json!({ "node-name": "late", "driver": "raw", "file": file });
    qmp.execute("blockdev-add", &node.to_string());
    let device = json!({ "driver": "scsi-hd", "bus": "scsi.0", "drive": "late", "id": "late" });
    qmp.execute("device_add", &device.to_string());
    let seen = powered.serve(Tuning::FAST);
    assert_eq!(String::from_utf8_lossy(&seen.stdout), "late\n", "{:?}", seen.messages);
}

#[test]
fn a_missing_disk_is_named_with_those_that_are_there() {
    let mut disks = Disks::new();
    disks.root();
    let other = disks.erofs("other", &disks.folder("other"));
    disks.blk(&other, "OTHER");
    let spec = layered(vec![label("containerfs"), serial("gone")], Top::Memory(0), "true");
    assert_eq!(
        fails(&spec, &disks),
        "no disk has the serial \"gone\" after 5 s; the machine has \
         sda (ext4, label \"containerfs\", serial \"root\"), vda (EROFS, serial \"OTHER\")"
    );
}

#[test]
fn two_disks_with_one_label_are_a_contradiction() {
    let mut disks = Disks::new();
    let root = disks.root();
    disks.blk(&root.with_extension("copy"), "copy");
    fs::copy(&root, root.with_extension("copy")).unwrap();
    let spec = script(LinkDevice::Virtio, "true");
    assert_eq!(
        fails(&spec, &disks),
        "sda and vda have the label \"containerfs\": which of them is meant? Give each its own, or name it by something else"
    );
    // and by its serial each is one
    let spec = layered(vec![serial("root")], Top::Memory(0), "echo one");
    assert_eq!(prints(&spec, &disks), "one\n");
}

#[test]
fn a_read_only_root_takes_writes_where_docker_takes_them() {
    let script = "for file in /x /etc/hosts /etc/new /tmp/x /dev/shm/x /dev/x /data/x; do
            (echo x > $file) 2>/dev/null && echo $file written; done; sed -n '1p' /etc/hosts; mkdir /made 2>&1; true";
    let check = |disks: &Disks, spec: Spec| {
        let root = Root { read_only: true, ..spec.root.clone() };
        let memory = wire::spec::Source::Memory { size: 0, mode: 0o755, exec: false };
        let mount = crate::volumes::mount("data", memory, "/data");
        let mounts = vec![wire::spec::Mount { seed: false, ..mount }];
        let spec = Spec { root, mounts, ..spec };
        let expected = "/dev/shm/x written\n/dev/x written\n/data/x written\n127.0.0.1\tlocalhost\n\
                        mkdir: can't create directory '/made': Read-only file system\n";
        assert_eq!(prints(&spec, disks), expected);
    };
    let mut disks = Disks::new();
    let root = disks.root();
    check(&disks, self::script_spec(script));
    assert_clean(&root);
    check(&disks, layered(vec![label("containerfs")], Top::Memory(0), script));
}

fn script_spec(text: &str) -> Spec {
    script(LinkDevice::Virtio, text)
}

/// A merged root and a volume, neither of which is thrown away.
fn root_and_volume() -> (Disks, [std::path::PathBuf; 2]) {
    let mut disks = Disks::new();
    let root = disks.root();
    let volume = disks.ext4("data", None, 8);
    disks.scsi(&volume, "data", "");
    (disks, [root, volume])
}

fn on_volume(text: &str) -> Spec {
    let data = crate::volumes::mount("data", wire::spec::Source::Disk(label("data")), "/data");
    Spec { mounts: vec![data], ..script_spec(text) }
}

#[test]
fn disks_are_clean_after_a_normal_end() {
    let (disks, files) = root_and_volume();
    let holder = "exec 8>/held 9>/data/held; setsid sleep 1000 & unlink /held";
    let spec = on_volume(&format!("{holder}; echo x > /x; echo x > /data/x; echo done"));
    assert_eq!(prints(&spec, &disks), "done\n");
    files.iter().for_each(|file| assert_clean(file));
    assert_eq!(debugfs(&files[1], "cat /x"), "x\n");
}

#[test]
fn disks_are_clean_after_the_power_button() {
    let (disks, files) = root_and_volume();
    let spec =
        on_volume("trap 'echo x > /data/asked; exit 0' TERM; exec 9>/data/held; echo up; while :; do sleep 0.1; done");
    let mut powered = machine(&spec, &disks).power_on();
    powered.serve_until_output(Tuning::FAST, |powered| powered.press_power_button());
    files.iter().for_each(|file| assert_clean(file));
    assert_eq!(debugfs(&files[1], "cat /asked"), "x\n");
}

#[test]
fn disks_are_clean_after_a_process_that_had_to_be_killed() {
    let (disks, files) = root_and_volume();
    let spec =
        on_volume("trap '' TERM; exec 8>/held 9>/data/held; echo up; while :; do echo x >> /data/log; sleep 0.1; done");
    let mut powered = machine(&spec, &disks).power_on();
    let seen = powered.serve_until_output(Tuning::FAST, |powered| powered.press_power_button());
    let Some(Event::Ended { exit, .. }) = seen.messages.last() else { panic!("{:?}", seen.messages) };
    assert_eq!(exit.ending, Ending::Signaled { signal: 9, core: false });
    files.iter().for_each(|file| assert_clean(file));
}

#[test]
fn disks_are_clean_when_they_are_full() {
    let (disks, files) = root_and_volume();
    let fill = |dir: &str| {
        format!(
            "dd if=/dev/zero of={dir}/big bs=64k 2>/dev/null; i=0; while echo x > {dir}/$i 2>/dev/null; do i=$((i+1)); done"
        )
    };
    let spec = on_volume(&format!("{}; {}; echo full", fill("/data"), fill("")));
    assert_eq!(prints(&spec, &disks), "full\n");
    files.iter().for_each(|file| assert_clean(file));
    // and it starts again
    assert_eq!(prints(&on_volume("echo again"), &disks), "again\n");
}

#[test]
fn a_volume_that_a_namespace_of_the_container_still_has_is_clean() {
    let (disks, files) = root_and_volume();
    let script = "unshare -m sh -c 'exec 9>/data/held; echo x > /data/x; sleep 1000' & \
                  until [ -e /data/x ]; do sleep 0.01; done; mount -o bind /data /mnt; mount -t tmpfs none /data; umount /proc; echo done";
    // docker's own set has no right to mount
    let mut spec = on_volume(script);
    spec.main.rights.capabilities.bounding = wire::spec::ALL_CAPABILITIES;
    assert_eq!(prints(&spec, &disks), "done\n");
    files.iter().for_each(|file| assert_clean(file));
}

#[test]
fn a_trim_tells_the_disks_what_is_free() {
    let mut disks = Disks::new();
    let base = disks.erofs("base", &disks.busybox());
    let top = disks.ext4("top", None, 64);
    let data = disks.ext4("data", None, 64);
    disks.scsi(&base, "B", ",readonly=on");
    for (file, name) in [(&top, "T"), (&data, "D")] {
        disks.scsi(file, name, ",discard=unmap");
    }
    let root = Root { layers: vec![serial("B")], top: Top::Disk(label("top")), read_only: false };
    let spec = Spec {
        root,
        ..on_volume(
            "for dir in / /data; do dd if=/dev/urandom of=$dir/big bs=1M count=32 2>/dev/null; done; sync; rm /big /data/big; sync; echo up; sleep 1000",
        )
    };
    let mut host = Host::boot(machine(&spec, &disks), &spec);
    host.expect(wire::message::MAIN, "up\n");
    let used = |file: &Path| std::os::unix::fs::MetadataExt::blocks(&fs::metadata(file).unwrap()) * 512;
    let before = [used(&top), used(&data)];
    let Reply::Trimmed { bytes } = host.request(Request::Trim) else { panic!("no trim") };
    assert!(bytes >= 2 * (32 << 20), "{bytes}");
    let after = [used(&top), used(&data)];
    assert!(before.iter().zip(after).all(|(before, after)| before - after >= 30 << 20), "{before:?} {after:?}");
    host.order(Request::PowerOff);
    host.wait_off();
    [top, data].iter().for_each(|file| assert_clean(file));
}
