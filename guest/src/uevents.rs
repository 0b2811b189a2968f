//! What the kernel tells about devices that come and go: which of it concerns a running machine. What is done about it is the caller's.
//!
//! Source: Linux, lib/kobject_uevent.c. A message is `ACTION@DEVPATH`, then `KEY=VALUE` texts, each ended by a zero byte.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, setsockopt, socket, sockopt,
};

/// An open subscription.
#[derive(Debug)]
pub struct Uevents(OwnedFd);

/// Something of the machine is not as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Processors have been plugged in. They do nothing until somebody takes them online.
    Processors,
    /// Memory has come or gone. The kernel takes it into use by itself.
    Memory,
    /// A disk has appeared: its name in `/dev`.
    Disk(String),
    /// A network interface has appeared.
    Interface(String),
    /// The machine is another one with the same memory: a clone, or restored from a snapshot (Linux, drivers/virt/vmgenid.c).
    Generation,
}

/// Of the kernel's own group; user space has another for its device daemon.
const KERNEL_GROUP: u32 = 1;
/// As much as the kernel composes: `UEVENT_BUFFER_SIZE`.
const LONGEST: usize = 2048;
/// A machine that grows by many gigabytes at once tells of each 128 MiB of it.
const QUEUE: usize = 256 * 1024;

impl Uevents {
    /// Subscribes. What happened before is not told.
    pub fn open() -> io::Result<Uevents> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Netlink, SockType::Datagram, flags, SockProtocol::NetlinkKObjectUEvent)?;
        setsockopt(&socket, sockopt::RcvBufForce, &QUEUE)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, KERNEL_GROUP))?;
        Ok(Uevents(socket))
    }

    /// Takes all that has been told since the last call, and says what of it matters, nothing twice.
    pub fn changes(&self) -> Vec<Change> {
        let mut changes = Vec::new();
        let mut message = [0; LONGEST];
        // an end is EAGAIN; after ENOBUFS, which says that the queue ran over, there is more
        loop {
            match recvfrom::<NetlinkAddr>(self.0.as_raw_fd(), &mut message) {
                // root of the container can send to the group as well
                Ok((length, Some(sender))) if sender.pid() == 0 => {
                    changes.extend(parse(&message[..length]).filter(|change| !changes.contains(change)));
                }
                Ok(_) | Err(nix::Error::EINTR) => {}
                Err(nix::Error::ENOBUFS) => changes.extend([Change::Processors, Change::Memory]),
                Err(_) => return changes,
            }
        }
    }
}

impl AsFd for Uevents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What a message means, if it matters here.
pub fn parse(message: &[u8]) -> Option<Change> {
    let mut texts = message.split(|&byte| byte == 0).map(std::str::from_utf8);
    let (_, path) = texts.next()?.ok()?.split_once('@')?;
    let (mut action, mut subsystem, mut generation) = ("", "", false);
    for text in texts {
        match text.ok()?.split_once('=') {
            Some(("ACTION", value)) => action = value,
            Some(("SUBSYSTEM", value)) => subsystem = value,
            Some(("NEW_VMGENID", _)) => generation = true,
            _ => {}
        }
    }
    let name = || path.rsplit('/').next().map(str::to_owned).filter(|name| !name.is_empty());
    match (action, subsystem) {
        ("change", _) if generation => Some(Change::Generation),
        ("add", "cpu") => Some(Change::Processors),
        ("online" | "offline", "memory") => Some(Change::Memory),
        ("add", "block") => name().map(Change::Disk),
        ("add", "net") => name().map(Change::Interface),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(message: &str, expected: Option<Change>) {
        assert_eq!(parse(message.replace('|', "\0").as_bytes()), expected, "{message}");
    }

    #[test]
    fn what_matters_is_told_from_what_does_not() {
        let cpu = "/devices/system/cpu/cpu1";
        check(
            &format!("add@{cpu}|ACTION=add|DEVPATH={cpu}|SUBSYSTEM=cpu|DRIVER=processor|SEQNUM=7|"),
            Some(Change::Processors),
        );
        check(&format!("online@{cpu}|ACTION=online|DEVPATH={cpu}|SUBSYSTEM=cpu|SEQNUM=8|"), None);
        check("add@/devices/system/memory/memory32|ACTION=add|SUBSYSTEM=memory|", None);
        check("online@/devices/system/memory/memory32|ACTION=online|SUBSYSTEM=memory|", Some(Change::Memory));
        check("offline@/devices/system/memory/memory32|ACTION=offline|SUBSYSTEM=memory|", Some(Change::Memory));
        let disk = "/devices/pci0000:00/0000:00:05.0/virtio3/block/vdb";
        check(&format!("add@{disk}|ACTION=add|SUBSYSTEM=block|DEVNAME=vdb|"), Some(Change::Disk("vdb".into())));
        check(&format!("remove@{disk}|ACTION=remove|SUBSYSTEM=block|DEVNAME=vdb|"), None);
        let nic = "/devices/pci0000:00/0000:00:06.0/virtio4/net/eth1";
        check(&format!("add@{nic}|ACTION=add|SUBSYSTEM=net|INTERFACE=eth1|"), Some(Change::Interface("eth1".into())));
        // queues of a NIC are told of as well
        check(&format!("add@{nic}/queues/rx-0|ACTION=add|SUBSYSTEM=queues|"), None);
        let vmgenid = "/devices/LNXSYSTM:00/LNXSYBUS:00/QEMUVGID:00";
        check(&format!("change@{vmgenid}|ACTION=change|SUBSYSTEM=acpi|NEW_VMGENID=1|"), Some(Change::Generation));
        check(&format!("change@{vmgenid}|ACTION=change|SUBSYSTEM=acpi|"), None);
    }

    #[test]
    fn anything_may_come() {
        for message in
            ["", "|", "@", "add", "add@", "add@|ACTION=add|SUBSYSTEM=net|", "|ACTION=add|SUBSYSTEM=cpu", "=@="]
        {
            check(message, None);
        }
        let whole = b"add@/devices/system/cpu/cpu1\0ACTION=add\0SUBSYSTEM=cpu\0";
        for at in 0..whole.len() {
            let _any = parse(&whole[..at]);
            let mut bent = whole.to_vec();
            bent[at] ^= 0x80;
            // no byte of it is beyond ASCII: it is another machine's, or nobody's
            assert_eq!(parse(&bent), None, "byte {at}");
        }
    }
}
