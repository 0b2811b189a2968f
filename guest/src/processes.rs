//! Which processes run in the container, from /proc: proc_pid_stat(5), proc_pid_status(5), proc_pid_cmdline(5).
//!
//! PID 1 and the kernel's threads are not the container's. Processes come and go while they are read: one that is gone is left out. This file also
//! sees to it that the answer fits in a message; how it is shown is the host's decision.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;

use nix::unistd::{SysconfVar, sysconf};
use wire::codec::MAX_ENCODED;
use wire::vitals::ProcessInfo;

/// Bytes of arguments that are told of one process, and what is tried when all of them are too long for one message.
const COMMAND_BOUNDS: [usize; 5] = [4096, 1024, 256, 64, 0];
/// What is left for the processes of a message.
const ROOM: usize = MAX_ENCODED - 1024;
/// A process without its arguments, encoded, at most.
const FIXED: usize = 64;
/// The length of an argument, encoded, at most.
const LENGTH: usize = 3;
/// Linux, include/linux/sched.h: PF_KTHREAD.
const KERNEL_THREAD: u64 = 0x0020_0000;

/// Every process of the container, by number.
pub fn list() -> Vec<ProcessInfo> {
    let units = Units::of_this_machine();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut processes: Vec<ProcessInfo> =
        numbers.filter(|&pid| pid != 1).filter_map(|pid| read(Path::new("/proc"), pid, &units)).collect();
    processes.sort_by_key(|process| process.pid);
    fit(&mut processes, ROOM);
    processes
}

/// The process of this number. Its start tells it from a later one of the same number.
pub fn find(pid: u32) -> Option<ProcessInfo> {
    read(Path::new("/proc"), pid, &Units::of_this_machine()).filter(|process| process.pid != 1)
}

struct Units {
    tick_us: u64,
    page: u64,
}

impl Units {
    fn of_this_machine() -> Units {
        Units { tick_us: 1_000_000 / number_of(SysconfVar::CLK_TCK, 100), page: number_of(SysconfVar::PAGE_SIZE, 4096) }
    }
}

fn number_of(variable: SysconfVar, usual: u64) -> u64 {
    sysconf(variable).ok().flatten().and_then(|value| u64::try_from(value).ok()).unwrap_or(usual)
}

/// `None` when it is gone, or a thread of the kernel.
fn read(proc: &Path, pid: u32, units: &Units) -> Option<ProcessInfo> {
    let dir = proc.join(pid.to_string());
    let stat = fs::read(dir.join("stat")).ok()?;
    // the name may hold anything, parentheses and newlines too
    let open = stat.iter().position(|&byte| byte == b'(')?;
    let close = stat.iter().rposition(|&byte| byte == b')')?;
    let name = String::from_utf8_lossy(stat.get(open + 1..close)?);
    let rest = String::from_utf8_lossy(&stat[close + 1..]);
    // numbered as in the manual page, where the state is field 3
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).copied().unwrap_or_default();
    let number = |at: usize| field(at).parse::<u64>().unwrap_or_default();
    if number(9) & KERNEL_THREAD != 0 {
        return None;
    }
    let status = fs::read(dir.join("status")).ok()?;
    let status = String::from_utf8_lossy(&status);
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    // real, effective: ps shows the latter
    let uid = uids.and_then(|uids| uids.split_ascii_whitespace().nth(1)?.parse().ok()).unwrap_or_default();
    let mut command = arguments(&dir);
    if command.is_empty() {
        command.push(format!("[{name}]"));
    }
    shorten(&mut command, COMMAND_BOUNDS[0]);
    Some(ProcessInfo {
        pid,
        // children of PID 1 have no parent in the container
        ppid: u32::try_from(number(4)).ok().filter(|&parent| parent != 1).unwrap_or_default(),
        uid,
        state: field(3).chars().next().unwrap_or('?'),
        cpu_us: (number(14) + number(15)).saturating_mul(units.tick_us),
        started_us: number(22).saturating_mul(units.tick_us),
        resident: number(24).saturating_mul(units.page),
        // the kernel prints a signed number
        terminal: field(7).parse::<i32>().unwrap_or_default().cast_unsigned(),
        command,
    })
}

fn arguments(dir: &Path) -> Vec<String> {
    let mut bytes = Vec::new();
    let bound = COMMAND_BOUNDS[0] as u64;
    let read = File::open(dir.join("cmdline")).and_then(|file| file.take(bound).read_to_end(&mut bytes));
    if read.is_err() || bytes.is_empty() {
        return Vec::new();
    }
    let bytes = bytes.strip_suffix(&[0]).unwrap_or(&bytes);
    bytes.split(|&byte| byte == 0).map(|argument| String::from_utf8_lossy(argument).into_owned()).collect()
}

/// Cuts arguments so that they take at most `bound` bytes.
fn shorten(command: &mut Vec<String>, bound: usize) {
    let mut left = bound;
    command.retain_mut(|argument| {
        if left <= LENGTH {
            return false;
        }
        argument.truncate(argument.floor_char_boundary(left - LENGTH));
        left -= argument.len() + LENGTH;
        true
    });
}

/// Makes them fit: arguments go first, processes last.
fn fit(processes: &mut Vec<ProcessInfo>, room: usize) {
    let size =
        |process: &ProcessInfo| FIXED + process.command.iter().map(|argument| argument.len() + LENGTH).sum::<usize>();
    for bound in COMMAND_BOUNDS {
        processes.iter_mut().for_each(|process| shorten(&mut process.command, bound));
        if processes.iter().map(size).sum::<usize>() <= room {
            return;
        }
    }
    processes.truncate(room / FIXED);
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use wire::message::{Message, Reply};

    use super::*;

    #[test]
    fn a_process_is_told_as_it_is() {
        let mut child =
            Command::new("/bin/sh").args(["-c", "read line", "a b", "", "ü\n"]).stdin(Stdio::piped()).spawn().unwrap();
        // a program that has only just begun has no memory yet
        let found = loop {
            let found = list().into_iter().find(|process| process.pid == child.id()).unwrap();
            if found.state == 'S' && found.resident > 0 {
                break found;
            }
            std::thread::yield_now();
        };
        assert_eq!(super::find(child.id()).map(|again| again.started_us), Some(found.started_us));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!((super::find(child.id()), super::find(1)), (None, None));
        assert_eq!(found.command, ["/bin/sh", "-c", "read line", "a b", "", "ü\n"]);
        assert_eq!(found.ppid, std::process::id());
        assert_eq!(found.uid, nix::unistd::Uid::effective().as_raw());
        assert!(found.started_us > 0, "{found:?}");
    }

    #[test]
    fn neither_pid_1_nor_the_kernel_is_the_containers() {
        let processes = list();
        assert!(processes.iter().all(|process| process.pid > 2 && process.ppid != 1));
        assert!(!processes.iter().any(|process| process.command[0].starts_with("[kworker")));
        assert!(processes.is_sorted_by_key(|process| process.pid));
    }

    #[test]
    fn a_name_cannot_pass_for_figures() {
        let proc = std::env::temp_dir().join(format!("tether-processes-{}", std::process::id()));
        let dir = proc.join("7");
        fs::create_dir_all(&dir).unwrap();
        let stat = "7 (a) Z 1 ) S 1 7 7 34816 7 4194304 1 0 0 0 5 6 0 0 20 0 1 0 300 1000 9 0";
        fs::write(dir.join("stat"), stat).unwrap();
        fs::write(dir.join("status"), "Name:\tx\nUid:\t1000\t1001\t1002\t1003\n").unwrap();
        let found = read(&proc, 7, &Units { tick_us: 10_000, page: 4096 }).unwrap();
        fs::remove_dir_all(&proc).unwrap();
        let expected = ProcessInfo {
            pid: 7,
            ppid: 0,
            uid: 1001,
            state: 'S',
            cpu_us: 110_000,
            started_us: 3_000_000,
            resident: 9 * 4096,
            terminal: 34816,
            command: vec!["[a) Z 1 ]".into()],
        };
        assert_eq!(found, expected);
        assert_eq!(read(&proc, 7, &Units { tick_us: 1, page: 1 }), None);
    }

    #[test]
    fn any_number_of_processes_fits_in_a_message() {
        let process = |pid, command: &[&str]| ProcessInfo {
            pid,
            ppid: u32::MAX,
            uid: u32::MAX,
            state: '\u{10ffff}',
            cpu_us: u64::MAX,
            started_us: u64::MAX,
            resident: u64::MAX,
            terminal: u32::MAX,
            command: command.iter().map(|&argument| argument.into()).collect(),
        };
        let long = "ü".repeat(3000);
        for (count, command, kept) in [
            (10, vec![long.as_str()], 10),
            (10_000, vec!["program", &long, &long], 10_000),
            (10_000, vec![""; 4096], 10_000),
            (100_000, vec![long.as_str()], ROOM / FIXED),
        ] {
            let mut processes: Vec<ProcessInfo> = (0..count).map(|pid| process(u32::MAX - pid, &command)).collect();
            fit(&mut processes, ROOM);
            assert_eq!(processes.len(), kept);
            let message = Message::Reply { id: u64::MAX, reply: Reply::Processes(processes) };
            assert!(message.encode().len() <= MAX_ENCODED);
        }
    }
}
