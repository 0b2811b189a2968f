//! Machines, and programs, that find themselves on VMware: `vmx-double` is their init, or their launcher.
//!
//! A machine's double is told what to be by fw_cfg, and its second spare serial port carries what the guest says and takes orders. The guest itself has no other
//! guestinfo than VMware's.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use double::trace::become_init;
use tempfile::TempDir;
use wire::guestinfo::Generation;
use wire::spec::Spec;
use wire::vmx::Dictionary;

use crate::artifacts;
use crate::images::run;
use crate::machine::Machine;
use crate::vch::DEADLINE;

/// The double in front of a program of this machine: what follows is its options, `--`, and the program.
pub fn launcher() -> Command {
    Command::new(artifacts::program("vmx-double"))
}

/// Why nothing can be launched here: hosts of containers may forbid ptrace.
pub fn obstacle() -> Option<String> {
    static OBSTACLE: OnceLock<Option<String>> = OnceLock::new();
    let look = || {
        let output = launcher().args(["--", "true"]).output().expect("vmx-double");
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        // the double's own code; any other is a fault of the double, for tests to find
        (output.status.code() == Some(125)).then_some(said)
    };
    OBSTACLE.get_or_init(look).clone()
}

/// How a machine of the double's gets its PID 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    Initramfs,
    /// `bootstrap.iso`, with the shim as its init.
    Iso,
}

/// The host of one machine.
pub struct Vmware {
    dir: TempDir,
    options: Vec<String>,
    heard: Arc<Mutex<Heard>>,
}

/// What has come from the double.
#[derive(Default)]
struct Heard {
    lines: Vec<String>,
    orders: Option<UnixStream>,
}

impl Vmware {
    /// Its guestinfo holds a spec.
    pub fn with(spec: &Spec) -> Vmware {
        let mut vmware = Vmware::empty();
        for (key, value) in wire::guestinfo::write(spec).iter() {
            vmware.option(&["--info", &format!("{key}={value}")]);
        }
        vmware
    }

    /// Its guestinfo makes it a template, which waits for [`Vmware::clone`].
    pub fn template(generation: &Generation) -> Vmware {
        let mut vmware = Vmware::empty();
        for (key, value) in wire::guestinfo::write_generation(generation).iter() {
            vmware.option(&["--info", &format!("{key}={value}")]);
        }
        vmware.option(&["--kmsg", "/.double/dev/kmsg"]);
        vmware
    }

    /// Waits until the machine has frozen itself, and has it go on as a clone that finds these keys in the template's place, at this time.
    pub fn clone(&self, keys: &Dictionary, unix: u64) {
        self.wait_for("a template", |line| line == "rpci instantclone.freeze");
        self.order("info guestinfo.vice./clone/wait=");
        for (key, value) in keys.iter() {
            self.order(&format!("info {}", format!("{key}={value}").as_bytes().escape_ascii()));
        }
        self.order(&format!("time {unix}"));
        self.order("clone");
    }

    /// Its guestinfo holds nothing.
    pub fn empty() -> Vmware {
        let device = "/.double/dev/ttyS2";
        let options = ["--state", device, "--control", device].map(String::from).to_vec();
        Vmware { dir: tempfile::tempdir().expect("a temporary folder"), options, heard: Arc::default() }
    }

    /// An option of the double's.
    pub fn option(&mut self, words: &[&str]) {
        self.options.extend(words.iter().map(|&word| word.to_owned()));
    }

    /// The machine, as it finds itself on this host: to be powered on once.
    pub fn machine(&self, machine: Machine, medium: Medium) -> Machine {
        let boot = boot(medium);
        self.plug(match medium {
            Medium::Initramfs => Machine { initramfs: boot, iso: None, ..machine },
            Medium::Iso => Machine { iso: Some(boot), ..machine },
        })
    }

    /// The same for a machine whose init is [`shim`]'s.
    pub fn plug(&self, machine: Machine) -> Machine {
        let path = |name: &str| self.dir.path().join(name);
        fs::write(
            path("options"),
            self.options.iter().flat_map(|word| [word.as_bytes(), &[0]].concat()).collect::<Vec<_>>(),
        )
        .expect("a file");
        let listener = UnixListener::bind(path("double")).expect("a socket");
        let heard = self.heard.clone();
        thread::spawn(move || listen(&listener, &heard));
        let words = [
            "-fw_cfg".to_owned(),
            format!("name=opt/double,file={}", path("options").display()),
            "-chardev".to_owned(),
            format!("socket,id=double,path={}", path("double").display()),
            "-device".to_owned(),
            "isa-serial,index=2,chardev=double".to_owned(),
        ];
        Machine { guestinfo: None, extra: machine.extra.into_iter().chain(words).collect(), ..machine }
    }

    /// Every line that the guest has made the double write: `rpci REQUEST`, `tclo ANSWER`.
    pub fn lines(&self) -> Vec<String> {
        self.heard.lock().expect("no panic").lines.clone()
    }

    /// Waits for a line.
    pub fn wait_for(&self, what: &str, is_it: impl Fn(&str) -> bool) -> String {
        let began = Instant::now();
        loop {
            if let Some(line) = self.lines().into_iter().find(|line| is_it(line)) {
                return line;
            }
            assert!(began.elapsed() < DEADLINE, "{what} did not come: {:?}", self.lines());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Has the double do something: `tclo TEXT`, `info KEY=VALUE`, `time SECONDS`, `clone`.
    pub fn order(&self, order: &str) {
        let heard = self.heard.lock().expect("no panic");
        let mut orders = heard.orders.as_ref().expect("the machine is on");
        orders.write_all(format!("{order}\n").as_bytes()).expect("QEMU listens");
    }
}

fn listen(listener: &UnixListener, heard: &Mutex<Heard>) {
    let (socket, _) = listener.accept().expect("QEMU connects");
    heard.lock().expect("no panic").orders = Some(socket.try_clone().expect("a socket"));
    for line in BufReader::new(socket).lines().map_while(Result::ok) {
        heard.lock().expect("no panic").lines.push(line);
    }
}

/// Makes an init of one of our programs that is PID 1 of a machine of the double's.
pub fn shim(program: &str, init: &Path) {
    let [double, program] = ["vmx-double", program].map(|name| fs::read(artifacts::program(name)).expect("a program"));
    fs::write(init, become_init(&double, &program)).expect("a file");
}

/// What a machine boots from, with the shim in front of tether: made once a run of the tests.
fn boot(medium: Medium) -> PathBuf {
    static INITRAMFS: OnceLock<PathBuf> = OnceLock::new();
    static ISO: OnceLock<PathBuf> = OnceLock::new();
    let make = |name: &str, recipe: &[&str]| {
        let target = artifacts::root().join("target");
        let (init, made) = (target.join(format!("{name}.init")), target.join(name));
        shim("tether", &init);
        let mut command = Command::new(artifacts::program("iso-builder"));
        run(command.args(recipe).arg("--init").arg(&init).arg("-o").arg(&made));
        made
    };
    match medium {
        Medium::Initramfs => INITRAMFS.get_or_init(|| make("double.initramfs", &["initramfs"])).clone(),
        Medium::Iso => {
            let kernel = artifacts::dist("kernel").display().to_string();
            ISO.get_or_init(|| make("double.iso", &["bootstrap", "--kernel", &kernel])).clone()
        }
    }
}
