//! Twenty clones of one template have nothing in common that is to be a machine's own, and know the time.
//!
//! The image has no `/etc/machine-id`, so that a container has to see none: what a program makes one of, the boot id, is compared. The seed of Python's hashes
//! is compared in `python`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use rig::clones::{Clones, Keeper};
use rig::images::{self, ImageDir};
use rig::talk::Talk;

use super::{AT_ONCE, each};

const CLONES: usize = 20;
/// How wrong a clock may be.
const CLOCK: Duration = Duration::from_millis(100);
/// What the probe tells of a machine and no other one may tell, too.
const OWN: [&str; 14] = [
    "urandom",
    "getrandom",
    "at_random",
    "canary",
    "program",
    "stack",
    "map",
    "uuid",
    "boot_id",
    "mac",
    "host",
    "tls",
    "id",
    "link_key",
];

type Facts = BTreeMap<String, String>;

#[test]
fn twenty_clones_have_nothing_in_common_that_is_a_machines_own() {
    let clones = Clones::new();
    let (_dir, image) = probe();
    let script =
        "echo tls $(openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 | grep -v -e ---); exec /probe";
    let start = || {
        let options = ["--rm", "-i", "--privileged", "--clone", "always", "--start-timeout", "300"];
        clones.run(&options, &image, &["sh", "-c", script]).talk()
    };
    let first = facts(start());
    let keeper = clones.keeper();
    let before = digests(&keeper);
    let mut all = each(CLONES - 1, AT_ONCE, |_| facts(start()));
    all.push(first);

    for name in OWN {
        let mut values: Vec<&str> = all.iter().map(|facts| facts[name].as_str()).collect();
        values.sort_unstable();
        assert!(values.iter().all(|value| value.len() >= 12), "{name}: {values:#?}");
        values.dedup();
        assert_eq!(values.len(), CLONES, "{name}: {values:#?}");
    }
    for (number, one) in all.iter().enumerate() {
        assert_eq!((one["machine_id"].as_str(), one["noticed"] == "never"), ("none", false), "{one:#?}");
        for other in &all[..number] {
            assert!(!have_one_secret(one, other), "initial sequence numbers: {one:#?} {other:#?}");
        }
    }
    let slowest = all.iter().map(|facts| facts["clock"].parse::<i64>().unwrap()).max_by_key(|off| off.abs()).unwrap();
    println!("the clock that is farthest off is so by {slowest} us");

    // the template is what it was
    assert_eq!((clones.keeper(), digests(&keeper)), (keeper.clone(), before));
    for file in [keeper.memory(), keeper.state()] {
        use std::os::unix::fs::FileExt as _;
        let opened = fs::File::options().write(true).open(&file).unwrap();
        assert_eq!(opened.write_all_at(b"x", 0).unwrap_err().raw_os_error(), Some(nix::libc::EPERM));
    }
}

/// All that is to be known of a clone; it ends.
fn facts(mut clone: Talk) -> Facts {
    let lines = clone.lines_until("end");
    let mut facts: Facts = lines
        .iter()
        .map(|line| line.split_once(' ').unwrap_or_else(|| panic!("{line}")))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let before = unix_ns();
    clone.say("clock");
    let told: i128 = clone.line().parse().expect("nanoseconds");
    let after = unix_ns();
    let limit = CLOCK.as_nanos().cast_signed();
    assert!(before - limit <= told && told <= after + limit, "{before} <= {told} <= {after}: {facts:#?}");
    let off = (told - after).max(0) + (told - before).min(0);
    facts.insert("clock".into(), (off / 1000).to_string());

    let dirs: Vec<_> = fs::read_dir(clone.state().join("tether/containers")).unwrap().flatten().collect();
    let [dir] = dirs.as_slice() else { panic!("{dirs:?}") };
    facts.insert("id".into(), dir.file_name().into_string().unwrap());
    facts.insert("link_key".into(), key(&dir.path(), "link/key"));
    let names: Vec<_> = fs::read_dir(dir.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(!names.iter().any(|name| name == "guestinfo.clone"), "what a clone was told is left: {names:?}");
    let output = clone.finish();
    assert_eq!((output.code, output.stderr.as_str()), (0, ""), "{output:?}");
    facts
}

/// A value of a container's guestinfo.
fn key(dir: &Path, name: &str) -> String {
    let text = fs::read_to_string(dir.join("guestinfo")).unwrap();
    let line = text.lines().find(|line| line.contains(&format!("{name} = "))).unwrap_or_else(|| panic!("{text}"));
    line.split('"').nth(1).expect("quoted").to_owned()
}

/// Whether two kernels may make their initial sequence numbers of one secret. These hold the time, which differs: the rest, at ports that are the same, is known as
/// exactly as the moment. Two numbers of one machine are as near to each other by chance once in some thousand, both once in some million.
fn have_one_secret(one: &Facts, other: &Facts) -> bool {
    ["sequence1", "sequence2"].iter().all(|name| {
        let of = |facts: &Facts| {
            let (number, width) = facts[*name].split_once(' ').expect("two numbers");
            (number.parse::<u32>().unwrap(), width.parse::<u32>().unwrap() + 100)
        };
        let ((one, width), (other, also)) = (of(one), of(other));
        one.wrapping_sub(other) <= width || other.wrapping_sub(one) <= also
    })
}

fn digests(keeper: &Keeper) -> [String; 2] {
    [keeper.memory(), keeper.state()].map(|file| images::sha256(&file))
}

fn unix_ns() -> i128 {
    SystemTime::UNIX_EPOCH.elapsed().expect("later").as_nanos().cast_signed()
}

/// An image with the probe, and the host's openssl.
fn probe() -> (ImageDir, PathBuf) {
    let image = ImageDir::with_busybox();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/clone/probe.c");
    let options = ["-O1", "-static-pie", "-fPIE", "-fstack-protector-all", "-s", "-o"];
    images::run(Command::new("gcc").args(options).arg(image.root().join("probe")).arg(source));
    let mut paths = vec!["/usr/bin/openssl".to_owned()];
    let libraries = images::run(Command::new("ldd").arg(&paths[0]));
    paths.extend(libraries.split_whitespace().filter(|word| word.starts_with('/')).map(str::to_owned));
    images::run(Command::new("cp").args(["-L", "--parents"]).args(paths).arg(image.root()));
    let archive = image.archive(&serde_json::json!({ "Env": ["PATH=/bin:/usr/bin"] }));
    (image, archive)
}
