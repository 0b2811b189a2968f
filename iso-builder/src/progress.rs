//! How long work is told to whoever waits: a bar on a terminal, a plain line every 15 seconds elsewhere, an event for a machine.
//!
//! All of it goes to stderr: stdout carries results. It decides nothing about what is done, and the image writers do
//! not know it.

use std::io::{IsTerminal, Write as _, stderr};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::view::text;

/// How progress is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A bar that redraws itself.
    Bar,
    /// Lines, few enough for the log of a CI job.
    Lines,
    /// A JSON object on a line of its own, once a second and at the end.
    Events,
    Nothing,
}

/// Decides for the whole program; the first decision stands. Without one, a terminal gets bars and everything else lines.
pub fn choose(mode: Mode) {
    MODE.get_or_init(|| mode);
}

/// Says something that whoever waits may want to know: a line, or an event for a machine.
pub fn note(message: &str) {
    match MODE.get() {
        Some(Mode::Events) => say(&serde_json::json!({"event": "note", "message": message}).to_string()),
        _ => say(message),
    }
}

static MODE: OnceLock<Mode> = OnceLock::new();

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Bytes,
    Steps,
}

/// One long piece of work. Dropped, it takes its bar off the terminal.
pub struct Progress {
    told: Told,
    begun: Instant,
    sink: Sink,
}

impl Progress {
    /// Starts telling about `what`, which takes `total` steps, as far as one can say beforehand.
    pub fn start(what: &str, total: u64) -> Progress {
        Progress::of(Unit::Steps, what, total)
    }

    /// The same for work on so many bytes: told with its rate.
    pub fn bytes(what: &str, total: u64) -> Progress {
        Progress::of(Unit::Bytes, what, total)
    }

    fn of(unit: Unit, what: &str, total: u64) -> Progress {
        let mode = MODE.get().copied().unwrap_or(match stderr().is_terminal() {
            true => Mode::Bar,
            false => Mode::Lines,
        });
        let begun = Instant::now();
        let sink = match mode {
            Mode::Bar => Sink::Bar(bar(unit, what, total)),
            Mode::Lines => Sink::Lines { last: begun },
            Mode::Events => Sink::Events { last: None },
            Mode::Nothing => Sink::Nothing,
        };
        Progress { told: Told { unit, what: what.to_owned(), done: 0, total, elapsed: Duration::ZERO }, begun, sink }
    }

    /// So many more steps are done.
    pub fn advance(&mut self, steps: u64) {
        self.reach(self.told.done + steps, self.told.total);
    }

    /// So many steps are done, of so many in all.
    pub fn reach(&mut self, done: u64, total: u64) {
        // An estimate that was too low must not show more than everything.
        (self.told.done, self.told.total) = (done, total.max(done));
        match &mut self.sink {
            Sink::Bar(bar) => {
                bar.set_length(self.told.total);
                bar.set_position(done);
            }
            Sink::Lines { last } if last.elapsed() >= INTERVAL => {
                *last = Instant::now();
                self.told.elapsed = self.begun.elapsed();
                say(&self.told.line());
            }
            Sink::Events { last } if last.is_none_or(|last| last.elapsed() >= EVENTS) => {
                *last = Some(Instant::now());
                self.told.elapsed = self.begun.elapsed();
                say(&self.told.event(false));
            }
            Sink::Lines { .. } | Sink::Events { .. } | Sink::Nothing => {}
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.told.elapsed = self.begun.elapsed();
        match &self.sink {
            Sink::Bar(bar) => bar.finish_and_clear(),
            // Who was told that it goes on is told that it is over.
            Sink::Lines { .. } if self.told.elapsed >= INTERVAL => say(&self.told.last_line()),
            Sink::Events { .. } => say(&self.told.event(true)),
            Sink::Lines { .. } | Sink::Nothing => {}
        }
    }
}

/// Nobody may be there to read; the work goes on.
fn say(line: &str) {
    writeln!(stderr(), "{line}").ok();
}

enum Sink {
    Bar(ProgressBar),
    Lines { last: Instant },
    Events { last: Option<Instant> },
    Nothing,
}

/// What there is to say at a moment.
struct Told {
    unit: Unit,
    what: String,
    done: u64,
    total: u64,
    elapsed: Duration,
}

impl Told {
    /// `unpack: 45 %, 120.0 MiB of 266.0 MiB, 8.0 MiB/s, 18 s left`
    fn line(&self) -> String {
        let mut line = format!("{}: {} %", self.what, percent(self.done, self.total));
        if self.unit == Unit::Bytes {
            line += &format!(", {} of {}", text::size(self.done), text::size(self.total));
            line += &self.rate().map(|rate| format!(", {}/s", text::size(rate))).unwrap_or_default();
        }
        line + &self.left().map(|secs| format!(", {} left", span(secs))).unwrap_or_default()
    }

    /// `unpack: 266.0 MiB in 33 s`; what was broken off says how far it came.
    fn last_line(&self) -> String {
        let taken = span(self.elapsed.as_secs());
        match (self.done >= self.total, self.unit) {
            (true, Unit::Bytes) => format!("{}: {} in {taken}", self.what, text::size(self.done)),
            (true, Unit::Steps) => format!("{}: done in {taken}", self.what),
            (false, _) => format!("{}: ended at {} % after {taken}", self.what, percent(self.done, self.total)),
        }
    }

    fn event(&self, ended: bool) -> String {
        let unit = match self.unit {
            Unit::Bytes => "bytes",
            Unit::Steps => "steps",
        };
        let millis = u64::try_from(self.elapsed.as_millis()).unwrap_or(u64::MAX);
        serde_json::json!({
            "event": "progress",
            "what": self.what,
            "unit": unit,
            "done": self.done,
            "total": self.total,
            "milliseconds": millis,
            "ended": ended,
        })
        .to_string()
    }

    /// Bytes a second, over all the time so far.
    fn rate(&self) -> Option<u64> {
        let millis = self.elapsed.as_millis();
        u64::try_from((u128::from(self.done) * 1000).checked_div(millis)?).ok()
    }

    /// Seconds, if it goes on as it did.
    fn left(&self) -> Option<u64> {
        let rest = u128::from(self.total - self.done.min(self.total));
        let secs = (self.elapsed.as_millis() * rest).checked_div(u128::from(self.done))?.div_ceil(1000);
        u64::try_from(secs).ok()
    }
}

fn bar(unit: Unit, what: &str, total: u64) -> ProgressBar {
    let template = match unit {
        // short enough for 50 columns, where the bar has shrunk to nothing
        Unit::Bytes => "{msg} {wide_bar} {percent} % of {binary_total_bytes} {binary_bytes_per_sec} {eta} left",
        Unit::Steps => "{msg} {wide_bar} {percent} % {elapsed} {eta} left",
    };
    let style = ProgressStyle::with_template(template).expect("the template is valid");
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(8));
    bar.set_style(style);
    bar.set_message(what.to_owned());
    bar
}

fn percent(done: u64, total: u64) -> u128 {
    (u128::from(done) * 100).checked_div(u128::from(total)).unwrap_or(100)
}

/// `12 s`, `3 min 05 s`, `2 h 10 min`
fn span(secs: u64) -> String {
    match secs {
        0..60 => format!("{secs} s"),
        60..3600 => format!("{} min {:02} s", secs / 60, secs % 60),
        _ => format!("{} h {:02} min", secs / 3600, secs / 60 % 60),
    }
}

/// Often enough to show life in a CI log, rarely enough not to fill it.
const INTERVAL: Duration = Duration::from_secs(15);

/// Often enough for whoever draws them.
const EVENTS: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn told(unit: Unit, done: u64, total: u64, secs: u64) -> Told {
        Told { unit, what: "unpack".to_owned(), done, total, elapsed: Duration::from_secs(secs) }
    }

    #[test]
    fn percents_stay_within_bounds() {
        assert_eq!(percent(0, 0), 100);
        assert_eq!(percent(1, 3), 33);
        assert_eq!(percent(3, 3), 100);
        assert_eq!(percent(u64::MAX, u64::MAX), 100);
    }

    #[test]
    fn an_estimate_that_was_too_low_grows() {
        let mut progress = Progress::start("work", 2);
        progress.advance(5);
        assert_eq!((progress.told.done, progress.told.total), (5, 5));
    }

    #[test]
    fn lines_say_how_much_how_fast_and_how_long() {
        let mib = 1 << 20;
        for (told, line) in [
            (told(Unit::Bytes, 120 * mib, 266 * mib, 15), "unpack: 45 %, 120.0 MiB of 266.0 MiB, 8.0 MiB/s, 19 s left"),
            (told(Unit::Bytes, 0, 266 * mib, 15), "unpack: 0 %, 0 B of 266.0 MiB, 0 B/s"),
            (told(Unit::Steps, 10, 100, 30), "unpack: 10 %, 4 min 30 s left"),
            (told(Unit::Steps, 1, 100, 150), "unpack: 1 %, 4 h 07 min left"),
            (told(Unit::Steps, 0, 0, 0), "unpack: 100 %"),
        ] {
            assert_eq!(told.line(), line);
        }
        assert_eq!(told(Unit::Bytes, mib, mib, 15).last_line(), "unpack: 1.0 MiB in 15 s");
        assert_eq!(told(Unit::Steps, 5, 5, 61).last_line(), "unpack: done in 1 min 01 s");
        assert_eq!(told(Unit::Steps, 1, 5, 61).last_line(), "unpack: ended at 20 % after 1 min 01 s");
    }

    #[test]
    fn events_are_one_object_a_line() {
        let event = told(Unit::Bytes, 5, 10, 2).event(true);
        assert!(!event.contains('\n'));
        let event: serde_json::Value = serde_json::from_str(&event).unwrap();
        assert_eq!((&event["done"], &event["total"], &event["milliseconds"]), (&5.into(), &10.into(), &2000.into()));
        assert_eq!(
            (&event["event"], &event["unit"], &event["ended"]),
            (&"progress".into(), &"bytes".into(), &true.into())
        );
    }
}
