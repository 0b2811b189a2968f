//! From a spec's process, or one beside it, to a running one: program, user, directory, standard streams. Texts are docker's.

use std::ffi::CString;
use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;

use guest::cgroup::Cgroup;
use guest::sys::spawn::{Executable, Program, SpawnError, Stdio, Step, spawn};
use guest::sys::terminal;
use guest::{filter, image, vmware};
use nix::errno::Errno;
use nix::unistd::Pid;
use wire::guestinfo::{capability_name, limit_name};
use wire::message::Exec;
use wire::spec::{ALL_CAPABILITIES, Environment, Process};
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
    let account = account::resolve(&process.user, &process.groups)?;
    let mut env = Environment::default();
    // of a name that is there twice, the last counts
    process.env.0.iter().for_each(|entry| env.set(entry.clone()));
    if env.get("HOME").is_none_or(str::is_empty) {
        env.set(format!("HOME={}", account.home));
    }
    if place == Place::Main {
        make_dir(&process.dir)?;
    }
    let name = &process.argv[0];
    let program = Program {
        executable: executable(name, &env)?,
        argv: process.argv.iter().map(|arg| c_string(arg)).collect::<Result<_, _>>()?,
        env: env.0.iter().map(|entry| c_string(entry)).collect::<Result<_, _>>()?,
        dir: c_string(&process.dir)?,
        uid: account.uid,
        gid: account.gid,
        groups: account.groups,
        rights: process.rights.clone(),
        fence: (process.rights.capabilities.bounding != ALL_CAPABILITIES && vmware::is_here())
            .then(filter::without_vsock),
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
            let pid = spawn(&program, &Stdio::Terminal(slave.as_fd()), &cgroup.procs()).map_err(failed)?;
            (pid, Streams::Terminal(master))
        }
        None => {
            let pipes = Pipes::open(process.stdin, place, account.uid).map_err(streams_failed)?;
            let pid = spawn(&program, &pipes.stdio(), &cgroup.procs()).map_err(failed)?;
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
    let (groups, rights) = (main.groups.clone(), main.rights.clone());
    Ok(Process { env, dir, user, groups, terminal, stdin, attach, rights, ..Process::new(argv) })
}

/// As docker does for a working directory that the image lacks.
fn make_dir(dir: &str) -> Result<(), Failure> {
    match image::make_dir(Path::new("/"), dir) {
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            Err(not_executable(format!("the working directory {dir} is not a directory")))
        }
        Err(error) => Err(machine(format!("cannot make the working directory {dir}: {error}"))),
        Ok(()) => Ok(()),
    }
}

/// The files that a name may mean: itself when it holds a `/`, else one in each element of `PATH`. An empty element is the working directory.
fn executable(name: &str, env: &Environment) -> Result<Executable, Failure> {
    if name.contains('/') {
        return Ok(Executable::At(c_string(name)?));
    }
    let path = env.get("PATH").unwrap_or(DEFAULT_PATH);
    let elements = path.split(':').filter(|_| !path.is_empty());
    let places = elements.map(|element| match element {
        "" => c_string(&format!("./{name}")),
        element => c_string(&format!("{element}/{name}")),
    });
    Ok(Executable::InPath(places.collect::<Result<_, _>>()?))
}

pub(crate) fn spawn_failure(name: &str, dir: &str, failure: &SpawnError) -> Failure {
    let error = &failure.error;
    let errno = error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw);
    // as Go, and so docker, says it
    let said = || errno.desc().to_lowercase();
    match failure.step {
        Step::Find if !name.contains('/') => not_found(format!("exec: {name:?}: executable file not found in $PATH")),
        Step::Find => {
            let reason = format!("exec: {name:?}: stat {name}: {}", said());
            if matches!(errno, Errno::ENOENT | Errno::ENOTDIR) { not_found(reason) } else { not_executable(reason) }
        }
        Step::FindHere => {
            not_executable(format!("exec: {name:?}: cannot run executable found relative to current directory"))
        }
        // the file is there: what is missing is its interpreter
        Step::Exec if errno == Errno::ENOENT => {
            not_found(format!("exec: {name:?}: its interpreter or loader: no such file or directory"))
        }
        Step::Exec | Step::Access => not_executable(format!("exec: {name:?}: {}", said())),
        Step::Directory => {
            let reason = format!("chdir to cwd ({dir:?}) set in config.json failed: {}", said());
            if errno == Errno::ENOENT { not_found(reason) } else { not_executable(reason) }
        }
        Step::Credentials => machine(format!("cannot become the user: {error}")),
        Step::Stdio => machine(format!("cannot set the standard streams: {error}")),
        Step::Cgroup => machine(format!("cannot join the container's control group: {error}")),
        Step::OomScore => machine(format!("cannot set the OOM score: {error}")),
        Step::Limit => machine(format!("cannot set the limit {}: {error}", limit_name(failure.which))),
        Step::NoNewPrivileges => machine(format!("cannot renounce new privileges: {error}")),
        Step::Seccomp => machine(format!("cannot load the filter of system calls (seccomp): {error}")),
        Step::Capability => machine(format!("cannot set the capability {}: {error}", capability_name(failure.which))),
        Step::Fork => machine(format!("cannot make a process: {error}")),
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
    use wire::spec::{Rights, TermSize};

    use super::*;

    #[test]
    fn what_an_exec_does_not_say_is_as_in_the_main_process() {
        let main = Process {
            env: Environment(vec!["A=1".into(), "B=2".into()]),
            dir: "/srv".into(),
            user: "www".into(),
            terminal: Some(TermSize { rows: 1, columns: 2 }),
            stdin: true,
            stop_signal: 3,
            groups: vec!["audio".into()],
            rights: Rights { no_new_privileges: true, oom_score: 7, ..Rights::default() },
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
        assert_eq!((&process.groups, &process.rights), (&main.groups, &main.rights));
        let said = Exec { dir: "/tmp".into(), user: "0:0".into(), ..exec.clone() };
        let process = beside(&main, said).unwrap();
        assert_eq!((process.dir.as_str(), process.user.as_str()), ("/tmp", "0:0"));
        let relative = beside(&main, Exec { dir: "tmp".into(), ..exec.clone() }).unwrap_err();
        assert_eq!(relative, "the working directory \"tmp\" is not an absolute path");
        assert_eq!(beside(&main, Exec { argv: Vec::new(), ..exec }).unwrap_err(), "no program is named");
    }

    #[test]
    fn a_name_is_looked_for_where_docker_looks() {
        let text = |text: &str| CString::new(text).unwrap();
        let places = |name, path: Option<&str>| {
            let env = Environment(path.map(|path| format!("PATH={path}")).into_iter().collect());
            match executable(name, &env).unwrap() {
                Executable::At(path) => vec![path],
                Executable::InPath(places) => places,
            }
        };
        assert_eq!(places("sh", Some("/a::b:/c/")), ["/a/sh", "./sh", "b/sh", "/c//sh"].map(text));
        assert_eq!(places("sh", Some("")), [] as [CString; 0]);
        assert_eq!(places("sh", None).len(), 6);
        assert_eq!(places("./sh", Some("/a")), [text("./sh")]);
        assert!(executable("a\0b", &Environment::default()).is_err());
    }

    #[test]
    fn what_cannot_run_is_said_in_dockers_words() {
        use FailureKind::{Machine, NotExecutable, ProgramNotFound};
        let check = |name: &str, step, errno: Errno, kind, reason: &str| {
            let failure = spawn_failure(name, "/srv", &SpawnError { step, which: 7, error: errno.into() });
            assert_eq!(failure, Failure { kind, reason: reason.into() });
        };
        let missing = "exec: \"x\": executable file not found in $PATH";
        check("x", Step::Find, Errno::ENOENT, ProgramNotFound, missing);
        check("/x", Step::Find, Errno::ENOENT, ProgramNotFound, "exec: \"/x\": stat /x: no such file or directory");
        check("./x/y", Step::Find, Errno::ENOTDIR, ProgramNotFound, "exec: \"./x/y\": stat ./x/y: not a directory");
        check("/x", Step::Find, Errno::EACCES, NotExecutable, "exec: \"/x\": stat /x: permission denied");
        check("/x", Step::Access, Errno::EACCES, NotExecutable, "exec: \"/x\": permission denied");
        check("/x", Step::Access, Errno::EISDIR, NotExecutable, "exec: \"/x\": is a directory");
        check("x", Step::Exec, Errno::ENOEXEC, NotExecutable, "exec: \"x\": exec format error");
        let relative = "exec: \"x\": cannot run executable found relative to current directory";
        check("x", Step::FindHere, Errno::ENOENT, NotExecutable, relative);
        let directory = |why| format!("chdir to cwd (\"/srv\") set in config.json failed: {why}");
        check("x", Step::Directory, Errno::EACCES, NotExecutable, &directory("permission denied"));
        check("x", Step::Directory, Errno::ENOENT, ProgramNotFound, &directory("no such file or directory"));
        let os = "Operation not permitted (os error 1)";
        check("x", Step::Limit, Errno::EPERM, Machine, &format!("cannot set the limit nofile: {os}"));
        check("x", Step::Capability, Errno::EPERM, Machine, &format!("cannot set the capability SETUID: {os}"));
    }
}
