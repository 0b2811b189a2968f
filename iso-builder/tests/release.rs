//! `iso-builder release` as it is called: what is refused, and what a failure leaves. What it makes is compared with other tools in tests/e2e/release.rs.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

#[test]
fn what_is_no_commit_and_no_uri_is_a_wrong_command_line() {
    let dir = tempfile::tempdir().unwrap();
    for (option, value, said) in [
        ("--commit", "main", "40 or 64 hexadecimal digits"),
        ("--commit", "0123456789abcdef", "40 or 64 hexadecimal digits"),
        ("--builder", "me", "not a URI"),
        ("--builder", "https://a b", "not a URI"),
    ] {
        let output = release(dir.path(), &[option, value]);
        assert_eq!(output.status.code(), Some(2), "{option} {value}");
        assert!(stderr(&output).contains(said), "{}", stderr(&output));
    }
}

#[test]
fn a_failure_leaves_things_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    // The kernel would do, the programs are none: it fails after the first file was started.
    let mut kernel = vec![0; 70_000];
    kernel[0x202..0x206].copy_from_slice(b"HdrS");
    fs::write(dir.path().join("kernel"), kernel).unwrap();
    fs::write(dir.path().join("init"), "#!/bin/sh\n").unwrap();
    let names = || {
        let mut names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let output = release(dir.path(), &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("init cannot be used"), "{}", stderr(&output));
    assert_eq!(names(), ["init", "kernel"]);

    let old = dir.path().join("release");
    fs::create_dir(&old).unwrap();
    fs::write(old.join("SHA256SUMS"), "old\n").unwrap();
    assert_eq!(release(dir.path(), &[]).status.code(), Some(1));
    assert_eq!(fs::read_to_string(old.join("SHA256SUMS")).unwrap(), "old\n");
    assert_eq!(fs::read_dir(&old).unwrap().count(), 1);

    let output = release(dir.path(), &["--epoch=-1"]);
    assert!(stderr(&output).contains("SOURCE_DATE_EPOCH is -1"), "{}", stderr(&output));
    fs::remove_dir_all(&old).unwrap();
    fs::write(&old, "a file").unwrap();
    assert!(stderr(&release(dir.path(), &[])).contains("release"));
    assert_eq!(fs::read_to_string(&old).unwrap(), "a file");
}

fn release(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_iso-builder"))
        .args([
            "release",
            "--kernel",
            "kernel",
            "--tether",
            "init",
            "--appliance-init",
            "init",
            "--vch",
            "init",
            "-o",
            "release",
        ])
        .args(args)
        .current_dir(dir)
        .env_remove("SOURCE_DATE_EPOCH")
        .output()
        .unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}
