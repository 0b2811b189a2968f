//! The machine itself: its clock, its power, its kernel's words, and what is said when PID 1 fails.

use std::time::{Duration, SystemTime};

use rig::host::Host;
use rig::images::busybox_disk;
use rig::machine::{Machine, script};
use rig::qmp::Qmp;
use rig::vch::shell;
use wire::message::{Event, MAIN, Reply, Request};
use wire::spec::{LinkDevice, Spec};
use wire::status::FailureKind;

/// A machine whose main process does nothing, and its host.
fn idle() -> (tempfile::TempDir, Host) {
    let (dir, disk) = busybox_disk();
    let spec = script(LinkDevice::Virtio, "exec sleep 100000");
    (dir, Host::boot(Machine::new(&spec, Some(disk)), &spec))
}

fn now() -> Duration {
    SystemTime::UNIX_EPOCH.elapsed().unwrap()
}

fn set_clock(host: &mut Host, time: Duration) {
    host.order(Request::SetClock { unix_ns: i64::try_from(time.as_nanos()).unwrap() });
}

/// The guest's clock less ours, as far as can be told: its answer was given between two readings of ours.
fn clock_error(host: &mut Host) -> (i64, i64) {
    let before = now();
    let theirs: i64 = host.shell("date +%s").trim().parse().unwrap();
    let after = now();
    (theirs - after.as_secs().cast_signed(), theirs - before.as_secs().cast_signed())
}

#[test]
fn the_clock_is_right_from_the_start() {
    let (_dir, mut host) = idle();
    let (least, most) = clock_error(&mut host);
    assert!(least <= 2 && most >= -2, "between {least} and {most} s");
    assert_eq!(host.shell("date +%Z"), "UTC\n");
}

#[test]
fn the_host_sets_the_clock_and_leaves_a_good_one_alone() {
    let (_dir, mut host) = idle();
    // what is said before the link is open is heard late
    host.shell("true");
    for years in [1, 10] {
        let then = now() + Duration::from_secs(years * 365 * 24 * 3600);
        set_clock(&mut host, then);
        let offset = i64::try_from(years * 365 * 24 * 3600).unwrap();
        let (least, most) = clock_error(&mut host);
        assert!(least <= offset + 2 && most >= offset - 2, "{years}: between {least} and {most} s");
    }
    set_clock(&mut host, now());
    let (least, most) = clock_error(&mut host);
    assert!(least <= 2 && most >= -2, "between {least} and {most} s");
    // a message may have been under way for a while: a clock that is a little ahead of it is right
    set_clock(&mut host, now() - Duration::from_secs(3));
    let (least, most) = clock_error(&mut host);
    assert!(least <= 1 && most >= -1, "between {least} and {most} s");
    // a step cancels a timer that asks to be told of steps; PID 1's own time goes on as ever
    let before = host.shell("cut -d. -f1 /proc/uptime");
    set_clock(&mut host, Duration::from_secs(1_000_000_000));
    let after = host.shell("cut -d. -f1 /proc/uptime");
    let seconds = |text: &str| text.trim().parse::<u64>().unwrap();
    assert!(seconds(&after) >= seconds(&before) && seconds(&after) < seconds(&before) + 300);
    let reply = host.request(Request::SetClock { unix_ns: -1 });
    assert!(matches!(reply, Reply::Refused { .. }), "{reply:?}");
}

#[test]
fn the_kernels_log_is_read_by_the_host() {
    let (_dir, mut host) = idle();
    let Reply::Text(log) = host.request(Request::KernelLog) else { panic!("no text") };
    assert!(log.starts_with("<") && log.contains("Linux version 6.") && log.contains("virtio"), "{log}");
    // more than the kernel keeps: the end of it is told, and it is whole lines
    host.shell("mknod /tmp/kmsg c 1 11; i=0; while [ $i -lt 4000 ]; do echo '<7>line '$i' of many, each of which takes its place in the log'; i=$((i + 1)); done | while read -r line; do echo \"$line\" > /tmp/kmsg; done");
    let Reply::Text(log) = host.request(Request::KernelLog) else { panic!("no text") };
    println!("{} bytes of log", log.len());
    assert!(log.len() <= 256 * 1024 && log.lines().all(|line| line.starts_with('<')));
}

#[test]
fn the_kernels_words_come_before_a_failure_that_may_be_its_own() {
    let fails = |spec: &Spec, disk| {
        let mut host = Host::boot(Machine::new(spec, disk), spec);
        host.machine_ends_without_us();
        let Some(Event::Failed(failure)) = host.told.last() else { panic!("{:?}", host.told) };
        let log = host.told.iter().find_map(|told| match told {
            Event::KernelLog(log) => Some(log.clone()),
            _ => None,
        });
        (failure.kind, log)
    };
    let (kind, log) = fails(&script(LinkDevice::Virtio, "true"), None);
    assert_eq!(kind, FailureKind::Disk);
    assert!(log.unwrap().contains("Linux version"));
    let (_dir, disk) = busybox_disk();
    let mut spec = script(LinkDevice::Virtio, "true");
    spec.main.argv = vec!["/no/such/program".into()];
    assert_eq!(fails(&spec, Some(disk)), (FailureKind::ProgramNotFound, None));
}

#[test]
fn a_reboot_stops_in_order_and_boots_again() {
    let (_dir, disk) = busybox_disk();
    let mut spec =
        script(LinkDevice::Virtio, "trap 'echo stopping; exit 0' TERM; echo up; while :; do sleep 0.1; done");
    spec.main.stop_signal = 15;
    let mut machine = Machine::new(&spec, Some(disk));
    // the rig's machines end at a reset; this one is told to take it
    machine.extra = ["-action", "reboot=reset"].map(String::from).to_vec();
    let mut host = Host::boot(machine, &spec);
    host.expect(MAIN, "up\n");
    let mut qmp = Qmp::connect(&host.machine.path("qmp"));
    let reset = std::thread::spawn(move || qmp.wait_for("RESET"));
    host.order(Request::Reboot);
    host.exit(MAIN);
    assert_eq!(host.stdout(MAIN).text(), "up\nstopping\n");
    host.wait("a reset", |_| reset.is_finished().then_some(()));
    // a host that knows nothing of the first boot meets the second
    host.cut();
    let mut machine = host.into_machine();
    machine.connect();
    let mut host = Host::on(machine, &spec);
    host.expect(MAIN, "up\n");
}

#[test]
fn a_reboot_of_a_machine_that_may_not_is_its_end() {
    let (_dir, mut host) = idle();
    host.order(Request::Reboot);
    host.wait_off();
}

#[test]
fn a_pid_1_that_dies_ends_the_machine_and_the_user_is_told() {
    // root with every right writes nonsense over the program of PID 1
    let text = "set -- $(grep -m 1 ' r-xp ' /proc/1/maps | sed 's/[- ].*//'); echo up; sleep 1
        dd if=/dev/zero of=/proc/1/mem bs=4096 seek=$((0x$1 / 4096)) count=64 conv=notrunc 2>&1; kill -HUP 1; sleep 100";
    let output = shell(&[], text).output();
    assert_eq!((output.code, output.text().as_str()), (125, "up\n"), "{output:?}");
    let reason = "the virtual machine ended before its process did: its console says: Kernel panic - not syncing: Attempted to kill init!";
    assert!(output.stderr.contains(reason), "{output:?}");
}
