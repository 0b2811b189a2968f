//! The seeds of the fuzz targets, each as it is, cut at every byte and with every byte bent, in every test run.

use std::fs;
use std::path::Path;

#[allow(unreachable_pub, reason = "for the fuzz targets it is a library")]
#[path = "../fuzz/lib.rs"]
mod targets;

/// Runs every seed of a target, and what lies close to it.
fn check(target: &str, holds: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        eprintln!("{}", path.display()); // shown when it fails
        let seed = fs::read(&path).unwrap();
        holds(&seed);
        for at in 0..seed.len() {
            holds(&seed[..at]);
            for bent in [0x01, 0x80, 0xff] {
                let mut other = seed.clone();
                other[at] ^= bent;
                holds(&other);
            }
        }
        count += 1;
    }
    assert!(count >= 3, "{target} has only {count} seeds");
}

#[test]
fn frames() {
    check("frame", targets::frame);
}

#[test]
fn hellos() {
    check("hello", targets::hello);
}

#[test]
fn messages() {
    check("message", targets::message);
}

#[test]
fn logs() {
    check("log", targets::log);
}

#[test]
fn specs() {
    check("spec", targets::spec);
    // bending what is no spec to begin with would show little
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/spec")).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        wire::guestinfo::read(&wire::vmx::Dictionary::parse(&text).unwrap()).unwrap();
    }
}
