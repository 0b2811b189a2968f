//! How a container is: what docker calls its state, and the few words of `docker ps` about it.
//!
//! It decides which states there are. What moves a container from one to the next: [`super::keeper`].

use serde::{Deserialize, Serialize};

/// How a container is. Times are nanoseconds since 1970, by this host's clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum State {
    /// Its machine is there, and its process is held until somebody starts it; or nothing is known of the process yet.
    Created,
    Running(Running),
    /// Its process has ended like this, and this host powers its machine on again in a while.
    Restarting(Exited),
    Exited(Exited),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Running {
    /// By the machine's own count.
    pub(crate) pid: u32,
    pub(crate) started_ns: u64,
    /// Its machine's processors stand still.
    #[serde(default)]
    pub(crate) paused: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Exited {
    /// 0: it never ran.
    pub(crate) started_ns: u64,
    pub(crate) finished_ns: u64,
    /// Docker's: 128 + n after signal n.
    pub(crate) code: u8,
    pub(crate) oom: bool,
    /// Why it could not be run, or was given up.
    pub(crate) error: String,
}

impl State {
    /// Docker's word for it.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            State::Created => "created",
            State::Running(Running { paused: true, .. }) => "paused",
            State::Running(_) => "running",
            State::Restarting(_) => "restarting",
            State::Exited(_) => "exited",
        }
    }

    pub(crate) fn is_running(&self) -> bool {
        matches!(self, State::Running(_))
    }

    pub(crate) fn is_paused(&self) -> bool {
        matches!(self, State::Running(Running { paused: true, .. }))
    }

    /// It runs, or will in a while without anybody's doing: docker counts both as running.
    pub(crate) fn is_active(&self) -> bool {
        matches!(self, State::Running(_) | State::Restarting(_))
    }

    /// The column STATUS of `docker ps`.
    pub(crate) fn status(&self, now_ns: u64) -> String {
        let since = |then: u64| human(now_ns.saturating_sub(then) / 1_000_000_000);
        match self {
            State::Created => "Created".into(),
            State::Running(running) => {
                let paused = if running.paused { " (Paused)" } else { "" };
                format!("Up {}{paused}", since(running.started_ns))
            }
            State::Restarting(exited) => format!("Restarting ({}) {} ago", exited.code, since(exited.finished_ns)),
            State::Exited(exited) => format!("Exited ({}) {} ago", exited.code, since(exited.finished_ns)),
        }
    }
}

/// A time as docker rounds it: go-units, `HumanDuration`.
pub(crate) fn human(seconds: u64) -> String {
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match () {
        () if seconds < 1 => "Less than a second".into(),
        () if seconds == 1 => "1 second".into(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".into(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".into(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        () if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rounded_as_docker_rounds_them() {
        let check = |seconds, expected: &str| assert_eq!(human(seconds), expected);
        check(0, "Less than a second");
        check(1, "1 second");
        check(59, "59 seconds");
        check(60, "About a minute");
        check(119, "About a minute");
        check(120, "2 minutes");
        check(3599, "59 minutes");
        check(3600, "About an hour");
        check(5400, "2 hours");
        check(86_400 * 2, "2 days");
        check(86_400 * 21, "3 weeks");
        check(86_400 * 90, "3 months");
        check(86_400 * 800, "2 years");
    }

    #[test]
    fn each_state_has_dockers_words() {
        let second = 1_000_000_000;
        let running = State::Running(Running { pid: 7, started_ns: second, paused: false });
        assert_eq!((running.word(), running.status(6 * second).as_str()), ("running", "Up 5 seconds"));
        let paused = State::Running(Running { pid: 7, started_ns: second, paused: true });
        assert_eq!((paused.word(), paused.status(6 * second).as_str()), ("paused", "Up 5 seconds (Paused)"));
        let exited = Exited { started_ns: 1, finished_ns: second, code: 3, oom: false, error: String::new() };
        let restarting = State::Restarting(exited.clone());
        let shown = (restarting.word(), restarting.status(2 * second));
        assert_eq!(shown, ("restarting", "Restarting (3) 1 second ago".into()));
        let exited = State::Exited(exited);
        assert_eq!((exited.word(), exited.status(61 * second).as_str()), ("exited", "Exited (3) About a minute ago"));
        assert_eq!(State::Created.status(0), "Created");
    }
}
