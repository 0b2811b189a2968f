//! The appliance keeps its services running, says so, and loses nothing by a reset that it has on its data disk.

use std::fs;
use std::path::Path;
use std::process::Command;

use rig::appliance::{Appliance, Options};
use rig::artifacts;
use rig::images::run;

const UP: &str = "appliance-init: info life: up";
const READY: &str = "vch is ready";

/// With a shell on the console.
fn with_shell(options: &mut Options) {
    options.shell = true;
    options.key("debug/console", "true");
    options.key("status/port", "0");
}

pub(crate) fn can_have_a_shell(name: &str) -> bool {
    let there = Path::new("/usr/bin/busybox").exists();
    if !there {
        crate::skip(name, "no /usr/bin/busybox: apt-get install busybox-static");
    }
    there
}

#[test]
fn the_medium_is_small_and_boots_with_128_mib() {
    let size = fs::metadata(artifacts::dist("appliance.iso")).unwrap().len();
    assert!(size <= 64 << 20, "{size} bytes");
    let mut vch = Appliance::boot(|options| {
        options.from_medium = true;
        options.memory_mib = 128;
    });
    vch.wait_for_console(UP);
    assert!(vch.console().contains("there is no data disk: a reset loses"), "{}", vch.console());
    assert!(!vch.console().contains("3c3c3c"), "the master key is on the console: {}", vch.console());
    vch.power_button();
    vch.wait_for_end();
    assert!(vch.console().contains("vch has ended"), "{}", vch.console());
}

#[test]
fn a_service_that_dies_or_hangs_comes_again_after_pauses_that_grow() {
    if !can_have_a_shell("appliance_services::a_service_that_dies_or_hangs_comes_again_after_pauses_that_grow") {
        return;
    }
    let mut vch = Appliance::boot(|options| {
        with_shell(options);
        options.key("watchdog", "5");
    });
    vch.wait_for(READY, 1);
    vch.kill_vch();
    vch.wait_for("vch has ended by signal 9: it is started again in 1 s", 1);
    vch.wait_for(READY, 2);
    // stopped, it cannot say that it lives; SIGABRT waits until it goes on, and SIGKILL does not
    vch.shell("kill -STOP $(pidof vch)");
    vch.wait_for("vch does not say that it is alive: it is ended", 1);
    vch.wait_for("vch does not end: it is killed", 1);
    vch.wait_for("vch has ended by signal 9: it is started again in 2 s", 1);
    vch.wait_for(READY, 3);
    vch.power_button();
    vch.wait_for_end();
}

#[test]
fn state_on_the_data_disk_survives_a_reset() {
    if !can_have_a_shell("appliance_services::state_on_the_data_disk_survives_a_reset") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("data.raw");
    run(Command::new(artifacts::program("iso-builder")).args(["data-disk", "--size", "256M", "-o"]).arg(&disk));
    let mut vch = Appliance::boot(|options| {
        with_shell(options);
        options.data_disk = Some(disk.clone());
        options.key("data/required", "true");
    });
    vch.wait_for("state is kept on the data disk", 1);
    vch.wait_for("shell has started", 1);
    // a shell's `$((6 * 7))`, so that the echo of the line is not taken for its answer
    vch.shell("echo kept $((6 * 7)) > /data/vch/note && sync && cat /data/vch/note");
    vch.wait_for("kept 42", 1);
    vch.reset();
    vch.wait_for("shell has started", 2);
    vch.shell("cat /data/vch/note");
    vch.wait_for("kept 42", 2);
    vch.power_button();
    vch.wait_for_end();
    // it was left clean
    run(Command::new("e2fsck").arg("-fn").arg(&disk));
}

#[test]
fn a_data_disk_that_is_required_is_missed() {
    let mut vch = Appliance::boot(|options| options.key("data/required", "true"));
    vch.wait_for_console("data/required wants a data disk: no disk has the label \"vchdata\"");
    assert!(!vch.console().contains("vch has started"), "{}", vch.console());
    vch.power_button();
    vch.wait_for_end();
}
