//! What is plugged into a running machine is used.

use rig::host::Host;
use rig::images::busybox_disk;
use rig::machine::{Machine, script};
use rig::qmp::Qmp;
use wire::spec::{ALL_CAPABILITIES, LinkDevice};

fn boot(extra: &[&str]) -> (tempfile::TempDir, Host, Qmp) {
    let (dir, disk) = busybox_disk();
    let mut spec = script(LinkDevice::Virtio, "exec sleep 100000");
    spec.main.rights.capabilities.bounding = ALL_CAPABILITIES;
    let mut machine = Machine::new(&spec, Some(disk));
    machine.extra = extra.iter().map(|&word| word.to_owned()).collect();
    let mut host = Host::boot(machine, &spec);
    host.shell("true");
    let qmp = Qmp::connect(&host.machine.path("qmp"));
    (dir, host, qmp)
}

/// Waits, with the shell of the guest, until a script succeeds.
fn until(host: &mut Host, condition: &str) {
    host.shell(&format!("until {condition}; do sleep 0.1; done"));
}

#[test]
fn a_processor_that_is_added_runs_programs() {
    // A kernel that sees no hypervisor keeps no place for processors to come, and QEMU without KVM is none that it knows. This one looks like VMware's.
    let vmware = ["-cpu", "max,-hypervisor", "-machine", "vmport=on", "-smbios", "type=1,serial=VMware-1"];
    let (_dir, mut host, mut qmp) = boot(&[&["-smp", "1,maxcpus=2"][..], &vmware].concat());
    assert_eq!(host.shell("nproc"), "1\n");
    let arguments = r#"{"driver": "max-x86_64-cpu", "id": "cpu1", "socket-id": 0, "core-id": 1, "thread-id": 0}"#;
    qmp.execute("device_add", arguments);
    until(&mut host, "[ $(nproc) = 2 ]");
    assert_eq!(host.shell("cat /sys/devices/system/cpu/online"), "0-1\n");
    assert_eq!(host.shell("taskset 2 cut -d' ' -f39 /proc/self/stat"), "1\n");
    assert!(host.machine.console().contains("1 more processors"), "{}", host.machine.console());
}

#[test]
fn memory_that_is_added_is_the_containers() {
    let (_dir, mut host, mut qmp) = boot(&["-m", "256,slots=2,maxmem=1G"]);
    let total = "awk '/MemTotal/ { print $2 }' /proc/meminfo";
    let before: u64 = host.shell(total).trim().parse().unwrap();
    qmp.execute("object-add", r#"{"qom-type": "memory-backend-ram", "id": "mem1", "size": 268435456}"#);
    qmp.execute("device_add", r#"{"driver": "pc-dimm", "id": "dimm1", "memdev": "mem1"}"#);
    until(&mut host, &format!("[ $({total}) -ge $(({before} + 262144)) ]"));
    // and it may use it: more than there was at first
    let text = "mkdir /m && mount -t tmpfs -o size=400m none /m && dd if=/dev/zero of=/m/x bs=1M count=300 2>/dev/null && stat -c %s /m/x";
    assert_eq!(host.shell(text), "314572800\n");
}
