//! The table of mounts, and its end: every file system clean before the machine is off.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::fcntl::{OFlag, openat};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::Mode;
use nix::unistd::{chroot, fchdir};

use super::filesystem::TOP;
use super::{own_root, server};
use crate::say;
use crate::sys::mount::trim;

/// A line of the table: proc(5), `/proc/pid/mountinfo`.
#[derive(Debug, PartialEq, Eq)]
struct Mounted {
    /// `MAJOR:MINOR`.
    device: String,
    on: String,
    kind: String,
    source: String,
    writable: bool,
}

/// What this process sees, in the order in which it was mounted.
fn table() -> Vec<Mounted> {
    match own_root() {
        Some(own) => table_from(own),
        None => read(fs::File::open("/proc/self/mountinfo")),
    }
}

/// The same, by way of the machine's own root: a container may have unmounted its own /proc.
fn table_from(own: BorrowedFd<'_>) -> Vec<Mounted> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    read(openat(own, "proc/self/mountinfo", flags, Mode::empty()).map(fs::File::from).map_err(io::Error::from))
}

fn read(file: io::Result<fs::File>) -> Vec<Mounted> {
    let text = file.and_then(io::read_to_string).unwrap_or_default();
    text.lines().filter_map(parse).collect()
}

fn parse(line: &str) -> Option<Mounted> {
    let (mount, system) = line.split_once(" - ")?;
    let mut fields = mount.split(' ').skip(2);
    let (device, on) = (fields.next()?.to_owned(), unescape(fields.nth(1)?));
    let mut fields = system.split(' ');
    let (kind, source) = (fields.next()?.to_owned(), unescape(fields.next()?));
    let writable = fields.next()?.split(',').any(|option| option == "rw");
    Some(Mounted { device, on, kind, source, writable })
}

/// Where something is mounted in this process's root, by way of the machine's own.
pub(crate) fn mount_points(own: BorrowedFd<'_>) -> BTreeSet<Vec<u8>> {
    table_from(own).into_iter().map(|mounted| mounted.on.into_bytes()).collect()
}

impl Mounted {
    /// It has a journal that is to be written out.
    fn is_disk(&self) -> bool {
        self.kind == "ext4"
    }
}

/// Whether somewhere is what somebody else serves, and may never do so: a file server, the host, or a process.
pub(crate) fn has_servers() -> bool {
    let waits = |kind: &str| ["nfs", "9p", "fuse", "virtiofs"].iter().any(|server| kind.starts_with(server));
    table().iter().any(|mounted| waits(&mounted.kind))
}

/// Unmounts everything, the last first, and the container's root as well; what is busy becomes read-only, which writes its journal out too. What stays
/// writable is named on the console.
pub(crate) fn unmount_all() {
    unmount_visible();
    let _or_busy = make_read_only("/");
    let left = own_root().is_some_and(|own| fchdir(own).and_then(|()| chroot(".")).is_ok());
    if left {
        // the container's root, and what its processes may have put over it
        while umount2("/", MntFlags::empty()).is_ok() {}
        unmount_visible();
    }
    for mounted in table().iter().filter(|mounted| mounted.is_disk() && mounted.writable) {
        say!(Warn, "a disk is still in use and may need a check"; disk = mounted.source, on = mounted.on);
    }
}

/// All that has a name here, but for the root. What is under something else comes free with it, so it is tried until nothing changes.
fn unmount_visible() {
    loop {
        let mut changed = false;
        for mounted in table().iter().rev().filter(|mounted| mounted.on != "/") {
            if mounted.is_disk() && mounted.writable {
                // also for those who have it mounted in a namespace of their own, whose end may still be under way
                let _or_busy = make_read_only(&mounted.on);
            }
            changed |= match mounted.kind.starts_with("nfs") {
                true => server::unmount(&mounted.on),
                false => umount2(mounted.on.as_str(), MntFlags::empty()).is_ok(),
            };
        }
        if !changed {
            return;
        }
    }
}

fn make_read_only(on: &str) -> nix::Result<()> {
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(None::<&str>, on, None::<&str>, flags, None::<&str>)
}

/// Tells every disk that is mounted and written which of its blocks are free: the bytes. `own` is the machine's own root. A disk that does not want to know is passed over.
/// For a process of its own: it takes what time the disks take.
pub fn trim_all(own: impl AsFd) -> u64 {
    let mut told = 0;
    let mut seen = Vec::new();
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    for mounted in table_from(own.as_fd()).iter().filter(|mounted| mounted.is_disk() && mounted.writable) {
        if !seen.contains(&mounted.device)
            && let Ok(top) = nix::fcntl::open(mounted.on.as_str(), flags, Mode::empty())
        {
            told += trim(top.as_fd()).unwrap_or(0);
            seen.push(mounted.device.clone());
        }
    }
    // the disk under an overlay is out of the container's sight; where there is none this is memory, which takes no trim
    told + openat(own, TOP, flags, Mode::empty()).and_then(|top| trim(top.as_fd())).unwrap_or(0)
}

/// Undoes the octal escapes of space, tab, newline and backslash.
fn unescape(text: &str) -> String {
    let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    escapes.iter().fold(text.to_owned(), |text, (escape, char)| text.replace(escape, char))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_unescaped() {
        assert_eq!(unescape(r"/a\040b\134040"), r"/a b\040");
    }

    #[test]
    fn a_line_of_the_table_says_what_is_written() {
        let line = r"36 35 98:0 /sub /mnt/a\040b ro,noatime master:1 - ext4 /dev/vda rw,errors=continue";
        let mounted = Mounted {
            device: "98:0".into(),
            on: "/mnt/a b".into(),
            kind: "ext4".into(),
            source: "/dev/vda".into(),
            writable: true,
        };
        assert_eq!(parse(line), Some(mounted));
        assert_eq!(
            parse(line.replace(" rw,errors", " ro,errors").as_str()).map(|mounted| mounted.writable),
            Some(false)
        );
        assert_eq!(parse("36 35 98:0 / /"), None);
    }
}
