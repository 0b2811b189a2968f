//! What an administrator sees and does in vCenter: tools that run, an address, power buttons that work, and guest operations for who has the link's key.
//!
//! The host is the double; what it asks is what a VMware host asks, and what the guest says to it is read line by line.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rig::cable::Cable;
use rig::host::Host;
use rig::images::busybox_disk;
use rig::machine::{Machine, script};
use rig::qmp::Qmp;
use rig::vmware::{Medium, Vmware};
use rig::wire::Wire;
use wire::guestinfo::base64;
use wire::message::{MAIN, Request};
use wire::spec::{Endpoint, LinkDevice, Spec};
use wire::status::Ending;

use crate::network::{endpoint, is_announcement, mac, prefix};

/// A containerVM on a VMware host.
struct Guest {
    _dir: tempfile::TempDir,
    vmware: Vmware,
    host: Host,
    /// Lines of the double's that have been looked at.
    seen: usize,
    spec: Spec,
    key: String,
}

fn boot(text: &str, edit: impl FnOnce(&mut Spec, &mut Machine)) -> Guest {
    let (dir, disk) = busybox_disk();
    let mut spec = script(LinkDevice::Virtio, text);
    let mut machine = Machine::new(&spec, Some(disk));
    edit(&mut spec, &mut machine);
    let vmware = Vmware::with(&spec);
    let machine = vmware.machine(machine, Medium::Initramfs);
    let key = spec.link.key.to_hex();
    let mut host = Host::boot(machine, &spec);
    host.expect(MAIN, "up\n");
    Guest { _dir: dir, vmware, host, seen: 0, spec, key }
}

impl Guest {
    /// Has the host ask, and returns what the guest said up to the answer, and the answer.
    fn ask(&mut self, question: &[u8]) -> (Vec<String>, String) {
        self.vmware.order(&format!("tclo {}", question.escape_ascii()));
        let seen = self.seen;
        let vmware = &self.vmware;
        let lines = self.host.wait("an answer", |_| {
            let lines = vmware.lines().split_off(seen);
            let end = lines.iter().position(|line| line.starts_with("tclo "))?;
            Some(lines[..=end].to_vec())
        });
        self.seen += lines.len();
        let (answer, before) = lines.split_last().unwrap();
        let before = before.iter().filter_map(|line| line.strip_prefix("rpci "));
        let before = before
            .filter(|line| !line.contains("..status ") && !line.starts_with("info-get "))
            .map(str::to_owned)
            .collect();
        (before, answer["tclo ".len()..].to_owned())
    }

    fn wait_for(&mut self, what: &str, start: &str) -> String {
        let vmware = &self.vmware;
        self.host.wait(what, |_| vmware.lines().into_iter().find(|line| line.starts_with(start)))
    }

    /// Asks for a guest operation: a VIX error, and the data.
    fn operate(&mut self, key: &str, operation: u32, body: &[u8]) -> (u32, String) {
        let (_, answer) = self.ask(&relayed(key, operation, body));
        let answer =
            answer.strip_prefix("OK ").expect("VIX's answers are all well").strip_suffix("\\x00").expect("a NUL");
        let (code, rest) = answer.split_once(" 0 ").expect("no error of the system's");
        (code.parse().expect("a number"), rest.to_owned())
    }

    /// Sends an HGFS packet: the status and payload of its answer, and the session that it names.
    fn transfer(&mut self, session: u64, operation: u32, payload: &[u8]) -> (u32, Vec<u8>, u64) {
        let key = self.key.clone();
        let mut request = relayed(&key, 84, &packet_body(session, operation, payload));
        let flags = b"Vix_1_Relayed_Command \"test\"\0".len() + 22;
        // an answer in bytes, not text
        request[flags] = 0x80;
        let (_, answer) = self.ask(&request);
        let answer = unescape(answer.strip_prefix("OK 0 0 #").unwrap_or_else(|| panic!("{answer}")));
        let word = |at: usize| u32::from_le_bytes(answer[at..at + 4].try_into().unwrap());
        assert_eq!((word(4), word(8) as usize, word(12)), (0xff, answer.len(), 52));
        assert_eq!((word(16), word(20), word(28)), (9, operation, 2));
        let session = u64::from_le_bytes(answer[36..44].try_into().unwrap());
        (word(24), answer[52..].to_vec(), session)
    }

    /// One step that must succeed.
    fn step(&mut self, session: u64, operation: u32, payload: &[u8]) -> Vec<u8> {
        let (status, payload, _) = self.transfer(session, operation, payload);
        assert_eq!(status, 0, "{operation}");
        payload
    }

    /// As vCenter brings a file.
    fn upload(&mut self, path: &str, bytes: &[u8]) {
        let key = self.key.clone();
        assert_eq!(self.operate(&key, 189, &upload_body(path, false)), (0, String::new()));
        let (_, _, session) = self.transfer(0, 41, &[0; 24]);
        let handle = self.step(session, 24, &create_payload(path))[..4].to_vec();
        // attributes of its own it has none
        self.step(session, 16, &[&[0; 8 + 8 + 104 + 4], &name(path)[..], &[0]].concat());
        for part in bytes.chunks(60 * 1024) {
            let len = u32::try_from(part.len()).unwrap().to_le_bytes();
            let written = self.step(session, 26, &[&handle[..], &[1], &[0; 8], &len, &[0; 8], part].concat());
            assert_eq!(written[..4], len);
        }
        self.step(session, 3, &[&[0; 8], &handle[..]].concat());
        self.step(session, 42, &[0; 8]);
    }

    /// As it fetches one.
    fn download(&mut self, path: &str) -> Vec<u8> {
        let key = self.key.clone();
        let (code, told) = self.operate(&key, 188, &download_body(path));
        assert_eq!(code, 0);
        let (_, _, session) = self.transfer(0, 41, &[0; 24]);
        let attributes = self.step(session, 15, &[&[0; 8 + 8 + 4], &name(path)[..], &[0]].concat());
        let size = u64::from_le_bytes(attributes[20..28].try_into().unwrap());
        assert!(told.contains(&format!("<fs>{size}</fs>")), "{told}");
        let handle = self.step(session, 0, &[&[0; 8 + 8], &[6][..], &name(path), &[0]].concat())[8..].to_vec();
        let mut bytes = Vec::new();
        loop {
            let offset = u64::try_from(bytes.len()).unwrap().to_le_bytes();
            let part = self.step(session, 25, &[&handle[..], &offset, &0xf000_u32.to_le_bytes(), &[0; 8]].concat());
            assert_eq!(part[..4], u32::try_from(part.len() - 12).unwrap().to_le_bytes());
            if part.len() == 12 {
                break;
            }
            bytes.extend_from_slice(&part[12..]);
        }
        assert_eq!(bytes.len() as u64, size);
        self.step(session, 3, &[&[0; 8], &handle[..]].concat());
        self.step(session, 42, &[0; 8]);
        bytes
    }

    fn start(&mut self, program: &str, arguments: &str) -> u32 {
        let key = self.key.clone();
        let (code, pid) = self.operate(&key, 185, &start_body(program, arguments));
        assert_eq!(code, 0, "{pid}");
        pid.parse().expect("a number")
    }

    /// How vCenter shows a process.
    fn process(&mut self, pid: u32) -> String {
        let key = self.key.clone();
        let body = [&[0; 8][..], &1_u32.to_le_bytes(), &u64::from(pid).to_le_bytes()].concat();
        let (code, list) = self.operate(&key, 186, &body);
        assert_eq!(code, 0);
        list
    }

    /// How one ended, once it has.
    fn ended(&mut self, pid: u32) -> String {
        loop {
            let list = self.process(pid);
            if !list.contains("<eTime>0<") {
                return list;
            }
            self.host.serve_for(Duration::from_millis(50));
        }
    }
}

/// A guest operation as a host relays it.
fn relayed(key: &str, operation: u32, body: &[u8]) -> Vec<u8> {
    let len = |len: usize| u32::try_from(len).unwrap();
    let text = base64::encode(format!("rig\0{key}\0").as_bytes());
    let credentials = [&len(3).to_le_bytes()[..], &len(key.len()).to_le_bytes(), text.as_bytes(), &[0]].concat();
    let mut bytes = b"Vix_1_Relayed_Command \"test\"\0\x01\x00\x0d\xd0\x05\x00".to_vec();
    for word in [len(51 + body.len() + credentials.len()), 51, len(body.len()), len(credentials.len())] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.push(0);
    [operation, 0, 0, 0, 0, 0, 1].iter().for_each(|word| bytes.extend(word.to_le_bytes()));
    [&bytes[..], body, &credentials].concat()
}

fn start_body(program: &str, arguments: &str) -> Vec<u8> {
    let text = |text: &str| if text.is_empty() { Vec::new() } else { [text.as_bytes(), &[0]].concat() };
    let texts = [text(program), text(arguments)];
    let mut body = vec![0];
    for len in [texts[0].len(), texts[1].len(), 0, 0, 0] {
        body.extend(u32::try_from(len).unwrap().to_le_bytes());
    }
    [body, texts.concat()].concat()
}

fn download_body(path: &str) -> Vec<u8> {
    let len = u32::try_from(path.len() + 1).unwrap().to_le_bytes();
    [&[0; 4], &len[..], &[0; 20], path.as_bytes(), &[0]].concat()
}

fn upload_body(path: &str, overwrite: bool) -> Vec<u8> {
    let len = u32::try_from(path.len()).unwrap().to_le_bytes();
    [&[0; 4], &len[..], &[overwrite.into()], path.as_bytes(), &[0]].concat()
}

fn packet_body(session: u64, operation: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(52 + payload.len()).unwrap();
    let mut body = [len.to_le_bytes(), [0xff; 4]].concat();
    [1, 0xff, len, 52, 9, operation, 0, 1, 0].iter().for_each(|word: &u32| body.extend(word.to_le_bytes()));
    [&body[..], &session.to_le_bytes(), &[0; 8], payload].concat()
}

/// HGFS's name of a path, with its length.
fn name(path: &str) -> Vec<u8> {
    let name = format!("root{}", path.replace('/', "\0"));
    [&u32::try_from(name.len()).unwrap().to_le_bytes()[..], name.as_bytes()].concat()
}

/// `OpenV3`: written only, created or emptied, the owner may read and write.
fn create_payload(path: &str) -> Vec<u8> {
    let name = name(path);
    let (len, name) = name.split_at(4);
    let modes = [0xb, 8, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 4, 0, 0, 0, 0, 6, 0, 0];
    [&modes[..], &[0; 44], len, &[0; 12], name, &[0]].concat()
}

/// Undoes `escape_ascii`.
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match (byte, (byte == b'\\').then(|| rest.next()).flatten()) {
            (byte, None) => byte,
            (_, Some(b'x')) => {
                let digits = [rest.next().unwrap(), rest.next().unwrap()];
                u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
            }
            (_, Some(b'n')) => b'\n',
            (_, Some(b'r')) => b'\r',
            (_, Some(b't')) => b'\t',
            (_, Some(other)) => other,
        });
    }
    bytes
}

#[test]
fn vcenter_sees_tools_that_run_and_who_the_guest_is() {
    let mut cable = Cable::new("cable");
    let mut guest = boot("echo up; exec sleep 100000", |spec, machine| {
        spec.hostname = Some("web".into());
        spec.networks = vec![Endpoint { addresses: vec![prefix("10.1.0.2/24")], ..endpoint("net", mac(1)) }];
        machine.extra.extend(cable.plug([0x52, 0x54, 0, 0, 0, 1]));
    });
    assert_eq!(guest.ask(b"ping"), (vec![], "OK ".into()));
    assert_eq!(guest.ask(b"reset"), (vec![], "OK ATR toolbox".into()));
    for start in
        ["SetGuestInfo  1 web", "SetGuestInfo  5 Linux 6.12.", "SetGuestInfo  6 other6xlinux-64", "SetGuestInfo  7 "]
    {
        guest.wait_for(start, &format!("rpci {start}"));
    }
    let cards = guest.wait_for("cards", "rpci SetGuestInfo  10 ");
    let address = "\\n\\x01\\x00\\x02\\x00\\x00\\x00\\x18";
    assert!(cards.contains("52:54:00:00:00:01") && cards.contains(address), "{cards}");
    let disk = guest.wait_for("disk", "rpci SetGuestDiskInfo {");
    assert!(disk.contains("\\\"size\\\":\\\""), "{disk}");
    let (asked, answer) = guest.ask(b"Capabilities_Register");
    assert!(asked.contains(&"tools.set.version 2147483647".into()), "{asked:?}");
    assert!(asked.contains(&"tools.capability.statechange ".into()) && answer == "OK ", "{asked:?}");
    let (asked, _) = guest.ask(b"Set_Option broadcastIP 1");
    assert_eq!(asked, ["info-set guestinfo.ip 10.1.0.2"]);
    assert_eq!(guest.ask(b"Resolution_Set 1 1").1, "ERROR Unknown Command");
    guest.host.order(Request::PowerOff);
    guest.host.wait_off();
}

#[test]
fn a_shutdown_by_vcenter_is_an_orderly_stop() {
    let text = "trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.05; done";
    let mut guest = boot(text, |_, _| ());
    let (asked, answer) = guest.ask(b"OS_Halt");
    assert_eq!((&asked[..], answer.as_str()), (&["tools.os.statechange.status 1 1".to_owned()][..], "OK "));
    assert_eq!(guest.host.exit(MAIN).ending, Ending::Exited { code: 7 });
    assert_eq!(guest.host.stdout(MAIN).text(), "up\nbye\n");
    guest.host.wait_off();
}

#[test]
fn a_restart_by_vcenter_is_one_of_the_machine() {
    let mut guest = boot("echo up; exec sleep 100000", |_, machine| machine.reboots = true);
    let mut qmp = Qmp::connect(&guest.host.machine.path("qmp"));
    let reset = std::thread::spawn(move || qmp.wait_for("RESET"));
    let (asked, _) = guest.ask(b"OS_Reboot");
    assert_eq!(asked, ["tools.os.statechange.status 1 2"]);
    guest.host.exit(MAIN);
    let mut host = guest.host;
    host.wait("a reset", |_| reset.is_finished().then_some(()));
    // a host that knows nothing of the first boot meets the second
    host.cut();
    let mut machine = host.into_machine();
    machine.connect();
    let mut host = Host::on(machine, &guest.spec);
    host.expect(MAIN, "up\n");
}

#[test]
fn after_a_suspension_the_neighbours_hear_of_the_guest_again_and_the_clock_is_right() {
    let wire = Wire::silent();
    let mut guest = boot("echo up; exec sleep 100000", |spec, machine| {
        spec.networks = vec![Endpoint { addresses: vec![prefix("10.1.0.2/24")], ..endpoint("net", mac(1)) }];
        machine.extra.extend(wire.card("net", "virtio-net-pci,mac=52:54:00:00:00:01"));
    });
    let hear = |count: usize| {
        let mut heard = 0;
        wire.wait_for("an announcement", 0, |frame| {
            heard += usize::from(is_announcement(frame, [0x52, 0x54, 0, 0, 0, 1], [10, 1, 0, 2]));
            (heard == count).then_some(())
        });
    };
    // both of the start's
    hear(2);
    guest.host.order(Request::SetClock { unix_ns: 1_000_000_000_000_000_000 });
    assert_eq!(guest.ask(b"OS_Suspend").0, ["tools.os.statechange.status 1 5"]);
    let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    assert_eq!(guest.ask(b"OS_Resume").0[0], "tools.os.statechange.status 1 4");
    hear(3);
    if guest.host.shell("ls /sys/class/rtc/rtc0/since_epoch 2>&1 || true").contains("No such file") {
        return crate::skip(
            "after_a_suspension_…_the_clock_is_right",
            "the kernel has no driver for the machine's own clock",
        );
    }
    let now: u64 = guest.host.shell("date +%s").trim().parse().unwrap();
    // the machine's clock counts whole seconds
    assert!(now + 1 >= before, "{now} {before}");
}

#[test]
fn who_has_the_key_starts_lists_and_ends_processes() {
    let mut guest = boot("echo up; exec sleep 100000", |_, _| ());
    let pid = guest.start("/bin/sh", "-c 'echo \"from vCenter\" > /tmp/file; exit 5'");
    let ended = guest.ended(pid);
    assert!(ended.contains("<cmd>sh</cmd>") && ended.contains("<eCode>5</eCode>"), "{ended}");
    assert_eq!(guest.host.shell("cat /tmp/file"), "from vCenter\n");

    let sleeper = guest.start("sleep", "100000");
    let listed = guest.process(sleeper);
    assert!(listed.contains("<name>sleep 100000</name>") && listed.contains("<eTime>0</eTime>"), "{listed}");
    let key = guest.key.clone();
    let terminate = |pid: u64| [&pid.to_le_bytes()[..], &[0; 4]].concat();
    assert_eq!(guest.operate(&key, 193, &terminate(sleeper.into())).0, 0);
    let ended = guest.ended(sleeper);
    assert!(ended.contains("<eCode>143</eCode>"), "{ended}");

    // one that does not listen is killed
    let deaf = guest.start("/bin/sh", "-c 'trap \"\" TERM; while :; do sleep 0.05; done'");
    assert_eq!(guest.operate(&key, 193, &terminate(deaf.into())).0, 0);
    assert!(guest.ended(deaf).contains("<eCode>137</eCode>"));

    // nobody else's: PID 1, a thread of the kernel's, none
    for other in [1, 2, 4_000_000, u64::MAX] {
        assert_eq!(guest.operate(&key, 193, &terminate(other)).0, 20_003, "{other}");
    }
    assert_eq!(guest.operate(&key, 185, &start_body("/no/such", "")).0, 4);
    assert_eq!(guest.operate(&key, 187, &[0; 8]).0, 3025);
}

#[test]
fn who_has_the_key_brings_and_fetches_files() {
    let mut guest =
        boot("mkfifo /tmp/pipe; ln -s ../../../etc/passwd /tmp/link; echo up; exec sleep 100000", |_, _| ());
    let bytes: Vec<u8> = (0..200_000_u32).map(|at| (at * 31 + at / 251).to_le_bytes()[0]).collect();
    guest.upload("/tmp/file", &bytes);
    let sum = guest.host.shell("sha256sum < /tmp/file; wc -c < /tmp/file; stat -c %a /tmp/file; ls -A /tmp");
    let mut child = std::process::Command::new("sha256sum")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("coreutils");
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), &bytes).unwrap();
    let expected = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!(sum, format!("{expected}200000\n644\nfile\nlink\npipe\n"));
    assert!(guest.download("/tmp/file") == bytes, "another file came back");
    assert_eq!(guest.download("/tmp/link"), guest.host.shell("cat /etc/passwd").into_bytes());

    let key = guest.key.clone();
    for (path, code) in [
        ("/tmp/none", 4),
        ("/tmp/pipe", 20_001),
        ("/tmp", 20_001),
        ("/tmp/../../etc/passwd", 3),
        ("tmp/file", 3),
        ("/proc/self/environ", 13),
        ("/proc/1/root/etc/passwd", 1),
    ] {
        assert_eq!(guest.operate(&key, 188, &download_body(path)), (code, String::new()), "{path}");
    }
    for (path, code) in [("/tmp/file", 12), ("/tmp/pipe", 20_001), ("/tmp/link", 20_001), ("/none/file", 4)] {
        assert_eq!(guest.operate(&key, 189, &upload_body(path, false)), (code, String::new()), "{path}");
    }
    // who does not ask first is refused all the same
    let (_, _, session) = guest.transfer(0, 41, &[0; 24]);
    let statuses = ["/tmp/none", "/tmp/pipe", "/tmp/../file", "/proc/1/root/etc/passwd"].map(|path| {
        let read = guest.transfer(session, 0, &[&[0; 8 + 8], &[6][..], &name(path), &[0]].concat()).0;
        (read, guest.transfer(session, 24, &create_payload(path)).0)
    });
    assert_eq!(statuses, [(1, 0), (8, 8), (9, 9), (8, 8)]);
    assert_eq!(guest.transfer(session + 1, 25, &[0; 24]).0, 17);
    assert_eq!(guest.transfer(session, 25, &[9; 24]).0, 2);
    guest.step(session, 42, &[0; 8]);
    assert_eq!(guest.host.shell("ls -A /tmp"), "file\nlink\npipe\n", "nothing is left of what was not closed");
}

#[test]
fn who_has_not_the_key_gets_nothing_done() {
    let mut guest = boot("echo up; exec sleep 100000", |_, _| ());
    let right = guest.key.clone();
    for key in ["", "password", &right.replace('5', "6"), &right[..62]] {
        assert_eq!(guest.operate(key, 185, &start_body("/bin/touch", "/tmp/file")), (35, String::new()), "{key}");
        assert_eq!(guest.operate(key, 193, &[&7_u64.to_le_bytes()[..], &[0; 4]].concat()).0, 35);
        assert_eq!(guest.operate(key, 186, &[0; 12]).0, 35);
        assert_eq!(guest.operate(key, 188, &download_body("/etc/passwd")), (35, String::new()));
        assert_eq!(guest.operate(key, 189, &upload_body("/tmp/file", true)), (35, String::new()));
        assert_eq!(guest.operate(key, 84, &packet_body(0, 41, &[0; 24])), (35, String::new()));
    }
    assert_eq!(guest.host.shell("ls /tmp"), "");
    let console = guest.host.into_machine().console();
    assert!(!console.contains(&right) && !console.contains(&base64::encode(format!("rig\0{right}\0").as_bytes())));
}
