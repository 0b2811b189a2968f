//! A server that comes, goes, reads slowly, or not at all.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};

use guest::events::Poller;
use wire::handshake::LinkKey;
use wire::message::MAIN;
use wire::spec::{LinkDevice, LinkSpec, Process, SPEED};

use super::*;

/// A syslog with a poller around it, whose time goes on by itself only while something is waited for.
struct Rig {
    syslog: Syslog,
    poller: Poller,
    now: Duration,
}

impl Rig {
    fn new(transport: Transport, server: SocketAddr) -> Rig {
        let link = LinkSpec { device: LinkDevice::Virtio, key: LinkKey::new([0; 32]), sealed: false, speed: SPEED };
        let mut spec = Spec::new("3f0c9a1be27799", link, Process::new(vec!["true".into()]));
        spec.diagnostics.syslog = Some(spec::Syslog { transport, server });
        spec.hostname = Some("web".into());
        Rig { syslog: Syslog::new(&spec).unwrap(), poller: Poller::new().unwrap(), now: Duration::ZERO }
    }

    fn say(&mut self, text: &str) {
        self.syslog.write(MAIN, 7, Which::Stdout, text.as_bytes());
    }

    /// One turn of the agent's loop. True if something happened on the connection.
    fn turn(&mut self, wait: Duration) -> bool {
        self.syslog.transmit(self.now);
        let happened = self.poller.wait(Some(wait)).unwrap();
        for happened in &happened {
            self.syslog.handle(*happened, self.now);
        }
        self.syslog.handle_time(self.now, &self.poller, 6);
        self.syslog.transmit(self.now);
        !happened.is_empty()
    }

    /// Turns, and lets time pass where it is waited for, until `done`.
    fn until(&mut self, mut done: impl FnMut(&Syslog) -> bool) {
        while !done(&self.syslog) {
            if !self.turn(Duration::from_millis(20))
                && let Some(deadline) = self.syslog.deadline()
            {
                self.now = self.now.max(deadline);
            }
        }
    }
}

fn is_up(syslog: &Syslog) -> bool {
    matches!(syslog.contact, Contact::Up { .. })
}

fn is_lost(syslog: &Syslog) -> bool {
    matches!(syslog.contact, Contact::None { .. })
}

/// The texts behind the headers of messages with counted octets, as far as they are whole.
fn texts(mut bytes: &[u8]) -> Vec<String> {
    let mut texts = Vec::new();
    while let Some(space) = bytes.iter().position(|byte| *byte == b' ') {
        let count: usize = std::str::from_utf8(&bytes[..space]).unwrap().parse().expect("a count");
        let Some(message) = bytes.get(space + 1..space + 1 + count) else { break };
        let message = String::from_utf8(message.to_vec()).unwrap();
        texts.push(message.splitn(8, ' ').nth(7).unwrap().to_owned());
        bytes = &bytes[space + 1 + count..];
    }
    texts
}

fn read(stream: &mut TcpStream) -> Vec<u8> {
    stream.set_nonblocking(true).unwrap();
    let mut bytes = Vec::new();
    let mut buffer = [0; 65536];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        bytes.extend_from_slice(&buffer[..count]);
    }
    bytes
}

/// The number that a notice of dropped lines tells.
fn count(text: &str) -> Option<usize> {
    text.strip_prefix("tether: ")?.split_once(" lines were dropped")?.0.parse().ok()
}

#[test]
fn lines_reach_a_server_that_comes_late() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let mut rig = Rig::new(Transport::Tcp, address);
    assert_eq!(rig.syslog.deadline(), None, "with nothing to say it wakes nobody");
    rig.say("one\ntwo\nthr");
    assert_eq!(rig.syslog.deadline(), Some(Duration::ZERO));
    let mut pauses = Vec::new();
    while pauses.len() < 10 {
        rig.until(|syslog| {
            syslog.away && is_lost(syslog) && syslog.pause > *pauses.last().unwrap_or(&FIRST_PAUSE)
                || syslog.pause == LONGEST_PAUSE
        });
        pauses.push(rig.syslog.pause);
    }
    assert_eq!(pauses.last(), Some(&LONGEST_PAUSE), "{pauses:?}");
    let listener = TcpListener::bind(address).unwrap();
    rig.say("ee\n");
    rig.until(is_up);
    rig.until(Syslog::is_empty);
    let (mut server, _) = listener.accept().unwrap();
    assert_eq!(texts(&read(&mut server)), ["one", "two", "three"]);
    assert!(!rig.syslog.away && rig.syslog.deadline().is_none());
}

#[test]
fn a_server_that_reads_nothing_costs_the_oldest_lines_and_is_told_how_many() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut rig = Rig::new(Transport::Tcp, listener.local_addr().unwrap());
    rig.say("first\n");
    rig.until(is_up);
    let (mut server, _) = listener.accept().unwrap();
    // more than a socket takes and the queue holds
    const LINES: usize = 100_000;
    for n in 0..LINES {
        rig.say(&format!("{n:0>90}\n"));
        assert!(rig.syslog.bytes <= OUTBOX);
        rig.syslog.transmit(rig.now);
    }
    assert!(rig.syslog.dropped > 0);
    let mut bytes = Vec::new();
    while !rig.syslog.is_done(rig.now) {
        bytes.extend(read(&mut server));
        rig.turn(Duration::from_millis(20));
    }
    bytes.extend(read(&mut server));
    let texts = texts(&bytes);
    assert_eq!(texts[0], "first");
    let dropped: usize = texts.iter().filter_map(|text| count(text)).sum();
    let notices = texts.iter().filter(|text| count(text).is_some()).count();
    assert_eq!(texts.len() - notices + dropped, 1 + LINES);
    // the gap is where it is told
    let mut next = 0;
    for text in &texts[1..] {
        next += match count(text) {
            Some(dropped) => dropped,
            None => {
                assert_eq!(text.parse::<usize>().unwrap(), next);
                1
            }
        };
    }
}

#[test]
fn a_message_that_was_cut_off_is_sent_again_as_a_whole() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut rig = Rig::new(Transport::Tcp, listener.local_addr().unwrap());
    rig.say("first\n");
    rig.until(is_up);
    let (server, _) = listener.accept().unwrap();
    while rig.syslog.gone == 0 {
        rig.say(&format!("{}\n", "x".repeat(1500)));
        rig.syslog.transmit(rig.now);
    }
    drop(server);
    rig.until(is_lost);
    rig.until(is_up);
    let (mut server, _) = listener.accept().unwrap();
    server.write_all(b"servers say nothing, and this one does").unwrap();
    rig.until(Syslog::is_empty);
    let texts = texts(&read(&mut server));
    assert!(!texts.is_empty() && texts.iter().all(|text| *text == "x".repeat(1500)));
}

#[test]
fn a_datagram_that_nobody_takes_is_counted() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    drop(socket);
    let mut rig = Rig::new(Transport::Udp, address);
    rig.say("lost\n");
    rig.until(is_up);
    rig.until(is_lost);
    assert_eq!((rig.syslog.dropped, rig.syslog.away), (1, true));
    let socket = UdpSocket::bind(address).unwrap();
    rig.say("kept\n");
    rig.until(Syslog::is_empty);
    let mut buffer = [0; 2048];
    let mut next = || {
        let count = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..count].to_vec()).unwrap()
    };
    let (notice, line) = (next(), next());
    assert!(
        notice.starts_with("<28>1 ") && notice.contains(" web 3f0c9a1be277 - - - tether: 1 lines were"),
        "{notice}"
    );
    assert!(line.starts_with("<30>1 ") && line.ends_with(" web 3f0c9a1be277 7 - - kept"), "{line}");
}

#[test]
fn streams_do_not_mix_and_an_end_ends_a_line() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut rig = Rig::new(Transport::Udp, socket.local_addr().unwrap());
    let other = SessionId(9);
    rig.syslog.write(MAIN, 7, Which::Stdout, b"out");
    rig.syslog.write(MAIN, 7, Which::Stderr, b"err");
    rig.syslog.write(other, 9, Which::Stdout, b"side");
    rig.syslog.write(MAIN, 7, Which::Stdout, b"put\nprompt> ");
    rig.syslog.end(MAIN, Which::Stdout);
    // its process is another one now
    rig.syslog.write(other, 10, Which::Stdout, b"again\n");
    rig.syslog.end_all(Duration::ZERO);
    rig.until(Syslog::is_empty);
    let mut buffer = [0; 2048];
    let expected = ["<30> 7 output", "<30> 7 prompt> ", "<30> 9 side", "<30> 10 again", "<27> 7 err"];
    for expected in expected {
        let count = socket.recv(&mut buffer).unwrap();
        let message = String::from_utf8(buffer[..count].to_vec()).unwrap();
        let (head, text) = message.split_once(" - - ").unwrap();
        let seen = format!("{} {} {text}", &head[..4], head.rsplit_once(' ').unwrap().1);
        assert_eq!(seen, expected);
    }
}

#[test]
fn a_machine_that_is_done_waits_only_for_a_server_that_is_there() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut rig = Rig::new(Transport::Tcp, address);
    assert!(rig.syslog.is_done(Duration::ZERO));
    rig.say("last words");
    rig.syslog.end_all(Duration::ZERO);
    assert!(!rig.syslog.is_done(Duration::ZERO) && rig.syslog.is_done(LAST_WORDS));
    rig.until(is_up);
    let (mut server, _) = listener.accept().unwrap();
    rig.until(|syslog| syslog.is_done(Duration::ZERO));
    assert_eq!(texts(&read(&mut server)), ["last words"]);
    // and not for one that is known to be away
    drop((server, listener));
    rig.until(is_lost);
    rig.say("nobody hears this\n");
    rig.until(|syslog| syslog.away);
    assert!(rig.syslog.is_done(Duration::ZERO));
}
