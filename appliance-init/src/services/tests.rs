//! The whole watch over real processes of the machine that the tests run on: what is decided when is tried in `life`, with time as an argument.

use std::ffi::CString;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use guest::reap;
use guest::sys::spawn::Executable;
use nix::unistd::{Gid, Uid};
use wire::spec::{ALL_CAPABILITIES, Capabilities, Restart, Rights};

use super::*;

/// A folder of its own for each test; the watch over one script a service.
struct Watch {
    dir: PathBuf,
    services: Services,
    began: Instant,
    /// What is added to the clock: pauses are not waited for.
    ahead: Duration,
}

fn script(dir: &Path, name: &str, text: &str, terms: Terms) -> Service {
    let c = |text: &str| CString::new(text).unwrap();
    let program = Program {
        executable: Executable::At(c("/bin/sh")),
        argv: vec![c("sh"), c("-c"), c(text)],
        env: vec![c("PATH=/bin:/usr/bin"), c(&format!("NOTIFY_SOCKET={}", dir.join("notify").display()))],
        dir: c(dir.to_str().unwrap()),
        uid: Uid::current(),
        gid: Gid::current(),
        groups: Vec::new(),
        rights: Rights {
            capabilities: Capabilities { bounding: ALL_CAPABILITIES, ..Capabilities::default() },
            ..Rights::default()
        },
        fence: None,
    };
    Service { name: name.into(), program, terms, terminal: None }
}

fn terms() -> Terms {
    Terms {
        readiness: None,
        watchdog: None,
        restart: Restart::No,
        stop_signal: 15,
        grace: Some(Duration::from_secs(600)),
    }
}

/// Children are everybody's in a process: one watch at a time reaps them.
static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

impl Watch {
    fn new(name: &str, scripts: &[(&str, &str, Terms)]) -> Watch {
        let dir = std::env::temp_dir().join(format!("appliance-watch-{name}-{}", std::process::id()));
        let _old = fs::remove_dir_all(&dir);
        fs::create_dir(&dir).unwrap();
        let list = scripts.iter().map(|(name, text, terms)| script(&dir, name, text, *terms)).collect();
        let limits = LogLimits { size: 1 << 20, files: 1, output: None };
        let services = Services::new(list, limits, &dir.join("log"), &dir.join("notify")).unwrap();
        let mut watch = Watch { dir, services, began: Instant::now(), ahead: Duration::ZERO };
        let now = watch.now();
        watch.services.start(now);
        watch
    }

    fn now(&self) -> Duration {
        self.began.elapsed() + self.ahead
    }

    /// The loop of PID 1, until something is so.
    #[track_caller]
    fn until(&mut self, mut is_so: impl FnMut(&Watch) -> bool) {
        while !is_so(self) {
            assert!(self.began.elapsed() < Duration::from_secs(60), "not within a minute: {:?}", self.services);
            let poller = Poller::new().unwrap();
            poller.add(&self.services, 0, Interest::READ).unwrap();
            poller.wait(Some(Duration::from_millis(5))).unwrap();
            let now = self.now();
            self.services.handle(now);
            for (pid, ending) in reap::ended_children() {
                self.services.handle_exit(pid, ending, now);
            }
            self.services.handle_time(now);
        }
    }

    fn log(&self, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.dir.join("log").join(format!("{name}.log"))).unwrap_or_default();
        text.lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
    }

    fn stop(&mut self) {
        let now = self.now();
        self.services.stop(now);
        self.until(|watch| watch.services.is_stopped());
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.dir);
    }
}

/// A process that says it is ready: whatever a shell starts to say so would not be the service, so the shell becomes it.
const SAY: &str = "exec python3 -c 'import os, socket, sys, time, signal
say = lambda text: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(text, os.environ[\"NOTIFY_SOCKET\"])
";

fn has_python() -> bool {
    Path::new("/usr/bin/python3").exists()
}

#[test]
fn what_is_written_is_in_the_log_and_what_ends_comes_again() {
    let _one = ONE.lock();
    let again = Terms { restart: Restart::Always, ..terms() };
    let mut watch = Watch::new("again", &[("one", "echo out; echo err >&2; printf unfinished; exit 3", again)]);
    watch.until(|watch| watch.services.running[0].life.pid().is_none());
    assert_eq!(watch.log("one"), ["out", "err", "unfinished"]);
    let pause = watch.services.deadline().unwrap() - watch.now();
    assert!(pause <= Duration::from_secs(1), "{pause:?}");
    watch.ahead += Duration::from_secs(1);
    watch.until(|watch| watch.log("one").len() == 6);
    assert_eq!(watch.services.running[0].life.restarts, 1);
    watch.stop();
}

#[test]
fn each_waits_for_the_one_before_it_and_stops_before_it() {
    let _one = ONE.lock();
    if !has_python() {
        return;
    }
    let first = format!("{SAY}while not os.path.exists(\"go\"): time.sleep(0.01)\nsay(b\"READY=1\")\ntime.sleep(600)'");
    let second = "trap 'echo bye; exit 0' TERM; echo here; while :; do sleep 0.02; done";
    let ready = Terms { readiness: Some(Duration::from_secs(600)), ..terms() };
    let mut watch = Watch::new("order", &[("first", &first, ready), ("second", second, terms())]);
    let mut turns = 0;
    watch.until(|_| {
        turns += 1;
        turns > 20
    });
    assert!(watch.services.running[1].life.is_waiting());
    fs::write(watch.dir.join("go"), "").unwrap();
    watch.until(|watch| watch.log("second") == ["here"]);
    let now = watch.now();
    watch.services.stop(now);
    watch.until(|watch| watch.services.running[1].life.is_ended());
    assert_eq!(watch.log("second"), ["here", "bye"]);
    watch.until(|watch| watch.services.is_stopped());
}

#[test]
fn only_the_service_itself_is_believed() {
    let _one = ONE.lock();
    if !has_python() {
        return;
    }
    // a child of it says that it is ready, and then it says that it lives
    let text = format!(
        "{SAY}if os.fork() == 0:\n  say(b\"READY=1\")\n  os._exit(0)\nos.wait()\nprint(\"said\", flush=True)\ntime.sleep(600)'"
    );
    let ready = Terms { readiness: Some(Duration::from_secs(600)), ..terms() };
    let mut watch = Watch::new("believed", &[("liar", &text, ready)]);
    watch.until(|watch| watch.log("liar") == ["said"]);
    assert!(!watch.services.running[0].life.lets_others_start());
    watch.stop();
}

#[test]
fn who_falls_silent_is_ended_with_all_that_it_started() {
    let _one = ONE.lock();
    if !has_python() {
        return;
    }
    let text = format!(
        "{SAY}child = os.fork()\nif child == 0: time.sleep(600)\nprint(child, flush=True)\nsignal.signal(6, signal.SIG_IGN)\nsay(b\"READY=1\")\ntime.sleep(600)'"
    );
    let minute = Some(Duration::from_secs(60));
    let strict = Terms { readiness: minute, watchdog: minute, restart: Restart::No, ..terms() };
    let mut watch = Watch::new("silent", &[("hung", &text, strict)]);
    watch.until(|watch| watch.services.running[0].life.lets_others_start() && !watch.log("hung").is_empty());
    let child = Pid::from_raw(watch.log("hung")[0].parse().unwrap());
    // SIGABRT is ignored; SIGKILL is not
    watch.ahead += Duration::from_secs(60);
    watch.until(|watch| watch.services.deadline().is_some_and(|at| at < watch.now() + Duration::from_secs(10)));
    watch.ahead += Duration::from_secs(5);
    watch.until(|watch| watch.services.is_stopped());
    watch.until(|_| {
        let stat = fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ")
    });
}

#[test]
fn a_program_that_is_not_there_is_tried_again() {
    let _one = ONE.lock();
    let mut watch = Watch::new("missing", &[]);
    let mut service = script(&watch.dir, "ghost", "", Terms { restart: Restart::Always, ..terms() });
    service.program.executable = Executable::At(c"/nonexistent/ghost".into());
    watch.services.running.push(Running {
        life: Life::new(service.terms),
        log: LogFile::new(&watch.dir, "ghost", LogLimits { size: 4096, files: 0, output: None }),
        pipe: None,
        status: String::new(),
        service,
    });
    let now = watch.now();
    watch.services.start(now);
    assert_eq!(watch.services.running[0].life.pid(), None);
    assert!(watch.services.deadline().is_some() && !watch.services.is_stopped());
    watch.ahead += Duration::from_secs(1);
    let now = watch.now();
    watch.services.handle_time(now);
    assert_eq!(watch.services.running[0].life.restarts, 1);
    watch.stop();
}
