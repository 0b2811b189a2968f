//! Programs started with rights, streams and failures of every kind.

use std::os::fd::AsFd as _;

use wire::spec::{ALL_CAPABILITIES, Capabilities};

use super::*;

/// Runs as whoever runs the tests: credentials stay as they are.
fn program(path: &str, argv: &[&str]) -> Program {
    let text = |text: &str| CString::new(text).unwrap();
    Program {
        executable: Executable::At(text(path)),
        argv: argv.iter().map(|arg| text(arg)).collect(),
        env: vec![text("A=b c")],
        dir: text("/"),
        uid: Uid::current(),
        gid: Gid::current(),
        groups: nix::unistd::getgroups().unwrap(),
        rights: Rights { capabilities: Capabilities { bounding: ALL_CAPABILITIES, ambient: 0 }, ..Rights::default() },
        fence: None,
    }
}

fn run(program: &Program) -> Result<(Pid, OwnedFd), SpawnError> {
    let (output, stdout) = pipe2(OFlag::O_CLOEXEC).unwrap();
    let null = std::fs::File::open("/dev/null").unwrap();
    let stdio = Stdio::Streams { stdin: null.as_fd(), stdout: stdout.as_fd(), stderr: stdout.as_fd() };
    spawn(program, &stdio, &[]).map(|pid| (pid, output))
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
fn what_the_machine_denies_comes_before_the_rights() {
    if !Uid::current().is_root() {
        return;
    }
    for (fence, filters) in [(None, "0"), (Some(crate::filter::without_vsock()), "2")] {
        let grep = program("/bin/grep", &["grep", "^Seccomp:", "/proc/self/status"]);
        let capabilities = Capabilities { bounding: 0, ambient: 0 };
        let (pid, output) =
            run(&Program { rights: Rights { capabilities, ..Rights::default() }, fence, ..grep }).unwrap();
        let text = std::io::read_to_string(std::fs::File::from(output)).unwrap();
        assert_eq!(text.split_ascii_whitespace().last(), Some(filters));
        nix::sys::wait::waitpid(pid, None).unwrap();
    }
}

#[test]
fn a_failure_says_at_which_step() {
    if !Uid::current().is_root() {
        return;
    }
    let missing = run(&program("/no/such/program", &["x"])).unwrap_err();
    assert_eq!((missing.step, missing.error.raw_os_error()), (Step::Find, Some(libc::ENOENT)));
    let mut nowhere = program("/bin/true", &["true"]);
    nowhere.dir = CString::new("/no/such/dir").unwrap();
    assert_eq!(run(&nowhere).unwrap_err().step, Step::Directory);
}

#[test]
fn a_group_that_cannot_be_joined_is_a_failure() {
    let null = std::fs::File::open("/dev/null").unwrap();
    let stdio = Stdio::Streams { stdin: null.as_fd(), stdout: null.as_fd(), stderr: null.as_fd() };
    let failure = spawn(&program("/bin/true", &["true"]), &stdio, &[null.as_fd()]).unwrap_err();
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
    let pid = run_in_child(&stdio, &[], || {
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
    let pid = run_in_child(&stdio, &[], || panic!("on purpose")).unwrap();
    drop(stdout);
    let text = std::io::read_to_string(std::fs::File::from(output)).unwrap();
    assert!(text.starts_with("tether: bug: ") && text.contains("on purpose"), "{text}");
    let status = nix::sys::wait::waitpid(pid, None).unwrap();
    assert_eq!(status, nix::sys::wait::WaitStatus::Exited(pid, PANICKED));
}

/// In a child, since it is the test's own streams that are closed.
#[test]
fn a_program_has_its_streams_though_its_parent_has_none() {
    if !Uid::current().is_root() {
        return;
    }
    let null = std::fs::File::open("/dev/null").unwrap();
    let stdio = Stdio::Streams { stdin: null.as_fd(), stdout: null.as_fd(), stderr: null.as_fd() };
    let pid = run_in_child(&stdio, &[], || {
        for fd in 0..3 {
            // SAFETY: the child's own copies, which nothing of it uses again.
            unsafe { libc::close(fd) };
        }
        // these are 0 to 3, and not in the order of the streams
        let (output, stdout) = pipe2(OFlag::O_CLOEXEC).unwrap();
        let (stdin, input) = pipe2(OFlag::O_CLOEXEC).unwrap();
        nix::unistd::write(&input, b"in").unwrap();
        drop(input);
        let stdio = Stdio::Streams { stdin: stdin.as_fd(), stdout: stdout.as_fd(), stderr: stdout.as_fd() };
        let script = "cat; echo out; echo err >&2; ls /proc/self/fd | tr '\n' ' '";
        let started = spawn(&program("/bin/sh", &["sh", "-c", script]), &stdio, &[]).is_ok();
        drop(stdout);
        let text = std::io::read_to_string(std::fs::File::from(output)).unwrap();
        // 3 is the directory that is listed
        i32::from(!started || text != "inout\nerr\n0 1 2 3 ")
    });
    let pid = pid.unwrap();
    assert_eq!(nix::sys::wait::waitpid(pid, None), Ok(nix::sys::wait::WaitStatus::Exited(pid, 0)));
}
