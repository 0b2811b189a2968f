//! Links that would lead PID 1 astray: an image's, or a container's own, to what PID 1 has open, to the kernel's switches, or to a device.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use rig::host::{Host, sh};
use rig::images::{ImageDir, busybox_disk};
use rig::machine::{Machine, script};
use rig::vch::{Output, Run, run};
use serde_json::json;
use wire::message::{Exec, Reply, Work};
use wire::spec::{LinkDevice, TermSize};

/// More descriptors than PID 1 has.
const DESCRIPTORS: u32 = 40;

fn idle() -> (tempfile::TempDir, Host) {
    let (dir, disk) = busybox_disk();
    let spec = script(LinkDevice::Virtio, "exec sleep 100000");
    (dir, Host::boot(Machine::new(&spec, Some(disk)), &spec))
}

#[test]
fn no_working_directory_is_the_machines_own_root() {
    let (_dir, mut host) = idle();
    host.shell("ln -s /proc/self/fd /fds; ln -s /proc/1/cwd /where");
    let places = (3..DESCRIPTORS).flat_map(|fd| [format!("/fds/{fd}"), format!("/proc/1/fd/{fd}")]);
    for dir in places.chain(["/where".into(), "/proc/1/root".into()]) {
        let (session, id) = host.begin(Work::Exec(Exec { dir: dir.clone(), ..sh("ls -a") }));
        match host.answer(id) {
            Reply::Failed(failure) => assert!(failure.reason.contains("chdir to cwd"), "{dir}: {failure:?}"),
            reply => panic!("{dir}: {reply:?}: {:?}", host.finish(session)),
        }
    }
    // a program has nothing of PID 1's to go by either
    for fd in 3..DESCRIPTORS {
        let program = format!("/proc/self/fd/{fd}/init");
        let (_, id) = host.begin(Work::Exec(Exec { argv: vec![program.clone()], ..sh("") }));
        let reply = host.answer(id);
        assert!(matches!(reply, Reply::Failed(_)), "{program}: {reply:?}");
    }
    assert_eq!(host.shell("pwd"), "/\n");
}

#[test]
fn devices_that_the_container_replaces_do_not_hold_pid_1_up() {
    let (_dir, mut host) = idle();
    host.shell("rm /dev/null /dev/ptmx; mkfifo /dev/null; mkfifo /dev/ptmx");
    assert_eq!(host.shell("cat; echo well"), "well\n");
    let terminal = Some(TermSize { rows: 5, columns: 77 });
    let ran = host.run(Work::Exec(Exec { terminal, ..sh("stty size; tty") }));
    assert_eq!(ran.stdout, "5 77\r\n/dev/pts/0\r\n", "{ran:?}");
}

/// `vch run OPTIONS… IMAGE sh -c SCRIPT`.
fn with(image: &Path, options: &[&str], text: &str) -> Run {
    run(["--rm"].iter().chain(options).chain([&image.to_str().unwrap(), &"sh", &"-c", &text]))
}

/// A slow disk of the image may have been told of before.
#[track_caller]
fn failed(output: &Output, code: i32, reason: &str) {
    assert!(output.code == code && output.stderr.contains(reason), "{output:?}");
}

#[test]
fn links_of_an_image_write_to_nothing_of_the_kernels() {
    let dir = ImageDir::with_busybox();
    let root = dir.root();
    fs::create_dir_all(root.join("etc")).unwrap();
    for (link, target) in [
        ("etc/hosts", "/proc/sysrq-trigger"),
        ("etc/resolv.conf", "../../proc/sys/kernel/core_pattern"),
        ("etc/hostname", "/dev/null"),
        ("groups", "/sys/fs/cgroup"),
        ("up", "../../../tmp/../new"),
    ] {
        fs::remove_file(root.join(link)).ok();
        symlink(target, root.join(link)).unwrap();
    }
    let image = dir.archive(&json!({}));
    let script =
        "pwd; cat /proc/sys/kernel/core_pattern; [ -c /dev/null ] && echo device; find /sys/fs/cgroup -name made";
    assert_eq!(with(&image, &["-w", "/up/dir"], script).output().success(), "/new/dir\ncore\ndevice\n");
    let privileged = ["--privileged", "-w", "/groups/made"];
    failed(&with(&image, &privileged, script).output(), 127, "chdir to cwd (\"/groups/made\")");
}

#[test]
fn an_image_whose_dev_or_proc_is_a_link_does_not_start() {
    for name in ["dev", "proc", "sys"] {
        let dir = ImageDir::with_busybox();
        let link = dir.root().join(name);
        fs::remove_dir_all(&link).ok();
        symlink("/etc", &link).unwrap();
        let image = dir.archive(&json!({}));
        failed(&with(&image, &[], "echo never").output(), 125, &format!("cannot make /newroot/{name}"));
    }
}
