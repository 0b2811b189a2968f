//! The log device: what the main process wrote, when, and where, for a host that may not have been there.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use rig::host::{Host, PATIENCE};
use rig::images::busybox_disk;
use rig::machine::{Machine, script};
use wire::log::{Reader, Stream};
use wire::message::MAIN;
use wire::spec::{LinkDevice, LogDevice, Spec};

/// A machine with a log device behind which is a file.
fn machine(spec: &Spec, disk: &Path, file: &Path) -> Machine {
    let mut machine = Machine::new(spec, Some(disk.into()));
    let device = match spec.log.expect("a log is asked for") {
        LogDevice::Virtio => "virtserialport,chardev=log,name=tether.log",
        LogDevice::Serial => "isa-serial,index=2,chardev=log",
    };
    machine.extra.extend(["-chardev".into(), format!("file,id=log,path={}", file.display())]);
    machine.extra.extend(["-device", device].map(String::from));
    machine
}

/// One entry: stream, time, text.
type Line = (Stream, u64, String);

/// The entries so far, and how many bytes are none.
fn read(file: &Path) -> (Vec<Line>, u64) {
    let (mut reader, mut lines) = (Reader::default(), Vec::new());
    let bytes = std::fs::read(file).unwrap_or_default();
    reader.feed(&bytes, |entry| {
        lines.push((entry.stream, entry.time_ns, String::from_utf8_lossy(entry.bytes).into_owned()));
    });
    (lines, reader.noise().bytes + reader.unknown())
}

/// Everything that was written on a stream.
fn text(lines: &[Line], stream: Stream) -> String {
    lines.iter().filter(|line| line.0 == stream).map(|line| line.2.as_str()).collect()
}

/// Waits until a stream's text in the log is `expected`, with nobody at the link.
fn wait_for(file: &Path, stream: Stream, expected: &str) -> Vec<Line> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (lines, noise) = read(file);
        if text(&lines, stream) == expected {
            assert_eq!(noise, 0);
            return lines;
        }
        let seen = text(&lines, stream);
        assert!(Instant::now() < deadline, "the log has {} bytes of {}, {noise} of noise", seen.len(), expected.len());
        std::thread::sleep(Duration::from_millis(20));
    }
}

const PAIRS: [(LinkDevice, LogDevice); 3] = [
    (LinkDevice::Virtio, LogDevice::Virtio),
    (LinkDevice::Serial, LogDevice::Serial),
    (LinkDevice::Virtio, LogDevice::Serial),
];

#[test]
fn both_streams_are_logged_with_their_times_whoever_listens() {
    for (device, log) in PAIRS {
        let (dir, disk) = busybox_disk();
        let file = dir.path().join("log");
        let script_text = "echo one; sleep 0.3; echo two >&2; sleep 0.3; echo three; read -r x; echo $x; exit 3";
        let mut spec = script(device, script_text);
        spec.log = Some(log);
        spec.main.stdin = true;
        let began = nanoseconds();
        let mut host = Host::boot(machine(&spec, &disk, &file), &spec);
        // the host hears, and goes; what is in the log is there without it
        host.expect(MAIN, "one\n");
        host.cut();
        let lines = wait_for(&file, Stream::Stdout, "one\nthree\n");
        assert_eq!(text(&lines, Stream::Stderr), "two\n");
        let words: Vec<&str> = lines.iter().map(|line| line.2.trim_end()).collect();
        assert_eq!(words, ["one", "two", "three"], "{device:?}, {log:?}");
        let times: Vec<u64> = lines.iter().map(|line| line.1).collect();
        for pair in times.windows(2) {
            assert!(pair[1] - pair[0] >= 200_000_000, "{device:?}, {log:?}: {times:?}");
        }
        // the machine's clock begins with the host's, in whole seconds
        let second = 1_000_000_000;
        assert!(began - 2 * second <= times[0] && times[2] <= nanoseconds() + second, "{began} {times:?}");
        // and nothing is missing for the host that comes back
        host.connect();
        host.stdin(MAIN).add(b"four\n");
        assert_eq!(host.exit(MAIN).ending.code(), 3);
        assert_eq!(
            (host.stdout(MAIN).text().as_str(), host.stderr(MAIN).text().as_str()),
            ("one\nthree\nfour\n", "two\n")
        );
        host.wait_off();
        wait_for(&file, Stream::Stdout, "one\nthree\nfour\n");
    }
}

#[test]
fn a_process_that_nobody_hears_goes_on_and_its_log_is_whole() {
    let (dir, disk) = busybox_disk();
    let file = dir.path().join("log");
    let mut spec = script(LinkDevice::Virtio, "seq 1 400000; echo end >&2");
    spec.log = Some(LogDevice::Virtio);
    spec.main.attach = false;
    let mut machine = machine(&spec, &disk, &file).power_on();
    machine.disconnect();
    let expected: String = (1..=400_000).map(|n| format!("{n}\n")).collect();
    let lines = wait_for(&file, Stream::Stdout, &expected);
    assert!(lines.windows(2).all(|pair| pair[0].1 <= pair[1].1), "times run backwards");
    // off, although no host ever came to hear how it ended
    machine.wait();
    assert_eq!(text(&read(&file).0, Stream::Stderr), "end\n");
}

fn nanoseconds() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    u64::try_from(since.as_nanos()).expect("before 2554")
}
