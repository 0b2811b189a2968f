//! A request and an image's configuration made into one, and what docker fills in where nobody said.
//!
//! It is what is written down, shown and committed: the image may be gone, or another one may have its name, when the container is started.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use bollard_stubs::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigCgroupnsModeEnum, RestartPolicyNameEnum,
};
use iso_builder::oci::Healthcheck;
use wire::guestinfo::signal_number;
use wire::spec::SHM_SIZE;

use super::Refusal;
use crate::plan::ImageConfig;

/// What the request says goes before what the image says.
pub(super) fn merge(mut asked: ContainerCreateBody, image: &ImageConfig) -> Result<ContainerCreateBody, Refusal> {
    let listed = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
    if !listed(&asked.entrypoint) {
        if !listed(&asked.cmd) {
            asked.cmd = filled(&image.cmd);
        }
        asked.entrypoint = filled(&image.entrypoint);
    }
    // `--entrypoint ""`: none, the image's neither
    if asked.entrypoint.as_deref().is_some_and(|words| words.len() == 1 && words[0].is_empty()) {
        asked.entrypoint = None;
    }
    if !listed(&asked.entrypoint) && !listed(&asked.cmd) {
        return Err(Refusal("no command specified".into()));
    }
    let or = |said: Option<String>, image: &str| Some(said.filter(|text| !text.is_empty()).unwrap_or(image.to_owned()));
    asked.user = or(asked.user, &image.user);
    asked.working_dir = or(asked.working_dir, &image.working_dir);
    if let Some(dir) = asked.working_dir.as_deref().filter(|dir| !dir.is_empty() && !dir.starts_with('/')) {
        return Err(Refusal(format!("the working directory '{dir}' is invalid, it needs to be an absolute path")));
    }
    asked.stop_signal = or(asked.stop_signal, image.stop_signal.as_deref().unwrap_or_default());
    if let Some(signal) = asked.stop_signal.as_deref().filter(|text| !text.is_empty())
        && signal_number(signal).is_none()
    {
        return Err(Refusal(format!("invalid signal: {signal}")));
    }
    asked.env = Some(environment(asked.env.unwrap_or_default(), &image.env)?);
    let mut labels = asked.labels.unwrap_or_default();
    for (key, value) in &image.labels {
        labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
    asked.labels = Some(labels);
    asked.volumes = Some(union(asked.volumes, &image.volumes, []));
    let host = asked.host_config.get_or_insert_default();
    let published = host.port_bindings.iter().flatten().map(|(port, _)| port.clone());
    asked.exposed_ports = Some(union(asked.exposed_ports, &image.exposed_ports, published));
    asked.healthcheck = health(asked.healthcheck, image.healthcheck.as_ref())?;
    fill(host);
    if let Some(endpoints) = asked.networking_config.as_mut().and_then(|config| config.endpoints_config.as_mut())
        && let Some(endpoint) = endpoints.remove("default")
    {
        endpoints.entry(BRIDGE.into()).or_insert(endpoint);
    }
    Ok(asked)
}

/// Docker's defaults. Memory and processors are a machine's, which has always so much of them.
fn fill(host: &mut HostConfig) {
    let empty = |text: &Option<String>| text.as_deref().unwrap_or_default().is_empty();
    if empty(&host.network_mode) || host.network_mode.as_deref() == Some("default") {
        host.network_mode = Some(BRIDGE.into());
    }
    if empty(&host.ipc_mode) {
        host.ipc_mode = Some("private".into());
    }
    if empty(&host.runtime) {
        host.runtime = Some(super::RUNTIME.into());
    }
    if host.cgroupns_mode.is_none_or(|mode| mode == HostConfigCgroupnsModeEnum::EMPTY) {
        host.cgroupns_mode = Some(HostConfigCgroupnsModeEnum::PRIVATE);
    }
    let zero = |number: Option<i64>| number.unwrap_or_default() == 0;
    if zero(host.shm_size) {
        host.shm_size = i64::try_from(SHM_SIZE).ok();
    }
    if zero(host.memory) {
        host.memory = Some(MEMORY);
    }
    if zero(host.nano_cpus) && host.cpu_quota.unwrap_or_default() <= 0 {
        host.nano_cpus = Some(NANO_CPUS);
    }
    let paths = |paths: &[&str]| Some(paths.iter().map(|path| (*path).to_owned()).collect());
    host.masked_paths = paths(&MASKED);
    host.readonly_paths = paths(&READ_ONLY);
    host.pids_limit = host.pids_limit.filter(|&most| most != 0);
    host.memory_swappiness = host.memory_swappiness.filter(|&swappiness| swappiness >= 0);
    let log = host.log_config.get_or_insert_default();
    if empty(&log.typ) {
        log.typ = Some("json-file".into());
    }
    log.config.get_or_insert_default();
    let policy = host.restart_policy.get_or_insert_default();
    if policy.name.is_none_or(|name| name == RestartPolicyNameEnum::EMPTY) {
        policy.name = Some(RestartPolicyNameEnum::NO);
    }
    policy.maximum_retry_count.get_or_insert_default();
}

/// The request's variables, then those of the image's that it does not name.
fn environment(asked: Vec<String>, image: &[String]) -> Result<Vec<String>, Refusal> {
    let name = |entry: &str| entry.split_once('=').map_or(entry, |(name, _)| name).to_owned();
    if let Some(odd) = asked.iter().find(|entry| name(entry).is_empty()) {
        return Err(Refusal(format!("invalid environment variable: {odd}")));
    }
    let known: BTreeSet<String> = asked.iter().map(|entry| name(entry)).collect();
    let more = image.iter().filter(|entry| !known.contains(&name(entry))).cloned();
    let all = asked.iter().cloned().chain(more);
    Ok(all.collect())
}

/// The request's check; what it leaves out, it takes from the image's.
fn health(asked: Option<HealthConfig>, image: Option<&Healthcheck>) -> Result<Option<HealthConfig>, Refusal> {
    let times = |check: &HealthConfig| {
        let HealthConfig { interval, timeout, start_period, start_interval, .. } = check.clone();
        [("Interval", interval), ("Timeout", timeout), ("StartPeriod", start_period), ("StartInterval", start_interval)]
    };
    let test = |check: &Healthcheck| Some(check.test.clone());
    let Some(mut check) = asked else {
        let taken = image.map(|image| HealthConfig {
            test: test(image),
            interval: nanoseconds(image.interval),
            timeout: nanoseconds(image.timeout),
            start_period: nanoseconds(image.start_period),
            start_interval: nanoseconds(image.start_interval),
            retries: Some(image.retries.into()),
        });
        return Ok(taken);
    };
    for (name, time) in times(&check) {
        if time.is_some_and(|ns| ns != 0 && ns < 1_000_000) {
            return Err(Refusal(format!("{name} in Healthcheck cannot be less than 1ms")));
        }
    }
    if check.retries.unwrap_or_default() < 0 {
        return Err(Refusal("Retries in Healthcheck cannot be negative".into()));
    }
    let kind = check.test.iter().flatten().next().map(String::as_str);
    if let Some(kind) = kind.filter(|kind| !["NONE", "CMD", "CMD-SHELL", ""].contains(kind)) {
        return Err(Refusal(format!("Unknown healthcheck type '{kind}' (expected 'CMD')")));
    }
    if let Some(image) = image {
        if check.test.iter().flatten().next().is_none() {
            check.test = test(image);
        }
        let or = |said: Option<i64>, image: Duration| {
            if said.unwrap_or_default() == 0 { nanoseconds(image) } else { said }
        };
        check.interval = or(check.interval, image.interval);
        check.timeout = or(check.timeout, image.timeout);
        check.start_period = or(check.start_period, image.start_period);
        check.start_interval = or(check.start_interval, image.start_interval);
        check.retries = check.retries.filter(|&times| times != 0).or(Some(image.retries.into()));
    }
    Ok(Some(check))
}

fn nanoseconds(time: Duration) -> Option<i64> {
    i64::try_from(time.as_nanos()).ok().filter(|&ns| ns != 0)
}

fn union(asked: Option<Names>, image: &[String], more: impl IntoIterator<Item = String>) -> Names {
    let more = image.iter().cloned().chain(more).map(|name| (name, HashMap::new()));
    asked.into_iter().flatten().chain(more).collect()
}

/// A set, as Go's JSON has it.
type Names = HashMap<String, HashMap<(), ()>>;

fn filled(words: &[String]) -> Option<Vec<String>> {
    (!words.is_empty()).then(|| words.to_vec())
}

/// Docker's network of those that name none.
const BRIDGE: &str = "bridge";
/// Bytes, as `vch run` has it.
const MEMORY: i64 = 512 << 20;
/// One processor, as `vch run` has it.
const NANO_CPUS: i64 = 1_000_000_000;
/// What no container sees of its machine, whatever it may: docker's own list.
const MASKED: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
/// What no container changes.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
