//! The whole text of one machine, and what is different in others.

use super::*;

fn guestinfo() -> Dictionary {
    let mut keys = Dictionary::default();
    keys.set("guestinfo.vice./common/id", "3f0c");
    keys.set("guestinfo.vice./sessions|3f0c/cmd/Args~", "sh|-c|echo \"a\" = b");
    keys
}

fn text(change: impl FnOnce(&mut Machine<'_>)) -> Result<String> {
    let link = LinkUri::Direct("tcp://192.0.2.10:8080".into());
    let mut machine = Machine {
        name: "web",
        note: "containerVM of docker-archive:web.tar\nteam=a|b \"c\"".into(),
        hardware: 13,
        memory_mib: 510,
        cpus: 2,
        medium: "bootstrap.iso",
        disks: &["root.vmdk".into(), "data.vmdk".into()],
        link: &link,
        logs: true,
        card: Some(Card { port_group: "VM Network", mac: [0x00, 0x50, 0x56, 0x3f, 0x12, 0x34] }),
        guarded: true,
        guestinfo: guestinfo(),
    };
    change(&mut machine);
    machine.text()
}

#[test]
fn the_text_is_pinned() {
    assert_eq!(text(|_| ()).unwrap(), include_str!("golden.vmx"));
}

#[test]
fn what_is_written_is_read() {
    let text = text(|_| ()).unwrap();
    let read = Dictionary::parse(&text).unwrap();
    for (key, value) in guestinfo().iter() {
        assert_eq!(read.get(key), Some(value));
    }
    assert_eq!(read.get("annotation"), Some("containerVM of docker-archive:web.tar\nteam=a|b \"c\""));
    let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    assert_eq!(lines.len(), read.iter().count(), "no key is written twice");
}

/// vSphere's number of a slot, as tether reads it (`guest::net::card`).
#[test]
fn no_two_devices_are_in_one_slot() {
    let text = text(|_| ()).unwrap();
    let read = Dictionary::parse(&text).unwrap();
    let slots = read.iter().filter(|(key, _)| key.ends_with(".pcislotnumber"));
    let places: Vec<(u32, u32, u32)> = slots
        .map(|(_, slot)| slot.parse::<u32>().unwrap())
        .map(|slot| (slot >> 5 & 0x1f, slot & 0x1f, slot >> 10))
        .collect();
    let bridges: Vec<u32> = places.iter().filter(|(bus, _, _)| *bus == 0).map(|(_, device, _)| *device).collect();
    for (at, (bus, device, function)) in places.iter().enumerate() {
        assert!(!places[..at].contains(&(*bus, *device, *function)), "{places:?}");
        // bus N is behind the bridge in slot 0x11 + N - 1
        assert!([0, 1].contains(bus) || bridges.contains(&(0x10 + bus)), "{places:?}: no bridge leads to bus {bus}");
    }
}

#[test]
fn a_concentrator_is_between() {
    let link = LinkUri::Concentrator("telnet://192.0.2.10:2377".into());
    let link: &'static LinkUri = Box::leak(Box::new(link));
    let text = text(|machine| machine.link = link).unwrap();
    assert!(text.contains("serial0.vspc = \"telnet://192.0.2.10:2377\"\n"), "{text}");
    assert!(text.contains("serial0.fileName = \"tether\"\n"), "{text}");
}

#[test]
fn what_is_not_asked_for_is_not_there() {
    let text = text(|machine| {
        machine.card = None;
        machine.logs = false;
        machine.guarded = false;
    })
    .unwrap();
    for absent in ["ethernet0", "serial2", "output.log", "guest_rpc"] {
        assert!(!text.contains(absent), "{absent} is in {text}");
    }
}

#[test]
fn a_card_with_a_foreign_address_is_not_checked() {
    for (mac, is_checked) in [
        ([0x00, 0x50, 0x56, 0x3f, 0xff, 0xff], true),
        ([0x00, 0x50, 0x56, 0x40, 0, 0], false),
        ([2, 0, 0, 0, 0, 1], false),
    ] {
        let text = text(|machine| machine.card = Some(Card { port_group: "a", mac })).unwrap();
        assert_eq!(!text.contains("ethernet0.checkMACAddress = \"FALSE\""), is_checked, "{mac:x?}");
    }
}

#[test]
fn disks_leave_the_controllers_place_free() {
    let disks: Vec<String> = (0..15).map(|n| format!("disk{n}.vmdk")).collect();
    let disks: &'static [String] = disks.leak();
    let text = text(|machine| machine.disks = disks).unwrap();
    assert!(text.contains("scsi0:6.fileName = \"disk6.vmdk\"") && text.contains("scsi0:8.fileName = \"disk7.vmdk\""));
    assert!(!text.contains("scsi0:7.") && text.contains("scsi0:15.fileName = \"disk14.vmdk\""));
}

#[test]
fn more_than_esxi_keeps_is_refused_by_name() {
    let error = text(|machine| machine.guestinfo.set("guestinfo.vice./big", "x".repeat(1 << 20))).unwrap_err();
    assert!(error.to_string().ends_with("guestinfo.vice./big alone has 1048576"), "{error}");
}
