//! `vch ps`, `top` and `stats`: what is told, as tables for a person.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::sleep;
use wire::message::{self, Reply};
use wire::status::{Ending, ProcessState, Verdict};
use wire::vitals::{ProcessInfo, Stats};

use super::commands::refused;
use super::question;
use crate::cli::{PsArgs, StatsArgs, TopArgs};
use crate::control::{Address, Request, Vm, VmState};
use crate::ids;
use crate::terminal;

pub(super) async fn ps(args: &PsArgs) -> Result<u8> {
    let vms = list(&args.control.address()).await?;
    if args.quiet {
        let ids: String = vms.iter().map(|vm| format!("{}\n", vm.vm)).collect();
        return print(&ids);
    }
    let mut table = Table::new(&["VM", "STATUS", "PID", "LINK", "TETHER"]);
    for vm in vms {
        let (mut status, pid) = status(&vm.state);
        status.push_str(&wellness(&vm));
        let link = if vm.connected { "up" } else { "down" };
        table.row(vec![short(&vm.vm), status, pid, link.into(), vm.version.unwrap_or_else(|| "-".into())]);
    }
    print(&table.to_string())
}

pub(super) async fn top(args: &TopArgs) -> Result<u8> {
    let request = Request::Ask { vm: args.vm.clone(), ask: message::Request::Top };
    match question(&args.control.address(), &request).await? {
        Reply::Processes(processes) => print(&processes_table(&processes).to_string()),
        reply => Err(refused(reply).into()),
    }
}

pub(super) async fn stats(args: &StatsArgs) -> Result<u8> {
    let address = args.control.address();
    let vms = match args.vms.as_slice() {
        [] => list(&address).await?.into_iter().filter(|vm| vm.connected).map(|vm| vm.vm).collect(),
        vms => vms.to_vec(),
    };
    let mut before = sample(&address, &vms).await?;
    loop {
        // processor time is a difference
        sleep(INTERVAL).await;
        let now = sample(&address, &vms).await?;
        let text = stats_table(&vms, &before, &now).to_string();
        if args.no_stream {
            return print(&text);
        }
        // to the top of the screen, and nothing below
        let text = if io::stdout().is_terminal() { format!("\x1b[H\x1b[2J{text}") } else { text };
        print(&text)?;
        before = now;
    }
}

/// Between two lines about one VM.
const INTERVAL: Duration = Duration::from_secs(1);

async fn list(address: &Address) -> Result<Vec<Vm>> {
    question(address, &Request::List).await
}

async fn sample(address: &Address, vms: &[String]) -> Result<Vec<Stats>> {
    let mut samples = Vec::new();
    for vm in vms {
        let request = Request::Ask { vm: vm.clone(), ask: message::Request::Stats };
        match question(address, &request).await.with_context(|| format!("no figures of {vm}"))? {
            Reply::Stats(stats) => samples.push(*stats),
            reply => return Err(refused(reply).into()),
        }
    }
    Ok(samples)
}

pub(super) fn print(text: &str) -> Result<u8> {
    match io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("cannot write"),
        _ => Ok(0),
    }
}

/// Docker shows twelve characters of an id; a name of another kind is shown as it is.
fn short(vm: &str) -> String {
    let id = vm.len() == 64 && vm.bytes().all(|byte| byte.is_ascii_hexdigit());
    if id { ids::short(vm).into() } else { vm.into() }
}

fn status(state: &VmState) -> (String, String) {
    match state {
        VmState::Booting => ("booting".into(), "-".into()),
        VmState::Waiting => ("held".into(), "-".into()),
        VmState::Running { pid } => ("running".into(), pid.to_string()),
        VmState::Ended(exit) => {
            let oom = if exit.oom { ", out of memory" } else { "" };
            match exit.ending {
                Ending::Exited { code } => (format!("exited ({code}{oom})"), "-".into()),
                Ending::Signaled { signal, .. } => (format!("killed (signal {signal}{oom})"), "-".into()),
            }
        }
        VmState::Failed(failure) => (format!("failed: {}", failure.reason), "-".into()),
        VmState::Gone { reason } => (format!("gone: {reason}"), "-".into()),
    }
}

/// What the status says beyond the state of the process: `(healthy)`, as docker has it.
fn wellness(vm: &Vm) -> String {
    // its own session has the VM's name
    let main = vm.machine.as_ref().and_then(|machine| machine.sessions.get(&vm.vm));
    let Some(main) = main.filter(|_| matches!(vm.state, VmState::Running { .. })) else { return String::new() };
    let health = main.health.as_ref().map(|health| match health.verdict {
        Verdict::Starting => " (health: starting)",
        Verdict::Healthy => " (healthy)",
        Verdict::Unhealthy => " (unhealthy)",
    });
    match (main.state, main.restarts) {
        (ProcessState::Restarting, times) => format!(", restarting ({times})"),
        (_, 0) => health.unwrap_or_default().to_owned(),
        (_, times) => format!("{}, restarted {times} times", health.unwrap_or_default()),
    }
}

fn processes_table(processes: &[ProcessInfo]) -> Table {
    let mut table = Table::new(&["UID", "PID", "PPID", "STAT", "RSS", "TTY", "TIME", "CMD"]);
    for process in processes {
        let seconds = process.cpu_us / 1_000_000;
        table.row(vec![
            process.uid.to_string(),
            process.pid.to_string(),
            process.ppid.to_string(),
            process.state.to_string(),
            size(process.resident, 1024.0),
            terminal::name_of(process.terminal),
            format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60),
            process.command.join(" ").replace(|char: char| char.is_control(), "?"),
        ]);
    }
    table
}

fn stats_table(vms: &[String], before: &[Stats], now: &[Stats]) -> Table {
    let mut table = Table::new(&["VM", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS"]);
    for (vm, (before, now)) in vms.iter().zip(before.iter().zip(now)) {
        // as docker counts: without what the kernel can take back at once
        let used = now.memory.current.saturating_sub(now.memory.inactive_file);
        let limit = if now.memory.limit == 0 { now.memory.total } else { now.memory.limit };
        let sum = |values: &mut dyn Iterator<Item = u64>| size(values.sum(), 1000.0);
        table.row(vec![
            short(vm),
            percent(now.cpu.usage_us.saturating_sub(before.cpu.usage_us), now.at_us.saturating_sub(before.at_us)),
            format!("{} / {}", size(used, 1024.0), size(limit, 1024.0)),
            percent(used, limit),
            format!(
                "{} / {}",
                sum(&mut now.networks.iter().map(|network| network.rx_bytes)),
                sum(&mut now.networks.iter().map(|network| network.tx_bytes))
            ),
            format!(
                "{} / {}",
                sum(&mut now.io.iter().map(|disk| disk.read_bytes)),
                sum(&mut now.io.iter().map(|disk| disk.write_bytes))
            ),
            now.pids.to_string(),
        ]);
    }
    table
}

#[allow(clippy::cast_precision_loss)] // for a person
fn percent(part: u64, whole: u64) -> String {
    if whole == 0 { "-".into() } else { format!("{:.2}%", part as f64 * 100.0 / whole as f64) }
}

/// As docker writes them: 1.5MB in thousands, 1.5MiB in 1024s.
#[allow(clippy::cast_precision_loss)] // for a person
fn size(bytes: u64, base: f64) -> String {
    let units = if base > 1000.0 { ["B", "KiB", "MiB", "GiB", "TiB"] } else { ["B", "kB", "MB", "GB", "TB"] };
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= base && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes}B"),
        _ if value < 10.0 => format!("{value:.2}{}", units[unit]),
        _ => format!("{value:.1}{}", units[unit]),
    }
}

/// Columns as wide as what is in them.
struct Table(Vec<Vec<String>>);

impl Table {
    fn new(head: &[&str]) -> Table {
        Table(vec![head.iter().map(|&text| text.to_owned()).collect()])
    }

    fn row(&mut self, row: Vec<String>) {
        self.0.push(row);
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let width = |column: usize| self.0.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.0[0].len()).map(width).collect();
        for row in &self.0 {
            let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}"));
            writeln!(f, "{}", cells.collect::<Vec<_>>().join("   ").trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use wire::status::{Exit, Health, SessionStatus, Status};
    use wire::vitals::{Cpu, Interface, Memory};

    use super::*;

    #[test]
    fn sizes_are_dockers() {
        for (bytes, base, text) in [
            (0, 1024.0, "0B"),
            (1023, 1024.0, "1023B"),
            (1536, 1024.0, "1.50KiB"),
            (512 << 20, 1024.0, "512.0MiB"),
            (1500, 1000.0, "1.50kB"),
            (2_000_000_000, 1000.0, "2.00GB"),
        ] {
            assert_eq!(size(bytes, base), text);
        }
    }

    #[test]
    fn states_have_words() {
        let exit = |ending, oom| VmState::Ended(Exit { ending, started_us: 0, ended_us: 0, oom });
        assert_eq!(status(&VmState::Running { pid: 7 }), ("running".into(), "7".into()));
        assert_eq!(status(&exit(Ending::Exited { code: 3 }, false)).0, "exited (3)");
        let killed = Ending::Signaled { signal: 9, core: false };
        assert_eq!(status(&exit(killed, true)).0, "killed (signal 9, out of memory)");
    }

    #[test]
    fn health_and_restarts_are_told() {
        let vm = |state, restarts, verdict: Option<Verdict>| {
            let health = verdict.map(|verdict| Health { verdict, failing: 0, code: None, output: String::new() });
            let session = SessionStatus { session: 0, state, pid: None, exit: None, restarts, health };
            let sessions = [("web".to_owned(), session)].into();
            Vm {
                vm: "web".into(),
                state: VmState::Running { pid: 7 },
                connected: true,
                version: None,
                machine: Some(Status { sessions, ..Status::default() }),
            }
        };
        assert_eq!(wellness(&vm(ProcessState::Running, 0, None)), "");
        assert_eq!(wellness(&vm(ProcessState::Running, 0, Some(Verdict::Healthy))), " (healthy)");
        assert_eq!(
            wellness(&vm(ProcessState::Running, 2, Some(Verdict::Unhealthy))),
            " (unhealthy), restarted 2 times"
        );
        assert_eq!(wellness(&vm(ProcessState::Restarting, 3, None)), ", restarting (3)");
        let ended = Vm { state: VmState::Booting, ..vm(ProcessState::Running, 1, None) };
        assert_eq!(wellness(&ended), "");
    }

    #[test]
    fn figures_make_a_table() {
        let memory = Memory { current: 3 << 20, inactive_file: 1 << 20, total: 256 << 20, ..Memory::default() };
        let stats = |at_us, usage_us| Stats {
            at_us,
            memory: memory.clone(),
            cpu: Cpu { usage_us, ..Cpu::default() },
            pids: 4,
            networks: vec![Interface { rx_bytes: 1500, tx_bytes: 9, ..Interface::default() }],
            ..Stats::default()
        };
        let text = stats_table(&["web".into()], &[stats(1_000_000, 0)], &[stats(2_000_000, 255_000)]).to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "VM    CPU %    MEM USAGE / LIMIT    MEM %   NET I/O       BLOCK I/O   PIDS");
        assert_eq!(lines[1], "web   25.50%   2.00MiB / 256.0MiB   0.78%   1.50kB / 9B   0B / 0B     4");
    }

    #[test]
    fn processes_cannot_write_on_the_terminal() {
        let process = ProcessInfo {
            pid: 2,
            ppid: 1,
            uid: 0,
            state: 'S',
            cpu_us: 3_661_000_000,
            started_us: 0,
            resident: 4096,
            terminal: 0x8803,
            command: vec!["sh".into(), "\x1b[2J".into()],
        };
        let text = processes_table(&[process]).to_string();
        assert!(text.contains("pts/3   01:01:01   sh ?[2J"), "{text}");
    }
}
