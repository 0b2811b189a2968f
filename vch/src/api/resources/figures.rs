//! A container's counters in docker's words: Docker Engine API, `ContainerStats`. Nothing is computed here but units.
//!
//! What the guest does not count is 0. Of memory's counters docker's clients take what a control group of version 1 has, or of version 2: both are there.

use serde_json::{Value, json};
use wire::vitals::{Cpu, DiskIo, Interface, Memory, Stats};

use crate::timestamp;

/// What was counted at one moment.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    /// Nanoseconds since 1970.
    pub(super) at_ns: u64,
    pub(super) stats: Stats,
}

/// One line of `docker stats`. Without a sample the container does not run, and uses nothing.
pub(super) fn told(id: &str, name: &str, before: Option<&Sample>, now: Option<&Sample>) -> Value {
    let time = |sample: Option<&Sample>| match sample {
        Some(sample) => timestamp::format(sample.at_ns),
        // Go's word for never
        None => "0001-01-01T00:00:00Z".into(),
    };
    let none = Stats::default();
    let stats = now.map_or(&none, |sample| &sample.stats);
    let mut pids = json!({ "current": stats.pids });
    if stats.pids_limit > 0 {
        pids["limit"] = stats.pids_limit.into();
    }
    json!({
        "name": format!("/{name}"),
        "id": id,
        "read": time(now),
        "preread": time(before),
        "pids_stats": pids,
        "blkio_stats": {
            "io_service_bytes_recursive": by_disk(&stats.io, |disk| (disk.read_bytes, disk.write_bytes)),
            "io_serviced_recursive": by_disk(&stats.io, |disk| (disk.reads, disk.writes)),
            "io_queue_recursive": [],
            "io_service_time_recursive": [],
            "io_wait_time_recursive": [],
            "io_merged_recursive": [],
            "io_time_recursive": [],
            "sectors_recursive": [],
        },
        // these are of Windows
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": cpu(&stats.cpu),
        "precpu_stats": cpu(&before.map(|sample| sample.stats.cpu.clone()).unwrap_or_default()),
        "memory_stats": memory(&stats.memory),
        "networks": networks(&stats.networks),
    })
}

fn cpu(cpu: &Cpu) -> Value {
    let ns = |us: u64| us.saturating_mul(1000);
    // with one processor it is that one's; of more, only the sum is counted
    let each = if cpu.online == 1 { vec![ns(cpu.usage_us)] } else { Vec::new() };
    json!({
        "cpu_usage": {
            "total_usage": ns(cpu.usage_us),
            "percpu_usage": each,
            "usage_in_kernelmode": ns(cpu.system_us),
            "usage_in_usermode": ns(cpu.user_us),
        },
        "system_cpu_usage": ns(cpu.machine_us),
        "online_cpus": cpu.online,
        "throttling_data": {
            "periods": cpu.periods,
            "throttled_periods": cpu.throttled_periods,
            "throttled_time": ns(cpu.throttled_us),
        },
    })
}

fn memory(memory: &Memory) -> Value {
    let mut stats = json!({
        "anon": memory.anon,
        "file": memory.file,
        "hierarchical_memory_limit": memory.limit,
        "hierarchical_memsw_limit": memory.limit,
    });
    let active_file = memory.file.saturating_sub(memory.inactive_file);
    let counted = [
        ("rss", memory.anon),
        ("cache", memory.file),
        ("active_file", active_file),
        ("inactive_file", memory.inactive_file),
    ];
    for (name, value) in NOT_COUNTED.iter().map(|&name| (name, 0)).chain(counted) {
        stats[name] = value.into();
        stats[format!("total_{name}")] = value.into();
    }
    json!({
        "usage": memory.current,
        "max_usage": memory.peak,
        "limit": if memory.limit == 0 { memory.total } else { memory.limit },
        "stats": stats,
    })
}

/// Docker's counters that the guest does not tell.
const NOT_COUNTED: [&str; 11] = [
    "active_anon",
    "inactive_anon",
    "dirty",
    "mapped_file",
    "pgfault",
    "pgmajfault",
    "pgpgin",
    "pgpgout",
    "rss_huge",
    "unevictable",
    "writeback",
];

fn by_disk(disks: &[DiskIo], counted: impl Fn(&DiskIo) -> (u64, u64)) -> Vec<Value> {
    let both = |disk: &DiskIo| {
        let (read, written) = counted(disk);
        [("read", read), ("write", written)]
            .map(|(op, value)| json!({ "major": disk.major, "minor": disk.minor, "op": op, "value": value }))
    };
    disks.iter().flat_map(both).collect()
}

fn networks(interfaces: &[Interface]) -> Value {
    let one = |interface: &Interface| {
        let counters = json!({
            "rx_bytes": interface.rx_bytes,
            "rx_packets": interface.rx_packets,
            "rx_errors": interface.rx_errors,
            "rx_dropped": interface.rx_dropped,
            "tx_bytes": interface.tx_bytes,
            "tx_packets": interface.tx_packets,
            "tx_errors": interface.tx_errors,
            "tx_dropped": interface.tx_dropped,
        });
        (interface.name.clone(), counters)
    };
    Value::Object(interfaces.iter().map(one).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The keys of a genuine daemon's answer.
    const GOLDEN: &str = "name id read preread pids_stats pids_stats.current blkio_stats blkio_stats.io_service_bytes_recursive \
        blkio_stats.io_serviced_recursive blkio_stats.io_queue_recursive blkio_stats.io_service_time_recursive \
        blkio_stats.io_wait_time_recursive blkio_stats.io_merged_recursive blkio_stats.io_time_recursive \
        blkio_stats.sectors_recursive num_procs storage_stats cpu_stats cpu_stats.cpu_usage cpu_stats.cpu_usage.total_usage \
        cpu_stats.cpu_usage.percpu_usage cpu_stats.cpu_usage.usage_in_kernelmode cpu_stats.cpu_usage.usage_in_usermode \
        cpu_stats.system_cpu_usage cpu_stats.online_cpus cpu_stats.throttling_data.periods \
        cpu_stats.throttling_data.throttled_periods cpu_stats.throttling_data.throttled_time precpu_stats.cpu_usage.total_usage \
        precpu_stats.system_cpu_usage precpu_stats.online_cpus memory_stats.usage memory_stats.max_usage memory_stats.limit \
        memory_stats.stats.active_anon memory_stats.stats.active_file memory_stats.stats.cache memory_stats.stats.dirty \
        memory_stats.stats.hierarchical_memory_limit memory_stats.stats.hierarchical_memsw_limit memory_stats.stats.inactive_anon \
        memory_stats.stats.inactive_file memory_stats.stats.mapped_file memory_stats.stats.pgfault memory_stats.stats.pgmajfault \
        memory_stats.stats.pgpgin memory_stats.stats.pgpgout memory_stats.stats.rss memory_stats.stats.rss_huge \
        memory_stats.stats.total_active_anon memory_stats.stats.total_active_file memory_stats.stats.total_cache \
        memory_stats.stats.total_dirty memory_stats.stats.total_inactive_anon memory_stats.stats.total_inactive_file \
        memory_stats.stats.total_mapped_file memory_stats.stats.total_pgfault memory_stats.stats.total_pgmajfault \
        memory_stats.stats.total_pgpgin memory_stats.stats.total_pgpgout memory_stats.stats.total_rss \
        memory_stats.stats.total_rss_huge memory_stats.stats.total_unevictable memory_stats.stats.total_writeback \
        memory_stats.stats.unevictable memory_stats.stats.writeback networks";

    fn sample(usage_us: u64) -> Sample {
        let stats = Stats {
            memory: Memory { current: 7, limit: 0, total: 100, inactive_file: 3, file: 5, ..Memory::default() },
            cpu: Cpu { usage_us, online: 1, machine_us: 9, ..Cpu::default() },
            io: vec![DiskIo { major: 254, minor: 16, read_bytes: 11, write_bytes: 12, reads: 1, writes: 2 }],
            networks: vec![Interface { name: "eth0".into(), rx_bytes: 21, tx_errors: 22, ..Interface::default() }],
            pids: 4,
            ..Stats::default()
        };
        Sample { at_ns: 1_795_219_048_590_235_578, stats }
    }

    #[test]
    fn every_key_of_a_genuine_daemon_is_there_running_or_not() {
        let (before, now) = (sample(1), sample(2));
        for told in [told("1f", "web", Some(&before), Some(&now)), told("1f", "web", None, None)] {
            for key in GOLDEN.split_whitespace() {
                let found = key.split('.').try_fold(&told, |value, part| value.get(part));
                assert!(found.is_some_and(|value| !value.is_null()), "{key} is not in {told}");
            }
        }
    }

    #[test]
    fn units_are_dockers() {
        let (before, now) = (sample(1), sample(2));
        let told = told("1f", "web", Some(&before), Some(&now));
        assert_eq!(told["read"], "2026-11-20T23:57:28.590235578Z");
        assert_eq!(told["cpu_stats"]["cpu_usage"]["total_usage"], 2000);
        assert_eq!(told["precpu_stats"]["cpu_usage"]["percpu_usage"], json!([1000]));
        assert_eq!((&told["memory_stats"]["limit"], &told["memory_stats"]["usage"]), (&json!(100), &json!(7)));
        assert_eq!(told["memory_stats"]["stats"]["total_inactive_file"], 3);
        assert_eq!(told["blkio_stats"]["io_service_bytes_recursive"][1]["value"], 12);
        assert_eq!(told["networks"]["eth0"]["rx_bytes"], 21);
    }

    #[test]
    fn what_does_not_run_uses_nothing() {
        let told = told("1f", "web", None, None);
        assert_eq!((&told["read"], &told["preread"]), (&json!("0001-01-01T00:00:00Z"), &json!("0001-01-01T00:00:00Z")));
        assert_eq!((&told["memory_stats"]["usage"], &told["pids_stats"]["current"]), (&json!(0), &json!(0)));
    }
}
