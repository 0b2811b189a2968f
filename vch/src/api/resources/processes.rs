//! A container's processes as ps shows them, in the two forms that people ask for: `ps -ef` and `ps aux`.
//!
//! The guest knows users by number only, and not how much memory a process has reserved.

use serde_json::{Value, json};
use wire::vitals::ProcessInfo;

use super::super::error::ApiError;
use crate::{terminal, timestamp};

/// Which form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Columns {
    Full,
    User,
}

impl Columns {
    /// As the arguments of ps say; without any, docker shows the full form.
    pub(super) fn read(arguments: Option<&str>) -> Result<Columns, ApiError> {
        let Some(arguments) = arguments else { return Ok(Columns::Full) };
        let mut letters: Vec<char> = arguments.chars().filter(|char| !matches!(char, '-' | ' ')).collect();
        letters.sort_unstable();
        match letters.into_iter().collect::<String>().as_str() {
            "ef" => Ok(Columns::Full),
            "aux" => Ok(Columns::User),
            _ => Err(ApiError::bad_parameter(format!(
                "ps is not run here: the processes are a virtual machine's, which tells what `ps -ef` and `ps aux` show, and not {arguments:?}"
            ))),
        }
    }

    /// Docker Engine API, `ContainerTopResponse`. `at_us` is the guest's clock, `now_ns` this host's.
    pub(super) fn table(self, processes: &[ProcessInfo], at_us: u64, now_ns: u64) -> Value {
        let titles: &[&str] = match self {
            Columns::Full => &["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"],
            Columns::User => &["USER", "PID", "%CPU", "%MEM", "VSZ", "RSS", "TTY", "STAT", "START", "TIME", "COMMAND"],
        };
        let row = |process: &ProcessInfo| {
            let age_us = at_us.saturating_sub(process.started_us);
            let started = started(now_ns.saturating_sub(age_us.saturating_mul(1000)), now_ns);
            // tenths of a percent of the time that it has been there
            let busy = process.cpu_us.saturating_mul(1000).checked_div(age_us).unwrap_or_default();
            let seconds = process.cpu_us / 1_000_000;
            let user = user(process.uid);
            let (pid, terminal) = (process.pid.to_string(), terminal::name_of(process.terminal));
            let command = process.command.join(" ").replace(|char: char| char.is_control(), "?");
            match self {
                Columns::Full => {
                    let time = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
                    let (ppid, busy) = (process.ppid.to_string(), (busy / 10).to_string());
                    vec![user, pid, ppid, busy, started, terminal, time, command]
                }
                Columns::User => {
                    let busy = format!("{}.{}", busy / 10, busy % 10);
                    let resident = (process.resident / 1024).to_string();
                    let time = format!("{}:{:02}", seconds / 60, seconds % 60);
                    let state = process.state.to_string();
                    vec![user, pid, busy, "-".into(), "-".into(), resident, terminal, state, started, time, command]
                }
            }
        };
        json!({ "Titles": titles, "Processes": processes.iter().map(row).collect::<Vec<_>>() })
    }
}

/// Names are the container's own, and only root is the same everywhere.
fn user(uid: u32) -> String {
    if uid == 0 { "root".into() } else { uid.to_string() }
}

/// As ps has it: the hour of today, the day of this year, or the year. UTC.
fn started(then_ns: u64, now_ns: u64) -> String {
    let (then, now) = (timestamp::format(then_ns), timestamp::format(now_ns));
    // 2026-01-31T23:59:59...
    let month = then[5..7].parse::<usize>().unwrap_or(1);
    match () {
        () if then[..10] == now[..10] => then[11..16].into(),
        () if then[..4] == now[..4] => format!("{}{}", MONTHS[(month - 1) % 12], &then[8..10]),
        () => then[..4].into(),
    }
}

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

#[cfg(test)]
mod tests {
    use super::*;

    fn process() -> ProcessInfo {
        ProcessInfo {
            pid: 71,
            ppid: 1,
            uid: 0,
            state: 'S',
            cpu_us: 3_661_000_000,
            started_us: 1_000_000,
            resident: 8192,
            terminal: 0x8803,
            command: vec!["sh".into(), "-c".into(), "\x1b[2J".into()],
        }
    }

    /// 2026-11-20T23:57:28Z
    const NOW: u64 = 1_795_219_048_000_000_000;

    #[test]
    fn both_forms_are_as_ps_has_them() {
        // it began an hour and two seconds before
        let at_us = 3_603_000_000;
        let full = Columns::Full.table(&[process()], at_us, NOW);
        assert_eq!(full["Titles"], json!(["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]));
        assert_eq!(full["Processes"], json!([["root", "71", "1", "101", "22:57", "pts/3", "01:01:01", "sh -c ?[2J"]]));
        let user = Columns::User.table(&[ProcessInfo { uid: 33, ..process() }], at_us, NOW);
        let row = json!([["33", "71", "101.6", "-", "-", "8", "pts/3", "S", "22:57", "61:01", "sh -c ?[2J"]]);
        assert_eq!(user["Processes"], row);
        assert_eq!(user["Titles"].as_array().map(Vec::len), user["Processes"][0].as_array().map(Vec::len));
    }

    #[test]
    fn a_start_of_yesterday_has_a_day() {
        let day = 86_400_000_000_000;
        assert_eq!(started(NOW - day, NOW), "Nov19");
        assert_eq!(started(NOW - 400 * day, NOW), "2025");
    }

    #[test]
    fn other_arguments_are_refused() {
        for (arguments, columns) in [("-ef", Columns::Full), ("-e -f", Columns::Full), ("aux", Columns::User)] {
            assert_eq!(Columns::read(Some(arguments)), Ok(columns));
        }
        assert_eq!(Columns::read(None), Ok(Columns::Full));
        for odd in ["-o pid", "--help", "l", "aux; reboot"] {
            assert!(Columns::read(Some(odd)).unwrap_err().message.contains("ps is not run here"), "{odd}");
        }
    }
}
