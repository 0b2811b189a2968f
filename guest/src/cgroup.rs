//! The control group of the container's processes: made at boot, joined by each process before it runs, limited, read for figures.
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

use crate::sys::spawn::{Stdio, run_in_child};

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
    /// The ways in: that of the group around it first.
    procs: Vec<File>,
    pub(crate) memory_current: Option<File>,
    pub(crate) memory_max: Option<File>,
    pub(crate) memory_peak: Option<File>,
    pub(crate) memory_stat: Option<File>,
    pub(crate) memory_events: Option<File>,
    cpu_max: Option<File>,
    pub(crate) cpu_stat: Option<File>,
    pub(crate) pids_current: Option<File>,
    pub(crate) pids_max: Option<File>,
    pub(crate) io_stat: Option<File>,
}

/// What the processes of a group may use together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes. Where no more can be had, the kernel kills the process that has most; the others live, as with docker (`memory.oom.group` stays 0).
    pub memory: u64,
    /// Thousandths of one processor; none leaves all that there are.
    pub cpus: Option<u32>,
    /// Processes and threads.
    pub pids: u64,
}

/// Microseconds in which a share of a processor is meted out: the kernel's default, and docker's.
const PERIOD: u64 = 100_000;

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
        let limit = |name: &str| OpenOptions::new().read(true).write(true).open(group.join(name)).ok();
        Ok(Cgroup {
            dir: open("."),
            kill: OpenOptions::new().write(true).open(group.join("cgroup.kill")).ok(),
            procs: vec![OpenOptions::new().write(true).open(group.join("cgroup.procs"))?],
            memory_current: open("memory.current"),
            memory_max: limit("memory.max"),
            memory_peak: open("memory.peak"),
            memory_stat: open("memory.stat"),
            memory_events: open("memory.events"),
            cpu_max: limit("cpu.max"),
            cpu_stat: open("cpu.stat"),
            pids_current: open("pids.current"),
            pids_max: limit("pids.max"),
            io_stat: open("io.stat"),
        })
    }

    /// A process that writes `0` to each of them, one after the other, is in the group from then on. Only the first lets in who comes from outside of the
    /// container's namespace, because it was opened before there was one; within, the others lead on (cgroup-v2.rst, "Delegation Containment").
    pub fn procs(&self) -> Vec<BorrowedFd<'_>> {
        self.procs.iter().map(File::as_fd).collect()
    }

    /// Bounds what the container uses from now on. A limit that is not there is no failure: the kernel lacks its controller.
    ///
    /// Where more memory is in use than the limit allows, the kernel has to take it back, and to kill for it if it must. That takes time, and a process of
    /// its own, which is reaped like any other.
    pub fn limit(&self, limits: &Limits) -> io::Result<()> {
        let set = |file: &Option<File>, value: String| match file {
            Some(file) => file.write_all_at(value.as_bytes(), 0),
            None => Ok(()),
        };
        set(&self.pids_max, limits.pids.to_string())?;
        let quota = |thousandths: u32| format!("{} {PERIOD}", u64::from(thousandths) * PERIOD / 1000);
        set(&self.cpu_max, limits.cpus.map_or_else(|| format!("max {PERIOD}"), quota))?;
        let used = text(self.memory_current.as_ref()).trim().parse().unwrap_or(0_u64);
        match &self.memory_max {
            Some(file) if used > limits.memory => {
                let null = crate::devices::null()?;
                let stdio = Stdio::Streams { stdin: null.as_fd(), stdout: file.as_fd(), stderr: null.as_fd() };
                let value = limits.memory.to_string();
                let write = || i32::from(nix::unistd::write(io::stdout(), value.as_bytes()).is_err());
                run_in_child(&stdio, &[], write).map(drop).map_err(|failed| failed.error)
            }
            file => set(file, limits.memory.to_string()),
        }
    }

    /// How many processes the kernel has killed for lack of memory.
    pub fn oom_kills(&self) -> u64 {
        value_of(&text(self.memory_events.as_ref()), "oom_kill")
    }
}

/// Whether a process is in the container's group, or in one within: proc_pid_cgroup(5). What PID 1 starts for itself is not.
pub fn holds(pid: u32) -> bool {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    groups.lines().any(is_within)
}

fn is_within(line: &str) -> bool {
    let below = line.strip_prefix("0::/").and_then(|path| path.strip_prefix(NAME));
    below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
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
        assert!(cgroup.procs().is_empty());
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
    fn only_the_containers_processes_are_in_its_group() {
        for (line, expected) in [
            ("0::/container", true),
            ("0::/container/session-0", true),
            ("0::/", false),
            ("0::/containers", false),
            ("0::/other/container", false),
            ("1:cpu:/container", false),
        ] {
            assert_eq!(is_within(line), expected, "{line}");
        }
        assert!(!holds(std::process::id()) && !holds(0));
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
        nix::unistd::write(cgroup.procs()[0], pid.as_bytes()).unwrap();
        cgroup.limit(&Limits { memory: 64 << 20, cpus: Some(1500), pids: 7 }).unwrap();
        for (name, expected) in [("memory.max", "67108864"), ("cpu.max", "150000 100000"), ("pids.max", "7")] {
            // a controller that this machine does not have here limits nothing
            if let Ok(value) = fs::read_to_string(place.join("container").join(name)) {
                assert_eq!(value.trim(), expected, "{name}");
            }
        }
        let members = fs::read_to_string(place.join("container/cgroup.procs")).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(members.trim(), pid);
        assert!(value_of(&text(cgroup.cpu_stat.as_ref()), "usage_usec") > 0);
        fs::remove_dir(place.join("container")).unwrap();
        fs::remove_dir(&place).unwrap();
    }
}
