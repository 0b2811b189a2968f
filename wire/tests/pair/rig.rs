//! Links to try things with, and what goes from one to the other when nothing goes wrong.

use std::time::Duration;

use wire::handshake::LinkKey;
use wire::link::{Event, Link, Role, Security, Tuning};
use wire::packet::ChannelId;

pub(crate) const STDIN: ChannelId = ChannelId(1);
pub(crate) const STDOUT: ChannelId = ChannelId(2);
pub(crate) const SMALL: Tuning = Tuning { window: 8192, payload: 1024 };

pub(crate) fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

pub(crate) fn security(key: u8, sealed: bool, seed: u8) -> Security {
    Security { key: LinkKey::new([key; 32]), sealed, seed: [seed; 32] }
}

pub(crate) fn guest(tuning: Tuning, security: Security) -> Link {
    Link::new(Role::Guest { vm: "c1".into(), boot: [7; 16] }, tuning, security)
}

pub(crate) fn host(tuning: Tuning, security: Security) -> Link {
    Link::new(Role::Host { vm: "c1".into() }, tuning, security)
}

/// Everything that one end has to say now.
pub(crate) fn said(link: &mut Link, now: Duration) -> Vec<u8> {
    let mut out = Vec::new();
    while link.poll_transmit(now, &mut out) {}
    out
}

pub(crate) fn events(link: &mut Link) -> Vec<Event> {
    std::iter::from_fn(|| link.poll_event()).collect()
}

pub(crate) fn messages(link: &mut Link) -> Vec<Vec<u8>> {
    let message = |event| match event {
        Event::Message(bytes) => Some(bytes),
        _ => None,
    };
    events(link).into_iter().filter_map(message).collect()
}

/// Lets two ends talk until neither has anything to say.
pub(crate) fn settle(guest: &mut Link, host: &mut Link, now: Duration) {
    loop {
        let (up, down) = (said(guest, now), said(host, now));
        if up.is_empty() && down.is_empty() {
            return;
        }
        host.handle_bytes(now, &up);
        guest.handle_bytes(now, &down);
    }
}

pub(crate) fn up(links: [&mut Link; 2]) {
    links.into_iter().for_each(|link| link.pipe_up(Duration::ZERO));
}

/// A sealed link that is open, with both streams.
pub(crate) fn opened() -> (Link, Link) {
    let (mut guest, mut host) = (guest(SMALL, security(1, true, 2)), host(SMALL, security(1, true, 3)));
    for id in [STDIN, STDOUT] {
        guest.open(id);
        host.open(id);
    }
    up([&mut guest, &mut host]);
    settle(&mut guest, &mut host, Duration::ZERO);
    assert!(guest.is_open() && host.is_open());
    (guest, host)
}

/// Reads and consumes all that there is.
pub(crate) fn read(link: &mut Link, id: ChannelId) -> Vec<u8> {
    let bytes = link.readable(id).to_vec();
    link.consume(id, bytes.len());
    bytes
}
