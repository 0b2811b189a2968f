//! The command line of a machine, as QEMU would see it.

use wire::spec::Protocol;

use super::*;
use crate::vm::{Begins, Card, Vsock};

pub(crate) fn machine() -> Machine {
    Machine {
        boot: Boot::Kernel { kernel: "/k".into(), initramfs: "/i".into() },
        firmware: Some("/q.rom".into()),
        accel: Accel::Tcg,
        memory_mib: 512,
        cpus: 2,
        link: LinkDevice::Virtio,
        link_end: LinkEnd::Own("/s/link".into()),
        vsock: None,
        console: "/c/console.log".into(),
        log: None,
        guestinfo: "/c/guestinfo".into(),
        root: Some(root(true)),
        disks: Vec::new(),
        cards: Vec::new(),
        orders: None,
        begins: Begins::Boot,
    }
}

fn root(transient: bool) -> Disk {
    Disk { file: "/c/disk.qcow2".into(), format: Format::Qcow2, serial: None, read_only: false, transient }
}

fn line(machine: &Machine) -> String {
    let words: Vec<_> = arguments(machine).into_iter().map(|word| word.into_string().unwrap()).collect();
    words.join(" ")
}

fn check(machine: &Machine, holds: &[&str], lacks: &[&str]) {
    let line = line(machine);
    for part in holds {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    for part in lacks {
        assert!(!line.contains(part), "{part} is in {line}");
    }
}

#[test]
fn a_machine_by_direct_boot() {
    check(
        &machine(),
        &[
            "-accel tcg -cpu max,-erms,-fsrm",
            "-m 512 -smp 2",
            "-machine q35,sata=off,smbus=off,hpet=off -bios /q.rom",
            "-kernel /k -initrd /i -append console=ttyS1 ",
            "-fw_cfg name=opt/guestinfo,file=/c/guestinfo",
            "-chardev socket,id=link,path=/s/link",
            "-device virtserialport,chardev=link,name=tether.link",
            "-chardev file,id=console,path=/c/console.log -device isa-serial,index=1,chardev=console",
            "if=none,id=root,format=qcow2,cache=unsafe",
            "werror=report",
            "-device virtio-blk-pci,drive=root -device virtio-balloon-pci,free-page-reporting=on",
        ],
        &["index=0", "cdrom", "scsi", "netdev"],
    );
}

#[test]
fn a_machine_whose_link_leads_elsewhere() {
    let elsewhere = |address: &str| Machine {
        link: LinkDevice::Serial,
        link_end: LinkEnd::Elsewhere(address.parse().unwrap()),
        orders: Some("/s/orders".into()),
        ..machine()
    };
    let orders = "-chardev socket,id=orders,server=on,wait=off,path=/s/orders -qmp chardev:orders";
    let port = "-device isa-serial,index=0,chardev=link";
    for (address, expected) in [
        ("tcp://192.0.2.1:8080", "-chardev socket,id=link,reconnect=1,port=8080,host=192.0.2.1 "),
        ("tcp://[2001:db8::1]:80", "-chardev socket,id=link,reconnect=1,port=80,host=2001:db8::1 "),
        ("unix:///run/a,b", "-chardev socket,id=link,reconnect=1,path=/run/a,,b "),
    ] {
        check(&elsewhere(address), &[expected, orders, port], &["-no-reboot"]);
    }
    check(&machine(), &["-no-reboot"], &["orders"]);
}

#[test]
fn a_machine_as_esxi_has_it() {
    let boot = Boot::Iso("/b.iso".into());
    let machine = Machine { boot, link: LinkDevice::Serial, accel: Accel::Kvm, root: Some(root(false)), ..machine() };
    check(
        &machine,
        &[
            "-accel kvm -cpu host",
            "-machine q35 -boot d",
            "if=ide,media=cdrom,readonly=on,format=raw,file=/b.iso",
            "-device isa-serial,index=0,chardev=link",
            "cache=writeback",
        ],
        &["-kernel", "virtserialport", "-append", "-bios"],
    );
}

#[test]
fn a_machine_with_a_log() {
    let machine = Machine { link: LinkDevice::Serial, log: Some("/c/output.log".into()), ..machine() };
    check(
        &machine,
        &["-device virtio-serial-pci", "path=/c/output.log -device virtserialport,chardev=log,name=tether.log"],
        &["tether.link"],
    );
}

#[test]
fn a_machine_whose_link_is_a_vsock() {
    let machine = Machine { link: LinkDevice::Vsock, vsock: Some(Vsock::Kernel { cid: 77 }), ..machine() };
    check(&machine, &["-device vhost-vsock-pci,guest-cid=77"], &["id=link", "virtserialport", "memory-backend"]);
    let program = Vsock::Program { program: "/bin/v".into(), socket: "/s/vhost".into() };
    let machine = Machine { vsock: Some(program), ..machine };
    check(
        &machine,
        &[
            "-object memory-backend-memfd,id=mem,share=on,size=512M -machine memory-backend=mem",
            "-chardev socket,id=vsock,path=/s/vhost -device vhost-user-vsock-pci,chardev=vsock",
        ],
        &["id=link", "virtserialport"],
    );
}

#[test]
fn many_disks_have_one_controller() {
    let disk = |serial: &str, read_only| Disk {
        file: format!("/d/{serial}").into(),
        format: Format::Raw,
        serial: Some(serial.into()),
        read_only,
        transient: false,
    };
    let machine = Machine { root: None, disks: vec![disk("aa", true), disk("bb", false)], ..machine() };
    check(
        &machine,
        &[
            "-device virtio-scsi-pci,id=scsi",
            "-drive if=none,id=disk0,format=raw,cache=writeback,readonly=on,rerror=report,file=/d/aa",
            "-device scsi-hd,bus=scsi.0,scsi-id=0,lun=0,drive=disk0,serial=aa",
            "-drive if=none,id=disk1,format=raw,cache=writeback,discard=unmap,detect-zeroes=unmap,werror=report",
            "-device scsi-hd,bus=scsi.0,scsi-id=0,lun=1,drive=disk1,serial=bb",
        ],
        &["virtio-blk"],
    );
    assert_eq!(line(&machine).matches("virtio-scsi-pci").count(), 1);
}

#[test]
fn a_card_and_what_leads_to_it() {
    let forward = |protocol, host, guest| Forward { protocol, address: [127, 0, 0, 1].into(), host, guest };
    let forwards = vec![forward(Protocol::Tcp, 8080, 80), forward(Protocol::Udp, 53, 53)];
    let machine =
        Machine { cards: vec![Card { mac: [2, 0, 0xab, 0, 0, 1], end: CardEnd::User(forwards) }], ..machine() };
    check(
        &machine,
        &[
            "-netdev user,id=card-0200ab000001,ipv6=off,hostfwd=tcp:127.0.0.1:8080-:80,hostfwd=udp:127.0.0.1:53-:53",
            "-device virtio-net-pci,netdev=card-0200ab000001,id=card-0200ab000001,mac=02:00:ab:00:00:01,romfile= ",
        ],
        &[],
    );
}

#[test]
fn a_comma_in_a_path_is_no_suboption() {
    let machine = Machine { guestinfo: "/a,b".into(), ..machine() };
    check(&machine, &["file=/a,,b"], &[]);
}

#[test]
fn a_program_is_found() {
    assert!(in_path(OsStr::new("sh")).is_some());
    assert!(in_path(OsStr::new("/bin/sh")).is_some());
    assert!(in_path(OsStr::new("no-such-program")).is_none());
    assert!(in_path(OsStr::new("/bin/no-such-program")).is_none());
}
