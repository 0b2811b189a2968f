//! A host that knows nothing takes over what the guest has.

use std::time::Duration;

use wire::link::{Event, Link};
use wire::packet::{ChannelId, MAX_CHANNELS, ResetReason};

use crate::rig::{SMALL, STDIN, STDOUT, events, host, messages, opened, read, security, settle, up};

const ZERO: Duration = Duration::ZERO;

/// The next host, after the one before was killed.
fn next(guest: &mut Link, prepare: impl FnOnce(&mut Link)) -> Link {
    let mut next = host(SMALL, security(1, true, 4));
    prepare(&mut next);
    guest.pipe_down();
    up([guest, &mut next]);
    settle(guest, &mut next, ZERO);
    assert!(guest.is_open() && next.is_open());
    next
}

#[test]
fn a_stream_that_had_ended_ends_again() {
    let (mut guest, mut host) = opened();
    guest.write(STDOUT, b"all of it");
    guest.finish(STDOUT);
    settle(&mut guest, &mut host, ZERO);
    assert_eq!(read(&mut host, STDOUT), b"all of it");
    settle(&mut guest, &mut host, ZERO);
    assert!(host.is_ended(STDOUT) && guest.is_flushed());
    let next = next(&mut guest, |_| {});
    assert_eq!((next.consumed(STDOUT), next.is_ended(STDOUT)), (9, true));
    assert!(guest.is_flushed());
}

#[test]
fn input_that_had_ended_takes_no_more() {
    let (mut guest, mut host) = opened();
    host.write(STDIN, b"in");
    host.finish(STDIN);
    settle(&mut guest, &mut host, ZERO);
    let next = next(&mut guest, |_| {});
    assert!(next.is_finished(STDIN) && next.is_flushed());
    assert_eq!((next.delivered(STDIN), next.room(STDIN)), (2, 0));
    assert_eq!(read(&mut guest, STDIN), b"in");
    assert!(guest.is_ended(STDIN));
}

#[test]
fn streams_that_nobody_wants_are_told_of_again() {
    let (mut guest, mut host) = opened();
    guest.write(STDOUT, b"unheard");
    host.discard(STDOUT);
    guest.discard(STDIN);
    settle(&mut guest, &mut host, ZERO);
    guest.write(STDOUT, b"dropped");
    let mut next = next(&mut guest, |_| {});
    assert!(events(&mut next).contains(&Event::Reset(STDIN, ResetReason::NotRead)));
    assert!(next.is_ended(STDOUT), "a stream that was reset has no more to say");
    assert!(guest.is_flushed() && next.is_flushed());
}

#[test]
fn what_a_host_says_before_it_is_open_goes_behind_what_was_said() {
    let (mut guest, mut host) = opened();
    host.send_message(b"from the first");
    settle(&mut guest, &mut host, ZERO);
    assert_eq!(messages(&mut guest), [b"from the first"]);
    let new = ChannelId(9);
    let mut next = next(&mut guest, |link| {
        link.open(new);
        link.write(new, b"fresh");
        link.send_message(b"from the second");
    });
    assert_eq!(messages(&mut guest), [b"from the second"]);
    assert!(
        events(&mut next).contains(&Event::Reset(new, ResetReason::NoSuchChannel)),
        "the guest has no such channel"
    );
}

#[test]
fn a_message_that_was_not_taken_comes_to_the_next_host() {
    let (mut guest, mut host) = opened();
    guest.send_message(b"one");
    guest.send_message(b"two");
    guest.send_message(b"three");
    settle(&mut guest, &mut host, ZERO);
    while host.poll_event() != Some(Event::Message(b"one".to_vec())) {}
    settle(&mut guest, &mut host, ZERO);
    // what it took since, it has not told
    while host.poll_event() != Some(Event::Message(b"two".to_vec())) {}
    let mut next = next(&mut guest, |_| {});
    let taken = messages(&mut next);
    assert!(taken == [&b"two"[..], b"three"] || taken == [&b"one"[..], b"two", b"three"], "{taken:?}");
}

#[test]
fn many_channels_are_taken_over_and_too_many_refused() {
    let (mut guest, mut host) = opened();
    for number in 3..MAX_CHANNELS as u32 {
        assert!(guest.open(ChannelId(number)) && host.open(ChannelId(number)));
        guest.write(ChannelId(number), &number.to_le_bytes());
    }
    assert!(!guest.open(ChannelId(MAX_CHANNELS as u32)), "no more fit in a greeting");
    assert!(guest.open(STDIN), "it is there");
    settle(&mut guest, &mut host, ZERO);
    let mut next = next(&mut guest, |_| {});
    for number in 3..MAX_CHANNELS as u32 {
        assert_eq!(read(&mut next, ChannelId(number)), number.to_le_bytes());
    }
    settle(&mut guest, &mut next, ZERO);
    assert!(guest.is_flushed());
}
