//! Bytes that mean harm, or nothing: each is counted by its name, and the link goes on.

use std::time::Duration;

use wire::frame;
use wire::link::{Event, Link, MAX_REFUSAL, Tuning};
use wire::packet::{ChannelId, Credit, Packet, ResetReason};

use crate::dice::Dice;
use crate::rig::{SMALL, STDOUT, events, guest, host, opened, read, said, security, settle, up};

const ZERO: Duration = Duration::ZERO;

fn framed(packet: &Packet<'_>) -> Vec<u8> {
    let (mut body, mut bytes) = (Vec::new(), Vec::new());
    packet.encode(&mut body);
    frame::encode(&body, &[], &mut bytes);
    bytes
}

/// A link that is open and not sealed: whoever can write on the pipe can say what it likes.
fn plain() -> (Link, Link) {
    let (mut guest, mut host) = (guest(SMALL, security(1, false, 2)), host(SMALL, security(1, false, 3)));
    guest.open(STDOUT);
    host.open(STDOUT);
    up([&mut guest, &mut host]);
    settle(&mut guest, &mut host, ZERO);
    assert!(guest.is_open() && host.is_open());
    (guest, host)
}

#[test]
fn each_kind_of_bad_input_has_its_name() {
    let (mut guest, mut host) = plain();
    let before = host.counters();
    let mut unknown = Vec::new();
    frame::encode(&[0x7f, 1, 2], &[], &mut unknown);
    let mut malformed = Vec::new();
    frame::encode(&[0x10, 1, 2], &[], &mut malformed);
    let data = |offset, payload| framed(&Packet::Data { channel: STDOUT, offset, payload });
    host.handle_bytes(ZERO, b"noise\0");
    host.handle_bytes(ZERO, &vec![1; 100_000]);
    host.handle_bytes(ZERO, &[0]);
    host.handle_bytes(ZERO, &unknown);
    host.handle_bytes(ZERO, &malformed);
    host.handle_bytes(ZERO, &data(10, b"later"));
    host.handle_bytes(ZERO, &data(0, b""));
    host.handle_bytes(ZERO, &framed(&Packet::End { channel: ChannelId(77), offset: 0 }));
    host.handle_bytes(ZERO, &framed(&Packet::Knock));
    host.handle_bytes(ZERO, &framed(&Packet::Welcome { message: b"?" }));
    host.handle_bytes(ZERO, &framed(&Packet::Refuse("no".into())));
    host.handle_bytes(ZERO, &framed(&Packet::Confirm));
    host.handle_bytes(ZERO, &framed(&Packet::Sealed { number: 99, packet: &[0; 40] }));
    host.handle_bytes(ZERO, &framed(&Packet::Sealed { number: 0, packet: &[0; 40] }));
    let after = host.counters();
    assert_eq!((after.noise.runs - before.noise.runs, after.noise.oversized), (2, 1));
    assert_eq!((after.unknown, after.malformed), (1, 1));
    assert_eq!((after.gaps, after.repeated, after.strays), (1, 1, 1));
    assert_eq!((after.misplaced, after.forged, after.replayed), (4, 1, 1));
    guest.write(STDOUT, b"and it goes on");
    settle(&mut guest, &mut host, ZERO);
    assert_eq!(read(&mut host, STDOUT), b"and it goes on");
}

#[test]
fn a_wrong_version_is_counted_and_refused() {
    let mut host = host(SMALL, security(1, true, 3));
    host.pipe_up(ZERO);
    said(&mut host, ZERO);
    let hello = wire::packet::Hello { versions: (2, 9), vm: "c1".into(), sealed: true };
    host.handle_bytes(ZERO, &framed(&Packet::Hello { hello, message: b"noise" }));
    assert_eq!(said(&mut host, ZERO), framed(&Packet::Refuse("no common version: 2-9 there, 1 here".into())));
    assert_eq!(host.counters().wrong_version, 1);
}

#[test]
fn what_cannot_be_mended_closes_the_link_and_nothing_else() {
    let violations = [
        Packet::Data { channel: STDOUT, offset: 8190, payload: b"beyond" },
        Packet::Data { channel: STDOUT, offset: u64::MAX, payload: b"beyond" },
        Packet::Credit(Credit { channel: STDOUT, received: 1, taken: 0, limit: 9 }),
        Packet::Credit(Credit { channel: STDOUT, received: u64::MAX, taken: u64::MAX, limit: u64::MAX }),
        Packet::Rewind { channel: STDOUT, from: 5 },
    ];
    for packet in violations {
        let (_, mut host) = plain();
        host.handle_bytes(ZERO, &framed(&packet));
        assert!(host.is_closed() && host.is_flushed() && host.poll_timeout().is_none(), "{packet:?}");
        assert!(host.room(STDOUT) > 0, "nobody waits for it");
    }
}

#[test]
fn a_peer_cannot_make_us_hold_more_than_our_windows() {
    let (_, mut host) = plain();
    for number in 0..100_000_u32 {
        host.handle_bytes(ZERO, &framed(&Packet::Data { channel: ChannelId(1000 + number), offset: 0, payload: b"x" }));
    }
    // nobody takes what it has to say, as on a pipe that is full
    let waiting = said(&mut host, ZERO);
    assert!(waiting.len() < 5000, "{} bytes of resets", waiting.len());
    assert_eq!(host.counters().strays, 100_000);
    assert_eq!(host.channels().count(), 2);
}

#[test]
fn garbage_does_no_harm() {
    let mut dice = Dice::new(99);
    for _ in 0..3000 {
        let (mut guest, mut host) = if dice.once_in(2) { plain() } else { opened() };
        for _ in 0..1 + dice.roll(4) {
            // whole frames of random bodies get past the checksum
            let len = dice.up_to(40);
            let mut body = dice.bytes(len);
            if let Some(kind) = body.first_mut() {
                *kind = [1, 2, 3, 4, 5, 0x10, 0x11, 0x12, 0x13, 0x14, 0x20][dice.up_to(10)];
            }
            if body.len() > 5 && dice.once_in(2) {
                body[1..5].copy_from_slice(&[dice.up_to(3) as u8, 0, 0, 0]);
                let small = body.len().min(13);
                body[small.min(6)..small].fill(0);
            }
            let mut line = Vec::new();
            frame::encode(&body, &[], &mut line);
            host.handle_bytes(ZERO, &line);
            guest.handle_bytes(ZERO, &line);
        }
        settle(&mut guest, &mut host, ZERO);
    }
}

#[test]
fn streams_that_are_thrown_away_may_end_anywhere() {
    let (_, mut host) = plain();
    host.discard(STDOUT);
    host.handle_bytes(ZERO, &framed(&Packet::End { channel: STDOUT, offset: 1 << 40 }));
    said(&mut host, ZERO);
    assert!(host.is_ended(STDOUT) && host.is_open());
    let (_, mut host) = plain();
    host.discard(STDOUT);
    host.handle_bytes(ZERO, &framed(&Packet::End { channel: STDOUT, offset: u64::MAX }));
    assert!(host.is_closed(), "no stream is so long");
    let (mut guest, mut host) = plain();
    host.handle_bytes(ZERO, &framed(&Packet::Reset { channel: ChannelId(0), reason: ResetReason::NotRead }));
    host.send_message(b"messages cannot be refused");
    settle(&mut guest, &mut host, ZERO);
    assert_eq!(crate::rig::messages(&mut guest).len(), 1);
}

#[test]
fn a_flood_of_refusals_is_one_short_line_on_each_pipe() {
    let refusal = |words: &str| framed(&Packet::Refuse(words.into()));
    let mut guest = guest(Tuning::FAST, security(1, true, 2));
    let mut stranger = |first: &str| {
        guest.pipe_down();
        guest.pipe_up(ZERO);
        let flood = (0..100).map(|number| refusal(&format!("{first}{number}"))).collect::<Vec<_>>().concat();
        guest.handle_bytes(ZERO, &[refusal(first), flood].concat());
        (events(&mut guest), guest.counters().untold_refusals)
    };
    let told = Event::Refused("no\u{fffd}\u{fffd}[2J\u{fffd}".into());
    assert_eq!(stranger("no\n\x1b[2J\u{9b}"), (vec![told], 100));
    let long = "é".repeat(60_000 / 2);
    assert_eq!(stranger(&long), (vec![Event::Refused("é".repeat(MAX_REFUSAL))], 200));
    assert_eq!(stranger(&long), (vec![], 301), "the same again on another pipe");
    // and none of it stands in the way of a host
    let mut host = host(Tuning::FAST, security(1, true, 3));
    guest.pipe_down();
    up([&mut guest, &mut host]);
    settle(&mut guest, &mut host, ZERO);
    assert!(guest.is_open() && host.is_open());
}
