//! Where the last lines of a journal begin.
//!
//! Segments are read from the last one backwards until they have enough lines, so that a few lines of a long log cost little.

use crate::hub::Stream;
use crate::journal::{Journal, JournalError, Position, Selection};

/// From where to read, and how many of the lines that end there to skip, so that `count` lines are left before `end`. Lines of both streams count, and one that has
/// no end yet. A line that began before the segments that are read is told without its beginning: it would be longer than one of them, or slower than all others.
pub(super) async fn find(journal: &Journal, count: u64, end: Position) -> Result<(Position, u64), JournalError> {
    let mut lines = 0;
    // of each stream, once it is known: whether its last line has no end
    let (mut stdout, mut stderr) = (None, None);
    let mut from = end;
    for start in journal.starts().into_iter().rev().filter(|start| *start < end) {
        let mut reader = journal.read(Selection { from: start, to: Some(from) });
        let mut open = (None, None);
        while let Some(record) = reader.next().await? {
            lines += record.bytes.iter().filter(|&&byte| byte == b'\n').count() as u64;
            let is_open = Some(!record.bytes.ends_with(b"\n"));
            match record.stream {
                Stream::Stdout => open.0 = is_open,
                Stream::Stderr => open.1 = is_open,
            }
        }
        (stdout, stderr) = (stdout.or(open.0), stderr.or(open.1));
        from = start;
        // one more of each stream, whose beginning may be in an earlier segment
        if lines >= count.saturating_add(2) {
            break;
        }
    }
    let unfinished = u64::from(stdout == Some(true)) + u64::from(stderr == Some(true));
    Ok((from, (lines + unfinished).saturating_sub(count)))
}
