//! Memory and processors: a machine always has so much of both, by default or because somebody said so.
//!
//! It decides what docker's many ways to limit them are of a machine, and which of them contradict each other. The sentences are docker's: scripts know them.

use bollard_stubs::models::HostConfig;

use super::Refusal;
use crate::cli::run::machine::MachineArgs;
use crate::size;

/// Gives the machine its size; the result is what the container may use of the memory, if that is less than a machine needs.
pub(super) fn read(args: &mut MachineArgs, host: &HostConfig) -> Result<Option<u64>, Refusal> {
    let memory = host.memory.and_then(|bytes| u64::try_from(bytes).ok()).filter(|&bytes| bytes > 0);
    if let Some(bytes) = memory {
        let size = size::memory(&bytes.max(LEAST).to_string());
        args.memory = size.map_err(|why| Refusal(format!("--memory: {why}")))?;
    }
    if let Some(thousandths) = thousandths(host) {
        let whole = format!("{}.{:03}", thousandths / 1000, thousandths % 1000);
        args.cpus = size::cpus(&whole).map_err(|_| too_many())?;
    }
    Ok(memory.filter(|&bytes| bytes < LEAST))
}

/// Thousandths of a processor, if any are asked for.
fn thousandths(host: &HostConfig) -> Option<i64> {
    let (nano, quota) = (host.nano_cpus.unwrap_or_default(), host.cpu_quota.unwrap_or_default());
    let period = host.cpu_period.filter(|&period| period > 0).unwrap_or(PERIOD);
    match () {
        () if nano != 0 => Some((nano + 500_000) / 1_000_000),
        // less than a hundredth cannot be told from none
        () if quota > 0 => Some((quota.saturating_mul(1000) / period).max(10)),
        () => None,
    }
}

/// Refuses what contradicts itself.
pub(super) fn check(host: &HostConfig) -> Result<(), Refusal> {
    let number = |asked: Option<i64>| asked.unwrap_or_default();
    let (memory, swap, reservation) = (number(host.memory), number(host.memory_swap), number(host.memory_reservation));
    let (nano, period, quota) = (number(host.nano_cpus), number(host.cpu_period), number(host.cpu_quota));
    let swappiness = host.memory_swappiness.unwrap_or(-1);
    let weight = host.blkio_weight.unwrap_or_default();
    let rules = [
        (memory < 0 || (1..SMALLEST).contains(&memory), "Minimum memory limit allowed is 6MB"),
        (
            memory > 0 && swap > 0 && swap < memory,
            "Minimum memoryswap limit should be larger than memory limit, see usage",
        ),
        (memory == 0 && swap > 0, "You should always set the Memory limit when using Memoryswap limit, see usage"),
        ((1..SMALLEST).contains(&reservation), "Minimum memory reservation allowed is 6MB"),
        (
            memory > 0 && reservation > memory,
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        ),
        (nano > 0 && period > 0, "Conflicting options: Nano CPUs and CPU Period cannot both be set"),
        (nano > 0 && quota > 0, "Conflicting options: Nano CPUs and CPU Quota cannot both be set"),
        (
            period != 0 && !(1000..=1_000_000).contains(&period),
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        ),
        ((1..1000).contains(&quota), "CPU cfs quota can not be less than 1ms (i.e. 1000)"),
        (weight > 0 && !(10..=1000).contains(&weight), "Range of blkio weight is from 10 to 1000"),
    ];
    if let Some((_, why)) = rules.iter().find(|(broken, _)| *broken) {
        return Err(Refusal((*why).to_owned()));
    }
    if !(-1..=100).contains(&swappiness) {
        return Err(Refusal(format!("Invalid value: {swappiness}, valid memory swappiness range is 0-100")));
    }
    if thousandths(host).is_some_and(|cpus| !(10..=MOST_CPUS * 1000).contains(&cpus)) {
        return Err(too_many());
    }
    for (name, set) in [("cpus", &host.cpuset_cpus), ("mems", &host.cpuset_mems)] {
        let set = set.as_deref().unwrap_or_default();
        if !set.is_empty() && !is_set(set) {
            return Err(Refusal(format!("Invalid value {set} for cpuset {name}")));
        }
    }
    Ok(())
}

/// `0-3,7`
fn is_set(text: &str) -> bool {
    let number = |text: &str| text.parse::<u16>().ok();
    text.split(',').all(|part| match part.split_once('-') {
        None => number(part).is_some(),
        Some((first, last)) => matches!((number(first), number(last)), (Some(first), Some(last)) if first <= last),
    })
}

fn too_many() -> Refusal {
    Refusal(format!("range of CPUs is from 0.01 to {MOST_CPUS}.00, as a virtual machine has at most {MOST_CPUS}"))
}

/// Bytes: what the kernel and its initramfs need. Whoever asks for less gets a limit within such a machine.
const LEAST: u64 = 64 << 20;
/// Bytes: docker takes nothing below.
const SMALLEST: i64 = 6 << 20;
/// Microseconds: the kernel's, where nobody says.
const PERIOD: i64 = 100_000;
const MOST_CPUS: i64 = 64;
