//! Docker attach: who hears a container's own process, who speaks to it, and who is in nobody's way.

use rig::engine::Demultiplexed;
use rig::images::busybox_disk;
use rig::machine::{Powered, script};
use rig::serve::Serve;
use rig::stream::Pattern;
use rig::terminal::Session;
use tempfile::TempDir;
use wire::spec::{LinkDevice, Spec, TermSize};

/// What a container writes beside a client that does not read: more than its link's window and the client's socket hold.
const MUCH: usize = 20_000_000;

/// A held container.
fn held(text: &str, change: impl FnOnce(&mut Spec)) -> (Serve, Powered, TempDir) {
    let (dir, disk) = busybox_disk();
    let serve = Serve::start();
    let mut spec = script(LinkDevice::Virtio, text);
    spec.hold = true;
    spec.main.stdin = true;
    change(&mut spec);
    let machine = serve.machine("web1", &mut spec, disk).power_on();
    serve.wait_for("web1", &["held", "up"]);
    rig::engine::until("docker sees it", || serve.ask("GET", "/containers/web1/json", "").status == 200);
    (serve, machine, dir)
}

fn start(serve: &Serve) {
    serve.command("start", &["web1"]).output().success();
}

const STREAMS: &str = "/containers/web1/attach?stdout=1&stderr=1&stream=1";
const ALL: &str = "/containers/web1/attach?stdin=1&stdout=1&stderr=1&stream=1";

#[test]
fn trap_06_input_and_its_end_are_latched_before_the_start() {
    let (serve, _machine, _dir) = held("cat; echo done >&2; exit 3", |_| ());
    let (head, mut connection) = serve.hijack(ALL, "", b"early ");
    assert!(head.contains("vnd.docker.multiplexed-stream"), "{head}");
    connection.write(b"bytes\n");
    connection.half_close();
    start(&serve);
    let heard = Demultiplexed::of(&connection.read_to_end());
    assert_eq!(heard, Demultiplexed { stdout: b"early bytes\n".into(), stderr: b"done\n".into(), daemon: Vec::new() });
    // it has ended, and what it wrote is still there
    rig::engine::until("it is known to have ended", || serve.ask("POST", STREAMS, "").status == 409);
    let logs = serve.ask("POST", "/containers/web1/attach?stdout=1&stderr=1&logs=1", "");
    assert_eq!(logs.status, 200, "{logs:?}");
    assert_eq!(Demultiplexed::of(&logs.body).stdout, b"early bytes\n");
    assert_eq!(serve.ask("POST", "/containers/nobody/attach?stream=1", "").status, 404);
    assert_eq!(serve.ask("POST", "/containers/web1/resize?h=1&w=1", "").status, 409);
    assert_eq!(serve.ask("POST", "/containers/web1/resize?h=x&w=1", "").status, 400);
}

#[test]
fn who_does_not_read_is_in_nobodys_way() {
    let (serve, _machine, _dir) = held("head -c 20000000 /dev/zero | tr '\\0' x; echo end", |_| ());
    let (_, mut stuck) = serve.hijack(STREAMS, "", b"");
    let (_, mut reader) = serve.hijack(STREAMS, "", b"");
    // docker's client closes its half as soon as it has nothing to say, and goes on reading
    reader.half_close();
    start(&serve);
    let heard = Demultiplexed::of(&reader.read_to_end());
    assert_eq!(heard.stdout.len(), MUCH + 4);
    // and who was stuck has lost nothing
    let late = Demultiplexed::of(&stuck.read_to_end());
    assert!(late == heard, "{} bytes came", late.stdout.len());
}

#[test]
fn keys_leave_a_terminal_and_the_container_goes_on() {
    let terminal = Some(TermSize { rows: 24, columns: 80 });
    let (serve, _machine, _dir) =
        held("trap 'stty size' WINCH; echo ready; while :; do read line && echo \"[$line]\"; done", |spec| {
            spec.main.terminal = terminal;
        });
    let (head, mut connection) = serve.hijack(ALL, "", b"");
    assert!(head.contains("vnd.docker.raw-stream"), "{head}");
    start(&serve);
    connection.expect("ready\r\n");
    connection.write(b"one\r");
    connection.expect("[one]\r\n");
    // another size reaches the process
    let resized = serve.ask("POST", "/containers/web1/resize?h=40&w=120", "");
    assert_eq!(resized.status, 200, "{resized:?}");
    connection.write(b"\r");
    connection.expect("40 120\r\n");
    // the keys close the stream
    connection.write(b"two\r\x10\x11");
    let rest = connection.read_to_end();
    assert!(!rest.contains(&0x10), "{rest:?}");
    // keys of one's own
    let (_, mut connection) = serve.hijack(&format!("{ALL}&detachKeys=a,b"), "", b"");
    connection.write(b"three\r");
    connection.expect("[three]\r\n");
    connection.write(b"ab");
    connection.read_to_end();
    assert_eq!(serve.ask("POST", &format!("{ALL}&detachKeys=nothing"), "").status, 400);
    // a terminal's input has no end: who closes his half hears no more, and the process reads on
    let (_, mut connection) = serve.hijack(ALL, "", b"");
    connection.half_close();
    connection.read_to_end();
    let (_, mut connection) = serve.hijack(ALL, "", b"four\r");
    connection.expect("[four]\r\n");
}

#[test]
fn output_is_complete_over_a_serve_that_is_killed() {
    let noise = Pattern(7).bytes(0, 4_000_000);
    let (mut serve, _machine, _dir) = held("cat; exit 5", |_| ());
    let (_, mut connection) = serve.hijack(ALL, "", b"");
    start(&serve);
    let mut came = 0;
    for (n, part) in noise.chunks(1_000_000).enumerate() {
        connection.write(part);
        came += part.len();
        // what the guest has taken is not lost; what was under way to it is its sender's to send again
        let logged = || {
            let logs = serve.ask("POST", "/containers/web1/attach?stdout=1&stderr=1&logs=1", "");
            Demultiplexed::of(&logs.body).stdout.len()
        };
        rig::engine::until("all is said back", || logged() == came);
        if n % 2 == 0 {
            serve.kill();
            serve.start_again();
            serve.wait_for("web1", &["running", "up"]);
            connection = serve.hijack(ALL, "", b"").1;
        }
    }
    connection.half_close();
    connection.read_to_end();
    let logs = serve.ask("POST", "/containers/web1/attach?stdout=1&stderr=1&logs=1", "");
    assert!(Demultiplexed::of(&logs.body).stdout == noise, "{} bytes are logged", logs.body.len());
}

#[test]
fn dockers_own_client_attaches() {
    let (serve, _machine, _dir) = held("read first; echo \"[$first]\"; cat >/dev/null; exit 7", |_| ());
    // its client attaches only to what runs
    start(&serve);
    rig::engine::until("docker sees it run", || {
        serve.ask("GET", "/containers/web1/json", "").json()["State"]["Status"] == "running"
    });
    let (_, mut watcher) = serve.hijack(STREAMS, "", b"");
    let ran = serve.docker(&["attach", "web1"]).stdin("hello\n").output();
    assert_eq!((ran.code, ran.text().as_str()), (7, "[hello]\n"), "{ran:?}");
    assert_eq!(Demultiplexed::of(&watcher.read_to_end()).stdout, b"[hello]\n");
    let ran = serve.docker(&["attach", "web1"]).output();
    assert!(ran.code == 1 && ran.stderr.contains("You cannot attach to a stopped container"), "{ran:?}");
}

#[test]
fn dockers_own_client_leaves_by_keys() {
    let (serve, _machine, _dir) = held("echo ready; while :; do read line && echo \"[$line]\"; done", |spec| {
        spec.main.terminal = Some(TermSize { rows: 24, columns: 80 });
    });
    start(&serve);
    rig::engine::until("docker sees it run", || {
        serve.ask("GET", "/containers/web1/json", "").json()["State"]["Status"] == "running"
    });
    let host = serve.docker_host();
    let mut session = Session::of(24, 80, ["docker", "--host", &host, "attach", "web1"]);
    session.press_until("one\r", "[one]");
    session.type_text("\x10\x11");
    session.expect("read escape sequence");
    session.finish();
    let (_, mut connection) = serve.hijack(ALL, "", b"two\r");
    connection.expect("[two]\r\n");
}
