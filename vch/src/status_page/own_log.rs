//! What serve itself has said lately: it goes to standard error, and is kept here for the log bundle.

use std::collections::VecDeque;
use std::sync::Mutex;

use crate::lock::locked;
use crate::timestamp::{self, now_ns};

#[derive(Debug)]
struct Kept {
    lines: VecDeque<String>,
    bytes: usize,
    dropped: u64,
}

static KEPT: Mutex<Kept> = Mutex::new(Kept { lines: VecDeque::new(), bytes: 0, dropped: 0 });

/// Keeps a line, as long as there is room.
pub(crate) fn said(text: &str) {
    locked(&KEPT).add(format!("{} {text}\n", timestamp::format(now_ns())));
}

/// All that is kept, as text.
pub(super) fn text() -> String {
    let kept = locked(&KEPT);
    let dropped = match kept.dropped {
        0 => String::new(),
        count => format!("({count} earlier lines are not kept)\n"),
    };
    std::iter::once(dropped.as_str()).chain(kept.lines.iter().map(String::as_str)).collect()
}

impl Kept {
    fn add(&mut self, line: String) {
        self.bytes += line.len();
        self.lines.push_back(line);
        while self.bytes > ROOM
            && let Some(oldest) = self.lines.pop_front()
        {
            self.bytes -= oldest.len();
            self.dropped += 1;
        }
    }
}

/// In bytes: some thousand lines.
const ROOM: usize = 512 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_lines_are_kept() {
        let mut kept = Kept { lines: VecDeque::new(), bytes: 0, dropped: 0 };
        (0..100).for_each(|number| kept.add(format!("{number:>10000}")));
        assert_eq!((kept.lines.len(), kept.bytes, kept.dropped), (52, 520_000, 48));
        assert!(kept.lines.back().is_some_and(|last| last.ends_with(" 99")));
        kept.add("x".repeat(ROOM + 1));
        assert_eq!((kept.lines.len(), kept.bytes), (0, 0));
    }
}
