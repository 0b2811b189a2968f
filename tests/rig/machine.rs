//! A containerVM without `vch`: QEMU on a command line of the test's, and the host's end of the link in the test's own hands.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use wire::handshake::LinkKey;
use wire::link::{Event, Link, Role, Security, Tuning};
use wire::message::{Event as Told, MAIN, Message};
use wire::spec::{Environment, LinkDevice, LinkSpec, Process, SPEED, Spec};

use crate::artifacts;
use crate::qmp::Qmp;
use crate::vch::DEADLINE;
use crate::vsock::Vsock;

/// What to boot.
pub struct Machine {
    pub link: LinkDevice,
    pub initramfs: PathBuf,
    /// Boot this medium through the firmware, in place of kernel and initramfs.
    pub iso: Option<PathBuf>,
    /// The medium is a stick in a USB port, and not a CD in a drive.
    pub iso_on_stick: bool,
    /// The firmware is UEFI, and not a BIOS.
    pub uefi: bool,
    pub disk: Option<PathBuf>,
    /// The text of fw_cfg's opt/guestinfo; none means that there is none.
    pub guestinfo: Option<String>,
    pub extra: Vec<String>,
    /// The console's port, and not the link's device, is what [`Powered::socket`] holds.
    pub console_on_socket: bool,
    /// The console's port is a socket that QEMU makes there, and waits at; nothing is recorded of it.
    pub console_at: Option<PathBuf>,
    /// The link's serial port is connected by TCP, as ESXi does it.
    pub link_over_tcp: bool,
    /// The link's device connects to who listens at this unix socket, again and again; [`Powered::socket`] is the console's.
    pub link_connects: Option<PathBuf>,
    /// A reset is a new boot, and not its end.
    pub reboots: bool,
}

const MEMORY_MIB: u32 = 256;

/// The kernel's, as vch gives it.
pub const COMMAND_LINE: &str =
    "console=ttyS1 quiet panic=-1 no_timer_check noreplace-smp rcupdate.rcu_expedited=1 clearcpuid=cx16";
/// A UEFI firmware, of Debian's package ovmf. Without a place for its variables, it starts what it finds on the medium, as on a new machine.
pub const OVMF: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
/// A firmware that only starts kernels.
pub(crate) const QBOOT: &str = "/usr/share/qemu/qboot.rom";

/// The rig's machines are nobody's secret.
fn key() -> LinkKey {
    LinkKey::new([0x5a; 32])
}

/// The spec of a shell script.
pub fn script(link: LinkDevice, script: &str) -> Spec {
    let link = LinkSpec { device: link, key: key(), sealed: link == LinkDevice::Serial, speed: SPEED };
    let env = Environment(vec!["PATH=/bin:/usr/bin".into()]);
    let argv = ["/bin/sh", "-c", script].map(String::from).to_vec();
    Spec::new("rig", link, Process { env, ..Process::new(argv) })
}

impl Machine {
    pub fn new(spec: &Spec, disk: Option<PathBuf>) -> Machine {
        Machine {
            link: spec.link.device,
            initramfs: artifacts::dist("initramfs"),
            iso: None,
            iso_on_stick: false,
            uefi: false,
            disk,
            guestinfo: Some(wire::guestinfo::write(spec).to_string()),
            extra: Vec::new(),
            console_on_socket: false,
            console_at: None,
            link_over_tcp: false,
            link_connects: None,
            reboots: false,
        }
    }

    /// Powers it on. The link is connected, and nothing has been read from it.
    pub fn power_on(self) -> Powered {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = |name: &str| dir.path().join(name).display().to_string();
        let tcp = self.link_over_tcp.then(|| TcpListener::bind("127.0.0.1:0").expect("a port"));
        let vsock = (self.link == LinkDevice::Vsock).then(|| Vsock::start(dir.path()));
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args("-accel tcg -cpu max,-erms,-fsrm -nodefaults -no-user-config -display none".split(' '));
        if !self.reboots {
            qemu.arg("-no-reboot");
        }
        qemu.args(["-m", &MEMORY_MIB.to_string()]);
        match &self.iso {
            Some(iso) => {
                let medium = format!("readonly=on,format=raw,file={}", iso.display());
                qemu.args(["-machine", if self.uefi { "q35" } else { "pc" }]);
                if self.uefi {
                    qemu.args(["-drive", &format!("if=pflash,readonly=on,format=raw,file={OVMF}")]);
                }
                if self.iso_on_stick {
                    qemu.args(["-device", "qemu-xhci", "-drive", &format!("if=none,id=stick,{medium}")]);
                    qemu.args(["-device", "usb-storage,drive=stick,bootindex=0"]);
                } else {
                    qemu.args(["-drive", &format!("if=ide,media=cdrom,{medium}")]);
                }
            }
            // as vch does
            None => {
                qemu.args(["-machine", "q35,sata=off,smbus=off,hpet=off"]);
                qemu.args(["-append", COMMAND_LINE]);
                qemu.arg("-kernel").arg(artifacts::dist("kernel")).arg("-initrd").arg(&self.initramfs);
                if Path::new(QBOOT).exists() {
                    qemu.args(["-bios", QBOOT]);
                }
            }
        }
        qemu.args(["-qmp", &format!("unix:{},server=on,wait=off", path("qmp"))]);
        // QEMU listens, so that a host may come again; the machine waits for the first one
        let socket = format!("path={},server=on,wait=on", path("link"));
        let (link, console) = match (&self.link_connects, self.console_on_socket) {
            (Some(to), _) => {
                let link = format!("socket,id=link,path={},reconnect=1", to.display());
                (link, format!("socket,id=console,{socket}"))
            }
            (None, true) => ("null,id=link".into(), format!("socket,id=console,{socket}")),
            (None, false) => {
                let link = match &tcp {
                    Some(tcp) => format!("host=127.0.0.1,port={}", tcp.local_addr().expect("a port").port()),
                    None => socket,
                };
                let console = match &self.console_at {
                    Some(at) => format!("socket,id=console,path={},server=on,wait=on", at.display()),
                    None => format!("file,id=console,path={}", path("console")),
                };
                (format!("socket,id=link,{link}"), console)
            }
        };
        if vsock.is_none() {
            qemu.args(["-chardev", &link]);
        }
        qemu.args(["-chardev", &console]);
        match self.link {
            LinkDevice::Serial => qemu.args(["-device", "isa-serial,index=0,chardev=link"]),
            LinkDevice::Virtio => qemu
                .args(["-device", "virtio-serial-pci"])
                .args(["-device", "virtserialport,chardev=link,name=tether.link"]),
            LinkDevice::Vsock => qemu.args(vsock.iter().flat_map(|vsock| vsock.arguments(MEMORY_MIB))),
        };
        qemu.args(["-device", "isa-serial,index=1,chardev=console"]);
        if let Some(text) = &self.guestinfo {
            fs::write(path("guestinfo"), text).expect("a file");
            qemu.args(["-fw_cfg", &format!("name=opt/guestinfo,file={}", path("guestinfo"))]);
        }
        if let Some(disk) = &self.disk {
            qemu.args(["-drive", &format!("if=none,id=root,format=raw,snapshot=on,file={}", disk.display())]);
            qemu.args(["-device", "virtio-blk-pci,drive=root"]);
        }
        qemu.args(&self.extra);
        let began = Instant::now();
        let child = qemu.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("qemu-system-x86_64");
        let mut qemu = Qemu(child);
        let socket = match (&vsock, tcp) {
            (Some(vsock), _) => vsock.accept(&mut qemu.0),
            // to read and write, a stream is a stream
            (None, Some(tcp)) => OwnedFd::from(tcp.accept().expect("QEMU connects").0).into(),
            (None, None) => loop {
                match UnixStream::connect(path("link")) {
                    Ok(socket) => break socket,
                    Err(error) => assert!(began.elapsed() < DEADLINE, "QEMU does not listen: {error}"),
                }
                assert!(qemu.0.try_wait().expect("a child of ours").is_none(), "QEMU has ended");
                std::thread::sleep(Duration::from_millis(1));
            },
        };
        Powered { qemu, socket, vsock, dir, link: self.link, began }
    }
}

/// Ends with its owner.
struct Qemu(Child);

impl Drop for Qemu {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A machine that is on.
pub struct Powered {
    qemu: Qemu,
    pub socket: UnixStream,
    vsock: Option<Vsock>,
    dir: TempDir,
    link: LinkDevice,
    /// When QEMU was started.
    pub began: Instant,
}

/// What a session of the rig has seen.
#[derive(Debug, Default)]
pub struct Seen {
    pub stdout: Vec<u8>,
    pub messages: Vec<Told>,
    /// Those of the messages that are JSON.
    pub statuses: Vec<String>,
    pub first_byte: Option<Duration>,
    pub noise: u64,
}

impl Powered {
    /// Serves the link until the machine powers off.
    pub fn serve(&mut self, tuning: Tuning) -> Seen {
        self.serve_until_output(tuning, |_| ())
    }

    /// Serves the link until the machine powers off; does something when the first output has come.
    pub fn serve_until_output(&mut self, tuning: Tuning, then: impl FnOnce(&Powered)) -> Seen {
        let mut then = Some(then);
        self.serve_with(tuning, |powered, _, _| {
            if let Some(then) = then.take() {
                then(powered);
            }
        })
    }

    /// Serves the link until the machine powers off; does something each time that output has come.
    pub fn serve_with(&mut self, tuning: Tuning, mut then: impl FnMut(&mut Powered, &mut Link, &Seen)) -> Seen {
        let sealed = self.link == LinkDevice::Serial;
        let security = Security { key: key(), sealed, seed: [1; 32] };
        let mut link = Link::new(Role::Host { vm: "rig".into() }, tuning, security);
        let streams = MAIN.streams();
        for channel in [streams.stdin, streams.stdout, streams.stderr] {
            link.open(channel);
        }
        let mut seen = Seen::default();
        let (mut out, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
        let now = |began: Instant| began.elapsed();
        link.pipe_up(now(self.began));
        loop {
            self.socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a socket");
            out.clear();
            while link.poll_transmit(now(self.began), &mut out) {}
            // an error is the machine's end, which the read tells
            self.socket.write_all(&out).ok();
            assert!(
                self.began.elapsed() < DEADLINE,
                "still on after {DEADLINE:?}: {seen:?}; console: {}",
                self.console()
            );
            match self.socket.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => link.handle_bytes(now(self.began), &buffer[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(_) => break,
            }
            link.handle_timeout(now(self.began));
            let bytes = link.readable(streams.stdout).to_vec();
            if !bytes.is_empty() {
                seen.first_byte = seen.first_byte.or(Some(self.began.elapsed()));
                link.consume(streams.stdout, bytes.len());
                seen.stdout.extend(bytes);
                then(self, &mut link, &seen);
            }
            while let Some(event) = link.poll_event() {
                match event {
                    Event::Message(bytes) => match Message::decode(&bytes) {
                        Ok(Message::Event(Told::Status(text))) => seen.statuses.push(text),
                        Ok(Message::Event(told)) => seen.messages.push(told),
                        other => panic!("unexpected message {other:?}"),
                    },
                    Event::Closed(why) => panic!("the link is over: {why}"),
                    _ => {}
                }
            }
        }
        seen.noise = link.noise().bytes;
        self.wait();
        seen
    }

    /// Cuts the guest's connection, with what is under way in it, and takes the next one.
    pub fn cut(&mut self, link: &mut Link) {
        link.pipe_down();
        self.disconnect();
        self.connect();
        link.pipe_up(self.began.elapsed());
    }

    /// Closes the connection, also for every copy of the socket.
    pub fn disconnect(&self) {
        // an error says that it is closed
        self.socket.shutdown(Shutdown::Both).ok();
    }

    /// Takes a new connection to the link's device, when the old one is closed. A guest with a vsock connects by itself.
    pub fn connect(&mut self) {
        self.socket = match &self.vsock {
            Some(vsock) => vsock.accept(&mut self.qemu.0),
            None => UnixStream::connect(self.dir.path().join("link")).expect("QEMU listens"),
        };
    }

    /// Waits until QEMU has ended by itself.
    pub fn wait(&mut self) {
        let code = crate::vch::wait(&mut self.qemu.0);
        assert_eq!(code, 0, "QEMU failed");
    }

    /// Waits until the console has shown `text`.
    pub fn wait_for_console(&self, text: &str) {
        while !self.console().contains(text) {
            assert!(self.began.elapsed() < DEADLINE, "{text:?} is not on the console: {}", self.console());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until the guest has said something on the link's device.
    pub fn wait_for_hello(&self) {
        self.socket.set_read_timeout(Some(DEADLINE)).expect("a socket");
        let count = (&self.socket).read(&mut [0; 4096]).expect("the guest says hello");
        assert!(count > 0, "the machine is gone; console: {}", self.console());
    }

    /// Presses the machine's power button.
    pub fn press_power_button(&self) {
        Qmp::connect(&self.path("qmp")).execute("system_powerdown", "{}");
    }

    /// A file of this machine's: `qmp`, `console`, `link`, and what else a test lays there.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn console(&self) -> String {
        fs::read_to_string(self.dir.path().join("console")).unwrap_or_default()
    }

    pub fn pid(&self) -> u32 {
        self.qemu.0.id()
    }
}
