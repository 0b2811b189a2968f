//! What docker's request may ask and a virtual machine cannot give, and what of it has no effect: a sentence for each.
//!
//! A wish that would be a promise is refused; one whose absence nobody notices is warned of. Where docker has words of its own, they come first.

use bollard_stubs::models::{ContainerCreateBody, HostConfig, HostConfigCgroupnsModeEnum, RestartPolicyNameEnum};
use serde_json::Value;

use super::{Refusal, limits};

/// Words that only some of are known: they are looked at before the request is read.
pub(super) fn unknown_words(body: &Value) -> Result<(), Refusal> {
    let word = |path: &str| body.pointer(path).and_then(Value::as_str).unwrap_or_default();
    let policy = word("/HostConfig/RestartPolicy/Name");
    if !["", "no", "always", "on-failure", "unless-stopped"].contains(&policy) {
        return Err(Refusal(format!(
            "invalid restart policy: unknown policy '{policy}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        )));
    }
    let isolation = word("/HostConfig/Isolation");
    if !["", "default"].contains(&isolation) {
        return Err(Refusal(format!("invalid isolation {isolation:?}: {ONE_WAY}, which is `default`")));
    }
    let cgroups = word("/HostConfig/CgroupnsMode");
    if !["", "private", "host"].contains(&cgroups) {
        return Err(Refusal(format!("invalid cgroup namespace mode: {cgroups}")));
    }
    Ok(())
}

/// Refuses what cannot be.
pub(super) fn check(asked: &ContainerCreateBody) -> Result<(), Refusal> {
    let Some(host) = &asked.host_config else { return Ok(()) };
    limits::check(host)?;
    restart(host)?;
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    for (flag, mode, alone) in [
        ("--pid", text(&host.pid_mode), &["", "private"][..]),
        ("--ipc", text(&host.ipc_mode), &["", "none", "private", "shareable"]),
        ("--uts", text(&host.uts_mode), &["", "private"]),
        // it asks for real root, which it is
        ("--userns", text(&host.userns_mode), &["", "host", "private"]),
        ("--cgroup", text(&host.cgroup), &[""]),
    ] {
        if !alone.contains(&mode.as_str()) {
            return Err(Refusal(format!("{flag} {mode}: {SHARED}")));
        }
    }
    if host.cgroupns_mode == Some(HostConfigCgroupnsModeEnum::HOST) {
        return Err(Refusal(format!("--cgroupns host: {SHARED}")));
    }
    let network = text(&host.network_mode);
    if network == "host" || network.starts_with("container:") {
        return Err(Refusal(format!("--network {network}: {OWN_NETWORK}")));
    }
    if let Some(device) = host.devices.iter().flatten().next() {
        let path = device.path_on_host.clone().unwrap_or_default();
        return Err(Refusal(format!("--device {path}: {NO_DEVICE}")));
    }
    if host.device_requests.as_ref().is_some_and(|requests| !requests.is_empty()) {
        return Err(Refusal(format!("--gpus: could not select device driver: {NO_DEVICE}")));
    }
    let runtime = text(&host.runtime);
    if !["", RUNTIME].contains(&runtime.as_str()) {
        return Err(Refusal(format!("unknown or invalid runtime name: {runtime} ({ONE_WAY})")));
    }
    let driver = text(&host.volume_driver);
    if !["", "local"].contains(&driver.as_str()) {
        return Err(Refusal(format!(
            "error looking up volume plugin {driver}: plugin {driver:?} not found: a volume is a disk in the state directory"
        )));
    }
    if let Some((name, _)) = host.storage_opt.iter().flatten().next() {
        return Err(Refusal(format!(
            "--storage-opt {name}: a container's disk grows as it is used: mount a volume of another size with --mount \
             type=volume,target=DIR,volume-opt=size=SIZE"
        )));
    }
    Ok(())
}

fn restart(host: &HostConfig) -> Result<(), Refusal> {
    let policy = host.restart_policy.clone().unwrap_or_default();
    let (name, most) =
        (policy.name.unwrap_or(RestartPolicyNameEnum::NO), policy.maximum_retry_count.unwrap_or_default());
    let none = matches!(name, RestartPolicyNameEnum::NO | RestartPolicyNameEnum::EMPTY);
    let why = match name {
        RestartPolicyNameEnum::ON_FAILURE if most < 0 => "maximum retry count cannot be negative",
        RestartPolicyNameEnum::ON_FAILURE => "",
        _ if most < 0 => "maximum retry count can only be used with 'on-failure' and cannot be negative",
        _ if most > 0 => "maximum retry count can only be used with 'on-failure'",
        _ => "",
    };
    match () {
        () if !why.is_empty() => Err(Refusal(format!("invalid restart policy: {why}"))),
        () if !none && host.auto_remove == Some(true) => {
            Err(Refusal("can't create 'AutoRemove' container with restart policy".into()))
        }
        () => Ok(()),
    }
}

/// What is passed over, and why nobody misses it.
pub(super) fn warnings(asked: &ContainerCreateBody) -> Vec<String> {
    let Some(host) = &asked.host_config else { return Vec::new() };
    let number = |asked: Option<i64>| asked.unwrap_or_default() != 0;
    let text = |text: &Option<String>| !text.as_deref().unwrap_or_default().is_empty();
    let any = [
        &host.blkio_device_read_bps,
        &host.blkio_device_write_bps,
        &host.blkio_device_read_iops,
        &host.blkio_device_write_iops,
    ];
    let disks = host.blkio_weight.unwrap_or_default() != 0
        || host.blkio_weight_device.as_ref().is_some_and(|list| !list.is_empty())
        || any.into_iter().flatten().any(|list| !list.is_empty());
    let labels =
        host.security_opt.iter().flatten().any(|option| option.starts_with("label") && !option.ends_with("disable"));
    let log = host.log_config.as_ref().and_then(|log| log.config.as_ref());
    // `systempaths=unconfined`, as docker's client sends it
    let is_open = |paths: &Option<Vec<String>>| paths.as_ref().is_some_and(Vec::is_empty);
    let paths = host.privileged == Some(true) || is_open(&host.masked_paths) || is_open(&host.readonly_paths);
    let all = [
        (paths, "--privileged or systempaths=unconfined for /proc and /sys", PROTECTED),
        (number(host.memory_swap), "--memory-swap", NO_SWAP),
        (host.memory_swappiness.is_some_and(|swappiness| swappiness >= 0), "--memory-swappiness", NO_SWAP),
        (number(host.memory_reservation), "--memory-reservation", "the machine gives back what it does not use"),
        (number(host.cpu_shares), "--cpu-shares", "the machine has the processors of --cpus"),
        (text(&host.cpuset_cpus), "--cpuset-cpus", PLACED),
        (text(&host.cpuset_mems), "--cpuset-mems", PLACED),
        (number(host.cpu_realtime_period) || number(host.cpu_realtime_runtime), "--cpu-rt-runtime", PLACED),
        (disks, "--blkio-weight and --device-read-bps", "the speed of a virtual machine's disks is not limited"),
        (
            host.oom_kill_disable == Some(true),
            "--oom-kill-disable",
            "when the machine's memory is used up something has to end: --oom-score-adj says how readily it is this process",
        ),
        (text(&host.cgroup_parent), "--cgroup-parent", "the machine has a kernel of its own"),
        (
            host.device_cgroup_rules.as_ref().is_some_and(|rules| !rules.is_empty()),
            "--device-cgroup-rule",
            "the machine has no devices of the host",
        ),
        (
            labels,
            "--security-opt label",
            "SELinux labels are for what shares a kernel, and the container is alone in its own",
        ),
        (
            log.is_some_and(|options| options.keys().any(|name| LOG_OPTIONS.contains(&name.as_str()))),
            "--log-opt",
            "what is kept of a container's output is limited for all of this host",
        ),
    ];
    let has = all.into_iter().filter(|(is, _, _)| *is);
    has.map(|(_, flag, why)| format!("{flag} has no effect: {why}")).collect()
}

/// A driver of docker's that is none here.
pub(super) fn log_driver(name: &str) -> Refusal {
    Refusal(format!("logger: no log driver named '{name}' is registered: there are json-file, local, syslog and none"))
}

/// Of docker's drivers that keep the output in files.
pub(super) const LOG_OPTIONS: [&str; 8] =
    ["max-size", "max-file", "compress", "mode", "max-buffer-size", "labels", "env", "tag"];
/// What runs the containers.
pub(crate) const RUNTIME: &str = "tether";
const SHARED: &str = "a virtual machine shares nothing of that kind with the host or with others";
const OWN_NETWORK: &str = "a virtual machine has a network of its own: let ports of the host lead to it with -p";
const NO_DEVICE: &str = "a device of the host cannot be passed into the virtual machine";
const ONE_WAY: &str = "there is one way to run a container here: as a virtual machine";
const NO_SWAP: &str = "the machine has the memory of --memory, and no swap";
const PLACED: &str = "where the machine's processors run, the host decides";
const PROTECTED: &str = "the guest protects them from whoever it is: set parameters of the kernel with --sysctl";
