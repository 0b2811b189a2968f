//! The guest's end of the link, met by a host of the test's own: noise before the first frame, and boots that fail.

use std::io::Write as _;
use std::process::Command;

use rig::artifacts;
use rig::images::busybox_disk as disk;
use rig::machine::{Machine, script};
use wire::link::Tuning;
use wire::message::{Event, MAIN};
use wire::spec::{LinkDevice, Spec};
use wire::status::{Ending, FailureKind};

fn ends_with(messages: &[Event], expected: Ending) {
    let Some(Event::Ended { session: MAIN, exit }) = messages.last() else { panic!("no end: {messages:?}") };
    assert_eq!(exit.ending, expected);
    assert!(exit.ended_us >= exit.started_us);
}

#[test]
fn garbage_before_the_first_frame_is_skipped() {
    let (_dir, disk) = disk();
    let spec = script(LinkDevice::Serial, "echo clear; exit 4");
    let mut machine = Machine::new(&spec, Some(disk));
    // through the firmware, as on ESXi: SeaBIOS writes its screen, and the loader's, to the link's port
    machine.iso = Some(artifacts::dist("bootstrap.iso"));
    let port = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&port, 0x3f8_u16.to_le_bytes()).unwrap();
    machine.extra = ["-fw_cfg".into(), format!("name=etc/sercon-port,file={}", port.path().display())].into();
    let mut powered = machine.power_on();
    // and the other way: bytes that are no frames, before the guest has even started
    let garbage: Vec<u8> = (0..5000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    powered.socket.write_all(&garbage).unwrap();
    let seen = powered.serve(Tuning::SERIAL);
    assert_eq!(String::from_utf8_lossy(&seen.stdout), "clear\n");
    ends_with(&seen.messages, Ending::Exited { code: 4 });
    assert!(seen.noise > 50, "the firmware did write: {}", seen.noise);
}

#[test]
fn the_first_message_tells_who_speaks_and_how_long_it_took() {
    let (_dir, disk) = disk();
    let seen = Machine::new(&script(LinkDevice::Virtio, "true"), Some(disk)).power_on().serve(Tuning::FAST);
    let [Event::Ready(ready), Event::Started { session: MAIN, pid }, Event::Ended { .. }] = &seen.messages[..] else {
        panic!("{:?}", seen.messages);
    };
    assert!(0 < ready.init_us && ready.init_us <= ready.link_us && ready.link_us <= ready.ready_us, "{ready:?}");
    assert!(*pid > 1);
    ends_with(&seen.messages, Ending::Exited { code: 0 });
}

fn fails(spec: &Spec, disk: Option<std::path::PathBuf>, kind: FailureKind, reason: &str) {
    let seen = Machine::new(spec, disk).power_on().serve(Tuning::FAST);
    let Some(Event::Failed(failure)) = seen.messages.last() else { panic!("{:?}", seen.messages) };
    assert_eq!((failure.kind, failure.reason.as_str()), (kind, reason));
}

#[test]
fn a_missing_disk_is_named_within_seconds() {
    let spec = script(LinkDevice::Virtio, "true");
    fails(
        &spec,
        None,
        FailureKind::Disk,
        "no disk has the label \"containerfs\" after 5 s; the machine has no disk at all",
    );
}

#[test]
fn a_disk_with_another_label_is_not_taken() {
    let dir = tempfile::tempdir().unwrap();
    let other = dir.path().join("other.raw");
    std::fs::File::create(&other).unwrap().set_len(8 << 20).unwrap();
    rig::images::run(Command::new("mke2fs").args(["-q", "-L", "other"]).arg(&other));
    let spec = script(LinkDevice::Virtio, "true");
    let reason = "no disk has the label \"containerfs\" after 5 s; the machine has vda (ext4, label \"other\")";
    fails(&spec, Some(other), FailureKind::Disk, reason);
}

#[test]
fn a_damaged_disk_is_a_failure_and_no_shell() {
    let (_dir, disk) = disk();
    // group descriptors, right behind the superblock
    let file = std::fs::OpenOptions::new().write(true).open(&disk).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[0xff; 4096], 4096).unwrap();
    let seen = Machine::new(&script(LinkDevice::Virtio, "true"), Some(disk)).power_on().serve(Tuning::FAST);
    let Some(Event::Failed(failure)) = seen.messages.last() else { panic!("{:?}", seen.messages) };
    assert_eq!(failure.kind, FailureKind::Disk);
    assert!(failure.reason.starts_with("cannot mount the disk vda"), "{failure:?}");
}

#[test]
fn without_a_spec_the_reason_is_on_every_port_and_the_machine_is_off() {
    for (guestinfo, reason) in [
        (None, "tether: error tether: no guestinfo: this machine has no fw_cfg file opt/guestinfo"),
        (Some("nonsense"), "opt/guestinfo/raw is not a dictionary: line 1: no `=` in it"),
        (Some("a = \"b\""), "tether: error tether: guestinfo has no guestinfo.vice./common/id"),
    ] {
        let mut machine = Machine::new(&script(LinkDevice::Virtio, "true"), None);
        machine.guestinfo = guestinfo.map(String::from);
        let mut powered = machine.power_on();
        powered.wait();
        assert!(powered.console().contains(reason), "{reason:?} is not in {:?}", powered.console());
    }
    // a machine with one serial port says it there
    let mut machine = Machine::new(&script(LinkDevice::Serial, "true"), None);
    machine.guestinfo = None;
    let mut powered = machine.power_on();
    let mut port = Vec::new();
    std::io::Read::read_to_end(&mut powered.socket, &mut port).ok();
    assert!(String::from_utf8_lossy(&port).contains("tether: no guestinfo"), "{port:?}");
}

#[test]
fn the_power_button_asks_the_process_to_stop() {
    let (_dir, disk) = disk();
    let spec = script(LinkDevice::Virtio, "trap 'echo stopped; exit 5' TERM; echo up; while :; do sleep 0.1; done");
    let mut powered = Machine::new(&spec, Some(disk)).power_on();
    let seen = powered.serve_until_output(Tuning::FAST, |powered| powered.press_power_button());
    assert_eq!(String::from_utf8_lossy(&seen.stdout), "up\nstopped\n");
    ends_with(&seen.messages, Ending::Exited { code: 5 });
}
