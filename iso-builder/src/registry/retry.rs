//! How often something is tried again, and after what time. Pure: nobody waits here.

use std::time::Duration;

/// Tries of one thing.
#[derive(Clone, Debug)]
pub(super) struct Retry {
    failed: u32,
    limit: u32,
}

impl Retry {
    /// At most so many tries in a row without progress.
    pub(super) fn new(limit: u32) -> Retry {
        Retry { failed: 0, limit }
    }

    /// Something came: what failed before counts no more.
    pub(super) fn progressed(&mut self) {
        self.failed = 0;
    }

    /// After a failure: how long to wait before the next try, or `None` if there is none. `asked` is what the registry wants one to wait.
    pub(super) fn pause(&mut self, asked: Option<Duration>) -> Option<Duration> {
        self.failed += 1;
        if self.failed >= self.limit || asked.is_some_and(|asked| asked > LONGEST) {
            return None;
        }
        let own = FIRST * 2u32.saturating_pow(self.failed - 1);
        Some(asked.unwrap_or(own.min(LONGEST)))
    }
}

/// `Retry-After` in seconds. Its other form, a date, is taken for none: the pause is then ours.
pub(super) fn retry_after(value: &str) -> Option<Duration> {
    value.trim().parse().ok().map(Duration::from_secs)
}

const FIRST: Duration = Duration::from_millis(250);
/// What wants one to wait longer is an error that says so: nobody looks at a bar that does not move.
const LONGEST: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_end() {
        let mut retry = Retry::new(5);
        let pauses: Vec<_> = (0..5).map(|_| retry.pause(None).map(|pause| pause.as_millis())).collect();
        assert_eq!(pauses, [Some(250), Some(500), Some(1000), Some(2000), None]);
        retry.progressed();
        assert_eq!(retry.pause(None), Some(FIRST));
        assert_eq!(Retry::new(1).pause(None), None);
        let mut long = Retry::new(u32::MAX);
        assert_eq!((0..40).filter_map(|_| long.pause(None)).max(), Some(LONGEST));
    }

    #[test]
    fn the_registrys_wish_counts_unless_it_is_too_long() {
        assert_eq!(Retry::new(5).pause(retry_after("7")), Some(Duration::from_secs(7)));
        assert_eq!(Retry::new(5).pause(retry_after("0")), Some(Duration::ZERO));
        assert_eq!(Retry::new(5).pause(retry_after("3600")), None);
        assert_eq!(retry_after("Wed, 21 Oct 2026 07:28:00 GMT"), None);
    }
}
