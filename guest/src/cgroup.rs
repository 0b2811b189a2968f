//! The control group of the container's processes: made at boot, joined by each process before it runs, read for figures.
//!
//! PID 1 stays outside, so that only the container is counted. Every file is opened at boot, in the mount that only PID 1 sees, and stays open:
//! whatever the container mounts over `/sys/fs/cgroup`, these are still the kernel's. The source of every name is the kernel's admin-guide/cgroup-v2.rst.
//! What the figures mean is in `stats`.

mod child;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// Where `mounts::early` puts the hierarchy.
const HIERARCHY: &str = "/sys/fs/cgroup";
const NAME: &str = "container";
/// What is counted, as far as the kernel can.
const CONTROLLERS: [&str; 4] = ["cpu", "memory", "pids", "io"];

/// The container's group. What the kernel lacks is `None`, and reads as empty.
#[derive(Debug, Default)]
pub struct Cgroup {
    /// The group's directory.
    dir: Option<File>,
    kill: Option<File>,
    procs: Option<File>,
    pub(crate) memory_current: Option<File>,
    pub(crate) memory_max: Option<File>,
    pub(crate) memory_peak: Option<File>,
    pub(crate) memory_stat: Option<File>,
    pub(crate) memory_events: Option<File>,
    pub(crate) cpu_stat: Option<File>,
    pub(crate) pids_current: Option<File>,
    pub(crate) pids_max: Option<File>,
    pub(crate) io_stat: Option<File>,
}

impl Cgroup {
    /// Makes the group. A kernel without control groups, or without one of the controllers, is no failure.
    pub fn create() -> io::Result<Cgroup> {
        Cgroup::create_below(Path::new(HIERARCHY))
    }

    fn create_below(hierarchy: &Path) -> io::Result<Cgroup> {
        let Ok(available) = fs::read_to_string(hierarchy.join("cgroup.controllers")) else {
            return Ok(Cgroup::default());
        };
        // one write each: the kernel takes all controllers of a write or none
        for controller in available.split_whitespace().filter(|name| CONTROLLERS.contains(name)) {
            fs::write(hierarchy.join("cgroup.subtree_control"), format!("+{controller}"))?;
        }
        let group = hierarchy.join(NAME);
        match fs::create_dir(&group) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let open = |name: &str| File::open(group.join(name)).ok();
        Ok(Cgroup {
            dir: open("."),
            kill: OpenOptions::new().write(true).open(group.join("cgroup.kill")).ok(),
            procs: Some(OpenOptions::new().write(true).open(group.join("cgroup.procs"))?),
            memory_current: open("memory.current"),
            memory_max: open("memory.max"),
            memory_peak: open("memory.peak"),
            memory_stat: open("memory.stat"),
            memory_events: open("memory.events"),
            cpu_stat: open("cpu.stat"),
            pids_current: open("pids.current"),
            pids_max: open("pids.max"),
            io_stat: open("io.stat"),
        })
    }

    /// A process that writes `0` here is in the group from then on.
    pub fn procs_fd(&self) -> Option<BorrowedFd<'_>> {
        self.procs.as_ref().map(|file| file.as_fd())
    }

    /// How many processes the kernel has killed for lack of memory.
    pub fn oom_kills(&self) -> u64 {
        value_of(&text(self.memory_events.as_ref()), "oom_kill")
    }
}

/// A file of the group from its beginning, read anew by the kernel; empty where there is none.
pub(crate) fn text(file: Option<&File>) -> String {
    /// More than `memory.stat` and `io.stat` take; what is cut off is not ours.
    const BOUND: usize = 64 * 1024;
    let Some(file) = file else { return String::new() };
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    while bytes.len() < BOUND {
        match file.read_at(&mut chunk, bytes.len() as u64) {
            Ok(0) | Err(_) => break,
            Ok(count) => bytes.extend_from_slice(&chunk[..count]),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The number behind `key` in lines of `key number`; 0 where there is none.
pub(crate) fn value_of(text: &str, key: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_control_groups_is_no_failure() {
        let cgroup = Cgroup::create_below(Path::new("/no/such/hierarchy")).unwrap();
        assert!(cgroup.procs_fd().is_none());
        assert_eq!(cgroup.oom_kills(), 0);
    }

    #[test]
    fn a_key_is_not_taken_for_one_that_begins_alike() {
        let events = "low 1\noom 2\noom_kill 3\noom_group_kill 4\n";
        assert_eq!(value_of(events, "oom"), 2);
        assert_eq!(value_of(events, "oom_kill"), 3);
        assert_eq!(value_of(events, "max"), 0);
    }

    #[test]
    fn a_group_is_made_joined_and_read() {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let hierarchy = mounts.lines().find_map(|line| line.strip_prefix("cgroup2 ")?.split(' ').next());
        let place = hierarchy.map(|on| Path::new(on).join(format!("tether-test-{}", std::process::id())));
        let Some(place) = place.filter(|place| fs::create_dir(place).is_ok()) else {
            return eprintln!("SKIPPED a_group_is_made_joined_and_read: no cgroup2 that may be written");
        };
        let cgroup = Cgroup::create_below(&place).unwrap();
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let pid = child.id().to_string();
        nix::unistd::write(cgroup.procs_fd().unwrap(), pid.as_bytes()).unwrap();
        let members = fs::read_to_string(place.join("container/cgroup.procs")).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(members.trim(), pid);
        assert!(value_of(&text(cgroup.cpu_stat.as_ref()), "usage_usec") > 0);
        fs::remove_dir(place.join("container")).unwrap();
        fs::remove_dir(&place).unwrap();
    }
}
