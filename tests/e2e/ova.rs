//! What `vch ova` writes can be taken apart by others' tools, and what is in it boots on the hardware that it names.

use std::fs;
use std::path::Path;
use std::process::Command;

use rig::artifacts::dist;
use rig::images::run;
use rig::machine::{Machine, script};
use rig::vch;
use wire::spec::LinkDevice;

fn write(path: &Path, epoch: &str) -> Vec<u8> {
    let options = ["--name", "host1", "--data-disk", "1g", "--guestinfo", "guestinfo.note=a & b"];
    vch::command("ova").args(["-o"]).args([path]).args(options).env("SOURCE_DATE_EPOCH", epoch).output().success();
    fs::read(path).unwrap()
}

#[test]
fn the_package_is_whole_and_its_medium_boots() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let bytes = write(&at("a.ova"), "1700000000");
    assert!(bytes == write(&at("b.ova"), "1700000000"), "the same input, other bytes");
    let listed = run(Command::new("tar").arg("-tf").arg(at("a.ova")));
    assert_eq!(listed, "host1.ovf\nhost1.mf\nhost1.iso\n");
    run(Command::new("tar").arg("-C").arg(dir.path()).arg("-xf").arg(at("a.ova")));
    let manifest = fs::read_to_string(at("host1.mf")).unwrap();
    for name in ["host1.ovf", "host1.iso"] {
        let line = format!("SHA256({name})= {}\n", rig::images::sha256(&at(name)));
        assert!(manifest.contains(&line), "{line} is not in {manifest}");
    }
    let ovf = fs::read_to_string(at("host1.ovf")).unwrap();
    for part in ["vmx-13", "VmxNet3", "VirtualSCSI", "vmware.cdrom.iso", "vmw:value=\"a &amp; b\""] {
        assert!(ovf.contains(part), "{part} is not in {ovf}");
    }

    // the empty disk is what a host makes of it
    run(Command::new("qemu-img").args(["create", "-q", "-f", "vmdk"]).arg(at("data.vmdk")).arg("1G"));
    let mut machine = Machine::new(&script(LinkDevice::Serial, ""), None);
    machine.guestinfo = None;
    machine.iso = Some(at("host1.iso"));
    machine.extra = ["-netdev", "user,id=net", "-device", "vmxnet3,netdev=net"].map(String::from).to_vec();
    machine.extra.extend(["-drive".into(), format!("if=none,id=d,format=vmdk,file={}", at("data.vmdk").display())]);
    machine.extra.extend(["-device", "pvscsi,id=scsi", "-device", "scsi-hd,bus=scsi.0,drive=d"].map(String::from));
    let mut powered = machine.power_on();
    powered.wait_for_console("appliance-init: info life: up,");
    powered.press_power_button();
    powered.wait();
}

#[test]
fn what_is_no_package_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let ova = |args: &[&str]| vch::command("ova").args(args).output();
    let refused = ova(&["--guestinfo", "note=a", "-o", "a.ova"]);
    assert!(refused.code == 125 && refused.stderr.contains("guestinfo.KEY=VALUE"), "{refused:?}");
    let place = dir.path().join("no/a.ova");
    ova(&["-o", place.to_str().unwrap()]).fails(125, &["cannot write"]);
    ova(&["--assets", "/nowhere"]).fails(125, &["appliance.iso", "./dev iso"]);
    assert!(dist("appliance.iso").exists());
}
