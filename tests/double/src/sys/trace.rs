//! What a tracer asks of the kernel that no safe library offers: ptrace(2), wait(2), fork(2). What it does with the answers is decided in [`crate::trace`].

use std::arch::x86_64::__cpuid_count;
use std::io;

use nix::unistd::Pid;

/// Who goes on after a fork.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fork {
    Parent(Pid),
    Child,
}

/// Why a tracee has stopped, or is no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    Exited(i32),
    Killed(i32),
    /// At the beginning or the end of a system call.
    Syscall,
    /// One of `PTRACE_EVENT_*`, but for its end and stops of a whole process.
    Event(i32),
    /// It is new, and waits for us.
    Ready,
    /// Its process was stopped by a signal, as by a shell's `^Z`.
    Group,
    /// Before a signal is delivered.
    Signal(i32),
}

/// How it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resume {
    Run,
    /// To the next beginning or end of a system call.
    ToSyscall,
    /// It stays stopped until it is continued by a signal.
    Listen,
    /// Without us.
    Detach,
}

/// Makes a child that goes on from here. To be called while there is one thread.
pub(crate) fn fork() -> io::Result<Fork> {
    // JUSTIFICATION: the standard library starts programs and does not fork; the child here goes on with this one.
    // SAFETY: with one thread no lock can be held by another that the child does not have.
    let forked = unsafe { nix::unistd::fork() }?;
    Ok(match forked {
        nix::unistd::ForkResult::Parent { child } => Fork::Parent(child),
        nix::unistd::ForkResult::Child => Fork::Child,
    })
}

/// Waits for what comes next of any tracee or child. `ECHILD` when there is none.
pub(crate) fn wait_any() -> io::Result<(Pid, Stop)> {
    let mut status = 0;
    // JUSTIFICATION: nix's waitpid fails with EINVAL on a real-time signal, and by then the stop has been taken from the kernel.
    // SAFETY: the kernel writes one int to where `status` lies, which lives until the call is over.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL) };
    match pid {
        1.. => Ok((Pid::from_raw(pid), stop(status))),
        _ => Err(io::Error::last_os_error()),
    }
}

/// ptrace(2), "Stopped states", for tracees that were seized, with `PTRACE_O_TRACESYSGOOD`.
fn stop(status: i32) -> Stop {
    if libc::WIFEXITED(status) {
        return Stop::Exited(libc::WEXITSTATUS(status));
    }
    if libc::WIFSIGNALED(status) {
        return Stop::Killed(libc::WTERMSIG(status));
    }
    match (libc::WSTOPSIG(status), status >> 16) {
        (signal, 0) if signal == libc::SIGTRAP | 0x80 => Stop::Syscall,
        (signal, 0) => Stop::Signal(signal),
        (libc::SIGTRAP, libc::PTRACE_EVENT_STOP) => Stop::Ready,
        (_, libc::PTRACE_EVENT_STOP) => Stop::Group,
        (_, event) => Stop::Event(event),
    }
}

/// Lets a stopped tracee go on, with that signal if it is not 0.
pub(crate) fn resume(pid: Pid, how: Resume, signal: i32) -> io::Result<()> {
    let request = match how {
        Resume::Run => libc::PTRACE_CONT,
        Resume::ToSyscall => libc::PTRACE_SYSCALL,
        Resume::Listen => libc::PTRACE_LISTEN,
        Resume::Detach => libc::PTRACE_DETACH,
    };
    // the C library's prototype has an int in glibc and in musl, of different signs
    #[allow(clippy::useless_conversion, reason = "so is only one of them")]
    let request = request.try_into().map_err(|_| io::ErrorKind::InvalidInput)?;
    // JUSTIFICATION: nix's ptrace takes no real-time signals, and has no PTRACE_LISTEN.
    // SAFETY: these requests take no address, and a number in place of data: the kernel touches no memory of ours.
    let result = unsafe { libc::ptrace(request, pid.as_raw(), 0usize, signal as usize) };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What this processor itself says.
pub(crate) fn cpuid(leaf: u32, sub_leaf: u32) -> [u32; 4] {
    let result = __cpuid_count(leaf, sub_leaf);
    [result.eax, result.ebx, result.ecx, result.edx]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_stop_is_told_from_the_others() {
        let stopped = |signal: i32, event: i32| event << 16 | signal << 8 | 0x7f;
        for (status, expected) in [
            (3 << 8, Stop::Exited(3)),
            (9, Stop::Killed(9)),
            (stopped(libc::SIGTRAP | 0x80, 0), Stop::Syscall),
            (stopped(libc::SIGTRAP, 0), Stop::Signal(libc::SIGTRAP)),
            (stopped(40, 0), Stop::Signal(40)),
            (stopped(libc::SIGTRAP, libc::PTRACE_EVENT_EXEC), Stop::Event(libc::PTRACE_EVENT_EXEC)),
            (stopped(libc::SIGTRAP, libc::PTRACE_EVENT_STOP), Stop::Ready),
            (stopped(libc::SIGTSTP, libc::PTRACE_EVENT_STOP), Stop::Group),
        ] {
            assert_eq!(stop(status), expected, "{status:#x}");
        }
    }
}
