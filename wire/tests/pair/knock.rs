//! A line that shows the guest no cut: a host that comes anew asks for a hello.

use std::time::Duration;

use wire::link::{HELLO_INTERVAL, KNOCK_INTERVAL, OFFER_LIFE, knock_frame};

use wire::packet::ChannelId;

use crate::rig::{SMALL, STDIN, STDOUT, guest, host, messages, ms, opened, read, said, security, settle};

#[test]
fn a_host_that_was_killed_is_back_within_one_round_trip() {
    let (mut guest, mut host_link) = opened();
    guest.write(STDOUT, b"dealt with, ");
    settle(&mut guest, &mut host_link, ms(0));
    read(&mut host_link, STDOUT);
    host_link.write(STDIN, b"typed");
    guest.write(STDOUT, b"received, ");
    settle(&mut guest, &mut host_link, ms(0));
    drop(host_link);
    guest.write(STDOUT, b"written");
    said(&mut guest, ms(5)); // to nobody
    let mut next = host(SMALL, security(1, true, 4));
    next.pipe_up(ms(10));
    settle(&mut guest, &mut next, ms(10));
    assert!(next.is_open());
    assert_eq!(next.channels().map(|id| id.0).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!((next.consumed(STDOUT), next.readable(STDOUT)), (12, &b"received, written"[..]));
    assert_eq!((next.delivered(STDIN), next.written(STDIN)), (5, 5));
    next.write(STDIN, b" and more");
    settle(&mut guest, &mut next, ms(10));
    assert_eq!(guest.readable(STDIN), b"typed and more");
}

#[test]
fn a_host_knocks_until_it_hears_a_hello() {
    let mut host = host(SMALL, security(1, true, 3));
    host.pipe_up(ms(0));
    assert_eq!(said(&mut host, ms(0)), knock_frame());
    assert_eq!(host.poll_timeout(), Some(HELLO_INTERVAL));
    assert!(said(&mut host, HELLO_INTERVAL - ms(1)).is_empty());
    assert_eq!(said(&mut host, HELLO_INTERVAL), &knock_frame()[1..]);
    let mut guest = guest(SMALL, security(1, true, 2));
    guest.pipe_up(ms(110));
    let hello = said(&mut guest, ms(110));
    host.handle_bytes(ms(110), &hello);
    said(&mut host, ms(110)); // the welcome, which the line loses
    assert!(said(&mut host, ms(300)).is_empty());
    assert_eq!(said(&mut host, ms(110) + KNOCK_INTERVAL), &knock_frame()[1..], "nothing came of it");
}

#[test]
fn a_guest_that_greets_needs_no_knock() {
    let mut guest = guest(SMALL, security(1, true, 2));
    guest.pipe_up(ms(0));
    let hello = said(&mut guest, ms(0));
    guest.handle_bytes(ms(1), &knock_frame());
    assert!(said(&mut guest, ms(1)).is_empty() && !hello.is_empty());
    assert_eq!(guest.counters().idle_knocks, 1);
}

#[test]
fn forged_knocks_cost_a_few_hellos_and_end() {
    let (mut guest, mut host) = opened();
    let before = guest.counters().idle_knocks;
    let mut hellos = 0;
    for at in 0..900 {
        guest.handle_bytes(ms(at), &knock_frame());
        hellos += usize::from(!said(&mut guest, ms(at)).is_empty());
    }
    assert!((2..6).contains(&hellos), "{hellos} hellos in a second");
    assert_eq!(guest.counters().idle_knocks - before, 899);
    // the live session never felt it, and whoever lives in it ends the offer
    host.write(STDIN, b"alive");
    settle(&mut guest, &mut host, ms(901));
    assert_eq!(read(&mut guest, STDIN), b"alive");
    settle(&mut guest, &mut host, ms(902));
    assert_eq!(guest.poll_timeout(), None);
    // when nobody lives there, it is given up
    guest.handle_bytes(ms(5000), &knock_frame());
    let mut now = ms(5000);
    while let Some(at) = guest.poll_timeout() {
        assert!(at >= now && at <= ms(5000) + OFFER_LIFE);
        now = at;
        guest.handle_timeout(now);
        said(&mut guest, now);
    }
    assert!(guest.is_open());
}

#[test]
fn a_welcome_without_the_key_does_not_touch_the_live_session() {
    let (mut guest, mut host_link) = opened();
    let mut stranger = host(SMALL, security(9, true, 4));
    stranger.pipe_up(ms(0));
    let knock = said(&mut stranger, ms(0));
    guest.handle_bytes(ms(0), &knock);
    let hello = said(&mut guest, ms(0));
    stranger.handle_bytes(ms(0), &hello);
    assert!(said(&mut stranger, ms(0)).is_empty());
    // another session's welcome
    let mut forged = Vec::new();
    wire::frame::encode(&[2], &[7; 80], &mut forged);
    guest.handle_bytes(ms(1), &forged);
    assert_eq!(guest.counters().forged, 1);
    guest.write(STDOUT, b"still here");
    settle(&mut guest, &mut host_link, ms(2));
    assert_eq!(read(&mut host_link, STDOUT), b"still here");
}

#[test]
fn half_a_message_of_a_dead_host_is_dropped() {
    let (mut guest, mut host_link) = opened();
    host_link.send_message(b"whole");
    host_link.send_message(&[1; 3000]);
    let mut out = Vec::new();
    host_link.poll_transmit(ms(0), &mut out); // a payload of 1024: one message, and a piece of the other
    guest.handle_bytes(ms(0), &out);
    assert_eq!(messages(&mut guest), [b"whole"]);
    let mut next = host(SMALL, security(1, true, 4));
    next.send_message(b"from the next host");
    next.pipe_up(ms(1));
    settle(&mut guest, &mut next, ms(1));
    assert_eq!(messages(&mut guest), [b"from the next host"]);
}

#[test]
fn a_channel_that_is_opened_behind_a_hello_is_in_the_next() {
    let (mut guest, host_link) = opened();
    drop(host_link);
    let mut next = host(SMALL, security(1, true, 4));
    next.pipe_up(ms(0));
    let knock = said(&mut next, ms(0));
    guest.handle_bytes(ms(0), &knock);
    let hello = said(&mut guest, ms(0));
    // what the host before asked for last is done now
    let late = ChannelId(8);
    guest.open(late);
    guest.write(late, b"not lost");
    next.handle_bytes(ms(0), &hello);
    let welcome = said(&mut next, ms(0));
    guest.handle_bytes(ms(0), &welcome);
    assert!(!next.is_open(), "the guest does not take a welcome to what it said before");
    settle(&mut guest, &mut next, ms(30));
    assert!(next.is_open());
    assert_eq!(read(&mut next, late), b"not lost");
}

#[test]
fn a_host_that_lives_sends_its_half_message_again() {
    let (mut guest, mut host) = opened();
    host.send_message(b"whole");
    host.send_message(&[1; 3000]);
    let mut out = Vec::new();
    host.poll_transmit(ms(0), &mut out);
    guest.handle_bytes(ms(0), &out);
    host.pipe_down();
    host.pipe_up(ms(1));
    settle(&mut guest, &mut host, ms(1));
    assert_eq!(messages(&mut guest), [b"whole".to_vec(), vec![1; 3000]]);
    settle(&mut guest, &mut host, Duration::from_millis(2));
    assert!(host.is_flushed());
}

#[test]
fn what_a_guest_takes_while_it_is_answered_makes_room_for_the_next_host() {
    let (mut guest, mut host_link) = opened();
    host_link.write(STDIN, &[1; 8192]);
    settle(&mut guest, &mut host_link, ms(0));
    drop(host_link);
    let mut next = host(SMALL, security(1, true, 4));
    next.pipe_up(ms(10));
    guest.handle_bytes(ms(10), &said(&mut next, ms(10)));
    let hello = said(&mut guest, ms(10));
    // the hello says that there is no room; what the process takes now is told to the host that is no more
    read(&mut guest, STDIN);
    let credit = said(&mut guest, ms(11));
    assert!(!credit.is_empty());
    next.handle_bytes(ms(12), &[hello, credit].concat());
    settle(&mut guest, &mut next, ms(12));
    assert!(next.is_open() && guest.is_open());
    next.write(STDIN, b"more");
    settle(&mut guest, &mut next, ms(12));
    assert_eq!(guest.readable(STDIN), b"more");
}
