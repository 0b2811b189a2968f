//! What a process may do: capabilities, no_new_privs, seccomp, and what it finds of the machine. Seen from inside.

use rig::host::{Host, sh};
use rig::images::busybox_disk;
use rig::machine::{Machine, script};
use tempfile::TempDir;
use wire::message::{Exec, MAIN, Work};
use wire::spec::{ALL_CAPABILITIES, Capabilities, DOCKERS_CAPABILITIES, LinkDevice, Rights};

/// A machine whose main process does nothing, and has these rights; so have the processes beside it.
fn idle(rights: Rights) -> (TempDir, Host) {
    let (dir, disk) = busybox_disk();
    let mut spec = script(LinkDevice::Virtio, "cat /proc/self/status; echo told; exec sleep 100000");
    spec.main.rights = rights;
    (dir, Host::boot(Machine::new(&spec, Some(disk)), &spec))
}

/// A user's own `/proc/self/status`, without a shell in between.
fn status(host: &mut Host, user: &str) -> String {
    let argv = ["cat", "/proc/self/status"].map(String::from).to_vec();
    let ran = host.run(Work::Exec(Exec { argv, user: user.into(), ..sh("") }));
    assert_eq!(ran.exit.ending.code(), 0, "{ran:?}");
    ran.stdout
}

/// A number in hexadecimal of such a text.
fn field(status: &str, name: &str) -> u64 {
    let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    u64::from_str_radix(value.unwrap_or_else(|| panic!("no {name} in {status}")).trim(), 16).unwrap()
}

/// Inheritable, permitted, effective, bounding, ambient.
fn capabilities(status: &str) -> [u64; 5] {
    ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(|name| field(status, name))
}

/// What a script cannot do, and why.
fn refused(host: &mut Host, script: &str, why: &str) {
    let ran = host.run(Work::Exec(sh(script)));
    assert!(ran.exit.ending.code() != 0 && ran.stderr.contains(why), "{script}: {ran:?}");
}

#[test]
fn every_capability_is_there_or_not_as_the_spec_says() {
    let even = ALL_CAPABILITIES & 0x5555_5555_5555_5555;
    let odd = ALL_CAPABILITIES & !even;
    for (bounding, ambient) in
        [(even, 0), (odd, odd & 0xffff), (0, 0), (ALL_CAPABILITIES, ALL_CAPABILITIES), (DOCKERS_CAPABILITIES, 1 << 13)]
    {
        let (_dir, mut host) = idle(Rights { capabilities: Capabilities { bounding, ambient }, ..Rights::default() });
        let root = [ambient, bounding, bounding, bounding, ambient];
        assert_eq!(capabilities(&status(&mut host, "")), root, "root, {bounding:x}");
        // docker's rule: nothing but what is ambient, and no more to be had than what is bounding
        let other = [ambient, ambient, ambient, bounding, ambient];
        assert_eq!(capabilities(&status(&mut host, "1000:1000")), other, "a user, {bounding:x}");
        // the main process has the same
        host.expect(MAIN, "told\n");
        let main = host.stdout(MAIN).text();
        assert_eq!(capabilities(&main), root, "the main process, {bounding:x}");
        // and so have the privileges that a program may bring: there are none for who has none
        if bounding == 0 {
            refused(&mut host, "chown 1000 /tmp", "Operation not permitted");
        }
    }
}

#[test]
fn what_docker_withholds_from_root_is_withheld() {
    let (_dir, mut host) = idle(Rights::default());
    let root = host.shell("cat /proc/self/status");
    assert_eq!(capabilities(&root), [0, DOCKERS_CAPABILITIES, DOCKERS_CAPABILITIES, DOCKERS_CAPABILITIES, 0]);
    // one filter: what PID 1 denies itself, and with it everybody
    assert_eq!((field(&root, "NoNewPrivs"), field(&root, "Seccomp_filters")), (0, 1));
    for script in [
        "reboot -f",
        "poweroff -f",
        "date -s 2001-01-01 2>&1 | grep 'not permitted' >&2; false",
        "mount -t tmpfs none /tmp",
        "umount /sys/firmware",
        "hostname other",
        "chroot / mount -o remount,rw /sys",
        "mount -t proc none /tmp || mount -t sysfs none /tmp",
        "ip link set lo down",
    ] {
        refused(&mut host, script, "ermi");
    }
    assert_eq!(host.shell("chown 5:6 /tmp; chroot / id -u; touch /tmp/x; chmod u+s /tmp/x; echo done"), "0\ndone\n");
}

#[test]
fn root_of_the_container_does_not_see_the_spec_nor_turn_the_machine() {
    let (_dir, mut host) = idle(Rights::default());
    assert_eq!(host.shell("find /sys/firmware | wc -l; ls -A /sys/firmware | wc -l"), "1\n0\n");
    refused(&mut host, "cat /sys/firmware/qemu_fw_cfg/by_name/opt/guestinfo/raw", "No such file");
    refused(&mut host, "cat /proc/1/root/sys/firmware/qemu_fw_cfg/by_name/opt/guestinfo/raw", "");
    refused(&mut host, "cat /proc/1/environ", "Permission denied");
    // empty, where the kernel has them at all
    let masked = "for f in kcore keys timer_list timer_stats sched_debug latency_stats interrupts; do
            [ -e /proc/$f ] && head -c 1 /proc/$f; done; ls -A /proc/acpi /proc/asound /proc/scsi 2>/dev/null | grep -v :; echo nothing";
    assert_eq!(host.shell(masked), "nothing\n");
    refused(&mut host, "echo 1 >/proc/sys/kernel/panic", "Read-only file system");
    for path in ["/proc/sys/vm/drop_caches", "/proc/irq/default_smp_affinity", "/sys/power/state"] {
        refused(&mut host, &format!("[ -e {path} ] || {{ echo none >&2; exit 1; }}; echo 1 >{path}"), "");
    }
    refused(&mut host, "echo c >/proc/sysrq-trigger", "");
    // neither its limits nor its group
    let limits = host.shell("find /sys/fs/cgroup -name memory.max -o -name pids.max -o -name cgroup.procs");
    assert!(limits.lines().count() >= 3, "{limits}");
    for file in limits.lines() {
        refused(&mut host, &format!("echo max >{file}"), "Read-only file system");
    }
    assert_eq!(host.shell("echo still here"), "still here\n");
}

#[test]
fn who_may_mount_may_make_control_groups() {
    let bounding = ALL_CAPABILITIES;
    let (_dir, mut host) = idle(Rights { capabilities: Capabilities { bounding, ambient: 0 }, ..Rights::default() });
    let script = "cd $(dirname $(find /sys/fs/cgroup -name cgroup.procs | grep -v tether | tail -n 1)); mkdir own && rmdir own && echo made
        mount -t tmpfs none /tmp && umount /tmp && echo mounted";
    assert_eq!(host.shell(script), "made\nmounted\n");
}

/// `struct sock_filter`: code, jump if true, jump if false, constant.
fn instruction(code: u16, then: u8, or: u8, value: u32) -> [u8; 8] {
    let ([a, b], [c, d, e, f]) = (code.to_ne_bytes(), value.to_ne_bytes());
    [a, b, then, or, c, d, e, f]
}

/// Answers two system calls with an error, and lets every other one through.
fn filter(calls: [u32; 2], errno: u32) -> Vec<u8> {
    const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS; the number of the call is at 0
    const EQUALS: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    const ERRNO: u32 = 0x0005_0000; // SECCOMP_RET_ERRNO
    const ALLOW: u32 = 0x7fff_0000; // SECCOMP_RET_ALLOW
    [
        instruction(LOAD, 0, 0, 0),
        instruction(EQUALS, 1, 0, calls[0]),
        instruction(EQUALS, 0, 1, calls[1]),
        instruction(RETURN, 0, 0, ERRNO | errno),
        instruction(RETURN, 0, 0, ALLOW),
    ]
    .concat()
}

/// mkdir and mkdirat of x86-64.
const MKDIRS: [u32; 2] = [83, 258];

#[test]
fn a_filter_forbids_a_system_call_whoever_loads_it() {
    for no_new_privileges in [false, true] {
        // 122 is EDQUOT, which a directory on this disk would never bring
        let seccomp = Some(filter(MKDIRS, 122));
        let (_dir, mut host) = idle(Rights { seccomp, no_new_privileges, ..Rights::default() });
        for user in ["", "1000"] {
            let status = status(&mut host, user);
            assert_eq!(
                (field(&status, "NoNewPrivs"), field(&status, "Seccomp_filters")),
                (u64::from(no_new_privileges), 2)
            );
            let ran = host.run(Work::Exec(Exec { user: user.into(), ..sh("mkdir /tmp/x || cat /tmp/x /dev/null") }));
            assert!(ran.stderr.contains("Quota exceeded") || ran.stderr.contains("quota exceeded"), "{ran:?}");
            assert_eq!(host.shell("touch /tmp/y && echo made"), "made\n");
        }
        // a copy into the container is the host's work, and needs none of its process's rights
        let dir = host.create(Work::CopyIn { dir: "/tmp".into(), owners: false, replace: false });
        host.stdin(dir).add(&directory("new"));
        host.stdin(dir).finish();
        let ran = host.finish(dir);
        assert_eq!((ran.exit.ending.code(), ran.stderr.as_str()), (0, ""));
        assert_eq!(host.shell("ls -d /tmp/new"), "/tmp/new\n");
    }
}

/// A tar archive of one empty directory: tar(5), ustar.
fn directory(name: &str) -> Vec<u8> {
    let mut block = vec![0; 3 * 512];
    block[..name.len()].copy_from_slice(name.as_bytes());
    for (at, text) in [(100, "0000755\0"), (108, "0000000\0"), (116, "0000000\0"), (124, "00000000000\0")] {
        block[at..at + text.len()].copy_from_slice(text.as_bytes());
    }
    block[136..148].copy_from_slice(b"00000000000\0");
    block[148..156].copy_from_slice(b"        ");
    block[156] = b'5';
    block[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = block[..512].iter().map(|&byte| u32::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

#[test]
fn no_program_brings_new_privileges_where_there_are_to_be_none() {
    for no_new_privileges in [false, true] {
        let (_dir, mut host) = idle(Rights { no_new_privileges, ..Rights::default() });
        // one of the few that busybox leaves root's rights to, and the only reason that it can have to complain so
        host.shell("cp /bin/busybox /tmp/crontab; chmod 4755 /tmp/crontab");
        let argv = ["/tmp/crontab", "-l"].map(String::from).to_vec();
        let ran = host.run(Work::Exec(Exec { argv, user: "1000".into(), ..sh("") }));
        assert_eq!(ran.stderr.contains("must be suid"), no_new_privileges, "{ran:?}");
    }
}

#[test]
fn a_process_begins_with_a_clean_slate() {
    let (_dir, mut host) = idle(Rights { oom_score: 321, ..Rights::default() });
    for terminal in [None, Some(wire::spec::TermSize { rows: 24, columns: 80 })] {
        let cat = |path: &str| Exec { argv: vec!["cat".into(), path.into()], terminal, ..sh("") };
        let status = host.run(Work::Exec(cat("/proc/self/status"))).stdout.replace('\r', "");
        for set in ["SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt"] {
            assert_eq!(field(&status, set), 0, "{set}");
        }
        assert!(status.contains("Umask:\t0022\n"), "{status}");
        let stat = host.run(Work::Exec(cat("/proc/self/stat"))).stdout;
        let fields: Vec<&str> = stat.trim().split(' ').collect();
        // process, group and session are one: proc_pid_stat(5)
        assert_eq!((fields[0], fields[0]), (fields[4], fields[5]), "{stat}");
        assert_eq!(host.run(Work::Exec(cat("/proc/self/oom_score_adj"))).stdout.trim(), "321");
        let list = Exec { argv: ["ls", "/proc/self/fd"].map(String::from).to_vec(), ..cat("") };
        // the last one is the directory itself
        assert_eq!(host.run(Work::Exec(list)).stdout.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"]);
    }
}
