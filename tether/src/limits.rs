//! What the container may use of its machine: kernel parameters, limits, and what it does not see at all.
//!
//! What PID 1 and the kernel need is kept from it in any case: without memory, or a number for a process, nobody could end it.

use std::io;
use std::path::Path;
use std::sync::OnceLock;

use guest::cgroup::{Cgroup, Limits};
use guest::{masks, sysctl};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::sysinfo::sysinfo;
use wire::spec::{Machine, Spec};
use wire::status::{Failure, FailureKind};

use crate::boot::machine;
use crate::root::{NEW_ROOT, mount_failure};

/// Open files of each process, as docker sets them.
const OPEN_FILES: u64 = 1_048_576;
/// CAP_SYS_ADMIN: capabilities(7).
const SYS_ADMIN: u64 = 1 << 21;

/// Parameters that are not the container's, and why.
const REFUSED: [(&str, &str); 7] = [
    ("kernel/hostname", "the spec has a key for it"),
    ("kernel/domainname", "the spec has a key for it"),
    ("kernel/panic", "a kernel that panics powers the machine off"),
    ("kernel/panic_on_oops", "a kernel that panics powers the machine off"),
    ("kernel/modprobe", "the kernel has no modules"),
    ("kernel/modules_disabled", "the kernel has no modules"),
    ("vm/panic_on_oom", "the machine must outlive its processes"),
];

/// Sets the limits that processes inherit, and those of the machine. To be done before the container's root is entered.
pub(crate) fn set(spec: &Spec, cgroup: &Cgroup) -> Result<(), Failure> {
    // a process that is given no limit of its own has these
    for (resource, most) in [(Resource::RLIMIT_NOFILE, OPEN_FILES), (Resource::RLIMIT_NPROC, u64::MAX)] {
        setrlimit(resource, most, most).map_err(|errno| machine("cannot set the limits of processes", &errno))?;
    }
    sysctl::open().map_err(|error| machine("cannot set kernel parameters", &error))?;
    let root = Path::new(NEW_ROOT);
    apply(&spec.machine, cgroup, root)?;
    // who may mount may also make groups; the container's own are all that it sees
    let own_groups = spec.main.rights.capabilities.bounding & SYS_ADMIN != 0;
    masks::cover(root, own_groups).map_err(mount_failure)
}

/// Sets limits of a running machine: the spec is another one, or the machine has more memory than before. A kernel parameter that is not named any more stays as it is.
pub(crate) fn change(wanted: &Machine, cgroup: &Cgroup) -> Result<(), Failure> {
    apply(wanted, cgroup, Path::new("/"))
}

fn apply(wanted: &Machine, cgroup: &Cgroup, root: &Path) -> Result<(), Failure> {
    wanted.sysctls.iter().try_for_each(|(name, value)| set_parameter(name, value))?;
    let most = |name| sysctl::get(name).ok()?.parse().ok();
    let tasks = most("kernel.threads-max").into_iter().chain(most("kernel.pid_max")).min();
    let memory = sysinfo().map_err(|errno| machine("cannot tell how much memory there is", &errno))?;
    let taken = *TAKEN.get_or_init(|| memory.ram_total().saturating_sub(memory.ram_unused()));
    let limits = Limits {
        memory: at_most(wanted.memory, rest_of_memory(memory.ram_total(), taken)),
        cpus: wanted.cpus,
        pids: at_most(wanted.pids, rest_of_tasks(tasks.unwrap_or(FEWEST_TASKS))),
    };
    cgroup.limit(&limits).map_err(|error| machine("cannot set the container's limits", &error))?;
    masks::resize_shm(root, wanted.shm_size).map_err(mount_failure)
}

/// As many as every kernel can have.
const FEWEST_TASKS: u64 = 1024;

/// Bytes that the kernel and PID 1 had taken before the container had anything. Later on, what belongs to whom cannot be told apart as simply.
static TAKEN: OnceLock<u64> = OnceLock::new();

/// What is `taken` already, and a sixteenth of the machine, 8 to 64 MiB, are the kernel's and PID 1's. A limit above what is there would be none: the kernel
/// would run out of memory before the container did, and kill whom it likes.
fn rest_of_memory(total: u64, taken: u64) -> u64 {
    total.saturating_sub(taken).saturating_sub((total / 16).clamp(8 << 20, 64 << 20))
}

/// So is an eighth of the processes and threads, and at least 128, unless that would be most.
fn rest_of_tasks(all: u64) -> u64 {
    all - (all / 8).max(128).min(all / 2)
}

fn at_most(wanted: Option<u64>, most: u64) -> u64 {
    wanted.unwrap_or(most).min(most)
}

fn set_parameter(name: &str, value: &str) -> Result<(), Failure> {
    let refused = |why: &str| Failure { kind: FailureKind::Spec, reason: format!("machine/sysctls: {name}: {why}") };
    let path = sysctl::path(name);
    if let Some((_, why)) = REFUSED.iter().find(|(refused, _)| *refused == path) {
        return Err(refused(why));
    }
    if path == "kernel/core_pattern" && value.starts_with('|') {
        return Err(refused("a program that takes cores would run outside of the container"));
    }
    sysctl::set(name, value).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => refused("the kernel has no such parameter"),
        _ => refused(&format!("cannot be {value:?}: {error}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_container_gets_all_but_a_reserve() {
        const MIB: u64 = 1 << 20;
        for (total, taken, rest) in [(4, 5, 0), (64, 10, 46), (256, 16, 224), (4096, 50, 3982)] {
            assert_eq!(rest_of_memory(total * MIB, taken * MIB), rest * MIB);
        }
        for (all, rest) in [(100, 50), (1024, 896), (2000, 1750), (32_768, 28_672)] {
            assert_eq!(rest_of_tasks(all), rest);
        }
        assert_eq!((at_most(None, 7), at_most(Some(5), 7), at_most(Some(9), 7)), (7, 5, 7));
    }

    #[test]
    fn what_would_harm_the_machine_is_refused_by_name() {
        for (name, value) in
            [("kernel.panic", "1"), ("kernel/panic", "1"), ("vm.panic_on_oom", "1"), ("kernel.core_pattern", "|/bin/x")]
        {
            let failure = set_parameter(name, value).unwrap_err();
            assert_eq!(failure.kind, FailureKind::Spec);
            assert!(failure.reason.starts_with(&format!("machine/sysctls: {name}: ")), "{failure}");
        }
    }
}
