//! Who is who: the host's own name, names that the spec gives, and those that the image brought.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use rig::artifacts;
use rig::host::Host;
use rig::images::{ImageDir, run};
use rig::machine::Machine;
use rig::wire::Wire;
use tempfile::TempDir;
use wire::spec::{ALL_CAPABILITIES, Endpoint, Names, Spec};

use crate::network::{endpoint, ip, mac, on, prefix};

/// An image with names of its own.
fn disk() -> (TempDir, PathBuf) {
    let image = ImageDir::with_busybox();
    fs::create_dir_all(image.root().join("etc")).unwrap();
    fs::write(image.root().join("etc/hosts"), "127.0.0.1 localhost builder\n10.9.9.9 db # old\n10.9.9.8 cache\n")
        .unwrap();
    fs::write(image.root().join("etc/resolv.conf"), "nameserver 192.0.2.53\n").unwrap();
    let archive = image.archive(&serde_json::json!({}));
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk.raw");
    run(Command::new(artifacts::program("iso-builder")).arg("disk").arg(archive).arg("-o").arg(&disk));
    (dir, disk)
}

#[test]
fn the_spec_comes_first_and_the_images_other_lines_stay() {
    let (_dir, disk) = disk();
    let front = Endpoint {
        addresses: vec![prefix("10.0.0.2/24"), prefix("fd00::2/64")],
        dns: vec![ip("10.0.0.53")],
        ..endpoint("front", mac(1))
    };
    let names = Names {
        hosts: vec![(ip("10.0.0.7"), "db".into())],
        search: vec!["example.org".into()],
        options: vec!["ndots:2".into(), "rotate".into()],
    };
    let mut spec = Spec { names, domain: Some("example.org".into()), ..on(vec![front]) };
    // it looks below what covers the image's files
    spec.main.rights.capabilities.bounding = ALL_CAPABILITIES;
    let wire = Wire::silent();
    let mut machine = Machine::new(&spec, Some(disk));
    machine.extra.extend(wire.card("front", "virtio-net-pci,mac=52:54:00:00:00:01"));
    let mut host = Host::boot(machine, &spec);
    assert_eq!(
        host.shell("hostname; cat /etc/hostname; cat /proc/sys/kernel/domainname"),
        "web\nweb.example.org\nexample.org\n"
    );
    let hosts = host.shell("cat /etc/hosts");
    let (local, rest) = hosts.split_at(hosts.find("10.0.0.2").unwrap());
    assert!(local.starts_with("127.0.0.1\tlocalhost\n::1\tlocalhost "), "{hosts}");
    let expected = "10.0.0.2\tweb.example.org web\n10.0.0.2\tfront.localhost\nfd00::2\tweb.example.org web\nfd00::2\tfront.localhost\n\
                    10.0.0.7\tdb\n127.0.0.1\tbuilder\n10.9.9.8\tcache\n";
    assert_eq!(rest, expected);
    let resolv = host.shell("cat /etc/resolv.conf");
    assert_eq!(resolv, "nameserver 10.0.0.53\nsearch example.org\noptions ndots:2 rotate\n");
    // the image's own lie beneath, as they were
    assert_eq!(host.shell("umount /etc/resolv.conf && cat /etc/resolv.conf"), "nameserver 192.0.2.53\n");
}

#[test]
fn without_a_network_the_images_resolvers_stay() {
    let (_dir, disk) = disk();
    let spec = on(Vec::new());
    let mut host = Host::boot(Machine::new(&spec, Some(disk)), &spec);
    assert_eq!(host.shell("cat /etc/resolv.conf"), "nameserver 192.0.2.53\n");
    let hosts = host.shell("cat /etc/hosts");
    assert!(hosts.contains("127.0.1.1\tweb\n127.0.0.1\tbuilder\n10.9.9.9\tdb\n10.9.9.8\tcache\n"), "{hosts}");
}
