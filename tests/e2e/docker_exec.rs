//! Docker exec: what a program beside a container's own gets and gives, by docker's own client and byte by byte.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread;

use rig::engine::Demultiplexed;
use rig::images::busybox_disk;
use rig::machine::{Powered, script};
use rig::serve::Serve;
use rig::stream::Pattern;
use rig::terminal::Session;
use serde_json::json;
use tempfile::TempDir;
use wire::spec::LinkDevice;

/// What goes each way.
const MUCH: usize = 10_000_000;
const CLIENTS: usize = 50;

/// A serve, and a container on it whose own process does nothing.
fn idle() -> (Serve, Powered, TempDir) {
    let (dir, disk) = busybox_disk();
    let (serve, machine) = container(disk, "exec sleep 100000");
    (serve, machine, dir)
}

fn container(disk: PathBuf, text: &str) -> (Serve, Powered) {
    let serve = Serve::start();
    let mut spec = script(LinkDevice::Virtio, text);
    let machine = serve.machine("web1", &mut spec, disk).power_on();
    serve.wait_for("web1", &["running", "up"]);
    rig::engine::until("docker sees it run", || serve.ask("POST", "/containers/web1/resize?h=1&w=1", "").status == 200);
    (serve, machine)
}

/// Makes an exec of the container: its path.
fn exec(serve: &Serve, config: &serde_json::Value) -> String {
    let reply = serve.ask("POST", "/containers/web1/exec", &config.to_string());
    assert_eq!(reply.status, 201, "{reply:?}");
    format!("/exec/{}", reply.json()["Id"].as_str().expect("an id"))
}

fn of(command: &[&str]) -> serde_json::Value {
    json!({ "AttachStdout": true, "AttachStderr": true, "AttachStdin": null, "Cmd": command })
}

#[test]
fn the_api_runs_programs_as_dockers_daemon_does() {
    let (serve, _machine, _dir) = idle();
    let start = |path: &str| format!("{path}/start");
    let inspect = |path: &str| serve.ask("GET", &format!("{path}/json"), "").json();

    // output by frames, and the code, once the connection has ended
    let path = exec(&serve, &of(&["sh", "-c", "echo o; echo e >&2; exit 6"]));
    let before = inspect(&path);
    assert_eq!((&before["Running"], &before["ExitCode"]), (&json!(false), &json!(null)));
    let (head, mut connection) = serve.hijack(&start(&path), r#"{"Detach":false,"Tty":false}"#, b"");
    let head = head.to_ascii_lowercase();
    for line in ["upgrade: tcp", "connection: upgrade", "content-type: application/vnd.docker.multiplexed-stream"] {
        assert!(head.contains(line), "{head}");
    }
    connection.half_close();
    let heard = Demultiplexed::of(&connection.read_to_end());
    assert_eq!(heard, Demultiplexed { stdout: b"o\n".into(), stderr: b"e\n".into(), daemon: Vec::new() });
    let after = inspect(&path);
    assert_eq!((&after["Running"], &after["ExitCode"]), (&json!(false), &json!(6)));
    assert!(after["Pid"].as_u64() > Some(0), "{after}");
    // once is once
    let again = serve.ask("POST", &start(&path), r#"{"Detach":false}"#);
    assert!(again.status == 409 && again.text().contains("already run"), "{again:?}");

    // the framing is what the start says, and the terminal what the making says
    let path = exec(&serve, &of(&["echo", "plain"]));
    let (head, mut connection) = serve.hijack(&start(&path), r#"{"Tty":true}"#, b"");
    assert!(head.contains("vnd.docker.raw-stream"), "{head}");
    assert_eq!(connection.read_to_end(), b"plain\n");

    // what the start's body holds is not the program's input, and what follows it is
    let mut config = of(&["cat"]);
    config["AttachStdin"] = json!(true);
    let path = exec(&serve, &config);
    let (_, mut connection) = serve.hijack(&start(&path), r#"{"Detach":false,"Tty":false}"#, b"abc");
    connection.half_close();
    assert_eq!(Demultiplexed::of(&connection.read_to_end()).stdout, b"abc");

    // what cannot be run
    for (program, code, words) in
        [("nosuchcmd", 127, "executable file not found in $PATH"), ("/etc/passwd", 126, "permission denied")]
    {
        let path = exec(&serve, &of(&[program]));
        let (_, mut connection) = serve.hijack(&start(&path), "{}", b"");
        let said = String::from_utf8(Demultiplexed::of(&connection.read_to_end()).stdout).expect("a sentence");
        assert!(said.contains(words) && said.contains(program) && said.ends_with("\r\n"), "{said:?}");
        assert_eq!(inspect(&path)["ExitCode"], json!(code), "{program}");
    }

    // refusals
    let status = |method: &str, path: &str, body: &str| serve.ask(method, path, body).status;
    assert_eq!(status("POST", "/containers/nobody/exec", &of(&["true"]).to_string()), 404);
    assert_eq!(status("POST", "/containers/web1/exec", &of(&[]).to_string()), 400);
    assert_eq!(status("POST", "/containers/web1/exec", "{"), 400);
    let mut config = of(&["true"]);
    config["Privileged"] = json!(true);
    assert_eq!(status("POST", "/containers/web1/exec", &config.to_string()), 501);
    let none = "0".repeat(64);
    assert_eq!(status("GET", &format!("/exec/{none}/json"), ""), 404);
    assert_eq!(status("POST", &format!("/exec/{none}/start"), "{}"), 404);

    // a client that goes leaves it running
    let path = exec(&serve, &of(&["sh", "-c", "sleep 1; exit 3"]));
    drop(serve.hijack(&start(&path), "{}", b""));
    rig::engine::until("it has ended", || inspect(&path)["ExitCode"] == json!(3));
}

#[test]
fn fifty_clients_are_served_at_once() {
    let (serve, _machine, _dir) = idle();
    let (serve, of) = (&serve, &of);
    thread::scope(|scope| {
        for n in 0..CLIENTS {
            scope.spawn(move || {
                let code = n % 7;
                let path =
                    exec(serve, &of(&["sh", "-c", &format!("echo {n}; cat /etc/passwd | wc -c >&2; exit {code}")]));
                let (_, mut connection) = serve.hijack(&format!("{path}/start"), "{}", b"");
                let heard = Demultiplexed::of(&connection.read_to_end());
                assert_eq!(heard.stdout, format!("{n}\n").as_bytes());
                let told = serve.ask("GET", &format!("{path}/json"), "").json();
                assert_eq!(told["ExitCode"], json!(code));
            });
        }
    });
}

#[test]
fn much_goes_through_in_both_directions() {
    let (serve, _machine, _dir) = idle();
    let noise = Pattern(5).bytes(0, MUCH);
    let mut config = of(&["cat"]);
    config["AttachStdin"] = json!(true);
    let path = exec(&serve, &config);
    let (_, mut connection) = serve.hijack(&format!("{path}/start"), "{}", b"");
    let heard = thread::scope(|scope| {
        let writer: UnixStream = connection.stream();
        scope.spawn(|| {
            let mut writer = writer;
            std::io::Write::write_all(&mut writer, &noise).expect("it reads");
            writer.shutdown(std::net::Shutdown::Write).expect("a socket");
        });
        Demultiplexed::of(&connection.read_to_end())
    });
    assert!(heard.stdout == noise, "{} bytes came back", heard.stdout.len());
}

#[test]
fn dockers_own_client_runs_programs() {
    let (serve, _machine, _dir) = idle();
    let run = |args: &[&str]| serve.docker(&[&["exec"], args].concat()).output();

    // output and codes
    let ran = run(&["web1", "sh", "-c", "echo o; echo e >&2; exit 6"]);
    assert_eq!((ran.code, ran.text().as_str(), ran.stderr.as_str()), (6, "o\n", "e\n"));
    for (code, command) in [(0, "true"), (3, "exit 3"), (137, "kill -9 $$")] {
        assert_eq!(run(&["web1", "sh", "-c", command]).code, code, "{command}");
    }
    for (program, code, words) in
        [("nosuchcmd", 127, "executable file not found in $PATH"), ("/etc/passwd", 126, "permission denied")]
    {
        let ran = run(&["web1", program]);
        assert!(ran.code == code && ran.text().contains(words), "{ran:?}");
    }

    // as whom, where, with what
    let ran = run(&["-u", "1:2", "-w", "/tmp", "-e", "A=b", "web1", "sh", "-c", "id -u; id -g; pwd; echo $A"]);
    assert_eq!(ran.success(), "1\n2\n/tmp\nb\n");

    // input, and its end
    let noise = Pattern(6).bytes(0, MUCH);
    let ran = run_with(&serve, &["exec", "-i", "web1", "sh", "-c", "cat; exit 4"], &noise);
    assert!(ran.code == 4 && ran.stdout == noise, "{}, {} bytes, {}", ran.code, ran.stdout.len(), ran.stderr);
    assert_eq!(run_with(&serve, &["exec", "-i", "web1", "wc", "-c"], b"").success().trim(), "0");

    // without a client
    assert_eq!(run(&["-d", "web1", "sh", "-c", "echo here >/tmp/detached"]).success(), "");
    rig::engine::until("it has run", || run(&["web1", "cat", "/tmp/detached"]).text() == "here\n");
    let ran = run(&["-d", "web1", "nosuchcmd"]);
    assert!(ran.code == 1 && ran.stderr.contains("executable file not found"), "{ran:?}");
}

fn run_with(serve: &Serve, args: &[&str], input: &[u8]) -> rig::vch::Output {
    serve.docker(args).stdin(input).output()
}

#[test]
fn dockers_own_client_has_a_terminal() {
    let (serve, _machine, _dir) = idle();
    let host = serve.docker_host();
    let docker = |args: &[&'static str]| {
        let words = ["docker", "--host"].into_iter().chain([host.as_str()]).chain(args.iter().copied());
        Session::of(24, 80, words.map(str::to_owned).collect::<Vec<_>>())
    };
    let mut session = docker(&["exec", "-it", "web1", "sh"]);
    session.type_text("stty size\r");
    session.expect("24 80");
    session.resize(40, 120);
    session.press_until("stty size\r", "40 120");
    session.type_text("exit 9\r");
    assert_eq!(session.finish().0, 9);

    // the keys leave it, and it goes on
    let mut session =
        docker(&["exec", "-it", "web1", "sh", "-c", "echo ready; read x; echo $x >/tmp/left; sleep 100000"]);
    session.expect("ready");
    session.type_text("\x10\x11");
    assert_eq!(session.finish().0, 1);
    let count = serve.docker(&["exec", "web1", "sh", "-c", "ps | grep -c '[s]h -c echo ready'"]).output();
    assert_eq!(count.text().trim(), "1", "{count:?}");
}

#[test]
fn trap_05_output_goes_on_behind_a_half_close_over_tls() {
    let certificates = tempfile::tempdir().unwrap();
    let dir = certificates.path();
    let folder = dir.to_str().expect("a path of ours");
    rig::vch::command("certs").args([folder, "--san", "127.0.0.1"]).output().success();
    let file = |name: &str| dir.join(name).display().to_string();
    let (ca, certificate, key) = (file("ca.pem"), file("server-cert.pem"), file("server-key.pem"));
    let tls = ["--tlsverify", "--tlscacert", &ca, "--tlscert", &certificate, "--tlskey", &key];
    let serve = Serve::start_with(&[&["-H", "tcp://127.0.0.1:0"], &tls[..]].concat());
    let (_dir, disk) = busybox_disk();
    let mut spec = script(LinkDevice::Virtio, "exec sleep 100000");
    let _machine = serve.machine("web1", &mut spec, disk).power_on();
    serve.wait_for("web1", &["running", "up"]);
    let host = format!("tcp://{}", serve.address("tcp://"));
    let (certificate, key) = (file("cert.pem"), file("key.pem"));
    let docker = |args: &[&str], input: &[u8]| {
        let tls = ["--tlsverify", "--tlscacert", &ca, "--tlscert", &certificate, "--tlskey", &key];
        serve.docker_at(&host, &[&tls, args].concat()).stdin(input).output()
    };
    rig::engine::until("docker sees it run", || docker(&["exec", "web1", "true"], b"").code == 0);
    // without input the client closes its half before the program says anything
    let ran = docker(&["exec", "web1", "sh", "-c", "sleep 1; echo late; exit 3"], b"");
    assert_eq!((ran.code, ran.text().as_str()), (3, "late\n"), "{ran:?}");
    let noise = Pattern(8).bytes(0, MUCH / 5);
    let ran = docker(&["exec", "-i", "web1", "sh", "-c", "cat >/tmp/all; cat /tmp/all; exit 4"], &noise);
    assert!(ran.code == 4 && ran.stdout == noise, "{}, {} bytes, {}", ran.code, ran.stdout.len(), ran.stderr);
}
