//! Power that is cut at any moment: the disk needs no repair but its journal, what was synced and told is there, and the container starts again.
//!
//! The machine's end is SIGKILL to QEMU: what the guest had only in its memory is gone, and what QEMU was writing may be half there. What QEMU had written
//! survives, flushed or not, since the host goes on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use rig::host::Host;
use rig::images::{busybox_disk, run};
use rig::machine::{Machine, script};
use wire::message::{MAIN, Request};
use wire::spec::LinkDevice;

/// In all, shared by two lanes, each with a disk of its own that lives through its cuts.
const CUTS: usize = 50;
const LANES: usize = 2;

/// Writes records for ever: a file that is replaced, as a database does it, and a line in a log. A number is told once both are synced. What a boot finds is
/// told first: the last number of the log, and how many of the files are not what they should be. `sync FILE` is fsync(2).
const WRITER: &str = r#"
mkdir -p /state; cd /state
n=$(tail -n 1 log 2>/dev/null); n=${n:-0}
bad=0
for i in $(seq $((n > 20 ? n - 19 : 1)) $n); do
    f=$((i % 20))
    # of the next round at most one was under way
    [ "$(cat $f)" = "record $i" ] || [ "$(cat $f)" = "record $((i + 20))" ] || bad=$((bad + 1))
done
[ "$(seq 1 $n | md5sum)" = "$(md5sum <log 2>/dev/null)" ] || [ $n = 0 ] || bad=$((bad + 1000))
echo "found $n bad $bad"
while :; do
    n=$((n + 1)); f=$((n % 20))
    echo "record $n" >new && sync new && mv new $f && sync . && echo $n >>log && sync log && echo "synced $n" || exit 9
done
"#;

/// Numbers as they come from a seed: xorshift64*.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % bound
    }
}

/// A machine on a disk that keeps what is written.
fn boot(disk: &Path) -> Host {
    let spec = script(LinkDevice::Virtio, WRITER);
    let mut machine = Machine::new(&spec, None);
    machine.extra.push("-drive".into());
    machine.extra.push(format!("if=none,id=root,format=raw,cache=writeback,file={}", disk.display()));
    machine.extra.extend(["-device", "virtio-blk-pci,drive=root"].map(String::from));
    Host::boot(machine, &spec)
}

/// The last number behind a word at the beginning of a line that has come whole.
fn number(text: &str, word: &str) -> Option<u64> {
    let whole = &text[..=text.rfind('\n')?];
    whole.lines().rev().find_map(|line| line.strip_prefix(word)?.trim().split(' ').next()?.parse().ok())
}

/// What a repair does by itself when it replays a journal, and what it says at its end: all else would be damage. The time of the mount may be ahead of ours:
/// an emulated machine's clock is not a steady one.
const HARMLESS: [&str; 5] =
    ["recovering journal", "Clearing orphaned inode", " blocks", "in the future", "by less than a day"];

/// What a repair finds on a copy of the disk: nothing but the journal to replay. Says whether there was one to replay.
fn check(disk: &Path) -> bool {
    let copy = disk.with_extension("copy");
    run(Command::new("cp").arg("--sparse=always").args([disk, &copy]));
    let fsck = |options: &str| {
        let output = Command::new("e2fsck").arg(options).arg(&copy).output().expect("e2fsck");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, said) = fsck("-fp");
    assert!(matches!(code, Some(0 | 1)), "{code:?}: {said}");
    let harmless = |line: &str| line.is_empty() || HARMLESS.iter().any(|harmless| line.contains(harmless));
    assert!(said.lines().all(harmless), "{said}");
    let replayed = said.contains("recovering journal");
    let (code, said) = fsck("-fn");
    assert_eq!(code, Some(0), "{said}");
    fs::remove_file(copy).expect("a file of ours");
    replayed
}

#[derive(Default)]
struct Tally {
    cuts: usize,
    before_output: usize,
    replayed: usize,
    records: u64,
    boots: Vec<Duration>,
}

fn lane(disk: &Path, dice: &mut Dice, cuts: usize) -> Tally {
    let (mut tally, mut told) = (Tally::default(), 0);
    // how long a boot takes here, to cut within it
    let mut usual = Duration::from_secs(2);
    // the last boot ends as it should
    for cut in 0..=cuts {
        let mut host = boot(disk);
        if cut < cuts && dice.below(4) == 0 {
            host.serve_for(Duration::from_millis(dice.below(u64::try_from(usual.as_millis()).expect("seconds"))));
        } else {
            host.expect(MAIN, "found ");
            host.wait("a line", |host| number(&host.stdout(MAIN).text(), "found "));
            usual = host.now();
            tally.boots.push(usual);
            let goal = told + dice.below(40);
            host.wait("records", |host| {
                number(&host.stdout(MAIN).text(), "synced ").is_some_and(|n| n > goal).then_some(())
            });
            host.serve_for(Duration::from_micros(dice.below(30_000)));
        }
        if cut == cuts {
            host.order(Request::PowerOff);
            host.wait_off();
        }
        let text = host.stdout(MAIN).text();
        // the machine's end
        drop(host);
        match number(&text, "found ") {
            Some(found) => {
                assert!(found >= told, "cut {cut}: {told} was told, and {found} is there");
                assert!(
                    text.contains(&format!("found {found} bad 0\n")),
                    "cut {cut}: {}",
                    text.lines().next().unwrap_or_default()
                );
                told = number(&text, "synced ").unwrap_or(found);
            }
            None => tally.before_output += 1,
        }
        if cut < cuts {
            tally.cuts += 1;
            tally.replayed += usize::from(check(disk));
        }
    }
    // after a power-off there is nothing to do, not even a journal to replay
    let features = run(Command::new("dumpe2fs").arg("-h").arg(disk));
    assert!(!features.contains("needs_recovery") && features.contains("clean"), "{features}");
    let output = Command::new("e2fsck").arg("-fn").arg(disk).output().expect("e2fsck");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
    tally.records = told;
    tally
}

#[test]
fn power_may_go_at_any_moment() {
    let chosen = std::env::var("POWERCUT_SEED").ok().map(|text| text.parse().expect("a number"));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    let seed: u64 = chosen.unwrap_or(now.as_secs());
    println!("power cuts: seed {seed} (POWERCUT_SEED={seed} repeats its choices)");
    let began = Instant::now();
    let lanes: Vec<_> = (0..LANES)
        .map(|lane_number| {
            std::thread::spawn(move || {
                let (_dir, disk): (_, PathBuf) = busybox_disk();
                let mut dice = Dice((seed ^ (lane_number as u64) << 32) | 1);
                lane(&disk, &mut dice, CUTS / LANES)
            })
        })
        .collect();
    let tallies: Vec<Tally> = lanes.into_iter().map(|lane| lane.join().expect("a lane")).collect();
    let sum = |part: fn(&Tally) -> usize| -> usize { tallies.iter().map(part).sum() };
    let mut boots: Vec<Duration> = tallies.iter().flat_map(|tally| tally.boots.clone()).collect();
    boots.sort();
    println!(
        "power cuts: {} in {:?}, {} of them before any output, {} with a journal to replay; {} records synced; boot to output {:?} at the median, {:?} at most",
        sum(|tally| tally.cuts),
        began.elapsed(),
        sum(|tally| tally.before_output),
        sum(|tally| tally.replayed),
        tallies.iter().map(|tally| tally.records).sum::<u64>(),
        boots[boots.len() / 2],
        boots[boots.len() - 1],
    );
    assert_eq!(sum(|tally| tally.cuts), CUTS);
}
