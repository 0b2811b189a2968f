//! A pipe beside the one in use: nothing is touched until it has proved the key.

use wire::frame;
use wire::link::{Door, Event, Side, Tuning, knock_frame};

use crate::rig::{SMALL, STDIN, STDOUT, events, guest, host, ms, opened, read, said, security, settle};

#[test]
fn a_second_pipe_takes_over_when_the_guest_has_proved_itself() {
    let (mut guest, mut host) = opened();
    events(&mut host);
    guest.write(STDOUT, b"lost with the first pipe");
    said(&mut guest, ms(0));
    let (mut side, mut reply) = (Side::default(), Vec::new());
    guest.handle_bytes(ms(1), &knock_frame());
    let hello = said(&mut guest, ms(1));
    for byte in hello {
        assert!(!host.handle_beside(&mut side, ms(1), &[byte], &mut reply));
    }
    assert!(!reply.is_empty() && said(&mut host, ms(1)).is_empty(), "nothing goes out on the live pipe");
    guest.handle_bytes(ms(2), &reply);
    let confirm_and_data = said(&mut guest, ms(2));
    reply.clear();
    assert!(host.handle_beside(&mut side, ms(2), &confirm_and_data, &mut reply));
    assert!(reply.is_empty() && host.is_open());
    assert!(matches!(events(&mut host)[..], [Event::Opened { .. }, ..]));
    assert_eq!(read(&mut host, STDOUT), b"lost with the first pipe");
    host.write(STDIN, b"hello");
    settle(&mut guest, &mut host, ms(3));
    assert_eq!(read(&mut guest, STDIN), b"hello");
}

#[test]
fn the_bytes_behind_the_proof_belong_to_the_link() {
    let (mut guest, mut host) = opened();
    let (mut side, mut reply) = (Side::default(), Vec::new());
    guest.handle_bytes(ms(1), &knock_frame());
    let hello = said(&mut guest, ms(1));
    host.handle_beside(&mut side, ms(1), &hello, &mut reply);
    guest.handle_bytes(ms(2), &reply);
    guest.write(STDOUT, &[7; 3000]);
    let bytes = said(&mut guest, ms(2));
    let (most, rest) = bytes.split_at(bytes.len() - 10);
    assert!(host.handle_beside(&mut side, ms(2), most, &mut reply));
    host.handle_bytes(ms(2), rest);
    assert_eq!((read(&mut host, STDOUT), host.noise().runs), (vec![7; 3000], 0));
}

#[test]
fn a_forged_peer_changes_nothing() {
    let (mut guest_link, mut host) = opened();
    let mut forger = guest(SMALL, security(9, true, 5));
    forger.pipe_up(ms(0));
    let hello = said(&mut forger, ms(0));
    let (mut side, mut reply) = (Side::default(), Vec::new());
    let mut sealed = Vec::new();
    frame::encode(&[0x20], &[0; 40], &mut sealed);
    let mut data = Vec::new();
    frame::encode(&[0x10, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7], &[], &mut data);
    for (number, bytes) in [hello, sealed, data, vec![0x55; 100_000], knock_frame()].iter().enumerate() {
        assert!(!host.handle_beside(&mut side, ms(30 * number as u64), bytes, &mut reply));
    }
    assert!(reply.is_empty());
    let seen = host.counters();
    assert_eq!((seen.forged, seen.misplaced), (2, 2));
    guest_link.write(STDOUT, b"as before");
    settle(&mut guest_link, &mut host, ms(200));
    assert_eq!(read(&mut host, STDOUT), b"as before");
}

#[test]
fn a_recording_of_a_whole_greeting_changes_nothing() {
    let mut first = guest(SMALL, security(1, true, 2));
    let mut live = host(SMALL, security(1, true, 3));
    first.pipe_up(ms(0));
    live.pipe_up(ms(0));
    let mut recorded = said(&mut first, ms(0));
    live.handle_bytes(ms(0), &recorded);
    let welcome = said(&mut live, ms(0));
    first.handle_bytes(ms(0), &welcome);
    let confirm = said(&mut first, ms(0));
    live.handle_bytes(ms(0), &confirm);
    recorded.extend_from_slice(&confirm);
    assert!(live.is_open());
    let (mut side, mut reply) = (Side::default(), Vec::new());
    assert!(!live.handle_beside(&mut side, ms(100), &recorded, &mut reply));
    assert!(!reply.is_empty(), "it is answered, and the answer is of no use");
    settle(&mut first, &mut live, ms(101));
    assert!(first.is_open() && live.is_open() && live.counters().forged == 1);
}

#[test]
fn a_door_tells_who_is_there_and_loses_no_byte() {
    let mut guest = guest(Tuning::FAST, security(1, true, 2));
    guest.pipe_up(ms(0));
    let mut line = b"SeaBIOS (version 1.16.2)\0\x02x\0".to_vec();
    line.extend(vec![0x55; 80_000]);
    line.extend(said(&mut guest, ms(0)));
    line.extend_from_slice(b"what follows");
    for step in [1, 7, 1000, line.len()] {
        let mut door = Door::default();
        let mut chunks = line.chunks(step);
        let named = chunks.find_map(|chunk| door.feed(chunk)).map(|hello| hello.vm);
        assert_eq!(named.as_deref(), Some("c1"));
        let mut host = host(Tuning::FAST, security(1, true, 3));
        host.pipe_up(ms(0));
        said(&mut host, ms(0));
        host.handle_bytes(ms(0), &door.into_bytes());
        assert!(!said(&mut host, ms(0)).is_empty(), "a welcome");
    }
    let mut door = Door::default();
    assert!((0..1000).all(|_| door.feed(&[0x55; 1000]).is_none()));
    assert!(door.into_bytes().len() <= 70_000, "noise takes no memory");
}
