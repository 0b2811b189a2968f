//! How long work is shown: a bar on a terminal, elsewhere a line now and then, and nothing at all for what is over within a second.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Shows how far some work is, such as `disk of IMAGE`.
#[derive(Debug)]
pub(super) struct Meter {
    what: String,
    began: Instant,
    told: Option<Instant>,
    bar: Option<ProgressBar>,
}

impl Meter {
    pub(super) fn new(what: &str) -> Meter {
        let bar = io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{prefix} {bar:30} {bytes}/{total_bytes} {msg}");
            let bar = ProgressBar::new(0).with_prefix(format!("vch: {what}"));
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Meter { what: what.to_owned(), began: Instant::now(), told: None, bar }
    }

    pub(super) fn show(&mut self, step: &str, done: u64, total: u64) {
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(done);
            if bar.message() != step {
                bar.set_message(step.to_owned());
            }
            return;
        }
        if self.told.unwrap_or(self.began).elapsed() >= INTERVAL {
            self.told = Some(Instant::now());
            eprintln!("vch: {}: {step}: {} of {} MB", self.what, done / 1_000_000, total / 1_000_000);
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if self.told.is_some() {
            eprintln!("vch: {}: {:.1} s", self.what, self.began.elapsed().as_secs_f64());
        }
    }
}

const INTERVAL: Duration = Duration::from_secs(1);
