//! Memory that a machine does not use is the host's.

use std::fs;
use std::time::{Duration, Instant};

use rig::host::{Host, PATIENCE};
use rig::images::busybox_disk;
use rig::machine::{Machine, script};
use rig::qmp::Qmp;
use wire::spec::{ALL_CAPABILITIES, LinkDevice};

const BALLOON: [&str; 2] = ["-device", "virtio-balloon-pci,id=balloon,free-page-reporting=on"];
const MIB: u64 = 1024;

/// A machine with a balloon, whose main process does nothing.
fn boot(reclaim: bool) -> (tempfile::TempDir, Host) {
    let (dir, disk) = busybox_disk();
    let mut spec = script(LinkDevice::Virtio, "exec sleep 100000");
    spec.machine.reclaim = reclaim;
    spec.main.rights.capabilities.bounding = ALL_CAPABILITIES;
    let mut machine = Machine::new(&spec, Some(disk));
    machine.extra = BALLOON.map(String::from).to_vec();
    let mut host = Host::boot(machine, &spec);
    host.shell("true");
    (dir, host)
}

/// What QEMU takes of the host's memory, in KiB: proc_pid_status(5).
fn resident(host: &Host) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", host.machine.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
}

/// Waits, and asks the guest nothing meanwhile, until QEMU takes at most so much.
fn shrinks_to(host: &mut Host, kib: u64) -> Duration {
    let began = Instant::now();
    while resident(host) > kib {
        assert!(began.elapsed() < PATIENCE / 3, "{} KiB are taken, and not {kib}", resident(host));
        host.serve_for(Duration::from_millis(100));
    }
    began.elapsed()
}

#[test]
fn what_a_process_frees_goes_back_to_the_host() {
    let (_dir, mut host) = boot(false);
    let small = resident(&host);
    host.shell(
        "mkdir /m && mount -t tmpfs -o size=150m none /m && dd if=/dev/urandom of=/m/x bs=1M count=100 2>/dev/null",
    );
    let large = resident(&host);
    assert!(large > small + 90 * MIB, "{small} and {large} KiB");
    host.shell("rm /m/x");
    let took = shrinks_to(&mut host, large - 80 * MIB);
    println!("{small} KiB, with 100 MiB in use {large} KiB, then {} KiB after {took:?}", resident(&host));
}

#[test]
fn a_balloon_takes_what_the_host_asks_for() {
    let (_dir, mut host) = boot(false);
    let mut qmp = Qmp::connect(&host.machine.path("qmp"));
    let total = "awk '/MemTotal/ { print $2 }' /proc/meminfo";
    let before: u64 = host.shell(total).trim().parse().unwrap();
    qmp.execute("balloon", r#"{"value": 167772160}"#);
    host.shell(&format!("until [ $({total}) -le $(({before} - 80000)) ]; do sleep 0.1; done"));
    qmp.execute("balloon", r#"{"value": 268435456}"#);
    host.shell(&format!("until [ $({total}) -ge $(({before} - 1000)) ]; do sleep 0.1; done"));
}

#[test]
fn files_that_an_idle_container_has_not_used_lately_leave_memory() {
    let (_dir, mut host) = boot(true);
    host.shell("dd if=/dev/urandom of=/x bs=1M count=30 2>/dev/null; sync; cat /x > /dev/null");
    let cached =
        "awk '/^inactive_file|^active_file/ { sum += $2 } END { print int(sum / 1024) }' /sys/fs/cgroup/memory.stat";
    let before: u64 = host.shell(cached).trim().parse().unwrap();
    let large = resident(&host);
    // QEMU's own memory grows meanwhile: it translates
    let took = shrinks_to(&mut host, large - 15 * MIB);
    let after: u64 = host.shell(cached).trim().parse().unwrap();
    println!("{large} KiB, then {} KiB after {took:?}; files {before}, then {after} KiB", resident(&host));
    assert!(before > 30 * MIB && after < before - 15 * MIB, "{before} and {after} KiB");
    assert!(took > Duration::from_secs(9), "too soon: {took:?}");
    // and then it sleeps
    let wakes = "awk '/ctxt_switches/ { print $2 }' /proc/1/status | head -n 1";
    host.shell("sleep 1");
    let script = format!("a=$({wakes}); sleep 5; b=$({wakes}); echo $((b - a))");
    assert_eq!(host.shell(&script), "0\n");
}
