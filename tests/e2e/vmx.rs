//! What `vch vmx` writes is a machine: the hardware that its `.vmx` names runs the container, on its VMDKs, from its medium.
//!
//! QEMU has VMware's controllers and cards, and no VMware's guestinfo: the whole `.vmx` is given as fw_cfg's file, whose syntax is the same.

use std::path::{Path, PathBuf};
use std::process::Command;

use rig::artifacts::dist;
use rig::host::Host;
use rig::images::run;
use rig::machine::Machine;
use rig::serve::Serve;
use rig::vch;
use tempfile::TempDir;
use wire::message::{MAIN, Request};
use wire::spec::Spec;
use wire::vmx::Dictionary;

/// A directory that `vch vmx` has written.
struct Written {
    _parent: TempDir,
    dir: PathBuf,
    text: String,
    keys: Dictionary,
    spec: Spec,
}

fn write(options: &[&str], script: &str) -> Written {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("web");
    let output = vch::command("vmx")
        .args(["--vch", "tcp://127.0.0.1:8080", "--name", "web", "-o"])
        .args([&dir])
        .args(options)
        .args([dist("busybox.tar")])
        .args(["sh", "-c", script])
        .output();
    let id = output.success();
    let text = std::fs::read_to_string(dir.join("web.vmx")).unwrap();
    let keys = Dictionary::parse(&text).unwrap();
    let spec = wire::guestinfo::read(&keys).unwrap();
    assert_eq!(format!("{}\n", spec.id), id);
    Written { _parent: parent, dir, text, keys, spec }
}

impl Written {
    fn value(&self, key: &str) -> &str {
        self.keys.get(key).unwrap_or_else(|| panic!("no {key} in {}", self.text))
    }

    /// The machine that the `.vmx` describes, as QEMU makes it.
    fn machine(&self) -> Machine {
        let mut machine = Machine::new(&self.spec, None);
        machine.guestinfo = Some(self.text.clone());
        assert_eq!(self.value("ide1:0.deviceType"), "cdrom-image");
        machine.iso = Some(self.dir.join(self.value("ide1:0.fileName")));
        let mut words = vec!["-m".to_owned(), self.value("memSize").to_owned()];
        words.extend(["-smp".to_owned(), self.value("numvcpus").to_owned()]);
        let mut device = |kind: &str, slot: &str, first: bool| {
            // bus 5 is behind function after function of one slot of the first bus
            let slot: u32 = self.value(slot).parse().unwrap();
            let (bus, function) = (slot >> 5 & 0x1f, slot >> 10);
            let multi = if first { ",multifunction=on" } else { "" };
            let port = format!("port{bus}{function}");
            words.extend([
                "-device".into(),
                format!("pci-bridge,id={port},chassis_nr={},addr={:x}.{function}{multi}", bus + function, 0x10 + bus),
            ]);
            words.extend(["-device".into(), format!("{kind},bus={port},addr={:x}", slot & 0x1f)]);
        };
        assert_eq!(self.value("scsi0.virtualDev"), "pvscsi");
        device("pvscsi,id=scsi", "scsi0.pciSlotNumber", true);
        if let Some(mac) = self.keys.get("ethernet0.address") {
            assert_eq!(self.value("ethernet0.virtualDev"), "vmxnet3");
            device(&format!("vmxnet3,netdev=net,mac={mac}"), "ethernet0.pciSlotNumber", false);
            words.extend(["-netdev".into(), "user,id=net,ipv6=off".into()]);
        }
        for place in 0..16 {
            let Some(name) = self.keys.get(&format!("scsi0:{place}.fileName")) else { continue };
            let file = self.dir.join(name);
            words.extend(["-drive".into(), format!("if=none,id=d{place},format=vmdk,file={}", file.display())]);
            words.extend(["-device".into(), format!("scsi-hd,bus=scsi.0,scsi-id={place},drive=d{place}")]);
        }
        if let Some(log) = self.keys.get("serial2.fileName") {
            let file = self.dir.join(log);
            words.extend(["-chardev".into(), format!("file,id=log,path={}", file.display())]);
            words.extend(["-device".into(), "isa-serial,index=2,chardev=log".into()]);
        }
        machine.extra = words;
        machine
    }

    fn disks(&self) -> Vec<PathBuf> {
        let names = (0..16).filter_map(|place| self.keys.get(&format!("scsi0:{place}.fileName")));
        names.map(|name| self.dir.join(name)).collect()
    }
}

fn is_sound(disk: &Path) {
    run(Command::new("qemu-img").args(["check", "-f", "vmdk"]).arg(disk));
}

#[test]
fn the_hardware_of_the_vmx_runs_the_container() {
    let script = "echo \"out of $(cat /proc/1/comm)'s VM\"; cat /etc/hostname > /data/name; exec sleep 100000";
    let written = write(&["-m", "300m", "-v", "data:/data", "-h", "web", "-e", "NOTE=a|b \"c\""], script);
    for disk in written.disks() {
        is_sound(&disk);
    }
    let mut machine = written.machine();
    assert!(written.value("serial0.fileName").starts_with("tcp://"));
    machine.link_over_tcp = true;
    let mut host = Host::boot(machine, &written.spec);
    host.wait("the container's output", |host| host.stdout(MAIN).text().contains("tether's VM\n").then_some(()));

    // the card is the one with the address of the .vmx, in the slot of the .vmx, and packets come and go
    let mac = written.value("ethernet0.address").to_owned();
    assert_eq!(host.shell("cat /sys/class/net/eth0/address").trim(), mac);
    let place = host.shell("cd /sys/class/net/eth0/device; readlink -f driver; readlink -f .");
    assert!(place.contains("vmxnet3") && place.contains("0000:00:15.1"), "{place}");
    let links = host.shell("ip addr show dev eth0");
    assert!(links.contains("inet 10.0.2.15/24"), "by DHCP: {links}");
    host.shell("ping -c 1 -W 60 10.0.2.2 >/dev/null");

    // the disks are pvscsi's, the root and a volume that was found by its file system
    let mounts = host.shell("grep -E ' (/|/data) ext4 rw' /proc/mounts");
    assert_eq!(mounts.lines().count(), 2, "{mounts}");
    for name in ["sda", "sdb"] {
        let place = host.shell(&format!("readlink -f /sys/block/{name}"));
        assert!(place.contains("0000:00:15.0/") && mounts.contains(&format!("dev/{name} ")), "{place} {mounts}");
    }
    host.shell("ls /sys/bus/pci/drivers/vmw_pvscsi");
    assert_eq!(host.shell("cat /data/name"), "web\n");
    let memory: u64 = host.shell("awk '/MemTotal/ { print $2 }' /proc/meminfo").trim().parse().unwrap();
    assert!((200_000..300 << 10).contains(&memory), "{memory} kB");
    assert_eq!(host.shell("tr '\\0' '\\n' < /proc/$(pidof sleep)/environ | grep NOTE"), "NOTE=a|b \"c\"\n");

    host.order(Request::PowerOff);
    host.exit(MAIN);
    host.wait_off();
    for disk in written.disks() {
        is_sound(&disk);
    }
    // what was written is in the volume's file, and in the log's
    let raw = written.dir.join("data.raw");
    run(Command::new("qemu-img").args(["convert", "-O", "raw"]).arg(written.dir.join("data.vmdk")).arg(&raw));
    rig::disks::assert_clean(&raw);
    assert!(rig::disks::debugfs(&raw, "ls /.vic.vol.data").contains("name"));
    let logs = vch::command("logs").args([&written.dir]).output().success();
    assert!(logs.contains("tether's VM"), "{logs:?}");
}

/// Nobody tells serve of the VM: the key follows from the master key, in both programs.
#[test]
fn a_serve_with_the_same_master_key_knows_the_vm() {
    let serve = Serve::start();
    let key = serve.master_key().display().to_string();
    let written = write(&["--master-key", &key, "--network", "none", "--log-driver", "none"], "exec sleep 100000");
    let mut machine = written.machine();
    machine.link_connects = Some(serve.links());
    let _powered = machine.power_on();
    serve.wait_for(&written.spec.id[..12], &["running", "up"]);
    let ran = serve.command("exec", &["web", "true"]).output();
    assert_ne!(ran.code, 0, "the name is the administrator's, serve knows ids");
    let ran = serve.command("exec", &[&written.spec.id, "sh", "-c", "echo $((6 * 7)); exit 3"]).output();
    assert_eq!((ran.code, ran.text().as_str()), (3, "42\n"));
}

#[test]
fn what_cannot_be_written_is_said_and_leaves_nothing() {
    let parent = tempfile::tempdir().unwrap();
    let image = dist("busybox.tar");
    let image = image.to_str().unwrap();
    let there = parent.path().join("there");
    std::fs::create_dir(&there).unwrap();
    let vmx = |output: &Path, options: &[&str]| {
        vch::command("vmx").args(["--vch", "tcp://vch:8080", "-o"]).args([output]).args(options).output()
    };
    vmx(&there, &[image]).fails(125, &["there exists", "-o"]);
    let out = parent.path().join("out");
    vmx(&out, &["--disk", "layers", image]).fails(125, &["--disk layers", "leave it out"]);
    vmx(&out, &["no-such.tar"]).fails(125, &["no-such.tar"]);
    vmx(&out, &["--assets", "/nowhere", image]).fails(125, &["bootstrap.iso", "./dev iso"]);
    vmx(&parent.path().join("no/dir"), &[image]).fails(125, &["there is no directory"]);
    let refused = vmx(&out, &["--rm", image]);
    assert!(refused.code == 125 && refused.stderr.contains("--rm"), "{refused:?}");
    let left: Vec<_> = std::fs::read_dir(parent.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["there"]);
}

/// QEMU reads such disks, and writes only to an overlay: it judges what vSphere imports.
#[test]
fn a_stream_for_vsphere_holds_the_same_disks() {
    let options = ["-v", "data:/data", "--vmdk", "stream"];
    let written = write(&options, "echo written > /data/x; cat /data/x; exec sleep 100000");
    let mut machine = written.machine();
    for word in &mut machine.extra {
        if word.starts_with("if=none,id=d") {
            word.push_str(",snapshot=on");
        }
    }
    for disk in written.disks() {
        is_sound(&disk);
        let bytes = std::fs::read(&disk).unwrap();
        assert!(String::from_utf8_lossy(&bytes[..4096]).contains("\"streamOptimized\""), "{}", disk.display());
        assert!(bytes.len() < 2 << 20, "it is compressed: {} bytes", bytes.len());
    }
    let mut host = Host::boot(machine, &written.spec);
    host.wait("the container's output", |host| host.stdout(MAIN).text().contains("written\n").then_some(()));
}

#[test]
fn only_its_owner_reads_what_holds_secrets() {
    use std::os::unix::fs::PermissionsExt as _;
    let written = write(&["-e", "PASSWORD=x"], "true");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&written.dir), mode(&written.dir.join("web.vmx"))), (0o700, 0o600));
}
