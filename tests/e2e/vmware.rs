//! A containerVM on VMware: its spec comes through the backdoor, its status goes back there, and what is wrong with the host has a name.
//!
//! The host is the double; the machine's init is its shim, which leaves PID 1 to tether.

use rig::host::Host;
use rig::images::busybox_disk;
use rig::machine::{Machine, script};
use rig::vmware::{Medium, Vmware};
use wire::guestinfo::Generation;
use wire::message::MAIN;
use wire::spec::{Endpoint, LinkDevice, Spec};
use wire::status::{MachineState, Status};

use crate::network::{endpoint, mac, prefix};

const STATUS: &str = "rpci info-set guestinfo.vice..status ";

fn hello(link: LinkDevice) -> Spec {
    script(link, "echo $((6 * 7)); cat /proc/1/comm; exit 3")
}

/// Runs a machine to its end, which must be the container's.
fn runs(vmware: &Vmware, spec: &Spec, medium: Medium) {
    let (_dir, disk) = busybox_disk();
    let machine = vmware.machine(Machine::new(spec, Some(disk)), medium);
    let mut host = Host::boot(machine, spec);
    assert_eq!(host.exit(MAIN).ending.code(), 3);
    assert_eq!(host.stdout(MAIN).text(), "42\ntether\n");
    host.wait_off();
}

/// What the console says of a machine that powers itself off for want of a spec.
fn fails(vmware: &Vmware) -> String {
    let spec = hello(LinkDevice::Serial);
    let machine = vmware.machine(Machine::new(&spec, None), Medium::Initramfs);
    let mut powered = machine.power_on();
    powered.wait();
    powered.console()
}

fn statuses(vmware: &Vmware) -> Vec<Status> {
    let unescape = |text: &str| text.replace("\\\"", "\"").replace("\\\\", "\\");
    let texts = vmware.lines().into_iter().filter_map(|line| line.strip_prefix(STATUS).map(unescape));
    texts.map(|text| rig::host::status(&text)).collect()
}

#[test]
fn a_container_runs_by_a_spec_that_comes_through_the_backdoor_and_its_status_goes_back() {
    for link in [LinkDevice::Virtio, LinkDevice::Serial] {
        let spec = hello(link);
        let vmware = Vmware::with(&spec);
        runs(&vmware, &spec, Medium::Initramfs);
        let statuses = statuses(&vmware);
        assert!(statuses.is_sorted_by_key(|status| status.generation), "{statuses:?}");
        let [first, .., last] = statuses.as_slice() else { panic!("{statuses:?}") };
        assert_eq!(first.state, MachineState::Running);
        let exit = last.sessions["rig"].exit.as_ref();
        assert_eq!(exit.map(|exit| exit.ending.code()), Some(3), "{last:?}");
    }
}

#[test]
fn the_same_medium_boots_there_from_an_iso() {
    let spec = hello(LinkDevice::Serial);
    runs(&Vmware::with(&spec), &spec, Medium::Iso);
}

#[test]
fn its_tracer_is_no_burden_while_a_container_runs_and_when_it_is_stopped() {
    let spec = script(LinkDevice::Virtio, "trap 'echo stopped; exit 4' TERM; echo up; while :; do sleep 0.1; done");
    let vmware = Vmware::with(&spec);
    let (_dir, disk) = busybox_disk();
    let mut host = Host::boot(vmware.machine(Machine::new(&spec, Some(disk)), Medium::Initramfs), &spec);
    host.expect(MAIN, "up\n");
    // what it is told is heard at once, and what it starts is not traced
    vmware.wait_for("a status", |line| line.starts_with(STATUS) && line.contains("running"));
    let traced = host.shell("grep -h TracerPid /proc/self/status /proc/1/status");
    assert!(traced.starts_with("TracerPid:\t0\n") && !traced.ends_with(":\t0\n"), "{traced}");
    let script =
        "i=0; while [ $i -lt 200 ]; do (true &); i=$((i + 1)); done; sh -c 'kill -SEGV $$' 2>/dev/null; echo $?";
    assert_eq!(host.shell(script), "139\n");
    host.machine.press_power_button();
    assert_eq!(host.exit(MAIN).ending.code(), 4);
    host.wait_off();
    let last = statuses(&vmware).pop().expect("a status");
    assert_ne!(last.state, MachineState::Running, "{last:?}");
}

#[test]
fn what_some_hosts_lack_is_done_without() {
    for options in [
        &["--no-hb"][..],
        &["--no-cookies"],
        &["--no-hb", "--no-cookies"],
        &["--checkpoint", "29"],
        // as if it was suspended, and resumed by another VMX
        &["--forget-at", "20"],
    ] {
        let spec = hello(LinkDevice::Virtio);
        let mut vmware = Vmware::with(&spec);
        vmware.option(options);
        runs(&vmware, &spec, Medium::Initramfs);
    }
}

#[test]
fn hypercalls_take_the_ports_place_where_the_processor_has_them() {
    for name in ["vmcall", "vmmcall"] {
        let spec = hello(LinkDevice::Virtio);
        let mut vmware = Vmware::with(&spec);
        vmware.option(&["--hypercall", name]);
        runs(&vmware, &spec, Medium::Initramfs);
    }
}

#[test]
fn who_may_not_ask_through_the_backdoor_asks_over_vsock() {
    let spec = hello(LinkDevice::Virtio);
    let mut vmware = Vmware::with(&spec);
    vmware.option(&["--vsock", "--authenticate"]);
    runs(&vmware, &spec, Medium::Initramfs);
    assert!(!statuses(&vmware).is_empty());
}

#[test]
fn a_template_goes_on_as_a_clone() {
    // it is 2033 there, which no clock of this machine says by itself
    const NOW: u64 = 2_000_000_000;
    let card = Endpoint { addresses: vec![prefix("10.1.0.2/24")], ..endpoint("net", mac(7)) };
    let look = "cat /sys/class/net/eth0/address /sys/class/net/eth0/ifindex /proc/1/comm; date +%Y; hostname";
    for options in [&[][..], &["--keep-channels"], &["--no-hb", "--no-cookies"]] {
        let spec =
            Spec { networks: vec![card.clone()], hostname: Some("web".into()), ..script(LinkDevice::Virtio, look) };
        let mut vmware = Vmware::template(&Generation::Template { number: [1; 16] });
        vmware.option(options);
        let (_dir, disk) = busybox_disk();
        let mut machine = vmware.machine(Machine::new(&spec, Some(disk)), Medium::Initramfs);
        let words =
            ["-netdev", "hubport,hubid=0,id=net", "-device", "vmxnet3,netdev=net,mac=52:54:00:00:00:07,romfile="];
        machine.extra.extend(words.map(String::from));
        let powered = machine.power_on();
        let clone = Generation::Clone { number: [2; 16], entropy: Box::new([3; 64]), unix_ns: None };
        let mut keys = wire::guestinfo::write(&spec);
        wire::guestinfo::write_generation(&clone).iter().for_each(|(key, value)| keys.set(key, value));
        vmware.clone(&keys, NOW);
        let mut host = Host::on(powered, &spec);
        assert_eq!(host.exit(MAIN).ending.code(), 0);
        // the card is one that the kernel has found a second time
        assert_eq!(host.stdout(MAIN).text(), "52:54:00:00:00:07\n3\ntether\n2033\nweb\n", "{options:?}");
        host.wait_off();
        let console = host.into_machine().console();
        assert!(console.contains("Waiting for a spec") && console.contains("goes on as a clone"), "{console}");
        let frozen = vmware.lines().iter().filter(|line| line.contains("instantclone")).count();
        assert_eq!(frozen, 1);
        let last = statuses(&vmware).pop().expect("a status");
        assert_eq!(last.sessions["rig"].exit.as_ref().map(|exit| exit.ending.code()), Some(0), "{last:?}");
    }
}

#[test]
fn a_clone_that_is_told_nothing_of_its_own_runs_no_container() {
    let template = Generation::Template { number: [1; 16] };
    let clone = |number| Generation::Clone { number: [number; 16], entropy: Box::new([3; 64]), unix_ns: None };
    let with_spec = |generation: &Generation| {
        let mut keys = wire::guestinfo::write(&hello(LinkDevice::Serial));
        wire::guestinfo::write_generation(generation).iter().for_each(|(key, value)| keys.set(key, value));
        keys
    };
    for (keys, why) in [
        (with_spec(&template), "a clone is no template"),
        (with_spec(&clone(1)), "does not say which clone of it this is"),
    ] {
        let vmware = Vmware::template(&template);
        let machine = vmware.machine(Machine::new(&hello(LinkDevice::Serial), None), Medium::Initramfs);
        let mut powered = machine.power_on();
        vmware.clone(&keys, 2_000_000_000);
        powered.wait();
        let console = powered.console();
        assert!(console.contains(why), "{console}");
    }
}

#[test]
fn a_host_that_denies_is_silent_or_has_no_spec_is_named_and_the_machine_goes_off() {
    let mut denying = Vmware::with(&hello(LinkDevice::Serial));
    denying.option(&["--authenticate"]);
    let console = fails(&denying);
    assert!(console.contains("denies it: Permission denied"), "{console}");

    let mut deaf = Vmware::with(&hello(LinkDevice::Serial));
    deaf.option(&["--deaf"]);
    let console = fails(&deaf);
    assert!(console.contains("cannot reach VMware's guestinfo"), "{console}");

    let mut silent = Vmware::with(&hello(LinkDevice::Serial));
    silent.option(&["--silent"]);
    let console = fails(&silent);
    assert!(console.contains("VMX does not answer"), "{console}");

    let console = fails(&Vmware::empty());
    assert!(console.contains("no guestinfo: nothing is set for this VM"), "{console}");

    let mut wrong = Vmware::with(&hello(LinkDevice::Serial));
    wrong.option(&["--info", "guestinfo.vice./link/device=pigeon"]);
    let console = fails(&wrong);
    assert!(console.contains("pigeon"), "{console}");
    let told = statuses(&wrong);
    let [status] = told.as_slice() else { panic!("{told:?}") };
    let reason = status.failure.as_ref().map(|failure| failure.reason.as_str()).unwrap_or_default();
    assert!(status.state == MachineState::Failed && reason.contains("pigeon"), "{status:?}");
}
