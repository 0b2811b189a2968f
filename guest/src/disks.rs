//! A disk by its label: every block device is asked, in whatever order it appears, until one answers or time is up.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket};

use crate::clock;

/// Why there is no such disk.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    #[error(
        "no disk is labelled {label:?} after {} s; the machine has {}",
        .waited.as_secs(),
        if .seen.is_empty() { "no disk at all".into() } else { .seen.join(", ") }
    )]
    Missing { label: String, waited: Duration, seen: Vec<String> },
    #[error("cannot watch for disks")]
    Watch(#[source] io::Error),
}

/// The device node of the ext4 disk with that label. Waits for it to appear, `bound` at most.
pub fn find(label: &str, bound: Duration) -> Result<PathBuf, DiskError> {
    if let Some(found) = labelled(label) {
        return Ok(found);
    }
    // a disk that comes between the look and the subscription is found by the second look
    let deadline = clock::now() + bound;
    let uevents = subscribe().map_err(|errno| DiskError::Watch(errno.into()))?;
    loop {
        if let Some(found) = labelled(label) {
            return Ok(found);
        }
        let left = deadline.saturating_sub(clock::now());
        if left.is_zero() {
            let seen = block_devices().collect();
            return Err(DiskError::Missing { label: label.into(), waited: bound, seen });
        }
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let _woken = poll(&mut [PollFd::new(uevents.as_fd(), PollFlags::POLLIN)], timeout);
        let mut event = [0; 4096];
        while recv(std::os::fd::AsRawFd::as_raw_fd(&uevents), &mut event, MsgFlags::MSG_DONTWAIT).is_ok() {}
    }
}

/// The kernel's announcements of devices: Linux, `kobject_uevent(9)`, multicast group 1.
fn subscribe() -> nix::Result<std::os::fd::OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Netlink, SockType::Datagram, flags, SockProtocol::NetlinkKObjectUEvent)?;
    bind(std::os::fd::AsRawFd::as_raw_fd(&socket), &NetlinkAddr::new(0, 1))?;
    Ok(socket)
}

fn labelled(label: &str) -> Option<PathBuf> {
    let path = |name: &String| PathBuf::from("/dev").join(name);
    block_devices().find(|name| ext4_label(&path(name)).is_some_and(|found| found == label)).map(|name| path(&name))
}

fn block_devices() -> impl Iterator<Item = String> {
    let entries = fs::read_dir("/sys/class/block").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| !name.starts_with("loop"))
}

/// The label in the superblock: Linux, Documentation/filesystems/ext4/super.rst.
fn ext4_label(device: &std::path::Path) -> Option<String> {
    const SUPERBLOCK: u64 = 1024;
    const MAGIC: [u8; 2] = [0x53, 0xef];
    let mut block = [0; 0x88];
    File::open(device).ok()?.read_exact_at(&mut block, SUPERBLOCK).ok()?;
    let name = block[0x78..0x88].split(|&byte| byte == 0).next()?;
    (block[0x38..0x3a] == MAGIC).then(|| String::from_utf8_lossy(name).into_owned())
}
