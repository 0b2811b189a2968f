//! Logs of a real journal, as a client gets them.

use tempfile::TempDir;

use super::*;
use crate::hub::{Offsets, Stream};

fn parameters(pairs: &[(&str, &str)]) -> Parameters {
    let mut parameters = Parameters { stdout: "1".into(), stderr: "1".into(), ..Parameters::default() };
    for &(name, value) in pairs {
        let place = match name {
            "stdout" => &mut parameters.stdout,
            "stderr" => &mut parameters.stderr,
            "follow" => &mut parameters.follow,
            "since" => &mut parameters.since,
            "until" => &mut parameters.until,
            "tail" => &mut parameters.tail,
            _ => panic!("{name}"),
        };
        *place = value.into();
    }
    parameters
}

/// A journal with lines `0` to `count` - 1, one a second, in small segments.
async fn journal(count: u64) -> (TempDir, Journal) {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path(), 256 * 1024).unwrap();
    journal.begin([1; 16], Offsets::default()).await.unwrap();
    for number in 0..count {
        line(&journal, number);
        journal.sync().await.unwrap();
    }
    (dir, journal)
}

fn line(journal: &Journal, number: u64) {
    let stream = if number.is_multiple_of(3) { Stream::Stderr } else { Stream::Stdout };
    journal.append(stream, number * 1_000_000_000, text(number).as_bytes()).unwrap();
}

async fn shown(journal: &Journal, pairs: &[(&str, &str)]) -> String {
    let choice = parameters(pairs).choice().unwrap();
    let mut showing = Showing::begin(journal.clone(), choice, true).await.unwrap();
    let mut all = Vec::new();
    while let Some(bytes) = showing.next().await {
        all.extend(bytes);
    }
    String::from_utf8(all).unwrap()
}

fn numbers(range: std::ops::Range<u64>) -> String {
    range.map(text).collect()
}

/// So long that there are some segments.
fn text(number: u64) -> String {
    format!("{number:3000}\n")
}

#[tokio::test]
async fn what_is_asked_for_is_shown() {
    let (_dir, journal) = journal(60).await;
    let check = async |pairs: &[(&str, &str)], expected: String| {
        assert!(shown(&journal, pairs).await == expected, "{pairs:?}");
    };
    assert!(journal.starts().len() > 3, "{:?}", journal.starts());
    check(&[], numbers(0..60)).await;
    for tail in [0, 1, 2, 17, 18, 19, 40, 59, 60] {
        check(&[("tail", &tail.to_string())], numbers(60 - tail..60)).await;
    }
    for tail in ["61", "100000", "all", "-1", "", "18446744073709551615"] {
        check(&[("tail", tail)], numbers(0..60)).await;
    }
    check(&[("since", "58")], numbers(58..60)).await;
    check(&[("since", "57.000000001")], numbers(58..60)).await;
    check(&[("since", "1800000000")], String::new()).await;
    check(&[("until", "2")], numbers(0..3)).await;
    check(&[("until", "2.5"), ("since", "1.5")], numbers(2..3)).await;
    // the tail is that of the whole log, as docker has it
    check(&[("tail", "5"), ("until", "56")], numbers(55..57)).await;
    check(&[("tail", "3"), ("stdout", "0")], numbers(57..58)).await;
    // it has ended: following shows the same
    journal.finish();
    check(&[("tail", "2"), ("follow", "1")], numbers(58..60)).await;
    check(&[("tail", "0"), ("follow", "1")], String::new()).await;
}

#[tokio::test]
async fn a_line_without_an_end_is_the_last() {
    let (_dir, journal) = journal(30).await;
    journal.append(Stream::Stdout, 30, b"no end").unwrap();
    assert_eq!(shown(&journal, &[("tail", "1")]).await, "no end");
    assert_eq!(shown(&journal, &[("tail", "2")]).await, numbers(29..30) + "no end");
    journal.append(Stream::Stderr, 30, b" and none").unwrap();
    assert_eq!(shown(&journal, &[("tail", "2")]).await, "no end and none");
    assert_eq!(shown(&journal, &[("tail", "3")]).await, numbers(29..30) + "no end and none");
}

#[tokio::test(start_paused = true)]
async fn following_shows_what_comes_until_its_end() {
    let (_dir, journal) = journal(10).await;
    let choice = parameters(&[("tail", "2"), ("follow", "1")]).choice().unwrap();
    let mut showing = Showing::begin(journal.clone(), choice, true).await.unwrap();
    assert_eq!(showing.next().await.unwrap(), numbers(8..10).as_bytes());
    journal.append(Stream::Stdout, 10, b"prompt> ").unwrap();
    assert_eq!(showing.next().await.unwrap(), b"prompt> ");
    journal.append(Stream::Stdout, 10, b"answer\n").unwrap();
    assert_eq!(showing.next().await.unwrap(), b"answer\n");
    journal.append(Stream::Stdout, 11, b"last").unwrap();
    journal.finish();
    assert_eq!(showing.next().await.unwrap(), b"last");
    assert_eq!(showing.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn following_ends_at_the_moment_that_was_asked_for() {
    let (_dir, journal) = journal(3).await;
    let until = format!("{}", now_ns() / 1_000_000_000 + 5);
    let choice = parameters(&[("until", &until), ("follow", "1")]).choice().unwrap();
    let mut showing = Showing::begin(journal.clone(), choice, true).await.unwrap();
    assert_eq!(showing.next().await.unwrap(), numbers(0..3).as_bytes());
    let began = Instant::now();
    assert_eq!(showing.next().await, None);
    assert!(began.elapsed() > Duration::from_secs(3) && began.elapsed() < Duration::from_secs(7));
}

#[test]
fn parameters_are_docker_s() {
    let refused = |pairs: &[(&str, &str)]| parameters(pairs).choice().unwrap_err();
    let neither = refused(&[("stdout", "0"), ("stderr", "")]);
    assert_eq!(neither.message, "Bad parameters: you must choose at least one stream");
    assert_eq!(neither.status, 400);
    for wrong in ["yesterday", "1.x", "1.2.3", "x.1", "1h"] {
        let error = refused(&[("since", wrong)]);
        assert!(error.message.contains("invalid value for \"since\""), "{error:?}");
    }
    let check = |text: &str, ns: u64| assert_eq!(moment("until", text).unwrap(), ns, "{text}");
    check("", 0);
    check("0", 0);
    check("1700000000.25", 1_700_000_000_250_000_000);
    check("1700000000.000000001", 1_700_000_000_000_000_001);
    check("1700000000.0000000019", 1_700_000_000_000_000_001);
    // Go's time of zero
    check("-62135596800", 0);
    check("9223372036854775807", u64::MAX);
    for (text, expected) in [("1", true), ("true", true), ("0", false), ("False", false), ("none", false), ("", false)]
    {
        assert_eq!(is_true(text), expected, "{text}");
    }
}
