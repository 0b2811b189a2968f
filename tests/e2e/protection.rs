//! PID 1 outlives what its container does to it and to the machine, and can still be asked to run something, and to stop.

use std::time::Duration;

use rig::host::{Host, sh};
use rig::images::busybox_disk;
use rig::machine::{COMMAND_LINE, Machine, script};
use wire::message::{MAIN, Reply, Request, Work};
use wire::spec::{ALL_CAPABILITIES, LinkDevice, Spec};
use wire::status::Ending;

fn boot(spec: &Spec) -> (tempfile::TempDir, Host) {
    let (dir, disk) = busybox_disk();
    (dir, Host::boot(Machine::new(spec, Some(disk)), spec))
}

/// A machine whose main process does nothing, and its host. Root of the container may do all that there is.
fn idle() -> (tempfile::TempDir, Host) {
    let mut spec = script(LinkDevice::Virtio, "exec sleep 100000");
    spec.main.rights.capabilities.bounding = ALL_CAPABILITIES;
    boot(&spec)
}

/// The machine is well: a program runs, and PID 1 stops it all when it is told to.
fn is_well(host: &mut Host) {
    assert_eq!(host.shell("echo well"), "well\n");
    host.order(Request::PowerOff);
    host.wait_off();
}

#[test]
fn no_signal_of_the_container_ends_or_stops_pid_1() {
    let (_dir, mut host) = idle();
    // SIGINT, SIGTERM and SIGPWR ask it to stop, as they ask any init
    host.shell("for s in $(seq 1 64); do case $s in 2 | 15 | 30) ;; *) kill -$s 1 || echo $s; esac; done");
    assert_eq!(host.shell("awk '/State/ { print $2 }' /proc/1/status").trim().len(), 1);
    is_well(&mut host);
}

#[test]
fn root_of_a_container_does_not_look_into_pid_1() {
    let (_dir, mut host) = boot(&script(LinkDevice::Virtio, "exec sleep 100000"));
    let script = "for f in mem environ maps auxv stack; do cat /proc/1/$f >/dev/null 2>&1 && echo $f; done
        ls /proc/1/cwd/ /proc/1/root/ 2>/dev/null | grep . | head -n 1; readlink /proc/1/fd/0; readlink /proc/1/exe; echo x 2>/dev/null > /proc/1/mem && echo written; true";
    assert_eq!(host.shell(script), "");
    // it is its own that it does look into
    assert_eq!(
        host.shell("cat /proc/self/environ | tr '\\0' '\\n' | grep -c PATH=; ls /proc/self/fd | grep -cx 0"),
        "1\n1\n"
    );
    is_well(&mut host);
}

#[test]
fn the_container_sees_its_own_control_group_and_not_pid_1s() {
    let (_dir, mut host) = idle();
    assert_eq!(host.shell("cat /proc/self/cgroup"), "0::/\n");
    let script = "mkdir /c && mount -t cgroup2 none /c && ls -d /c/tether /c/container 2>/dev/null
        cat /c/cgroup.procs | grep -cx 1
        for f in memory.max pids.max; do echo max 2>/dev/null > /c/$f && echo $f is lifted; done
        echo 1 2>/dev/null > /c/cgroup.freeze && echo frozen; true";
    assert_eq!(host.shell(script), "0\n");
    assert_eq!(host.shell("cat /proc/1/cgroup"), "0::/../tether\n");
    // what is bounded is bounded
    let limits = host.shell("cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max; awk '/MemTotal/ { print $2 * 1024 }' /proc/meminfo; cat /proc/sys/kernel/threads-max");
    let limits: Vec<u64> = limits.lines().map(|line| line.parse().unwrap()).collect();
    let [memory, pids, total, threads] = limits[..] else { panic!("{limits:?}") };
    assert!(memory < total && memory > total / 5 * 4, "{limits:?}");
    assert!(pids < threads && pids > threads / 2, "{limits:?}");
    is_well(&mut host);
}

#[test]
fn what_would_replace_the_kernel_is_denied_to_everyone() {
    let (_dir, mut host) = idle();
    assert_eq!(host.shell("awk '/Seccomp:/ { print $2 }' /proc/1/status /proc/self/status"), "2\n2\n");
    let script =
        "dd if=/dev/zero of=/swap bs=4096 count=64 2>/dev/null; mkswap /swap >/dev/null; swapon /swap; insmod /swap";
    let ran = host.run(Work::Exec(sh(script)));
    assert_eq!(ran.stderr.matches("Operation not permitted").count(), 2, "{ran:?}");
    assert_ne!(ran.exit.ending, Ending::Exited { code: 0 });
}

#[test]
fn a_fork_bomb_leaves_room_for_an_exec_and_a_stop() {
    let mut spec = script(LinkDevice::Virtio, "exec sleep 100000");
    // should memory run out before process numbers do, the bomb is to pay for it, not the process whose end is the machine's
    spec.main.rights.oom_score = -1000;
    let (_dir, mut host) = boot(&spec);
    let bomb = "echo 1000 >/proc/self/oom_score_adj; echo up; b() { b | b & }; b; exec sleep 100000";
    let session = host.exec(sh(bomb));
    host.expect(session, "up\n");
    // it has gone as far as it can
    let full = |host: &mut Host| {
        let Reply::Stats(stats) = host.request(Request::Stats) else { panic!("no figures") };
        (stats.pids * 10 >= stats.pids_limit * 9 || stats.memory.oom_kills > 0).then_some(stats)
    };
    let stats = loop {
        if let Some(stats) = full(&mut host) {
            break stats;
        }
        host.serve_for(Duration::from_millis(100));
    };
    println!("{} of {} processes, {} killed for lack of memory", stats.pids, stats.pids_limit, stats.memory.oom_kills);
    let began = host.now();
    // it shares the processor with all of them
    assert_eq!(host.shell("echo well"), "well\n");
    println!("a program ran in {:?}", host.now() - began);
    let began = host.now();
    host.order(Request::PowerOff);
    host.wait_off();
    println!("off in {:?}", host.now() - began);
}

#[test]
fn a_full_disk_is_no_reason_to_fail() {
    let (_dir, mut host) = idle();
    let script = "dd if=/dev/zero of=/full bs=64k 2>&1; dd if=/dev/zero of=/more bs=1 2>&1; echo x > /one/more; df / | tail -n 1";
    let ran = host.run(Work::Exec(sh(script)));
    assert_eq!(ran.stdout.matches("No space left on device").count(), 2, "{ran:?}");
    let copy = Work::CopyIn { dir: "/".into(), owners: false, replace: false };
    let session = host.create(copy);
    let mut archive = vec![0; 512 * 40];
    tar_header(&mut archive, b"file", 512 * 20);
    host.feed(session, &archive);
    let ran = host.finish(session);
    assert!(ran.exit.ending != Ending::Exited { code: 0 } && ran.stderr.contains("No space left"), "{ran:?}");
    is_well(&mut host);
}

/// The header of a file in a tar archive: POSIX.1-1988.
fn tar_header(archive: &mut [u8], name: &[u8], size: usize) {
    archive[..name.len()].copy_from_slice(name);
    archive[100..107].copy_from_slice(b"0000644");
    archive[108..115].copy_from_slice(b"0000000");
    archive[116..123].copy_from_slice(b"0000000");
    archive[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    archive[136..147].copy_from_slice(b"00000000000");
    archive[148..156].copy_from_slice(b"        ");
    archive[156] = b'0';
    archive[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = archive[..512].iter().map(|&byte| u32::from(byte)).sum();
    archive[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

#[test]
fn a_flood_of_kernel_messages_holds_nobody_up() {
    let (_dir, mut host) = idle();
    let flood = host.exec(sh("mknod /kmsg c 1 11; while :; do echo '<0>flood flood flood flood'; done > /kmsg"));
    host.serve_for(Duration::from_millis(500));
    let Reply::Text(log) = host.request(Request::KernelLog) else { panic!("no text") };
    assert!(log.contains("flood") && log.len() <= 256 * 1024);
    host.order(Request::Signal { session: flood, signal: 9 });
    is_well(&mut host);
}

#[test]
fn a_machine_without_a_console_runs_its_container() {
    let (_dir, disk) = busybox_disk();
    let mut spec = script(LinkDevice::Virtio, "echo up; ls -l /proc/1/fd/0 /proc/1/fd/2 | sed 's/.*-> //'");
    spec.main.rights.capabilities.bounding = ALL_CAPABILITIES;
    let mut machine = Machine::new(&spec, Some(disk));
    machine.extra = vec!["-append".into(), COMMAND_LINE.replace("ttyS1", "none0")];
    let mut host = Host::boot(machine, &spec);
    host.exit(MAIN);
    // neither is a disk or a port that happened to be opened first
    assert_eq!(host.stdout(MAIN).text(), "up\n/dev/null\n/dev/null\n");
    host.wait_off();
}
