//! A network card by what its spec says of it: its hardware address, or vSphere's number of its PCI slot.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::time::Duration;

use wire::spec::Nic;

use super::netlink::NetlinkError;
use super::stack::{Link, Stack, Watch};
use crate::clock;

/// Why there is no such card.
#[derive(Debug, thiserror::Error)]
pub enum CardError {
    #[error(
        "no network card {} after {} s; the machine has {}",
        name(.nic),
        .waited.as_secs(),
        if .seen.is_empty() { "none".into() } else { .seen.join(", ") }
    )]
    Missing { nic: Nic, waited: Duration, seen: Vec<String> },
    #[error("cannot list network cards: {0}")]
    List(#[from] NetlinkError),
    #[error("cannot watch for network cards: {0}")]
    Watch(#[from] nix::Error),
}

/// The interface of a card. Waits for it to appear, until `deadline` at most, of a wait that lasts `bound` in all.
pub fn wait_for(stack: &mut Stack, nic: Nic, deadline: Duration, bound: Duration) -> Result<Link, CardError> {
    if let Some(link) = find(stack, nic)? {
        return Ok(link);
    }
    // a card that comes between the look and the subscription is found by the second look
    let watch = Watch::open()?;
    loop {
        if let Some(link) = find(stack, nic)? {
            return Ok(link);
        }
        let left = deadline.saturating_sub(clock::now());
        if left.is_zero() {
            return Err(CardError::Missing { nic, waited: bound, seen: seen(stack)? });
        }
        watch.wait(left);
    }
}

/// The interface of a card, if it is there now.
pub fn find(stack: &mut Stack, nic: Nic) -> Result<Option<Link>, NetlinkError> {
    let mut links = stack.links()?;
    let wanted = |link: &Link| match nic {
        Nic::Mac(mac) => link.mac == mac,
        Nic::Slot(slot) => path(&link.name).is_some_and(|path| is_in_slot(&path, slot)),
    };
    Ok(links.iter().position(wanted).map(|at| links.swap_remove(at)))
}

/// Gives cards the hardware addresses that they are to have. One that is not there is no failure: it is missed by whoever looks for it.
pub fn adopt(stack: &mut Stack, addresses: &[([u8; 6], [u8; 6])]) -> Result<(), NetlinkError> {
    let links = stack.links()?;
    for (from, to) in addresses {
        if let Some(link) = links.iter().find(|link| link.mac == *from) {
            stack.set_mac(link.index, *to)?;
        }
    }
    Ok(())
}

/// Takes each card from its driver, and gives it back: a driver asks a card for its hardware address only then, and a clone of VMware's has cards with addresses of
/// its own, of which the kernel that it has from its template knows nothing. They are down afterwards, and may be called otherwise.
pub fn renew(stack: &mut Stack) -> io::Result<()> {
    stack.links()?.iter().try_for_each(|link| renew_at(&format!("/sys/class/net/{}/device", link.name)))
}

/// Documentation/ABI/testing/sysfs-bus-pci, `bind` and `unbind`: the device's own name is written. What has no driver has nothing to renew.
fn renew_at(device: &str) -> io::Result<()> {
    let open = |file| File::options().write(true).open(format!("{device}/driver/{file}"));
    // both while the way there leads to the driver
    let (Ok(mut unbind), Ok(mut bind), Ok(target)) = (open("unbind"), open("bind"), fs::read_link(device)) else {
        return Ok(());
    };
    let name = target.file_name().unwrap_or_default().as_bytes();
    unbind.write_all(name)?;
    bind.write_all(name)
}

/// The first card of the machine, by the kernel's count, for who was told of none. Waits for one to appear, until `deadline` at most.
pub fn first(stack: &mut Stack, deadline: Duration) -> Result<Option<Link>, CardError> {
    let look = |stack: &mut Stack| -> Result<Option<Link>, NetlinkError> {
        let cards = stack
            .links()?
            .into_iter()
            .filter(|link| link.mac != [0; 6] && path(&link.name).is_some_and(|path| !functions(&path).is_empty()));
        Ok(cards.min_by_key(|link| link.index))
    };
    let watch = Watch::open()?;
    loop {
        let found = look(stack)?;
        let left = deadline.saturating_sub(clock::now());
        if found.is_some() || left.is_zero() {
            return Ok(found);
        }
        watch.wait(left);
    }
}

/// What a card is called where it is missed.
fn name(nic: &Nic) -> String {
    match nic {
        Nic::Mac(mac) => format!("with the hardware address {}", text(*mac)),
        Nic::Slot(slot) => {
            let (bus, device, function) = parts(*slot);
            format!("in slot {slot} (bus {bus}, device {device}, function {function})")
        }
    }
}

/// `52:54:00:12:34:56`.
pub fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

fn seen(stack: &mut Stack) -> Result<Vec<String>, NetlinkError> {
    let cards = stack.links()?.into_iter().filter(|link| link.mac != [0; 6]);
    let place = |name: &str| {
        let path = path(name)?;
        functions(&path).last().map(|function| format!(" at {function}"))
    };
    Ok(cards
        .map(|link| format!("{} ({}{})", link.name, text(link.mac), place(&link.name).unwrap_or_default()))
        .collect())
}

/// Where an interface is in the tree of devices: `../../devices/pci0000:00/0000:00:05.0/virtio0/net/eth0`.
fn path(name: &str) -> Option<String> {
    let target = fs::read_link(format!("/sys/class/net/{name}")).ok()?;
    String::from_utf8(target.as_os_str().as_bytes().to_vec()).ok()
}

/// Device in bits 0-4, bus in bits 5-9, function in bits 10-12: bus, device, function.
fn parts(slot: u32) -> (u32, u32, u32) {
    ((slot >> 5) & 0x1f, slot & 0x1f, (slot >> 10) & 7)
}

/// The PCI functions on the way to an interface.
fn functions(path: &str) -> Vec<&str> {
    path.split('/')
        .filter(|part| part.len() == 12 && part.starts_with("0000:") && part.as_bytes()[10] == b'.')
        .collect()
}

/// On the first bus by its own number. On another by its bridge, which sits in slot 16 + bus of the first with the slot's function, and by its device: the
/// number of the bus behind it is whatever the firmware chose.
fn is_in_slot(path: &str, slot: u32) -> bool {
    let (bus, device, function) = parts(slot);
    match (&functions(path)[..], bus) {
        ([own], 0) => *own == format!("0000:00:{device:02x}.{function}"),
        ([bridge, own], 1..) => {
            *bridge == format!("0000:00:{:02x}.{function}", 0x10 + bus) && own.ends_with(&format!(":{device:02x}.0"))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_as_vsphere_counts_them() {
        let virtio = "../../devices/pci0000:00/0000:00:05.0/virtio0/net/eth0";
        let behind = "../../devices/pci0000:00/0000:00:15.1/0000:13:00.0/net/eth1";
        let deep = "../../devices/pci0000:00/0000:00:15.1/0000:05:00.0/0000:06:00.0/net/eth1";
        let check = |path: &str, slots: &[u32]| {
            let found: Vec<u32> = (0..1 << 13).filter(|&slot| is_in_slot(path, slot)).collect();
            assert_eq!(found, slots, "{path}");
        };
        check(virtio, &[5]);
        // 1184 is 0x4a0: device 0, bus 5, function 1
        check(behind, &[1184]);
        check(deep, &[]);
        check("../../devices/virtual/net/lo", &[]);
        check("../../devices/pci0000:00/0000:00:03.0/net/eth0", &[3]);
        check("../../devices/pci0000:00/0000:00:11.0/0000:02:04.0/net/eth0", &[(1 << 5) | 4]);
    }

    #[test]
    fn the_device_of_an_interface_is_taken_from_its_driver_and_given_back() {
        let sys = std::env::temp_dir().join(format!("guest-card-{}", std::process::id()));
        let path = |path: &str| sys.join(path);
        for folder in ["net/eth0", "devices/0000:0b:00.0", "drivers/vmxnet3"] {
            fs::create_dir_all(path(folder)).unwrap();
        }
        let link = |to: &str, from: &str| std::os::unix::fs::symlink(path(to), path(from)).unwrap();
        link("devices/0000:0b:00.0", "net/eth0/device");
        link("drivers/vmxnet3", "devices/0000:0b:00.0/driver");
        let files = ["unbind", "bind"].map(|file| path("drivers/vmxnet3").join(file));
        files.iter().for_each(|file| fs::write(file, "").unwrap());
        for device in ["net/eth0/device", "net/lo/device"] {
            renew_at(path(device).to_str().unwrap()).unwrap();
        }
        assert_eq!(files.map(|file| fs::read_to_string(file).unwrap()), ["0000:0b:00.0"; 2]);
        fs::remove_dir_all(&sys).unwrap();
    }

    #[test]
    fn a_missing_card_is_named_with_those_that_are_there() {
        let waited = Duration::from_secs(5);
        let error = CardError::Missing { nic: Nic::Slot(1184), waited, seen: Vec::new() };
        assert_eq!(
            error.to_string(),
            "no network card in slot 1184 (bus 5, device 0, function 1) after 5 s; the machine has none"
        );
        let seen = vec!["eth0 (52:54:00:12:34:56 at 0000:00:05.0)".into()];
        let error = CardError::Missing { nic: Nic::Mac([0x52, 0x54, 0, 0, 0, 1]), waited, seen };
        assert_eq!(
            error.to_string(),
            "no network card with the hardware address 52:54:00:00:00:01 after 5 s; the machine has eth0 (52:54:00:12:34:56 at 0000:00:05.0)"
        );
    }
}
