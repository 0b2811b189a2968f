//! What a new process may do and use, set in itself before it runs its program: limits, capabilities, filter, user. The order of the steps is in `mod`, and is runc's.
//!
//! Sources: capabilities(7), prctl(2), setrlimit(2), seccomp(2), proc_pid_oom_score_adj(5).

use std::ffi::CString;
use std::io;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid};
use wire::spec::{ALL_CAPABILITIES, Limit, Rights};

use super::report::{Failed, Step};
use crate::sys::seccomp;

/// `_LINUX_CAPABILITY_VERSION_3`: two words of 32 bits for each set.
const VERSION: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Sets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// How readily the kernel ends it; the text is the number's. What is inherited, PID 1's 0, needs no words.
pub(super) fn set_oom_score(text: &CString) -> Result<(), Failed> {
    if text.as_bytes() == b"0" {
        return Ok(());
    }
    let write = || {
        let file = open(c"/proc/self/oom_score_adj", OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        nix::unistd::write(file, text.as_bytes())
    };
    write().map(drop).map_err(|errno| Step::OomScore.failed(errno))
}

pub(super) fn set_limits(limits: &[Limit]) -> Result<(), Failed> {
    for limit in limits {
        let bounds = libc::rlimit { rlim_cur: limit.soft, rlim_max: limit.hard };
        // JUSTIFICATION: nix names a resource by an enum; here it is a number.
        // SAFETY: `bounds` is a valid place to read from and outlives the call. An unknown number is refused.
        Errno::result(unsafe { libc::setrlimit(i32::from(limit.resource) as _, &raw const bounds) })
            .map_err(|errno| Failed { which: limit.resource, ..Step::Limit.failed(errno) })?;
    }
    Ok(())
}

pub(super) fn set_no_new_privileges() -> Result<(), Failed> {
    nix::sys::prctl::set_no_new_privs().map_err(|errno| Step::NoNewPrivileges.failed(errno))
}

pub(super) fn load_filter(filter: &[u8]) -> Result<(), Failed> {
    let errno = |error: io::Error| error.raw_os_error().map_or(Errno::EINVAL, Errno::from_raw);
    seccomp::load(filter).map_err(|error| Step::Seccomp.failed(errno(error)))
}

/// Gives up for ever what is not in the bounding set. To be done by root.
pub(super) fn bound_capabilities(bounding: u64) -> Result<(), Failed> {
    for capability in numbers(!bounding) {
        match prctl(libc::PR_CAPBSET_DROP, capability.into(), 0) {
            // this kernel has no such capability, nor one of a higher number
            Err(Errno::EINVAL) => break,
            other => other.map_err(|errno| Failed { which: capability, ..Step::Capability.failed(errno) })?,
        };
    }
    Ok(())
}

/// Becomes the user. What it had as root it may still keep, until [`take_capabilities`].
pub(super) fn become_user(uid: Uid, gid: Gid, groups: &[Gid]) -> Result<(), Failed> {
    let credentials = |errno| Step::Credentials.failed(errno);
    prctl(libc::PR_SET_KEEPCAPS, 1, 0).map_err(credentials)?;
    nix::unistd::setgroups(groups).map_err(credentials)?;
    nix::unistd::setgid(gid).map_err(credentials)?;
    nix::unistd::setuid(uid).map_err(credentials)?;
    prctl(libc::PR_SET_KEEPCAPS, 0, 0).map(drop).map_err(credentials)
}

/// Keeps what a user has by its rights, and nothing else: root all that is left, another only what is ambient.
pub(super) fn take_capabilities(uid: Uid, rights: &Rights) -> Result<(), Failed> {
    let ambient = rights.capabilities.ambient;
    let set = if uid.is_root() { bounding_set() } else { ambient };
    let header = Header { version: VERSION, pid: 0 };
    let [set_low, set_high] = halves(set);
    let [ambient_low, ambient_high] = halves(ambient);
    let sets = [(set_low, ambient_low), (set_high, ambient_high)].map(|(set, inheritable)| Sets {
        effective: set,
        permitted: set,
        inheritable,
    });
    // JUSTIFICATION: neither nix nor libc has capset.
    // SAFETY: a header of version 3 is followed by two elements of sets, and both places outlive the call.
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) })
        .map_err(|errno| Step::Capability.failed(errno))?;
    for capability in numbers(ambient) {
        prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as _, capability.into())
            .map_err(|errno| Failed { which: capability, ..Step::Capability.failed(errno) })?;
    }
    Ok(())
}

#[allow(clippy::cast_possible_truncation)] // that is what halves are
fn halves(set: u64) -> [u32; 2] {
    [set as u32, (set >> 32) as u32]
}

/// What is left of [`ALL_CAPABILITIES`].
fn bounding_set() -> u64 {
    numbers(ALL_CAPABILITIES)
        .filter(|&capability| prctl(libc::PR_CAPBSET_READ, capability.into(), 0) == Ok(1))
        .fold(0, |set, capability| set | 1 << capability)
}

/// The numbers of a set's capabilities, and of all that are not ours to know yet.
fn numbers(set: u64) -> impl Iterator<Item = u8> {
    (0..64).filter(move |number| set >> number & 1 == 1)
}

fn prctl(option: libc::c_int, second: libc::c_ulong, third: libc::c_ulong) -> nix::Result<libc::c_int> {
    // JUSTIFICATION: nix has no prctl for these.
    // SAFETY: numbers; no memory is touched. The unused arguments have to be zero.
    Errno::result(unsafe { libc::prctl(option, second, third, 0, 0) })
}
