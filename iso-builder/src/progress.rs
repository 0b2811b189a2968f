//! How long work is told to whoever waits: a bar on a terminal, a plain line every 15 seconds elsewhere.
//!
//! All of it goes to stderr: stdout carries results. It decides nothing about what is done, and the image writers do
//! not know it.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// One long piece of work. Dropped, it takes its bar off the terminal.
pub struct Progress {
    what: String,
    done: u64,
    total: u64,
    sink: Sink,
}

impl Progress {
    /// Starts telling about `what`, which takes `total` steps, as far as one can say beforehand.
    pub fn start(what: &str, total: u64) -> Progress {
        let sink = match stderr().is_terminal() {
            true => Sink::Bar(bar(what, total)),
            false => Sink::Lines { last: Instant::now() },
        };
        Progress { what: what.to_owned(), done: 0, total, sink }
    }

    /// So many more steps are done.
    pub fn advance(&mut self, steps: u64) {
        self.reach(self.done + steps, self.total);
    }

    /// So many steps are done, of so many in all.
    pub fn reach(&mut self, done: u64, total: u64) {
        (self.done, self.total) = (done, total);
        // An estimate that was too low must not show more than everything.
        self.total = self.total.max(self.done);
        match &mut self.sink {
            Sink::Bar(bar) => {
                bar.set_length(self.total);
                bar.set_position(self.done);
            }
            Sink::Lines { last } if last.elapsed() >= INTERVAL => {
                *last = Instant::now();
                eprintln!("{}: {} %", self.what, percent(self.done, self.total));
            }
            Sink::Lines { .. } => {}
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Sink::Bar(bar) = &self.sink {
            bar.finish_and_clear();
        }
    }
}

enum Sink {
    Bar(ProgressBar),
    Lines { last: Instant },
}

fn bar(what: &str, total: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {percent} % {elapsed}").expect("the template is valid");
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(8));
    bar.set_style(style);
    bar.set_message(what.to_owned());
    bar
}

fn percent(done: u64, total: u64) -> u64 {
    (done * 100).checked_div(total).unwrap_or(100)
}

/// Often enough to show life in a CI log, rarely enough not to fill it.
const INTERVAL: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percents_stay_within_bounds() {
        assert_eq!(percent(0, 0), 100);
        assert_eq!(percent(1, 3), 33);
        assert_eq!(percent(3, 3), 100);
    }

    #[test]
    fn an_estimate_that_was_too_low_grows() {
        let mut progress = Progress::start("work", 2);
        progress.advance(5);
        assert_eq!((progress.done, progress.total), (5, 5));
    }
}
