//! Volumes that lie on file servers: mounted by name, and no start and no end waits for ever for one that is silent.

use std::net::TcpListener;

use rig::disks::{Disks, assert_clean};
use rig::machine::script;
use rig::nfs::FileServer;
use wire::spec::{Endpoint, LinkDevice, Mount, Names, Source, Spec};

use crate::disks::{fails, label, prints};
use crate::network::{endpoint, ip, mac, prefix};
use crate::volumes::mount;

/// QEMU's network, in which 10.0.2.2 is the loopback interface of the machine that runs the test.
fn networked(mounts: Vec<Mount>, text: &str) -> (Spec, Disks) {
    let mut disks = Disks::new();
    disks.root();
    disks.extra(&["-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,mac=52:54:00:00:00:01"]);
    let net = Endpoint {
        addresses: vec![prefix("10.0.2.15/24")],
        gateways: vec![ip("10.0.2.2")],
        default: true,
        ..endpoint("net", mac(1))
    };
    let names = Names { hosts: vec![(ip("10.0.2.2"), "files".into())], ..Names::default() };
    (Spec { networks: vec![net], names, mounts, ..script(LinkDevice::Virtio, text) }, disks)
}

fn files(host: &str, options: &str, destination: &str) -> Mount {
    let source = Source::Nfs { host: host.into(), path: "/files".into(), options: options.into() };
    Mount { seed: false, ..mount("files", source, destination) }
}

#[test]
fn a_directory_of_a_file_server_is_mounted_by_name() {
    let Some(server) = FileServer::start() else {
        return crate::skip("a_directory_of_a_file_server_is_mounted_by_name", "nfs-ganesha is not installed");
    };
    let options = format!("port={},noatime,addr=192.0.2.1", server.port);
    let volume = files("files", &options, "/srv/files");
    let look = "grep -o 'files:/files /srv/files nfs4 rw,noatime,vers=4[.0-9]*' /proc/mounts";
    let write = format!("{look}; echo kept > /srv/files/note; mkdir /srv/files/below");
    let (spec, mut disks) = networked(vec![volume.clone()], &write);
    assert_eq!(prints(&spec, &disks), "files:/files /srv/files nfs4 rw,noatime,vers=4.2\n");
    // a disk in it, whatever the order of the spec, and nothing is written to it where the spec says so
    let disk = disks.ext4("data", None, 8);
    disks.scsi(&disk, "data", "");
    let below = mount("below", Source::Disk(label("data")), "/srv/files/below");
    let read_only = Mount { read_only: true, ..volume };
    // the server forgets what is in a file, not how long it is
    let read =
        "stat -c %s /srv/files/note; (echo x > /srv/files/x) 2>&1 | grep -o Read-only; echo x > /srv/files/below/x";
    let (spec, _) = networked(vec![below, read_only], read);
    assert_eq!(prints(&spec, &disks), "5\nRead-only\n");
    assert_clean(&disk);
}

#[test]
fn a_directory_of_a_file_server_is_filled_once() {
    let Some(server) = FileServer::start() else {
        return crate::skip("a_directory_of_a_file_server_is_filled_once", "nfs-ganesha is not installed");
    };
    let volume = Mount { seed: true, ..files("files", &format!("port={}", server.port), "/etc/init") };
    let (spec, _) = networked(vec![volume], "ls -A /etc/init; rm /etc/init/a; echo own > /etc/init/c");
    let image = |disks: &mut Disks| {
        let folder = disks.busybox().join("etc/init");
        std::fs::create_dir_all(&folder).unwrap();
        ["a", "b"].iter().for_each(|name| std::fs::write(folder.join(name), "x").unwrap());
    };
    let mut disks = Disks::new();
    image(&mut disks);
    disks.root();
    disks.extra(&["-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,mac=52:54:00:00:00:01"]);
    assert_eq!(prints(&spec, &disks), "a\nb\n");
    assert_eq!(prints(&spec, &disks), "b\nc\n");
}

#[test]
fn a_file_server_that_is_silent_is_named_in_time() {
    // it takes connections, and says nothing
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let options = format!("port={}", silent.local_addr().unwrap().port());
    let (spec, disks) = networked(vec![files("10.0.2.2", &options, "/files")], "true");
    let reason = "cannot mount files, 10.0.2.2:/files: the file server does not answer within 20 s";
    assert_eq!(fails(&spec, &disks), reason);
    assert_clean(&disks.path("containerfs.ext4"));
}

#[test]
fn a_file_server_without_an_address_is_named() {
    let (spec, disks) = networked(vec![files("no.such.server.invalid", "", "/files")], "true");
    let reason = fails(&spec, &disks);
    assert!(reason.starts_with("cannot mount files, no.such.server.invalid:/files: "), "{reason}");
}

#[test]
fn an_option_that_nobody_knows_is_named() {
    let (spec, disks) = networked(vec![files("files", "vers=4.2,flavour=sour", "/files")], "true");
    let reason = fails(&spec, &disks);
    let expected = "cannot mount files, files:/files: the option \"flavour=sour\": Invalid argument (os error 22)";
    assert!(reason.starts_with(expected), "{reason}");
}

#[test]
fn a_file_server_that_falls_silent_does_not_keep_the_machine_on() {
    let Some(server) = FileServer::start() else {
        let name = "a_file_server_that_falls_silent_does_not_keep_the_machine_on";
        return crate::skip(name, "nfs-ganesha is not installed");
    };
    let volume = files("files", &format!("port={}", server.port), "/files");
    let (spec, disks) = networked(vec![volume], "echo up; read go; echo unwritten > /files/note; exit 0");
    let spec = Spec { main: wire::spec::Process { stdin: true, ..spec.main }, ..spec };
    let mut machine = rig::machine::Machine::new(&spec, None);
    machine.extra = disks.arguments();
    let mut host = rig::host::Host::boot(machine, &spec);
    host.expect(wire::message::MAIN, "up\n");
    server.freeze();
    host.feed(wire::message::MAIN, b"go\n");
    // the process itself may hang on its server: the host stops it, as people do
    host.order(wire::message::Request::PowerOff);
    host.wait_off();
    assert_clean(&disks.path("containerfs.ext4"));
}
