//! The double is judged by programs that we did not write: Debian's open-vm-tools, unmodified, take it for a host of VMware's.
//!
//! What they say on real hosts is known (open-vm-tools, `lib/message`, `lib/rpcOut`, `services/vmtoolsd`). Never is vmtoolsd asked to halt or to reboot: it would
//! shut down the computer that runs these tests. It has the one plugin that it needs for the rest.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rig::vmware::{launcher, obstacle};
use tempfile::TempDir;

const RPCTOOL: &str = "/usr/bin/vmware-rpctool";
const VMTOOLSD: &str = "/usr/bin/vmtoolsd";

/// Whether the tools are there, and can be traced.
fn can_judge(test: &str) -> bool {
    let missing = [RPCTOOL, VMTOOLSD].into_iter().find(|program| !Path::new(program).exists());
    let reason = missing.map(|program| format!("no {program}: Debian's open-vm-tools is not installed"));
    let reason = reason.or_else(|| obstacle().map(|why| format!("nothing can be traced here: {why}")));
    if let Some(reason) = &reason {
        crate::skip(test, reason);
    }
    reason.is_none()
}

/// Exit code, output, and what was said of errors.
#[derive(Debug, PartialEq, Eq)]
struct Ran {
    code: i32,
    stdout: Vec<u8>,
    stderr: String,
}

fn run(options: &[&str], program: &[&str]) -> Ran {
    let mut command = launcher();
    // a judge that finds no end is a judgement
    let mut command = bounded(command.args(options).arg("--").args(program));
    let output = command.output().expect("timeout");
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).trim_end().to_owned(),
    }
}

fn bounded(command: &Command) -> Command {
    let mut bounded = Command::new("timeout");
    bounded.arg("120").arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
    bounded
}

fn rpctool(options: &[&str], request: &str) -> Ran {
    run(options, &[RPCTOOL, request])
}

fn says(stdout: impl Into<Vec<u8>>) -> Ran {
    Ran { code: 0, stdout: stdout.into(), stderr: String::new() }
}

fn fails(stderr: &str) -> Ran {
    Ran { code: 1, stdout: Vec::new(), stderr: stderr.into() }
}

/// vmtoolsd writes into /var/log before it has read where else: who may gives it one of its own.
fn vmtoolsd(arguments: &[&str]) -> Vec<String> {
    let alone = ["unshare", "--mount", "sh", "-c", "mount -t tmpfs none /var/log && exec \"$@\"", "sh"];
    let may = Command::new(alone[0]).args(&alone[1..]).arg("true").stderr(Stdio::null()).status();
    let before = if may.is_ok_and(|status| status.success()) { &alone[..] } else { &[] };
    before.iter().chain(&[VMTOOLSD]).chain(arguments).map(|&word| word.to_owned()).collect()
}

/// A value of so many bytes, and the option that sets it.
fn long(dir: &TempDir, length: usize) -> (Vec<u8>, String) {
    let value: Vec<u8> = (b'a'..=b'z').cycle().take(length).collect();
    let path = dir.path().join("value");
    fs::write(&path, &value).unwrap();
    (value, format!("guestinfo.long={}", path.display()))
}

#[test]
fn rpctool_gets_what_is_there_and_is_told_what_is_not() {
    if !can_judge("rpctool_gets_what_is_there_and_is_told_what_is_not") {
        return;
    }
    let keys = ["--info", "guestinfo.foo=hello world", "--info", "guestinfo.empty="];
    assert_eq!(rpctool(&keys, "info-get guestinfo.foo"), says("hello world\n"));
    assert_eq!(rpctool(&keys, "info-get GuestInfo.FOO"), says("hello world\n"));
    assert_eq!(rpctool(&keys, "info-get guestinfo.empty"), says("\n"));
    assert_eq!(rpctool(&keys, "info-get guestinfo.none"), fails("No value found"));
    assert_eq!(rpctool(&keys, "no-such-request"), fails("Unknown command"));
}

#[test]
fn rpctool_sets_a_value_with_its_spaces_but_not_what_is_the_hosts() {
    if !can_judge("rpctool_sets_a_value_with_its_spaces_but_not_what_is_the_hosts") {
        return;
    }
    let script = format!("{RPCTOOL} 'info-set guestinfo.a b  c d' && {RPCTOOL} 'info-get guestinfo.a'");
    assert_eq!(run(&[], &["sh", "-c", &script]), says("\nb  c d\n"));
    let owned = rpctool(&["--info", "guestinfo.vice./id=1"], "info-set guestinfo.vice./id 2");
    assert_eq!((owned.code, owned.stdout.as_slice()), (1, &b""[..]), "{owned:?}");
}

#[test]
fn rpctool_moves_values_at_the_limits_at_either_bandwidth() {
    if !can_judge("rpctool_moves_values_at_the_limits_at_either_bandwidth") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for (length, options) in
        [(65_535, &[][..]), (65_535, &["--no-hb"]), (1_000_000, &[]), (1 << 20, &["--hypercall", "vmcall"])]
    {
        let (mut value, key) = long(&dir, length);
        value.push(b'\n');
        let ran = rpctool(&[&["--info-file", &key], options].concat(), "info-get guestinfo.long");
        assert!(ran == says(value), "{length} bytes, {options:?}: {} came, {}", ran.stdout.len(), ran.stderr);
    }
    let fill = |count: usize| format!("info-set guestinfo.a {}", "x".repeat(count));
    assert_eq!(rpctool(&[], &fill(65_000)), says("\n"));
    assert_eq!(rpctool(&[], &fill(70_000)), fails("RpcOut: Unable to send the RPCI command"));
}

#[test]
fn rpctool_does_without_what_some_hosts_lack() {
    if !can_judge("rpctool_does_without_what_some_hosts_lack") {
        return;
    }
    let checkpoints: Vec<String> = (4..12).map(|every| every.to_string()).collect();
    let mut hosts: Vec<Vec<&str>> = [
        &["--no-hb"][..],
        &["--no-cookies"],
        &["--no-hb", "--no-cookies"],
        &["--hypercall", "vmcall"],
        &["--hypercall", "vmmcall"],
        &["--hypercall", "vmmcall", "--no-hb"],
        &["--no-hb", "--checkpoint", "14"],
    ]
    .map(<[_]>::to_vec)
    .to_vec();
    hosts.extend(checkpoints.iter().map(|every| vec!["--checkpoint", every]));
    for host in hosts {
        let options = [&["--info", "guestinfo.foo=hello"], host.as_slice()].concat();
        assert_eq!(rpctool(&options, "info-get guestinfo.foo"), says("hello\n"), "{host:?}");
    }
}

#[test]
fn rpctool_gives_up_where_it_would_on_such_a_host() {
    if !can_judge("rpctool_gives_up_where_it_would_on_such_a_host") {
        return;
    }
    let key = ["--info", "guestinfo.foo=hello"];
    let get = |options: &[&str]| rpctool(&[&key, options].concat(), "info-get guestinfo.foo");
    assert_eq!(get(&["--authenticate"]), fails("Permission denied"));
    assert_eq!(get(&["--deaf"]).code, 1);
    // this computer may be a virtual machine, and even VMware's
    let elsewhere = get(&["--no-cpuid"]);
    assert!(elsewhere.code == 0 || elsewhere.stderr.contains("must be run inside a virtual machine"), "{elsewhere:?}");
}

#[test]
fn the_registers_of_rpctool_are_those_that_are_pinned() {
    if !can_judge("the_registers_of_rpctool_are_those_that_are_pinned") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    for (options, pinned) in
        [(&[][..], include_str!("judges/high.txt")), (&["--no-hb"], include_str!("judges/low.txt"))]
    {
        let to = ["--info", "guestinfo.foo=hello", "--log", log.to_str().unwrap()];
        assert_eq!(rpctool(&[&to, options].concat(), "info-get guestinfo.foo"), says("hello\n"));
        let trace = fs::read_to_string(&log).unwrap();
        fs::remove_file(&log).unwrap();
        // first it looks for the port, with what happens to be in its registers
        let (looking, message) = trace.split_at(trace.find("> in    bx c9435052").unwrap());
        assert_eq!(looking.matches("bx 564d5868 cx 00000002").count(), looking.lines().count() / 2, "{looking}");
        assert_eq!(message, pinned, "{options:?}");
    }
}

#[test]
fn vmtoolsd_and_its_companions_find_themselves_at_home() {
    if !can_judge("vmtoolsd_and_its_companions_find_themselves_at_home") {
        return;
    }
    let key = ["--info", "guestinfo.foo=hello"];
    let get = |options: &[&str], key_name: &str| {
        let words = vmtoolsd(&["--cmd", &format!("info-get guestinfo.{key_name}")]);
        run(&[&key, options].concat(), &words.iter().map(String::as_str).collect::<Vec<_>>())
    };
    assert_eq!(get(&[], "foo"), says("hello\n"));
    assert_eq!(get(&[], "none"), fails("No value found"));
    assert_eq!(get(&["--authenticate"], "foo"), fails("Permission denied"));
    // it binds a port below 1024 where it can, and then it may
    let expected = if nix::unistd::Uid::effective().is_root() { says("hello\n") } else { fails("Permission denied") };
    assert_eq!(get(&["--vsock", "--authenticate"], "foo"), expected);
    let check = run(&[], &["/usr/bin/vmware-checkvm"]);
    assert_eq!(check, says("VMware software version 6 (good)\n"));
    assert_eq!(run(&[], &["/usr/bin/vmware-toolbox-cmd", "-v"]).code, 0);
}

/// A vmtoolsd that runs until it is dropped.
struct Daemon {
    child: std::process::Child,
    dir: TempDir,
}

impl Daemon {
    fn start(options: &[&str]) -> Daemon {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        fs::create_dir(path("plugins")).unwrap();
        // not powerOps, which acts on OS_Halt, nor timeSync, which sets the clock
        let plugin = "libguestInfo.so";
        let place = PathBuf::from("/usr/lib/x86_64-linux-gnu/open-vm-tools/plugins/vmsvc").join(plugin);
        symlink(place, dir.path().join("plugins").join(plugin)).unwrap();
        fs::write(path("tools.conf"), "[logging]\nvmsvc.handler=std\nvmtoolsd.handler=std\n").unwrap();
        let mut command = launcher();
        command.args(["--state", &path("state"), "--control", &path("control")]).args(options).arg("--");
        command.args(vmtoolsd(&["-n", "vmsvc", "-c", &path("tools.conf"), "-p", &path("plugins")]));
        nix::unistd::mkfifo(dir.path().join("control").as_path(), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let mut command = bounded(&command);
        let child = command.env("HOME", dir.path()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Daemon { child, dir }
    }

    fn said(&self) -> Vec<String> {
        let text = fs::read_to_string(self.dir.path().join("state")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Has the host ask.
    fn ask(&self, question: &str) {
        fs::write(self.dir.path().join("control"), format!("tclo {question}\n")).unwrap();
    }

    fn wait_for(&mut self, line: &str) {
        let began = Instant::now();
        while !self.said().iter().any(|said| said.starts_with(line)) {
            assert!(began.elapsed() < Duration::from_secs(90), "{line:?} did not come: {:#?}", self.said());
            assert_eq!(self.child.try_wait().unwrap(), None, "vmtoolsd has ended: {:#?}", self.said());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // `timeout` passes it on to the launcher, with which its tracees end
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).ok();
        self.child.wait().ok();
    }
}

#[test]
fn the_daemon_answers_its_host_as_tools_do() {
    if !can_judge("the_daemon_answers_its_host_as_tools_do") {
        return;
    }
    for transport in [&[][..], &["--vsock"], &["--no-hb", "--no-cookies"], &["--checkpoint", "31"]] {
        let mut daemon = Daemon::start(&[transport, &["--tclo", "reset"]].concat());
        daemon.wait_for("tclo OK ATR toolbox");
        daemon.ask("ping");
        daemon.wait_for("tclo OK ");
        daemon.ask("Capabilities_Register");
        daemon.wait_for("rpci tools.set.versiontype 12");
        daemon.ask("Set_Option broadcastIP 1");
        daemon.wait_for("rpci info-set guestinfo.ip ");
        daemon.ask("no-such-question");
        daemon.wait_for("tclo ERROR Unknown Command");
        daemon.wait_for("rpci info-set guestinfo.vmtools.description open-vm-tools ");
        // every question once, in its order, whatever happened on the way
        let said = daemon.said();
        let answers: Vec<_> = said.iter().filter_map(|line| line.strip_prefix("tclo ")).collect();
        assert_eq!(answers, ["OK ATR toolbox", "OK ", "OK ", "OK ", "ERROR Unknown Command"], "{transport:?}");
    }
}

#[test]
fn a_launched_program_may_use_ports_and_finds_no_vsock() {
    if let Some(why) = obstacle() {
        return crate::skip("a_launched_program_may_use_ports_and_finds_no_vsock", &why);
    }
    // iopl(3), ioperm(0x5658, 2, 1), socket(AF_VSOCK, SOCK_STREAM, 0)
    let script = "print join(' ', syscall(172, 3), syscall(173, 0x5658, 2, 1), syscall(41, 40, 1, 0), $! + 0)";
    assert_eq!(run(&[], &["perl", "-e", script]), says(format!("0 0 -1 {}", nix::libc::EAFNOSUPPORT)));
    let connect =
        "syscall(41, 40, 1, 0) >= 0 or die; print syscall(42, 3, pack('S S L L L', 40, 0, 976, $ARGV[0], 0), 16)";
    assert_eq!(run(&["--vsock"], &["perl", "-e", connect, "0"]), says("0"));
    // the host's CID is nobody's on ESXi
    assert_eq!(run(&["--vsock"], &["perl", "-e", connect, "2"]), says("-1"));
}

#[test]
fn an_init_is_traced_by_a_child_of_its_own() {
    let name = "an_init_is_traced_by_a_child_of_its_own";
    if !can_judge(name) {
        return;
    }
    let space = ["unshare", "--pid", "--fork", "--mount-proc"];
    let may = Command::new(space[0]).args(&space[1..]).arg("true").stderr(Stdio::null()).status();
    if !may.is_ok_and(|status| status.success()) {
        return crate::skip(name, "this machine lets nobody make a namespace of processes");
    }
    let script = format!("{RPCTOOL} 'info-get guestinfo.foo'; exec {RPCTOOL} 'info-get guestinfo.none'");
    let double = rig::artifacts::program("vmx-double").display().to_string();
    let mut command = Command::new(space[0]);
    command.args(&space[1..]).args([&double, "--pid1", "--info", "guestinfo.foo=hello", "--", "sh", "-c", &script]);
    let output = bounded(&command).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    // its children are traced as long as they are its own program: what they execute is on its own, and so is no guest of VMware's
    assert!(!String::from_utf8_lossy(&output.stdout).contains("hello"), "{output:?}");
    assert!(said.contains("No value found"), "{said}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_launched_program_is_as_it_would_be_alone() {
    if let Some(why) = obstacle() {
        return crate::skip("a_launched_program_is_as_it_would_be_alone", &why);
    }
    assert_eq!(run(&[], &["sh", "-c", "exit 7"]).code, 7);
    assert_eq!(run(&[], &["sh", "-c", "kill -9 $$"]).code, 137);
    assert_eq!(
        run(&[], &["sh", "-c", "trap 'echo caught' USR1; kill -USR1 $$; (echo child) & wait"]),
        says("caught\nchild\n")
    );
    // its own faults and traps are its own
    assert_eq!(run(&[], &["sh", "-c", "sh -c 'kill -SEGV $$'; kill -TRAP $$"]).code, 128 + 5);
    let missing = run(&[], &["/no/such/program"]);
    assert!(missing.code == 125 && missing.stderr.contains("/no/such/program"), "{missing:?}");
    let wrong = run(&["--what"], &["true"]);
    assert!(wrong.code == 125 && wrong.stderr.contains("--what"), "{wrong:?}");
}
