//! What a server of logs gets: whole lines, in order, and the number of those that were dropped.

use std::io::Read as _;
use std::net::{TcpListener, UdpSocket};
use std::time::Duration;

use super::*;

/// 2017-07-14T02:40:00.123456789Z
const TIME: u64 = 1_500_000_000_123_456_789;

fn golden(transport: Transport, priority: Priority, pid: u32, text: &[u8]) -> String {
    let origin = Origin::new("web.example.org", "3f0c9a1be277");
    String::from_utf8(origin.message(transport, priority, pid, TIME, text)).unwrap()
}

#[test]
fn golden_messages() {
    let head = "1 2017-07-14T02:40:00.123456Z web.example.org 3f0c9a1be277";
    for (priority, number) in [(Priority::Output, 30), (Priority::Error, 27), (Priority::Warning, 28)] {
        let made = golden(Transport::Udp, priority, 42, b"a line");
        assert_eq!(made, format!("<{number}>{head} 42 - - a line"));
    }
    assert_eq!(golden(Transport::Udp, Priority::Output, 0, b""), format!("<30>{head} - - - "));
    // the count is of octets
    let text = "grüße, 世界";
    let message = format!("<30>{head} 42 - - {text}");
    assert_eq!(golden(Transport::Tcp, Priority::Output, 42, text.as_bytes()), format!("{} {message}", message.len()));
    assert_eq!(message.len(), 85);
}

#[test]
fn what_is_no_text_goes_as_it_is() {
    let origin = Origin::new("h", "a");
    let bytes: Vec<u8> = (0..=255).filter(|byte| *byte != b'\n').collect();
    let made = origin.message(Transport::Udp, Priority::Output, 1, 0, &bytes);
    assert!(made.ends_with(&bytes));
}

#[test]
fn names_are_what_a_header_can_hold() {
    let check = |host: &str, app: &str, expected: &str| {
        let made = Origin::new(host, app).message(Transport::Udp, Priority::Output, 1, 0, b"x");
        assert_eq!(String::from_utf8(made).unwrap(), format!("<30>1 1970-01-01T00:00:00.000000Z {expected} 1 - - x"));
    };
    check("", "", "- -");
    check("a b\nc", "ü", "a_b_c _");
    check(&"h".repeat(300), &"a".repeat(300), &format!("{} {}", "h".repeat(255), "a".repeat(48)));
}

#[test]
fn no_message_is_longer_than_every_receiver_takes() {
    for name in ["h".to_owned(), "h".repeat(255)] {
        let origin = Origin::new(&name, &name);
        let longest = vec![b'x'; origin.room()];
        let length = |text: &[u8]| origin.message(Transport::Udp, Priority::Output, u32::MAX, TIME, text).len();
        assert_eq!((length(&longest), length(&[b'x'; 4000])), (LONGEST, LONGEST));
        let counted = origin.message(Transport::Tcp, Priority::Output, u32::MAX, TIME, &[b'x'; 4000]);
        assert!(counted.starts_with(b"2048 <30>1 ") && counted.len() == LONGEST + 5);
    }
}

/// The lines that come of some pieces of a stream.
fn lines(pieces: &[&str], longest: usize) -> Vec<String> {
    let (mut lines, mut taken) = (Lines::default(), Vec::new());
    let text = |line: &[u8]| String::from_utf8(line.to_vec()).expect("cut between characters");
    for piece in pieces {
        lines.feed(piece.as_bytes(), longest, |line| taken.push(text(line)));
        assert!(lines.partial.len() <= longest);
    }
    taken.extend(lines.finish().map(|line| text(&line)));
    assert_eq!(lines.finish(), None);
    taken
}

#[test]
fn lines_come_whole_however_they_were_written() {
    let text = "one\ntwo\r\n\n three\t\nlast";
    let expected = ["one", "two", "", " three\t", "last"];
    assert_eq!(lines(&[text], 100), expected);
    for at in 0..text.len() {
        assert_eq!(lines(&[&text[..at], &text[at..]], 100), expected);
    }
    let bytes: Vec<&str> = text.split("").collect();
    assert_eq!(lines(&bytes, 100), expected);
    assert_eq!(lines(&["", "\n", "\r\n"], 100), ["", ""]);
}

#[test]
fn a_long_line_is_cut_between_characters() {
    assert_eq!(lines(&["12345678901234567890123\n4"], 10), ["1234567890", "1234567890", "123", "4"]);
    assert_eq!(lines(&["1234567890\n"], 10), ["1234567890"]);
    for filler in ["", "1", "12", "123"] {
        let long = format!("{filler}{}", "€ü世界🦀".repeat(50));
        let made = lines(&[&long, "\n"], 30);
        assert_eq!(made.concat(), long);
        assert!(made.iter().all(|line| line.len() <= 30 && !line.is_empty()) && made.len() < long.len() / 26 + 2);
    }
    // what is no UTF-8 is cut as well
    let mut taken = Vec::new();
    Lines::default().feed(&[0x80; 100], 30, |line| taken.push(line.len()));
    assert_eq!(taken, [30, 30, 30]);
}

fn readable(connection: &Connection) {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut fds = [PollFd::new(connection.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::NONE).unwrap();
}

#[test]
fn a_connection_carries_and_tells_its_end() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = Syslog { transport: Transport::Tcp, server: listener.local_addr().unwrap() };
    let connection = Connection::begin(to).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    assert!(connection.failure().is_none() && !connection.is_ended());
    assert_eq!(connection.send(b"1 x").unwrap(), 3);
    let mut read = [0; 3];
    server.read_exact(&mut read).unwrap();
    assert_eq!(&read, b"1 x");
    // who does not read is found out without waiting
    while connection.send(&[0; 65536]).unwrap() > 0 {}
    assert!(!connection.is_flushed());
    drop(server);
    readable(&connection);
    assert!(connection.is_ended());
    drop(listener);
    let refused = Connection::begin(to).map(|connection| {
        readable(&connection);
        connection.failure().is_some()
    });
    assert!(refused.unwrap_or(true));
}

#[test]
fn a_datagram_holds_one_message() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        // a machine may have no IPv6
        let Ok(server) = UdpSocket::bind(address) else { continue };
        server.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let connection = Connection::begin(Syslog { transport: Transport::Udp, server: server.local_addr().unwrap() });
        let connection = connection.unwrap();
        let mut buffer = [0; 100];
        for text in ["one", "two"] {
            assert_eq!(connection.send(text.as_bytes()).unwrap(), 3);
            assert_eq!(server.recv(&mut buffer).unwrap(), 3);
            assert_eq!(&buffer[..3], text.as_bytes());
        }
        assert!(!connection.is_ended());
    }
}
