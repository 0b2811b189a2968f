//! Output arrives whole, in order, each stream apart, whoever is slow.

use std::io::Read as _;

use rig::images::ImageDir;
use rig::vch::{run, shell};

const MIB: usize = 1024 * 1024;

/// Bytes that no run-length, no text conversion and no escape leaves as they are; the same on every machine.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

#[test]
fn what_a_container_said_can_be_read_when_it_is_gone() {
    let busybox = rig::artifacts::dist("busybox.tar");
    for link in ["virtio", "serial"] {
        let script = "echo one; sleep 0.1; echo two >&2; sleep 0.1; printf three";
        let running = run(["--link", link, busybox.to_str().unwrap(), "sh", "-c", script]).start();
        let containers = running.state().join("tether/containers");
        let mut logs = None;
        running.finish_with(|| {
            let container = std::fs::read_dir(containers).unwrap().next().unwrap().unwrap().path();
            let mut command = std::process::Command::new(rig::artifacts::program("vch"));
            logs = Some(command.arg("logs").arg(container).output().unwrap());
        });
        let logs = logs.unwrap();
        assert!(logs.status.success(), "{logs:?}");
        assert_eq!((logs.stdout.as_slice(), logs.stderr.as_slice()), (&b"one\nthree"[..], &b"two\n"[..]), "{link}");
    }
}

#[test]
fn two_hundred_megabytes_come_through_virtio() {
    let image = ImageDir::with_busybox();
    let part = noise(20 * MIB);
    std::fs::write(image.root().join("part"), &part).unwrap();
    let archive = image.archive(&serde_json::json!({}));
    let script = "for i in 0 1 2 3 4 5 6 7 8 9; do echo $i; cat /part; done";
    let output = run(["--rm", archive.to_str().unwrap(), "/bin/sh", "-c", script]).output();
    assert_eq!((output.code, output.stdout.len()), (0, 10 * (2 + part.len())));
    for (number, piece) in output.stdout.chunks(2 + part.len()).enumerate() {
        assert!(piece.starts_with(format!("{number}\n").as_bytes()) && piece[2..] == part, "piece {number} differs");
    }
}

#[test]
fn eight_megabytes_come_through_the_serial_port() {
    let image = ImageDir::with_busybox();
    let part = noise(8 * MIB);
    std::fs::write(image.root().join("part"), &part).unwrap();
    let archive = image.archive(&serde_json::json!({}));
    let output = run(["--rm", "--link", "serial", archive.to_str().unwrap(), "/bin/cat", "/part"]).output();
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert!(output.stdout == part, "{} bytes of {}", output.stdout.len(), part.len());
}

#[test]
fn stdout_and_stderr_stay_apart() {
    let output = shell(&[], "i=0; while [ $i -lt 500 ]; do echo out$i; echo err$i >&2; i=$((i + 1)); done").output();
    let lines = |name: &str| (0..500).map(|i| format!("{name}{i}\n")).collect::<String>();
    assert_eq!((output.text(), output.stderr), (lines("out"), lines("err")));
}

#[test]
fn the_last_words_of_a_process_are_not_lost() {
    for _ in 0..3 {
        assert_eq!(shell(&[], "head -c 100000 /dev/zero; echo end").output().stdout.len(), 100_004);
    }
}

/// A grandchild that holds the output open delays the end only a little, and what it says meanwhile is kept.
#[test]
fn a_grandchild_does_not_hold_the_end_up() {
    let output = shell(&[], "(sleep 0.1; echo late; sleep 1000) & echo early; exit 5").output();
    assert_eq!((output.code, output.text().as_str()), (5, "early\nlate\n"));
}

#[test]
fn a_reader_that_is_slow_loses_nothing() {
    let mut child = std::process::Command::new("sh")
        .args([
            "-c",
            "\"$0\" run --rm \"$1\" sh -c 'head -c 30000000 /dev/zero | tr \"\\0\" x; echo end' | (sleep 2; cat)",
        ])
        .arg(rig::artifacts::program("vch"))
        .arg(rig::artifacts::dist("busybox.tar"))
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut text = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut text).unwrap();
    assert_eq!(rig::vch::wait(&mut child), 0);
    assert_eq!((text.len(), text.ends_with(b"xend\n")), (30_000_004, true));
}

#[test]
fn a_reader_that_goes_away_ends_nothing_but_itself() {
    let status = std::process::Command::new("sh")
        .args(["-c", "{ \"$0\" run --rm \"$1\" sh -c 'yes | head -n 1000000; exit 9'; echo $? >&2; } | head -n 1"])
        .arg(rig::artifacts::program("vch"))
        .arg(rig::artifacts::dist("busybox.tar"))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&status.stdout), "y\n");
    // the container's own writer sees a closed pipe or none: what counts is that it ends with its own code
    assert_eq!(String::from_utf8_lossy(&status.stderr).lines().last(), Some("9"));
}
