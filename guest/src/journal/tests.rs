//! What is kept, cut, dropped and told by the journal.

use std::io::Read as _;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::pipe2;

use super::*;

/// A journal whose console is a pipe that holds one page, and whoever reads it.
fn journal() -> (Journal, File) {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).unwrap();
    fcntl(&writer, FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    (Journal { console: Some(File::from(writer)), ..Journal::new() }, File::from(reader))
}

fn add(journal: &mut Journal, level: Level, text: &str) {
    if journal.wants(level) {
        journal.add(level, format!("{text}\n"));
        journal.transmit();
    }
}

/// What has come out.
fn read(reader: &mut File) -> String {
    let mut text = Vec::new();
    // it ends with there being nothing for now
    assert_eq!(reader.read_to_end(&mut text).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    String::from_utf8(text).unwrap()
}

const ALL: [Level; 5] = [Level::Error, Level::Warn, Level::Info, Level::Debug, Level::Trace];

#[test]
fn what_is_said_before_the_level_is_known_comes_out_at_that_level() {
    for wanted in ALL {
        let (mut journal, mut console) = journal();
        for level in ALL {
            add(&mut journal, level, &format!("early {level:?}"));
        }
        assert_eq!(read(&mut console), "");
        journal.begin(wanted);
        for level in ALL {
            add(&mut journal, level, &format!("late {level:?}"));
        }
        let lines = |when: &str| -> String {
            ALL.iter().filter(|level| **level <= wanted).map(|level| format!("{when} {level:?}\n")).collect()
        };
        assert_eq!(read(&mut console), lines("early") + &lines("late"));
        assert_eq!((journal.bytes, journal.lines.capacity()), (0, 0), "an idle one keeps nothing");
    }
}

#[test]
fn a_console_that_takes_nothing_costs_the_oldest_entries_and_their_number_is_told() {
    let (mut journal, mut console) = journal();
    journal.begin(Level::Info);
    let text = |n: u32| format!("{n:0>99}");
    for n in 0..1000 {
        add(&mut journal, Level::Info, &text(n));
        assert!(journal.bytes <= OUTBOX);
    }
    let mut lines = Vec::new();
    let mut rest = String::new();
    loop {
        let came = read(&mut console);
        if came.is_empty() {
            break;
        }
        rest.push_str(&came);
        journal.transmit();
    }
    lines.extend(rest.lines());
    let told = lines.iter().position(|line| line.contains("were dropped")).expect("it is told");
    let dropped: usize = lines[told].rsplit_once("count=").unwrap().1.parse().unwrap();
    assert!(lines[told].contains(" tether: warn journal: "), "{}", lines[told]);
    assert_eq!(lines.len() - 1 + dropped, 1000);
    let numbers: Vec<u32> = lines.iter().filter_map(|line| line.parse().ok()).collect();
    let first = u32::try_from(told).unwrap();
    let expected: Vec<u32> = (0..first).chain(first + u32::try_from(dropped).unwrap()..1000).collect();
    assert_eq!(numbers, expected, "whole lines, in order, and the gap is where it is told");
}

#[test]
fn a_line_of_which_half_has_left_is_finished() {
    let (mut journal, mut console) = journal();
    journal.begin(Level::Info);
    // a pipe takes what fits; a terminal as well
    add(&mut journal, Level::Info, &"a".repeat(6000));
    add(&mut journal, Level::Info, &"b".repeat(6000));
    for _ in 0..1000 {
        add(&mut journal, Level::Info, &"c".repeat(99));
    }
    let mut text = String::new();
    while !journal.is_sent() {
        text.push_str(&read(&mut console));
        journal.transmit();
    }
    text.push_str(&read(&mut console));
    let lines: Vec<&str> = text.lines().collect();
    // the second one was the oldest of those that waited
    assert!(lines[0] == "a".repeat(6000) && lines[1].contains("were dropped"), "{text}");
    assert!(lines.len() > 300 && lines[2..].iter().all(|line| *line == "c".repeat(99)), "{text}");
}

#[test]
fn a_console_that_is_gone_is_given_up() {
    let (mut journal, console) = journal();
    drop(console);
    journal.begin(Level::Info);
    add(&mut journal, Level::Info, "text");
    assert!(journal.console.is_none());
    for _ in 0..10_000 {
        add(&mut journal, Level::Info, "text");
    }
    assert!(journal.bytes <= OUTBOX);
}
