//! What goes next, what is kept, and what it costs to be idle.

use std::time::Duration;

use wire::link::{CONTROL_WINDOW, Event, HELLO_INTERVAL, RETRY, Tuning};
use wire::message::{MAIN, Message, Request};
use wire::packet::ResetReason;

use crate::rig::{SMALL, STDIN, STDOUT, events, guest, host, messages, ms, opened, read, said, security, settle, up};

const ZERO: Duration = Duration::ZERO;

#[test]
fn a_clean_line_needs_no_retry_and_an_idle_one_no_timer() {
    let (mut guest, mut host) = opened();
    let sent: Vec<u8> = (0..100_000_u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
    let (mut written, mut got) = (0, Vec::new());
    while got.len() < sent.len() {
        written += guest.write(STDOUT, &sent[written..]);
        settle(&mut guest, &mut host, ZERO);
        got.extend(read(&mut host, STDOUT));
    }
    guest.finish(STDOUT);
    settle(&mut guest, &mut host, ZERO);
    assert!(got == sent && host.is_ended(STDOUT));
    assert!(guest.is_flushed() && host.is_flushed());
    assert_eq!((guest.poll_timeout(), host.poll_timeout()), (None, None));
}

#[test]
fn a_slow_reader_bounds_what_is_kept() {
    let (mut guest, mut host) = opened();
    let mut taken = 0;
    for _ in 0..100 {
        taken += guest.write(STDOUT, &[1; 5000]);
        settle(&mut guest, &mut host, ZERO);
    }
    assert_eq!((host.readable(STDOUT).len(), taken), (8192, 8192), "the window, and not a byte more");
}

#[test]
fn a_slow_reader_is_asked_seldom_and_sent_nothing_twice() {
    let (mut guest, mut host) = opened();
    guest.write(STDOUT, &[1; 5000]);
    settle(&mut guest, &mut host, ZERO);
    assert!(!guest.is_flushed(), "received is not taken");
    assert_eq!(guest.poll_timeout(), Some(RETRY));
    let (mut now, mut said_in_all) = (ZERO, 0);
    for _ in 0..20 {
        now = guest.poll_timeout().unwrap();
        guest.handle_timeout(now);
        let up = said(&mut guest, now);
        said_in_all += up.len();
        host.handle_bytes(now, &up);
        settle(&mut guest, &mut host, now);
    }
    assert!(said_in_all < 20 * 60, "questions, and no data: {said_in_all} bytes");
    read(&mut host, STDOUT);
    settle(&mut guest, &mut host, now);
    assert!(guest.is_flushed() && guest.poll_timeout().is_none());
}

#[test]
fn a_credit_that_is_lost_is_asked_for() {
    let (mut guest, mut host) = opened();
    guest.write(STDOUT, &[1; 8192]);
    settle(&mut guest, &mut host, ZERO);
    read(&mut host, STDOUT);
    assert!(!said(&mut host, ZERO).is_empty(), "the credit that the line loses");
    assert_eq!(guest.room(STDOUT), 0);
    guest.handle_timeout(RETRY);
    settle(&mut guest, &mut host, RETRY);
    assert_eq!(guest.room(STDOUT), 8192);
}

#[test]
fn a_key_press_overtakes_bulk() {
    let (mut guest, mut host) = opened();
    let request = Message::Request { id: 1, request: Request::Signal { session: MAIN, signal: 2 } };
    host.write(STDIN, &[1; 8000]);
    let mut out = Vec::new();
    host.poll_transmit(ZERO, &mut out);
    host.send_message(&request.encode());
    host.poll_transmit(ZERO, &mut out);
    guest.handle_bytes(ZERO, &out);
    let [message] = &messages(&mut guest)[..] else { panic!("the message waits behind bulk") };
    assert_eq!(Message::decode(message), Ok(request));
}

#[test]
fn what_nobody_reads_does_not_hold_up_its_sender() {
    let (mut guest, mut host) = opened();
    guest.discard(STDIN);
    let mut taken = 0;
    for _ in 0..20 {
        taken += host.write(STDIN, &[1; 1000]);
        settle(&mut guest, &mut host, ZERO);
    }
    assert!(events(&mut host).contains(&Event::Reset(STDIN, ResetReason::NotRead)));
    assert!(host.is_flushed() && taken < 10_000);
    assert_eq!(host.room(STDIN), 0, "a stream that was reset takes no more");
}

#[test]
fn the_longest_message_passes_whatever_the_window_is() {
    let tuning = Tuning { window: 100, payload: 50 };
    let (mut guest, mut host) = (guest(tuning, security(1, false, 2)), host(tuning, security(1, false, 3)));
    up([&mut guest, &mut host]);
    let longest = vec![7; 1024 * 1024];
    for _ in 0..3 {
        guest.send_message(&longest);
        settle(&mut guest, &mut host, ZERO);
        assert!(messages(&mut host) == [&longest[..]]);
    }
    settle(&mut guest, &mut host, ZERO);
    assert!(guest.is_flushed());
}

#[test]
fn messages_that_nobody_takes_wait_at_their_sender() {
    let (mut guest, mut host) = opened();
    for _ in 0..40 {
        guest.send_message(&[1; 100_000]);
    }
    settle(&mut guest, &mut host, ZERO);
    // time goes on, and the application does not
    guest.handle_timeout(RETRY);
    settle(&mut guest, &mut host, RETRY);
    assert!(host.counters().repeated < 2 && !guest.is_flushed());
    let mut rounds = 0;
    let mut count = 0;
    while count < 40 {
        let taken = messages(&mut host);
        assert!(taken.len() * 100_004 <= CONTROL_WINDOW as usize, "{} at a time", taken.len());
        count += taken.len();
        settle(&mut guest, &mut host, RETRY);
        rounds += 1;
    }
    assert!(rounds >= 4 && guest.is_flushed());
}

#[test]
fn a_channel_that_the_peer_forgot_is_over() {
    let (mut guest, mut host) = opened();
    guest.write(STDOUT, b"last words");
    host.write(STDIN, b"in");
    settle(&mut guest, &mut host, ZERO);
    read(&mut guest, STDIN);
    settle(&mut guest, &mut host, ZERO);
    events(&mut host);
    guest.forget(STDIN);
    guest.forget(STDOUT);
    guest.pipe_down();
    host.pipe_down();
    up([&mut guest, &mut host]);
    settle(&mut guest, &mut host, ms(50));
    let seen = events(&mut host);
    for id in [STDIN, STDOUT] {
        assert!(seen.contains(&Event::Reset(id, ResetReason::NoSuchChannel)), "{seen:?}");
    }
    assert_eq!((host.room(STDIN), host.is_flushed()), (0, true));
    assert_eq!(read(&mut host, STDOUT), b"last words", "what had come is there");
    assert!(host.is_ended(STDOUT) && host.is_open() && guest.is_open());
    // what is over stays so, whatever comes
    guest.open(STDOUT);
    guest.write(STDOUT, b"a ghost");
    settle(&mut guest, &mut host, ms(60));
    assert!(host.readable(STDOUT).is_empty() && host.is_open());
    assert!(host.counters().strays > 0);
    assert!(events(&mut guest).contains(&Event::Reset(STDOUT, ResetReason::NoSuchChannel)));
}

#[test]
fn a_hello_is_repeated_until_the_host_is_there() {
    let (mut guest, mut host) = (guest(SMALL, security(1, true, 2)), host(SMALL, security(1, true, 3)));
    guest.pipe_up(ZERO);
    let mut now = ZERO;
    for _ in 0..5 {
        assert!(!said(&mut guest, now).is_empty());
        assert_eq!(guest.poll_timeout(), Some(now + HELLO_INTERVAL));
        now += HELLO_INTERVAL;
    }
    host.pipe_up(now);
    settle(&mut guest, &mut host, now);
    assert!(guest.is_open() && host.is_open());
    assert_eq!(host.poll_timeout(), None);
}
