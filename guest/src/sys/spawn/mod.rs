//! A new process: fork, join the container's control group, become what was asked, exec; or go on in code of our own.
//!
//! `std::process::Command` cannot set supplementary groups, a controlling terminal, rights and a clean signal state without unsafe code in its caller,
//! so the whole of it is here. Which programs, user, directory and rights: the caller's decision. How each right is taken: `rights`; how a failure comes back: `report`.

mod report;
mod rights;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, FcntlArg, OFlag, OpenHow, ResolveFlag, fcntl, openat2};
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::sys::stat::{Mode, SFlag, umask};
use nix::unistd::{AccessFlags, ForkResult, Gid, Pid, Uid, fork, pipe2};
pub use report::{SpawnError, Step};
use wire::spec::Rights;

use self::report::Failed;
use crate::journal;

/// A process to start.
#[derive(Debug)]
pub struct Program {
    pub executable: Executable,
    pub argv: Vec<CString>,
    pub env: Vec<CString>,
    /// Absolute.
    pub dir: CString,
    pub uid: Uid,
    pub gid: Gid,
    pub groups: Vec<Gid>,
    pub rights: Rights,
    /// A filter of system calls that is the machine's, not the spec's: it is loaded before all that the rights say.
    pub fence: Option<Vec<u8>>,
}

/// Where the program's file is. It is looked for by the new process, which sees what its user may see.
#[derive(Debug)]
pub enum Executable {
    /// Here, seen from its directory.
    At(CString),
    /// At the first of these that it may execute: the elements of `PATH` with the name behind them. A relative one is none: [`Step::FindHere`].
    InPath(Vec<CString>),
}

/// What becomes descriptors 0, 1 and 2.
#[derive(Debug)]
pub enum Stdio<'a> {
    Streams {
        stdin: BorrowedFd<'a>,
        stdout: BorrowedFd<'a>,
        stderr: BorrowedFd<'a>,
    },
    /// A terminal, which becomes the controlling one.
    Terminal(BorrowedFd<'a>),
}

/// What files may not be made with unless the process says otherwise: docker's, and the kernel's own at boot.
const UMASK: u32 = 0o022;

/// Starts a process in a session of its own, with default signal handling, in the control group whose `cgroup.procs` is the last of those given, by way of the
/// others. Returns once it has exec'ed, or has failed to.
pub fn spawn(program: &Program, stdio: &Stdio<'_>, cgroup: &[BorrowedFd<'_>]) -> Result<Pid, SpawnError> {
    // pointers and texts are made before the fork: the child must not allocate
    let argv = pointers(&program.argv);
    let env = pointers(&program.env);
    let oom_score = CString::new(program.rights.oom_score.to_string()).unwrap_or_default();
    start(|reporter| {
        let fenced = program.fence.as_deref().map_or(Ok(()), rights::load_filter);
        match fenced.and_then(|()| become_program(program, &argv, &env, &oom_score, stdio, cgroup, reporter)) {
            Err(failed) => failed,
            Ok(never) => match never {},
        }
    })
}

/// Runs `work` in a process like one of [`spawn`], without a program of its own; it ends with the code that `work` returns. It holds no descriptor
/// but its standard streams and what `work` opens. Returns once `work` begins.
///
/// The child is PID 1's copy and may do all that PID 1 may. That is sound, allocation and all, since PID 1 has one thread: no lock is held by another.
pub fn run_in_child(
    stdio: &Stdio<'_>,
    cgroup: &[BorrowedFd<'_>],
    work: impl FnOnce() -> i32,
) -> Result<Pid, SpawnError> {
    start(|_| {
        if let Err(failed) = join(cgroup).and_then(|()| set_stdio(stdio)) {
            return failed;
        }
        // a bug in the work is the work's failure: PID 1's hook would power the machine off
        std::panic::set_hook(Box::new(|panic| {
            let _told = writeln!(io::stderr(), "tether: bug: {panic}");
        }));
        journal::leave();
        if let Err(errno) = close(3, libc::c_int::MAX) {
            return Step::Stdio.failed(errno);
        }
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        // SAFETY: as in `start`.
        unsafe { libc::_exit(outcome.unwrap_or(PANICKED)) }
    })
}

/// What a Rust program that panics exits with.
const PANICKED: i32 = 101;

/// Forks; `child` comes back only with what failed. The parent waits until it has exec'ed, closed its descriptors, or failed.
fn start(child: impl FnOnce(BorrowedFd<'_>) -> Failed) -> Result<Pid, SpawnError> {
    let at_fork = |errno: Errno| SpawnError::from(Step::Fork.failed(errno));
    let (report, low) = pipe2(OFlag::O_CLOEXEC).map_err(at_fork)?;
    // if PID 1 itself was started without standard streams, 0 to 2 are free, and become the child's
    let reporter = above_stdio(&low).map_err(at_fork)?;
    drop(low);
    // JUSTIFICATION: nothing safe forks.
    // SAFETY: PID 1 has one thread, so the child's copy of the heap and of every lock is consistent; the child ends in
    // exec or _exit, never in the parent's code.
    match unsafe { fork() }.map_err(at_fork)? {
        ForkResult::Child => {
            report::send(&reporter, child(reporter.as_fd()));
            // SAFETY: _exit never returns and runs no destructors of the parent's copies.
            unsafe { libc::_exit(127) }
        }
        ForkResult::Parent { child } => {
            drop(reporter);
            match report::receive(&report) {
                None => Ok(child),
                // the zombie is the reaper's
                Some(failed) => Err(failed.into()),
            }
        }
    }
}

/// A null-terminated array of pointers into `strings`.
fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
}

/// In the child. Comes back only with what failed. The order is runc's (libcontainer, `standard_init_linux.go`).
fn become_program(
    program: &Program,
    argv: &[*const libc::c_char],
    env: &[*const libc::c_char],
    oom_score: &CString,
    stdio: &Stdio<'_>,
    cgroup: &[BorrowedFd<'_>],
    reporter: BorrowedFd<'_>,
) -> Result<Infallible, Failed> {
    let Program { executable, dir, uid, gid, groups, rights, .. } = program;
    join(cgroup)?;
    set_stdio(stdio)?;
    // not by exec: until then, a path through /proc/self/fd would lead to all that PID 1 has open, the machine's own root for one
    let reporter = reporter.as_raw_fd();
    let closed = close(3, reporter - 1).and_then(|()| close(reporter + 1, libc::c_int::MAX));
    closed.map_err(|errno| Step::Stdio.failed(errno))?;
    umask(Mode::from_bits_truncate(UMASK));
    rights::set_oom_score(oom_score)?;
    rights::set_limits(&rights.limits)?;
    // Root may enter what its user may not, as docker has it. A file server may deny root what it grants the user.
    let directory = |errno| Step::Directory.failed(errno);
    let entered = match enter(dir) {
        Err(Errno::EACCES | Errno::EPERM) => false,
        other => other.map(|()| true).map_err(directory)?,
    };
    let filter = rights.seccomp.as_deref();
    match (rights.no_new_privileges, filter) {
        (true, _) => rights::set_no_new_privileges()?,
        // to load it later would take rights that are given up now
        (false, Some(filter)) => rights::load_filter(filter)?,
        (false, None) => {}
    }
    rights::bound_capabilities(rights.capabilities.bounding)?;
    rights::become_user(*uid, *gid, groups)?;
    if !entered {
        enter(dir).map_err(directory)?;
    }
    rights::take_capabilities(*uid, rights)?;
    let path = find(executable)?;
    if let (true, Some(filter)) = (rights.no_new_privileges, filter) {
        // as late as can be: it need allow nothing of the above
        rights::load_filter(filter)?;
    }
    // JUSTIFICATION: nix's execve allocates its arrays, which is avoided after a fork.
    // SAFETY: both arrays are null-terminated and point to strings that `program` keeps alive.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    Err(Step::Exec.failed(Errno::last()))
}

/// Changes the directory; never through a link of /proc that leads to what some process has open, its root and directory included: so runc was left once
/// (CVE-2024-21626), and until here this process may follow PID 1's.
fn enter(dir: &CStr) -> nix::Result<()> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_NO_MAGICLINKS);
    nix::unistd::fchdir(openat2(AT_FDCWD, dir, how)?)
}

/// As runc looks (Go's `exec.LookPath`): what cannot be executed in one element of `PATH` is passed over.
fn find(executable: &Executable) -> Result<&CStr, Failed> {
    match executable {
        Executable::At(path) => check(path).map(|()| path.as_c_str()),
        Executable::InPath(places) => match places.iter().find(|place| check(place).is_ok()) {
            Some(place) if place.as_bytes().starts_with(b"/") => Ok(place),
            Some(_) => Err(Step::FindHere.failed(Errno::ENOENT)),
            None => Err(Step::Find.failed(Errno::ENOENT)),
        },
    }
}

/// Whether this is a file that the process may execute: mode, rights and mount.
fn check(path: &CStr) -> Result<(), Failed> {
    let stat = nix::sys::stat::stat(path).map_err(|errno| Step::Find.failed(errno))?;
    let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
    if kind == SFlag::S_IFDIR {
        return Err(Step::Access.failed(Errno::EISDIR));
    }
    match nix::unistd::faccessat(AT_FDCWD, path, AccessFlags::X_OK, AtFlags::AT_EACCESS) {
        // a filter may know no faccessat2
        Err(Errno::ENOSYS | Errno::EPERM) if stat.st_mode & 0o111 != 0 => Ok(()),
        Err(Errno::ENOSYS | Errno::EPERM) => Err(Step::Access.failed(Errno::EACCES)),
        other => other.map_err(|errno| Step::Access.failed(errno)),
    }
}

/// Before anything that takes rights away.
fn join(cgroup: &[BorrowedFd<'_>]) -> Result<(), Failed> {
    cgroup.iter().try_for_each(|procs| match nix::unistd::write(procs, b"0") {
        Ok(_) => Ok(()),
        Err(errno) => Err(Step::Cgroup.failed(errno)),
    })
}

/// Closes the descriptors of these numbers, if there are any. With the one that reports failures, the parent is told that there was none.
fn close(first: libc::c_int, last: libc::c_int) -> nix::Result<()> {
    if first > last {
        return Ok(());
    }
    // JUSTIFICATION: nix has no close_range.
    // SAFETY: three numbers. The closed descriptors have owners in this copy of the parent, none of which is used or dropped: the child ends in exec or _exit.
    Errno::result(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }).map(drop)
}

/// A copy of the descriptor with a number above 2, closed by exec.
fn above_stdio(fd: impl std::os::fd::AsFd) -> nix::Result<OwnedFd> {
    let copy = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(3))?;
    // SAFETY: the kernel has just given us this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

fn set_stdio(stdio: &Stdio<'_>) -> Result<(), Failed> {
    set_signals_and_streams(stdio).map_err(|errno| Step::Stdio.failed(errno))
}

fn set_signals_and_streams(stdio: &Stdio<'_>) -> nix::Result<()> {
    // PID 1 blocks signals and ignores SIGPIPE (Rust's runtime); a program expects neither, nor what else may come to be ignored
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    for signal in 1..=64 {
        // those that cannot be set need not be: SIGKILL, SIGSTOP, and what the C library has for itself
        // SAFETY: SIG_DFL installs no handler.
        let _as_it_was = unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    nix::unistd::setsid()?;
    let fds = match stdio {
        Stdio::Streams { stdin, stdout, stderr } => [stdin, stdout, stderr],
        Stdio::Terminal(terminal) => {
            // JUSTIFICATION: nix has no TIOCSCTTY.
            // SAFETY: the argument is a number; the call touches no memory of ours.
            Errno::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY as _, 0) })?;
            [terminal, terminal, terminal]
        }
    };
    // a source may have one of the three numbers itself, if PID 1 was started without them
    let [stdin, stdout, stderr] = fds.map(above_stdio);
    for (target, fd) in (0..).zip([stdin?, stdout?, stderr?]) {
        // JUSTIFICATION: nix's dup2 wants an owned target, which 0, 1 and 2 are not here.
        // SAFETY: both are descriptor numbers, and the sources are above 2.
        Errno::result(unsafe { libc::dup2(fd.as_raw_fd(), target) })?;
    }
    Ok(())
}
