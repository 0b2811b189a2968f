//! A process: what runs, as whom, with which rights and limits, and what happens when it ends.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A process to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// The program, then its arguments; never empty. A name without `/` is looked for in the environment's `PATH`.
    pub argv: Vec<String>,
    /// `NAME=VALUE`.
    pub env: Environment,
    /// The directory to run in, absolute; made if it does not exist.
    pub dir: String,
    /// `user[:group]`, names or numbers; empty is root.
    pub user: String,
    /// More groups that it belongs to, names or numbers.
    pub groups: Vec<String>,
    /// Run on a terminal of this size.
    pub terminal: Option<TermSize>,
    /// Its standard input comes from the host; otherwise it is empty.
    pub stdin: bool,
    /// Its output goes to the host from the start; otherwise from [`crate::message::Request::Attach`] on.
    pub attach: bool,
    /// What it may do and use.
    pub rights: Rights,
    /// The signal that asks it to stop (Linux number).
    pub stop_signal: u8,
    /// How long it has to obey that signal before it is killed; none is for ever.
    pub stop_timeout: Option<Duration>,
    /// Whether it is started again when it has ended.
    pub restart: Restart,
    /// How to find out whether it is well.
    pub health: Option<HealthCheck>,
}

/// What a process may do and use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// What remains of root's power: capabilities(7).
    pub capabilities: Capabilities,
    /// No program that it runs can get more rights than it has: prctl(2), `PR_SET_NO_NEW_PRIVS`.
    pub no_new_privileges: bool,
    /// A filter of system calls: the instructions of a BPF program, as seccomp(2) takes them, 8 bytes each, in the machine's order.
    pub seccomp: Option<Vec<u8>>,
    /// Limits: setrlimit(2).
    pub limits: Vec<Limit>,
    /// How readily the kernel ends it for want of memory, from -1000 to 1000: proc_pid_oom_score_adj(5).
    pub oom_score: i16,
}

/// Sets of capabilities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// By number, as bits: the most that it, and whatever it runs, can have.
    pub bounding: u64,
    /// By number, as bits: what a process that is not root's keeps over the start of a program.
    pub ambient: u64,
}

/// What docker leaves to a container's root: CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP, NET_BIND_SERVICE, NET_RAW, SYS_CHROOT,
/// MKNOD, AUDIT_WRITE, SETFCAP.
pub const DOCKERS_CAPABILITIES: u64 = 0xa804_25fb;

/// Every capability that Linux has by 6.12: 0 to 40.
pub const ALL_CAPABILITIES: u64 = (1 << 41) - 1;

impl Default for Capabilities {
    fn default() -> Capabilities {
        Capabilities { bounding: DOCKERS_CAPABILITIES, ambient: 0 }
    }
}

/// A limit of a process's use of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Linux's number of `RLIMIT_...`: getrlimit(2).
    pub resource: u8,
    /// Above it the process is told, or refused; `u64::MAX` is none.
    pub soft: u64,
    /// The most that it may set the soft limit to; `u64::MAX` is none.
    pub hard: u64,
}

/// Whether an ended process is started again. Between two starts lies a pause, which doubles from 100 ms up to a minute, and begins anew once a process has run for
/// 10 seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Restart {
    /// The end is the end.
    #[default]
    No,
    /// However it has ended, unless it was asked to stop.
    Always,
    /// When it has not exited with 0, at most so many times; 0 is without end.
    OnFailure(u32),
}

/// How to find out whether a process is well. The names and defaults are docker's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// The program and its arguments, run beside the process: it is well when they exit with 0.
    pub argv: Vec<String>,
    /// Between the end of a check and the next one.
    pub interval: Duration,
    /// How long a check may take.
    pub timeout: Duration,
    /// How long failures do not count after a start.
    pub start_period: Duration,
    /// Between checks while the start period lasts.
    pub start_interval: Duration,
    /// So many failures in a row are illness.
    pub retries: u32,
}

impl HealthCheck {
    /// A check by that program, as often and as patient as docker's.
    pub fn new(argv: Vec<String>) -> HealthCheck {
        HealthCheck {
            argv,
            interval: Duration::from_secs(30),
            timeout: Duration::from_secs(30),
            start_period: Duration::ZERO,
            start_interval: Duration::from_secs(5),
            retries: 3,
        }
    }
}

/// The signal that asks a process to stop unless its image says otherwise.
pub const SIGTERM: u8 = 15;

/// How long a process has to obey its stop signal unless somebody says otherwise.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(10);

impl Process {
    /// A process of root's in `/`, without variables, that is attached and is as docker would run it.
    pub fn new(argv: Vec<String>) -> Process {
        Process {
            argv,
            env: Environment::default(),
            dir: "/".into(),
            user: String::new(),
            groups: Vec::new(),
            terminal: None,
            stdin: false,
            attach: true,
            rights: Rights::default(),
            stop_signal: SIGTERM,
            stop_timeout: Some(STOP_TIMEOUT),
            restart: Restart::No,
            health: None,
        }
    }
}

/// Environment variables. They often hold secrets, so they are not shown by `Debug`.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment(pub Vec<String>);

impl Environment {
    /// The value of the last assignment to `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find_map(|entry| entry.strip_prefix(name)?.strip_prefix('='))
    }

    /// Sets `NAME=VALUE`, in place of an earlier assignment.
    pub fn set(&mut self, entry: String) {
        let name = entry.split_once('=').map_or(entry.as_str(), |(name, _)| name);
        let same = |old: &String| old.split_once('=').is_some_and(|(old, _)| old == name);
        match self.0.iter().position(same) {
            Some(at) => self.0[at] = entry,
            None => self.0.push(entry),
        }
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} variables]", self.0.len())
    }
}

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct TermSize {
    pub rows: u16,
    pub columns: u16,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_is_not_printed() {
        let env = Environment(vec!["PASSWORD=secret".into()]);
        assert_eq!(format!("{env:?}"), "[1 variables]");
    }

    #[test]
    fn the_last_assignment_counts() {
        let mut env = Environment(vec!["A=1".into(), "AB=2".into()]);
        env.set("A=3".into());
        env.set("C=".into());
        assert_eq!(env.0, ["A=3", "AB=2", "C="]);
        assert_eq!((env.get("A"), env.get("C"), env.get("B")), (Some("3"), Some(""), None));
    }
}
