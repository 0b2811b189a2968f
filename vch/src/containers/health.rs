//! What a container's health checks have found, as docker keeps it: the verdict, and the last few of them.
//!
//! It decides which verdict is news, and when a check counts as done: when its guest told. When checks run and what they mean is the guest's.

use std::collections::VecDeque;

use wire::status::{Health, Verdict};

/// What is known of them since the process was started.
#[derive(Clone, Debug, Default)]
pub(crate) struct Checks {
    pub(crate) last: Option<Health>,
    /// The latest comes last. A guest tells what is new alone: checks that go as the one before are not here.
    pub(crate) log: VecDeque<Check>,
}

/// A check that was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Check {
    /// Nanoseconds since 1970, by this host's clock: when it was heard.
    pub(crate) heard_ns: u64,
    pub(crate) code: u8,
    pub(crate) output: String,
}

impl Checks {
    /// Of a process that begins just now.
    pub(super) fn begun() -> Checks {
        let health = Health { verdict: Verdict::Starting, failing: 0, code: None, output: String::new() };
        Checks { last: Some(health), log: VecDeque::new() }
    }

    /// Hears what the guest tells; returns the verdict if it is another than before. What was found before this program began is no news.
    pub(super) fn hear(&mut self, health: &Health, now_ns: u64) -> Option<Verdict> {
        if self.last.as_ref() == Some(health) {
            return None;
        }
        let before = self.last.replace(health.clone());
        if let Some(code) = health.code {
            self.log.push_back(Check { heard_ns: now_ns, code, output: health.output.clone() });
            if self.log.len() > KEPT {
                self.log.pop_front();
            }
        }
        before.filter(|before| before.verdict != health.verdict).map(|_| health.verdict)
    }
}

/// Docker's word for it.
pub(crate) fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Starting => "starting",
        Verdict::Healthy => "healthy",
        Verdict::Unhealthy => "unhealthy",
    }
}

/// As many as docker keeps.
const KEPT: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    fn health(verdict: Verdict, failing: u32, code: u8) -> Health {
        Health { verdict, failing, code: Some(code), output: format!("{failing}") }
    }

    #[test]
    fn a_verdict_is_news_when_it_changes_and_five_checks_are_kept() {
        let mut checks = Checks::begun();
        assert_eq!(checks.hear(&health(Verdict::Starting, 1, 1), 10), None);
        assert_eq!(checks.hear(&health(Verdict::Healthy, 0, 0), 20), Some(Verdict::Healthy));
        assert_eq!(checks.hear(&health(Verdict::Healthy, 0, 0), 30), None);
        for failing in 1..3 {
            assert_eq!(checks.hear(&health(Verdict::Healthy, failing, 1), 40), None);
        }
        assert_eq!(checks.hear(&health(Verdict::Unhealthy, 3, 1), 50), Some(Verdict::Unhealthy));
        assert_eq!(checks.hear(&health(Verdict::Unhealthy, 4, 1), 60), None);
        let heard: Vec<u64> = checks.log.iter().map(|check| check.heard_ns).collect();
        assert_eq!(heard, [20, 40, 40, 50, 60]);
    }

    #[test]
    fn what_was_found_before_this_program_began_is_no_news() {
        let mut checks = Checks::default();
        assert_eq!(checks.hear(&health(Verdict::Healthy, 0, 0), 10), None);
        assert_eq!(checks.hear(&health(Verdict::Unhealthy, 3, 1), 20), Some(Verdict::Unhealthy));
    }
}
