//! A host that dies, is cut off, or does not read: no byte is lost or repeated, and nobody else waits.

use std::time::{Duration, Instant};

use rig::host::{Host, sh};
use rig::images::busybox_disk;
use rig::machine::{Machine, script};
use rig::stream::{Appetite, Pattern};
use wire::message::{Exec, MAIN};
use wire::spec::LinkDevice;
use wire::status::Ending;

/// Ways for a host to go away and come back.
#[derive(Clone, Copy, Debug)]
enum Loss {
    /// The connection is cut; the host lives.
    Cut,
    /// `kill -9` of the host, which closes the connection, and a new host at once.
    Killed,
    /// The same, and the new host takes its time.
    Away,
    /// A new host on a connection that was never cut.
    Replaced,
}

/// Echoes `length` bytes through a session while the host is lost again and again.
fn echo_through_losses(device: LinkDevice, sealed: bool, length: u64, losses: &[Loss]) {
    let (_dir, disk) = busybox_disk();
    let mut spec = script(device, "exec sleep 100000");
    spec.link.sealed = sealed;
    let mut host = Host::boot(Machine::new(&spec, Some(disk)), &spec);
    let session = host.exec(Exec { stdin: true, ..sh("cat; echo done >&2; exit 3") });
    host.echo(session, Pattern(7), length);
    let began = Instant::now();
    for (n, loss) in losses.iter().enumerate() {
        let enough = length * (n as u64 + 1) / (losses.len() as u64 + 1);
        host.wait("the next part", |host| (host.stdout(session).count >= enough).then_some(()));
        match loss {
            Loss::Cut => host.cut(),
            Loss::Killed => host.kill(),
            Loss::Away => {
                host.kill();
                host.serve_for(Duration::from_secs(1));
            }
            Loss::Replaced => {}
        }
        let again = Instant::now();
        match loss {
            Loss::Cut | Loss::Killed | Loss::Away => host.connect(),
            Loss::Replaced => host.replace(),
        }
        (host.heard, host.heard_new) = (None, None);
        let first_new = host.wait("output after a loss", |host| host.heard_new);
        let after = |moment: Instant| moment.duration_since(again).as_millis();
        println!(
            "{device:?}: {loss:?} at {enough} bytes: output again after {} ms, new output after {} ms",
            after(host.heard.expect("before what is new")),
            after(first_new)
        );
    }
    assert_eq!(host.exit(session).ending, Ending::Exited { code: 3 });
    assert_eq!((host.stdout(session).count, host.stderr(session).text().as_str()), (length, "done\n"));
    let rate = length as f64 / 1e6 / began.elapsed().as_secs_f64();
    println!("{device:?}: {length} bytes each way, {rate:.2} MB/s");
    host.forget(session);
    assert_eq!(host.shell("echo well"), "well\n");
}

use Loss::{Away, Cut, Killed, Replaced};

#[test]
fn a_killed_host_comes_back_over_virtio_and_every_byte_is_there() {
    echo_through_losses(LinkDevice::Virtio, false, 200_000_000, &[Away, Killed, Cut, Away, Replaced, Killed]);
}

#[test]
fn a_killed_host_comes_back_over_sealed_virtio() {
    echo_through_losses(LinkDevice::Virtio, true, 4_000_000, &[Away, Cut, Replaced]);
}

#[test]
fn a_killed_host_comes_back_over_serial_and_every_byte_is_there() {
    // an emulated port takes an exit of the machine for each byte: 50 kB/s where nothing else runs, and 10 on a busy computer
    echo_through_losses(LinkDevice::Serial, true, 1_000_000, &[Away, Replaced, Cut, Away, Killed]);
}

#[test]
fn a_killed_host_comes_back_over_vsock_and_every_byte_is_there() {
    echo_through_losses(LinkDevice::Vsock, false, 200_000_000, &[Away, Killed, Cut, Replaced]);
}

#[test]
fn the_main_process_never_notices_that_its_host_is_away() {
    let (_dir, disk) = busybox_disk();
    let spec = script(LinkDevice::Virtio, "seq 1 300000; echo end >&2; exit 6");
    let mut host = Host::boot(Machine::new(&spec, Some(disk)), &spec);
    host.wait("the first output", |host| (host.stdout(MAIN).count > 0).then_some(()));
    host.kill();
    host.serve_for(Duration::from_millis(500));
    host.connect();
    assert_eq!(host.exit(MAIN).ending, Ending::Exited { code: 6 });
    let expected: String = (1..=300_000).map(|n| format!("{n}\n")).collect();
    assert!(host.stdout(MAIN).text() == expected, "{} bytes of {}", host.stdout(MAIN).count, expected.len());
    assert_eq!(host.stderr(MAIN).text(), "end\n");
}

#[test]
fn a_new_host_learns_what_happened_while_nobody_was_there() {
    let (_dir, disk) = busybox_disk();
    let spec = script(LinkDevice::Virtio, "exec sleep 100000");
    let mut host = Host::boot(Machine::new(&spec, Some(disk)), &spec);
    let session = host.exec(Exec { stdin: true, ..sh("echo up; read -r x; echo $x; exit 4") });
    host.expect(session, "up\n");
    host.stdin(session).add(b"go\n");
    // the last thing that the old host does is to say `go`, or not even that
    host.step(Duration::ZERO);
    host.kill();
    host.serve_for(Duration::from_secs(1));
    host.connect();
    assert_eq!(host.exit(session).ending, Ending::Exited { code: 4 });
    assert_eq!(host.stdout(session).text(), "up\ngo\n");
    host.forget(session);
    assert_eq!(host.shell("echo well"), "well\n");
}

#[test]
fn who_does_not_read_holds_up_only_himself() {
    for (device, seconds) in [(LinkDevice::Virtio, 60), (LinkDevice::Serial, 5)] {
        let (_dir, disk) = busybox_disk();
        let spec = script(device, "exec sleep 100000");
        let mut host = Host::boot(Machine::new(&spec, Some(disk)), &spec);
        let length = if device == LinkDevice::Serial { 1_000_000 } else { 20_000_000 };
        let stuck = host.exec(Exec { stdin: true, ..sh("cat") });
        host.stdout(stuck).appetite = Appetite::Nothing;
        host.echo(stuck, Pattern(3), length);
        // until nothing has moved for so long
        let patience = Duration::from_secs(seconds);
        let (mut before, mut since) = (0, Instant::now());
        host.wait("a standstill", |host| {
            let now = host.stdin(stuck).at + host.link.readable(stuck.streams().stdout).len() as u64;
            if now != before {
                (before, since) = (now, Instant::now());
            }
            (since.elapsed() > patience).then_some(())
        });
        assert!(host.stdin(stuck).at < length, "all of it went");
        let resident: u64 = host.shell("awk '/VmRSS/ { print $2 }' /proc/1/status").trim().parse().unwrap();
        println!("{device:?}: {resident} KiB while a session is stuck");
        // 4 MiB and the windows: three of at most 1 MiB for the stuck session's streams
        assert!(resident <= 7 << 10, "tether takes {resident} KiB");
        // others go on, in bulk too
        let other = host.exec(Exec { stdin: true, ..sh("cat") });
        host.echo(other, Pattern(4), length / 10);
        host.exit(other);
        assert_eq!(host.stdout(other).count, length / 10);
        host.forget(other);
        // a slow reader is a reader
        host.stdout(stuck).appetite = Appetite::Sips(1000);
        host.serve_for(Duration::from_millis(200));
        host.stdout(stuck).appetite = Appetite::All;
        assert_eq!(host.exit(stuck).ending, Ending::Exited { code: 0 });
        assert_eq!(host.stdout(stuck).count, length);
    }
}

#[test]
fn an_idle_machine_sleeps() {
    let (_dir, disk) = busybox_disk();
    // both readings are told at the end: telling is work for PID 1
    let script_text = "read -r x; wakes() { awk '/ctxt_switches/ { print $2 }' /proc/1/status; }
        sleep 1; a=$(wakes); sleep 5; b=$(wakes); echo $a $b";
    let mut spec = script(LinkDevice::Virtio, script_text);
    spec.main.stdin = true;
    let mut host = Host::boot(Machine::new(&spec, Some(disk)), &spec);
    // sessions have come and gone, and a host that is there says nothing
    let session = host.exec(sh("echo hi"));
    host.finish(session);
    host.stdin(MAIN).add(b"\n");
    host.exit(MAIN);
    let text = host.stdout(MAIN).text();
    let wakes: Vec<u64> = text.split_whitespace().map(|word| word.parse().unwrap()).collect();
    let [voluntary, forced, voluntary_later, forced_later] = wakes[..] else { panic!("{text:?}") };
    println!("PID 1 ran {} times in 5 s of nothing", voluntary_later - voluntary);
    assert_eq!((voluntary, forced), (voluntary_later, forced_later), "it wakes while nothing happens");
}
