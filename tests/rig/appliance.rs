//! An appliance under QEMU: appliance.iso, a user network whose ports the host reaches on loopback, a console, and if asked a data disk.
//!
//! ```no_run
//! let vch = rig::appliance::Appliance::boot(|options| options.memory_mib = 256);
//! vch.wait_for_console("appliance-init: up");
//! let _url = format!("tcp://127.0.0.1:{}", vch.docker_port());
//! ```
//!
//! The API is without TLS unless [`Options::tls`] gives certificates. A console with a shell ([`Options::shell`]) is made with `--debug-console`: [`Appliance::shell`] types there.

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use wire::handshake::MasterKey;
use wire::vmx::Dictionary;

use crate::artifacts;
use crate::host::PATIENCE;
use crate::machine::{COMMAND_LINE, QBOOT};
use crate::qmp::Qmp;

/// What is to be booted.
pub struct Options {
    pub memory_mib: u32,
    pub cpus: u8,
    /// Through the firmware and the boot loader of the medium; otherwise QEMU loads its kernel and initramfs, which is faster.
    pub from_medium: bool,
    /// Keys behind `guestinfo.vice./init/`, and their values; a later one counts.
    pub guestinfo: Vec<(String, String)>,
    /// A raw disk, which is written.
    pub data_disk: Option<PathBuf>,
    /// A root shell on the console, from a medium of its own.
    pub shell: bool,
    /// More arguments for QEMU.
    pub extra: Vec<String>,
    docker: u16,
}

/// The master key of the rig's appliances; nobody's secret.
pub fn master_key() -> MasterKey {
    MasterKey::new([0x3c; 32])
}

/// The card's hardware address.
const MAC: &str = "52:54:00:3c:3c:3c";
/// Ports as clients within the machine's network see them.
const LINK: u16 = 8080;
const CONCENTRATOR: u16 = 2377;
const STATUS: u16 = 2378;
/// How often it is asked whether the API answers: what is measured is that much too long, on average by half of it.
const ASK_AGAIN: Duration = Duration::from_millis(10);

impl Default for Options {
    fn default() -> Options {
        let keys = [
            ("networks", "lan"),
            ("networks|lan/mac", MAC),
            ("docker/insecure", "true"),
            ("link/key", &master_key().to_hex()),
        ];
        Options {
            memory_mib: 128,
            cpus: 1,
            from_medium: false,
            guestinfo: keys.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec(),
            data_disk: None,
            shell: false,
            extra: Vec::new(),
            docker: 2375,
        }
    }
}

impl Options {
    /// Sets a key behind `guestinfo.vice./init/`.
    pub fn key(&mut self, key: &str, value: &str) {
        self.guestinfo.push((key.to_owned(), value.to_owned()));
    }

    /// The API behind TLS on 2376, with the files of PEM of the host's certificate, its key, and the authority of clients.
    pub fn tls(&mut self, cert: &Path, key: &Path, clients: &Path) {
        self.docker = 2376;
        self.key("docker/insecure", "false");
        for (name, path) in [("cert", cert), ("key", key), ("ca", clients)] {
            let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            self.key(&format!("docker/tls/{name}"), &wire::guestinfo::base64::encode(&bytes));
        }
    }

    fn text(&self) -> String {
        let mut keys = Dictionary::default();
        for (key, value) in &self.guestinfo {
            keys.set(&format!("guestinfo.vice./init/{key}"), value.as_str());
        }
        keys.to_string()
    }
}

/// An appliance that is on. It is switched off with its owner.
pub struct Appliance {
    qemu: Child,
    dir: TempDir,
    ports: [u16; 4],
    pub began: Instant,
}

impl Appliance {
    /// Switches it on, and does not wait for it.
    pub fn boot(change: impl FnOnce(&mut Options)) -> Appliance {
        let mut options = Options::default();
        change(&mut options);
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = |name: &str| dir.path().join(name).display().to_string();
        let medium = medium(options.shell);
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args("-accel tcg -cpu max,-erms,-fsrm -nodefaults -no-user-config -display none".split(' '));
        qemu.args(["-m", &options.memory_mib.to_string(), "-smp", &options.cpus.to_string()]);
        if options.from_medium {
            let medium = format!("if=ide,media=cdrom,readonly=on,format=raw,file={}", medium.iso.display());
            qemu.args(["-machine", "pc", "-drive", &medium]);
        } else {
            qemu.args(["-machine", "q35,sata=off,smbus=off,hpet=off", "-append", COMMAND_LINE]);
            qemu.arg("-kernel").arg(artifacts::dist("kernel")).arg("-initrd").arg(&medium.initramfs);
            if Path::new(QBOOT).exists() {
                qemu.args(["-bios", QBOOT]);
            }
        }
        qemu.args(["-qmp", &format!("unix:{},server=on,wait=off", path("qmp"))]);
        let console =
            format!("socket,id=console,path={},server=on,wait=off,logfile={}", path("shell"), path("console"));
        qemu.args(["-chardev", &console, "-device", "isa-serial,index=1,chardev=console"]);
        // port 0 is one that the kernel chooses
        let ports = [options.docker, LINK, CONCENTRATOR, STATUS];
        let forwards = ports.map(|port| format!(",hostfwd=tcp:127.0.0.1:0-:{port}")).concat();
        qemu.args(["-netdev", &format!("user,id=lan{forwards}")]);
        qemu.args(["-device", &format!("virtio-net-pci,netdev=lan,mac={MAC},romfile=")]);
        fs::write(path("guestinfo"), options.text()).expect("a file");
        qemu.args(["-fw_cfg", &format!("name=opt/guestinfo,file={}", path("guestinfo"))]);
        if let Some(disk) = &options.data_disk {
            qemu.args(["-drive", &format!("if=none,id=data,format=raw,file={}", disk.display())]);
            qemu.args(["-device", "virtio-blk-pci,drive=data"]);
        }
        qemu.args(&options.extra).stdin(Stdio::null()).stdout(Stdio::null());
        let began = Instant::now();
        let qemu = qemu.spawn().expect("qemu-system-x86_64");
        let mut appliance = Appliance { qemu, dir, ports: [0; 4], began };
        appliance.wait("QEMU's monitor", |own| UnixStream::connect(own.path("qmp")).is_ok());
        let table = Qmp::connect(&appliance.path("qmp"))
            .execute("human-monitor-command", r#"{"command-line": "info usernet"}"#);
        appliance.ports = ports.map(|port| forwarded(&table, port));
        appliance
    }

    /// Waits until the Docker API answers `GET /_ping`, without TLS: the time since it was switched on. What is asked before the machine listens may never be
    /// answered, so it is asked again and again, and all who ask are heard.
    #[track_caller]
    pub fn wait_for_ping(&mut self) -> Duration {
        let mut asked: Vec<TcpStream> = Vec::new();
        loop {
            let at = self.began.elapsed();
            assert!(at < PATIENCE, "the API does not answer; console: {}", self.console());
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.docker_port())).expect("QEMU takes it");
            // one that QEMU has closed is dropped below
            stream.write_all(b"GET /_ping HTTP/1.1\r\nHost: vch\r\nConnection: close\r\n\r\n").ok();
            stream.set_nonblocking(true).expect("a socket");
            asked.push(stream);
            std::thread::sleep(ASK_AGAIN);
            let mut answer = [0; 15];
            for stream in &mut asked {
                if stream.peek(&mut answer).is_ok_and(|count| answer[..count] == *b"HTTP/1.1 200 OK") {
                    return self.began.elapsed();
                }
            }
            asked.retain(|stream| {
                stream.peek(&mut answer).map_or_else(|error| error.kind() == ErrorKind::WouldBlock, |count| count > 0)
            });
        }
    }

    /// The port of the host's loopback that leads to the Docker API.
    pub fn docker_port(&self) -> u16 {
        self.ports[0]
    }

    /// ... to raw links.
    pub fn link_port(&self) -> u16 {
        self.ports[1]
    }

    /// ... to the serial port concentrator.
    pub fn vspc_port(&self) -> u16 {
        self.ports[2]
    }

    /// ... to the status page.
    pub fn status_port(&self) -> u16 {
        self.ports[3]
    }

    /// What was on its console so far.
    pub fn console(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.path("console")).unwrap_or_default()).into_owned()
    }

    /// Waits until the console has shown `text` this often.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str, times: usize) {
        self.wait(text, |own| own.console().matches(text).count() >= times);
    }

    /// Waits until the console has shown `text`.
    #[track_caller]
    pub fn wait_for_console(&mut self, text: &str) {
        self.wait_for(text, 1);
    }

    /// Types a line for the shell on its console: see [`Options::shell`]. What comes back is on the console.
    pub fn shell(&self, line: &str) {
        let mut shell = UnixStream::connect(self.path("shell")).expect("the console");
        shell.set_read_timeout(Some(Duration::from_millis(100))).expect("a socket");
        shell.write_all(format!("{line}\n").as_bytes()).expect("the console");
        // it is taken when its echo has come; QEMU forgets what a client that is gone has sent
        let (mut echo, mut buffer, began) = (Vec::new(), [0; 256], Instant::now());
        while !String::from_utf8_lossy(&echo).contains(line) && began.elapsed() < PATIENCE {
            if let Ok(count) = shell.read(&mut buffer) {
                assert!(count > 0, "the console is gone");
                echo.extend_from_slice(&buffer[..count]);
            }
        }
    }

    /// Ends vch as `kill -9` does. It takes a shell.
    pub fn kill_vch(&self) {
        self.shell("kill -9 $(pidof vch)");
    }

    /// Resets the machine, as its button does: nothing is written, and it boots again.
    pub fn reset(&self) {
        Qmp::connect(&self.path("qmp")).execute("system_reset", "{}");
    }

    /// Lets a machine run that stands still since it was switched on: QEMU's `-S`.
    pub fn go_on(&self) {
        Qmp::connect(&self.path("qmp")).execute("cont", "{}");
    }

    /// Presses the power button.
    pub fn power_button(&self) {
        Qmp::connect(&self.path("qmp")).execute("system_powerdown", "{}");
    }

    /// Waits until it has powered off by itself.
    #[track_caller]
    pub fn wait_for_end(&mut self) {
        let began = Instant::now();
        while self.qemu.try_wait().expect("a child of ours").is_none() {
            assert!(began.elapsed() < PATIENCE, "still on; console: {}", self.console());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    #[track_caller]
    fn wait(&mut self, what: &str, is_so: impl Fn(&Appliance) -> bool) {
        let began = Instant::now();
        while !is_so(self) {
            let ended = self.qemu.try_wait().expect("a child of ours");
            assert!(ended.is_none(), "QEMU has ended, {ended:?}, before {what:?}; console: {}", self.console());
            assert!(began.elapsed() < PATIENCE, "{what:?} did not come; console: {}", self.console());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Appliance {
    fn drop(&mut self) {
        self.qemu.kill().ok();
        self.qemu.wait().ok();
    }
}

/// The host's port in the lines of QEMU's table: `TCP[HOST_FORWARD] fd address port address port ...`.
fn forwarded(table: &str, port: u16) -> u16 {
    let fields = |line: &str| -> Option<u16> {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [kind, _, _, ours, _, theirs, ..] = fields[..] else { return None };
        (kind == "TCP[HOST_FORWARD]" && theirs == port.to_string()).then(|| ours.parse().ok())?
    };
    let found = table.replace("\\r", "").split("\\n").find_map(fields);
    found.unwrap_or_else(|| panic!("port {port} is not in {table}"))
}

/// An appliance's medium, and the initramfs in it.
struct Medium {
    iso: PathBuf,
    initramfs: PathBuf,
    /// Where they lie, if they were made here.
    _dir: TempDir,
}

/// That of `./dev iso`; one with a shell, or with programs out of `TETHER_PROGRAMS`, is made once for all tests.
fn medium(shell: bool) -> &'static Medium {
    static PLAIN: OnceLock<Medium> = OnceLock::new();
    static SHELL: OnceLock<Medium> = OnceLock::new();
    let medium = if shell { &SHELL } else { &PLAIN };
    medium.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let builder = artifacts::program("iso-builder");
        let iso = if shell || std::env::var_os("TETHER_PROGRAMS").is_some() {
            let iso = dir.path().join("appliance.iso");
            let mut make = Command::new(&builder);
            make.args(["--progress", "none", "appliance", "--kernel"]).arg(artifacts::dist("kernel"));
            make.arg("--kernel-config").arg(artifacts::dist("kernel.config"));
            make.arg("--init").arg(artifacts::program("appliance-init")).arg("--vch").arg(artifacts::program("vch"));
            if shell {
                make.args(["--debug-console", "/usr/bin/busybox"]);
            }
            let output = make.arg("-o").arg(&iso).output().expect("iso-builder");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            iso
        } else {
            artifacts::dist("appliance.iso")
        };
        let initramfs = dir.path().join("initramfs");
        let place = format!("{}:/boot/initramfs.cpio", iso.display());
        let out = File::create(&initramfs).expect("a file");
        let status = Command::new(&builder).args(["cat", &place]).stdout(out).status().expect("iso-builder");
        assert!(status.success(), "iso-builder cat {place}");
        Medium { iso, initramfs, _dir: dir }
    })
}
