//! `vch serve` and its clients: what docker's users know, across a serve that is killed, clients that do not read, and strangers at the door.

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use rig::artifacts::program;
use rig::host::PATIENCE;
use rig::images::{ImageDir, busybox_disk, run};
use rig::machine::{Powered, script};
use rig::serve::Serve;
use rig::stream::Pattern;
use tempfile::TempDir;
use wire::handshake::LinkKey;
use wire::link::{Link, Role, Security, Tuning};
use wire::spec::LinkDevice;

/// What goes through while serve is killed.
const MUCH: usize = 20_000_000;
const KILLS: usize = 3;

/// A serve, and a machine on it whose main process does nothing.
fn idle(disk: PathBuf) -> (Serve, Powered) {
    let serve = Serve::start();
    let mut spec = script(LinkDevice::Virtio, "exec sleep 100000");
    let machine = serve.machine("web1", &mut spec, disk).power_on();
    serve.wait_for("web1", &["running", "up"]);
    (serve, machine)
}

#[test]
fn the_commands_do_what_their_names_say() {
    let (_dir, disk) = busybox_disk();
    let serve = Serve::start();
    let mut spec = script(LinkDevice::Virtio, "exec sleep 100000");
    spec.hold = true;
    let mut machine = serve.machine("web1", &mut spec, disk).power_on();
    let vch = |name: &str, args: &[&str]| serve.command(name, args).output();

    // held, then started
    serve.wait_for("web1", &["held", "up"]);
    assert_ne!(vch("exec", &["web1", "true"]).code, 0);
    assert_eq!(vch("start", &["web1"]).success(), "web1\n");
    serve.wait_for("web1", &["running", "up"]);
    assert_eq!(vch("ps", &["-q"]).success(), "web1\n");

    // exec
    let ran = vch("exec", &["web1", "sh", "-c", "echo out; echo err >&2; exit 3"]);
    assert_eq!((ran.code, ran.text().as_str(), ran.stderr.as_str()), (3, "out\n", "err\n"));
    let words = "-e A=b -e FROM_HERE -u 1234:99 -w /tmp we sh -c".split(' ').collect::<Vec<_>>();
    let words = [&words[..], &["echo \"$A $FROM_HERE\"; id -u; id -g; pwd"]].concat();
    let ran = serve.command("exec", &words).env("FROM_HERE", "c  d").output();
    assert_eq!(ran.success(), "b c  d\n1234\n99\n/tmp\n");
    for (program, code) in [("nosuchprogram", 127), ("/no/such/program", 127), ("/etc/passwd", 126)] {
        vch("exec", &["web1", program]).fails(code, &[program]);
    }
    assert_ne!(vch("exec", &["nobody", "true"]).code, 0);
    let noise = Pattern(1).bytes(0, 3_000_000);
    let ran = serve.command("exec", &["-i", "web1", "sh", "-c", "cat; exit 4"]).stdin(noise.clone()).output();
    assert!(ran.code == 4 && ran.stdout == noise, "{}, {} bytes, {}", ran.code, ran.stdout.len(), ran.stderr);

    // tables
    let table = vch("top", &["web1"]).success();
    assert!(table.lines().any(|line| line.ends_with("sleep 100000")), "{table}");
    let table = vch("stats", &["--no-stream", "web1"]).success();
    let words: Vec<&str> = table.lines().nth(1).expect("a line for the VM").split_whitespace().collect();
    assert_eq!((table.lines().count(), words[0], words[words.len() - 1]), (2, "web1", "1"), "{table}");

    // files
    let dir = tempfile::tempdir().unwrap();
    let (here, back) = (dir.path().join("noise"), dir.path().join("back"));
    fs::write(&here, &noise).unwrap();
    vch("cp", &[here.to_str().unwrap(), "web1:/tmp/there"]).success();
    let digest = vch("exec", &["web1", "md5sum", "/tmp/there"]).success();
    assert_eq!(digest.split(' ').next(), Some(md5sum(&here).as_str()));
    vch("cp", &["web1:/tmp/there", back.to_str().unwrap()]).success();
    assert!(fs::read(&back).unwrap() == noise, "what came back differs");

    // the end
    let waiting = serve.command("wait", &["web1"]).start();
    assert_eq!(vch("kill", &["-s", "KILL", "web1"]).success(), "web1\n");
    let waited = waiting.finish();
    assert_eq!((waited.code, waited.text().as_str()), (137, "137\n"), "{waited:?}");
    machine.wait();
    // told also to who asks when the machine is gone
    assert_eq!(vch("wait", &["web1"]).code, 137);
    serve.wait_for("web1", &["killed", "down"]);
}

/// The digest of a file, by the system's own tool.
fn md5sum(path: &std::path::Path) -> String {
    let text = run(Command::new("md5sum").arg(path));
    text.split(' ').next().expect("a digest").to_owned()
}

#[test]
fn output_outlives_a_serve_that_is_killed() {
    let noise = Pattern(2).bytes(0, MUCH);
    let (_dir, disk) = disk_with_noise(&noise);
    let (mut serve, _machine) = idle(disk);
    let mut client = serve.client("exec", &["web1", "cat", "/noise"]);
    let mut came = Vec::new();
    for _ in 0..KILLS {
        came.extend(client.read(MUCH / (KILLS + 1)));
        serve.kill();
        serve.start_again();
    }
    came.extend(client.read_to_end());
    assert_eq!(client.finish(), (0, String::new()));
    assert!(came == noise, "{} bytes came", came.len());
    each_serve_had_its_part(&serve);
}

/// The machine came to every one of them.
fn each_serve_had_its_part(serve: &Serve) {
    let log = serve.log();
    assert_eq!(log.matches("web1: its link is open").count(), KILLS + 1, "{log}");
}

/// A disk of busybox with a file `/noise`.
fn disk_with_noise(noise: &[u8]) -> (TempDir, PathBuf) {
    let image = ImageDir::with_busybox();
    fs::write(image.root().join("noise"), noise).unwrap();
    let archive = image.archive(&serde_json::json!({ "Cmd": ["sh"] }));
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk.raw");
    run(Command::new(program("iso-builder")).arg("disk").arg(archive).arg("-o").arg(&disk));
    (dir, disk)
}

#[test]
fn input_outlives_a_serve_that_is_killed() {
    let (_dir, disk) = busybox_disk();
    let (mut serve, _machine) = idle(disk);
    let noise = Pattern(3).bytes(0, MUCH);
    let mut client = serve.client("exec", &["-i", "web1", "sh", "-c", "cat >/f; md5sum </f"]);
    for (n, part) in noise.chunks(MUCH / (KILLS + 1)).enumerate() {
        client.write(part);
        if n < KILLS {
            serve.kill();
            serve.start_again();
        }
    }
    client.end_input();
    let digest = client.read_to_end();
    assert_eq!(client.finish(), (0, String::new()));
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("noise"), &noise).unwrap();
    let expected = format!("{}  -\n", md5sum(&dir.path().join("noise")));
    assert_eq!(String::from_utf8_lossy(&digest), expected);
    each_serve_had_its_part(&serve);
}

#[test]
fn a_client_that_does_not_read_is_sent_away_and_the_other_gets_every_byte() {
    const LINES: usize = 1_500_000;
    let (_dir, disk) = busybox_disk();
    let serve = Serve::start();
    // both clients see a tick: then they are there
    let text = format!("until [ -e /go ]; do echo tick; sleep 0.1; done; seq 1 {LINES}; exit 5");
    let mut spec = script(LinkDevice::Virtio, &text);
    let mut machine = serve.machine("web1", &mut spec, disk).power_on();
    serve.wait_for("web1", &["running", "up"]);
    let mut reader = serve.client("attach", &["--no-stdin", "web1"]);
    reader.wait_for_output();
    let mut stuck = serve.client("attach", &["--no-stdin", "web1"]);
    stuck.wait_for_output();
    serve.command("exec", &["web1", "touch", "/go"]).output().success();
    let came = reader.read_to_end();
    assert_eq!(reader.finish(), (5, String::new()));
    let came = String::from_utf8(came).unwrap();
    let came = came.trim_start_matches("tick\n");
    let expected: String = (1..=LINES).map(|n| format!("{n}\n")).collect();
    assert!(came == expected, "{} bytes came, not {}", came.len(), expected.len());
    let (code, said) = stuck.finish();
    assert!(code != 0 && code != 5 && said.contains("detached"), "{code}: {said}");
    println!("{code}: {said}");
    machine.wait();
}

#[test]
fn strangers_disturb_nobody() {
    let (_dir, disk) = busybox_disk();
    let (mut serve, _machine) = idle(disk);
    let works = |serve: &Serve| {
        let output = serve.command("exec", &["web1", "echo", "here"]).output();
        assert_eq!(output.success(), "here\n");
    };
    let mut session = serve.client("exec", &["-i", "web1", "cat"]);
    session.write(b"before\n");
    assert_eq!(session.read(7), b"before\n");

    let mut garbage = serve.stranger();
    garbage.write_all(&Pattern(4).bytes(0, 100_000)).unwrap();
    works(&serve);
    let mut impostor = Impostor::connect(&serve);
    impostor.insist();
    works(&serve);
    session.write(b"between\n");
    assert_eq!(session.read(8), b"between\n");

    // first at the door of a new serve, before the machine comes back
    serve.kill();
    serve.start_again();
    let mut early = Impostor::connect(&serve);
    early.insist();
    serve.wait_for("web1", &["running", "up"]);
    works(&serve);
    session.write(b"after\n");
    session.end_input();
    assert_eq!(session.read_to_end(), b"after\n");
    assert_eq!(session.finish(), (0, String::new()));
    let log = serve.log();
    assert!(!log.contains("restarted") && !log.contains("taken"), "{log}");
}

/// Says that it is `web1`, and does not have its key.
struct Impostor {
    stream: UnixStream,
    link: Link,
    began: Instant,
}

impl Impostor {
    fn connect(serve: &Serve) -> Impostor {
        let security = Security { key: LinkKey::new([0x66; 32]), sealed: false, seed: [9; 32] };
        let role = Role::Guest { vm: "web1".into(), boot: [8; 16] };
        let (mut link, began) = (Link::new(role, Tuning::FAST, security), Instant::now());
        link.pipe_up(began.elapsed());
        let stream = serve.stranger();
        stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        Impostor { stream, link, began }
    }

    /// Says hello again and again, whatever serve answers.
    fn insist(&mut self) {
        let (mut said, mut asked, mut buffer) = (0, false, vec![0; 1 << 16]);
        while said < HELLOS || !asked {
            assert!(self.began.elapsed() < PATIENCE, "{said} hellos, asked for: {asked}");
            let mut out = Vec::new();
            while self.link.poll_transmit(self.began.elapsed(), &mut out) {}
            said += usize::from(!out.is_empty());
            self.stream.write_all(&out).expect("serve keeps the connection");
            match self.stream.read(&mut buffer) {
                Ok(0) => panic!("serve has closed the connection"),
                Ok(count) => {
                    asked = true;
                    self.link.handle_bytes(self.began.elapsed(), &buffer[..count]);
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => panic!("{error}"),
            }
            self.link.handle_timeout(self.began.elapsed());
            assert!(!self.link.is_open(), "serve takes it for web1");
        }
    }
}

/// A guest that gets no answer says hello so often in less than a second.
const HELLOS: usize = 5;
