//! A new process: fork, join the container's control group, become what was asked, exec; or go on in code of our own.
//!
//! `std::process::Command` cannot set supplementary groups, a controlling terminal and a clean signal state without
//! unsafe code in its caller, so the whole of it is here. Which program, user and directory: the caller's decision.

use std::ffi::CString;
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask};
use nix::unistd::{ForkResult, Gid, Pid, Uid, fork, pipe2};

use crate::journal;

/// A process to start. Every name is resolved already.
#[derive(Debug)]
pub struct Program {
    pub path: CString,
    pub argv: Vec<CString>,
    pub env: Vec<CString>,
    pub dir: CString,
    pub uid: Uid,
    pub gid: Gid,
    pub groups: Vec<Gid>,
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

/// What a new process was doing when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Step {
    Fork,
    Cgroup,
    Stdio,
    Credentials,
    Directory,
    Exec,
}

/// Why no process runs.
#[derive(Debug)]
pub struct SpawnError {
    pub step: Step,
    pub error: io::Error,
}

/// Starts a process in a session of its own, with default signal handling, in the control group whose `cgroup.procs` is given. Returns once it has
/// exec'ed, or has failed to.
pub fn spawn(program: &Program, stdio: &Stdio<'_>, cgroup: Option<BorrowedFd<'_>>) -> Result<Pid, SpawnError> {
    // pointers are made before the fork: the child must not allocate
    let argv = pointers(&program.argv);
    let env = pointers(&program.env);
    start(|| become_program(program, &argv, &env, stdio, cgroup))
}

/// Runs `work` in a process like one of [`spawn`], without a program of its own; it ends with the code that `work` returns. It holds no descriptor
/// but its standard streams and what `work` opens. Returns once `work` begins.
///
/// The child is PID 1's copy and may do all that PID 1 may. That is sound, allocation and all, since PID 1 has one thread: no lock is held by another.
pub fn run_in_child(
    stdio: &Stdio<'_>,
    cgroup: Option<BorrowedFd<'_>>,
    work: impl FnOnce() -> i32,
) -> Result<Pid, SpawnError> {
    start(|| {
        if let Err(failed) = join(cgroup).and_then(|()| set_stdio(stdio).map_err(|errno| (Step::Stdio, errno))) {
            return failed;
        }
        // a bug in the work is the work's failure: PID 1's hook would power the machine off
        std::panic::set_hook(Box::new(|panic| {
            let _told = writeln!(io::stderr(), "tether: bug: {panic}");
        }));
        journal::leave();
        if let Err(errno) = close_others() {
            return (Step::Stdio, errno);
        }
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        // SAFETY: as in `start`.
        unsafe { libc::_exit(outcome.unwrap_or(PANICKED)) }
    })
}

/// What a Rust program that panics exits with.
const PANICKED: i32 = 101;

/// Forks; `child` comes back only with what failed. The parent waits until it has exec'ed, closed its descriptors, or failed.
fn start(child: impl FnOnce() -> (Step, Errno)) -> Result<Pid, SpawnError> {
    let at_fork = |errno: Errno| SpawnError { step: Step::Fork, error: errno.into() };
    let (report, reporter) = pipe2(OFlag::O_CLOEXEC).map_err(at_fork)?;
    // JUSTIFICATION: nothing safe forks.
    // SAFETY: PID 1 has one thread, so the child's copy of the heap and of every lock is consistent; the child ends in
    // exec or _exit, never in the parent's code.
    match unsafe { fork() }.map_err(at_fork)? {
        ForkResult::Child => {
            let (step, errno) = child();
            let report = [step as u8].into_iter().chain((errno as i32).to_ne_bytes());
            let mut bytes = [0; REPORT];
            bytes.iter_mut().zip(report).for_each(|(to, from)| *to = from);
            let _told = nix::unistd::write(&reporter, &bytes);
            // SAFETY: _exit never returns and runs no destructors of the parent's copies.
            unsafe { libc::_exit(127) }
        }
        ForkResult::Parent { child } => {
            drop(reporter);
            match read_report(&report) {
                None => Ok(child),
                // the zombie is the reaper's
                Some((step, errno)) => Err(SpawnError { step, error: errno.into() }),
            }
        }
    }
}

/// Step, errno.
const REPORT: usize = 1 + 4;

/// A null-terminated array of pointers into `strings`.
fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
}

/// In the child. Comes back only with what failed.
fn become_program(
    program: &Program,
    argv: &[*const libc::c_char],
    env: &[*const libc::c_char],
    stdio: &Stdio<'_>,
    cgroup: Option<BorrowedFd<'_>>,
) -> (Step, Errno) {
    if let Err(failed) = join(cgroup) {
        return failed;
    }
    if let Err(errno) = set_stdio(stdio) {
        return (Step::Stdio, errno);
    }
    if let Err(errno) = set_credentials(program) {
        return (Step::Credentials, errno);
    }
    if let Err(errno) = nix::unistd::chdir(program.dir.as_c_str()) {
        return (Step::Directory, errno);
    }
    // JUSTIFICATION: nix's execve allocates its arrays, which is avoided after a fork.
    // SAFETY: both arrays are null-terminated and point to strings that `program` keeps alive.
    unsafe { libc::execve(program.path.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    (Step::Exec, Errno::last())
}

/// Before anything that takes rights away.
fn join(cgroup: Option<BorrowedFd<'_>>) -> Result<(), (Step, Errno)> {
    match cgroup.map(|procs| nix::unistd::write(procs, b"0")) {
        None | Some(Ok(_)) => Ok(()),
        Some(Err(errno)) => Err((Step::Cgroup, errno)),
    }
}

/// Closes every descriptor but 0, 1 and 2, the one that reports failures too: that tells the parent that there was none.
fn close_others() -> nix::Result<()> {
    // JUSTIFICATION: nix has no close_range.
    // SAFETY: three numbers. The closed descriptors have owners in this copy of the parent, none of which is used or dropped: the child ends in _exit.
    Errno::result(unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) }).map(drop)
}

fn set_stdio(stdio: &Stdio<'_>) -> nix::Result<()> {
    // PID 1 blocks signals and ignores SIGPIPE (Rust's runtime); a program expects neither
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    // SAFETY: SIG_DFL installs no handler.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) }?;
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
    for (target, fd) in (0..).zip(fds) {
        // JUSTIFICATION: nix's dup2 wants an owned target, which 0, 1 and 2 are not here.
        // SAFETY: both are descriptor numbers; the sources are above 2, since PID 1's own 0, 1 and 2 are open.
        Errno::result(unsafe { libc::dup2(fd.as_raw_fd(), target) })?;
    }
    Ok(())
}

fn set_credentials(program: &Program) -> nix::Result<()> {
    nix::unistd::setgroups(&program.groups)?;
    nix::unistd::setgid(program.gid)?;
    nix::unistd::setuid(program.uid)
}

/// `None` when the pipe was closed by exec.
fn read_report(report: &OwnedFd) -> Option<(Step, Errno)> {
    let mut bytes = [0; REPORT];
    loop {
        match nix::unistd::read(report, &mut bytes) {
            Err(Errno::EINTR) => {}
            Ok(REPORT) => break,
            Ok(_) | Err(_) => return None,
        }
    }
    let [step, errno @ ..] = bytes;
    let steps = [Step::Fork, Step::Cgroup, Step::Stdio, Step::Credentials, Step::Directory, Step::Exec];
    let step = steps.into_iter().find(|&known| known as u8 == step).unwrap_or(Step::Exec);
    Some((step, Errno::from_raw(i32::from_ne_bytes(errno))))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    /// Runs as whoever runs the tests: credentials stay as they are.
    fn program(path: &str, argv: &[&str]) -> Program {
        let text = |text: &str| CString::new(text).unwrap();
        Program {
            path: text(path),
            argv: argv.iter().map(|arg| text(arg)).collect(),
            env: vec![text("A=b c")],
            dir: text("/"),
            uid: Uid::current(),
            gid: Gid::current(),
            groups: nix::unistd::getgroups().unwrap(),
        }
    }

    fn run(program: &Program) -> Result<(Pid, OwnedFd), SpawnError> {
        let (output, stdout) = pipe2(OFlag::O_CLOEXEC).unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        let stdio = Stdio::Streams { stdin: null.as_fd(), stdout: stdout.as_fd(), stderr: stdout.as_fd() };
        spawn(program, &stdio, None).map(|pid| (pid, output))
    }

    #[test]
    fn a_program_runs_with_what_it_was_given() {
        if !Uid::current().is_root() {
            return; // setgroups needs root; the e2e tests cover it in a VM
        }
        let (pid, output) = run(&program("/bin/sh", &["sh", "-c", "echo $0 $A $(pwd) $#", "x|y"])).unwrap();
        let text = std::io::read_to_string(std::fs::File::from(output)).unwrap();
        assert_eq!(text, "x|y b c / 0\n");
        nix::sys::wait::waitpid(pid, None).unwrap();
    }

    #[test]
    fn a_failure_says_at_which_step() {
        if !Uid::current().is_root() {
            return;
        }
        let missing = run(&program("/no/such/program", &["x"])).unwrap_err();
        assert_eq!((missing.step, missing.error.raw_os_error()), (Step::Exec, Some(libc::ENOENT)));
        let mut nowhere = program("/bin/true", &["true"]);
        nowhere.dir = CString::new("/no/such/dir").unwrap();
        assert_eq!(run(&nowhere).unwrap_err().step, Step::Directory);
    }

    #[test]
    fn a_group_that_cannot_be_joined_is_a_failure() {
        let null = std::fs::File::open("/dev/null").unwrap();
        let stdio = Stdio::Streams { stdin: null.as_fd(), stdout: null.as_fd(), stderr: null.as_fd() };
        let failure = spawn(&program("/bin/true", &["true"]), &stdio, Some(null.as_fd())).unwrap_err();
        assert_eq!((failure.step, failure.error.raw_os_error()), (Step::Cgroup, Some(libc::EBADF)));
    }

    #[test]
    fn work_in_a_child_has_its_streams_and_no_other_descriptor() {
        use std::io::Read as _;
        let (output, stdout) = pipe2(OFlag::O_CLOEXEC).unwrap();
        let (stdin, input) = pipe2(OFlag::O_CLOEXEC).unwrap();
        nix::unistd::write(&input, b"words").unwrap();
        drop(input);
        let stdio = Stdio::Streams { stdin: stdin.as_fd(), stdout: stdout.as_fd(), stderr: stdout.as_fd() };
        let pid = run_in_child(&stdio, None, || {
            let mut text = String::new();
            let read = std::io::stdin().read_to_string(&mut text);
            let open = std::fs::read_dir("/proc/self/fd").unwrap().count();
            // one is the directory that is read
            i32::from(read.is_err() || writeln!(std::io::stderr(), "{text} {}", open - 1).is_err()) + 7
        });
        let pid = pid.unwrap();
        drop(stdout);
        let text = std::io::read_to_string(std::fs::File::from(output)).unwrap();
        assert_eq!(text, "words 3\n");
        let status = nix::sys::wait::waitpid(pid, None).unwrap();
        assert_eq!(status, nix::sys::wait::WaitStatus::Exited(pid, 7));
    }

    #[test]
    fn work_that_panics_ends_its_child_only() {
        let (output, stdout) = pipe2(OFlag::O_CLOEXEC).unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        let stdio = Stdio::Streams { stdin: null.as_fd(), stdout: stdout.as_fd(), stderr: stdout.as_fd() };
        let pid = run_in_child(&stdio, None, || panic!("on purpose")).unwrap();
        drop(stdout);
        let text = std::io::read_to_string(std::fs::File::from(output)).unwrap();
        assert!(text.starts_with("tether: bug: ") && text.contains("on purpose"), "{text}");
        let status = nix::sys::wait::waitpid(pid, None).unwrap();
        assert_eq!(status, nix::sys::wait::WaitStatus::Exited(pid, PANICKED));
    }
}
