//! Who gets in, and who does not.

use std::time::Duration;

use wire::link::{Closed, Event, Link, Role, Tuning};

use crate::rig::{SMALL, STDIN, STDOUT, events, guest, host, opened, read, said, security, settle, up};

const ZERO: Duration = Duration::ZERO;

#[test]
fn a_stranger_is_told_so_and_nothing_happens() {
    let mut host = host(Tuning::FAST, security(1, true, 3));
    let role = Role::Guest { vm: "c2".into(), boot: [1; 16] };
    let mut guest = Link::new(role, Tuning::FAST, security(1, true, 2));
    up([&mut guest, &mut host]);
    settle(&mut guest, &mut host, ZERO);
    assert_eq!(guest.poll_event(), Some(Event::Refused("this is the link of c1, not of c2".into())));
    assert!(!host.is_open() && !guest.is_open() && !guest.is_closed());
    assert_eq!(host.counters().wrong_vm, 1);
}

#[test]
fn without_the_key_nobody_hears_a_byte() {
    let mut host = host(Tuning::FAST, security(9, true, 3));
    let mut guest = guest(Tuning::FAST, security(1, true, 2));
    up([&mut guest, &mut host]);
    said(&mut host, ZERO); // the delimiter and the knock that every pipe begins with
    let hello = said(&mut guest, ZERO);
    host.handle_bytes(ZERO, &hello);
    assert!(said(&mut host, ZERO).is_empty());
    assert_eq!((host.counters().forged, host.is_open(), guest.is_open()), (1, false, false));
}

#[test]
fn a_downgrade_is_refused() {
    let mut host = host(Tuning::FAST, security(1, true, 3));
    let mut guest = guest(Tuning::FAST, security(1, false, 2));
    up([&mut guest, &mut host]);
    settle(&mut guest, &mut host, ZERO);
    assert_eq!(guest.poll_event(), Some(Event::Refused("packets must be sealed here".into())));
    assert!(!host.is_open());
    assert_eq!(host.counters().wrong_sealing, 1);
}

#[test]
fn a_recorded_hello_does_not_touch_a_live_session() {
    let mut guest = guest(SMALL, security(1, true, 2));
    let mut host = host(SMALL, security(1, true, 3));
    guest.open(STDOUT);
    host.open(STDOUT);
    up([&mut guest, &mut host]);
    let recorded = said(&mut guest, ZERO);
    host.handle_bytes(ZERO, &recorded);
    settle(&mut guest, &mut host, ZERO);
    assert!(host.is_open() && guest.is_open());
    for round in 1..20_u32 {
        // later, because hellos are rate-limited
        let now = Duration::from_secs(round.into());
        guest.write(STDOUT, &[round as u8]);
        host.handle_bytes(now, &recorded);
        let reply = said(&mut host, now);
        guest.handle_bytes(now, &reply);
        settle(&mut guest, &mut host, now);
        assert_eq!(read(&mut host, STDOUT), [round as u8]);
    }
}

#[test]
fn what_comes_back_to_its_sender_is_nothing() {
    let (mut guest, mut host) = opened();
    guest.write(STDOUT, b"secret words");
    let sent = said(&mut guest, ZERO);
    assert!(!sent.windows(6).any(|window| window == b"secret"), "sealed");
    guest.handle_bytes(ZERO, &sent);
    assert!(guest.readable(STDOUT).is_empty() && guest.counters().forged > 0);
    host.handle_bytes(ZERO, &sent);
    host.handle_bytes(ZERO, &sent);
    assert_eq!(host.readable(STDOUT), b"secret words", "once");
    assert_eq!(host.counters().replayed, 1);
    assert!(host.is_open() && guest.is_open());
}

#[test]
fn hellos_without_the_key_are_not_checked_without_end() {
    let mut host = host(Tuning::FAST, security(1, true, 3));
    host.pipe_up(ZERO);
    let flood: Vec<u8> = (0..50)
        .flat_map(|seed| {
            let mut stranger = guest(Tuning::FAST, security(8, true, seed));
            stranger.pipe_up(ZERO);
            said(&mut stranger, ZERO)
        })
        .collect();
    host.handle_bytes(ZERO, &flood);
    assert_eq!((host.counters().forged, host.counters().hurried), (1, 49));
    let mut friend = guest(Tuning::FAST, security(1, true, 2));
    friend.pipe_up(ZERO);
    settle(&mut friend, &mut host, Duration::from_millis(20));
    assert!(friend.is_open() && host.is_open());
}

#[test]
fn a_guest_that_restarts_starts_over_with_a_new_link() {
    let (mut first, mut host_link) = opened();
    first.write(STDOUT, b"half a lin");
    settle(&mut first, &mut host_link, ZERO);
    events(&mut host_link);
    let role = Role::Guest { vm: "c1".into(), boot: [8; 16] };
    let mut second = Link::new(role, SMALL, security(1, true, 9));
    second.open(STDOUT);
    second.pipe_up(ZERO);
    // the host's pipe shows nothing: the hello comes in the midst of the old session
    let now = Duration::from_secs(1);
    settle(&mut second, &mut host_link, now);
    assert_eq!(events(&mut host_link), [Event::Closed(Closed::Restarted)]);
    assert_eq!(host_link.readable(STDOUT), b"half a lin", "what had come can be read");
    assert!(host_link.is_flushed());
    // a new link begins at nothing
    let mut fresh = host(SMALL, security(1, true, 4));
    fresh.open(STDIN);
    fresh.pipe_up(now);
    second.write(STDOUT, b"new");
    settle(&mut second, &mut fresh, now);
    assert_eq!((fresh.consumed(STDOUT), fresh.readable(STDOUT)), (0, &b"new"[..]));
}

#[test]
fn a_host_that_another_has_replaced_gives_up_and_the_guest_does_not() {
    let (mut guest, mut first) = opened();
    guest.write(STDOUT, b"one");
    settle(&mut guest, &mut first, ZERO);
    read(&mut first, STDOUT);
    settle(&mut guest, &mut first, ZERO);
    let mut second = host(SMALL, security(1, true, 4));
    guest.pipe_down();
    up([&mut guest, &mut second]);
    guest.write(STDOUT, b"two");
    settle(&mut guest, &mut second, ZERO);
    assert_eq!(read(&mut second, STDOUT), b"two");
    settle(&mut guest, &mut second, ZERO);
    events(&mut first);
    first.pipe_down();
    guest.pipe_down();
    up([&mut guest, &mut first]);
    settle(&mut guest, &mut first, ZERO);
    assert_eq!(events(&mut first), [Event::Closed(Closed::TakenOver)], "it has missed \"two\"");
    guest.pipe_down();
    second.pipe_down();
    up([&mut guest, &mut second]);
    settle(&mut guest, &mut second, ZERO);
    assert!(guest.is_open() && second.is_open());
}
