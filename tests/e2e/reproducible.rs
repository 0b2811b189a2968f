//! The same inputs give the same bytes: in another folder, at another time, to another user, with another umask, locale, time zone and number of processors.
//!
//! What is compared is everything that iso-builder writes, byte for byte, except the kernel, whose build takes minutes.

use std::collections::BTreeMap;
use std::fs::{self, File, FileTimes, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use rig::artifacts;
use rig::images::{run, sha256};

use crate::release::{KERNEL_NOTE, metadata};

/// A place and the ways of it.
struct World {
    dir: PathBuf,
    umask: &'static str,
    env: &'static [(&'static str, &'static str)],
    /// When and with which modes its inputs were made.
    mtime: SystemTime,
    mode: u32,
    /// Another user than whoever runs the tests.
    nobody: bool,
    /// One processor instead of all.
    alone: bool,
    threads: &'static str,
}

#[test]
fn two_worlds_come_to_the_same_bytes() {
    let root = tempfile::tempdir().unwrap();
    fs::set_permissions(root.path(), Permissions::from_mode(0o755)).unwrap();
    let one = World {
        dir: root.path().join("a"),
        umask: "077",
        env: &[("LC_ALL", "C"), ("TZ", "UTC"), ("HOME", "/root"), ("PATH", "/usr/bin:/bin"), ("USER", "root")],
        mtime: SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000),
        mode: 0o600,
        nobody: false,
        alone: true,
        threads: "1",
    };
    let other = World {
        dir: root.path().join("another folder/dağ/deeper"),
        umask: "000",
        env: &[
            ("LC_ALL", "tr_TR.UTF-8"),
            ("LANGUAGE", "tr"),
            ("TZ", "Asia/Kathmandu"),
            ("HOME", "/nonexistent"),
            ("XDG_CACHE_HOME", "/nonexistent/cache"),
            ("PATH", "/bin:/usr/bin:/sbin"),
            ("USER", "nobody"),
            ("CARGO_TARGET_DIR", "/nonexistent/target"),
        ],
        mtime: SystemTime::now() - Duration::from_secs(5),
        mode: 0o755,
        nobody: nix::unistd::geteuid().is_root(),
        alone: false,
        threads: "5",
    };
    one.furnish();
    other.furnish();
    let started = now();
    let first = one.build();
    while now() == started {
        std::thread::yield_now(); // whoever writes the time writes its second
    }
    let second = other.build();
    assert!(first.keys().eq(second.keys()), "{:?}\n{:?}", first.keys(), second.keys());
    for name in ["release/bootstrap.iso", "release/SHA256SUMS", "bootstrap.iso", "initramfs", "disk.raw", "layer.raw"] {
        assert!(first.contains_key(name), "{name} was not made: {:?}", first.keys());
    }
    let differ: Vec<&String> = first.keys().filter(|name| first[*name] != second[*name]).collect();
    assert!(differ.is_empty(), "these have other bytes in another world: {differ:?}");
    assert_eq!(first["bootstrap.iso"], first["release/bootstrap.iso"], "a release has another ISO");
    assert_eq!(first["initramfs"], first["release/initramfs"], "a release has another initramfs");
}

impl World {
    /// Puts the program and its inputs there.
    fn furnish(&self) {
        let out = self.dir.join("out");
        fs::create_dir_all(&out).unwrap();
        let inputs = [
            ("iso-builder", artifacts::program("iso-builder")),
            ("tether", artifacts::program("tether")),
            ("appliance-init", artifacts::program("appliance-init")),
            ("vch", artifacts::program("vch")),
            ("bzImage", artifacts::dist("kernel")),
            ("image.tar", artifacts::dist("busybox.tar")),
            ("Cargo.lock", artifacts::root().join("Cargo.lock")),
        ];
        for (name, from) in &inputs {
            fs::copy(from, self.dir.join(name)).unwrap();
        }
        let kernel = sha256(&artifacts::dist("kernel"));
        fs::write(self.dir.join("manifest.json"), KERNEL_NOTE.replace("IMAGE", &kernel)).unwrap();
        fs::write(self.dir.join("crates.json"), metadata(&self.dir)).unwrap();
        for entry in fs::read_dir(&self.dir).unwrap().map(|entry| entry.unwrap().path()) {
            let mode = if entry.ends_with("iso-builder") || entry == out { 0o755 } else { self.mode };
            fs::set_permissions(&entry, Permissions::from_mode(mode)).unwrap();
            if entry != out {
                File::open(&entry).unwrap().set_times(FileTimes::new().set_modified(self.mtime)).unwrap();
            }
            if self.nobody {
                chown(&entry, Some(NOBODY), Some(NOBODY)).unwrap();
            }
        }
    }

    /// Has everything made, and gives the digest of each file by its path.
    fn build(&self) -> BTreeMap<String, String> {
        let has = |command: &str, option: &str| self.call(&[command, "--help"]).contains(option);
        let own = ["--init", "tether"];
        let commit = "0123456789abcdef0123456789abcdef01234567";
        self.call(&[
            "release",
            "--kernel",
            "bzImage",
            "--tether",
            "tether",
            "--appliance-init",
            "appliance-init",
            "--crates",
            "crates.json",
            "--commit",
            commit,
            "--toolchain",
            "rustc 1.2.3",
            "-o",
            "out/release",
        ]);
        self.call(&[&["bootstrap", "--kernel", "bzImage", "-o", "out/bootstrap.iso"], &own[..]].concat());
        self.call(&[&["initramfs", "-o", "out/initramfs"], &own[..]].concat());
        let mut disks: Vec<(&str, &[&str])> = vec![
            ("disk.raw", &["--format", "raw"]),
            ("disk.vmdk", &["--format", "vmdk"]),
            ("stream.vmdk", &["--format", "stream"]),
            ("layer.raw", &["--layer", "1"]),
        ];
        if has("disk", "flat") {
            disks.push(("flat.vmdk", &["--format", "flat"]));
        }
        for (name, options) in disks {
            let output = format!("out/{name}");
            let mut args = [&["disk", "docker-archive:image.tar", "-o", &output], options].concat();
            if has("disk", "--threads") {
                args.extend(["--threads", self.threads]);
            }
            self.call(&args);
        }
        if has("", "layers ") {
            self.call(&["layers", "docker-archive:image.tar", "-o", "out/layers"]);
        }
        let mut found = BTreeMap::new();
        digests(&self.dir.join("out"), "", &mut found);
        found
    }

    fn call(&self, args: &[&str]) -> String {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", &format!("umask {}; exec \"$@\"", self.umask), "sh"]);
        if self.alone {
            shell.args(["taskset", "-c", first_processor()]);
        }
        shell.arg("./iso-builder").args(args.iter().filter(|arg| !arg.is_empty())).current_dir(&self.dir);
        shell.env_clear().envs(self.env.iter().copied());
        if self.nobody {
            shell.uid(NOBODY).gid(NOBODY);
        }
        run(&mut shell)
    }
}

/// The first processor that we may use.
fn first_processor() -> &'static str {
    use std::sync::LazyLock;
    static FIRST: LazyLock<String> = LazyLock::new(|| {
        let said = fs::read_to_string("/proc/self/status").unwrap();
        let list = said.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim();
        list.split([',', '-']).next().unwrap().to_owned()
    });
    &FIRST
}

fn digests(dir: &Path, path: &str, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = format!("{path}{}", entry.file_name().to_str().unwrap());
        match entry.file_type().unwrap().is_dir() {
            true => digests(&entry.path(), &format!("{path}/"), found),
            false => {
                let digest = sha256(&entry.path());
                assert_eq!(digest.len(), 64, "{path} cannot be read");
                found.insert(path, digest);
            }
        }
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

const NOBODY: u32 = 65534;
