//! `-u`, `--cap-add`, `--ulimit`, `--restart`, `--health-cmd` and their kin: the container's process, as docker writes it.

#![allow(rustdoc::broken_intra_doc_links, reason = "these comments are help texts: brackets hold what can be left out")]

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use wire::guestinfo::signal_number;
use wire::spec::{ALL_CAPABILITIES, Limit, Restart};

use crate::timestamp;

/// A containerVM's process.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Process")]
pub struct ProcessArgs {
    /// The directory to run in
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,

    /// The user to run as: a name or number, and a group after a colon
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,

    /// One more group, by name or number
    #[arg(long, value_name = "GROUP")]
    pub group_add: Vec<String>,

    /// Leave a capability to the process, or ALL
    #[arg(long, value_name = "NAME", value_parser = capability)]
    pub cap_add: Vec<u64>,

    /// Take a capability from the process, or ALL
    #[arg(long, value_name = "NAME", value_parser = capability)]
    pub cap_drop: Vec<u64>,

    /// Take nothing from the process: it is alone in its machine
    #[arg(long)]
    pub privileged: bool,

    /// no-new-privileges, or seccomp=FILE with docker's JSON, or seccomp=unconfined, which is so without it
    #[arg(long, value_name = "OPTION", value_parser = security)]
    pub security_opt: Vec<SecurityOpt>,

    /// A limit, soft and hard: nofile=1024:2048; -1 is none
    #[arg(long, value_name = "NAME=SOFT[:HARD]", value_parser = ulimit)]
    pub ulimit: Vec<Limit>,

    /// How readily the kernel ends the process for want of memory
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(i16).range(-1000..=1000), allow_negative_numbers = true)]
    pub oom_score_adj: i16,

    /// Reap orphans and pass signals on: always so
    #[arg(long)]
    pub init: bool,

    /// The signal that asks the process to stop [default: the image's, or TERM]
    #[arg(long, value_name = "SIGNAL", value_parser = signal)]
    pub stop_signal: Option<u8>,

    /// Seconds that it has to obey before it is killed; -1 waits for ever
    #[arg(long, value_name = "SECONDS", default_value_t = 10, allow_negative_numbers = true)]
    pub stop_timeout: i64,

    /// Start the process again when it ends: no, always, unless-stopped, or on-failure[:TIMES]
    #[arg(long, value_name = "POLICY", default_value = "no", value_parser = restart)]
    pub restart: Restart,

    /// A shell command that finds out whether the process is well
    #[arg(long, value_name = "COMMAND")]
    pub health_cmd: Option<String>,

    /// Time between checks, as 30s [default: the image's, or 30s]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub health_interval: Option<Duration>,

    /// What a check may take [default: the image's, or 30s]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub health_timeout: Option<Duration>,

    /// So many failures in a row are illness [default: the image's, or 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub health_retries: Option<u32>,

    /// How long failures do not count after a start [default: the image's, or 0s]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub health_start_period: Option<Duration>,

    /// Time between checks for so long [default: the image's, or 5s]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub health_start_interval: Option<Duration>,

    /// Do without the image's check
    #[arg(long, conflicts_with_all = ["health_cmd", "health_interval", "health_timeout", "health_retries", "health_start_period", "health_start_interval"])]
    pub no_healthcheck: bool,
}

/// One `--security-opt`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecurityOpt {
    NoNewPrivileges(bool),
    /// A file of docker's JSON; none is no filter.
    Seccomp(Option<PathBuf>),
    /// What is so already.
    Nothing,
}

/// Parses `--cap-add`: the capability as a bit, or all of them.
pub fn capability(text: &str) -> Result<u64, String> {
    let name = text.to_uppercase();
    if name == "ALL" {
        return Ok(ALL_CAPABILITIES);
    }
    let name = name.strip_prefix("CAP_").unwrap_or(&name);
    let number = CAPABILITIES.iter().position(|known| *known == name);
    number.map(|number| 1 << number).ok_or_else(|| format!("{text:?} is no capability: see capabilities(7)"))
}

/// Parses `--security-opt`.
pub fn security(text: &str) -> Result<SecurityOpt, String> {
    match text.split_once(['=', ':']).unwrap_or((text, "")) {
        ("no-new-privileges", "" | "true") => Ok(SecurityOpt::NoNewPrivileges(true)),
        ("no-new-privileges", "false") => Ok(SecurityOpt::NoNewPrivileges(false)),
        ("seccomp", "unconfined" | "builtin") => Ok(SecurityOpt::Seccomp(None)),
        ("seccomp", file) if !file.is_empty() => Ok(SecurityOpt::Seccomp(Some(file.into()))),
        ("apparmor", "unconfined") | ("label", "disable") | ("systempaths", "unconfined") => Ok(SecurityOpt::Nothing),
        ("apparmor" | "label", _) => {
            Err("the virtual machine's kernel has neither AppArmor nor SELinux: the machine is the wall".into())
        }
        _ => Err("there are no-new-privileges and seccomp=FILE".into()),
    }
}

/// Parses `--ulimit`.
pub fn ulimit(text: &str) -> Result<Limit, String> {
    let wrong =
        || "write it as nofile=1024 or nofile=1024:2048, with a name of getrlimit(2) in small letters".to_owned();
    let (name, values) = text.split_once('=').ok_or_else(wrong)?;
    let resource = LIMITS.iter().position(|known| *known == name).ok_or_else(wrong)?;
    let value = |text: &str| match text {
        "-1" | "unlimited" => Ok(u64::MAX),
        text => text.parse().map_err(|_| wrong()),
    };
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let (soft, hard) = (value(soft)?, value(hard)?);
    if soft > hard {
        return Err("the soft limit is above the hard one".into());
    }
    Ok(Limit { resource: u8::try_from(resource).map_err(|_| wrong())?, soft, hard })
}

/// Parses `--restart`.
pub fn restart(text: &str) -> Result<Restart, String> {
    match text.split_once(':').unwrap_or((text, "")) {
        ("no" | "", "") => Ok(Restart::No),
        ("always" | "unless-stopped", "") => Ok(Restart::Always),
        ("on-failure", "") => Ok(Restart::OnFailure(0)),
        ("on-failure", times) => {
            times.parse().map(Restart::OnFailure).map_err(|_| format!("{times:?} is no number of times"))
        }
        _ => Err("there are no, always, unless-stopped and on-failure[:TIMES]".into()),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration = timestamp::duration(text).filter(|time| time.is_zero() || *time >= Duration::from_millis(1));
    duration.ok_or_else(|| "write it as 30s, 1m30s or 500ms, at least 1ms".into())
}

fn signal(text: &str) -> Result<u8, String> {
    signal_number(text).ok_or_else(|| "write a signal's name as TERM, or a number from 1 to 64".into())
}

/// Capabilities in the order of their numbers, from 0: capabilities(7), Linux 6.12.
#[rustfmt::skip]
pub const CAPABILITIES: [&str; 41] = [
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
    "CHECKPOINT_RESTORE",
];

/// Limits in the order of their numbers on x86, from 0: getrlimit(2).
#[rustfmt::skip]
const LIMITS: [&str; 16] = [
    "cpu", "fsize", "data", "stack", "core", "rss", "nproc", "nofile", "memlock", "as", "locks", "sigpending",
    "msgqueue", "nice", "rtprio", "rttime",
];

#[cfg(test)]
mod tests {
    use wire::spec::DOCKERS_CAPABILITIES;

    use super::*;

    #[test]
    fn capabilities_have_their_numbers() {
        let dockers = "chown dac_override fowner fsetid kill setgid setuid setpcap net_bind_service net_raw sys_chroot mknod audit_write setfcap";
        let bits = dockers.split(' ').map(|name| capability(name).unwrap()).fold(0, |all, bit| all | bit);
        assert_eq!(bits, DOCKERS_CAPABILITIES);
        assert_eq!(capability("CAP_SYS_ADMIN"), Ok(1 << 21));
        assert_eq!(capability("checkpoint_restore"), Ok(1 << 40));
        assert_eq!(capability("all"), Ok(ALL_CAPABILITIES));
        assert!(capability("SYS_NONE").is_err());
    }

    #[test]
    fn limits_in_dockers_syntax() {
        let check = |text: &str, resource: u8, soft: u64, hard: u64| {
            assert_eq!(ulimit(text), Ok(Limit { resource, soft, hard }), "{text}");
        };
        check("nofile=1024", 7, 1024, 1024);
        check("nofile=1024:2048", 7, 1024, 2048);
        check("core=-1", 4, u64::MAX, u64::MAX);
        check("rttime=5:unlimited", 15, 5, u64::MAX);
        for text in ["", "nofile", "nofile=", "NOFILE=1", "files=1", "nofile=2:1", "nofile=1:2:3", "nofile=-2"] {
            assert!(ulimit(text).is_err(), "{text}");
        }
    }

    #[test]
    fn policies_and_options() {
        let check = |text: &str, expected: Option<Restart>| assert_eq!(restart(text).ok(), expected, "{text}");
        check("no", Some(Restart::No));
        check("always", Some(Restart::Always));
        check("unless-stopped", Some(Restart::Always));
        check("on-failure", Some(Restart::OnFailure(0)));
        check("on-failure:5", Some(Restart::OnFailure(5)));
        check("on-failure:x", None);
        check("always:5", None);
        check("never", None);
        let check = |text: &str, expected: Option<SecurityOpt>| assert_eq!(security(text).ok(), expected, "{text}");
        check("no-new-privileges", Some(SecurityOpt::NoNewPrivileges(true)));
        check("no-new-privileges:true", Some(SecurityOpt::NoNewPrivileges(true)));
        check("no-new-privileges=false", Some(SecurityOpt::NoNewPrivileges(false)));
        check("seccomp=unconfined", Some(SecurityOpt::Seccomp(None)));
        check("seccomp=a.json", Some(SecurityOpt::Seccomp(Some("a.json".into()))));
        check("apparmor=unconfined", Some(SecurityOpt::Nothing));
        check("apparmor=docker-default", None);
        check("seccomp", None);
        check("fast", None);
    }
}
