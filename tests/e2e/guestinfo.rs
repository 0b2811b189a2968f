//! A spec in one value, as an administrator makes it with gzip and base64; and what a container may not ask of VMware in its machine's name.

use std::fs;
use std::process::Command;

use rig::host::Host;
use rig::images::busybox_disk;
use rig::machine::{Machine, script};
use rig::vmware::{Medium, Vmware};
use wire::message::MAIN;
use wire::spec::{ALL_CAPABILITIES, LinkDevice, Spec};

/// The spec's keys as one value.
fn packed(spec: &Spec, by: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("spec");
    fs::write(&file, wire::guestinfo::write(spec).to_string()).unwrap();
    let output = Command::new("sh").args(["-c", by, "sh"]).arg(&file).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn a_spec_in_one_value_runs_from_every_store() {
    let spec = script(LinkDevice::Virtio, "echo $((6 * 7))");
    let zipped = packed(&spec, "gzip -9 < $1 | base64 -w 0");
    let (_dir, disk) = busybox_disk();
    let mut machine = Machine::new(&spec, Some(disk));
    machine.guestinfo =
        Some(format!("guestinfo.vice./spec = \"{zipped}\"\nguestinfo.vice./spec.encoding = \"gzip+base64\"\n"));
    let mut host = Host::boot(machine, &spec);
    assert_eq!(host.exit(MAIN).ending.code(), 0);
    assert_eq!(host.stdout(MAIN).text(), "42\n");
    host.wait_off();

    let lines = packed(&spec, "base64 $1");
    for (value, encoding) in [(zipped, "gz+b64"), (lines, "base64")] {
        let mut vmware = Vmware::empty();
        vmware.option(&["--info", &format!("guestinfo.vice./spec={value}")]);
        vmware.option(&["--info", &format!("guestinfo.vice./spec.encoding={encoding}")]);
        let (_dir, disk) = busybox_disk();
        let machine = vmware.machine(Machine::new(&spec, Some(disk)), Medium::Initramfs);
        let mut host = Host::boot(machine, &spec);
        assert_eq!(host.exit(MAIN).ending.code(), 0);
        assert_eq!(host.stdout(MAIN).text(), "42\n");
        host.wait_off();
        let asked = vmware.lines().iter().filter(|line| line.starts_with("rpci info-get ")).count();
        assert_eq!(asked, 4, "whether it is a template, which clone; one value, one encoding: {:?}", vmware.lines());
    }
}

#[test]
fn a_container_has_no_vsock_on_vmware_unless_it_may_do_everything() {
    let filters = |on_vmware: bool, may_do_all: bool| {
        let mut spec = script(LinkDevice::Virtio, "grep Seccomp_filters: /proc/self/status");
        if may_do_all {
            spec.main.rights.capabilities.bounding = ALL_CAPABILITIES;
        }
        let (_dir, disk) = busybox_disk();
        let machine = Machine::new(&spec, Some(disk));
        let vmware = Vmware::with(&spec);
        let machine = if on_vmware { vmware.machine(machine, Medium::Initramfs) } else { machine };
        let mut host = Host::boot(machine, &spec);
        assert_eq!(host.exit(MAIN).ending.code(), 0);
        let filters = host.stdout(MAIN).text();
        host.wait_off();
        filters.split_ascii_whitespace().last().unwrap_or_default().to_owned()
    };
    // PID 1's own, and the fence
    assert_eq!(filters(true, false), "2");
    assert_eq!(filters(true, true), "1");
    assert_eq!(filters(false, false), "1");
}
