//! From a spec's process, or one beside it, to a running one: program, user, directory, standard streams. Texts are docker's.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use guest::cgroup::Cgroup;
use guest::sys::spawn::{Program, SpawnError, Stdio, Step, spawn};
use guest::sys::terminal;
use nix::unistd::Pid;
use wire::message::Exec;
use wire::spec::{Environment, Process};
use wire::status::{Failure, FailureKind};

use crate::account;
use crate::pipes::{Pipes, Place, Streams, set_nonblocking};

/// A started process and our ends of its streams. None of them blocks.
pub(crate) struct Launched {
    pub(crate) pid: Pid,
    pub(crate) streams: Streams,
    /// How many processes the kernel had killed for lack of memory before.
    pub(crate) oom_kills: u64,
}

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Starts it in the root that is the root.
pub(crate) fn launch(process: &Process, place: Place, cgroup: &Cgroup) -> Result<Launched, Failure> {
    let account = account::resolve(Path::new("/"), &process.user)?;
    let mut env = process.env.clone();
    if env.get("HOME").is_none() {
        env.set(format!("HOME={}", account.home));
    }
    if place == Place::Main {
        make_dir(&process.dir)?;
    }
    let name = &process.argv[0];
    let program = Program {
        path: c_string(&find_program(name, &process.dir, &env)?)?,
        argv: process.argv.iter().map(|arg| c_string(arg)).collect::<Result<_, _>>()?,
        env: env.0.iter().map(|entry| c_string(entry)).collect::<Result<_, _>>()?,
        dir: c_string(&process.dir)?,
        uid: account.uid,
        gid: account.gid,
        groups: account.groups,
    };
    let failed = |error: SpawnError| spawn_failure(name, &process.dir, &error);
    let streams_failed = |error: io::Error| streams_failure(&error);
    let oom_kills = cgroup.oom_kills();
    let (pid, streams) = match process.terminal {
        Some(size) => {
            let (master, slave) = terminal::open(size).map_err(streams_failed)?;
            // its user may open it again by name
            nix::unistd::fchown(&slave, Some(account.uid), None).map_err(|errno| streams_failed(errno.into()))?;
            set_nonblocking(&master).map_err(streams_failed)?;
            let pid = spawn(&program, &Stdio::Terminal(slave.as_fd()), cgroup.procs_fd()).map_err(failed)?;
            (pid, Streams::Terminal(master))
        }
        None => {
            let pipes = Pipes::open(process.stdin, place, account.uid).map_err(streams_failed)?;
            let pid = spawn(&program, &pipes.stdio(), cgroup.procs_fd()).map_err(failed)?;
            (pid, pipes.ours)
        }
    };
    Ok(Launched { pid, streams, oom_kills })
}

/// The process that an exec asks for, in a container whose main process is `main`. What it does not say is as there.
///
/// A home directory is not taken over: it is its user's, unless somebody says otherwise.
pub(crate) fn beside(main: &Process, exec: Exec) -> Result<Process, String> {
    let Exec { argv, env: own, dir, user, terminal, stdin, attach } = exec;
    if argv.is_empty() {
        return Err("no program is named".into());
    }
    if !dir.is_empty() && !dir.starts_with('/') {
        return Err(format!("the working directory {dir:?} is not an absolute path"));
    }
    let mut env = main.env.clone();
    own.0.into_iter().for_each(|entry| env.set(entry));
    let or_mains = |own: String, mains: &String| if own.is_empty() { mains.clone() } else { own };
    let (dir, user) = (or_mains(dir, &main.dir), or_mains(user, &main.user));
    let rights = main.rights.clone();
    Ok(Process { env, dir, user, terminal, stdin, attach, rights, ..Process::new(argv) })
}

/// As docker does for a working directory that the image lacks.
fn make_dir(dir: &str) -> Result<(), Failure> {
    match fs::create_dir_all(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(not_executable(format!("the working directory {dir} is not a directory")))
        }
        Err(error) => Err(machine(format!("cannot make the working directory {dir}: {error}"))),
        Ok(()) => Ok(()),
    }
}

/// The file that a name means: as it is when it holds a `/`, else the first executable of `PATH`.
fn find_program(name: &str, dir: &str, env: &Environment) -> Result<String, Failure> {
    if name.contains('/') {
        let path = Path::new(dir).join(name);
        check_executable(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                not_found(format!("exec: {name:?}: stat {name}: no such file or directory"))
            }
            io::ErrorKind::IsADirectory => not_executable(format!("exec: {name:?}: is a directory")),
            io::ErrorKind::PermissionDenied => not_executable(format!("exec: {name:?}: permission denied")),
            _ => not_executable(format!("exec: {name:?}: {error}")),
        })?;
        return Ok(path.to_string_lossy().into_owned());
    }
    let mut denied = false;
    for entry in env.get("PATH").unwrap_or(DEFAULT_PATH).split(':') {
        let path = Path::new(dir).join(entry).join(name);
        match check_executable(&path) {
            Ok(()) => return Ok(path.to_string_lossy().into_owned()),
            Err(error) => denied |= error.kind() == io::ErrorKind::PermissionDenied,
        }
    }
    match denied {
        true => Err(not_executable(format!("exec: {name:?}: permission denied"))),
        false => Err(not_found(format!("exec: {name:?}: executable file not found in $PATH"))),
    }
}

fn check_executable(path: &Path) -> io::Result<()> {
    let meta = fs::metadata(path)?;
    if meta.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    match meta.permissions().mode() & 0o111 {
        0 => Err(io::ErrorKind::PermissionDenied.into()),
        _ => Ok(()),
    }
}

pub(crate) fn spawn_failure(name: &str, dir: &str, failure: &SpawnError) -> Failure {
    let error = &failure.error;
    match (failure.step, error.raw_os_error()) {
        // the file is there: what is missing is its interpreter
        (Step::Exec, Some(nix::libc::ENOENT)) => {
            not_found(format!("exec: {name:?}: its interpreter or loader: no such file or directory"))
        }
        (Step::Exec, Some(nix::libc::ENOEXEC)) => not_executable(format!("exec: {name:?}: exec format error")),
        (Step::Exec, Some(nix::libc::EACCES)) => not_executable(format!("exec: {name:?}: permission denied")),
        (Step::Exec, _) => not_executable(format!("exec: {name:?}: {error}")),
        (Step::Directory, _) => not_executable(format!("cannot enter the working directory {dir}: {error}")),
        (Step::Credentials, _) => machine(format!("cannot become the user: {error}")),
        (Step::Stdio, _) => machine(format!("cannot set the standard streams: {error}")),
        (Step::Cgroup, _) => machine(format!("cannot join the container's control group: {error}")),
        (Step::Fork, _) => machine(format!("cannot make a process: {error}")),
    }
}

pub(crate) fn streams_failure(error: &io::Error) -> Failure {
    machine(format!("cannot make the standard streams: {error}"))
}

fn c_string(text: &str) -> Result<CString, Failure> {
    CString::new(text)
        .map_err(|_| Failure { kind: FailureKind::Spec, reason: "an argument or variable holds a NUL byte".into() })
}

fn not_found(reason: String) -> Failure {
    Failure { kind: FailureKind::ProgramNotFound, reason }
}

fn not_executable(reason: String) -> Failure {
    Failure { kind: FailureKind::NotExecutable, reason }
}

pub(crate) fn machine(reason: String) -> Failure {
    Failure { kind: FailureKind::Machine, reason }
}

#[cfg(test)]
mod tests {
    use wire::spec::TermSize;

    use super::*;

    fn check(name: &str, path: &str, kind: FailureKind, reason: &str) {
        let env = Environment(vec![format!("PATH={path}")]);
        let expected = Failure { kind, reason: reason.into() };
        assert_eq!(find_program(name, "/", &env).unwrap_err(), expected);
    }

    #[test]
    fn what_an_exec_does_not_say_is_as_in_the_main_process() {
        let main = Process {
            env: Environment(vec!["A=1".into(), "B=2".into()]),
            dir: "/srv".into(),
            user: "www".into(),
            terminal: Some(TermSize { rows: 1, columns: 2 }),
            stdin: true,
            stop_signal: 3,
            ..Process::new(vec!["main".into()])
        };
        let exec = Exec {
            argv: vec!["id".into()],
            env: Environment(vec!["B=3".into(), "C=".into()]),
            dir: String::new(),
            user: String::new(),
            terminal: None,
            stdin: false,
            attach: false,
        };
        let process = beside(&main, exec.clone()).unwrap();
        assert_eq!(process.env.0, ["A=1", "B=3", "C="]);
        assert_eq!((process.dir.as_str(), process.user.as_str()), ("/srv", "www"));
        assert_eq!((process.terminal, process.stdin, process.attach), (None, false, false));
        let said = Exec { dir: "/tmp".into(), user: "0:0".into(), ..exec.clone() };
        let process = beside(&main, said).unwrap();
        assert_eq!((process.dir.as_str(), process.user.as_str()), ("/tmp", "0:0"));
        let relative = beside(&main, Exec { dir: "tmp".into(), ..exec.clone() }).unwrap_err();
        assert_eq!(relative, "the working directory \"tmp\" is not an absolute path");
        assert_eq!(beside(&main, Exec { argv: Vec::new(), ..exec }).unwrap_err(), "no program is named");
    }

    #[test]
    fn programs_are_found_as_a_shell_finds_them() {
        let env = Environment(vec!["PATH=/nowhere:/bin:/usr/bin".into()]);
        assert_eq!(find_program("sh", "/", &env).unwrap(), "/bin/sh");
        assert_eq!(find_program("./sh", "/bin", &env).unwrap(), "/bin/./sh");
        assert_eq!(find_program("sh", "/", &Environment::default()).unwrap(), "/usr/bin/sh");
    }

    #[test]
    fn what_cannot_run_is_said_in_dockers_words() {
        use FailureKind::{NotExecutable, ProgramNotFound};
        check("nosuchcmd", "/bin", ProgramNotFound, "exec: \"nosuchcmd\": executable file not found in $PATH");
        check("/nosuch", "", ProgramNotFound, "exec: \"/nosuch\": stat /nosuch: no such file or directory");
        check("/etc/passwd", "", NotExecutable, "exec: \"/etc/passwd\": permission denied");
        check("passwd", "/etc", NotExecutable, "exec: \"passwd\": permission denied");
        check("/etc", "", NotExecutable, "exec: \"/etc\": is a directory");
    }
}
