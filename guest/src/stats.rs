//! What the container uses: the files of its control group and of /proc, as numbers. A file that is not there counts nothing.
//!
//! Sources: the kernel's admin-guide/cgroup-v2.rst, proc_stat(5), proc_meminfo(5), and proc_pid_net(5) for the columns of `dev`.

use std::fs;

use nix::unistd::{SysconfVar, sysconf};
use wire::vitals::{Cpu, DiskIo, Interface, Memory, Stats};

use crate::cgroup::{Cgroup, text, value_of};
use crate::clock;

/// Reads all of it.
pub fn read(cgroup: &Cgroup) -> Stats {
    let proc = |path: &str| fs::read_to_string(path).unwrap_or_default();
    Stats {
        at_us: clock::micros(clock::now()),
        memory: Memory {
            current: number(&text(cgroup.memory_current.as_ref())),
            limit: number(&text(cgroup.memory_max.as_ref())),
            peak: number(&text(cgroup.memory_peak.as_ref())),
            oom_kills: cgroup.oom_kills(),
            ..memory(&text(cgroup.memory_stat.as_ref()), &proc("/proc/meminfo"))
        },
        cpu: cpu(&text(cgroup.cpu_stat.as_ref()), &proc("/proc/stat")),
        pids: number(&text(cgroup.pids_current.as_ref())),
        pids_limit: number(&text(cgroup.pids_max.as_ref())),
        io: text(cgroup.io_stat.as_ref()).lines().filter_map(disk).collect(),
        networks: proc("/proc/net/dev").lines().filter_map(interface).collect(),
    }
}

/// `max`, which is no limit, is 0.
fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or_default()
}

/// What tells caches from needs.
fn memory(stat: &str, meminfo: &str) -> Memory {
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_ascii_whitespace().next());
    Memory {
        anon: value_of(stat, "anon"),
        file: value_of(stat, "file"),
        inactive_file: value_of(stat, "inactive_file"),
        total: number(total.unwrap_or_default()) * 1024,
        ..Memory::default()
    }
}

fn cpu(cpu_stat: &str, proc_stat: &str) -> Cpu {
    /// user, nice, system, idle, iowait, irq, softirq, steal; what follows is contained in the first two.
    const STATES: usize = 8;
    let lines = || proc_stat.lines().filter_map(|line| line.strip_prefix("cpu"));
    let all = lines().find_map(|line| line.strip_prefix(' ')).unwrap_or_default();
    let ticks: u64 = all.split_ascii_whitespace().take(STATES).map(number).sum();
    let tick = sysconf(SysconfVar::CLK_TCK).ok().flatten().and_then(|hertz| u64::try_from(hertz).ok()).unwrap_or(100);
    let online = lines().filter(|line| line.starts_with(|first: char| first.is_ascii_digit())).count();
    Cpu {
        usage_us: value_of(cpu_stat, "usage_usec"),
        user_us: value_of(cpu_stat, "user_usec"),
        system_us: value_of(cpu_stat, "system_usec"),
        periods: value_of(cpu_stat, "nr_periods"),
        throttled_periods: value_of(cpu_stat, "nr_throttled"),
        throttled_us: value_of(cpu_stat, "throttled_usec"),
        online: u32::try_from(online).unwrap_or(u32::MAX),
        machine_us: ticks.saturating_mul(1_000_000 / tick),
    }
}

/// `8:16 rbytes=1459200 wbytes=314773504 rios=192 wios=353 dbytes=0 dios=0`.
fn disk(line: &str) -> Option<DiskIo> {
    let (device, counters) = line.split_once(' ')?;
    let (major, minor) = device.split_once(':')?;
    let counter = |key: &str| {
        let mut pairs = counters.split_ascii_whitespace().filter_map(|pair| pair.split_once('='));
        pairs.find(|&(name, _)| name == key).map_or(0, |(_, value)| number(value))
    };
    Some(DiskIo {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
        read_bytes: counter("rbytes"),
        write_bytes: counter("wbytes"),
        reads: counter("rios"),
        writes: counter("wios"),
    })
}

/// A name, a colon, eight counters of what came and eight of what went. The two lines above them have no colon.
fn interface(line: &str) -> Option<Interface> {
    let (name, counters) = line.split_once(':')?;
    let counters: Vec<u64> = counters.split_ascii_whitespace().map(number).collect();
    let [rx_bytes, rx_packets, rx_errors, rx_dropped, _, _, _, _, tx_bytes, tx_packets, tx_errors, tx_dropped, ..] =
        counters[..]
    else {
        return None;
    };
    let name = name.trim().to_owned();
    (name != "lo").then_some(Interface {
        name,
        rx_bytes,
        rx_packets,
        rx_errors,
        rx_dropped,
        tx_bytes,
        tx_packets,
        tx_errors,
        tx_dropped,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_group_only_the_machine_is_told() {
        let stats = read(&Cgroup::default());
        assert_eq!(Memory { total: 0, ..stats.memory.clone() }, Memory::default());
        assert!(stats.memory.total > 1024 * 1024 && stats.at_us > 0);
        let online = std::thread::available_parallelism().unwrap().get();
        assert!(stats.cpu.online as usize >= online && stats.cpu.machine_us > 0 && stats.cpu.usage_us == 0);
        assert_eq!((stats.pids, stats.pids_limit, stats.io), (0, 0, vec![]));
        assert!(stats.networks.iter().all(|interface| interface.name != "lo"));
    }

    #[test]
    fn memory_is_read_by_whole_names() {
        let stat = "anon 1000\nfile 2000\nkernel 3\nanon_thp 5\ninactive_anon 6\ninactive_file 700\nactive_file 8\n";
        let meminfo = "MemTotal:         251904 kB\nMemFree:            1000 kB\n";
        let expected =
            Memory { anon: 1000, file: 2000, inactive_file: 700, total: 251_904 * 1024, ..Memory::default() };
        assert_eq!(memory(stat, meminfo), expected);
        assert_eq!((number("max\n"), number("4096\n"), number("")), (0, 4096, 0));
    }

    #[test]
    fn processor_time_is_added_up() {
        let group = "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 4\nnr_throttled 3\nthrottled_usec 2\n";
        let machine = "cpu  1 2 3 4 5 6 7 8 90 90\ncpu0 1 1 1 1 1 1 1 1 1 1\ncpu3 0 1 2 3 4 5 6 7 8 9\nintr 5\n";
        let expected = Cpu {
            usage_us: 30,
            user_us: 20,
            system_us: 10,
            periods: 4,
            throttled_periods: 3,
            throttled_us: 2,
            online: 2,
            machine_us: 36 * 10_000,
        };
        assert_eq!(cpu(group, machine), expected);
    }

    #[test]
    fn disks_and_interfaces_are_read_and_headings_are_not() {
        let line = "253:16 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6";
        let expected = DiskIo { major: 253, minor: 16, read_bytes: 1, write_bytes: 2, reads: 3, writes: 4 };
        assert_eq!(disk(line), Some(expected));
        assert_eq!(disk("253:0 "), Some(DiskIo { major: 253, ..DiskIo::default() }));
        assert_eq!(disk("nonsense"), None);
        let dev = "Inter-|   Receive                                                |  Transmit\n \
                   face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs\n    \
                   lo: 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1\n  \
                   eth0:10 11 12 13 14 15 16 17 20 21 22 23 24 25 26 27\n";
        let expected = Interface {
            name: "eth0".into(),
            rx_bytes: 10,
            rx_packets: 11,
            rx_errors: 12,
            rx_dropped: 13,
            tx_bytes: 20,
            tx_packets: 21,
            tx_errors: 22,
            tx_dropped: 23,
        };
        assert_eq!(dev.lines().filter_map(interface).collect::<Vec<_>>(), [expected]);
    }
}
