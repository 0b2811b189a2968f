//! A VM whose serial port reaches serve through VMware's telnet: it is used as any other, and moves between hosts without anybody noticing.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::thread;

use rig::host::PATIENCE;
use rig::images::busybox_disk;
use rig::machine::{Powered, script};
use rig::serve::Serve;
use rig::stream::Pattern;
use rig::vspc::Esxi;
use wire::spec::LinkDevice;

const LINES: usize = 60_000;
/// What garbage comes to.
const MUCH: usize = 300_000;

/// Hosts, and on them a machine whose main process does nothing.
fn on_esxi(disk: PathBuf) -> (Serve, Esxi, Powered) {
    let serve = Serve::start_with(&["--link-listen", "vspc://127.0.0.1:0"]);
    let esxi = Esxi::new(serve.address("vspc://"), "web 1");
    let mut spec = script(LinkDevice::Serial, "exec sleep 100000");
    let mut machine = serve.machine("web1", &mut spec, disk);
    machine.link_connects = Some(esxi.port());
    let machine = machine.power_on();
    serve.wait_for("web1", &["running", "up"]);
    (serve, esxi, machine)
}

fn works(serve: &Serve) {
    let ran = serve.command("exec", &["web1", "sh", "-c", "echo here; exit 3"]).output();
    assert_eq!((ran.code, ran.text().as_str()), (3, "here\n"), "{}", ran.stderr);
}

#[test]
fn a_vm_moves_in_the_middle_of_its_output_and_nothing_is_cut() {
    let (_dir, disk) = busybox_disk();
    let (serve, esxi, _machine) = on_esxi(disk);
    works(&serve);
    let mut client = serve.client("exec", &["web1", "seq", "1", &LINES.to_string()]);
    client.wait_for_output();
    let reader = thread::spawn(move || (client.read_to_end(), client.finish()));
    esxi.vmotion();
    esxi.vmotion_that_fails();
    esxi.vmotion();
    assert!(!reader.is_finished(), "the moves were not in the middle");
    let (came, end) = reader.join().unwrap();
    assert_eq!(end, (0, String::new()));
    let expected: String = (1..=LINES).map(|n| format!("{n}\n")).collect();
    assert!(came == expected.as_bytes(), "{} bytes came, not {}", came.len(), expected.len());
    works(&serve);
    let log = serve.log();
    assert!(
        log.contains("web1: it says that vSphere knows it as \"web 1\", 50115e16-9bdc-49d7-f171-53c4d7f91710"),
        "{log}"
    );
    // no byte was asked for again, since the pipe was the same all the time
    assert!(!log.contains("its link is cut") && log.matches("its link is open").count() == 1, "{log}");
}

#[test]
fn garbage_disturbs_nobody() {
    let (_dir, disk) = busybox_disk();
    let (serve, esxi, _machine) = on_esxi(disk);
    let at = serve.address("vspc://");
    let mut strangers = Vec::new();
    for (n, start) in [&b""[..], b"\xff\xfa\xe8\x2c", b"\xff\xfa\xe8\x2cmove\xff\xff10123456789abcdef\xff\xf0"]
        .into_iter()
        .enumerate()
    {
        let mut stranger = TcpStream::connect(at).unwrap();
        stranger.write_all(start).unwrap();
        // it may be closed in the middle
        stranger.write_all(&Pattern(n as u64).bytes(0, MUCH)).ok();
        strangers.push(stranger);
    }
    works(&serve);
    esxi.vmotion();
    works(&serve);
    // nobody stays who does not say whose he is
    for mut stranger in strangers {
        stranger.set_read_timeout(Some(PATIENCE)).unwrap();
        // what is closed with bytes unread ends with an error
        let kind = stranger.read_to_end(&mut Vec::new()).err().map(|error| error.kind());
        assert!(kind != Some(ErrorKind::WouldBlock), "{}", serve.log());
    }
}
