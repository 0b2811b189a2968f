//! What a process may use: rlimits, the control group's limits, shared memory, kernel parameters; and what is left of the machine when it wants more.

use rig::host::{Host, sh};
use rig::images::busybox_disk;
use rig::machine::{Machine, script};
use tempfile::TempDir;
use wire::message::{Event, Exec, MAIN, Reply, Request, Work};
use wire::spec::{Limit, LinkDevice, Spec};
use wire::status::{Ending, Failure, FailureKind};

fn boot(spec: &Spec) -> (TempDir, Host) {
    let (dir, disk) = busybox_disk();
    (dir, Host::boot(Machine::new(spec, Some(disk)), spec))
}

fn idle() -> Spec {
    script(LinkDevice::Virtio, "cat /proc/self/limits; echo told; exec sleep 100000")
}

/// Why a machine of this spec ran nothing.
fn failure(spec: &Spec) -> Failure {
    let (_dir, mut host) = boot(spec);
    host.wait("a reason", |host| {
        host.told.iter().find_map(|told| match told {
            Event::Failed(failure) => Some(failure.clone()),
            _ => None,
        })
    })
}

/// As `/proc/PID/limits` calls them, in the order of their numbers.
const NAMES: [&str; 16] = [
    "Max cpu time",
    "Max file size",
    "Max data size",
    "Max stack size",
    "Max core file size",
    "Max resident set",
    "Max processes",
    "Max open files",
    "Max locked memory",
    "Max address space",
    "Max file locks",
    "Max pending signals",
    "Max msgqueue size",
    "Max nice priority",
    "Max realtime priority",
    "Max realtime timeout",
];

/// Soft and hard.
fn limit(text: &str, resource: u8) -> [&str; 2] {
    let name = NAMES[usize::from(resource)];
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name} in {text}"));
    let mut values = line.split_whitespace();
    [values.next().unwrap(), values.next().unwrap()]
}

#[test]
fn every_limit_of_a_process_is_as_the_spec_says() {
    let mut spec = idle();
    // enough of each for a cat
    let softs =
        [1000, 9 << 20, 1 << 30, 4 << 20, 0, 1 << 30, 500, 100, 64 << 10, 4 << 30, 10, 200, 8192, 5, 3, 1_000_000];
    spec.main.rights.limits =
        (0..).zip(softs).map(|(resource, soft)| Limit { resource, soft, hard: soft + 7 }).collect();
    let (_dir, mut host) = boot(&spec);
    let beside = host.shell("cat /proc/self/limits");
    let user = host.run(Work::Exec(Exec { user: "1000".into(), ..sh("cat /proc/self/limits") })).stdout;
    host.expect(MAIN, "told\n");
    for text in [&beside, &user, &host.stdout(MAIN).text()] {
        for (resource, soft) in (0..).zip(softs) {
            assert_eq!(limit(text, resource), [soft, soft + 7].map(|bound| bound.to_string()), "{}", resource);
        }
    }
    spec.main.rights.limits = (0..16).map(|resource| Limit { resource, soft: u64::MAX, hard: u64::MAX }).collect();
    // so many open files no kernel allows
    spec.main.rights.limits[7] = Limit { resource: 7, soft: 10, hard: 1 << 20 };
    let (_dir, mut host) = boot(&spec);
    let beside = host.shell("cat /proc/self/limits");
    for resource in (0..16).filter(|resource| *resource != 7) {
        assert_eq!(limit(&beside, resource), ["unlimited"; 2], "{resource}");
    }
    assert_eq!(limit(&beside, 7), ["10", "1048576"]);
}

#[test]
fn limits_that_nobody_names_are_dockers() {
    let (_dir, mut host) = boot(&idle());
    let text = host.shell("cat /proc/self/limits");
    assert_eq!(limit(&text, 7), ["1048576", "1048576"]);
    assert_eq!(limit(&text, 6), ["unlimited"; 2]);
    assert_eq!(limit(&text, 3), ["8388608", "unlimited"]);
}

#[test]
fn a_limit_that_cannot_be_set_is_named() {
    let mut spec = idle();
    spec.main.rights.limits = vec![Limit { resource: 7, soft: 1, hard: 1 << 30 }];
    let failure = failure(&spec);
    assert_eq!(failure.reason, "cannot set the limit nofile: Operation not permitted (os error 1)");
    assert_eq!(failure.kind, FailureKind::Machine);
}

#[test]
fn the_machines_limits_are_as_the_spec_says() {
    let mut spec = idle();
    spec.machine.memory = Some(64 << 20);
    spec.machine.cpus = Some(500);
    spec.machine.pids = Some(50);
    spec.machine.shm_size = 8 << 20;
    let sysctls = [("net.core.somaxconn", "777"), ("kernel/msgmax", "9999"), ("net.ipv4.conf.lo/0.x", "1")];
    spec.machine.sysctls = sysctls[..2].iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    let (_dir, mut host) = boot(&spec);
    let group = host.shell("dirname $(find /sys/fs/cgroup -name memory.max | grep -v tether | tail -n 1)");
    let values = host.shell(&format!("cd {}; cat memory.max cpu.max pids.max memory.oom.group", group.trim()));
    assert_eq!(values, "67108864\n50000 100000\n50\n0\n");
    assert_eq!(host.shell("cat /proc/sys/net/core/somaxconn /proc/sys/kernel/msgmax"), "777\n9999\n");
    assert_eq!(host.shell("df -k /dev/shm | awk 'NR == 2 { print $2 }'; stat -c %a /dev/shm"), "8192\n1777\n");
    let ran = host.run(Work::Exec(sh("dd if=/dev/zero of=/dev/shm/x bs=1M count=9")));
    assert!(ran.stderr.contains("No space left on device"), "{ran:?}");
    host.shell("rm /dev/shm/x");
    let Reply::Stats(stats) = host.request(Request::Stats) else { panic!("no figures") };
    assert_eq!((stats.memory.limit, stats.pids_limit), (64 << 20, 50));

    // one that wants more memory dies of it, and the host is told; the others live
    let eater = "x=x; while :; do x=$x$x; done";
    let ran = host.run(Work::Exec(sh(eater)));
    assert_eq!(ran.exit.ending, Ending::Signaled { signal: 9, core: false }, "{ran:?}");
    assert!(ran.exit.oom, "{ran:?}");
    // no more processes than so many
    let script = "i=0; while [ $i -lt 60 ]; do sleep 1000 & i=$((i + 1)); done";
    let ran = host.run(Work::Exec(sh(script)));
    assert!(ran.stderr.contains("can't fork"), "{ran:?}");
    let Reply::Stats(stats) = host.request(Request::Stats) else { panic!("no figures") };
    // the shell, which was one of them, has gone
    assert_eq!(stats.pids, 49);
    // the main process among them, and with it the machine
    host.exec(Exec { argv: ["killall", "sleep"].map(String::from).to_vec(), ..sh("") });
    assert_eq!(host.exit(MAIN).ending.code(), 143);
}

#[test]
fn a_container_that_wants_all_memory_is_ended_and_says_why() {
    let mut spec = script(LinkDevice::Virtio, "echo begun; x=x; while :; do x=$x$x; done");
    spec.machine.memory = None;
    let (_dir, mut host) = boot(&spec);
    let exit = host.exit(MAIN);
    assert_eq!((exit.ending, exit.ending.code()), (Ending::Signaled { signal: 9, core: false }, 137));
    assert!(exit.oom, "{exit:?}");
    assert_eq!(host.stdout(MAIN).text(), "begun\n");
}

#[test]
fn a_fork_bomb_leaves_the_machine_to_its_host() {
    let (_dir, mut host) = boot(&idle());
    let bomb = host.exec(sh("echo lit; b() { b | b & b; }; b"));
    host.expect(bomb, "lit\n");
    let Reply::Stats(first) = host.request(Request::Stats) else { panic!("no figures") };
    assert!(first.pids_limit > 100 && first.memory.limit > 64 << 20, "{first:?}");
    host.wait("the bomb", |host| {
        let id = host.ask(Request::Stats);
        let Reply::Stats(stats) = host.answer(id) else { panic!("no figures") };
        (stats.pids > 100).then_some(())
    });
    // There is still a number for another process, and somebody who gives it; its turn on the processor comes after that of all the others.
    host.exec(sh("exec sleep 100000"));
    host.ask(Request::PowerOff);
    host.wait_off();
    // what was short was short in the container's group, and not in the machine
    let console = host.into_machine().console();
    assert!(!console.contains("Out of memory:"), "{console}");
}

#[test]
fn a_kernel_parameter_that_cannot_be_set_ends_the_boot_with_its_name() {
    for (name, value, why) in [
        ("net.core.nosuch", "1", "the kernel has no such parameter"),
        ("net.core.somaxconn", "many", "cannot be \"many\": Invalid argument (os error 22)"),
        ("kernel.panic", "0", "a kernel that panics powers the machine off"),
    ] {
        let mut spec = idle();
        spec.machine.sysctls = vec![(name.into(), value.into())];
        let expected = Failure { kind: FailureKind::Spec, reason: format!("machine/sysctls: {name}: {why}") };
        assert_eq!(failure(&spec), expected);
    }
}
