//! `vch` as a user starts it: arguments, standard streams, exit code. It has a state folder of its own, and a deadline.

use std::ffi::OsStr;
use std::io::{Read, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::artifacts;

/// The longest that one command may take: emulated machines on a busy computer are slow.
pub const DEADLINE: Duration = Duration::from_secs(300);

/// A `vch` to be.
pub struct Run {
    pub(crate) command: Command,
    pub(crate) state: TempDir,
    stdin: Vec<u8>,
}

/// A `vch` that is done.
#[derive(Debug)]
pub struct Output {
    pub code: i32,
    pub stdout: Vec<u8>,
    pub stderr: String,
    /// From start to the first byte of stdout.
    pub first_byte: Option<Duration>,
}

/// `vch run` with these arguments, options first.
pub fn run<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Run {
    let mut run = command("run");
    run.command.args(args);
    run
}

/// One of `vch`'s commands.
pub fn command(name: &str) -> Run {
    let state = tempfile::tempdir().expect("a temporary folder");
    let mut command = Command::new(artifacts::program("vch"));
    command.arg(name).env("XDG_STATE_HOME", state.path());
    Run { command, state, stdin: Vec::new() }
}

/// Docker's own client, of the daemon at `host`; what it has in its home folder is this run's alone.
pub fn docker(host: &str) -> Run {
    let state = tempfile::tempdir().expect("a temporary folder");
    let mut command = Command::new("docker");
    command.env("DOCKER_CONFIG", state.path().join("docker")).env("HOME", state.path());
    for variable in ["DOCKER_HOST", "DOCKER_TLS", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_CONTEXT"] {
        command.env_remove(variable);
    }
    command.args(["--host", host]);
    Run { command, state, stdin: Vec::new() }
}

/// `vch run --rm OPTIONS… busybox COMMAND…`.
pub fn busybox<'a>(options: &[&'a str], command: &[&'a str]) -> Run {
    let image = artifacts::dist("busybox.tar");
    let words = ["--rm"].iter().chain(options).map(OsStr::new).chain([image.as_os_str()]);
    run(words.chain(command.iter().map(OsStr::new)))
}

/// `vch run --rm busybox sh -c SCRIPT`.
pub fn shell(options: &[&str], script: &str) -> Run {
    busybox(options, &["sh", "-c", script])
}

impl Run {
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Run {
        self.command.args(args);
        self
    }

    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Run {
        self.command.env(name, value);
        self
    }

    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Run {
        self.stdin = bytes.into();
        self
    }

    /// The folder of states, `containers/ID` below `tether/`.
    pub fn state(&self) -> &Path {
        self.state.path()
    }

    /// Runs to the end.
    pub fn output(self) -> Output {
        self.start().finish()
    }

    /// Starts it; standard input is written from aside.
    pub fn start(mut self) -> Running {
        let began = Instant::now();
        let mut child = self
            .command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{:?}: {error}", self.command));
        let mut stdin = child.stdin.take().expect("piped");
        let bytes = std::mem::take(&mut self.stdin);
        // a container that reads nothing closes it
        thread::spawn(move || stdin.write_all(&bytes).ok());
        let (first, first_byte) = mpsc::channel();
        let mut pipe = child.stdout.take().expect("piped");
        let stdout = thread::spawn(move || {
            let (mut all, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
            loop {
                match pipe.read(&mut buffer) {
                    Ok(0) | Err(_) => return all,
                    Ok(count) => {
                        if all.is_empty() {
                            first.send(began.elapsed()).ok();
                        }
                        all.extend_from_slice(&buffer[..count]);
                    }
                }
            }
        });
        let mut pipe = child.stderr.take().expect("piped");
        let stderr = thread::spawn(move || {
            let mut all = Vec::new();
            pipe.read_to_end(&mut all).ok();
            String::from_utf8_lossy(&all).into_owned()
        });
        Running { child, stdout, stderr, first_byte, state: self.state }
    }
}

/// A `vch` under way.
pub struct Running {
    child: Child,
    stdout: thread::JoinHandle<Vec<u8>>,
    stderr: thread::JoinHandle<String>,
    first_byte: mpsc::Receiver<Duration>,
    state: TempDir,
}

impl Running {
    /// Waits for the first byte of the container's output.
    pub fn wait_for_output(&self) -> Duration {
        self.first_byte.recv_timeout(DEADLINE).expect("no output came")
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("it runs");
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    pub fn state(&self) -> &Path {
        self.state.path()
    }

    /// Waits for the end.
    pub fn finish(self) -> Output {
        self.finish_with(|| ())
    }

    /// Waits for the end, and looks at what it left before the state folder goes.
    pub fn finish_with(mut self, look: impl FnOnce()) -> Output {
        let code = wait(&mut self.child);
        look();
        let first_byte = self.first_byte.try_recv().ok();
        Output {
            code,
            stdout: self.stdout.join().expect("the reader"),
            stderr: self.stderr.join().expect("the reader"),
            first_byte,
        }
    }
}

impl Output {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The output of a run that must have ended well.
    pub fn success(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.text()
    }

    /// Asserts a failure of `vch` itself: the code, and one line that holds every one of `parts`.
    pub fn fails(self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        assert_eq!(self.stderr.trim_end().lines().count(), 1, "one line: {:?}", self.stderr);
        for part in parts {
            assert!(self.stderr.contains(part), "{part:?} is not in {:?}", self.stderr);
        }
    }
}

/// The exit code; 128 + n for a signal. Past the deadline it is killed, and the test fails.
pub fn wait(child: &mut Child) -> i32 {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(status) = child.try_wait().expect("a child of ours") {
            use std::os::unix::process::ExitStatusExt as _;
            return status.code().or(status.signal().map(|signal| 128 + signal)).expect("it has ended");
        }
        if Instant::now() > deadline {
            child.kill().ok();
            panic!("still running after {DEADLINE:?}");
        }
        thread::sleep(Duration::from_millis(2));
    }
}
