//! What a host that was restarted asks a guest for: the spec, without the link's key, and what the container has changed of its image.

use std::fs;

use rig::disks::Disks;
use rig::host::{Host, Ran};
use rig::images::busybox_disk;
use rig::machine::{Machine, script};
use wire::guestinfo;
use wire::message::{Reply, Request, Work};
use wire::spec::{About, DiskId, LinkDevice, Mount, Root, Source, Spec, Top};
use wire::vmx::Dictionary;

fn serial(text: &str) -> DiskId {
    DiskId::Serial(text.into())
}

fn told(host: &mut Host) -> Dictionary {
    let reply = host.request(Request::Spec);
    let Reply::Spec(text) = reply else { panic!("{reply:?}") };
    assert!(!text.0.contains("link/key") && !text.0.contains(&"5a".repeat(32)), "the key is told: {}", text.0);
    Dictionary::parse(&text.0).unwrap()
}

fn changes(host: &mut Host) -> Vec<String> {
    let ran = host.run(Work::Changes);
    assert_eq!((ran.exit.ending.code(), ran.stderr.as_str()), (0, ""), "{ran:?}");
    let mut lines: Vec<String> = ran.stdout.split_terminator('\0').map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn a_guest_tells_its_spec_and_what_came_with_it_and_what_has_changed() {
    let mut disks = Disks::new();
    let folder = disks.folder("high");
    for dir in ["opt/whole", "opt/deep/kept"] {
        fs::create_dir_all(folder.join(dir)).unwrap();
    }
    for file in ["opt/whole/a", "opt/whole/b", "opt/changed", "opt/touched", "opt/gone", "opt/deep/kept/file"] {
        fs::write(folder.join(file), file).unwrap();
    }
    let busybox = disks.busybox();
    let low = disks.ext4("low", Some(&busybox), 16);
    let high = disks.ext4("high", Some(&folder), 16);
    disks.scsi(&low, "low", ",readonly=on");
    disks.scsi(&high, "high", ",readonly=on");
    let memory = Mount {
        name: "scratch".into(),
        source: Source::Memory { size: 0, mode: 0o1777, exec: false },
        destination: "/data/scratch".into(),
        read_only: false,
        seed: false,
    };
    let root = Root { layers: vec![serial("low"), serial("high")], top: Top::Memory(0), read_only: false };
    let spec = Spec { root, mounts: vec![memory], ..script(LinkDevice::Virtio, "exec sleep 100000") };
    let mut machine = Machine::new(&spec, None);
    machine.extra = disks.arguments();
    let about = About { name: Some("web".into()), image: Some("busybox:1".into()), ..About::default() };
    let mut keys = guestinfo::write(&spec);
    guestinfo::write_about(&about, &mut keys);
    machine.guestinfo = Some(keys.to_string());
    let mut host = Host::boot(machine, &spec);

    let keys = told(&mut host);
    assert_eq!(guestinfo::read_with_key(&keys, &spec.link.key).unwrap(), spec);
    assert_eq!(guestinfo::about(&keys), about);

    // what is mounted is not the container's; the directory that a mount needed is as docker has it
    assert_eq!(changes(&mut host), ["A/data"]);
    host.shell(
        "echo more >>/opt/changed; chmod 600 /opt/touched; rm /opt/gone; mkdir /opt/new; echo x >/opt/new/file; \
         rm -r /opt/whole; mkdir /opt/whole; echo a >/opt/whole/a; rm -r /opt/deep; echo 1 >/data/scratch/file; \
         rm /bin/vi; mv /opt/new/file /opt/new/moved",
    );
    let expected = [
        "A/data",
        "A/opt/new",
        "A/opt/new/moved",
        "C/bin",
        "C/opt",
        "C/opt/changed",
        "C/opt/touched",
        "C/opt/whole",
        "C/opt/whole/a",
        "D/bin/vi",
        "D/opt/deep",
        "D/opt/gone",
        "D/opt/whole/b",
    ];
    assert_eq!(changes(&mut host), expected);

    // another spec is what is told from then on
    let other = Spec { main: wire::spec::Process { stop_signal: 2, ..spec.main.clone() }, ..spec.clone() };
    host.order(Request::Reload { keys: guestinfo::write(&other).to_string().as_str().into() });
    let keys = told(&mut host);
    assert_eq!(guestinfo::read_with_key(&keys, &spec.link.key).unwrap(), other);
    assert_eq!(guestinfo::about(&keys), About::default());
}

#[test]
fn one_disk_cannot_be_compared_and_a_stop_takes_its_own_signal_and_time() {
    let (_dir, disk) = busybox_disk();
    let text = "trap 'exit 7' INT; trap '' TERM; echo up; while :; do sleep 0.1; done";
    let spec = script(LinkDevice::Virtio, text);
    let mut host = Host::boot(Machine::new(&spec, Some(disk)), &spec);
    let Ran { exit, stdout, stderr } = host.run(Work::Changes);
    assert_eq!((exit.ending.code(), stdout.as_str()), (1, ""));
    assert!(stderr.starts_with("the container's root is one disk"), "{stderr}");
    host.expect(wire::message::MAIN, "up\n");
    let reply = host.request(Request::Stop { signal: Some(65), grace_ms: None });
    assert!(matches!(&reply, Reply::Refused { reason } if reason.contains("65")), "{reply:?}");
    // TERM is the spec's, which it does not hear; INT is what it ends with
    host.order(Request::Stop { signal: Some(2), grace_ms: Some(u64::MAX) });
    assert_eq!(host.exit(wire::message::MAIN).ending.code(), 7);
    host.wait_off();
}
