//! The invariants of ARCHITECTURE.md, as tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rig::artifacts;

/// Which crate may depend on which of ours; nothing else may.
const ARROWS: [(&str, &[&str]); 8] = [
    ("wire", &[]),
    ("guest", &["wire"]),
    ("tether", &["guest", "wire"]),
    ("appliance-init", &["guest", "wire"]),
    ("iso-builder", &[]),
    ("vch", &["iso-builder", "wire"]),
    ("double", &[]),
    ("tests", &["double", "wire"]),
];

/// What no PID 1 links: runtimes, HTTP, command lines.
const NOT_IN_THE_GUEST: [&str; 6] = ["tokio", "hyper", "clap", "anyhow", "regex", "iso-builder"];

fn metadata() -> serde_json::Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked", "--offline", "--no-deps"])
        .current_dir(artifacts::root())
        .output()
        .unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)))
}

fn sources() -> Vec<(PathBuf, String)> {
    let files = Command::new("git").args(["ls-files", "*.rs"]).current_dir(artifacts::root()).output().unwrap();
    String::from_utf8(files.stdout)
        .unwrap()
        .lines()
        .map(PathBuf::from)
        .filter_map(|path| Some((path.clone(), fs::read_to_string(artifacts::root().join(path)).ok()?)))
        .collect()
}

/// The lines before a file's unit tests.
fn code(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests").next().unwrap()
}

#[test]
fn the_arrows_between_the_crates_are_those_of_the_architecture() {
    let metadata = metadata();
    let ours: BTreeMap<&str, &[&str]> = ARROWS.into_iter().collect();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        let Some(allowed) = ours.get(name) else { continue };
        let found: BTreeSet<&str> = package["dependencies"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|dependency| dependency["kind"] != "dev")
            .filter_map(|dependency| dependency["name"].as_str())
            .filter(|dependency| ours.contains_key(dependency))
            .collect();
        assert!(found.iter().all(|one| allowed.contains(one)), "{name} depends on {found:?}, and may on {allowed:?}");
    }
}

#[test]
fn no_pid_1_links_what_belongs_to_the_host() {
    for name in ["tether", "appliance-init"] {
        let tree = Command::new(env!("CARGO"))
            .args(["tree", "--offline", "--locked", "--edges", "normal", "--prefix", "none", "-p", name])
            .current_dir(artifacts::root())
            .output()
            .unwrap();
        let tree = String::from_utf8(tree.stdout).unwrap();
        assert!(tree.contains("guest "), "cargo tree says nothing");
        for banned in NOT_IN_THE_GUEST {
            assert!(!tree.lines().any(|line| line.split(' ').next() == Some(banned)), "{name} links {banned}");
        }
    }
}

#[test]
fn unsafe_code_is_behind_its_fence() {
    for (path, text) in sources() {
        let words = ["unsafe {", "unsafe fn", "unsafe impl", "allow(unsafe_code)"];
        if words.iter().any(|word| text.contains(word)) {
            let fences = ["guest/src/sys", "guest/src/lib.rs", "tests/double/src/sys", "tests/double/src/lib.rs"];
            let inside = fences.iter().any(|fence| path.starts_with(fence));
            assert!(inside || path.ends_with("e2e/tidy.rs"), "{} has unsafe code", path.display());
        }
    }
}

#[test]
fn the_contract_does_nothing_but_compute() {
    for (path, text) in sources() {
        if !path.starts_with("wire/src") {
            continue;
        }
        for banned in
            ["std::fs", "std::io", "std::net", "std::env", "std::thread", "std::process", "Instant", "SystemTime"]
        {
            assert!(!code(&text).contains(banned), "{} names {banned}", path.display());
        }
    }
}

#[test]
fn writers_read_no_clock_and_no_environment() {
    for (path, text) in sources() {
        let writers = ["ext4", "vmdk", "iso9660", "oci", "cpio"].map(|name| Path::new("iso-builder/src").join(name));
        if writers.iter().any(|writer| path.starts_with(writer)) {
            for banned in ["SystemTime", "Instant::now", "env::var", "thread_rng", "getrandom"] {
                assert!(!code(&text).contains(banned), "{} names {banned}", path.display());
            }
        }
    }
}

#[test]
fn every_file_says_what_it_decides_and_none_is_endless() {
    for (path, text) in sources() {
        assert!(text.starts_with("//!"), "{} does not begin with //!", path.display());
        let lines = code(&text).lines().count();
        assert!(lines <= 500, "{} has {lines} lines", path.display());
    }
}

#[test]
fn data_folders_hold_no_logic() {
    let files =
        Command::new("git").args(["ls-files", "-s", "rootfs", "kernel-config"]).current_dir(artifacts::root()).output();
    let files = String::from_utf8(files.unwrap().stdout).unwrap();
    assert!(!files.is_empty());
    assert!(files.lines().all(|line| line.starts_with("100644")), "something is executable: {files}");
}

#[test]
fn each_pid_1_is_small_and_needs_nothing() {
    for name in ["tether", "appliance-init"] {
        let program = artifacts::program(name);
        let size = fs::metadata(&program).unwrap().len();
        assert!(size <= 1024 * 1024, "{name} has {size} bytes");
        let bytes = fs::read(&program).unwrap();
        let loader = b"/ld-musl";
        assert!(!bytes.windows(loader.len()).any(|window| window == loader), "{name} asks for a loader");
    }
}

#[test]
fn the_changelog_and_the_documents_are_there() {
    for name in [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "LICENSE",
        "docs/protocol.md",
        "docs/guestinfo.md",
    ] {
        assert!(artifacts::root().join(name).exists(), "{name} is missing");
    }
}
