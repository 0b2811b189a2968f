//! Restart policies: whether a machine that is off is powered on again by itself, and when.
//!
//! It decides by docker's rules: 100 ms at first, twice as long each time and a minute at most, and from the beginning when the process has run for ten seconds.

use std::sync::Arc;
use std::time::Duration;

use bollard_stubs::models::{RestartPolicy, RestartPolicyNameEnum};
use tokio::time::sleep;

use super::Maker;
use crate::containers::{Container, State};
use crate::serve::say;

/// When a container is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Policy {
    Never,
    /// After a failure; so often, if it is not 0.
    OnFailure(u32),
    UnlessStopped,
    Always,
}

impl Policy {
    pub(super) fn of(container: &Container) -> Policy {
        let made = container.made();
        let policy = made.as_ref().and_then(|made| made.host()?.restart_policy.as_ref());
        policy.map_or(Policy::Never, Policy::read)
    }

    fn read(policy: &RestartPolicy) -> Policy {
        let most = || u32::try_from(policy.maximum_retry_count.unwrap_or_default()).unwrap_or_default();
        match policy.name {
            Some(RestartPolicyNameEnum::ALWAYS) => Policy::Always,
            Some(RestartPolicyNameEnum::UNLESS_STOPPED) => Policy::UnlessStopped,
            Some(RestartPolicyNameEnum::ON_FAILURE) => Policy::OnFailure(most()),
            Some(RestartPolicyNameEnum::NO | RestartPolicyNameEnum::EMPTY) | None => Policy::Never,
        }
    }

    /// Whether what has ended like this is started again, of its own accord or when this program begins. `stopped`: its user wanted it to end.
    pub(super) fn again(self, code: u8, restarts: u32, stopped: bool) -> bool {
        match self {
            Policy::Never => false,
            Policy::OnFailure(most) => code != 0 && (most == 0 || restarts < most),
            Policy::UnlessStopped => !stopped,
            Policy::Always => true,
        }
    }
}

/// How long it rests before it is started again, having run for so long and rested for so long before.
fn pause(ran: Duration, before: Duration) -> Duration {
    match before {
        Duration::ZERO => FIRST,
        _ if ran >= LONG => FIRST,
        before => (before * 2).min(LONGEST),
    }
}

impl Maker {
    /// After a pause; unless its user has something else in mind by then.
    pub(super) fn start_again(self: &Arc<Self>, container: &Arc<Container>, ran: Duration) {
        let mut rest = Duration::ZERO;
        container.change_now(|now| {
            now.rest = pause(ran, now.rest);
            rest = now.rest;
        });
        let (maker, container) = (self.clone(), container.clone());
        tokio::spawn(async move {
            sleep(rest).await;
            let _turn = container.turn().await;
            if !matches!(container.state(), State::Restarting(_)) || container.now().removing {
                return;
            }
            container.change_power(|power| power.restarts += 1);
            if let Err(error) = maker.boot(&container).await {
                say(&format!("{}: it is not started again: {error}", container.name()));
            }
        });
    }
}

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(60);
/// Who has run for so long has recovered.
const LONG: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_dockers() {
        let short = Duration::from_secs(1);
        let mut rest = Duration::ZERO;
        let mut rests = Vec::new();
        for _ in 0..12 {
            rest = pause(short, rest);
            rests.push(rest.as_millis());
        }
        assert_eq!(rests, [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000, 60000]);
        assert_eq!(pause(LONG, rest), FIRST);
    }

    #[test]
    fn policies_are_dockers() {
        let check = |policy: Policy, code, restarts, stopped, expected| {
            assert_eq!(policy.again(code, restarts, stopped), expected, "{policy:?} {code} {restarts} {stopped}");
        };
        check(Policy::Never, 1, 0, false, false);
        check(Policy::OnFailure(0), 0, 0, false, false);
        check(Policy::OnFailure(0), 1, 99, false, true);
        check(Policy::OnFailure(2), 1, 1, false, true);
        check(Policy::OnFailure(2), 1, 2, false, false);
        check(Policy::UnlessStopped, 0, 5, false, true);
        check(Policy::UnlessStopped, 1, 0, true, false);
        check(Policy::Always, 0, 0, true, true);
    }
}
