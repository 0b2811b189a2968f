//! Tether's own log on the console: what it says, at which level, and that no container reads it, writes to it or finds its way into it.

use std::io::Read as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rig::host::{Host, PATIENCE, sh};
use rig::images::busybox_disk;
use rig::machine::{Machine, script};
use wire::message::{Exec, MAIN, Request, Work};
use wire::spec::{Environment, Level, LinkDevice, LogDevice};

/// An entry of the log.
#[derive(Debug)]
struct Entry {
    time: f64,
    level: String,
    text: String,
}

/// Tether's entries among the lines of a console. Every line there is one of tether's or of the kernel's.
fn entries(console: &str) -> Vec<Entry> {
    let mut entries = Vec::new();
    for line in console.lines() {
        let stamped = line.strip_prefix('[').and_then(|rest| rest.split_once("] "));
        let (time, rest) = stamped.unwrap_or_else(|| panic!("{line:?} has no time: {console}"));
        let time = time.trim().parse().unwrap_or_else(|_| panic!("{line:?} has no time: {console}"));
        if let Some((level, text)) = rest.strip_prefix("tether: ").and_then(|rest| rest.split_once(' ')) {
            entries.push(Entry { time, level: level.into(), text: text.into() });
        }
    }
    // that some are missing is said in their place, later
    let times = entries.iter().filter(|entry| !entry.text.contains("were dropped")).map(|entry| entry.time);
    assert!(times.is_sorted(), "{console}");
    entries
}

const LEVELS: [(Level, &str); 5] = [
    (Level::Error, "error"),
    (Level::Warn, "warn"),
    (Level::Info, "info"),
    (Level::Debug, "debug"),
    (Level::Trace, "trace"),
];

#[test]
fn the_log_says_what_happens_at_the_level_that_is_asked_for() {
    let (_dir, disk) = busybox_disk();
    let mut counts = Vec::new();
    for (level, _) in LEVELS {
        let mut spec = script(LinkDevice::Virtio, "read x; exit 3");
        spec.diagnostics.level = level;
        spec.main.stdin = true;
        let mut host = Host::boot(Machine::new(&spec, Some(disk.clone())), &spec);
        host.shell("true");
        host.feed(MAIN, b"go\n");
        assert_eq!(host.exit(MAIN).ending.code(), 3);
        host.wait_off();
        let entries = entries(&host.machine.console());
        let allowed: Vec<&str> = LEVELS.iter().filter(|(known, _)| *known <= level).map(|(_, name)| *name).collect();
        assert!(entries.iter().all(|entry| allowed.contains(&entry.level.as_str())), "{level:?}: {entries:#?}");
        // from before the spec was read, too
        let has = |text: &str| entries.iter().any(|entry| entry.text.contains(text));
        assert_eq!(has("boot: tether "), level >= Level::Info, "{level:?}: {entries:#?}");
        assert_eq!(
            has("life: a session's process has ended session=rig code=3 oom=false"),
            level >= Level::Info,
            "{entries:#?}"
        );
        assert_eq!(has("agent: a host is there"), level >= Level::Debug, "{entries:#?}");
        assert_eq!(has("agent: the host asks request=Create "), level >= Level::Trace, "{entries:#?}");
        counts.push(entries.len());
    }
    assert!(counts[0] == 0 && counts.is_sorted() && counts[4] > counts[2], "{counts:?}");
}

#[test]
fn a_container_neither_reads_nor_forges_the_log() {
    let (_dir, disk) = busybox_disk();
    let spec = script(LinkDevice::Virtio, "exec sleep 100000");
    let mut host = Host::boot(Machine::new(&spec, Some(disk)), &spec);
    let seen = host.shell("ls /dev; ls -l /proc/1/fd 2>&1");
    for port in ["ttyS", "console", "vport", "kmsg", "vda"] {
        assert!(!seen.lines().any(|line| line.trim_start().starts_with(port)), "{seen}");
    }
    // the numbers of the console, of every serial port, of the kernel's log, of the root disk and of the link
    let nodes = "for d in 'c 5 1' 'c 4 64' 'c 4 65' 'c 4 66' 'c 1 11' 'c 1 1' 'b 254 0' 'b 253 0' 'c 245 1' 'c 10 1' 'c 4 1'; do \
                 rm -f /dev/n; mknod /dev/n $d && { (echo forged >/dev/n) 2>&1; (head -c 1 </dev/n) 2>&1; } done; echo end";
    let said = host.shell(nodes);
    assert_eq!(said.matches("Operation not permitted").count(), 2 * 11, "{said}");
    // and what everybody has is there
    let usual = "echo x >/dev/null && head -c 3 /dev/zero | wc -c && head -c 2 /dev/urandom | wc -c && head -c 2 /dev/random | wc -c && \
                 ! echo x 2>/dev/null >/dev/full && mknod /tmp/z c 1 5 && head -c 1 /tmp/z | wc -c";
    assert_eq!(host.shell(usual), "3\n2\n2\n1\n");
    let session = host.exec(Exec {
        terminal: Some(wire::spec::TermSize { rows: 1, columns: 9 }),
        ..sh("echo x >/dev/tty; echo y >$(tty)")
    });
    assert_eq!(host.finish(session).stdout, "x\r\ny\r\n");
    // a way through PID 1's own descriptors is none either
    host.shell("for n in 0 1 2 3 4 5 6 7 8 9; do (echo forged >/proc/1/fd/$n) 2>/dev/null; done; true");
    host.order(Request::PowerOff);
    host.wait_off();
    let console = host.machine.console();
    assert!(!console.contains("forged"), "{console}");
}

#[test]
fn a_name_of_the_containers_cannot_end_a_line_of_the_log() {
    let (_dir, disk) = busybox_disk();
    let mut spec = script(LinkDevice::Virtio, "");
    spec.main.argv = vec!["/no\n[    9.000000] tether: info agent: forged\x1b[2J".into()];
    let mut host = Host::boot(Machine::new(&spec, Some(disk)), &spec);
    host.wait_off();
    let console = host.machine.console();
    let entries = entries(&console);
    let errors: Vec<_> = entries.iter().filter(|entry| entry.level == "error").collect();
    assert!(errors.len() == 1 && errors[0].text.contains("forged"), "{console}");
    assert!(!console.contains('\x1b'), "{console}");
}

#[test]
fn no_secret_is_in_any_log() {
    const MARK: &str = "hunter2";
    let (dir, disk) = busybox_disk();
    let output = dir.path().join("log");
    let secret = || Environment(vec!["PATH=/bin:/usr/bin".into(), format!("PASSWORD={MARK}")]);
    let mut spec = script(LinkDevice::Serial, "echo ready; read x; exit 0");
    spec.diagnostics.level = Level::Trace;
    spec.log = Some(LogDevice::Virtio);
    spec.link.sealed = true;
    spec.main.env = secret();
    spec.main.stdin = true;
    let mut machine = Machine::new(&spec, Some(disk.clone()));
    machine.extra.extend(["-device", "virtio-serial-pci", "-chardev"].map(String::from));
    machine.extra.push(format!("file,id=log,path={}", output.display()));
    machine.extra.extend(["-device", "virtserialport,chardev=log,name=tether.log"].map(String::from));
    let mut host = Host::boot(machine, &spec);
    host.expect(MAIN, "ready\n");
    let ran = host.run(Work::Exec(Exec { env: secret(), ..sh("echo ${#PASSWORD}; kill -SEGV $$") }));
    assert_eq!(ran.stdout, format!("{}\n", MARK.len()));
    let (_, id) = host.begin(Work::Exec(Exec { argv: vec!["/no/such".into()], env: secret(), ..sh("") }));
    host.answer(id);
    host.feed(MAIN, b"\n");
    host.exit(MAIN);
    host.wait_off();
    let console = host.machine.console();
    assert!(console.contains("tether: trace "), "{console}");
    let mut logs = vec![console, String::from_utf8_lossy(&std::fs::read(&output).expect("a log")).into_owned()];

    // a spec that cannot be read, because of its secrets
    for (key, value) in [("cmd/env~json", MARK), ("link/key", "hunter2hunter2")] {
        let mut machine = Machine::new(&spec, Some(disk.clone()));
        let text = machine.guestinfo.take().expect("keys");
        let replaced = text.lines().map(|line| match line.split_once(" = ") {
            Some((name, _)) if name.ends_with(key) => format!("{name} = \"{value}\"\n"),
            _ => format!("{line}\n"),
        });
        machine.guestinfo = Some(replaced.collect());
        let mut powered = machine.power_on();
        let mut port = Vec::new();
        powered.socket.read_to_end(&mut port).ok();
        powered.wait();
        let port = String::from_utf8_lossy(&port).into_owned();
        assert!(powered.console().to_lowercase().contains(key), "{}", powered.console());
        logs.extend([powered.console(), port]);
    }
    let key = spec.link.key.to_hex();
    for log in logs {
        assert!(!log.contains(MARK) && !log.contains(&key) && !log.contains(&key[..16]), "{log}");
    }
}

/// A socket that nobody reads takes some hundred bytes, and its port nothing more.
#[test]
fn a_console_that_is_stuck_holds_nobody_up_and_tells_what_is_missing() {
    let (dir, disk) = busybox_disk();
    let mut spec = script(LinkDevice::Virtio, "read x; exit 4");
    spec.diagnostics.level = Level::Trace;
    spec.main.stdin = true;
    let mut machine = Machine::new(&spec, Some(disk));
    machine.console_at = Some(dir.path().join("console"));
    let powered = machine.power_on();
    let mut console = connect(&dir.path().join("console"));
    let mut host = Host::on(powered, &spec);
    // 70 bytes each: more than all that can wait
    let asked: Vec<u64> = (0..2000).map(|_| host.ask(Request::List)).collect();
    for id in asked {
        host.answer(id);
    }
    assert_eq!(host.shell("echo it runs"), "it runs\n");
    // it is read again
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        console.read_to_end(&mut text).ok();
        String::from_utf8_lossy(&text).into_owned()
    });
    // of what is asked from now on, the log is whole
    for _ in 0..20 {
        host.request(Request::Top);
    }
    host.feed(MAIN, b"\n");
    assert_eq!(host.exit(MAIN).ending.code(), 4);
    host.wait_off();
    let text = reader.join().expect("a reader");
    let entries = entries(&text);
    let seen = entries.iter().filter(|entry| entry.text.contains("request=List")).count();
    let dropped = entries
        .iter()
        .filter_map(|entry| entry.text.split_once("were dropped").and_then(|(_, rest)| rest.rsplit_once('=')));
    let dropped: usize = dropped.map(|(_, count)| count.parse::<usize>().expect("a number")).sum();
    assert!(dropped > 0 && seen + dropped >= 2000 && seen + dropped < 2020, "{seen} and {dropped}: {text}");
    assert!(entries.iter().any(|entry| entry.text.contains("has ended session=rig code=4")), "{text}");
}

fn connect(path: &Path) -> UnixStream {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match UnixStream::connect(path) {
            Ok(socket) => return socket,
            Err(error) => assert!(Instant::now() < deadline, "QEMU does not listen: {error}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
