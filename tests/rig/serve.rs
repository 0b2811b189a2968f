//! `vch serve` that a test kills and starts again on the same paths, its clients, and the machines that connect to it.

use std::fs::{self, File, Permissions};
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use wire::handshake::MasterKey;
use wire::spec::Spec;

use crate::artifacts;
use crate::host::PATIENCE;
use crate::machine::Machine;
use crate::vch::{self, Run};

/// The rig's machines are nobody's secret.
const MASTER_KEY: &str = "c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00";

/// A `vch serve`, or the place where there was one.
pub struct Serve {
    dir: TempDir,
    child: Option<Child>,
    options: Vec<String>,
    hypervisor: &'static str,
    /// The network namespace that it is started in, unless that is the test's own.
    network: Option<Network>,
    environment: Vec<(&'static str, PathBuf)>,
}

/// A network namespace of a test's own, for as long as something runs in it.
pub struct Network {
    holder: Child,
}

impl Network {
    /// A new one, with its loopback up; an error where none can be made.
    pub fn new() -> Result<Network, String> {
        let script = "ip link set lo up && echo up && exec sleep 100000";
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", script]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut holder = command.spawn().map_err(|error| format!("cannot run unshare: {error}"))?;
        let mut up = [0; 3];
        let told = holder.stdout.as_mut().expect("piped").read_exact(&mut up);
        // whoever holds nothing has ended
        let network = Network { holder };
        told.map(|()| network).map_err(|_| "no network namespace can be made".into())
    }

    /// A command in it, which is its program's own process.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.holder.id())).arg(program);
        command
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.holder.kill().ok();
        self.holder.wait().ok();
    }
}

impl Serve {
    pub fn start() -> Serve {
        Serve::start_with(&[])
    }

    /// With more options; `STATE` in them is its directory of what must last.
    pub fn start_with(options: &[&str]) -> Serve {
        Serve::begin("none", options, None, &[])
    }

    /// One that makes machines, with QEMU, and keeps the image `busybox`.
    pub fn with_qemu(options: &[&str]) -> Serve {
        Serve::begin("qemu", options, None, &[]).with_busybox()
    }

    /// The same, whose machines are clones where they can be; its templates are its own. `qemu` is the program that makes its machines, if that is not the usual one.
    pub fn that_clones(wish: &str, qemu: Option<&Path>) -> Serve {
        let mut environment = vec![("VCH_TEMPLATE_IDLE", "20".into())];
        environment.extend(qemu.map(|program| ("VCH_QEMU", program.to_owned())));
        let serve = Serve::begin("qemu", &["--clone", wish], None, &environment);
        serve.with_busybox()
    }

    /// The same in a network namespace, which lasts as long as it.
    pub fn with_qemu_in(network: Network, options: &[&str]) -> Serve {
        Serve::begin("qemu", options, Some(network), &[]).with_busybox()
    }

    fn with_busybox(self) -> Serve {
        let serve = self;
        let archive = artifacts::dist("busybox.tar");
        serve.until_docker_answers();
        serve.docker(&["load", "-q", "-i", archive.to_str().expect("a path of ours")]).output().success();
        serve
    }

    /// Waits until docker's client is answered.
    pub fn until_docker_answers(&self) {
        let deadline = Instant::now() + PATIENCE;
        while self.docker(&["version", "--format", "{{.Server.Version}}"]).output().code != 0 {
            assert!(Instant::now() < deadline, "docker is not answered: {}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The processes of its machines.
    pub fn machines(&self) -> Vec<Pid> {
        self.processes(|words| words.split('\0').next().is_some_and(|program| program.contains("qemu-system")))
    }

    /// The processes that keep templates of its own.
    pub fn keepers(&self) -> Vec<Pid> {
        self.processes(|words| words.split('\0').nth(1) == Some("keep-template"))
    }

    /// Those of a kind whose command line names its directory.
    fn processes(&self, is_one: impl Fn(&str) -> bool) -> Vec<Pid> {
        let own = self.dir.path().display().to_string();
        let processes = fs::read_dir("/proc").expect("proc").flatten();
        let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let is_ours = |pid: &i32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).into_owned();
            is_one(&line) && line.contains(&own)
        };
        pids.filter(is_ours).map(Pid::from_raw).collect()
    }

    fn begin(
        hypervisor: &'static str,
        options: &[&str],
        network: Option<Network>,
        environment: &[(&'static str, PathBuf)],
    ) -> Serve {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let key = dir.path().join("master.key");
        fs::write(&key, format!("{MASTER_KEY}\n")).expect("a file");
        fs::set_permissions(&key, Permissions::from_mode(0o600)).expect("a file of ours");
        let state = dir.path().join("state").display().to_string();
        let options = options.iter().map(|option| option.replace("STATE", &state)).collect();
        let mut environment = environment.to_vec();
        if !environment.is_empty() {
            // its sockets, and its keepers', are its own; machines, which are other users, reach theirs
            for (variable, name) in [("XDG_RUNTIME_DIR", "run"), ("XDG_CACHE_HOME", "cache")] {
                fs::create_dir(dir.path().join(name)).expect("a folder of ours");
                environment.push((variable, dir.path().join(name)));
            }
            fs::set_permissions(dir.path(), Permissions::from_mode(0o711)).expect("a folder of ours");
        }
        let mut serve = Serve { dir, child: None, options, hypervisor, network, environment };
        serve.start_again();
        serve
    }

    /// A command in its network namespace.
    pub fn beside(&self, program: &str) -> Command {
        self.network.as_ref().map_or_else(|| Command::new(program), |network| network.command(program))
    }

    /// What another one says in its network namespace, on the same state and with these options, which has to end by itself.
    pub fn refused(&self, before: &[&str], options: &[&str]) -> String {
        let output = self
            .beside("timeout")
            .arg("120")
            .args(before)
            .arg(artifacts::program("vch"))
            .args(["serve", "--state", self.state().to_str().expect("a path of ours")])
            .args(["--control", &format!("unix://{}", self.path("second.sock").display())])
            .args(["--host", &format!("unix://{}", self.path("second-docker.sock").display())])
            .args(["--master-key", self.master_key().to_str().expect("a path of ours")])
            .args(options)
            .output()
            .expect("timeout is of coreutils");
        assert_eq!(output.status.code(), Some(125), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The file of its master key.
    pub fn master_key(&self) -> PathBuf {
        self.path("master.key")
    }

    /// Where machines connect.
    pub fn links(&self) -> PathBuf {
        self.path("links.sock")
    }

    /// Its directory of what must last.
    pub fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// Where docker connects, as `docker --host` has it.
    pub fn docker_host(&self) -> String {
        format!("unix://{}", self.path("docker.sock").display())
    }

    /// Docker's own client, of this serve.
    pub fn docker(&self, args: &[&str]) -> Run {
        vch::docker(&self.docker_host()).args(args)
    }

    /// Docker's own client, of what this serve has at another address.
    pub fn docker_at(&self, host: &str, args: &[&str]) -> Run {
        vch::docker(host).args(args)
    }

    /// Where it listens, by the first address of that kind that it tells: `scheme` with `://`.
    pub fn address(&self, scheme: &str) -> SocketAddr {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let log = self.log();
            let end = |char: char| char.is_whitespace() || char == ',';
            // a line that is not whole may hold half an address
            let whole = &log[..log.rfind('\n').unwrap_or(0)];
            let told = whole.split(scheme).nth(1).and_then(|rest| rest.split(end).next()?.parse().ok());
            if let Some(address) = told {
                return address;
            }
            assert!(Instant::now() < deadline, "serve does not tell of {scheme}: {log}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn send(&self, signal: Signal) {
        let child = self.child.as_ref().expect("it runs");
        kill(Pid::from_raw(child.id().cast_signed()), signal).expect("a child of ours");
    }

    /// What it holds in memory (proc(5), `VmRSS`), in KiB.
    pub fn resident_kib(&self) -> u64 {
        let child = self.child.as_ref().expect("it runs");
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("every process has one");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// Waits until docker knows a container by this name, and its process runs.
    pub fn wait_for_docker(&self, name: &str) {
        let deadline = Instant::now() + PATIENCE;
        let running = ["ps", "--format", "{{.Names}}", "--filter", "status=running"];
        while !self.docker(&running).output().text().lines().any(|line| line == name) {
            assert!(Instant::now() < deadline, "no container {name} runs: {}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn control(&self) -> String {
        format!("unix://{}", self.path("control.sock").display())
    }

    /// Starts one where the last one was.
    pub fn start_again(&mut self) {
        let log = File::options().create(true).append(true).open(self.path("log")).expect("a file");
        let program = artifacts::program("vch");
        let command = self.network.as_ref().map(|network| network.command(&program));
        let child = command
            .unwrap_or_else(|| Command::new(&program))
            .args(["serve", "--hypervisor", self.hypervisor, "--link-listen"])
            .arg(format!("unix://{}", self.path("links.sock").display()))
            .arg("--master-key")
            .arg(self.path("master.key"))
            .args(["--control", &self.control()])
            .arg("--state")
            .arg(self.path("state"))
            .args(["--host", &self.docker_host()])
            .args(&self.options)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("vch serve");
        self.child = Some(child);
    }

    /// What another one says that is started on the same state, with sockets of its own, and has to end by itself.
    pub fn second(&self) -> String {
        let control = format!("unix://{}", self.path("second.sock").display());
        let output = vch::command("serve")
            .args(["--hypervisor", self.hypervisor, "--control", &control, "--master-key"])
            .args([self.master_key().to_str().expect("a path of ours")])
            .args(["--state", self.state().to_str().expect("a path of ours")])
            .args(["--host", &format!("unix://{}", self.path("second-docker.sock").display())])
            .output();
        assert_ne!(output.code, 0, "{output:?}");
        output.stderr
    }

    /// Ends it as an init system does, and waits for that.
    pub fn end(&mut self) {
        self.send(Signal::SIGTERM);
        let child = self.child.as_mut().expect("it runs");
        crate::engine::until("serve ends", || child.try_wait().expect("a child of ours").is_some());
        self.child = None;
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("a child of ours");
            child.wait().expect("a child of ours");
        }
    }

    /// What every serve here has said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// A machine that connects to it, under the id and with the key that this gives the spec.
    pub fn machine(&self, id: &str, spec: &mut Spec, disk: PathBuf) -> Machine {
        spec.id = id.into();
        spec.link.key = MasterKey::from_hex(MASTER_KEY).expect("64 digits").link_key(id);
        let mut machine = Machine::new(spec, Some(disk));
        machine.link_connects = Some(self.links());
        machine
    }

    /// A connection where machines connect.
    pub fn stranger(&self) -> UnixStream {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match UnixStream::connect(self.path("links.sock")) {
                Ok(stream) => return stream,
                Err(error) => assert!(Instant::now() < deadline, "serve does not listen: {error}; {}", self.log()),
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// A command that uses it.
    pub fn command(&self, name: &str, args: &[&str]) -> Run {
        vch::command(name).args(args).env("VCH_CONTROL", self.control())
    }

    /// A command whose streams are in the test's hands.
    pub fn client(&self, name: &str, args: &[&str]) -> Client {
        let mut child = Command::new(artifacts::program("vch"))
            .arg(name)
            .args(args)
            .env("VCH_CONTROL", self.control())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("vch");
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        Client { child, stdin, stdout: stdout.expect("piped"), stderr: stderr.expect("piped") }
    }

    /// Waits until `vch ps` has a line that begins with the VM's id and holds every one of `parts`.
    pub fn wait_for(&self, id: &str, parts: &[&str]) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let output = self.command("ps", &[]).output();
            let text = output.text();
            let mine = text.lines().find(|line| line.split_whitespace().next() == Some(id));
            if mine.is_some_and(|line| parts.iter().all(|part| line.contains(part))) {
                return;
            }
            assert!(Instant::now() < deadline, "{id} is not {parts:?}: {output:?}; {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
        self.kill();
        // its machines outlive it, as they are to
        for process in self.machines().into_iter().chain(self.keepers()) {
            // one that has ended meanwhile is gone, too
            let _gone = kill(process, Signal::SIGKILL);
        }
    }
}

/// A `vch` whose output is read, and whose input is written, as the test wants it.
pub struct Client {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    stderr: ChildStderr,
}

/// What a pipe takes without delay when it takes anything: pipe(7), `PIPE_BUF`.
const PIPE_BUF: usize = 4096;

impl Client {
    /// Waits for output, and reads none of it.
    pub fn wait_for_output(&self) {
        ready(&self.stdout, PollFlags::POLLIN);
    }

    /// Reads so many bytes, or up to the end.
    pub fn read(&mut self, count: usize) -> Vec<u8> {
        let (mut all, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
        while all.len() < count {
            ready(&self.stdout, PollFlags::POLLIN);
            let most = buffer.len().min(count - all.len());
            match self.stdout.read(&mut buffer[..most]).expect("a pipe") {
                0 => break,
                got => all.extend_from_slice(&buffer[..got]),
            }
        }
        all
    }

    pub fn read_to_end(&mut self) -> Vec<u8> {
        self.read(usize::MAX)
    }

    /// Writes to its input, as fast as it takes it.
    pub fn write(&mut self, bytes: &[u8]) {
        let stdin = self.stdin.as_mut().expect("its input has not ended");
        for piece in bytes.chunks(PIPE_BUF) {
            ready(stdin, PollFlags::POLLOUT);
            stdin.write_all(piece).expect("it reads its input");
        }
    }

    pub fn end_input(&mut self) {
        self.stdin = None;
    }

    /// Waits until it has ended, its output read or not: its exit code, and what it had to say.
    pub fn finish(&mut self) -> (i32, String) {
        let code = vch::wait(&mut self.child);
        let mut said = String::new();
        self.stderr.read_to_string(&mut said).expect("a pipe");
        (code, said)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Waits until a pipe has or takes something.
fn ready(pipe: &impl AsFd, what: PollFlags) {
    let timeout = PollTimeout::try_from(PATIENCE).expect("some minutes");
    let count = poll(&mut [PollFd::new(pipe.as_fd(), what)], timeout).expect("a pipe");
    assert!(count > 0, "the pipe did not get {what:?} within {PATIENCE:?}");
}
