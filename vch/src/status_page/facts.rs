//! What is known of the host and its containers, in one form for the page, for `/status.json` and for the bundle.

use std::fs;

use serde::Serialize;
use wire::link::Counters;
use wire::status::Status;

use super::vitals::Vital;
use crate::api::Condition;
use crate::containers::{Container, State};
use crate::hub::{GuestStatus, PipeState};
use crate::timestamp;

/// All of it.
#[derive(Debug, Serialize)]
pub(super) struct Facts {
    pub(super) host: HostFacts,
    pub(super) containers: Vec<ContainerFacts>,
}

/// This program.
#[derive(Debug, Serialize)]
pub(super) struct HostFacts {
    pub(super) version: &'static str,
    pub(super) name: String,
    pub(super) now: String,
    pub(super) began: String,
    pub(super) uptime_seconds: u64,
    pub(super) memory: OwnMemory,
    pub(super) listeners: Vec<(&'static str, Vec<String>)>,
    pub(super) running: usize,
    pub(super) created: usize,
    pub(super) exited: usize,
}

/// Of this program, in bytes: proc_pid_status(5), `VmRSS` and `VmHWM`.
#[derive(Debug, Default, Serialize)]
pub(super) struct OwnMemory {
    pub(super) resident: u64,
    pub(super) peak: u64,
}

/// One container.
#[derive(Debug, Serialize)]
pub(super) struct ContainerFacts {
    pub(super) name: String,
    pub(super) id: String,
    pub(super) vm: String,
    pub(super) image: String,
    /// Docker's word.
    pub(super) state: &'static str,
    /// As in `docker ps`.
    pub(super) status: String,
    pub(super) exit_code: Option<u8>,
    pub(super) error: Option<String>,
    pub(super) health: Option<&'static str>,
    pub(super) created: String,
    /// How often its process was started again, by its guest in this boot.
    pub(super) restarts: u32,
    pub(super) link: LinkFacts,
    pub(super) usage: Option<Usage>,
    /// What vSphere calls its VM, as the host of its serial port says.
    pub(super) vmware_name: Option<String>,
    pub(super) vmware_uuid: Option<String>,
    /// Bytes of its output that are kept.
    pub(super) log_bytes: u64,
    /// What its guest told last of its machine.
    pub(super) machine: Option<Status>,
}

/// The link to a container's guest.
#[derive(Debug, Serialize)]
pub(super) struct LinkFacts {
    pub(super) state: LinkState,
    pub(super) since: Option<String>,
    pub(super) since_seconds: Option<u64>,
    /// How often it was opened.
    pub(super) opened: u64,
    /// Bytes that were no packets.
    pub(super) noise_bytes: u64,
    /// Packets and greetings that were not taken: forged, repeated, misplaced, or not understood.
    pub(super) refused: u64,
    /// The guest program's version, where this host has heard it.
    pub(super) guest_version: Option<String>,
}

/// How a link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum LinkState {
    Open,
    Cut,
    /// There is no machine to have one with.
    None,
}

/// What a machine uses. Bytes; the limit is the machine's memory where the container has none of its own.
#[derive(Debug, Serialize)]
pub(super) struct Usage {
    pub(super) uptime_seconds: u64,
    pub(super) memory: u64,
    pub(super) memory_limit: u64,
    pub(super) cpu_seconds: f64,
    pub(super) processes: u64,
    /// How old this is.
    pub(super) age_seconds: u64,
}

impl HostFacts {
    pub(super) fn of(
        containers: &[std::sync::Arc<Container>],
        listeners: &[(&'static str, Vec<String>)],
        began_ns: u64,
        now_ns: u64,
    ) -> HostFacts {
        let count = |fits: fn(&State) -> bool| containers.iter().filter(|container| fits(&container.state())).count();
        HostFacts {
            version: env!("CARGO_PKG_VERSION"),
            name: fs::read_to_string("/proc/sys/kernel/hostname")
                .map(|name| name.trim().to_owned())
                .unwrap_or_default(),
            now: timestamp::format(now_ns),
            began: timestamp::format(began_ns),
            uptime_seconds: seconds(began_ns, now_ns),
            memory: OwnMemory::now(),
            listeners: listeners.iter().filter(|(_, places)| !places.is_empty()).cloned().collect(),
            running: count(State::is_running),
            created: count(|state| *state == State::Created),
            exited: count(|state| matches!(state, State::Exited(_))),
        }
    }
}

impl OwnMemory {
    fn now() -> OwnMemory {
        fs::read_to_string("/proc/self/status").map(|text| OwnMemory::parse(&text)).unwrap_or_default()
    }

    fn parse(text: &str) -> OwnMemory {
        let bytes = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim_start_matches(':').trim().strip_suffix(" kB")?.parse::<u64>().ok()
        };
        let bytes = |name| bytes(name).map(|kib| kib * 1024).unwrap_or_default();
        OwnMemory { resident: bytes("VmRSS"), peak: bytes("VmHWM") }
    }
}

impl ContainerFacts {
    pub(super) fn of(container: &Container, vital: Option<Vital>, now_ns: u64) -> ContainerFacts {
        let state = container.state();
        let condition = Condition::of(container);
        let exited = match &state {
            State::Exited(exited) => Some(exited),
            State::Created | State::Running(_) | State::Restarting(_) => None,
        };
        let names = container.vmware_names();
        let machine = container.machine();
        ContainerFacts {
            name: container.name(),
            id: container.id.clone(),
            vm: container.vm(),
            image: container.image(),
            state: condition.word,
            status: condition.status(&state, now_ns),
            exit_code: exited.map(|exited| exited.code),
            error: exited.map(|exited| exited.error.clone()).filter(|error| !error.is_empty()),
            health: condition.health,
            created: timestamp::format(container.created_ns()),
            restarts: machine.as_ref().and_then(Status::main).map(|main| main.restarts).unwrap_or_default(),
            link: LinkFacts::of(container.guest().as_ref(), container.link_changed_ns(), now_ns),
            usage: vital.map(|vital| Usage::of(&vital, now_ns)),
            vmware_name: names.as_ref().and_then(|names| names.name.clone()),
            vmware_uuid: names.and_then(|names| names.instance_uuid),
            log_bytes: container.journal.size(),
            machine,
        }
    }

    /// As docker shortens it.
    pub(super) fn short_id(&self) -> &str {
        self.id.get(..12).unwrap_or(&self.id)
    }
}

impl LinkFacts {
    fn of(guest: Option<&GuestStatus>, changed_ns: Option<u64>, now_ns: u64) -> LinkFacts {
        let state = match guest.map(|guest| guest.pipe) {
            Some(PipeState::Open) => LinkState::Open,
            Some(PipeState::Awaited | PipeState::Down | PipeState::Unproved) => LinkState::Cut,
            None => LinkState::None,
        };
        let counters = guest.map(|guest| guest.counters).unwrap_or_default();
        LinkFacts {
            state,
            since: changed_ns.map(timestamp::format),
            since_seconds: changed_ns.map(|changed| seconds(changed, now_ns)),
            opened: guest.map(|guest| guest.opened).unwrap_or_default(),
            noise_bytes: counters.noise.bytes,
            refused: refused(&counters),
            guest_version: guest.and_then(|guest| guest.ready.as_ref()).map(|ready| ready.version.clone()),
        }
    }
}

/// What an intact line and an honest guest do not send.
fn refused(counters: &Counters) -> u64 {
    let Counters { malformed, unknown, misplaced, forged, replayed, hurried, .. } = counters;
    let Counters { wrong_vm, wrong_version, wrong_sealing, .. } = counters;
    malformed + unknown + misplaced + forged + replayed + hurried + wrong_vm + wrong_version + wrong_sealing
}

impl Usage {
    fn of(vital: &Vital, now_ns: u64) -> Usage {
        let stats = &vital.stats;
        let age = seconds(vital.at_ns, now_ns);
        let memory = &stats.memory;
        Usage {
            uptime_seconds: stats.at_us / 1_000_000 + age,
            // as docker counts it: what the kernel would give back at once is not used
            memory: memory.current.saturating_sub(memory.inactive_file),
            memory_limit: if memory.limit == 0 { memory.total } else { memory.limit },
            cpu_seconds: std::time::Duration::from_micros(stats.cpu.usage_us).as_secs_f64(),
            processes: stats.pids,
            age_seconds: age,
        }
    }
}

fn seconds(from_ns: u64, to_ns: u64) -> u64 {
    to_ns.saturating_sub(from_ns) / 1_000_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_as_the_kernel_tells_it() {
        let memory = OwnMemory::parse("Name:\tvch\nVmHWM:\t    9000 kB\nVmRSS:\t    8192 kB\nThreads:\t3\n");
        assert_eq!((memory.resident, memory.peak), (8 << 20, 9000 << 10));
        assert!(OwnMemory::now().resident > 0);
    }

    #[test]
    fn a_limit_that_is_none_is_the_machine() {
        let mut stats = wire::vitals::Stats { at_us: 5_000_000, ..Default::default() };
        (stats.memory.current, stats.memory.inactive_file, stats.memory.total) = (100, 40, 1000);
        let vital = Vital { stats: stats.into(), at_ns: 0 };
        let usage = Usage::of(&vital, 3_000_000_000);
        assert_eq!((usage.memory, usage.memory_limit, usage.uptime_seconds, usage.age_seconds), (60, 1000, 8, 3));
    }
}
