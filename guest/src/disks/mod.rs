//! Disks by what they say of themselves: every block device is asked, in whatever order they appear, until all that are wanted have answered or time is up.
//!
//! What one says is read in `known`. Paths are relative: the current directory is the machine's own root, which a container does not see.

mod known;

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket};
use wire::spec::DiskId;

pub use known::{Disk, FsKind};

use crate::clock;

/// Why there is no such disk.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    #[error(
        "no disk has the {id} after {} s; the machine has {}",
        .waited.as_secs(),
        if .seen.is_empty() { "no disk at all".into() } else { .seen.join(", ") }
    )]
    Missing { id: DiskId, waited: Duration, seen: Vec<String> },
    #[error("{} have the {id}: which of them is meant? Give each its own, or name it by something else", .names.join(" and "))]
    Ambiguous { id: DiskId, names: Vec<String> },
    #[error("{name}, the disk with the {id}, holds neither an ext4 nor an EROFS file system")]
    Blank { id: DiskId, name: String },
    #[error("cannot watch for disks")]
    Watch(#[source] io::Error),
}

/// The disks with those ids, in that order. Waits for those that are still to appear, `bound` at most for all of them.
pub fn find(ids: &[DiskId], bound: Duration) -> Result<Vec<Disk>, DiskError> {
    if let Ok(found) = choose(ids, &all(), Duration::ZERO)? {
        return Ok(found);
    }
    // a disk that comes between the look and the subscription is found by the second look
    let deadline = clock::now() + bound;
    let uevents = subscribe().map_err(|errno| DiskError::Watch(errno.into()))?;
    loop {
        let missing = match choose(ids, &all(), bound)? {
            Ok(found) => return Ok(found),
            Err(missing) => missing,
        };
        let left = deadline.saturating_sub(clock::now());
        if left.is_zero() {
            return Err(missing);
        }
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let _woken = poll(&mut [PollFd::new(uevents.as_fd(), PollFlags::POLLIN)], timeout);
        let mut event = [0; 4096];
        while recv(uevents.as_raw_fd(), &mut event, MsgFlags::MSG_DONTWAIT).is_ok() {}
    }
}

/// Has the kernel ask the controllers for disks that have come without a word. Those that it finds appear later on, as others do.
pub fn rescan() {
    for controller in fs::read_dir("sys/class/scsi_host").into_iter().flatten().flatten() {
        // channel, target, and every unit: all disks of ours are units of the first target. One that is told of nothing is missed later on
        let _asked = fs::write(controller.path().join("scan"), "0 0 -");
    }
}

/// Every id's disk; or, within, the first that is missing, which may still come.
fn choose(ids: &[DiskId], disks: &[Disk], waited: Duration) -> Result<Result<Vec<Disk>, DiskError>, DiskError> {
    let mut chosen = Vec::new();
    for id in ids {
        let named: Vec<&Disk> = disks.iter().filter(|disk| disk.is(id)).collect();
        match *named.as_slice() {
            [] => {
                let seen = disks.iter().map(Disk::described).collect();
                return Ok(Err(DiskError::Missing { id: id.clone(), waited, seen }));
            }
            [disk] if disk.kind.is_none() => {
                return Err(DiskError::Blank { id: id.clone(), name: disk.name.clone() });
            }
            [disk] => chosen.push(disk.clone()),
            _ => {
                let names = named.iter().map(|disk| disk.name.clone()).collect();
                return Err(DiskError::Ambiguous { id: id.clone(), names });
            }
        }
    }
    Ok(Ok(chosen))
}

/// The kernel's announcements of devices: Linux, `kobject_uevent(9)`, multicast group 1.
fn subscribe() -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Netlink, SockType::Datagram, flags, SockProtocol::NetlinkKObjectUEvent)?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 1))?;
    Ok(socket)
}

/// Every disk and partition of the machine, by name.
fn all() -> Vec<Disk> {
    let entries = fs::read_dir("sys/class/block").into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut disks: Vec<Disk> = Vec::new();
    for name in names.filter(|name| !name.starts_with("loop")) {
        let Some(disk) = known::look(name) else { continue };
        // a sort of the library's is 7 KiB of code
        let at = disks.partition_point(|other| other.name < disk.name);
        disks.insert(at, disk);
    }
    disks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(name: &str, kind: Option<FsKind>, label: &str, serial: Option<&str>) -> Disk {
        Disk { name: name.into(), kind, label: label.into(), uuid: String::new(), serial: serial.map(str::to_owned) }
    }

    fn said(ids: &[DiskId], disks: &[Disk]) -> String {
        match choose(ids, disks, Duration::from_secs(5)) {
            Ok(Ok(found)) => found.iter().map(|disk| disk.name.as_str()).collect::<Vec<_>>().join(" "),
            Ok(Err(error)) | Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_disk_is_one_or_the_reason_is_told() {
        let disks = [
            disk("sda", Some(FsKind::Ext4), "data", Some("S1")),
            disk("sdb", Some(FsKind::Erofs), "two", None),
            disk("sdc", Some(FsKind::Ext4), "two", None),
            disk("sdd", None, "", Some("S4")),
        ];
        let label = |text: &str| DiskId::Label(text.into());
        let serial = |text: &str| DiskId::Serial(text.into());
        assert_eq!(said(&[serial("S1"), label("data")], &disks), "sda sda");
        assert_eq!(
            said(&[label("data"), label("top")], &disks),
            "no disk has the label \"top\" after 5 s; the machine has sda (ext4, label \"data\", serial \"S1\"), \
             sdb (EROFS, label \"two\"), sdc (ext4, label \"two\"), sdd (no file system, serial \"S4\")"
        );
        assert_eq!(
            said(&[label("two")], &disks),
            "sdb and sdc have the label \"two\": which of them is meant? Give each its own, or name it by something else"
        );
        assert_eq!(
            said(&[serial("S4")], &disks),
            "sdd, the disk with the serial \"S4\", holds neither an ext4 nor an EROFS file system"
        );
        assert_eq!(said(&[label("x")], &[]), "no disk has the label \"x\" after 5 s; the machine has no disk at all");
        // an empty label is no label
        assert!(said(&[label("")], &[disk("sda", Some(FsKind::Ext4), "", None)]).starts_with("no disk"));
    }
}
