//! `docker logs` of containers on `vch serve`: every byte once, whatever happens to serve or its disk.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rig::engine::until;
use rig::host::PATIENCE;
use rig::images::busybox_disk;
use rig::machine::{Powered, script};
use rig::serve::Serve;
use tempfile::TempDir;
use wire::spec::LinkDevice;

/// How often serve is killed while a flood goes through it.
const KILLS: usize = 4;

/// A serve with one container of this script.
fn container(serve: &Serve, text: &str) -> (TempDir, Powered) {
    let (dir, disk) = busybox_disk();
    let mut spec = script(LinkDevice::Virtio, text);
    let machine = serve.machine("web1", &mut spec, disk).power_on();
    (dir, machine)
}

/// Standard output and standard error of `docker logs`.
fn logs(serve: &Serve, options: &[&str]) -> (Vec<u8>, String) {
    let output = serve.docker(&[&["logs"], options, &["web1"]].concat()).output();
    assert_eq!(output.code, 0, "{options:?}: {}", output.stderr);
    (output.stdout, output.stderr)
}

/// Asks until the container's log is so.
fn wait_for_logs(serve: &Serve, is_so: impl Fn(&[u8], &str) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let output = serve.docker(&["logs", "web1"]).output();
        if output.code == 0 && is_so(&output.stdout, &output.stderr) {
            return;
        }
        let (code, len, text) = (output.code, output.stdout.len(), &output.stderr);
        assert!(Instant::now() < deadline, "{code}, {len} bytes, {text}; {}", serve.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn numbers(to: usize) -> String {
    (1..=to).map(|number| format!("{number}\n")).collect()
}

/// Equal, or where they differ: they are long.
fn assert_same(here: &[u8], there: &str) {
    let there = there.as_bytes();
    let differs = here.iter().zip(there).position(|(one, other)| one != other);
    let around = |bytes: &[u8]| {
        let at = differs.unwrap_or(bytes.len().min(here.len()));
        String::from_utf8_lossy(&bytes[at.saturating_sub(30).min(bytes.len())..(at + 30).min(bytes.len())]).into_owned()
    };
    let is_same = here.len() == there.len() && differs.is_none();
    assert!(is_same, "{} and {} bytes: {:?}, {:?}", here.len(), there.len(), around(here), around(there));
}

#[test]
fn logs_are_what_a_container_has_written() {
    let serve = Serve::start();
    // the order of the two streams is not kept on the link
    let text = "echo 'an error' >&2
        while [ ! -e /tmp/begin ]; do sleep 0.1; done
        echo one; echo two; echo three
        while [ ! -e /tmp/go ]; do sleep 0.1; done
        echo four; printf 'a\\0b\\r\\n\\377'; printf 'no end' >&2";
    let (_dir, mut machine) = container(&serve, text);
    wait_for_logs(&serve, |_, stderr| stderr == "an error\n");
    serve.command("exec", &["web1", "touch", "/tmp/begin"]).output().success();
    wait_for_logs(&serve, |stdout, stderr| stdout == b"one\ntwo\nthree\n" && stderr == "an error\n");

    let check = |options: &[&str], stdout: &str, stderr: &str| {
        let (heard, errors) = logs(&serve, options);
        assert_eq!((String::from_utf8_lossy(&heard).as_ref(), errors.as_str()), (stdout, stderr), "{options:?}");
    };
    check(&["--tail", "0"], "", "");
    check(&["--tail", "1"], "three\n", "");
    check(&["-n", "100"], "one\ntwo\nthree\n", "an error\n");
    check(&["--since", "2100-01-01T00:00:00Z"], "", "");
    check(&["--until", "2001-01-01T00:00:00Z"], "", "");
    check(&["--details", "--tail", "1"], " three\n", "");

    // each line's time; those from one on, and those up to it
    let (marked, _) = logs(&serve, &["-t"]);
    let marked = String::from_utf8(marked).unwrap();
    let times: Vec<&str> = marked.lines().map(|line| line.split_once(' ').unwrap().0).collect();
    let is_time = |time: &&str| time.len() == "2026-01-31T23:59:59.000000000Z".len() && time.ends_with('Z');
    assert!(times.len() == 3 && times.iter().all(is_time) && times.is_sorted(), "{marked}");
    check(&["--since", times[0], "--until", times[2]], "one\ntwo\nthree\n", "");

    // from now on, as it is written
    let mut follower = Command::new("docker")
        .args(["--host", &serve.docker_host(), "logs", "--follow", "--tail", "1", "web1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(follower.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "three\n");
    serve.command("exec", &["web1", "touch", "/tmp/go"]).output().success();
    let (mut rest, mut errors) = (Vec::new(), String::new());
    stdout.read_to_end(&mut rest).unwrap();
    follower.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    assert!(follower.wait().unwrap().success());
    assert_eq!((rest.as_slice(), errors.as_str()), (&b"four\na\0b\r\n\xff"[..], "no end"));

    // it has ended, and its machine is gone
    machine.wait();
    let (all, errors) = logs(&serve, &[]);
    assert_eq!((all.as_slice(), errors.as_str()), (&b"one\ntwo\nthree\nfour\na\0b\r\n\xff"[..], "an error\nno end"));
    let (all, _) = logs(&serve, &["--follow"]);
    assert!(all.ends_with(b"\xff"));
    let unknown = serve.docker(&["logs", "nobody"]).output();
    assert!(unknown.code == 1 && unknown.stderr.contains("No such container: nobody"), "{unknown:?}");
}

#[test]
fn a_serve_that_is_killed_again_and_again_has_the_whole_log() {
    let mut serve = Serve::start();
    let count = 2_600_000;
    let (_dir, _machine) = container(&serve, &format!("seq 1 {count}; echo done >&2; exec sleep 100000"));
    for kill in 1..=KILLS {
        // in the middle of it
        let enough = kill * 3_000_000;
        wait_for_size(&serve.state(), enough as u64);
        serve.kill();
        serve.start_again();
    }
    let all = numbers(count);
    wait_for_size(&serve.state(), all.len() as u64);
    wait_for_logs(&serve, |_, stderr| stderr == "done\n");
    let (stdout, stderr) = logs(&serve, &[]);
    assert!(stdout.len() > 19_000_000, "{}", stdout.len());
    assert_same(&stdout, &all);
    assert_eq!(stderr, "done\n");
    let (tail, _) = logs(&serve, &["--tail", "3"]);
    assert_eq!(String::from_utf8(tail).unwrap(), format!("{}\n{count}\n", count - 1));
}

/// Waits until there is so much output on disk.
fn wait_for_size(state: &Path, bytes: u64) {
    fn size(dir: &Path) -> u64 {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        entries
            .map(
                |entry| {
                    if entry.path().is_dir() { size(&entry.path()) } else { entry.metadata().map_or(0, |it| it.len()) }
                },
            )
            .sum()
    }
    until(&format!("{bytes} bytes are on disk"), || size(state) >= bytes);
}

/// A small file system of the test's.
struct Small<'a>(&'a Path);

impl Small<'_> {
    fn mount(&self, options: &str) -> bool {
        Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(self.0)
            .status()
            .is_ok_and(|it| it.success())
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        let _gone = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[test]
fn a_container_waits_for_room_on_a_full_disk_and_goes_on() {
    let mut serve = Serve::start();
    drop(serve.stranger());
    serve.kill();
    let state = serve.state();
    std::fs::create_dir_all(&state).unwrap();
    let small = Small(&state);
    if !small.mount("size=3m,mode=700") {
        return crate::skip("a_container_waits_for_room_on_a_full_disk_and_goes_on", "it cannot mount a tmpfs");
    }
    serve.start_again();
    let count = 800_000;
    let (_dir, _machine) = container(&serve, &format!("seq 1 {count}; echo done >&2; exec sleep 100000"));
    let deadline = Instant::now() + PATIENCE;
    while !serve.log().contains("there is no room") {
        assert!(Instant::now() < deadline, "{}", serve.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    // what is there is readable
    let (tail, _) = logs(&serve, &["--tail", "1"]);
    let last: usize = String::from_utf8(tail).unwrap().trim().parse().unwrap();
    assert!(last < count, "{last}");
    assert!(small.mount("remount,size=64m"));
    wait_for_logs(&serve, |_, stderr| stderr == "done\n");
    assert_same(&logs(&serve, &[]).0, &numbers(count));
    let said = serve.log();
    assert_eq!(said.matches("its output waits").count(), 1, "{said}");
    assert!(said.contains("its output is recorded again"), "{said}");
    serve.kill();
}
