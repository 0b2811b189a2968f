//! PID 1 kept safe from its container, and the container out of PID 1's sight: a control group of its own, a share of the machine that the container does not
//! get, and memory that nobody reads.
//!
//! Sources: Linux, admin-guide/cgroup-v2.rst; cgroup_namespaces(7); ptrace(2), "Ptrace access mode checking".
//!
//! What needs no doing: the kernel never picks PID 1 to be killed for lack of memory (mm/oom_kill.c, `oom_unkillable_task`), so there is no score to set here and
//! to take back in each child; and it drops every signal that a process sends to PID 1 and that PID 1 does not wait for, SIGKILL and SIGSTOP too (signal(7)).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

use nix::sched::{CloneFlags, unshare};
use nix::sys::sysinfo::sysinfo;

const HIERARCHY: &str = "/sys/fs/cgroup";
const OWN: &str = "tether";
const CONTAINER: &str = "container";

/// Of PID 1 against the container, which has 100: a fork bomb may have all that is left.
const CPU_WEIGHT: &str = "1000";
/// Bytes that PID 1 and its children before their exec keep while the container presses.
const OWN_MEMORY: &str = "8388608";

/// The container's part of the machine: all of it but a reserve.
#[derive(Debug, Default)]
pub struct Share {
    memory_max: Option<File>,
    asked: Option<u64>,
}

impl Share {
    /// Moves PID 1 into its own group, makes the container's the root of what its processes see, and bounds what they may use: `memory` in bytes, as asked, and
    /// by default almost as many processes as the kernel can have. To be called once the container's group is there, and before its file systems are
    /// mounted. On a kernel without control groups it does nothing.
    pub fn divide(memory: Option<u64>, pids: Option<u64>) -> io::Result<Share> {
        let hierarchy = Path::new(HIERARCHY);
        let (own, container) = (hierarchy.join(OWN), hierarchy.join(CONTAINER));
        if !container.exists() {
            return Ok(Share::default());
        }
        fs::create_dir(&own)?;
        // a kernel may lack a controller
        for (file, value) in [("cpu.weight", CPU_WEIGHT), ("memory.low", OWN_MEMORY), ("memory.min", OWN_MEMORY)] {
            let _lacks = fs::write(own.join(file), value);
        }
        let open = |path: &Path| OpenOptions::new().write(true).open(path);
        let mut home = open(&own.join("cgroup.procs"))?;
        let mut share = Share { memory_max: open(&container.join("memory.max")).ok(), asked: memory };
        share.fit()?;
        if pids.is_none()
            && let Some(most) = processes()
        {
            let _lacks = fs::write(container.join("pids.max"), most.to_string());
        }
        // A namespace's root is the group of who makes it. With it, and the hierarchy's `nsdelegate`, the container has its group for its own, and can
        // neither lift its limits nor freeze PID 1. Files that were opened before keep their rights: cgroup-v2.rst, "Delegation Containment".
        fs::write(container.join("cgroup.procs"), "0")?;
        unshare(CloneFlags::CLONE_NEWCGROUP)?;
        home.write_all(b"0")?;
        Ok(share)
    }

    /// Lets the container have what the machine has by now: memory may have come.
    pub fn fit(&mut self) -> io::Result<()> {
        let Some(file) = &mut self.memory_max else { return Ok(()) };
        let bytes = container_memory(sysinfo()?.ram_total(), self.asked);
        file.write_all(bytes.to_string().as_bytes())
    }
}

/// Nobody without `CAP_SYS_PTRACE` looks into PID 1, which holds the link's key: its memory, its descriptors, its environment. Nor is there ever a core of it.
pub fn close_memory() -> io::Result<()> {
    Ok(nix::sys::prctl::set_dumpable(false)?)
}

/// A sixteenth of the machine is the kernel's and PID 1's: 8 to 64 MiB.
fn container_memory(total: u64, asked: Option<u64>) -> u64 {
    let reserve = (total / 16).clamp(8 << 20, 64 << 20);
    let room = total.saturating_sub(reserve);
    asked.map_or(room, |asked| asked.min(room))
}

/// How many processes and threads leave the kernel some for itself and PID 1.
fn processes() -> Option<u64> {
    let most = |name| fs::read_to_string(name).ok()?.trim().parse::<u64>().ok();
    let all = most("/proc/sys/kernel/threads-max")?.min(most("/proc/sys/kernel/pid_max")?);
    Some(all - (all / 8).max(128).min(all / 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_container_gets_all_but_a_reserve() {
        const MIB: u64 = 1 << 20;
        let check = |total, asked, expected| assert_eq!(container_memory(total, asked), expected);
        check(256 * MIB, None, 240 * MIB);
        check(64 * MIB, None, 56 * MIB);
        check(4096 * MIB, None, 4032 * MIB);
        check(256 * MIB, Some(100 * MIB), 100 * MIB);
        check(256 * MIB, Some(1 << 40), 240 * MIB);
        check(4 * MIB, None, 0);
    }
}
