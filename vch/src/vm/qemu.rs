//! QEMU: the command line that makes a [`Machine`], and the process.
//!
//! Which machine type and flags, and what each is worth, was measured; the figures are in the comments. The guest's needs are in `kernel-config/`.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStderr, Command};
use tokio::task::JoinHandle;
use wire::spec::{LOG_PORT, LinkDevice, VIRTIO_PORT};

use super::ports::{self, Forward};
use super::{Accel, Begins, Boot, Card, CardEnd, Disk, Format, LinkEnd, Machine, Vsock};
use crate::pipe::Address;

/// The program, as the user names it or as it is found in `PATH`.
pub fn find() -> Result<PathBuf> {
    if let Some(chosen) = std::env::var_os("VCH_QEMU").filter(|name| !name.is_empty()) {
        return in_path(&chosen).with_context(|| format!("VCH_QEMU is {}: there is no such program", chosen.display()));
    }
    in_path(OsStr::new(PROGRAM))
        .with_context(|| format!("{PROGRAM} not found: install the package qemu-system-x86 (qemu-system-x86-core on Fedora), or name the program in VCH_QEMU"))
}

/// A firmware that knows only how to start a kernel, if it is installed: 0.1 s faster than SeaBIOS.
pub fn quick_firmware() -> Option<PathBuf> {
    QBOOT.iter().map(PathBuf::from).find(|path| path.is_file())
}

/// The arguments that make a machine.
pub fn arguments(machine: &Machine) -> Vec<OsString> {
    let mut line = Line(Vec::new());
    line.words("-nodefaults -no-user-config -display none -vga none -nic none -monitor none");
    if let LinkEnd::Own(_) | LinkEnd::Host(_) | LinkEnd::Nobody { .. } = machine.link_end {
        line.words("-no-reboot");
    }
    if let Some(orders) = &machine.orders {
        line.option("-chardev", "socket,id=orders,server=on,wait=off,path=", orders);
        line.words("-qmp chardev:orders");
    }
    line.words(match machine.accel {
        // programs of today want more than QEMU's own default
        Accel::Tcg => EMULATED,
        Accel::Kvm => "-accel kvm -cpu host",
    });
    let grows = machine.grows();
    line.words(&size(machine, grows));
    let forks = machine.begins != Begins::Boot;
    if forks {
        line.words(&memory(machine));
    }
    match &machine.boot {
        Boot::Kernel { kernel, initramfs } => {
            line.words(DIRECT_MACHINE);
            // the quick firmware stops where it is to tell the device of generations where its memory is
            if let Some(firmware) = machine.firmware.as_ref().filter(|_| !forks) {
                line.pair("-bios", firmware);
            }
            if machine.begins == Begins::Clone {
                line.words(IN_PLACE_OF_A_KERNEL);
            } else {
                line.pair("-kernel", kernel);
                line.pair("-initrd", initramfs);
                line.pair("-append", COMMAND_LINE);
            }
        }
        Boot::Iso(iso) => {
            line.words("-machine q35 -boot d");
            line.option("-drive", "if=ide,media=cdrom,readonly=on,format=raw,file=", iso);
        }
    }
    line.option("-fw_cfg", "name=opt/guestinfo,file=", &machine.guestinfo);
    if machine.link == LinkDevice::Virtio || machine.log.is_some() || forks {
        // its port 0 is for consoles
        line.words("-device virtio-serial-pci,max_ports=3");
    }
    match machine.link {
        LinkDevice::Serial => {
            line.link(&machine.link_end);
            line.words("-device isa-serial,index=0,chardev=link");
        }
        LinkDevice::Virtio => {
            line.link(&machine.link_end);
            line.words(&format!("-device virtserialport,chardev=link,name={VIRTIO_PORT}"));
        }
        // the device below
        LinkDevice::Vsock => {}
    }
    // a template does not know who is to have a log
    let no_log = forks.then_some(Path::new("/dev/null"));
    if let Some(log) = machine.log.as_deref().or(no_log) {
        line.option("-chardev", "file,id=log,path=", log);
        line.words(&format!("-device virtserialport,chardev=log,name={LOG_PORT}"));
    }
    if let Some(vsock) = &machine.vsock {
        if let Vsock::Program { socket, .. } = vsock {
            // the program reads and writes the guest's memory
            line.words(&format!("-object memory-backend-memfd,id=mem,share=on,size={}M", machine.memory_mib));
            line.words("-machine memory-backend=mem");
            line.option("-chardev", "socket,id=vsock,path=", socket);
        }
        line.pair("-device", vsock.device());
    }
    line.option("-chardev", "file,id=console,path=", &machine.console);
    line.words("-device isa-serial,index=1,chardev=console");
    match &machine.root {
        Some(disk) => line.drive("root", disk),
        // a template's guest knows the device, and asks anew how large the disk is when it has become a clone's
        None if forks => line.words("-blockdev driver=null-co,node-name=root,read-zeroes=on,size=65536"),
        None => {}
    }
    if forks || machine.root.is_some() {
        let serial = machine.root.as_ref().map(serial).unwrap_or_default();
        line.words(&format!("-device virtio-blk-pci,drive=root{serial}"));
    }
    if grows || forks || !machine.disks.is_empty() {
        line.words("-device virtio-scsi-pci,id=scsi");
    }
    for (number, disk) in machine.disks.iter().enumerate() {
        // units of one target: the guest asks once for all of them
        let name = format!("disk{number}");
        line.drive(&name, disk);
        line.words(&format!("-device scsi-hd,bus=scsi.0,scsi-id=0,lun={number},drive={name}{}", serial(disk)));
    }
    let ports = if grows { machine.cards.len() + FREE_PORTS } else { 0 };
    for number in 1..=ports {
        line.words(&format!("-device pcie-root-port,id={},chassis={number},slot={number}", port_name(number - 1)));
    }
    for (number, card) in machine.cards.iter().enumerate() {
        line.card(card, Some(port_name(number)).filter(|_| grows));
    }
    line.words(match machine.begins {
        // what the guest does not use goes back to the host
        Begins::Boot => "-device virtio-balloon-pci,free-page-reporting=on",
        // QEMU would take it out of the template's file, where it is not to be written
        Begins::Template | Begins::Clone => "-device virtio-balloon-pci -device vmgenid,guid=auto",
    });
    line.words("-object rng-random,id=rng,filename=/dev/urandom -device virtio-rng-pci,rng=rng");
    line.0
}

/// Memory and processors; a machine that grows has places for more.
fn size(machine: &Machine, grows: bool) -> String {
    let Machine { memory_mib: memory, cpus, accel, .. } = machine;
    let mut size = format!("-m {memory}");
    if grows {
        size.push_str(&format!(",slots={MEMORY_SLOTS},maxmem={}M", memory.next_multiple_of(1024) + MORE_MEMORY_MIB));
    }
    size.push_str(&format!(" -smp {cpus}"));
    // a kernel that sees no hypervisor keeps no place for processors to come, and QEMU without KVM is none that it knows
    if grows && *accel == Accel::Kvm {
        let host = std::thread::available_parallelism().map_or(1, usize::from);
        size.push_str(&format!(",maxcpus={}", host.max(usize::from(*cpus))));
    }
    size
}

/// Where the memory of a machine is that forks.
fn memory(machine: &Machine) -> String {
    let (share, begins) = match machine.begins {
        Begins::Clone => ("off", " -incoming defer"),
        Begins::Boot | Begins::Template => ("on", ""),
    };
    let size = machine.memory_mib;
    format!(
        "-object memory-backend-file,id=mem,share={share},size={size}M,mem-path=/proc/self/fd/1 -machine memory-backend=mem{begins}"
    )
}

/// What a card, and its other end, is called. The name is the same when it is plugged in later.
pub(crate) fn card_name(mac: [u8; 6]) -> String {
    format!("card-{}", mac.map(|byte| format!("{byte:02x}")).concat())
}

/// What a port is called that takes a card while the machine runs.
pub(crate) fn port_name(number: usize) -> String {
    format!("port{number}")
}

fn serial(disk: &Disk) -> String {
    disk.serial.as_ref().map(|serial| format!(",serial={serial}")).unwrap_or_default()
}

/// The files of a machine that forks: see [`Begins`].
#[derive(Debug, Default)]
pub struct Files {
    pub state: Option<File>,
    pub memory: Option<File>,
}

impl Files {
    pub(crate) fn stdin(&mut self) -> Stdio {
        self.state.take().map_or_else(Stdio::null, Stdio::from)
    }

    pub(crate) fn stdout(&mut self) -> Stdio {
        self.memory.take().map_or_else(Stdio::null, Stdio::from)
    }
}

/// A running QEMU. It ends with vch, even when vch is killed.
#[derive(Debug)]
pub struct Process {
    child: Child,
    complaint: JoinHandle<String>,
}

impl Process {
    pub fn start(program: &Path, machine: &Machine) -> Result<Process> {
        Process::start_with(program, machine, Files::default())
    }

    /// Starts a machine that forks.
    pub fn start_with(program: &Path, machine: &Machine, mut files: Files) -> Result<Process> {
        let mut command = tethered(program);
        command.args(arguments(machine)).stdin(files.stdin()).stdout(files.stdout()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        let Some(stderr) = child.stderr.take() else { bail!("{} has no stderr", program.display()) };
        let complaint = tokio::spawn(last_line(stderr));
        Ok(Process { child, complaint })
    }

    /// Waits until it has ended.
    pub async fn wait(&mut self) -> std::io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Ends it now.
    pub async fn kill(&mut self) {
        // an error says that it has ended already
        self.child.kill().await.ok();
    }

    /// What it said last on its stderr; once it has ended.
    pub async fn complaint(self) -> Option<String> {
        self.complaint.await.ok().filter(|line| !line.is_empty())
    }
}

/// What a program says last, once it says no more. It is read all along, so that the program never waits for that.
pub(super) async fn last_line(stderr: ChildStderr) -> String {
    let mut lines = BufReader::new(stderr).lines();
    let mut last = String::new();
    while let Ok(Some(line)) = lines.next_line().await {
        if !line.trim().is_empty() {
            last = line;
        }
    }
    last
}

/// A command that ends with vch, even when vch is killed. Ctrl-C is for vch, which tells the guest.
pub(super) fn tethered(program: &Path) -> Command {
    let mut command = match in_path(OsStr::new("setpriv")) {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "KILL", "--"]).arg(program);
            command
        }
        None => Command::new(program),
    };
    command.process_group(0).kill_on_drop(true);
    command
}

/// Arguments being collected.
struct Line(Vec<OsString>);

impl Line {
    fn words(&mut self, words: &str) {
        self.0.extend(words.split(' ').map(OsString::from));
    }

    fn pair(&mut self, option: &str, value: impl AsRef<OsStr>) {
        self.0.extend([option.into(), value.as_ref().to_owned()]);
    }

    /// The host's side of the link. One that leads elsewhere is tried again every second; the machine waits for nobody.
    fn link(&mut self, end: &LinkEnd) {
        match end {
            LinkEnd::Own(path) => self.option("-chardev", "socket,id=link,path=", path),
            LinkEnd::Elsewhere(Address::Tcp(place)) => {
                let (host, port) = place.rsplit_once(':').unwrap_or((place, ""));
                let host = host.trim_start_matches('[').trim_end_matches(']');
                self.words(&format!("-chardev socket,id=link,reconnect=1,port={port},host={host}"));
            }
            LinkEnd::Host(path) | LinkEnd::Elsewhere(Address::Unix(path)) => {
                self.option("-chardev", "socket,id=link,reconnect=1,path=", path);
            }
            // it takes what is written, so that a guest finds its port connected: in a clone it is
            LinkEnd::Nobody { .. } => self.words("-chardev file,id=link,path=/dev/null"),
            // QEMU connects to nothing else; the options take no such address
            LinkEnd::Elsewhere(Address::Serial { .. } | Address::Vsock { .. } | Address::Vspc(_)) => {
                self.words("-chardev null,id=link");
            }
        }
    }

    /// A network card and its other end.
    fn card(&mut self, card: &Card, port: Option<String>) {
        let name = card_name(card.mac);
        match &card.end {
            CardEnd::User(forwards) => {
                // an IPv6 address of QEMU's leads nowhere where the host has none, and programs would try it first
                let mut network = format!("-netdev user,id={name},ipv6=off");
                for Forward { protocol, address, host, guest } in forwards {
                    network.push_str(&format!(",hostfwd={}:{address}:{host}-:{guest}", ports::name(*protocol)));
                }
                self.words(&network);
            }
            CardEnd::Switch { switch, machine } => {
                self.option(
                    "-netdev",
                    &format!("dgram,id={name},remote.type=unix,local.type=unix,remote.path="),
                    switch,
                );
                self.suboption(",local.path=", machine);
            }
            CardEnd::Tap(device) => {
                self.words(&format!("-netdev tap,id={name},ifname={device},script=no,downscript=no"))
            }
            // it has no state, which another kind of network would not know
            CardEnd::Nowhere => self.words(&format!("-netdev hubport,id={name},hubid={}", card.mac[5])),
        }
        let mac = card.mac.map(|byte| format!("{byte:02x}")).join(":");
        let bus = port.map(|port| format!(",bus={port}")).unwrap_or_default();
        self.words(&format!("-device virtio-net-pci,netdev={name},id={name},mac={mac},romfile={bus}"));
    }

    /// The host's side of a disk.
    fn drive(&mut self, name: &str, disk: &Disk) {
        let format = match disk.format {
            Format::Raw => "raw",
            Format::Qcow2 => "qcow2",
            Format::Vmdk => "vmdk",
        };
        let cache = if disk.transient { "unsafe" } else { "writeback" };
        // A full host disk is an I/O error to the guest. QEMU would pause the machine, and vch would wait for ever.
        let access = if disk.read_only {
            "readonly=on,rerror=report"
        } else {
            // a clone's would be opened for writing when it runs, and QEMU be another user by then
            "discard=unmap,detect-zeroes=unmap,werror=report,rerror=report,file.auto-read-only=off"
        };
        self.option("-drive", &format!("if=none,id={name},format={format},cache={cache},{access},file="), &disk.file);
    }

    /// An option whose last suboption is a path.
    fn option(&mut self, option: &str, suboptions: &str, path: &Path) {
        self.0.extend([option.into(), OsString::new()]);
        self.suboption(suboptions, path);
    }

    /// More of the last option, up to a path; a comma in it is written twice.
    fn suboption(&mut self, suboptions: &str, path: &Path) {
        let mut value = self.0.pop().unwrap_or_default().into_vec();
        value.extend_from_slice(suboptions.as_bytes());
        for &byte in path.as_os_str().as_bytes() {
            value.extend(std::iter::repeat_n(byte, if byte == b',' { 2 } else { 1 }));
        }
        self.0.push(OsString::from_vec(value));
    }
}

pub(super) fn in_path(name: &OsStr) -> Option<PathBuf> {
    if name.as_bytes().contains(&b'/') {
        return Some(PathBuf::from(name)).filter(|path| path.is_file());
    }
    std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(name)).find(|path| path.is_file())
}

const PROGRAM: &str = "qemu-system-x86_64";
const QBOOT: [&str; 2] = ["/usr/share/qemu/qboot.rom", "/usr/share/qemu-kvm/qboot.rom"];
/// Start to first byte of output on a busy host, the least of nine: `pc` 1.19 s (its kernel waits for IDE ports that nobody uses), q35 without what we
/// do not use 0.82 s, with qboot 0.7 s. `i8042=off` would take another 0.06 s, and QEMU before 7.0 does not know it.
const DIRECT_MACHINE: &str = "-machine q35,sata=off,smbus=off,hpet=off";
/// QEMU puts this into a machine that boots a kernel. A clone's kernel is in its memory already, and need not be read: but what a guest finds by number, the files of
/// fw_cfg, must be as many as they were.
const IN_PLACE_OF_A_KERNEL: &str = "-option-rom linuxboot_dma.bin";
/// Without `erms` and `fsrm` the kernel, and C libraries, copy eight bytes at a time: TCG takes as long for one that `rep movsb` moves. A pipe is 2.6 times as
/// fast then, a file that is in memory 5 times.
const EMULATED: &str = "-accel tcg -cpu max,-erms,-fsrm";
/// Ports for cards that come later, beside those that cards are in from the start, so that these can be pulled out, too. Seconds of processor
/// to the first line on the console, under TCG on a busy host, medians of 15 (the least): 0.93 (0.74) without, 0.92 (0.81) with two.
pub(crate) const FREE_PORTS: usize = 2;
/// So often can memory be plugged in. The places for it: 0.93 s (0.80) as above; with a virtio-mem device in their stead 0.89 s (0.79), which would take
/// memory back, too, and takes no more than it was made for. The balloon takes it back from all of it, and is there anyhow.
const MEMORY_SLOTS: u8 = 8;
/// As much in all.
const MORE_MEMORY_MIB: u64 = 32 << 10;
/// What a guest takes memory in: a section of Linux's on x86.
pub(crate) const MIB_OF_A_BLOCK: u64 = 128;
/// `no_timer_check`: the kernel counts the timer's ticks for a moment, and panics if there are too few. On a busy host QEMU under TCG is late with them.
/// It costs no time, nor saves any. `noreplace-smp`: with one CPU the kernel would patch every lock away, 0.15 s under TCG, and back when a second one is added.
/// `rcu_expedited`: to make control groups and mounts, PID 1 waits for all CPUs to have passed by; with the few of a VM they are better asked at once.
/// `clearcpuid=cx16`: under TCG of QEMU 7.2, on a busy host, one machine in 50 died of a double fault in the kernel's allocator, right behind a `cmpxchg16b`, with
/// half of a register for flags; without it none of 100.
const COMMAND_LINE: &str =
    "console=ttyS1 quiet panic=-1 no_timer_check noreplace-smp rcupdate.rcu_expedited=1 clearcpuid=cx16";

#[cfg(test)]
pub(crate) mod tests;
