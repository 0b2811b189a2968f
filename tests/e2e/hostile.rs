//! Whoever is on the line without the key, or talks nonsense: he gets nothing, changes nothing, and is survived.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rig::host::{Host, sh};
use rig::images::busybox_disk;
use rig::line::Tap;
use rig::machine::{Machine, Powered, script};
use rig::stream::Pattern;
use wire::frame;
use wire::handshake::LinkKey;
use wire::link::CONTROL;
use wire::message::{Exec, MAIN, Reply, Request, Work};
use wire::packet::{ChannelId, Credit, Hello, Packet, ResetReason};
use wire::spec::{LinkDevice, Spec};
use wire::status::Ending;

/// How long nonsense is talked at a time: a minute in all.
const SPEECH: Duration = Duration::from_secs(15);

fn boot(device: LinkDevice) -> (tempfile::TempDir, Powered, Spec) {
    let (dir, disk) = busybox_disk();
    let spec = script(device, "exec sleep 100000");
    (dir, Machine::new(&spec, Some(disk)).power_on(), spec)
}

fn resident(host: &mut Host) -> u64 {
    host.shell("awk '/VmRSS/ { print $2 }' /proc/1/status").trim().parse().unwrap()
}

/// What a host without manners says, at full speed, while whatever comes is read and dropped: how many bytes went.
fn talk(mut socket: &UnixStream, time: Duration, mut nonsense: impl FnMut(u64) -> Vec<u8>) -> u64 {
    socket.set_nonblocking(true).unwrap();
    let (until, mut said, mut pending, mut n) = (Instant::now() + time, 0, Vec::new(), 0);
    let mut buffer = [0; 1 << 16];
    while Instant::now() < until {
        if pending.is_empty() {
            pending = nonsense(n);
            n += 1;
        }
        let mut idle = true;
        match socket.write(&pending) {
            Ok(count) => {
                pending.drain(..count);
                said += count as u64;
                idle = false;
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "the machine is gone"),
        }
        match socket.read(&mut buffer) {
            Ok(count) => assert!(count > 0, "the machine is gone"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "the machine is gone"),
        }
        if idle {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    said
}

/// Noise of several kinds, by turns: no frames, frames of no packets, one frame without end, many empty ones.
fn nonsense(n: u64) -> Vec<u8> {
    let random = Pattern(n).bytes(0, 20_000);
    match n % 4 {
        0 => random,
        1 => random.chunks(97).fold(Vec::new(), |mut out, body| {
            frame::encode(body, &[], &mut out);
            out
        }),
        2 => random.iter().map(|byte| byte | 1).chain(vec![b'x'; 200_000]).collect(),
        _ => vec![0; 5000],
    }
}

#[test]
fn a_host_that_talks_nonsense_is_survived() {
    for device in [LinkDevice::Virtio, LinkDevice::Serial] {
        let (_dir, powered, spec) = boot(device);
        powered.wait_for_hello();
        let said = talk(&powered.socket, SPEECH, nonsense);
        println!("{device:?}: {said} bytes of nonsense before the first word");
        assert!(said > 100_000, "{said} bytes");
        let mut powered = powered;
        powered.disconnect();
        powered.connect();
        let mut host = Host::on(powered, &spec);
        assert_eq!(host.shell("echo hello"), "hello\n");
        let before = resident(&mut host);
        // and again, in the middle of a link
        host.cut();
        host.machine.connect();
        talk(&host.machine.socket, SPEECH, nonsense);
        host.machine.disconnect();
        host.connect();
        assert_eq!(host.shell("echo hello again"), "hello again\n");
        let after = resident(&mut host);
        assert!(after <= before + 256, "{device:?}: nonsense took it from {before} to {after} KiB");
    }
}

/// One of each packet, made without the key.
fn forgeries() -> Vec<u8> {
    let hello = || Hello { versions: (1, 1), vm: "rig".into(), sealed: true };
    let junk = Pattern(9).bytes(0, 96);
    let mut packets = vec![
        Packet::Hello { hello: hello(), message: &junk },
        Packet::Hello { hello: Hello { versions: (7, 9), ..hello() }, message: &junk },
        Packet::Hello { hello: Hello { sealed: false, ..hello() }, message: &junk },
        Packet::Welcome { message: &junk },
        Packet::Refuse("go away".into()),
        Packet::Confirm,
        Packet::Knock,
        Packet::Sealed { number: 0, packet: &junk },
        Packet::Sealed { number: u64::MAX, packet: &junk },
    ];
    for channel in (0..7).chain([u32::MAX]).map(ChannelId) {
        packets.extend([
            Packet::Data { channel, offset: 0, payload: b"forged" },
            Packet::Data { channel, offset: u64::MAX, payload: b"forged" },
            Packet::End { channel, offset: 0 },
            Packet::Credit(Credit { channel, received: u64::MAX, taken: u64::MAX, limit: u64::MAX }),
            Packet::Rewind { channel, from: 0 },
            Packet::Reset { channel, reason: ResetReason::Violation },
        ]);
    }
    let mut bytes = Vec::new();
    for packet in packets {
        let mut body = Vec::new();
        packet.encode(&mut body);
        frame::encode(&body, &[], &mut bytes);
        // and the same with its end missing
        frame::encode(&body[..body.len() - 1], &[], &mut bytes);
    }
    bytes
}

#[test]
fn a_peer_without_the_key_does_not_disturb_a_live_session() {
    const LENGTH: u64 = 400_000;
    let (_dir, powered, spec) = boot(LinkDevice::Serial);
    let mut host = Host::on(powered, &spec);
    host.tap = Some(Tap::default());
    let session = host.exec(Exec { stdin: true, ..sh("cat; exit 3") });
    host.echo(session, Pattern(5), LENGTH);
    for n in 1..10 {
        host.wait("the next part", |host| (host.stdout(session).count >= LENGTH * n / 10).then_some(()));
        host.say(&forgeries());
        // what we said ourselves, and what the guest said, again
        let Tap { sent, received } = host.tap.replace(Tap::default()).expect("listening");
        let last = |bytes: &[u8]| bytes[bytes.len().saturating_sub(10_000)..].to_vec();
        for mut recording in [last(&sent), last(&received)] {
            recording.push(frame::DELIMITER);
            host.say(&recording);
        }
    }
    assert_eq!(host.exit(session).ending, Ending::Exited { code: 3 });
    assert_eq!(host.stdout(session).count, LENGTH);
    host.forget(session);
    assert_eq!(host.shell("echo well"), "well\n");
}

#[test]
fn a_host_with_another_key_or_name_gets_nothing() {
    let (_dir, mut powered, spec) = boot(LinkDevice::Virtio);
    // one who sends the guest away, as anyone may
    let mut refusal = Vec::new();
    let mut body = Vec::new();
    Packet::Refuse("nobody\x1b wants you".into()).encode(&mut body);
    frame::encode(&body, &[], &mut refusal);
    powered.socket.write_all(&refusal).unwrap();
    powered.wait_for_console("a host refuses the link: nobody\u{fffd} wants you");
    powered.disconnect();
    powered.connect();
    let mut stranger = spec.clone();
    stranger.link.key = LinkKey::new([1; 32]);
    let mut other = spec.clone();
    other.id = "other".into();
    let mut sealed = spec.clone();
    sealed.link.sealed = !spec.link.sealed;
    for wrong in [stranger, other, sealed] {
        let mut host = Host::on(powered, &wrong);
        host.serve_for(Duration::from_secs(2));
        assert!(!host.link.is_open() && host.told.is_empty());
        powered = host.into_machine();
        powered.disconnect();
        powered.connect();
    }
    let mut host = Host::on(powered, &spec);
    assert_eq!(host.shell("echo hello"), "hello\n");
}

#[test]
fn a_host_with_the_key_that_talks_nonsense_is_answered_or_left() {
    let (_dir, disk) = busybox_disk();
    let mut spec = script(LinkDevice::Virtio, "read -r x; echo began; sleep 1; echo late; exit 3");
    spec.main.stdin = true;
    let mut host = Host::boot(Machine::new(&spec, Some(disk)), &spec);
    host.request(Request::List);
    // a request, and an event, that nobody knows
    host.link.send_message(&[0, 77, 200, 1, 2, 3]);
    assert_eq!(host.answer(77), Reply::Unsupported);
    host.link.send_message(&[2, 200, 1]);
    // what is no message
    for nonsense in [&[][..], &[9], &[0], &[0xfb, 1], &[0, 78, 3, 0xff, 0xff, 0xff, 0xff]] {
        host.link.send_message(nonsense);
    }
    assert_eq!(host.shell("echo well"), "well\n");
    // strings without end, paths of the devil
    for path in ["", "relative", "/../../../etc", "/\0", &"x/".repeat(5000)] {
        let reply = host.request(Request::Inspect { path: path.into() });
        assert!(matches!(reply, Reply::Refused { .. } | Reply::Path(_)), "{path:?}: {reply:?}");
        let (_, id) = host.begin(Work::Exec(Exec { dir: path.into(), ..sh("true") }));
        host.answer(id);
        let (_, id) = host.begin(Work::Exec(Exec { argv: vec![path.into()], ..sh("") }));
        host.answer(id);
    }
    assert_eq!(host.shell("echo well"), "well\n");
    // a record longer than any: the link is over, and the container is not held up by it
    host.stdin(MAIN).add(b"go\n");
    host.expect(MAIN, "began\n");
    host.link.write(CONTROL, &[0xff; 4]);
    host.machine_ends_without_us();
    assert!(host.machine.console().contains("the link is over"), "{}", host.machine.console());
}
