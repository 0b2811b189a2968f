//! PID 1 kept safe from its container: a control group of its own that the container does not see, and memory that nobody reads. What the container may use is
//! decided elsewhere.
//!
//! Sources: Linux, admin-guide/cgroup-v2.rst; cgroup_namespaces(7); ptrace(2), "Ptrace access mode checking".
//!
//! What needs no doing: the kernel never picks PID 1 to be killed for lack of memory (mm/oom_kill.c, `oom_unkillable_task`), so there is no score to set here and
//! to take back in each child; and it drops every signal that a process sends to PID 1 and that PID 1 does not wait for, SIGKILL and SIGSTOP too (signal(7)).

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

use nix::sched::{CloneFlags, unshare};

const HIERARCHY: &str = "/sys/fs/cgroup";
const OWN: &str = "tether";
const CONTAINER: &str = "container";

/// Of PID 1 against the container, which has 100: a fork bomb may have all that is left.
const CPU_WEIGHT: &str = "1000";
/// Bytes that PID 1 and its children before their exec keep while the container presses.
const OWN_MEMORY: &str = "8388608";

/// Moves PID 1 into its own group, and makes the container's the root of what its processes see. To be called once the container's group is there and its limits
/// are open, and before its file systems are mounted. On a kernel without control groups it does nothing.
pub fn set_apart() -> io::Result<()> {
    let hierarchy = Path::new(HIERARCHY);
    let (own, container) = (hierarchy.join(OWN), hierarchy.join(CONTAINER));
    if !container.exists() {
        return Ok(());
    }
    fs::create_dir(&own)?;
    // a kernel may lack a controller
    for (file, value) in [("cpu.weight", CPU_WEIGHT), ("memory.low", OWN_MEMORY), ("memory.min", OWN_MEMORY)] {
        let _lacks = fs::write(own.join(file), value);
    }
    let mut home = OpenOptions::new().write(true).open(own.join("cgroup.procs"))?;
    // A namespace's root is the group of who makes it. With it, and the hierarchy's `nsdelegate`, the container has its group for its own, and can
    // neither lift its limits nor freeze PID 1. Files that were opened before keep their rights: cgroup-v2.rst, "Delegation Containment".
    fs::write(container.join("cgroup.procs"), "0")?;
    unshare(CloneFlags::CLONE_NEWCGROUP)?;
    home.write_all(b"0")
}

/// Nobody without `CAP_SYS_PTRACE` looks into PID 1, which holds the link's key: its memory, its descriptors, its environment. Nor is there ever a core of it.
pub fn close_memory() -> io::Result<()> {
    Ok(nix::sys::prctl::set_dumpable(false)?)
}
