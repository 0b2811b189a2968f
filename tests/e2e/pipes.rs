//! Whatever carries the link, the same bytes arrive; and a connection that is cut is made anew without a byte lost.

use std::process::Command;
use std::time::Duration;

use rig::artifacts;
use rig::images::{ImageDir, sha256};
use rig::machine::{Machine, Seen, script};
use rig::vch::{run, shell};
use wire::link::Tuning;
use wire::message::{Event, MAIN};
use wire::spec::LinkDevice;
use wire::status::Ending;

const LINKS: [&str; 3] = ["serial", "virtio", "vsock"];

/// Bytes that no text conversion and no escape leaves as they are.
fn noise(len: usize) -> Vec<u8> {
    (0..u32::try_from(len).unwrap()).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[1]).collect()
}

#[test]
fn output_arrives_whole_over_each_pipe() {
    let image = ImageDir::with_busybox();
    let part = image.root().join("part");
    std::fs::write(&part, noise(2_000_000)).unwrap();
    let archive = image.archive(&serde_json::json!({}));
    for link in LINKS {
        let output = run(["--rm", "--link", link, archive.to_str().unwrap(), "/bin/sh", "-c", "cat /part; exit 7"]);
        let output = output.output();
        let got = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(got.path(), &output.stdout).unwrap();
        assert_eq!((output.code, output.stderr.as_str()), (7, ""), "{link}");
        assert_eq!(sha256(got.path()), sha256(&part), "{link}: {} bytes", output.stdout.len());
    }
}

#[test]
fn input_arrives_whole_and_comes_back_over_each_pipe() {
    let bytes = noise(400_000);
    let sent = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(sent.path(), &bytes).unwrap();
    for link in LINKS {
        let output = shell(&["-i", "--link", link], "tee /tmp/got; sha256sum </tmp/got >&2; exit 3");
        let output = output.stdin(bytes.clone()).output();
        assert_eq!((output.code, output.stderr), (3, format!("{}  -\n", sha256(sent.path()))), "{link}");
        assert!(output.stdout == bytes, "{link}: {} bytes came back", output.stdout.len());
    }
}

#[test]
fn a_guest_that_cannot_run_says_why_over_a_vsock() {
    shell(&["--link", "vsock", "--entrypoint", "/no/such"], "").output().fails(127, &["/no/such"]);
}

#[test]
fn a_host_that_cannot_carry_a_vsock_says_what_is_missing() {
    let absent = shell(&["--link", "vsock"], "true").env("VCH_VHOST_VSOCK", "/no/such/program").output();
    absent.fails(125, &["VCH_VHOST_VSOCK is /no/such/program"]);
    let broken = shell(&["--link", "vsock"], "true").env("VCH_VHOST_VSOCK", "/bin/false").output();
    broken.fails(125, &["/bin/false ended (exit status: 1)"]);

    if std::path::Path::new("/dev/vhost-vsock").exists() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let mut bare = shell(&["--link", "vsock"], "true").env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    for variable in ["HOME", "CARGO_HOME", "XDG_CACHE_HOME"] {
        bare = bare.env(variable, home.path());
    }
    let parts =
        ["no vsock for guests: cannot open /dev/vhost-vsock", "cargo install vhost-device-vsock", "--link virtio"];
    bare.output().fails(125, &parts);
}

#[test]
fn a_machine_does_not_outlive_what_carries_its_vsock() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("carrier");
    let text = "#!/bin/sh\nvhost-device-vsock \"$@\" &\nsleep 2\nkill $!\necho struck by lightning >&2\nexit 9\n";
    std::fs::write(&program, text).unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let output = shell(&["--link", "vsock"], "sleep 1000").env("VCH_VHOST_VSOCK", &program).output();
    output.fails(125, &["carrier ended (exit status: 9): struck by lightning"]);
}

/// Busybox as a raw disk, made by iso-builder itself. It lies as long as its folder.
fn disk() -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk.raw");
    let mut command = Command::new(artifacts::program("iso-builder"));
    rig::images::run(command.arg("disk").arg(artifacts::dist("busybox.tar")).arg("-o").arg(&disk));
    (dir, disk)
}

fn ends_with(seen: &Seen, code: u8) {
    let Some(Event::Ended { session: MAIN, exit }) = seen.messages.last() else { panic!("no end: {seen:?}") };
    assert_eq!(exit.ending, Ending::Exited { code });
}

fn lines(count: u32) -> String {
    (1..=count).map(|n| format!("{n}\n")).collect()
}

#[test]
fn a_vsock_connection_that_is_cut_is_made_anew_and_nothing_is_lost() {
    let (_dir, disk) = disk();
    let spec = script(LinkDevice::Vsock, "seq 1 400000; exit 6");
    let mut powered = Machine::new(&spec, Some(disk)).power_on();
    let mut cuts = vec![2_000_000, 1_200_000, 1_200_000, 300_000, 1];
    let mut took = Vec::new();
    let seen = powered.serve_with(Tuning::FAST, |powered, link, seen| {
        if cuts.last().is_some_and(|&at| at <= seen.stdout.len()) {
            cuts.pop();
            let began = std::time::Instant::now();
            powered.cut(link);
            println!("connected again after {:?}", began.elapsed());
            took.push(began.elapsed());
        }
    });
    assert!(cuts.is_empty(), "not cut at {cuts:?}");
    // whoever waits for something fixed does so each time, a busy computer does not
    assert!(took.iter().min() < Some(&Duration::from_secs(5)), "connected again after {took:?}");
    assert!(seen.stdout == lines(400_000).as_bytes(), "{} bytes", seen.stdout.len());
    ends_with(&seen, 6);
}

#[test]
fn a_serial_port_that_is_connected_by_tcp_carries_the_link() {
    let (_dir, disk) = disk();
    let spec = script(LinkDevice::Serial, "seq 1 20000; exit 2");
    let mut machine = Machine::new(&spec, Some(disk));
    machine.link_over_tcp = true;
    let seen = machine.power_on().serve(Tuning::SERIAL);
    assert!(seen.stdout == lines(20_000).as_bytes(), "{} bytes", seen.stdout.len());
    ends_with(&seen, 2);
}

/// The spec asks for a device that the machine does not have: the console says which one, and what to give QEMU.
#[test]
fn a_missing_link_device_is_named_on_the_console() {
    for (link, given, reason) in [
        (
            LinkDevice::Vsock,
            LinkDevice::Virtio,
            "tether: error tether: this machine has no vsock device (QEMU: -device vhost-vsock-pci",
        ),
        (
            LinkDevice::Virtio,
            LinkDevice::Serial,
            "tether: error tether: no virtio-serial port is named tether.link (QEMU: -device",
        ),
        (
            LinkDevice::Serial,
            LinkDevice::Virtio,
            "tether: error tether: this machine has no serial port /dev/ttyS0 (QEMU: -device",
        ),
    ] {
        let mut machine = Machine::new(&script(link, "true"), None);
        machine.link = given;
        let mut powered = machine.power_on();
        powered.wait();
        assert!(powered.console().contains(reason), "{reason:?} is not in {:?}", powered.console());
    }
}

#[test]
fn a_speed_that_the_port_cannot_do_is_refused() {
    let mut spec = script(LinkDevice::Serial, "true");
    spec.link.speed = 4_000_000;
    let mut powered = Machine::new(&spec, None).power_on();
    powered.wait();
    let reason = "tether: error tether: /dev/ttyS0 cannot do 4000000 baud: give less as link/speed";
    assert!(powered.console().contains(reason), "{reason:?} is not in {:?}", powered.console());
}
